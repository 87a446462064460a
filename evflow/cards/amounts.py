"""Sizes, durations and instants as people read them."""

from datetime import UTC, datetime
from typing import Final

_KILO: Final = 1000
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400


def size(count: int) -> str:
    """Bytes: `812 B`, `3.4 kB`, `1.2 GB`."""
    if count < _KILO:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        number /= _KILO
        if number < _KILO or unit == "TB":
            return f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"
    raise AssertionError  # not reached


def duration(micros: int) -> str:
    """A span of time: `340 µs`, `12 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = max(0, micros) / 1e6
    if seconds < 1e-3:
        return f"{micros} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def moment(at_us: int, *, seconds: bool = False) -> str:
    """An instant as HTML, in UTC: who reads a card may sit anywhere."""
    at = datetime.fromtimestamp(at_us / 1e6, UTC)
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at.day} {at:%b %Y, %H:%M}{f":{at:%S}" if seconds else ""} UTC</time>'
