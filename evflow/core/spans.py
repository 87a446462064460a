"""Times as people write them: `90`, `"90s"`, `"1h30m"`, a `timedelta`."""

import re
from datetime import timedelta

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
WANTED = "a time as 90 (seconds), '90s', '1h30m', '2d' or a timedelta"


def span_us(given: object) -> int | None:
    """The time in microseconds; None where it is none, or negative."""
    if isinstance(given, timedelta):
        found = given // timedelta(microseconds=1)
    elif isinstance(given, int | float) and not isinstance(given, bool) and -1e12 < given < 1e12:
        found = round(given * 1_000_000)
    elif isinstance(given, str) and given.strip() and not _PART.sub("", given).strip():
        found = sum(round(float(number) * _UNITS_US[unit]) for number, unit in _PART.findall(given))
    else:
        return None
    return found if found >= 0 else None


def shown_span(microseconds: int) -> str:
    """The time for people: `1h30m`."""
    left, parts = microseconds, list[str]()
    for unit in ("d", "h", "m", "s", "ms"):
        count, left = divmod(left, _UNITS_US[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
