"""What a run waits for that only its owner sees, as the owner said it, and in sentences: its store, a platform that does not start its jobs."""

from collections.abc import Collection, Iterator, Mapping

from evflow.cli.output import count, instant
from evflow.core.explain_said import WaitsForPlatform, WaitsForStore, of_platform, of_store
from evflow.core.graph import LOCAL, PLATFORMS
from evflow.core.state import RunState
from evflow.core.values import value
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient

_MOST_NAMED = 5


@value
class Waits:
    """What was said of a run, and holds.

    Attributes:
        store: Where it waits for its store.
        platforms: Where its jobs do not start.
    """

    store: tuple[WaitsForStore, ...] = ()
    platforms: tuple[WaitsForPlatform, ...] = ()

    def of(self, tasks: Collection[int]) -> "Waits":
        """What of this is known of certain tasks: jobs that are not named in it may be theirs or not."""
        found: list[WaitsForPlatform] = []
        for one in self.platforms:
            jobs = tuple(job for job in one.jobs if job.task in tasks)
            if jobs:
                found.append(WaitsForPlatform(one.executor, len(jobs), jobs, one.since_us, one.heard_us, one.by))
        return Waits(self.store, tuple(found))


NOTHING = Waits()


def waits(log: LogClient, shard: str, state: RunState) -> Waits:
    """What keeps attempts of a run from beginning; nothing is asked where none is about to begin."""
    if state.over or all(state.tasks[number].attempt.started_us for number in state.live):
        return NOTHING
    told = log.said_waits([shard]).get(f"{state.flow}/{state.number}", ())
    if not told:
        return NOTHING
    owner, now_us = seen_owner(log, shard) or "", log.now_us()
    return Waits(tuple(of_store(state, told, owner, now_us)), tuple(of_platform(state, told, owner, now_us)))


def said(run: str, state: RunState, found: Waits) -> Iterator[str]:
    """It in sentences."""
    for wait in found.store:
        yield f"{run} waits for its store, {shortly(wait)}"
    for one in found.platforms:
        yield f"{run} waits for {_name(one.executor)}, {unstarted(state, one)}"


def shortly(wait: WaitsForStore) -> str:
    """A wait for a store, without its subject."""
    tasks = count(wait.tasks, "task")
    what = f"the code of {tasks} cannot be fetched" if wait.executor == LOCAL else f"{tasks} cannot be ordered of {_name(wait.executor)}"
    return f"since {instant(wait.since_us)[:19]}: {what}. {wait.why.rstrip('.')}. It is tried again."


def unstarted(state: RunState, wait: WaitsForPlatform) -> str:
    """A wait for a platform, without its subject: what it says of which jobs."""
    jobs = f"{count(wait.tasks, 'job')} there {'has' if wait.tasks == 1 else 'have'} not begun"
    whys = " ".join(f"{_of(state, tasks)}: {why.rstrip('.')}." for why, tasks in _by_reason(wait).items())
    return f"since {instant(wait.since_us)[:19]}: {jobs}. {whys}".rstrip()


def _by_reason(wait: WaitsForPlatform) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = {}
    for job in wait.jobs:
        found.setdefault(job.why, []).append(job.task)
    return found


def _of(state: RunState, tasks: list[int]) -> str:
    named = ", ".join(f"{state.tasks[number].step}/{number}" for number in tasks[:_MOST_NAMED])
    more = len(tasks) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _name(executor: str) -> str:
    return PLATFORMS.get(executor, executor)
