"""What this evflow can go on with: which logs a later version wrote, and which of two versions is the later one.

A reader of an older version shows what it does not know, and is no worse for it. An owner is: it would decide without what it does not know, and
write that down. So whoever owns runs asks here first.
"""

from typing import Final

from evflow.core import codec, flow_events
from evflow.core.decide import LOGIC
from evflow.core.events import TAGS
from evflow.core.values import declared

Generation = tuple[int, int, int]
"""Version of the decisions, number of events' kinds, number of their fields. All of them only grow."""

_FIELDS: Final = {tag: len(declared(cls)) for tag, cls in TAGS.items()}
_OF_FLOWS: Final = {tag: len(declared(cls)) for tag, cls in flow_events.TAGS.items()}
GENERATION: Final[Generation] = (LOGIC, len(_FIELDS) + len(_OF_FLOWS), sum(_FIELDS.values()) + sum(_OF_FLOWS.values()))
"""This version's."""


def shown(generation: Generation) -> str:
    """A generation as schedulers tell each other: `2.60.310`."""
    return ".".join(map(str, generation))


def parsed(text: str) -> Generation:
    """The inverse of `shown`; what says nothing, as versions before this one, is the oldest."""
    parts = text.split(".")
    if len(parts) < len(GENERATION) or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts[:3]):
        return (0, 0, 0)
    return int(parts[0]), int(parts[1]), int(parts[2])


def is_of_later(payload: bytes) -> str:
    """What of a readable event of a run only a later version knows; empty where it is all known here."""
    tag, count = _kind(payload)
    known = _FIELDS.get(tag)
    if known is None:
        return f"an event of an unknown kind, {tag}"
    surplus = count - codec.HEAD - known
    return f"{tag} with {surplus} unknown field{'s' if surplus > 1 else ''}" if surplus > 0 else ""


def _kind(payload: bytes) -> tuple[str, int]:
    """An event's tag and its number of values, from its first bytes: a take-over reads each event, and nearly all are short arrays."""
    if payload[0] & 0xF0 == 0x90 and payload[1] & 0xE0 == 0xA0:
        return payload[2 : 2 + (payload[1] & 0x1F)].decode(), payload[0] & 0x0F
    values = codec.unpack(payload)
    return str(values[0]), len(values)
