"""What the source of a step says: its arguments and its `self.next` calls, with their lines.

Each file is parsed once per process. A step is found by its code object (file, first line, name), so neither
`inspect` nor importing anything of the user's is needed; cells of a notebook are found through `linecache`.
"""

import ast
import linecache
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from evflow.errors import UsageError

Definition = ast.FunctionDef | ast.AsyncFunctionDef
_Index = Mapping[tuple[int, str], Definition]

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class SourceMissing(UsageError):
    """A step's source cannot be found, and the graph is read from it."""

    code = "source-missing"

    def __init__(self, step: str, file: str) -> None:
        super().__init__(
            f"The source of step {step} cannot be found: it was defined in {file}.",
            "The graph of a flow is read from its source: define the flow in a file, or in a notebook's cell.",
        )


@dataclass(frozen=True, slots=True)
class NextCall:
    """One call of `self.next`.

    Attributes:
        kind: `linear`, `split`, `foreach` or `switch`; of a call that is wrong, what it comes closest to.
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


@dataclass(frozen=True, slots=True)
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
    if code not in _steps:
        definition = _index(code.co_filename).get((code.co_firstlineno, code.co_name))
        if definition is None:
            raise SourceMissing(name, code.co_filename)
        _steps[code] = _read(code.co_filename, definition)
    return _steps[code]


def class_line(cls: type) -> tuple[str, int]:
    """The file and the line of a class; line 0 where its source cannot be found."""
    for value in cls.__dict__.values():
        code = _code(value)
        if code is None or not code.co_qualname.startswith(f"{cls.__qualname__}."):
            continue
        tree = _trees.get(code.co_filename) or _parse(code.co_filename)
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
        before = [line for line in lines if line <= code.co_firstlineno]
        return code.co_filename, max(before, default=0)
    import sys

    return getattr(sys.modules.get(cls.__module__), "__file__", None) or "", 0


def forget(file: str) -> None:
    """Drop what is known of a file that changed."""
    _trees.pop(file, None)
    _indexes.pop(file, None)


_trees: dict[str, ast.Module] = {}
_indexes: dict[str, _Index] = {}
_steps: dict[CodeType, StepSource] = {}


def _code(function: object) -> CodeType | None:
    """The code of the innermost function under decorators that kept `__wrapped__`."""
    inner: object = function
    while inner is not None:
        function, inner = inner, getattr(inner, "__wrapped__", None)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _parse(file: str) -> ast.Module:
    try:
        text = Path(file).read_bytes()
    except (OSError, ValueError):
        text = "".join(linecache.getlines(file)).encode()
    try:
        _trees[file] = ast.parse(text, file)
    except (SyntaxError, ValueError):  # edited since it was imported
        _trees[file] = ast.Module([], [])
    return _trees[file]


def _index(file: str) -> _Index:
    if file not in _indexes:
        tree = _trees.get(file) or _parse(file)
        _indexes[file] = {(_first_line(node), node.name): node for node in _definitions(tree.body)}
    return _indexes[file]


def _definitions(statements: Sequence[ast.stmt]) -> Iterator[Definition]:
    for statement in statements:
        if isinstance(statement, Definition):
            yield statement
        for block in ("body", "orelse", "finalbody"):
            yield from _definitions(getattr(statement, block, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _definitions(part.body)


def _first_line(node: Definition) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _read(file: str, node: Definition) -> StepSource:
    arguments = node.args
    names = [*arguments.posonlyargs, *arguments.args]
    calls: list[NextCall] = []
    is_generator = False
    own_name = names[0].arg if names else ""
    for child in _body(node):
        if isinstance(child, ast.Yield | ast.YieldFrom):
            is_generator = True
        elif isinstance(child, ast.Call) and _attribute_of(child.func, own_name) == "next":
            calls.append(_call(child, own_name))
    return StepSource(file, node.lineno, len(names), is_generator, sorted(calls, key=lambda call: call.line))


def _body(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below a function, without those of functions and classes inside it."""
    pending = list(getattr(node, "body", ()))
    while pending:
        child = pending.pop()
        yield child
        if not isinstance(child, _NESTED):
            pending.extend(ast.iter_child_nodes(child))


def _attribute_of(node: ast.AST, owner: str) -> str | None:
    """`x` for `self.x`, else None."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner:
        return node.attr
    return None


def _call(node: ast.Call, owner: str) -> NextCall:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "num_parallel" in keywords:
        return _wrong(node, "linear", "num_parallel is not supported", 'use self.next(self.<step>, foreach="<name>")')
    if unknown := [name for name in keywords if name not in ("foreach", "condition")]:
        shown = unknown[0] or "**"
        return _wrong(node, "linear", f"self.next() does not take {shown}", "its options are foreach and condition")
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
