"""The local executor when processes die: a worker, the fork server, its own task."""

import os
import signal
import time
from pathlib import Path

import anyio
import psutil
import pytest

from evflow.core.events import AttemptExited, AttemptStarted
from evflow.core.ids import AttemptId, RunId
from evflow.worker import locks
from evflow.worker.forkserver import ForkServer
from evflow.worker.spec import AttemptOrder
from evflow_executors.local import FORK_SERVER_DIED, MAX_FRUITLESS_STARTS, ForkServerBroken, LocalExecutor, RunUnknown
from evflow_executors.protocol import Observation
from tests import waiting
from tests.contract.test_executor import World
from tests.fork_bench import a_context, runner_of
from tests.waiting import wait_until

pytestmark = pytest.mark.may_block("the tests look at processes")


def a_server() -> ForkServer:
    return ForkServer.fork_here(None, asked="fork", make_runner=runner_of({"quick": lambda: None, "sleeps": lambda: time.sleep(600)}))


async def a_world(root: Path) -> World:
    executor = LocalExecutor(a_server(), restart=a_server)
    await executor.prepare(a_context(root))
    return World(executor)


def executor_of(world: World) -> LocalExecutor:
    assert isinstance(world.executor, LocalExecutor)
    return world.executor


def gone(pid: int) -> bool:
    try:
        return waiting.gone(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


async def test_a_killed_worker_is_seen_and_the_others_go_on(root: Path) -> None:
    world = await a_world(root)
    try:
        victim, other = await world.launch("sleeps", 1), await world.launch("sleeps", 2)
        started: AttemptStarted = await world.until(AttemptStarted, victim)
        await world.until(AttemptStarted, other)
        os.kill(started.pid, signal.SIGKILL)
        assert await world.end(victim) == AttemptExited(1, 0, None, signal.SIGKILL)
        assert "AttemptExited" not in world.kinds(other)
    finally:
        await world.aclose()


async def test_a_killed_fork_server_is_replaced_after_its_attempts_are_gone(root: Path) -> None:
    world = await a_world(root)
    try:
        names = [await world.launch("sleeps", task) for task in (1, 2)]
        pids = [(await world.until(AttemptStarted, name)).pid for name in names]
        first = executor_of(world).fork_server_pid
        os.kill(first, signal.SIGKILL)
        for name in names:
            assert await world.end(name) == AttemptExited(name.task, 0, None, None, FORK_SERVER_DIED)
            assert all(map(gone, pids)), "an exit is told when the process is gone"
        assert executor_of(world).fork_server_pid != first
        assert await world.end(await world.launch("quick", 1, 1)) == AttemptExited(1, 1, 0, None)
    finally:
        await world.aclose()


async def test_what_is_launched_while_there_is_no_fork_server_runs_in_the_next_one(root: Path) -> None:
    world = await a_world(root)
    try:
        await world.end(await world.launch("quick", 1))
        os.kill(executor_of(world).fork_server_pid, signal.SIGKILL)
        wait_until(lambda: gone(executor_of(world).fork_server_pid), "the fork server is dead")
        name = await world.launch("quick", 2)
        ended = await world.end(name)
        if ended.why == FORK_SERVER_DIED:  # handed over before the death was noticed
            ended = await world.end(await world.launch("quick", 2, 1))
        assert ended.exit_code == 0
    finally:
        await world.aclose()


async def test_fork_servers_that_always_die_are_given_up(root: Path) -> None:
    def broken() -> ForkServer:
        server = a_server()
        server.kill()
        return server

    world = World(LocalExecutor(broken(), restart=broken))
    await executor_of(world).prepare(a_context(root))
    try:
        for attempt in range(MAX_FRUITLESS_STARTS):
            assert (await world.end(await world.launch("quick", 1, attempt))).why == FORK_SERVER_DIED
        await world.launch("quick", 1, MAX_FRUITLESS_STARTS)
        with anyio.fail_after(60), pytest.raises(ForkServerBroken):
            await anext(world._watch)
    finally:
        await world.aclose()


async def test_fork_servers_that_die_of_what_they_started_are_replaced_each_time(root: Path) -> None:
    world = await a_world(root)
    try:
        for attempt in range(MAX_FRUITLESS_STARTS + 2):
            name = await world.launch("sleeps", 1, attempt)
            await world.until(AttemptStarted, name)
            os.kill(executor_of(world).fork_server_pid, signal.SIGKILL)
            assert (await world.end(name)).why == FORK_SERVER_DIED
    finally:
        await world.aclose()


async def test_nothing_is_left_when_the_watching_task_was_cancelled_first(root: Path) -> None:
    executor = LocalExecutor(a_server())
    await executor.prepare(a_context(root))
    pid = 0

    async def watch(started: anyio.Event) -> None:
        nonlocal pid
        async for seen in executor.watch():
            assert isinstance(seen, Observation)
            assert isinstance(seen.event, AttemptStarted)
            pid = seen.event.pid
            started.set()

    async with anyio.create_task_group() as group:
        started = anyio.Event()
        group.start_soon(watch, started)
        await executor.launch(AttemptId.parse("Flow/1/1.0"), AttemptOrder("sleeps", 1, 0))
        await started.wait()
        group.cancel_scope.cancel()
    await executor.aclose()
    assert gone(pid)
    assert gone(executor.fork_server_pid)


async def test_adopting_ends_the_attempts_of_a_dead_owner(root: Path) -> None:
    former = await a_world(root)
    name = await former.launch("sleeps", 4, 1)
    pid = (await former.until(AttemptStarted, name)).pid
    context = a_context(root)
    wait_until(lambda: locks.holder(context.lock_file, 4, 1) == pid, "it holds its lock")
    world = await a_world(root)
    try:
        assert list(await world.executor.adopt([name])) == []
        assert locks.holder(context.lock_file, 4, 1) is None
        wait_until(lambda: gone(pid), "the attempt is gone")
    finally:
        await world.aclose()
        await former.aclose()


async def test_a_run_whose_context_is_unknown_is_refused(root: Path) -> None:
    world = await a_world(root)
    try:
        with pytest.raises(RunUnknown, match="Other/1"):
            await world.executor.launch(AttemptId(RunId.parse("Other/1"), 1, 0), AttemptOrder("quick", 1, 0))  # type: ignore[arg-type]
    finally:
        await world.aclose()
