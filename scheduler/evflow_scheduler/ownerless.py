"""A request to a run that nobody owns: a command takes the run for one round, folds what lies in its inbox, and gives it back.

As for a cancellation (`evflow_scheduler.cancel`), but nothing is waited for: attempts that a dead owner left behind are
ended, what was reported is folded, what follows is decided and appended, and nothing is started. Whoever goes on with the run
finds the request in its log.
"""

import os

import anyio

from evflow import config
from evflow.core.admit import Capacity, Slots
from evflow.core.events import RunStarted
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.log import open_event_log
from evflow.log.owners import owner_name
from evflow.log.protocol import RunEntry
from evflow.log.writer import ShardWriter
from evflow_executors.places import Places
from evflow_scheduler.cancel import Undertaker
from evflow_scheduler.connection import Connection
from evflow_scheduler.drive import only_error
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.pools import PoolsOf
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Shard
from evflow_scheduler.start import RunFolder
from evflow_scheduler.takeover import TakeOver


class _Passing:
    """The host of a shard that is served for one round: no run comes, and one that ends needs nothing."""

    def welcome(self, offered: RunStarted) -> RunStarted:
        return offered

    def dismiss(self, run: RunId) -> None:
        pass

    def has_room(self) -> None:
        pass


def settle_ownerless(entry: RunEntry, host: str) -> RunState:
    """Take a run that nobody owns, do what its inbox asks for, and give its shard back.

    Args:
        entry: The run's line in the index.
        host: The machine that its attempts were started on.

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
            return anyio.run(_settle, connection, entry, host)
    finally:
        connection.release()


async def _settle(connection: Connection, entry: RunEntry, host: str) -> RunState:
    log = await open_event_log(connection.ready())
    writer = ShardWriter(log, entry.shard, owner_name(), restart=connection.restart)
    run = OwnedRun(entry.run)
    executor = Undertaker(entry.run, str(RunFolder.of(connection.home, entry.run).locks), host, "Act on")
    pools = PoolsOf(connection.ready(), connection.restart)
    places = Places(executor, lambda pool: pools.executor(pool, writer, executor.nothing, live=False))
    try:
        await writer.take()
        try:
            first = await TakeOver(os.uname().nodename, config.get("user"))(run, writer, executor, places)
            observer = RunObserver(writer.shard, writer.index_run, None)
            shard = Shard(writer, places, Slots(Capacity(0)), observer, run.state.options["durability"], _Passing())
            shard.add(run)
            shard.drain()  # it ends with what runs, which is nothing
            async with anyio.create_task_group() as group:
                group.start_soon(writer.keep)
                await shard.serve(first)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):  # both have deadlines of their own
                await places.leave_pools()
                await writer.release()
    finally:
        with anyio.CancelScope(shield=True):
            await pools.aclose()
            await log.aclose()
    return run.state
