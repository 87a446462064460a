"""How many items an expression has, as far as its source says so."""

import ast
from math import prod
from typing import Final

from evflow.lint.source import Source, whole

_SHAPED: Final = frozenset({"empty", "full", "ones", "zeros", "random.normal", "random.random", "random.standard_normal", "random.uniform"})
_SIZED: Final = frozenset({"random.binomial", "random.choice", "random.exponential", "random.poisson", "random.randint"})
"""What makes one number, or as many as a `size` says, by name or in the third place."""
_SAME_DATA: Final = frozenset({"numpy.array", "numpy.asarray", "pandas.DataFrame", "pandas.Series"})
_BYTES: Final = frozenset({"bytearray", "bytes", "os.urandom", "random.randbytes", "secrets.token_bytes"})
_NUMBER_BYTES: Final = 8
_BY_AXES: Final = frozenset({"random.rand", "random.randn"})
_LAZY: Final = frozenset({"iter", "itertools.product", "range", "reversed"})
"""What has items, and does not hold them."""
_SAME: Final = frozenset({"frozenset", "iter", "list", "reversed", "set", "sorted", "tuple"})


def items(source: Source, node: ast.expr) -> int | None:
    """How many items a `for` loop over it meets; at most, of a set. None where the source does not say."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return None if any(isinstance(one, ast.Starred) for one in node.elts) else len(node.elts)
    if isinstance(node, ast.Dict):
        return None if None in node.keys else len(node.keys)
    if isinstance(node, ast.ListComp | ast.SetComp):
        if any(one.ifs for one in node.generators):
            return None
        counts = [items(source, one.iter) for one in node.generators]
        return prod(one for one in counts if one is not None) if None not in counts else None
    if isinstance(node, ast.BinOp):
        return _of_two(source, node)
    if isinstance(node, ast.Call):
        return _of_call(source, node)
    return None


def elements(source: Source, node: ast.expr) -> int | None:
    """How many elements a list, or an array of numpy's, holds."""
    if isinstance(node, ast.Call):
        name = source.name(node.func)
        if name in _LAZY:
            return None
        if name in _SAME_DATA and node.args:
            return elements(source, node.args[0])
        if name.startswith("numpy.") and node.args:
            if name.removeprefix("numpy.") in _SHAPED:
                return _shape(source, _given(node, "size", "shape") or (node.args[0] if "random" not in name else node.args[-1]))
            if name.removeprefix("numpy.") in _SIZED:
                size = _given(node, "size") or (node.args[2] if len(node.args) > 2 else None)
                return _shape(source, size) if size is not None else None
            if name.removeprefix("numpy.") in _BY_AXES:
                return _shape(source, ast.Tuple(node.args, ast.Load()))
    return items(source, node)


def held(source: Source, node: ast.expr) -> tuple[int, str] | None:
    """How much a value holds, in numbers of eight bytes, and in words."""
    count = elements(source, node)
    if count is not None:
        return count, f"{count:,} elements"
    size = _size_bytes(source, node)
    return None if size is None else (size // _NUMBER_BYTES, f"{size:,} bytes")


def _size_bytes(source: Source, node: ast.expr) -> int | None:
    """How large a text is that is one repeated, or bytes of which a number is asked for; a character is a byte, at least."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for text, times in ((node.left, node.right), (node.right, node.left)):
            number = whole(times, source.numbers)
            if isinstance(text, ast.Constant) and isinstance(text.value, str | bytes) and number is not None:
                return len(text.value) * max(number, 0)
    if isinstance(node, ast.Call) and len(node.args) == 1 and source.name(node.func) in _BYTES:
        return whole(node.args[0], source.numbers)
    return None


def _of_two(source: Source, node: ast.BinOp) -> int | None:
    if isinstance(node.op, ast.Mult):
        for sequence, times in ((node.left, node.right), (node.right, node.left)):
            count, number = items(source, sequence), whole(times, source.numbers)
            if count is not None and number is not None:
                return count * max(number, 0)
    if isinstance(node.op, ast.Add):
        left, right = items(source, node.left), items(source, node.right)
        return left + right if left is not None and right is not None else None
    return None


def _of_call(source: Source, node: ast.Call) -> int | None:
    name = source.name(node.func)
    if name in _SAME and len(node.args) == 1:
        return items(source, node.args[0])
    if name in {"range", "numpy.arange"} and 1 <= len(node.args) <= 3:
        numbers = [whole(one, source.numbers) for one in node.args]
        known = [number for number in numbers if number is not None]
        return len(range(*known)) if len(known) == len(numbers) and known[2:] != [0] else None
    if name == "numpy.linspace":
        return whole(_given(node, "num") or (node.args[2] if len(node.args) > 2 else ast.Constant(50)), source.numbers)
    if name == "itertools.product" and node.args and not node.keywords:
        counts = [items(source, one) for one in node.args]
        return prod(one for one in counts if one is not None) if None not in counts else None
    return None


def _given(call: ast.Call, *names: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg in names), None)


def _shape(source: Source, node: ast.expr) -> int | None:
    axes = [whole(one, source.numbers) for one in (node.elts if isinstance(node, ast.Tuple | ast.List) else [node])]
    return prod(one for one in axes if one is not None) if None not in axes else None
