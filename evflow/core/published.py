"""Events that are published: what their bytes hold, and which names and payloads they can have.

The bytes are a msgpack array `[name, payload, source, principal, stored, store]`, fields by position, new ones at the end with a
default. The id and the instant stand beside them in the log: the server decides both.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgpack

from evflow.core.codec import UnreadableEvent, pack_value, unpack_value
from evflow.core.values import value

MAX_PAYLOAD_BYTES: Final = 16 * 1024
"""A larger payload goes to the store, by its digest."""
MOST_ID_CHARS: Final = 128
MOST_NAME_CHARS: Final = 100
OURS: Final = "evflow."
"""What names begin with that only evflow publishes."""
_FINISHED: Final = f"{OURS}finished."


@value
class Publication:
    """What somebody published.

    Attributes:
        name: The event's name: what triggers listen for.
        payload: Plain values, as JSON has them; None where it lies in the store.
        source: Where it came from: `cli`, `python`, `http`, `stream:NAME`, `file:PATH`, `flow`.
        principal: Who published it.
        stored: Digest of the payload in the store, where it is too large for the log.
        store: URL of that store.
    """

    name: str
    payload: Any = None
    source: str = ""
    principal: str = ""
    stored: bytes | None = None
    store: str = ""


def encode(publication: Publication) -> bytes:
    """The bytes that the log holds.

    Raises:
        TypeError, ValueError, OverflowError: The payload is no plain value.
    """
    return pack_value(publication)


def decode(body: bytes) -> Publication:
    """What `encode` wrote; surplus fields, of a later version, are dropped.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    return unpack_value(Publication, body, "an event")


def plain(payload: object) -> Any:
    """A payload as everybody will read it.

    Raises:
        ValueError: It is nothing that JSON can hold.
    """
    import json

    try:
        text = json.dumps(payload, allow_nan=False)
        found: Any = json.loads(text)
        msgpack.packb(found)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None
    return found


def payload_bytes(payload: Any) -> bytes:
    """A plain payload as the store holds it."""
    packed: bytes = msgpack.packb(payload)
    return packed


def payload_of(data: bytes) -> Any:
    """What `payload_bytes` wrote; lists come as tuples, as from the log.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    try:
        return msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise UnreadableEvent(f"its payload: {error}") from error


def name_fault(name: str) -> str | None:
    """Why no event can have this name, as a sentence; None where one can."""
    if not isinstance(cast("object", name), str):
        return f"An event cannot be called {name!r:.80}: a name is a text."
    if 0 < len(name) <= MOST_NAME_CHARS and name.isprintable() and not any(character.isspace() for character in name):
        return None
    return f"An event cannot be called {name[:80]!r}: a name has 1 to {MOST_NAME_CHARS} printable characters and no spaces."


def foreign_name_fault(name: str) -> str | None:
    """As `name_fault`, for an event that somebody else than evflow publishes."""
    if isinstance(cast("object", name), str) and name.startswith(OURS):
        return f"Events whose names begin with '{OURS}' are published by evflow alone: '{name}'."
    return name_fault(name)


def id_fault(event_id: str) -> str | None:
    """Why no event can have this id, as a sentence; None where one can."""
    if not isinstance(cast("object", event_id), str):
        return f"An event cannot have the id {event_id!r:.80}: an id is a text."
    if 0 < len(event_id) <= MOST_ID_CHARS and event_id.isprintable():
        return None
    return f"An event cannot have the id {event_id[:80]!r}: an id has 1 to {MOST_ID_CHARS} printable characters."


def finished_name(flow: str) -> str:
    """The name of the event that tells of the end of a flow's deployed run."""
    return f"{_FINISHED}{flow}"


def finished_id(flow: str, number: int) -> str:
    """The id of that event: whoever is unsure whether it was published does it again."""
    return f"finish:{flow}/{number}"


def finished(flow: str, number: int, status: str, header: Mapping[str, Any]) -> Publication:
    """The event that tells of a run's end.

    Args:
        flow: The flow.
        number: The run.
        status: `succeeded`, `failed` or `cancelled`.
        header: The fields of the run's `RunStarted`.
    """
    trigger: Mapping[str, Any] = header.get("trigger") or {}
    payload = {
        "flow": flow,
        "run": f"{flow}/{number}",
        "status": status,
        "deployment": trigger.get("deployment", ""),
        "version": trigger.get("version", 0),
        "namespace": header.get("namespace", ""),
        "user": header.get("user", ""),
    }
    return Publication(finished_name(flow), payload, "flow", "scheduler")
