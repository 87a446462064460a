"""A run that nobody owns, taken by a command for a moment.

Attempts that a dead owner left behind are ended, what was reported is folded, what follows is decided and appended, and the shard is
given back. No code of the flow is needed for that, and nothing is started.
"""

import os
from collections.abc import AsyncIterator, Collection, Sequence

import anyio
import anyio.to_thread

from evflow import config
from evflow.core.admit import Capacity, Slots
from evflow.core.events import RunStarted
from evflow.core.graph import pool_of
from evflow.core.ids import AttemptId, RunId
from evflow.core.state import RunState
from evflow.errors import InternalError
from evflow.log import open_event_log
from evflow.log.owners import owner_name
from evflow.log.protocol import RunEntry
from evflow.log.writer import ShardWriter
from evflow.worker import leftovers
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.places import Places
from evflow_executors.protocol import Executor, Observation, OutputLine
from evflow_scheduler.connection import Connection
from evflow_scheduler.drive import only_error
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.pools import PoolsOf
from evflow_scheduler.recovery import RunIsElsewhere
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Shard
from evflow_scheduler.start import RunFolder, shared_context
from evflow_scheduler.takeover import TakeOver


class _Undertaker:
    """The executor of such a run: it ends what a dead owner's attempts left behind, and starts nothing."""

    name = "local"

    def __init__(self, run: RunId, lock_file: str, host: str, what: str) -> None:
        self._run = run
        self._lock_file = lock_file
        self._host = host
        self._what = what

    @property
    def running(self) -> Collection[AttemptId]:
        """No attempt is ever launched."""
        return ()

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Nothing is launched.

        Raises:
            InternalError: It was.
        """
        del order
        raise InternalError(f"'{attempt}' was to be launched, and '{self._run}' was taken only for a moment.")

    def nothing(self, run: RunId) -> RunContext:
        """Nothing is launched on other machines, either.

        Raises:
            InternalError: It was.
        """
        raise InternalError(f"An attempt was to be launched, and '{run}' was taken only for a moment.")

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


class _OneRound:
    """The host of a shard that is served for one round: no run comes, and one that ends needs nothing."""

    def welcome(self, offered: RunStarted) -> RunStarted:
        return offered

    def expect(self, run: RunId) -> None:
        pass

    def dismiss(self, run: RunId) -> None:
        pass

    async def refuse(self, run: RunId, why: str) -> None:
        pass


def serve_in_passing(entry: RunEntry, host: str, what: str, *, within_s: float, to_its_end: bool) -> RunState:
    """Take a run that nobody owns, do what its inbox asks for, and give its shard back.

    Args:
        entry: The run's line in the index.
        host: The machine that its attempts were started on.
        what: What the command does, for the error: `Cancel`.
        within_s: How long that may take, in seconds; the shard is given back then, as far as the run is.
        to_its_end: The run has to end; without that one round is all, and nothing is waited for.

    Returns:
        The state after it.

    Raises:
        LeaseHeld: Somebody owns it by now.
        RunIsElsewhere: Attempts of it may run on another machine.
        AttemptWillNotEnd: An attempt of it cannot be ended.
        LogUnavailable: The server cannot be used.
    """
    connection = Connection.begin()
    try:
        with only_error():
            return anyio.run(_take, connection, entry, host, what, within_s, to_its_end)
    finally:
        connection.release()


async def _take(connection: Connection, entry: RunEntry, host: str, what: str, within_s: float, to_its_end: bool) -> RunState:
    log = await open_event_log(connection.ready())
    writer = ShardWriter(log, entry.shard, owner_name(), restart=connection.restart)
    run = OwnedRun(entry.run)
    undertaker = _Undertaker(entry.run, str(RunFolder.of(connection.home, entry.run).locks), host, what)
    pools = PoolsOf(connection.ready(), connection.restart)

    def context_of(_: RunId) -> RunContext:
        return shared_context(RunStarted(**run.state.header), shard=entry.shard, log_url=connection.ready(), flow_file="")

    def elsewhere(name: str) -> Executor:
        return pools.executor(name, writer, context_of if pool_of(name) is None else undertaker.nothing, live=False)

    places = Places(undertaker, elsewhere)
    try:
        await writer.take()
        try:
            with anyio.move_on_after(within_s):
                await _serve(run, writer, undertaker, places, to_its_end=to_its_end)
        finally:
            with anyio.CancelScope(shield=True):  # both have deadlines of their own
                await places.leave_others()
                await writer.release()
    finally:
        with anyio.CancelScope(shield=True):
            await pools.aclose()
            await log.aclose()
    return run.state


async def _serve(run: OwnedRun, writer: ShardWriter, undertaker: _Undertaker, places: Places, *, to_its_end: bool) -> None:
    """Fold what lies in the inbox, decide and append, as the shard's loop does it."""
    first = await TakeOver(os.uname().nodename, config.get("user"))(run, writer, undertaker, places)
    no_slots = Slots(Capacity(0))  # reports may queue tasks before the request is read: none of them is started
    observer = RunObserver(writer.shard, writer.index_run, None)
    shard = Shard(writer, places, no_slots, observer, run.state.options["durability"], None if to_its_end else _OneRound())
    shard.add(run)
    if not to_its_end:
        shard.drain()  # it ends with what runs, which is nothing
    async with anyio.create_task_group() as group:
        group.start_soon(writer.keep)
        await shard.serve(first)
        group.cancel_scope.cancel()
