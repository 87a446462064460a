"""Events as bytes, and the records that a log holds.

An event is a msgpack array `[tag, turn, at_us, principal, cause, *fields]`, fields by position, in
the order of its class. A report, which waits in an inbox and has no turn yet, is
`[tag, principal, *fields]`. Arrays instead of maps: half the bytes, and decoding is half the cost of a
replay (`docs/decisions/0002-events-by-position.md`).

A reader of an older version meets two things that it does not know, and neither is fatal: an unknown
tag becomes `Unknown`, and fields beyond the known ones are dropped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, cast

import msgpack

from evflow.core.events import TAGS, Event, RunStarted, Unknown
from evflow.core.ids import Micros, Seq
from evflow.core.values import value
from evflow.errors import InternalError

MAX_EVENT_BYTES = 32 * 1024
"""An event's limit; longer parts go to the store by digest."""
MAX_START_BYTES = 512 * 1024
"""The limit of `RunStarted`, which holds the graph: replay must not need anything else."""

_HEAD = 5
_TAG_OF: dict[type[Event], str] = {cls: tag for tag, cls in TAGS.items()}
_FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(field.name for field in fields(cast("Any", cls))) for cls in TAGS.values()}
_READ: dict[str, tuple[type[Event], int]] = {tag: (cls, _HEAD + len(_FIELDS[cls])) for tag, cls in TAGS.items()}


class UnreadableEvent(InternalError):
    """The bytes are not an event; `replay --verify` names the first one."""

    code = "unreadable-event"

    def __init__(self, why: str) -> None:
        super().__init__(f"These bytes are not an event: {why}.")


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
        EventTooLarge: It has more than `MAX_EVENT_BYTES`.
    """
    return _pack(event, (tag_of(event), principal))


def decode(seq: int, payload: bytes) -> Record:
    """The record that `encode` wrote.

    Raises:
        UnreadableEvent: The bytes are no msgpack array of the format, or a field is missing.
    """
    try:
        # The usual case in one go: this line is half of what a replay costs.
        values = msgpack.unpackb(payload, use_list=False)
        cls, end = _READ[values[0]]
        return Record(Seq(seq), values[1], values[2], values[3], values[4], cls(*values[_HEAD:end]))
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        values = _unpack(payload, _HEAD)
        tag, turn, at_us, principal, cause = values[:_HEAD]
        return Record(Seq(seq), turn, at_us, principal, cause, _build(tag, values, _HEAD))


def decode_report(payload: bytes) -> tuple[Event, str]:
    """The event and the principal that `encode_report` wrote.

    Raises:
        UnreadableEvent: As for `decode`.
    """
    values = _unpack(payload, 2)
    return _build(values[0], values, 2), str(values[1])


def _pack(event: Event, head: tuple[Any, ...]) -> bytes:
    if isinstance(event, Unknown):
        body: Iterable[Any] = event.fields
    else:
        body = [getattr(event, name) for name in _FIELDS[type(event)]]
    payload: bytes = msgpack.packb((*head, *body))
    if len(payload) > MAX_EVENT_BYTES:
        limit = MAX_START_BYTES if isinstance(event, RunStarted) else MAX_EVENT_BYTES
        if len(payload) > limit:
            raise EventTooLarge(head[0], len(payload), limit)
    return payload


def _unpack(payload: bytes, head: int) -> Sequence[Any]:
    try:
        values = msgpack.unpackb(payload, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise UnreadableEvent(str(error) or type(error).__name__) from error
    if not isinstance(values, tuple) or len(values) < head or not isinstance(values[0], str):
        raise UnreadableEvent("not an array that begins with a tag")
    return values


def _build(tag: str, values: Sequence[Any], head: int) -> Event:
    known = _READ.get(tag)
    if known is None:
        return Unknown(tag, tuple(values[head:]))
    cls, end = known
    try:
        return cls(*values[head : end - _HEAD + head])
    except TypeError as error:
        raise UnreadableEvent(f"{tag}: {error}") from error
