"""Filters of payloads: declared, not programmed, so that a deployment can hold them and everybody reads them in the same way.

A filter maps fields of the payload to what they must be. A field is a name, or a path of names with dots, in which an item of a list goes by
its number from 0 (`items.0.name`). What it must be is

* a plain value: it is equal;
* a list: it is one of them;
* a mapping of `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `exists` to a value: all of these hold.

A field that is missing fits nothing but `{"exists": False}`; values that cannot be compared fit no comparison. True is not 1.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

MISSING: Final = object()
"""What a payload has where it lacks a field."""
MOST_FIELDS: Final = 20
_MOST_DIGITS: Final = 9
"""Of an item's number: no payload has more items, and `int` refuses far longer texts."""
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType({
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
})  # fmt: skip
OPERATORS: Final = ("==", "!=", *_ORDERS, "in", "not in", "exists")


def look_up(payload: object, path: str) -> Any:
    """A field of a payload, or `MISSING`; a name that has dots itself goes before a path."""
    if isinstance(payload, Mapping):
        held = cast("Mapping[str, Any]", payload)
        if path in held:
            return held[path]
        first, dot, rest = path.partition(".")
        if dot and first in held:
            return look_up(held[first], rest)
    elif isinstance(payload, list | tuple):
        items = cast("Sequence[Any]", payload)
        first, dot, rest = path.partition(".")
        if first.isascii() and first.isdecimal() and len(first) <= _MOST_DIGITS and int(first) < len(items):
            return look_up(items[int(first)], rest) if dot else items[int(first)]
    return MISSING


def fault(wanted: object) -> str | None:
    """What is wrong with a filter, as a sentence; None where nothing is."""
    if not isinstance(wanted, Mapping):
        return f"filter is {wanted!r}: it maps fields of the payload to what they must be, as {{'size': {{'>': 10}}}}."
    fields = cast("Mapping[object, object]", wanted)
    if len(fields) > MOST_FIELDS:
        return f"filter has {len(fields)} fields; {MOST_FIELDS} are allowed."
    for path, must in fields.items():
        if not isinstance(path, str) or not path:
            return f"filter has the field {path!r}: fields are texts."
        wrong = _field_fault(path, must)
        if wrong is not None:
            return wrong
    return None


def mismatch(wanted: Mapping[str, Any], payload: object) -> str | None:
    """Why a payload does not pass, for people; None where it does."""
    for path, must in wanted.items():
        given = look_up(payload, path)
        for sign, operand in _conditions(must):
            if not _holds(sign, given, operand):
                return f"{path} is {'missing' if given is MISSING else repr(given)[:80]}, wanted {sign} {operand!r}"
    return None


def _field_fault(path: str, must: object) -> str | None:
    for sign, operand in _conditions(must):
        if sign not in OPERATORS:
            return f"filter of {path!r} has {sign!r}: there are {', '.join(OPERATORS)}."
        if sign == "exists" and not isinstance(operand, bool):
            return f"filter of {path!r}: exists is True or False, not {operand!r}."
        if sign in ("in", "not in") and not isinstance(operand, list | tuple):
            return f"filter of {path!r}: {sign!r} takes a list, not {operand!r}."
        if sign in _ORDERS and (isinstance(operand, bool) or not isinstance(operand, int | float | str)):
            return f"filter of {path!r}: {sign!r} takes a number or a text, not {operand!r}."
        operands = cast("tuple[object, ...]", operand) if isinstance(operand, list | tuple) else (operand,)
        for one in operands:
            if not (one is None or isinstance(one, bool | int | float | str)):
                return f"filter of {path!r} compares with {one!r}: it compares with texts, numbers, True, False and None."
    return None


def _conditions(must: object) -> list[tuple[str, Any]]:
    if isinstance(must, Mapping):
        return list(cast("Mapping[str, Any]", must).items())
    return [("in" if isinstance(must, list | tuple) else "==", must)]


def _holds(sign: str, given: Any, operand: Any) -> bool:
    if sign == "exists":
        return bool((given is not MISSING) == operand)
    if given is MISSING:
        return False
    if sign in ("==", "!="):
        return _same(given, operand) == (sign == "==")
    if sign in ("in", "not in"):
        return any(_same(given, one) for one in operand) == (sign == "in")
    comparable: bool = (
        isinstance(given, str) == isinstance(operand, str) and isinstance(given, int | float | str) and not isinstance(given, bool)
    )
    return comparable and bool(_ORDERS[sign](given, operand))


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
