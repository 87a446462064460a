"""The events of a flow's log: what happens outside its runs, and their bytes.

A flow's log has no owner and no turns, so its events are smaller than a run's: a msgpack array
`[tag, at_us, principal, *fields]`, fields by position. The rules of `evflow.core.events` hold: tags are never
renamed, a released field never moves, new ones go to the end with a default.
"""

import msgpack

from evflow.core.codec import MAX_EVENT_BYTES, EventTooLarge, UnreadableEvent, build, unpack
from evflow.core.events import Event, Fact, Unknown
from evflow.core.ids import Micros, Seq
from evflow.core.values import declared, value

_HEAD = 3


@value
class RunRequested(Fact):
    """Somebody asked for a run, and it got its number.

    Attributes:
        number: The run's number. The server fills it in: see `split_at_number`.
        user: Who asked.
        origin: The run that this one resumes (`Flow/3`), or None.
        shard: The shard that runs it, or empty for one of its own (`run:<Flow>:<number>`).
        host: Where it was asked for.
    """

    number: int
    user: str
    origin: str | None = None
    shard: str = ""
    host: str = ""


@value
class RunTagged(Fact):
    """Somebody changed a run's user tags.

    Attributes:
        number: The run.
        tags: All its user tags after the change.
        added: Tags that were not there before.
        removed: Tags that were.
    """

    number: int
    tags: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


TAGS: dict[str, type[Event]] = {"RunRequested": RunRequested, "RunTagged": RunTagged}
"""The format's tags. Append only."""

_TAG_OF = {cls: tag for tag, cls in TAGS.items()}
_FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(declared(cls)) for cls in TAGS.values()}


@value
class FlowRecord:
    """An event at its place in a flow's log; the attributes as in `evflow.core.codec.Record`."""

    seq: Seq
    at_us: Micros
    principal: str
    event: Event


def encode(event: Event, *, at_us: int, principal: str) -> bytes:
    """The event as it stands in a flow's log.

    Raises:
        EventTooLarge: It has more bytes than an event may have.
    """
    if isinstance(event, Unknown):
        tag, body = event.tag, list(event.fields)
    else:
        tag, body = _TAG_OF[type(event)], [getattr(event, name) for name in _FIELDS[type(event)]]
    payload: bytes = msgpack.packb((tag, at_us, principal, *body))
    if len(payload) > MAX_EVENT_BYTES:
        raise EventTooLarge(tag, len(payload), MAX_EVENT_BYTES)
    return payload


def decode(seq: int, payload: bytes) -> FlowRecord:
    """The record that `encode` wrote.

    Raises:
        UnreadableEvent: The bytes are no event of a flow's log.
    """
    values = unpack(payload)
    head = values[:_HEAD]
    if tuple(map(type, head)) != (str, int, str):
        raise UnreadableEvent("not an array that begins with a tag, a time and a principal")
    tag, at_us, principal = head
    return FlowRecord(Seq(seq), at_us, principal, build(tag, TAGS.get(tag), values[_HEAD:]))


def split_at_number(payload: bytes) -> tuple[bytes, bytes]:
    """The bytes before and behind the number of an encoded `RunRequested`.

    The number is taken and the event appended in one act at the server, which puts it between the two.

    Raises:
        UnreadableEvent: The bytes are no `RunRequested`.
    """
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(payload)
    try:
        unpacker.read_array_header()
        tag = unpacker.unpack()
        unpacker.skip()
        unpacker.skip()
        start = unpacker.tell()
        unpacker.skip()
    except (ValueError, msgpack.UnpackException) as error:
        raise UnreadableEvent("not an event of a flow's log") from error
    if tag != _TAG_OF[RunRequested]:
        raise UnreadableEvent(f"{tag} asks for no run")
    return payload[:start], payload[unpacker.tell() :]
