"""The end of a run that nobody owns: `evflow cancel` takes it, does the turn, and gives it back.

The request itself lies in the run's inbox, as for a run whose owner lives: it is the last of the reports, so what attempts had
reported before it counts, and it is not lost when this process dies in turn. What is done here is what an owner does with
it: end what is left of the attempts, fold the reports, decide, append, seal. No code of the flow is needed for that, and
nothing is started.
"""

import os
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

import anyio
import anyio.to_thread

from evflow import config
from evflow.core.admit import Capacity, Slots
from evflow.core.ids import AttemptId, RunId
from evflow.core.state import RunState
from evflow.errors import EnvironmentProblem, InternalError
from evflow.log import open_event_log
from evflow.log.owners import owner_name
from evflow.log.protocol import RunEntry
from evflow.log.writer import ShardWriter
from evflow.worker import leftovers
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.places import Places
from evflow_executors.protocol import Observation, OutputLine
from evflow_scheduler.connection import Connection
from evflow_scheduler.drive import only_error
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.pools import PoolsOf
from evflow_scheduler.recovery import RunIsElsewhere
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Shard
from evflow_scheduler.start import RunFolder
from evflow_scheduler.takeover import TakeOver

END_WITHIN_S: Final = 120.0
"""Beyond this something else is wrong: killed attempts are gone in seconds, and the turn is one append."""


class NothingToCancel(EnvironmentProblem):
    """The run was taken and did not end: its request to cancel is not in its inbox."""

    code = "nothing-to-cancel"

    def __init__(self, run: RunId) -> None:
        super().__init__(
            f"'{run}' was taken over to be cancelled, and did not end within {END_WITHIN_S:g} s.",
            f"`evflow continue {run}` goes on with it; `evflow cancel {run}` asks once more.",
        )


class Undertaker:
    """The executor of a run that is only ended: it ends what a dead owner's attempts left behind, and starts nothing."""

    name = "local"

    def __init__(self, run: RunId, lock_file: str, host: str, what: str = "Cancel") -> None:
        self._run = run
        self._lock_file = lock_file
        self._host = host
        self._what = what

    @property
    def running(self) -> Collection[AttemptId]:
        """No attempt is ever launched."""
        return ()

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Nothing is launched in a run that is being cancelled.

        Raises:
            InternalError: It was.
        """
        del order
        raise InternalError(f"'{attempt}' was to be launched while '{self._run}' is being cancelled.")

    def nothing(self, run: RunId) -> RunContext:
        """Nothing is launched on other machines, either.

        Raises:
            InternalError: It was.
        """
        raise InternalError(f"An attempt was to be launched while '{run}' is being cancelled.")

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Whatever ran was ended by `adopt`."""

    async def watch(self) -> AsyncIterator[Observation | OutputLine]:
        """Nothing happens here."""
        nothing: Sequence[Observation] = ()
        for seen in nothing:
            yield seen

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """End what is left of a former owner's attempts; none of them is kept.

        Raises:
            RunIsElsewhere: They are on another machine.
            AttemptWillNotEnd: One cannot be ended.
        """
        here = os.uname().nodename
        if attempts and self._host != here:
            raise RunIsElsewhere(self._run, self._host, here, self._what)
        for attempt in attempts:
            await anyio.to_thread.run_sync(leftovers.end_attempt, self._lock_file, attempt)
        return ()

    async def aclose(self) -> None:
        """Nothing was started."""


def end_ownerless(entry: RunEntry, host: str) -> RunState:
    """Take a run that nobody owns and whose inbox has a request to cancel, end it, and give its shard back.

    Args:
        entry: The run's line in the index.
        host: The machine that its attempts were started on.

    Returns:
        The state, sealed: cancelled, or as its attempts had reported it before the request.

    Raises:
        LeaseHeld: Somebody owns it by now.
        RunIsElsewhere: Attempts of it may run on another machine.
        AttemptWillNotEnd: An attempt of it cannot be ended.
        LogUnavailable: The server cannot be used.
    """
    connection = Connection.begin()
    try:
        with only_error():
            return anyio.run(_end, connection, entry, host)
    finally:
        connection.release()


async def _end(connection: Connection, entry: RunEntry, host: str) -> RunState:
    here = os.uname().nodename
    log = await open_event_log(connection.ready())
    writer = ShardWriter(log, entry.shard, owner_name(), restart=connection.restart)
    run = OwnedRun(entry.run)
    undertaker = Undertaker(entry.run, str(RunFolder.of(connection.home, entry.run).locks), host)
    pools = PoolsOf(connection.ready(), connection.restart)
    places = Places(undertaker, lambda pool: pools.executor(pool, writer, undertaker.nothing, live=False))
    try:
        await writer.take()
        try:
            with anyio.move_on_after(END_WITHIN_S):
                await _turn(run, writer, undertaker, places, TakeOver(here, config.get("user")))
        finally:
            with anyio.CancelScope(shield=True):  # both have deadlines of their own
                await places.leave_pools()
                await writer.release()
    finally:
        with anyio.CancelScope(shield=True):
            await pools.aclose()
            await log.aclose()
    if not run.state.sealed:
        raise NothingToCancel(entry.run)
    return run.state


async def _turn(run: OwnedRun, writer: ShardWriter, undertaker: Undertaker, places: Places, take_over: TakeOver) -> None:
    """Fold what lies in the inbox, decide, append and seal, as the shard's loop does it."""
    first = await take_over(run, writer, undertaker, places)
    no_slots = Slots(Capacity(0))  # reports may queue tasks before the request is read: none of them is started
    observer = RunObserver(writer.shard, writer.index_run, None)
    shard = Shard(writer, places, no_slots, observer, run.state.options["durability"])
    shard.add(run)
    async with anyio.create_task_group() as group:
        group.start_soon(writer.keep)
        await shard.serve(first)
        group.cancel_scope.cancel()
