"""What only the process that carries a run out knows of its waits, and says beside the log: that its store is away, that a platform does not start its jobs.

No event says it, since nothing follows from it: a store that is away and a job that does not start are waited for, and what comes of that is an event.
"""

from collections.abc import Iterable
from typing import Final

from evflow.core.state import Attempt, RunState
from evflow.core.values import value

FRESH_US: Final = 300_000_000
"""What was said longer ago is not believed. Whoever waits for a store says it anew after each try, which takes 90 seconds where S3 is busy, with a minute in
between at most; whoever waits for a platform each two minutes."""
MOST_NAMED: Final = 200
"""Of so many jobs of a run it is said why a platform does not start them; of the others, that it does not."""


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


@value
class UnstartedJob:
    """A job that its platform has and does not start, or does not take.

    Attributes:
        task: The task.
        attempt: Which of its attempts.
        why: What the platform says.
    """

    task: int
    attempt: int
    why: str


@value
class WaitsForPlatform:
    """Jobs of a run that their platform does not start, or not take, for reasons that it says: no node has room, an image is not there yet, a quota is used up.

    Attributes:
        executor: The platform.
        tasks: How many these are.
        jobs: Those of which it said so last; at most `MOST_NAMED`.
        since_us: Since when it does not start any.
        heard_us: When the owner said so last.
        by: The owner's name.
    """

    executor: str
    tasks: int
    jobs: tuple[UnstartedJob, ...]
    since_us: int
    heard_us: int
    by: str


Said = WaitsForStore | WaitsForPlatform
"""One word of an owner."""


def of_store(state: RunState, said: Iterable[Said], owner: str, now_us: int) -> list[WaitsForStore]:
    """What still holds of what was said of a run's store: its owner of now said it, lately, and tasks of it have not begun.

    Args:
        state: The run.
        said: What was said of it.
        owner: Who owns the run's shard, or an empty string.
        now_us: The present instant, by the server's clock.
    """
    found: list[WaitsForStore] = []
    for one in said:
        starting = _starting(state, one.executor)
        if isinstance(one, WaitsForStore) and starting and _holds(one, owner, now_us):
            found.append(WaitsForStore(one.executor, min(one.tasks or starting, starting), one.why, one.since_us, one.heard_us, one.by))
    return found


def of_platform(state: RunState, said: Iterable[Said], owner: str, now_us: int) -> list[WaitsForPlatform]:
    """Likewise, of jobs that a platform does not start; those that have begun meanwhile, or are over, are left out."""
    found: list[WaitsForPlatform] = []
    for one in said:
        if isinstance(one, WaitsForPlatform) and _holds(one, owner, now_us):
            jobs = tuple(job for job in one.jobs if _has_not_begun(state, job, one.executor))
            # Of as many others as are known to have begun, nobody knows which were said to wait.
            tasks = min(one.tasks - (len(one.jobs) - len(jobs)), _starting(state, one.executor))
            if tasks > 0:
                found.append(WaitsForPlatform(one.executor, tasks, jobs, one.since_us, one.heard_us, one.by))
    return found


def _holds(one: Said, owner: str, now_us: int) -> bool:
    return one.by == owner and now_us - one.heard_us < FRESH_US


def _starting(state: RunState, executor: str) -> int:
    return sum(_starts(state.tasks[number].attempt, executor) for number in state.live)


def _has_not_begun(state: RunState, job: UnstartedJob, executor: str) -> bool:
    if job.task not in state.live:
        return False
    attempt = state.tasks[job.task].attempt
    return attempt.number == job.attempt and _starts(attempt, executor)


def _starts(attempt: Attempt, executor: str) -> bool:
    return attempt.executor == executor and not attempt.started_us
