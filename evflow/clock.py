"""The one place that reads clocks: everything else takes instants, or a clock, as arguments."""

import time


def now_us() -> int:
    """This machine's wall clock, in microseconds since 1970-01-01T00:00:00Z; it may jump."""
    return time.time_ns() // 1_000


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()
