"""A scheduler in numbers, taken in its loop when somebody asks; a plain value, so that a thread can go on with it."""

from collections.abc import Callable, Mapping

from evflow.core.admit import Slots
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.core.tally import Tally, tally, total
from evflow.core.values import value
from evflow.log.said_waits import Counts
from evflow_executors.packages import PackagedExecutor
from evflow_scheduler.reading import Seen
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Shard


@value
class Census:
    """A scheduler as it is.

    Attributes:
        share: Shards that it may own.
        lease_ages_s: Owned shard to the seconds since its lease was last taken or renewed.
        slots: Attempts at once.
        slots_taken: Slots that attempts have.
        runs: `running`, `failing`, `cancelling` or `aside` (nobody can go on with it) to number.
        tasks: Tasks of these runs.
        warm: Fork servers without work.
        busy: Fork servers with work.
        fork_servers: Their processes.
        unarchived_bytes: Size of the events of runs that are over and not archived; None where this process looks after no flow.
        sources: Queues and buckets that are read.
    """

    share: int
    lease_ages_s: Mapping[str, float]
    slots: int
    slots_taken: int
    runs: Mapping[str, int]
    tasks: Tally
    warm: int
    busy: int
    fork_servers: tuple[int, ...] = ()
    unarchived_bytes: int | None = None
    sources: tuple[Seen, ...] = ()


def census(
    share: int,
    lease_ages_s: Mapping[str, float],
    slots: Slots,
    shards: Mapping[str, Shard],
    executor: PackagedExecutor,
    said: Callable[[str, RunId, RunState], Counts],
) -> Census:
    """Count; it costs the runs that live, the attempts that run and the splits that are open, not tasks.

    Args:
        share: As in `Census`, like the next one.
        lease_ages_s: As in `Census`.
        slots: This machine's.
        shards: Those that are owned, by name.
        executor: Where attempts run.
        said: How many tasks of a run of a shard wait for what, as their owner says.
    """
    states = [run.state for shard in shards.values() for run in shard.runs.values()]
    cancelling = sum(state.cancelling is not None for state in states)
    failing = sum(state.failing is not None and state.cancelling is None for state in states)
    runs = {
        "running": len(states) - cancelling - failing,
        "cancelling": cancelling,
        "failing": failing,
        "aside": sum(len(shard.aside) for shard in shards.values()),
    }
    servers, warm = executor.fork_servers, executor.warm
    return Census(
        share,
        lease_ages_s,
        slots.capacity.slots,
        len(slots.taken),
        runs,
        total(_tally(shard, run, said(name, run.id, run.state)) for name, shard in shards.items() for run in shard.runs.values()),
        warm,
        len(servers) - warm,
        tuple(servers),
    )


def _tally(shard: Shard, run: OwnedRun, said: Counts) -> Tally:
    """A run's tally; what is queued waits for a limited name where the owner was refused one for it."""
    return tally(run.state, lambda: shard.lacks_a_name(run), said.store, said.platform)
