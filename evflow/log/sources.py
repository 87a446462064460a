"""What events come from besides publishers: streams that others write, how far each source has been read, and how that goes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from evflow.log.commands import Operation
from evflow.log.keys import EVENT_KEYS
from evflow.log.wire import type_of_reply


class ForeignEntry(NamedTuple):
    """An entry of a stream that somebody else writes: its id, and its fields in turn with their values."""

    id: str
    fields: Sequence[bytes]


def position(source: str) -> Operation[str]:
    """Up to where a source was read; empty where it never was."""
    return Operation((("HGET", EVENT_KEYS.sources, source),), lambda replies: (replies[0] or b"").decode())


def move(source: str, to: str) -> Operation[None]:
    """Note up to where a source was read."""
    return Operation((("HSET", EVENT_KEYS.sources, source, to),), lambda _: None)


def newest(stream: str) -> Operation[str]:
    """The id of a stream's last entry, `0-0` where it has none."""

    def parse(replies: list[type_of_reply]) -> str:
        return str(replies[0][0][0].decode()) if replies[0] else "0-0"

    return Operation((("XREVRANGE", stream, "+", "-", "COUNT", 1),), parse)


def entries(stream: str, after: str, timeout_s: float, limit: int) -> Operation[list[ForeignEntry]]:
    """Entries behind an id, waiting for the first one at the server."""

    def parse(replies: list[type_of_reply]) -> list[ForeignEntry]:
        if not replies[0]:
            return []
        return [ForeignEntry(entry.decode(), fields or ()) for entry, fields in replies[0][0][1]]

    command = ("XREAD", "COUNT", limit, "BLOCK", max(1, round(timeout_s * 1_000)), "STREAMS", stream, after)
    return Operation((command,), parse)


# --- how reading goes ------------------------------------------------------------------------------------

_SILENT_US: Final = 3_600_000_000
"""A scheduler that reads says every half minute how it goes."""


def say(reader: str, body: bytes) -> Operation[None]:
    """Say how a scheduler's sources go: JSON, with `at_us` and `sources`."""
    return Operation((("HSET", EVENT_KEYS.readers, reader, body),), lambda _: None)


def unsay(reader: str) -> Operation[None]:
    """Take that back: the scheduler ends."""
    return Operation((("HDEL", EVENT_KEYS.readers, reader),), lambda _: None)


def said() -> Operation[Mapping[str, Mapping[str, Any]]]:
    """What schedulers said, by their names; what is no JSON is left out."""

    def parse(replies: list[type_of_reply]) -> Mapping[str, Mapping[str, Any]]:
        import json

        pairs = iter(replies[0])
        found: dict[str, dict[str, Any]] = {}
        for name, body in zip(pairs, pairs, strict=True):
            try:
                found[name.decode()] = json.loads(body)
            except ValueError:
                found[name.decode()] = {}
        return found

    return Operation((("HGETALL", EVENT_KEYS.readers),), parse)


def silent(found: Mapping[str, Mapping[str, Any]], now_us: int) -> list[str]:
    """Those who have said nothing for so long that they are dead."""
    return [name for name, told in found.items() if now_us - int(told.get("at_us", 0)) > _SILENT_US]
