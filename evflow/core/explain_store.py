"""Which tasks of a run wait for its store: only the process that carries the run out knows, and says so beside the log.

No event says it, since nothing follows from it: a store that is away is waited for, and what comes of that is an event.
"""

from collections.abc import Iterable
from typing import Final

from evflow.core.state import RunState
from evflow.core.values import value

FRESH_US: Final = 300_000_000
"""What was said longer ago is not believed: whoever waits says it anew after each try, which takes 90 seconds where S3 is busy, with a minute in between at most."""


@value
class WaitsForStore:
    """A run whose store is away, so that attempts cannot begin: their code cannot be fetched, or their jobs cannot be made.

    Attributes:
        executor: Where these attempts are to run.
        tasks: How many these are.
        why: What the store, or who was asked for it, answered.
        since_us: Since when.
        heard_us: When it was tried last.
        by: The owner's name.
    """

    executor: str
    tasks: int
    why: str
    since_us: int
    heard_us: int
    by: str


def of_store(state: RunState, said: Iterable[WaitsForStore], owner: str, now_us: int) -> list[WaitsForStore]:
    """What still holds of what was said of a run: its owner of now said it, lately, and tasks of it have not begun.

    Args:
        state: The run.
        said: What was said.
        owner: Who owns the run's shard, or an empty string.
        now_us: The present instant, by the server's clock.
    """
    found: list[WaitsForStore] = []
    for one in said:
        starting = sum(_starts(state, number, one.executor) for number in state.live)
        if starting and one.by == owner and now_us - one.heard_us < FRESH_US:
            tasks = min(one.tasks or starting, starting)
            found.append(WaitsForStore(one.executor, tasks, one.why, one.since_us, one.heard_us, one.by))
    return found


def _starts(state: RunState, number: int, executor: str) -> bool:
    attempt = state.tasks[number].attempt
    return attempt.executor == executor and not attempt.started_us
