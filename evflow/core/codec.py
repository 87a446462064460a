"""Events as bytes, and the records that a log holds.

An event is a msgpack array `[tag, turn, at_us, principal, cause, *fields]`, fields by position, in
the order of its class. A report, which waits in an inbox and has no turn yet, is
`[tag, principal, *fields]`. Arrays instead of maps: half the bytes, and decoding is half the cost of a
replay (`docs/decisions/0002-events-by-position.md`).

A reader of an older version meets two things that it does not know, and neither is fatal: an unknown
tag becomes `Unknown`, and fields beyond the known ones are dropped.

What was read has the types that its class declares, so that nobody behind this module meets a text where a number
should stand. What containers hold is looked at in reports, which come from anywhere, in a run's first event, and in events
that are so few that no reader of their own was compiled (`evflow.core.readers`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import msgpack
from msgpack import unpackb

from evflow.core.events import TAGS, Event, RunStarted, Unknown
from evflow.core.ids import Micros, Seq
from evflow.core.readers import reader, report_reader
from evflow.core.values import contents, declared, fits, value
from evflow.errors import InternalError

_T = TypeVar("_T")
MAX_EVENT_BYTES = 32 * 1024
"""An event's limit; longer parts go to the store by digest."""
MAX_REPORT_BYTES = MAX_EVENT_BYTES - 128
"""A report's limit: as an event it gets a turn, an instant and a cause, and has to fit still."""
MAX_START_BYTES = 512 * 1024
"""The limit of `RunStarted`, which holds the graph: replay must not need anything else."""

HEAD = 5
"""Values of an event before its own fields."""
_REPORT_HEAD = 2
_TAG_OF: dict[type[Event], str] = {cls: tag for tag, cls in TAGS.items()}
_FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(declared(cls)) for cls in TAGS.values()}

_READERS: dict[tuple[str, int], Callable[[int, tuple[Any, ...]], "Record | None"]] = {}
"""A tag and a number of values to what reads them, where that has been compiled."""
_REPORT_READERS: dict[tuple[str, int], Callable[[tuple[Any, ...]], "tuple[Event, str] | None"]] = {}
_met: dict[tuple[str, int], int] = {}
_reported: dict[tuple[str, int], int] = {}
_OFTEN = 40
"""How many events of one kind are read before a reader is compiled for it, which costs as much as reading these."""


class UnreadableEvent(InternalError):
    """The bytes are not an event; `replay --verify` names the first one."""

    code = "unreadable-event"

    def __init__(self, why: str, seq: int = 0) -> None:
        place = f"Event {seq} cannot be read: its bytes are not an event" if seq else "These bytes are not an event"
        super().__init__(f"{place}: {why}.")
        self.why = why


class EventTooLarge(InternalError):
    """An event is over the limit: its writer should have put the long part into the store."""

    code = "event-too-large"

    def __init__(self, tag: str, size: int, limit: int) -> None:
        super().__init__(f"A {tag} event has {size} bytes; the limit is {limit}.")


@value
class Record:
    """An event at its place in a log.

    Attributes:
        seq: Its position.
        turn: The turn that it was appended in, from 1.
        at_us: The turn's instant: the server's clock, never backwards within a run.
        principal: Who caused it: `user:ada`, `worker:host:pid`, `scheduler`.
        cause: The position of the event that it answers, or 0.
    """

    seq: Seq
    turn: int
    at_us: Micros
    principal: str
    cause: int
    event: Event


def tag_of(event: Event) -> str:
    """The event's tag in the format."""
    return event.tag if isinstance(event, Unknown) else _TAG_OF[type(event)]


def fields_of(event: Event) -> dict[str, Any]:
    """The event's own fields by name, in order."""
    if isinstance(event, Unknown):
        return {f"field_{index}": value for index, value in enumerate(event.fields)}
    return {name: getattr(event, name) for name in _FIELDS[type(event)]}


def encode(event: Event, *, turn: int, at_us: int, principal: str, cause: int) -> bytes:
    """The event as it stands in a log.

    Raises:
        EventTooLarge: It has more than `MAX_EVENT_BYTES`.
    """
    return _pack(event, (tag_of(event), turn, at_us, principal, cause))


def encode_report(event: Event, *, principal: str) -> bytes:
    """The event as it waits in an inbox.

    Raises:
        EventTooLarge: It has more than `MAX_REPORT_BYTES`.
    """
    payload = _pack(event, (tag_of(event), principal))
    if len(payload) > MAX_REPORT_BYTES and not isinstance(event, RunStarted):
        raise EventTooLarge(tag_of(event), len(payload), MAX_REPORT_BYTES)
    return payload


def decode(seq: int, payload: bytes) -> Record:
    """The record that `encode` wrote.

    Raises:
        UnreadableEvent: The bytes are no msgpack array of the format, or a field is missing.
    """
    try:
        # The usual case in one go: these lines are a third of what a replay costs.
        values = unpackb(payload, use_list=False)
        record = _READERS[values[0], len(values)](seq, values)
        if record is not None:
            return record
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        pass  # Not the usual case; below it gets its name.
    try:
        return _decode_unusual(seq, payload)
    except UnreadableEvent as error:
        raise UnreadableEvent(error.why, seq) from error


def _decode_unusual(seq: int, payload: bytes) -> Record:
    place: Any = seq
    values = unpack(payload)
    head = values[:HEAD]
    if tuple(map(type, head)) != (str, int, int, str, int):
        raise UnreadableEvent("not an array that begins with a tag, a turn, a time, a principal and a cause")
    tag, turn, at_us, principal, cause = head
    cls = TAGS.get(tag)
    event = build(tag, cls, values[HEAD:])
    if cls is not None and cls is not RunStarted and len(values) <= HEAD + len(_FIELDS[cls]):
        kind = tag, len(values)
        _met[kind] = _met.get(kind, 0) + 1
        if _met[kind] == _OFTEN:
            _READERS[kind] = reader(Record, cls, len(values))
    return Record(place, turn, at_us, principal, cause, event)


def decode_report(payload: bytes) -> tuple[Event, str]:
    """The event and the principal that `encode_report` wrote.

    Raises:
        UnreadableEvent: As for `decode`.
    """
    values = unpack(payload)
    if tuple(map(type, values[:_REPORT_HEAD])) != (str, str):
        raise UnreadableEvent("not an array that begins with a tag and a principal")
    kind = values[0], len(values)
    read = _REPORT_READERS.get(kind)
    if read is not None and (found := read(values)) is not None:
        return found
    cls = TAGS.get(values[0])
    event = build(values[0], cls, values[_REPORT_HEAD:])  # a report that has another value than it should gets its name here
    if cls is not None and cls is not RunStarted and len(values) <= _REPORT_HEAD + len(_FIELDS[cls]):
        _reported[kind] = _reported.get(kind, 0) + 1
        if _reported[kind] == _OFTEN:
            _REPORT_READERS[kind] = report_reader(cls, len(values))
    return event, values[1]


def as_read(event: Event) -> Event:
    """The event as readers of the log get it: what a process states itself, it has to fold like everybody else (I8).

    Raises:
        EventTooLarge: As for `encode`.
    """
    return decode_report(encode_report(event, principal=""))[0]


def build(tag: str, cls: type[Event] | None, values: Sequence[Any]) -> Event:
    """The event of a class from the values of its fields, surplus ones dropped; `Unknown` without a class.

    Raises:
        UnreadableEvent: A field is missing, or a value is not of its field's type.
    """
    if cls is None:
        return Unknown(tag, tuple(values))
    known = declared(cls)
    for (name, kind), given in zip(known.items(), values, strict=False):
        if not fits(given, kind):
            raise UnreadableEvent(f"{tag}.{name} is {type(given).__name__}, not {_name(kind)}")
    try:
        return cls(*values[: len(known)])
    except TypeError as error:
        raise UnreadableEvent(f"{tag}: {error}") from error


def _pack(event: Event, head: tuple[Any, ...]) -> bytes:
    if isinstance(event, Unknown):
        body: Iterable[Any] = event.fields
    else:
        body = contents(event)
    values = (*head, *body)
    try:
        payload: bytes = msgpack.packb(values)
    except UnicodeEncodeError:
        # Half a surrogate pair, as `sys.argv` and an exception's text may have: no reader could show it.
        payload = msgpack.packb(values, unicode_errors="backslashreplace")
    if len(payload) > MAX_EVENT_BYTES:
        limit = MAX_START_BYTES if isinstance(event, RunStarted) else MAX_EVENT_BYTES
        if len(payload) > limit:
            raise EventTooLarge(head[0], len(payload), limit)
    return payload


def unpack(payload: bytes) -> tuple[Any, ...]:
    """The values of an encoded array.

    Raises:
        UnreadableEvent: The bytes are no msgpack array.
    """
    try:
        values: Any = msgpack.unpackb(payload, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise UnreadableEvent(str(error).rstrip(".") or type(error).__name__) from error
    if cast("Any", type(values)) is not tuple:  # An extension type of msgpack is a tuple, too, of a class of its own.
        raise UnreadableEvent("not an array")
    found: tuple[Any, ...] = values
    return found


def pack_value(one: object) -> bytes:
    """A value's bytes, as they stand beside a log: an array, fields by position, new ones at the end with a default.

    Raises:
        TypeError, ValueError, OverflowError: A field holds what msgpack does not know.
    """
    packed: bytes = msgpack.packb([getattr(one, name) for name in declared(type(one))])
    return packed


def unpack_value(cls: type[_T], payload: bytes, what: str) -> _T:
    """The value that `pack_value` wrote; surplus fields, of a later version, are dropped.

    Args:
        cls: Its class.
        payload: The bytes.
        what: What it is, for the error: `a backfill`.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    values, known = unpack(payload), declared(cls)
    for (name, kind), given in zip(known.items(), values, strict=False):
        if not fits(given, kind):
            raise UnreadableEvent(f"{what}'s {name} is {type(given).__name__}")
    try:
        return cls(*values[: len(known)])
    except TypeError as error:
        raise UnreadableEvent(f"{what}: {error}") from error


def _name(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)
