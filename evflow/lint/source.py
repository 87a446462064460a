"""A flow's file as its rules see it: the tree, what names mean, its flows and their steps.

Names are followed through imports only (`import pandas as pd`), never through values: a rule that is not sure says nothing.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from evflow.core.values import field, value
from evflow.errors import UsageError

Function = ast.FunctionDef | ast.AsyncFunctionDef
LOCAL: Final = "<locals>."
"""Stands before the name of something that is no import and nothing of Python's."""
_BUILTINS: Final = frozenset(dir(builtins))
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_IGNORE: Final = re.compile(r"#\s*evflow:\s*ignore(?:\[([^\]]*)\])?")


class SourceUnreadable(UsageError):
    """A file cannot be read as Python."""

    code = "source-unreadable"

    def __init__(self, file: str, line: int, why: str) -> None:
        super().__init__(f"{file}:{line}: {why}." if line else f"'{file}' cannot be read: {why}.", "Only Python can be looked at.")


@value
class Finding:
    """What will bite.

    Attributes:
        line: Where, from 1 on.
        column: Where in the line, from 1 on.
        code: The rule, which silences it: `# evflow: ignore[code]`.
        message: What is there, and what comes of it.
        hint: What to do instead.
    """

    line: int
    column: int
    code: str
    message: str
    hint: str


@value
class Flow:
    """A flow's class.

    Attributes:
        node: The class.
        steps: Its steps by name, those of bases in the same file included.
        constants: What its body assigns, by name.
    """

    node: ast.ClassDef
    steps: dict[str, Function]
    constants: dict[str, ast.expr]


@value
class Source:
    """A file.

    Attributes:
        tree: All of it.
        names: What a name of the module stands for: a dotted name, through imports.
        modules: Names that stand for modules.
        functions: The functions at its top level, by name.
        bound: Names that the file assigns or defines somewhere.
        numbers: Names of the module that are whole numbers, each assigned once.
        flows: Its flows.
        ignored: Lines with a comment that silences: the codes, or an empty set for all.
    """

    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict[str, str])
    modules: frozenset[str] = frozenset()
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    bound: frozenset[str] = frozenset()
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    flows: tuple[Flow, ...] = ()
    ignored: dict[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])

    def name(self, node: ast.AST) -> str:
        """The dotted name of an expression, `pandas.read_csv`; a call in it is written `()`. Empty where it has none.

        What begins with a name of the file's own begins with `LOCAL`: a list called `requests` is not the library.
        """
        if isinstance(node, ast.Name):
            return self.names.get(node.id) or (node.id if node.id in _BUILTINS and node.id not in self.bound else LOCAL + node.id)
        if isinstance(node, ast.Attribute):
            inner = self.name(node.value)
            return f"{inner}.{node.attr}" if inner else ""
        if isinstance(node, ast.Call):
            inner = self.name(node.func)
            return f"{inner}()" if inner else ""
        return ""


def read(text: str, file: str) -> Source:
    """Read a file.

    Raises:
        SourceUnreadable: It is no Python.
    """
    try:
        tree = ast.parse(text, file)
    except SyntaxError as error:
        raise SourceUnreadable(file, error.lineno or 1, f"it is no Python: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise SourceUnreadable(file, 0, str(error)) from None
    names, modules = _imports(tree)
    plain = Source(
        tree,
        names,
        modules,
        functions={node.name: node for node in tree.body if isinstance(node, _FUNCTIONS)},
        bound=frozenset(_bound(tree)),
        numbers=_numbers(tree),
        ignored=_ignored(text),
    )
    return replace(plain, flows=tuple(_flows(plain)))


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def _imports(tree: ast.Module) -> tuple[dict[str, str], frozenset[str]]:
    names: dict[str, str] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                names[bound] = alias.name if alias.asname else bound
                modules.add(bound)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names, frozenset(modules)


def _numbers(tree: ast.Module) -> dict[str, int]:
    found: dict[str, list[object]] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(node)
    numbers: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            number = whole(node.value, numbers)
            if number is not None and len(found[node.targets[0].id]) == 1:
                numbers[node.targets[0].id] = number
    return numbers


def whole(node: ast.expr | None, numbers: dict[str, int]) -> int | None:
    """The whole number that an expression of numbers comes to, or None."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, float) and node.value.is_integer():  # 1e6
            return int(node.value)
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name):
        return numbers.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = whole(node.operand, numbers)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp):
        left, right = whole(node.left, numbers), whole(node.right, numbers)
        if left is None or right is None:
            return None
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.FloorDiv() if right:
                return left // right
            case ast.Pow() if 0 <= right <= 64 and abs(left) <= 1 << 20:
                return int(left**right)
            case ast.LShift() if 0 <= right <= 64:
                return left << right
            case _:
                return None
    return None


def _flows(source: Source) -> Iterator[Flow]:
    known: dict[str, Flow] = {}
    for node in source.tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [known[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in known]
        if not bases and not any(source.name(base).rpartition(".")[2] == "FlowSpec" for base in node.bases):
            continue
        steps = {name: step for base in reversed(bases) for name, step in base.steps.items()}
        constants = {name: given for base in reversed(bases) for name, given in base.constants.items()}
        for member in node.body:
            if isinstance(member, _FUNCTIONS) and any(_is_step(source, decorator) for decorator in member.decorator_list):
                steps[member.name] = member
            elif isinstance(member, ast.Assign):
                constants |= {target.id: member.value for target in member.targets if isinstance(target, ast.Name)}
            elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.value is not None:
                constants[member.target.id] = member.value
        known[node.name] = Flow(node, steps, constants)
        yield known[node.name]


def _is_step(source: Source, decorator: ast.expr) -> bool:
    return source.name(decorator).rpartition(".")[2] == "step"


def _ignored(text: str) -> dict[int, frozenset[str]]:
    """Comments that silence, by line; a text that reads like one counts too."""
    found: dict[int, frozenset[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        said = _IGNORE.search(line)
        if said is not None:
            found[number] = frozenset(code.strip() for code in (said[1] or "").split(",") if code.strip())
    return found


# --- walking ---------------------------------------------------------------------------------------------


def owner(step: Function) -> str:
    """What a step calls its flow: `self`."""
    return step.args.args[0].arg if step.args.args else "self"


def attribute(node: ast.AST, self_name: str) -> str | None:
    """The attribute's name, of `self.name`; None of anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self_name:
        return node.attr
    return None


def within(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, but not what is in the bodies of functions and lambdas that it defines."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*_FUNCTIONS, ast.Lambda)):
            yield child
            continue
        yield from within(child)


def body_of(step: Function) -> Iterator[ast.AST]:
    """What a step's body holds, in the order of the source."""
    for statement in step.body:
        yield from _entered(statement)


def _entered(statement: ast.stmt) -> Iterator[ast.AST]:
    if isinstance(statement, _FUNCTIONS):
        yield statement
    else:
        yield from within(statement)


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that every process runs which loads the file; the bodies of classes, branches and loops are entered.

    The block under `if __name__ == "__main__":` is one of them: wherever a task runs, the file is loaded as `__main__`.
    """

    def entered(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in statements:
            if isinstance(statement, ast.If) and _is_for_types(statement.test):
                continue
            yield statement
            for part in ("body", "orelse", "finalbody"):
                if not isinstance(statement, _FUNCTIONS):
                    yield from entered(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from entered(handler.body)

    return entered(tree.body)


def own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement that run with it: not those of the statements in it, nor of functions' bodies."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt | ast.excepthandler):
            continue
        if not isinstance(child, ast.Lambda):
            yield from within(child)


def _is_for_types(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")
