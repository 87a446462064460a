"""What reads the events of one class: a function that is compiled for it, since a replay does little else.

Three things are done with the values of an event: see that each has the type that its field declares, make the event, make
its record. A call for each of them costs three times as much as all of it in a row, which is what the functions made here are:

    def read(seq, values):
        _, v1, v2, v3, v4, v5, v6, v7, v8 = values
        if type(v1) is int and type(v2) is int and type(v3) is str and …:
            event = new(event_class)
            event.task = v5
            …
            record = new(record_class)
            record.seq = seq
            …
            return record

What containers hold is not looked at here, but in reports, which come from anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias, NoneType, UnionType
from typing import Any, TypeVar

from evflow.core.values import declared, fits, making

_R = TypeVar("_R")


def reader(record: type[_R], event: type, count: int) -> Callable[[int, Sequence[Any]], _R | None]:
    """A function from a position and an event's values to its record, or None where a value is not of its field's type.

    Args:
        record: The class of records, whose first field is the position, whose last one is the event.
        event: The event's class.
        count: How many values there are: the tag, the record's other fields, as many of the event's fields as are left.
    """
    names = [f"v{index}" for index in range(1, count)]
    *envelope, _ = list(declared(record).values())[1:]
    own = names[len(envelope) :]
    tests = [test for name, kind in zip(names, [*envelope, *declared(event).values()], strict=False) if (test := _test(name, kind))]
    make_event, uses = making("event", event, own)
    make_record, uses_too = making("record", record, ["seq", *names[: len(envelope)], "event"])
    lines = [
        "def read(seq, values):",
        f" _, {', '.join(names)} = values",
        f" if {' and '.join(tests)}:",
        *(f"  {line}" for line in [*make_event, *make_record, "return record"]),
    ]
    made: Callable[[int, Sequence[Any]], _R | None] = _compiled(lines, {**uses, **uses_too})
    return made


def report_reader(event: type[_R], count: int) -> Callable[[Sequence[Any]], tuple[_R, str] | None]:
    """A function from a report's values to its event and principal, or None where one is not of its field's type, or holds what it should not.

    Args:
        event: The event's class.
        count: How many values there are: the tag, the principal, as many of the event's fields as are left.
    """
    names = [f"v{index}" for index in range(1, count)]
    kinds = dict(zip(names, [str, *declared(event).values()], strict=False))
    deep = {f"{name}_kind": kind for name, kind in kinds.items() if _holds(kind)}
    tests = [
        f"fits({name}, {name}_kind)" if f"{name}_kind" in deep else _test(name, kind) for name, kind in kinds.items() if kind is not Any
    ]
    make, uses = making("event", event, names[1:])
    lines = [
        "def read(values):",
        f" _, {', '.join(names)} = values",
        f" if {' and '.join(tests)}:",
        *(f"  {line}" for line in [*make, "return event, v1"]),
    ]
    made: Callable[[Sequence[Any]], tuple[_R, str] | None] = _compiled(lines, {"fits": fits, **deep, **uses})
    return made


def _compiled(lines: Sequence[str], uses: Mapping[str, Any]) -> Any:
    found: dict[str, Any] = {"NoneType": NoneType, **uses}
    exec("\n".join(lines), found)  # noqa: S102 - names of fields and types, nothing else
    return found["read"]


def _holds(kind: Any) -> bool:
    """Whether values of a declared type hold others."""
    return isinstance(kind, GenericAlias) or (isinstance(kind, UnionType) and any(map(_holds, kind.__args__)))


def _test(name: str, kind: Any) -> str:
    """An expression that is true where the variable's value is of a declared type; nothing where every value is."""
    if kind is Any:
        return ""
    if isinstance(kind, UnionType):
        return f"({' or '.join(_test(name, one) for one in kind.__args__)})"
    if kind is float:
        return f"(type({name}) is float or type({name}) is int)"
    plain: Any = kind.__origin__ if isinstance(kind, GenericAlias) else getattr(kind, "__supertype__", kind)  # a NewType's
    return f"type({name}) is {plain.__name__}"
