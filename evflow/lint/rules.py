"""The rules: one function each, from a source to what it finds. A rule that is not sure says nothing.

What no rule asks is whether an artifact is read: everything that a step keeps may be read from outside, after the run.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Final

from evflow.lint.calls import by_chance, reads_data, reads_table, unkept, work, works_inside
from evflow.lint.sizes import held, items
from evflow.lint.source import LOCAL, Finding, Flow, Function, Source, at_import, attribute, body_of, own_expressions, owner, within

Rule = Callable[[Source], Iterator[Finding]]

SPLITS: Final = 100
"""`--max-num-splits` if nobody says otherwise."""
HUGE_SPLIT: Final = 10_000
"""A task costs some milliseconds and some events: tens of thousands are minutes of both, before any work."""
LARGE_ELEMENTS: Final = 10_000_000
"""80 MB of numbers."""
LARGE_ARTIFACT: Final = 100_000_000
"""0.8 GB of numbers: each task that reads them takes seconds to load them, and holds them all."""
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_CHANGING: Final = frozenset({"add", "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "sort", "update"})
_GROWING: Final = frozenset({"add", "append", "extend", "insert"})


def _found(node: ast.AST, code: str, message: str, hint: str) -> Finding:
    assert isinstance(node, ast.expr | ast.stmt)
    return Finding(node.lineno, node.col_offset + 1, code, message, hint)


# --- what a file does while it is loaded -----------------------------------------------------------------


def module_work(source: Source) -> Iterator[Finding]:
    """Work at the top of the file, which every process repeats that runs tasks of the flow."""
    for statement in at_import(source.tree):
        for node in own_expressions(statement):
            if not isinstance(node, ast.Call):
                continue
            what, by = work(source, node), ""
            if not what and isinstance(node.func, ast.Name) and node.func.id in source.functions:
                inside = next(works_inside(source, source.functions[node.func.id]), None)
                what, by = (inside[1], f", in line {inside[0].lineno}") if inside else ("", "")
            if what:
                yield _found(
                    node,
                    "module-work",
                    f"{_shown(source, node)} {what} while the file is loaded{by}: each process that runs tasks does it again.",
                    "Do it in the step that needs it, and keep the result in an artifact where others need it too.",
                )


def large_constant(source: Source) -> Iterator[Finding]:
    """A large value at the top of the file, or in a class's body."""
    for statement in at_import(source.tree):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        much = held(source, statement.value)
        if much is not None and much[0] >= LARGE_ELEMENTS:
            yield _found(
                statement,
                "large-constant",
                f"{much[1]} are made while the file is loaded: each process that runs tasks makes and holds them.",
                "Make them in the step that needs them.",
            )


def differs_by_process(source: Source) -> Iterator[Finding]:
    """A constant of the module that is another one in each process, and that a step reads."""
    read = {node.id for flow in source.flows for step in flow.steps.values() for node in ast.walk(step) if isinstance(node, ast.Name)}
    for statement in source.tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id in read]
        call = by_chance(source, statement.value)
        if names and call:
            yield _found(
                statement,
                "differs-by-process",
                f"{names[0]} is set by {call}() while the file is loaded: tasks in other processes, and retries later, see other values.",
                "Set it in the first step, as an artifact: self.… is the same for all tasks of a run.",
            )


def default_by_chance(source: Source) -> Iterator[Finding]:
    """A parameter's default that is drawn, or read from the clock, while the file is loaded."""
    for flow in source.flows:
        for given in flow.constants.values():
            if not isinstance(given, ast.Call) or source.name(given.func).rpartition(".")[2] != "Parameter":
                continue
            default = next((one.value for one in given.keywords if one.arg == "default"), given.args[1] if len(given.args) > 1 else None)
            call = by_chance(source, default) if default is not None and not isinstance(default, ast.Lambda) else ""
            if call and default is not None:
                yield _found(
                    default,
                    "default-by-chance",
                    f"The default is what {call}() says when the file is loaded: a deployed flow has the one of its deployment for ever.",
                    "Give a function, which is called when a run is asked for: default=lambda context: …; or set it in the first step.",
                )


# --- what steps keep -------------------------------------------------------------------------------------


def not_an_artifact(source: Source) -> Iterator[Finding]:
    """Something on `self` at a step's end that cannot be kept: functions, generators, open files, locks, connections, modules."""
    theirs = any(name.partition(".")[0] == "metaflow" for name in source.names.values())
    for flow, step in _steps(source):
        me, known = owner(step), _Known(source, flow, step)
        last: dict[str, tuple[ast.AST, ast.expr | None]] = {}
        for node, name, given in _assigned(step, me):
            last[name] = (node, given)
        for name, (node, given) in last.items():
            what = known.unkept(given) if given is not None and not name.startswith("__") else ""
            if what:
                # Metaflow's rules, under which a file runs that imports it: a function itself is left out, without a word.
                lost = theirs and what.startswith(("a lambda", "the function ", "the method "))
                then = "later steps do not have it" if lost else "the step fails at its end"
                yield _found(
                    node,
                    "not-an-artifact",
                    f"self.{name} is {what}, which cannot be kept: {then}.",
                    "Use a local variable, keep what it gives, or delete it before self.next: del self.…",
                )


class _Known:
    """What names stand for in a step: its own functions, what it assigns once, the flow's methods."""

    def __init__(self, source: Source, flow: Flow, step: Function) -> None:
        self._source = source
        self._me = owner(step)
        self._functions = {node.name for node in step.body if isinstance(node, _FUNCTIONS)}
        self._methods = {node.name for node in flow.node.body if isinstance(node, _FUNCTIONS) and not _is_property(node)}
        self._values: dict[str, list[ast.expr]] = {}
        self._changed = {
            node.value.id
            for node in body_of(step)
            if isinstance(node, ast.Attribute | ast.Subscript)
            and isinstance(node.value, ast.Name)
            and (isinstance(node.ctx, ast.Del) or (isinstance(node, ast.Attribute) and node.attr in _CHANGING))
        }
        for node in body_of(step):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._bind(target, node.value)
            elif isinstance(node, ast.With | ast.AsyncWith):
                for item in node.items:
                    self._bind(item.optional_vars, item.context_expr)
            elif isinstance(node, ast.For | ast.AsyncFor | ast.AugAssign | ast.NamedExpr):
                self._bind(node.target, ast.Constant(None))

    def _bind(self, target: ast.expr | None, given: ast.expr) -> None:
        for node in ast.walk(target) if target is not None else ():
            if isinstance(node, ast.Name):
                self._values.setdefault(node.id, []).append(given if node is target else ast.Constant(None))

    def value(self, given: ast.expr) -> ast.expr:
        """The value of a name that the step gives one value and never changes; what is no such name, as it is."""
        if not isinstance(given, ast.Name) or given.id in self._changed:
            return given
        values = self._values.get(given.id, [])
        return values[0] if len(values) == 1 else given

    def unkept(self, given: ast.expr) -> str:
        """What a value is, where it cannot be an artifact; empty where that is not known."""
        if isinstance(given, ast.Lambda):
            return "a lambda"
        if isinstance(given, ast.GeneratorExp):
            return "a generator"
        if isinstance(given, ast.List | ast.Tuple | ast.Set):
            return next((f"a {type(given).__name__.lower()} with {what} in it" for one in given.elts if (what := self._inside(one))), "")
        if isinstance(given, ast.Dict):
            return next((f"a dictionary with {what} in it" for one in given.values if (what := self._inside(one))), "")
        if isinstance(given, ast.Call):
            return self._unkept_call(given)
        if isinstance(given, ast.Name):
            return self._unkept_name(given.id)
        method = attribute(given, self._me)
        return f"the method {method}" if method in self._methods else ""

    def _inside(self, given: ast.expr) -> str:
        """The same of what is in a list: functions of the file are kept there, by their names."""
        by_name = isinstance(given, ast.Name) and given.id in self._source.functions
        return "" if by_name or isinstance(given, ast.Attribute) else self.unkept(given)

    def _unkept_call(self, call: ast.Call) -> str:
        if self._source.name(call.func) == "collections.defaultdict" and call.args and isinstance(call.args[0], ast.Lambda):
            return "a defaultdict with a lambda in it"
        function = self._source.functions.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if function is not None and any(isinstance(node, ast.Yield | ast.YieldFrom) for node in body_of(function)):
            return f"the generator that {function.name}() gives"
        return unkept(self._source, call)

    def _unkept_name(self, name: str) -> str:
        if name in self._functions:
            return f"the function {name} of this step"
        values = self._values.get(name, [])
        if len(values) == 1 and not isinstance(values[0], ast.Name):
            return self.unkept(values[0])
        if not values and name in self._source.functions:
            return f"the function {name}"
        return f"the module {self._source.names[name]}" if not values and name in self._source.modules else ""


def _is_property(method: Function) -> bool:
    return any(isinstance(one, ast.Name) and one.id in {"cached_property", "property"} for one in method.decorator_list)


def large_artifact(source: Source) -> Iterator[Finding]:
    """An artifact that a step makes large at once."""
    for flow, step in _steps(source):
        known = _Known(source, flow, step)
        last = {name: (node, given) for node, name, given in _assigned(step, owner(step))}
        for name, (node, given) in last.items():
            much = held(source, known.value(given)) if given is not None else None
            if much is not None and much[0] > LARGE_ARTIFACT and not name.startswith("__"):
                yield _found(
                    node,
                    "large-artifact",
                    f"self.{name} holds {much[1]}: all of them are stored, and each task that reads it loads and holds all of them.",
                    "Keep what later steps need of it, or the path of a file that they read in parts; a foreach makes and keeps each part in a task of its own.",
                )


def artifact_grows(source: Source) -> Iterator[Finding]:
    """An artifact that collects data in a loop: one that holds all of it at once, or is stored anew at each turn."""
    for flow, step in _steps(source):
        me = owner(step)
        loaded = {
            target.id
            for node in body_of(step)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and reads_table(source.name(node.value.func))
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for loop in body_of(step):
            if isinstance(loop, ast.For | ast.While):
                for node, name, given in _grown(loop, me):
                    is_data = isinstance(given, ast.Call) and reads_table(source.name(given.func))
                    if is_data or (isinstance(given, ast.Name) and given.id in loaded):
                        yield _found(
                            node,
                            "artifact-grows",
                            f"self.{name} holds all that this loop loads, in memory and in one artifact.",
                            "A foreach loads each in a task of its own: the tasks run beside each other, and none is loaded again after a failure.",
                        )
        if _comes_back(flow, step):
            for node, name, given in _grown(step, me):
                kept = attribute(given, me)
                if kept is not None:
                    yield _found(
                        node,
                        "artifact-grows",
                        f"self.{name} takes in another self.{kept} each time that the flow comes back to this step, and all of it is stored anew.",
                        "Keep what is needed of it (a number, a digest): each turn's own artifacts stay readable in its task.",
                    )


def mutable_constant(source: Source) -> Iterator[Finding]:
    """A list, dictionary or set in a flow's body that a step changes in place."""
    for flow, step in _steps(source):
        me = owner(step)
        mutable = {name for name, given in flow.constants.items() if _is_mutable(given)}
        for node in body_of(step):
            changed: str | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
                changed = attribute(node.func.value, me)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                changed = attribute(node.value, me)
            elif isinstance(node, ast.AugAssign):
                changed = attribute(node.target, me)
            if changed in mutable:
                yield _found(
                    node,
                    "mutable-constant",
                    f"self.{changed} is a constant of the class: what a step changes of it is lost, other tasks see it as it was.",
                    f"Set it in the first step, as an artifact: self.{changed} = …, and remove it from the class's body.",
                )


def _is_mutable(given: ast.expr) -> bool:
    if isinstance(given, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(given, ast.Call) and isinstance(given.func, ast.Name) and given.func.id in {"list", "dict", "set", "defaultdict"}


# --- foreach ---------------------------------------------------------------------------------------------


def wide_foreach(source: Source) -> Iterator[Finding]:
    """A foreach over more items than a run takes, or than tasks are worth."""
    for call, name, given in _foreaches(source):
        count = items(source, given)
        if count is None or count <= SPLITS:
            continue
        if count > HUGE_SPLIT:
            yield _found(
                call,
                "huge-foreach",
                f"The foreach over self.{name} makes {count:,} tasks; each costs milliseconds and events of its own.",
                "Give each task a part of them: some hundred tasks with some hundred items each.",
            )
        else:
            yield _found(
                call,
                "many-splits",
                f"The foreach over self.{name} makes {count:,} tasks; a run takes {SPLITS} at most if nothing else is said.",
                f"Run it with --max-num-splits {count}, or set max_num_splits in evflow.toml and silence this line.",
            )


def same_in_each_task(source: Source) -> Iterator[Finding]:
    """Data that each task of a foreach loads from one and the same place, and keeps."""
    for flow in source.flows:
        split = {
            target for step in flow.steps.values() for call in _nexts(step) for target in _targets(call, owner(step)) if _variable(call)
        }
        for name in sorted(split & set(flow.steps)):
            step = flow.steps[name]
            for node, kept, given in _assigned(step, owner(step)):
                if isinstance(given, ast.Call) and reads_data(source.name(given.func)) and _is_fixed(given):
                    yield _found(
                        node,
                        "same-in-each-task",
                        f"Each task of the foreach loads the same data into self.{kept}.",
                        f"Load it once in the step before: its tasks inherit self.{kept}, and load it when they read it.",
                    )


def _is_fixed(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return bool(given) and all(isinstance(one, ast.Constant) for one in given)


# --- steps -----------------------------------------------------------------------------------------------


def _steps(source: Source) -> Iterator[tuple[Flow, Function]]:
    """The steps that each flow defines itself."""
    for flow in source.flows:
        for member in flow.node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and flow.steps.get(member.name) is member:
                yield flow, member


def _assigned(step: Function, me: str) -> Iterator[tuple[ast.AST, str, ast.expr | None]]:
    """What a step assigns to attributes of `self`, in the order of the source: where, which, and the value; None where it is deleted or not plain."""
    for node in body_of(step):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name = attribute(target, me)
                if name is not None:
                    yield node, name, node.value
                elif isinstance(target, ast.Tuple | ast.List):
                    yield from (
                        (node, inner, given) for one, given in _unpacked(target, node.value) if (inner := attribute(one, me)) is not None
                    )
        elif isinstance(node, ast.AnnAssign) and (name := attribute(node.target, me)) is not None:
            yield node, name, node.value
        elif isinstance(node, ast.AugAssign) and (name := attribute(node.target, me)) is not None:
            yield node, name, None
        elif isinstance(node, ast.Delete):
            yield from ((node, name, None) for one in node.targets if (name := attribute(one, me)) is not None)


def _unpacked(target: ast.Tuple | ast.List, given: ast.expr) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """The targets of `a, b = x, y`, each with its value; None where the source does not say it."""
    values = given.elts if isinstance(given, ast.Tuple | ast.List) else []
    plain = len(values) == len(target.elts) and not any(isinstance(one, ast.Starred) for one in (*target.elts, *values))
    yield from zip(target.elts, values if plain else [None] * len(target.elts), strict=True)


def _grown(block: ast.AST, me: str) -> Iterator[tuple[ast.AST, str, ast.expr]]:
    """What takes in something: `self.x.append(y)`, `self.x[key] = y`, `self.x += [y]`: where, x, and y."""
    for part in getattr(block, "body", []):
        for node in within(part):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _GROWING and node.args:
                name = attribute(node.func.value, me)
                if name is not None:
                    yield node, name, node.args[-1]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                name = attribute(node.targets[0].value, me)
                if name is not None:
                    yield node, name, node.value
            elif isinstance(node, ast.AugAssign) and isinstance(node.value, ast.List):
                name = attribute(node.target, me)
                if name is not None:
                    yield from ((node, name, one) for one in node.value.elts)


def _nexts(step: Function) -> Iterator[ast.Call]:
    me = owner(step)
    for node in body_of(step):
        if isinstance(node, ast.Call) and attribute(node.func, me) == "next":
            yield node


def _targets(call: ast.Call, me: str) -> Iterator[str]:
    for given in call.args:
        for node in given.values if isinstance(given, ast.Dict) else [given]:
            name = attribute(node, me)
            if name is not None:
                yield name


def _variable(call: ast.Call) -> str | None:
    given = next((one.value for one in call.keywords if one.arg == "foreach"), None)
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _comes_back(flow: Flow, step: Function) -> bool:
    """Whether the steps behind a step lead to it again."""
    seen: set[str] = set()
    ahead = [step.name]
    while ahead:
        at = flow.steps.get(ahead.pop())
        for call in _nexts(at) if at is not None else ():
            for name in _targets(call, owner(at)) if at is not None else ():
                if name == step.name:
                    return True
                if name not in seen:
                    seen.add(name)
                    ahead.append(name)
    return False


def _foreaches(source: Source) -> Iterator[tuple[ast.Call, str, ast.expr]]:
    """The foreaches whose items are set once, in the same step or in the class's body: the call, the name, the value."""
    for flow, step in _steps(source):
        me = owner(step)
        for call in _nexts(step):
            name = _variable(call)
            if name is None:
                continue
            given = [value for _, assigned, value in _assigned(step, me) if assigned == name]
            if not given and name in flow.constants:
                given = [flow.constants[name]]
            if len(given) == 1 and given[0] is not None:
                yield call, name, given[0]


def _shown(source: Source, call: ast.Call) -> str:
    name = source.name(call.func).replace(LOCAL, "")
    return f"{name}()" if name else "A call"


CODES: Final[dict[str, Rule]] = {
    "artifact-grows": artifact_grows,
    "default-by-chance": default_by_chance,
    "differs-by-process": differs_by_process,
    "huge-foreach": wide_foreach,
    "large-artifact": large_artifact,
    "large-constant": large_constant,
    "many-splits": wide_foreach,
    "module-work": module_work,
    "mutable-constant": mutable_constant,
    "not-an-artifact": not_an_artifact,
    "same-in-each-task": same_in_each_task,
}
"""Each code, and the rule that gives it."""
