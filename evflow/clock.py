"""The one place that reads clocks: everything else takes instants, or a clock, as arguments."""

import time


def now_us() -> int:
    """This machine's wall clock, in microseconds since 1970-01-01T00:00:00Z; it may jump."""
    return time.time_ns() // 1_000


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def monotonic_us() -> int:
    """Microseconds on the same clock."""
    return time.monotonic_ns() // 1_000


class Onward:
    """A clock that follows another one and never goes back: where that one does, it goes on at half its pace until it is caught up with.

    If it stood still instead, what is due in a moment would not come for hours, and whoever waits for that would look again and again.
    """

    __slots__ = ("_here_us", "_latest_us")

    def __init__(self) -> None:
        self._latest_us = 0
        self._here_us = 0

    def read(self, told_us: int, here_us: int) -> int:
        """The time.

        Args:
            told_us: What the other clock says.
            here_us: A clock that only ever goes on, and at the pace of time.
        """
        if told_us >= self._latest_us:
            self._latest_us, self._here_us = told_us, here_us
        else:
            half_us = (here_us - self._here_us) // 2
            self._latest_us += half_us
            self._here_us += 2 * half_us
        return self._latest_us
