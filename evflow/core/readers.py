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

What containers hold is not looked at here.
"""

from collections.abc import Callable, Sequence
from types import GenericAlias, NoneType, UnionType
from typing import Any, TypeVar

from evflow.core.values import declared, making

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
    found: dict[str, Any] = {"NoneType": NoneType, **uses, **uses_too}
    exec("\n".join(lines), found)  # noqa: S102 - names of fields and types, nothing else
    made: Callable[[int, Sequence[Any]], _R | None] = found["read"]
    return made


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
