"""Recorded histories: files of one JSON document a line, the first about the run, the others an event each.

An event's bytes stand there as hex, and beside them what they mean, for people and for `git diff`. Only the bytes count.
"""

import json
from pathlib import Path
from typing import Any

from evflow.core.codec import decode, fields_of, tag_of
from evflow.core.values import value
from evflow.log.protocol import Head, StoredEvent

HERE = Path(__file__).resolve().parent
FORMAT = 1


@value
class History:
    """A recorded run: its name and story, the version that wrote it, its events and its head."""

    name: str
    story: str
    version: str
    events: tuple[StoredEvent, ...]
    head: Head


def all_histories() -> list[Path]:
    """Every recorded history, of every version."""
    return sorted(HERE.glob("*/*.jsonl"))


def read(path: Path) -> History:
    """A recorded history."""
    first, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["format"] == FORMAT
    events = tuple(StoredEvent(line["seq"], bytes.fromhex(line["hex"]), bytes.fromhex(line["link"])) for line in lines)
    head = Head(first["head"]["seq"], bytes.fromhex(first["head"]["digest"]), first["head"]["status"])
    return History(path.stem, first["story"], first["version"], events, head)


def write(path: Path, history: History) -> None:
    """Keep a history."""
    first = {
        "format": FORMAT, "story": history.story, "version": history.version,
        "head": {"seq": history.head.seq, "digest": history.head.digest.hex(), "status": history.head.status},
    }  # fmt: skip
    lines = [first, *(_line(event) for event in history.events)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _line(event: StoredEvent) -> dict[str, Any]:
    return {"seq": event.seq, "means": means(event), "link": event.link.hex(), "hex": event.payload.hex()}


def means(event: StoredEvent) -> str:
    """What an event says, on a line: everything that was read, in the order of the fields."""
    record = decode(event.seq, event.payload)
    said = ", ".join(f"{name}={_shown(given)}" for name, given in fields_of(record.event).items())
    return f"turn {record.turn} at {record.at_us} by {record.principal} for {record.cause}: {tag_of(record.event)}({said})"


def _shown(given: Any) -> str:
    if isinstance(given, bytes):
        return given.hex()
    if isinstance(given, dict):
        entries: dict[str, Any] = given
        return "{" + ", ".join(f"{name}: {_shown(item)}" for name, item in entries.items()) + "}"
    if isinstance(given, tuple | list):
        items: list[Any] = list(given)
        return "(" + ", ".join(map(_shown, items)) + ")"
    return repr(given)
