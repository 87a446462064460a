"""The first round of an owner that takes a run over: what must be known before anything is decided.

Called when the shard is ours, so nobody else writes the log any more. In this order: fold the log; end, or find again,
the attempts that it says are running; read the reports. An attempt that is gone then and has not reported is lost, and
not before: whatever it had to report was written before its end.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from evflow import diagnostics
from evflow.core import events as ev, versions
from evflow.core.apply import ImpossibleEvent
from evflow.core.codec import UnreadableEvent
from evflow.core.decide import LOGIC
from evflow.core.graph import LOCAL
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.values import value
from evflow.errors import Conflict, EvflowError
from evflow.log.writer import ShardWriter
from evflow_executors.protocol import Executor, GangExecutor, Observation
from evflow_scheduler.inbox import waiting_reports
from evflow_scheduler.launching import gangs_in
from evflow_scheduler.newer import RunIsNewer, newer_logic
from evflow_scheduler.run import LogBroken, OwnedRun
from evflow_scheduler.shard import Batch

OWNER_DIED: Final = "owner-died"
_CHUNK: Final = 5_000


class RunVanished(Conflict):
    """The run's log is empty, which it was not when the run was found."""

    code = "run-vanished"

    def __init__(self, run: RunId) -> None:
        super().__init__(
            f"The log of '{run}' is empty: the server has lost it since it was looked at.", "Restore the server's data, or start a new run."
        )


@value
class TakeOver:
    """Loads runs of a former owner and gives their first round.

    Attributes:
        host: This machine.
        user: Who takes them over.
    """

    host: str
    user: str

    async def __call__(self, run: OwnedRun, writer: ShardWriter, executor: Executor, elsewhere: Mapping[str, Executor]) -> Batch:
        """Take one run over."""
        return await self.of([run], writer, executor, elsewhere=elsewhere)

    async def of(
        self,
        runs: Iterable[OwnedRun],
        writer: ShardWriter,
        executor: Executor,
        set_aside: Callable[[OwnedRun, EvflowError], None] | None = None,
        *,
        elsewhere: Mapping[str, Executor] | None = None,
        on_loaded: Callable[[OwnedRun], None] | None = None,
    ) -> Batch:
        """Take all runs of a shard over.

        Args:
            runs: The runs, to be loaded.
            writer: Holds the shard's lease.
            executor: Runs their attempts on this machine.
            set_aside: Called with a run that nobody can go on with, and why; None: that is raised.
            elsewhere: Executors of other machines, by name.
            on_loaded: Called with each run that is loaded, before executors are asked for its attempts: platforms know them by what the run says.

        Raises:
            RunVanished: The server has lost one of them.
            RunIsNewer: A later version has written one of their logs.
            LogBroken: A log is not what its owners wrote.
        """
        batch = Batch()
        for run in runs:
            try:
                await _load(run, writer)
            except (RunVanished, RunIsNewer, LogBroken, UnreadableEvent, ImpossibleEvent) as error:
                if set_aside is None:
                    raise
                set_aside(run, error)
                continue
            if on_loaded is not None:
                on_loaded(run)
            live = [AttemptId(run.id, TaskId(number), run.state.tasks[number].attempt.number) for number in run.state.live]
            kept = set[AttemptId]()
            for name, attempts in _by_executor(run, live).items():
                there = executor if name == LOCAL or elsewhere is None else elsewhere[name]
                if isinstance(there, GangExecutor):
                    there.know_gangs(gangs_in(run, attempts))
                kept.update(await there.adopt(attempts))
            gone = [name for name in live if name not in kept]
            batch.ending += [name for name in live if name in kept and run.state.tasks[name.task].attempt.cancel]
            diagnostics.info("run taken over", run=run.id, seq=run.state.seq, epoch=writer.lease.epoch, live=len(live), gone=len(gone))
            fact = ev.RunContinued(self.host, writer.owner, writer.lease.epoch)
            batch.facts[run.id] = [(fact, f"user:{self.user}", 0)]
            batch.exits += [Observation(name, ev.AttemptExited(name.task, name.attempt, None, None, OWNER_DIED)) for name in gone]
        batch.entries = await waiting_reports(writer)
        return batch


def _by_executor(run: OwnedRun, live: Iterable[AttemptId]) -> dict[str, list[AttemptId]]:
    found: dict[str, list[AttemptId]] = {LOCAL: []}
    for attempt in live:
        found.setdefault(run.state.tasks[attempt.task].attempt.executor, []).append(attempt)
    return found


async def _load(run: OwnedRun, writer: ShardWriter) -> None:
    try:
        await _read(run, writer)
    except LogBroken:
        # Whoever is stopped in the middle of this, while the server loses the log's tail and another owner writes a new one,
        # reads halves of two histories. He has lost the shard, and shall hear that.
        run.forget()
        await _read(run, writer)


async def _read(run: OwnedRun, writer: ShardWriter) -> None:
    after = 0
    while True:
        chunk = await writer.read(run.id, after, _CHUNK)
        if chunk:
            for stored in chunk:
                if what := versions.is_of_later(stored.payload):
                    raise RunIsNewer(run.id, f"event {stored.seq} of its log is {what}")
            run.load(chunk)
            if run.state.logic > LOGIC:
                raise RunIsNewer(run.id, newer_logic(run.state.logic))
            after = chunk[-1].seq
        if len(chunk) < _CHUNK:  # nobody else writes it: another question would be answered with nothing
            break
    if not after:
        raise RunVanished(run.id)
