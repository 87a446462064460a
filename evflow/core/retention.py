"""When a sealed run's log moves, and which runs are let go."""

from collections.abc import Iterable
from typing import Literal

from evflow.core.ids import RunNumber
from evflow.core.values import value

Move = Literal["archive", "drop", "wait"]


def next_move(*, archived: bool, sealed_us: int, hot_for_us: int, now_us: int) -> Move:
    """What is to be done with a sealed run's log at the server: it is archived at once and removed when its time is over."""
    if not archived:
        return "archive"
    return "drop" if now_us >= sealed_us + hot_for_us else "wait"


@value
class Kept:
    """Which runs of a flow are kept, besides those that are not over.

    Attributes:
        last: The newest so many; None where their number does not matter.
        since_us: Those that ended then or later; None where time does not matter.
    """

    last: int | None = None
    since_us: int | None = None


@value
class Finished:
    """A run that is over.

    Attributes:
        number: The run.
        ended_us: When it ended.
        tagged: It carries a tag that keeps it.
    """

    number: RunNumber
    ended_us: int
    tagged: bool = False


def let_go(runs: Iterable[Finished], kept: Kept) -> list[RunNumber]:
    """The runs that a rule lets go, oldest first: those that no part of the rule keeps. A rule that says nothing lets none go.

    Args:
        runs: The runs of a flow that are over.
        kept: The rule.
    """
    if kept.last is None and kept.since_us is None:
        return []
    newest_first = sorted(runs, key=lambda run: run.number, reverse=True)
    gone = [
        run.number
        for index, run in enumerate(newest_first)
        if not run.tagged and (kept.last is None or index >= kept.last) and (kept.since_us is None or run.ended_us < kept.since_us)
    ]
    return gone[::-1]
