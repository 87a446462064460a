"""Drive one run to its end in this process: the loop, its log, its executor, and what stands around them."""

import gc
import os
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import anyio

from evflow.core.admit import Capacity, Slots
from evflow.core.events import RunCancelRequested
from evflow.core.state import RunState
from evflow.core.values import field, value
from evflow.errors import EvflowError
from evflow.log import open_event_log
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import Durability
from evflow.log.writer import ShardWriter
from evflow.worker.forkserver import ForkServer
from evflow.worker.spec import RunContext
from evflow_executors.local import LocalExecutor
from evflow_executors.places import Places
from evflow_executors.protocol import Executor
from evflow_scheduler.connection import Connection
from evflow_scheduler.early_signals import EarlySignals
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.pools import PoolsOf
from evflow_scheduler.request import RunView
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Batch, Shard
from evflow_scheduler.signals import cancel_on_signal

if TYPE_CHECKING:  # few runs have environments
    from evflow_executors.beside import WithEnvironments

_TICK_S = 0.1
_TOLD_AFTER_S = 1.0
"""A server that is away for less is nobody's business."""


@value
class Drive:
    """What a run needs to be driven.

    Attributes:
        connection: Where the log is.
        context: What the run's attempts are told.
        fork_server: Starts them.
        owner: This owner's name, never used before.
        user: Who is asking, for what comes from the terminal.
        max_workers: Attempts at once.
        durability: When an event counts as written.
        early_signals: What came before the loop listens.
        view: Shows what happens, or None.
        instead: Executors whose steps run on this machine instead, and why.
    """

    connection: Connection
    context: RunContext
    fork_server: ForkServer
    owner: str
    user: str
    max_workers: int
    durability: Durability
    early_signals: EarlySignals
    view: RunView | None = None
    instead: Mapping[str, str] = field(default_factory=dict[str, str])


Begin = Callable[[OwnedRun, ShardWriter, Executor, Mapping[str, Executor]], Awaitable[Batch]]
"""Gives the first round of a run, new or continued; called when the shard is ours and before anything is launched."""


def drive(plan: Drive, run: OwnedRun, begin: Begin) -> RunState:
    """Own the run's shard until the run is sealed.

    Args:
        plan: Everything around the run.
        run: The run; new, or to be loaded by `begin`.
        begin: Gives the first round.

    Raises:
        EvflowError: This process had to give the run up. Its log is whole; the run can be continued.
    """
    gc.freeze()  # What is there stays, and need not be looked through again and again.
    gc.enable()
    with only_error():
        return anyio.run(_drive, plan, run, begin)


async def _drive(plan: Drive, run: OwnedRun, begin: Begin) -> RunState:
    connection = plan.connection
    log = await open_event_log(connection.ready())
    writer = ShardWriter(log, plan.context.shard, plan.owner, restart=connection.restart, on_trouble=_trouble(plan.view))
    executor = _executor(plan)
    pools = PoolsOf(connection.ready(), connection.restart)
    live = plan.view is not None
    places = Places(executor, lambda name: pools.executor(name, writer, lambda _: plan.context, live=live, on_notice=_notice(plan.view)))
    try:
        await writer.take()
        try:
            await _serve(plan, run, begin, writer, executor, places)
        finally:
            with anyio.CancelScope(shield=True):  # `aclose` and `release` have deadlines of their own.
                await _leave(connection, writer, executor, places)
    finally:
        with anyio.CancelScope(shield=True):
            await pools.aclose()
            await log.aclose()
    return run.state


def _executor(plan: Drive) -> "LocalExecutor | WithEnvironments":
    here = LocalExecutor(plan.fork_server)
    if not plan.context.options.get("environments"):
        return here
    from evflow_executors.beside import WithEnvironments

    return WithEnvironments(here, _notice(plan.view))


async def _leave(connection: Connection, writer: ShardWriter, executor: "LocalExecutor | WithEnvironments", places: Places) -> None:
    """End the fork server, and give back the lease and the embedded server."""
    await places.leave_others()
    if executor.running:
        # Its attempts may report until they are gone, and nobody else may start one of them before that.
        try:
            await executor.aclose()
        finally:
            await writer.release()
        return
    async with anyio.create_task_group() as group:
        group.start_soon(executor.aclose)  # some milliseconds, in which the server can end as well
        await writer.release()
        connection.release()


async def _serve(
    plan: Drive, run: OwnedRun, begin: Begin, writer: ShardWriter, executor: "LocalExecutor | WithEnvironments", places: Places
) -> None:
    await executor.prepare(plan.context)
    first = await begin(run, writer, executor, places)
    observer = RunObserver(plan.context.shard, writer.index_run, plan.view)
    shard = Shard(writer, places, Slots(capacity(plan.max_workers)), observer, plan.durability, instead=plan.instead)
    shard.add(run)

    async def cancel(request: RunCancelRequested) -> None:
        await shard.tell(run.id, request, f"user:{plan.user}")

    async with anyio.create_task_group() as group:
        group.start_soon(writer.keep)
        group.start_soon(cancel_on_signal, cancel, _notice(plan.view), plan.early_signals)
        if plan.view is not None:
            group.start_soon(_tick, plan.view)
        await shard.serve(first)
        group.cancel_scope.cancel()


def capacity(slots: int) -> Capacity:
    """What this machine has for attempts: slots, the cores that this process may use, and its memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(slots, cpu=cores, memory_mb=memory_bytes // 1_048_576)


async def _tick(view: RunView) -> None:
    while True:
        view.tick()
        await anyio.sleep(_TICK_S)


def _notice(view: RunView | None) -> Callable[[str], None]:
    return view.on_notice if view is not None else lambda _: None


def _trouble(view: RunView | None) -> Callable[[LogUnavailable, float], None]:
    told = False

    def on_trouble(error: LogUnavailable, away_s: float) -> None:
        nonlocal told
        if away_s >= _TOLD_AFTER_S and not told:
            told = True
            _notice(view)(f"The log's server is away; waiting for it: {error.message}")

    return on_trouble


@contextmanager
def only_error() -> Generator[None]:
    """Raise what a task group collected as what it is: one error, or the first of several that say the same.

    An owner that has lost its shard hears of it in all its tasks at once.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        if len(errors) > 1 and not all(isinstance(error, EvflowError) for error in errors):
            raise
        raise errors[0] from None


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that a group is made of, however deep; one that is none is itself."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    parts: Sequence[BaseException] = cast("BaseExceptionGroup[BaseException]", error).exceptions
    for part in parts:
        yield from leaves(part)
