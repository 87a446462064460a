"""How many tasks of a run are where, by the reasons that `evflow.core.explain` gives one by one.

For metrics and overviews, which are asked again and again: it costs the attempts that run, the timers and the splits of a run,
never its tasks. A reason that `explain` learns is counted here as well.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from evflow.core.graph import pool_of
from evflow.core.state import RunState, Task

SLOT: Final = "slot"
"""Queued: `WaitsForSlot`, which nothing but slots are said of."""
RESOURCES: Final = "resources"
"""Queued, first in its run, and its step declares resources: `WaitsForSlot.asks`."""
RETRY: Final = "retry"
"""`WaitsForRetry`."""
JOIN: Final = "join"
"""A split whose join waits for members: `WaitsForMembers`."""
WORKER: Final = "worker"
"""Ordered of a pool, and no worker has begun it: `WaitsForWorker`."""
PAUSE: Final = "pause"
"""Queued, in a run that is paused: `WaitsForSlot.paused_by`."""
HELD: Final = "held"
"""Failed, and its run waits with it: `IsHeld`."""
LIMIT: Final = "limit"
"""Queued, and a limited name that the first one in its run needs is not to be had: who holds it is in no run's log, so whoever counts says it."""
STORE: Final = "store"
"""They have a slot, or have been ordered of a platform, and the store is away that has their code, or takes their order: `WaitsForStore`."""
PLATFORM: Final = "platform"
"""A platform says why it does not start their jobs, or does not take them: `WaitsForPlatform`."""
REASONS: Final = (SLOT, RESOURCES, LIMIT, PAUSE, WORKER, STORE, PLATFORM, RETRY, HELD, JOIN)


class Tally(NamedTuple):
    """Tasks of a run, or of many.

    Attributes:
        running: Their body is at work.
        starting: They have a slot, and their body has not begun: their process is about to exist, or a container is waited for.
        waiting: Reason to number; joins that wait are no tasks yet, and counted all the same.
    """

    running: int
    starting: int
    waiting: dict[str, int]


def tally(state: RunState, lacks_a_name: Callable[[], bool] = lambda: False, storeless: int = 0, unstarted: int = 0) -> Tally:
    """Count a run's tasks that are not over.

    Args:
        state: The run.
        lacks_a_name: Whether a limited name that the first one of its line needs is not to be had (`evflow.core.limits.needed`); asked where one waits.
        storeless: How many of those that would start wait for the run's store; `explain_said.of_store` knows.
        unstarted: How many of them wait for a platform that has their jobs; `explain_said.of_platform` knows.
    """
    waiting: dict[str, int] = {}
    if not state.over:
        live = [state.tasks[number] for number in state.live]
        running, ordered = sum(task.attempt.started_us > 0 for task in live), sum(map(_waits_for_worker, live))
        queued = len(state.waiting)
        if queued:
            policy = state.graph[state.tasks[next(iter(state.waiting))].step].policy
            declares = policy.cpu or policy.memory_mb or policy.gpu
            waiting[PAUSE if state.pause is not None else LIMIT if lacks_a_name() else RESOURCES if declares else SLOT] = queued
        _count(waiting, WORKER, ordered)
        starting = len(live) - running - ordered
        storeless = min(storeless, starting)
        unstarted = min(unstarted, starting - storeless)
        _count(waiting, STORE, storeless)
        _count(waiting, PLATFORM, unstarted)
        _count(waiting, RETRY, sum(_still_waits(state, *timer[1:]) for timer in state.agenda.timers))
        if not state.stopping:
            _count(waiting, HELD, len(state.held))
            _count(waiting, JOIN, sum(split.count < split.size for split in state.splits.values()))
        return Tally(running, starting - storeless - unstarted, waiting)
    return Tally(0, 0, waiting)


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of several runs' tallies."""
    running = starting = 0
    waiting: dict[str, int] = {}
    for one in tallies:
        running, starting = running + one.running, starting + one.starting
        for reason, number in one.waiting.items():
            waiting[reason] = waiting.get(reason, 0) + number
    return Tally(running, starting, waiting)


def _count(waiting: dict[str, int], reason: str, number: int) -> None:
    if number:
        waiting[reason] = number


def _waits_for_worker(task: Task) -> bool:
    return task.status == "launched" and pool_of(task.attempt.executor) is not None


def _still_waits(state: RunState, task: int, attempt: int, kind: str) -> bool:
    """Whether a timer stands for a task that waits for its retry; stale ones stay in the heap."""
    found = state.tasks[task]
    return kind == "retry" and found.status == "retrying" and found.attempt.number + 1 == attempt
