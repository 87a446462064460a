"""What the source of a step says: its arguments and its `self.next` calls, with their lines.

Each file is parsed once per process. A step is found by its code object (file, first line, name), so neither
`inspect` nor importing anything of the user's is needed; cells of a notebook are found through `linecache`.
"""

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

from evflow.core.values import field, value
from evflow.errors import UsageError

Definition = ast.FunctionDef | ast.AsyncFunctionDef

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_YIELDS = 0x20 | 0x200
"""CO_GENERATOR and CO_ASYNC_GENERATOR of a code's flags."""


class SourceMissing(UsageError):
    """A step's source cannot be found, and the graph is read from it."""

    code = "source-missing"

    def __init__(self, step: str, file: str) -> None:
        super().__init__(
            f"The source of step {step} cannot be found: it was defined in {file}.",
            "The graph of a flow is read from its source: define the flow in a file, or in a notebook's cell.",
        )


@value
class NextCall:
    """One call of `self.next`.

    Attributes:
        kind: `linear`, `split`, `foreach`, `parallel` or `switch`; of a call that is wrong, what it comes closest to.
        steps: The steps that it names, in order; of a switch in the order of its cases, each once.
        cases: Case, as text, to step.
        mistake: What is wrong with its form, and what to write instead; empty if nothing is.
    """

    line: int
    kind: str
    steps: tuple[str, ...]
    foreach: str | None = None
    condition: str | None = None
    cases: Mapping[str, str] = field(default_factory=dict[str, str])
    mistake: tuple[str, str] = ("", "")


@value
class StepSource:
    """A step as its source has it.

    Attributes:
        line: The line of its `def`.
        arguments: How many arguments it takes, `self` included.
        is_generator: Its body yields.
        calls: Its calls of `self.next`, in the order of the source.
    """

    file: str
    line: int
    arguments: int
    is_generator: bool
    calls: Sequence[NextCall]


def read_step(name: str, function: object) -> StepSource:
    """What the source of a step says.

    Raises:
        SourceMissing: There is no source, or it has changed since the file was imported.
    """
    code = _code(function)
    if code is None:
        raise SourceMissing(name, repr(function))
    parsed = _parsed(code.co_filename)
    place = (code.co_firstlineno, code.co_name)
    if place not in parsed.steps:
        definition = parsed.definitions.get(place)
        if definition is None:
            raise SourceMissing(name, code.co_filename)
        parsed.steps[place] = _read(code, definition)
    return parsed.steps[place]


def class_line(cls: type) -> tuple[str, int]:
    """The file and the line of a class; line 0 where its source cannot be found."""
    for member in cls.__dict__.values():
        code = _code(member)
        if code is not None and code.co_qualname.startswith(f"{cls.__qualname__}."):
            lines = _parsed(code.co_filename).classes.get(cls.__name__, ())
            return code.co_filename, max((line for line in lines if line <= code.co_firstlineno), default=0)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    lines = _parsed(file).classes.get(cls.__name__, ()) if file else ()
    return file, max(lines, default=0)


class _Parsed:
    """A file, parsed.

    Attributes:
        stamp: When it was changed; None for what is no file.
        definitions: First line (that of the first decorator) and name to function.
        classes: Name to the lines of classes of that name.
        steps: The same to what was read from it.
    """

    def __init__(self, file: str, stamp: int | None) -> None:
        self.stamp = stamp
        self.definitions: dict[tuple[int, str], Definition] = {}
        self.classes: dict[str, list[int]] = {}
        self.steps: dict[tuple[int, str], StepSource] = {}
        for statement in _statements(_parse(file).body, into_functions=True):
            if isinstance(statement, Definition):
                self.definitions[_first_line(statement), statement.name] = statement
            elif isinstance(statement, ast.ClassDef):
                self.classes.setdefault(statement.name, []).append(statement.lineno)


_files: dict[str, _Parsed] = {}


def _parsed(file: str) -> _Parsed:
    """The file as it is now: a notebook may have reloaded it."""
    try:
        stamp = os.stat(file).st_mtime_ns  # noqa: PTH116 - asked for each step
    except (OSError, ValueError):
        stamp = None
    known = _files.get(file)
    if known is None or known.stamp != stamp:
        known = _files[file] = _Parsed(file, stamp)
    return known


def _code(function: object) -> CodeType | None:
    """The code of the innermost function under decorators that kept `__wrapped__`."""
    inner: object = function
    while inner is not None:
        function, inner = inner, getattr(inner, "__wrapped__", None)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _parse(file: str) -> ast.Module:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - pathlib is a heavy import, for every command of a flow
            text = stream.read()
    except (OSError, ValueError):
        import linecache  # for cells of notebooks only

        text = "".join(linecache.getlines(file)).encode()
    try:
        return ast.parse(text, file)
    except (SyntaxError, ValueError):  # edited since it was imported
        return ast.Module([], [])


def _statements(block: Sequence[ast.stmt], *, into_functions: bool) -> Iterator[ast.stmt]:
    """The statements of a block and of all blocks in it, in the order of the source."""
    for statement in block:
        yield statement
        if isinstance(statement, _NESTED) and not into_functions:
            continue
        for name in ("body", "orelse", "handlers", "cases", "finalbody"):
            for inner in getattr(statement, name, ()):
                if isinstance(inner, ast.stmt):
                    yield from _statements((inner,), into_functions=into_functions)
                else:  # a handler of `try`, a case of `match`
                    yield from _statements(inner.body, into_functions=into_functions)


def _first_line(node: Definition) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _read(code: CodeType, node: Definition) -> StepSource:
    names = [*node.args.posonlyargs, *node.args.args]
    own_name = names[0].arg if names else ""
    calls = [
        _call(call, own_name)
        for statement in _statements(node.body, into_functions=False)
        for call in _calls(statement)
        if _attribute_of(call.func, own_name) == "next"
    ]
    return StepSource(code.co_filename, node.lineno, len(names), bool(code.co_flags & _YIELDS), calls)


def _calls(statement: ast.stmt) -> Iterator[ast.Call]:
    """The calls that a statement consists of: `self.next(...)`, `return self.next(...)`, `self.next(...) if c else ...`."""
    value = statement.value if isinstance(statement, ast.Expr | ast.Return) else None
    if isinstance(value, ast.Call):
        yield value
    elif value is not None and not isinstance(value, ast.Constant):
        yield from (node for node in ast.walk(value) if isinstance(node, ast.Call))


def _attribute_of(node: ast.AST, owner: str) -> str | None:
    """`x` for `self.x`, else None."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner:
        return node.attr
    return None


def _call(node: ast.Call, owner: str) -> NextCall:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if unknown := [name for name in keywords if name not in ("foreach", "condition", "num_parallel")]:
        shown = unknown[0] or "**"
        return _wrong(node, "linear", f"self.next() does not take {shown}", "its options are foreach, condition and num_parallel")
    if "num_parallel" in keywords:
        return _gang(node, keywords, owner)
    if len(node.args) == 1 and isinstance(node.args[0], ast.Dict):
        return _switch(node, node.args[0], keywords, owner)
    if "condition" in keywords:
        return _wrong(
            node, "switch", "condition= needs a dict of cases", 'write self.next({"small": self.a, "large": self.b}, condition="size")'
        )
    kind = "foreach" if "foreach" in keywords else "linear" if len(node.args) == 1 else "split"
    names = [_attribute_of(argument, owner) for argument in node.args]
    steps = tuple(name for name in names if name is not None)
    if not node.args:
        return _wrong(node, "linear", "self.next() names no step", "write self.next(self.<step>)")
    if None in names:
        return _wrong(
            node, kind, "self.next() can be read only where it names steps as self.<step>", "write the steps out: self.next(self.a, self.b)"
        )
    if kind == "foreach":
        return _foreach(node, steps, keywords["foreach"])
    if len(set(steps)) < len(steps):
        return _wrong(node, kind, "self.next() names a step twice", "use foreach to run one step several times", steps)
    return NextCall(node.lineno, kind, steps)


def _foreach(node: ast.Call, steps: tuple[str, ...], variable: ast.expr) -> NextCall:
    name = _literal(variable)
    if not isinstance(name, str):
        return _wrong(node, "foreach", "foreach takes the name of an artifact as a string", 'write foreach="<name>"', steps)
    if len(steps) != 1:
        return _wrong(node, "foreach", f"foreach leads to one step, not to {len(steps)}", "let that one step split", steps)
    return NextCall(node.lineno, "foreach", steps, foreach=name)


def _gang(node: ast.Call, keywords: Mapping[str | None, ast.expr], owner: str) -> NextCall:
    """A call with num_parallel; how many nodes there are is any expression."""
    steps = tuple(name for name in (_attribute_of(argument, owner) for argument in node.args) if name is not None)
    if "foreach" in keywords or "condition" in keywords:
        return _wrong(
            node, "parallel", "self.next() has num_parallel and another option", "write self.next(self.<step>, num_parallel=<number>)"
        )
    if len(node.args) != 1 or not steps:
        what = (
            f"num_parallel leads to one step, written as self.<step>, not to {len(node.args)}" if steps else "num_parallel needs one step"
        )
        return _wrong(node, "parallel", what, "write self.next(self.<step>, num_parallel=<number>)", steps)
    given = keywords["num_parallel"]
    value = given.value if isinstance(given, ast.Constant) else _literal(given)
    if (isinstance(given, ast.Constant) or value is not None) and (type(value) is not int or value < 1):
        return _wrong(node, "parallel", f"num_parallel={value!r} is no number of nodes", "give a number of at least 1", steps)
    return NextCall(node.lineno, "parallel", steps)


def _switch(node: ast.Call, given: ast.Dict, keywords: Mapping[str | None, ast.expr], owner: str) -> NextCall:
    targets = [_attribute_of(value, owner) for value in given.values]
    steps = tuple(dict.fromkeys(target for target in targets if target is not None))
    condition = _literal(keywords["condition"]) if "condition" in keywords else None
    if "foreach" in keywords:
        return _wrong(node, "switch", "self.next() has a switch and a foreach", "split in the step that the switch chooses", steps)
    if not isinstance(condition, str):
        return _wrong(node, "switch", "a switch needs the name of the variable that decides", 'write condition="<name>"', steps)
    if not given.values:
        return _wrong(node, "switch", "the switch has no cases", "give each value of the variable a step", steps)
    cases: dict[str, str] = {}
    for key, target in zip(given.keys, targets, strict=True):
        value = _literal(key) if key is not None else None
        if value is None:
            shown = ast.unparse(key) if key is not None else "**"
            return _wrong(node, "switch", f"the case {shown} is not a literal", "write each case as a string, a number or a bool", steps)
        if target is None:
            return _wrong(node, "switch", f"the case {value!r} does not lead to a step", "write it as self.<step>", steps)
        cases[str(value)] = target
    return NextCall(node.lineno, "switch", steps, condition=condition, cases=cases)


def _literal(node: ast.expr) -> Any:
    """A string, number or bool that is written out; None where the expression is anything else."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str | int | float | bool):
        return None
    if sign < 0:
        return None if isinstance(node.value, str | bool) else -node.value
    return node.value


def _wrong(node: ast.Call, kind: str, what: str, instead: str, steps: tuple[str, ...] = ()) -> NextCall:
    return NextCall(node.lineno, kind, steps, mistake=(what, instead))
