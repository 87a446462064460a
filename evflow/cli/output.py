"""Results on stdout: JSON for programs, tables and times for people."""

import os
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import click

_LAST_US = 253_402_128_000_000_000
"""The last but one day of the year 9999, the last one in every time zone that has a date."""


def write_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.flush()
    sys.stdout.buffer.write(json_bytes(value))


def write_json_line(value: Any) -> None:
    """Print one JSON document on a line of its own, at once: a follower waits for it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(json_bytes(value, indent=False))
    sys.stdout.buffer.flush()


def json_bytes(value: Any, *, indent: bool = True) -> bytes:
    """One JSON document, with a newline behind it."""
    import orjson

    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=_plain, option=options | (orjson.OPT_INDENT_2 if indent else 0))


def _plain(value: Any) -> Any:
    """What JSON has no word for: bytes (digests) as hex, everything else as its text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(cast("frozenset[Any]", value), key=str)
    return str(value)


def instant(at_us: int) -> str:
    """An instant in local time, to the millisecond: `2026-11-23 18:04:05.123`."""
    from datetime import datetime

    return datetime.fromtimestamp(_within_calendar(at_us) / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def iso(at_us: int | None) -> str | None:
    """An instant as JSON holds it: UTC, ISO 8601, microseconds."""
    from datetime import UTC, datetime

    return None if at_us is None else datetime.fromtimestamp(_within_calendar(at_us) / 1e6, UTC).isoformat(timespec="microseconds")


def _within_calendar(at_us: int) -> int:
    """The instant, or the nearest that has a date: a log that was changed may say anything, and is to be shown."""
    return min(max(at_us, 0), _LAST_US)


def duration(us: float) -> str:
    """A duration in as many digits as people read: `12 ms`, `3.4 s`, `2 m 05 s`, `1 h 02 m`, `3 d 04 h`."""
    seconds = us / 1e6
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def size(count: int) -> str:
    """A number of bytes: `12 B`, `3.4 kB`, `1.2 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int, noun: str) -> str:
    """A number and its noun: `1 task`, `1,000 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_BECAME = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "was cancelled",
    "skipped": "was skipped",
    "paused": "is paused",
    "running": "is running",
    "retrying": "will be tried again",
    "finished": "waits for the other nodes of its gang",
}


def became(status: str) -> str:
    """What a run or a task with this status did or does, behind its name."""
    return _BECAME.get(status, "has not begun")


def terminal_width() -> int:
    """Columns of the terminal; wide where the output is not a terminal, so that nothing is cut in a pipe."""
    import shutil  # with its compressors a heavy import, and a run asks no width

    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else 10_000


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), flexible: str | None = None) -> list[str]:
    """The rows under their heads, in columns that fit the terminal.

    Args:
        head: Names of the columns.
        rows: Cells; they may be styled.
        right: Columns of numbers, which end at the right.
        flexible: The column that is cut when a line is too long for the terminal; the last one if not given.
    """
    widths = [max([len(name), *(_visible(row[index]) for row in rows)]) for index, name in enumerate(head)]
    give = head.index(flexible) if flexible else len(head) - 1
    over = sum(widths) + 2 * (len(widths) - 1) - terminal_width()
    if over > 0:
        widths[give] = max(len(head[give]), widths[give] - over, 8)
    lines = [_line([click.style(name.upper(), dim=True) if name else "" for name in head], head, widths, right)]
    return lines + [_line([_cut(cell, width) for cell, width in zip(row, widths, strict=True)], head, widths, right) for row in rows]


def _line(cells: Sequence[str], head: Sequence[str], widths: Sequence[int], right: Sequence[str]) -> str:
    padded: list[str] = []
    for cell, name, width in zip(cells, head, widths, strict=True):
        gap = " " * (width - _visible(cell))
        padded.append(gap + cell if name in right else cell + gap)
    return "  ".join(padded).rstrip()


def _visible(text: str) -> int:
    """Columns of a terminal that the text takes."""
    plain = click.unstyle(text)
    return len(plain) if plain.isascii() else sum(map(_columns, plain))


def _columns(character: str) -> int:
    """Two for an ideograph or an emoji, none for an accent on the character before."""
    from unicodedata import combining, east_asian_width

    return 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _visible(text) <= width:
        return text
    plain = click.unstyle(text)
    ends = accumulate(map(_columns, plain))
    return plain[: sum(end < width for end in ends)] + "…"


def who(principal: str) -> str:
    """Who caused an event, for people: `ada` for `user:ada`."""
    return principal.removeprefix("user:")
