"""How the reading of a source goes: counted as it happens, for metrics, for `evflow scheduler status`, and for lines that say each change once."""

from typing import Any, Literal, NamedTuple

from evflow import clock, diagnostics
from evflow.core.values import value

Outcome = Literal["published", "known", "passed", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("published", "known", "passed", "refused")


class Source(NamedTuple):
    """A stream or a folder, and the name that its events get."""

    place: str
    event: str


def source_of(text: str) -> Source:
    """Read `PLACE=EVENT`, which the settings have checked."""
    place, _, event = text.rpartition("=")
    return Source(place, event)


@value
class Seen:
    """A source as it is now.

    Attributes:
        place: The stream, the folder, the queue or the bucket.
        is_up: It could be read when it was last tried; None: it was not tried yet.
        why: Why it could not.
        since_us: Since when that is so.
        failures: Tries that failed, ever.
        published: Events that it led to.
        known: Those that had been published before: they came twice.
        passed: What no rule takes.
        refused: What could not be read.
    """

    place: str
    is_up: bool | None
    why: str
    since_us: int
    failures: int
    published: int
    known: int
    passed: int
    refused: int


class Reading:
    """Counts what a source brings, and says once when it fails and when it is back.

    Args:
        place: The stream, the folder, the queue or the bucket.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._is_up: bool | None = None
        self._why = ""
        self._since_us = clock.now_us()
        self._failures = 0
        self._in_a_row = 0
        self._counts: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)

    @property
    def now(self) -> Seen:
        """It as a plain value."""
        return Seen(self.place, self._is_up, self._why, self._since_us, self._failures, **self._counts)

    def count(self, outcome: Outcome) -> None:
        """Something came."""
        self._counts[outcome] += 1

    def works(self) -> None:
        """It was read."""
        if self._is_up is not True:
            diagnostics.info("a source of events is read", place=self.place)
            self._is_up, self._why, self._since_us = True, "", clock.now_us()
        self._in_a_row = 0

    def fails(self, why: str) -> int:
        """It could not be read, or what it brought could not be written.

        Returns:
            How often in a row.
        """
        if self._is_up is not False or why != self._why:
            diagnostics.warning("a source of events cannot be read", place=self.place, why=why)
        else:
            diagnostics.debug("a source of events still cannot be read", place=self.place, why=why)
        if self._is_up is not False:
            self._since_us = clock.now_us()
        self._is_up, self._why = False, why
        self._failures += 1
        self._in_a_row += 1
        return self._in_a_row


def plain(seen: Seen) -> dict[str, Any]:
    """For programs, and for other processes."""
    return {name: getattr(seen, name) for name in ("place", "is_up", "why", "since_us", "failures", *OUTCOMES)}
