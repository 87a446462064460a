"""What every executor does, the simulated one included."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from evflow.core.events import AttemptExited, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.testing.simulated_executor import Fate, SimulatedExecutor, SimulatedMachine
from evflow.worker.forkserver import ForkServer
from evflow.worker.spec import AttemptOrder
from evflow_executors.local import LocalExecutor
from evflow_executors.packages import PackagedExecutor
from evflow_executors.pool import PoolExecutor
from evflow_executors.protocol import Executor, Observation, OutputLine
from evflow_executors.remote.executor import RemoteExecutor
from tests.fakes.container_host import PlainPlatform
from tests.fork_bench import a_context, runner_of
from tests.packaged_world import a_real_context
from tests.pool_world import a_pool, a_pooled_context
from tests.redis_server import DebianRedis
from tests.remote_world import a_remote_executor, a_service, via


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    time.sleep(600)


BODIES = {
    "quick": lambda: None,
    "says": lambda: print("one\ntwo"),
    "sleeps": lambda: time.sleep(600),
    "stubborn": stubborn,
    "code": lambda: 3,
    "crash": lambda: os.kill(os.getpid(), signal.SIGABRT),
}
FLOW = """
import os, signal, time
from evflow import FlowSpec, step

def over(code):
    os._exit(code)

class Flow(FlowSpec):
    @step
    def quick(self):
        over(0)
    @step
    def says(self):
        print("one\\ntwo", flush=True)
        over(0)
    @step
    def sleeps(self):
        time.sleep(600)
    @step
    def stubborn(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("stubborn", flush=True)
        time.sleep(600)
    @step
    def code(self):
        over(3)
    @step
    def crash(self):
        os.kill(os.getpid(), signal.SIGABRT)
"""
FATES = {
    "quick": Fate(),
    "says": Fate(lines=("one", "two")),
    "sleeps": Fate(runs_s=600),
    "stubborn": Fate(runs_s=600, lines=("stubborn",), stubborn=True),
    "code": Fate(exit_code=3),
    "crash": Fate(exit_code=None, signal=signal.SIGABRT),
}


class World:
    """An executor, and everything that was seen of it so far."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.seen: list[Observation | OutputLine] = []
        self._watch: Any = executor.watch()

    async def launch(self, step: str, task: int = 1, attempt: int = 0) -> AttemptId:
        name = AttemptId.parse(f"Flow/1/{task}.{attempt}")
        await self.executor.launch(name, AttemptOrder(step, task, attempt))
        return name

    async def until(self, kind: type, name: AttemptId) -> Any:
        with anyio.fail_after(700):
            while True:
                for seen in self.seen:
                    if seen.attempt == name and isinstance(seen, Observation) and isinstance(seen.event, kind):
                        return seen.event
                    if seen.attempt == name and isinstance(seen, kind):
                        return seen
                self.seen.append(await anext(self._watch))

    async def end(self, name: AttemptId) -> AttemptExited:
        event: AttemptExited = await self.until(AttemptExited, name)
        return event

    def kinds(self, name: AttemptId) -> list[str]:
        return [type(s.event if isinstance(s, Observation) else s).__name__ for s in self.seen if s.attempt == name]

    async def aclose(self) -> None:
        await self._watch.aclose()
        await self.executor.aclose()


async def packaged(root: Path, method: str) -> PackagedExecutor:
    (root / "flow.py").write_text(FLOW)
    executor = PackagedExecutor(warm_bytes=0)
    await executor.prepare(a_real_context(root, flow_file=str(root / "flow.py"), options={"start_method": method}))
    return executor


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """Answer the URL of a server for the pool's queue."""
    missing = DebianRedis.why_missing()
    if missing:
        yield ""
        return
    with DebianRedis.started() as server:
        yield server.url


@pytest.fixture(
    params=[
        "local",
        "packaged-fork",
        "packaged-spawn",
        "pool",
        "remote-log",
        "remote-store",
        pytest.param("simulated", marks=pytest.mark.virtual_time),
    ]
)
async def world(request: pytest.FixtureRequest, root: Path, redis: str) -> AsyncIterator[World]:
    executor: Executor
    if request.param == "pool":
        if not redis:
            pytest.skip("no redis-server for the pool's queue")
        async with a_pool(redis, root, FLOW) as pooled:
            made = World(pooled)
            await made.end(await made.launch("quick", 999))  # its tasks and the worker's are there before the test's
            yield made
            await made.aclose()
        return
    if request.param.startswith("remote"):
        if not redis:
            pytest.skip("no redis-server for the inbox")
        via(request.param.partition("-")[2])
        context = a_pooled_context(root, FLOW, options={"start_method": "fork", "installation": "log-1"})
        async with a_service(root) as service, a_remote_executor(redis, context, PlainPlatform(service)) as remote:
            made = World(remote)
            await made.end(await made.launch("quick", 999))
            yield made
            await made.aclose()
        return
    if request.param == "local":
        local = LocalExecutor(ForkServer.fork_here(None, asked="fork", make_runner=runner_of(BODIES)))
        await local.prepare(a_context(root))
        executor = local
    elif request.param.startswith("packaged"):
        executor = await packaged(root, request.param.partition("-")[2])
    else:
        executor = SimulatedExecutor(SimulatedMachine(lambda _, order: FATES[order.step]))
    made = World(executor)
    yield made
    await made.aclose()


async def test_an_attempt_is_seen_to_start_then_to_print_then_to_exit_once(world: World) -> None:
    name = await world.launch("says")
    assert await world.end(name) == AttemptExited(1, 0, 0, None)
    await world.end(await world.launch("quick", 2))
    kinds = world.kinds(name)
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("AttemptStarted", {"OutputLine"}, "AttemptExited")
    assert [seen.text for seen in world.seen if isinstance(seen, OutputLine)] == ["one", "two"]


async def test_what_an_attempt_prints_names_its_process(world: World) -> None:
    name = await world.launch("says")
    started: AttemptStarted = await world.until(AttemptStarted, name)
    await world.end(name)
    assert {seen.pid for seen in world.seen if isinstance(seen, OutputLine)} == {started.pid}  # 0 where it is in a container


async def test_exit_codes_and_signals_are_told_apart(world: World) -> None:
    assert await world.end(await world.launch("code", 1)) == AttemptExited(1, 0, 3, None)
    assert await world.end(await world.launch("crash", 2)) == AttemptExited(2, 0, None, signal.SIGABRT)


async def test_many_attempts_run_and_each_exits_exactly_once(world: World) -> None:
    many = 6 if isinstance(world.executor, RemoteExecutor) else 40  # each of them some interpreters there
    names = [await world.launch("quick", task) for task in range(1, many + 1)]
    for name in names:
        await world.end(name)
    assert all(world.kinds(name) == ["AttemptStarted", "AttemptExited"] for name in names)


async def test_launching_a_running_attempt_again_changes_nothing(world: World) -> None:
    name = await world.launch("sleeps")
    await world.launch("sleeps")
    await world.until(AttemptStarted, name)
    await world.launch("sleeps")
    await world.executor.cancel(name, grace_s=5)
    await world.end(name)
    await world.end(await world.launch("quick", 2))
    assert world.kinds(name) == ["AttemptStarted", "AttemptExited"]


async def test_cancel_ends_an_attempt_by_sigterm(world: World) -> None:
    name = await world.launch("sleeps")
    await world.until(AttemptStarted, name)
    await world.executor.cancel(name, grace_s=60)
    assert (await world.end(name)).signal == signal.SIGTERM


async def test_cancel_kills_after_the_grace_what_does_not_end_itself(world: World) -> None:
    name = await world.launch("stubborn")
    await world.until(OutputLine, name)
    await world.executor.cancel(name, grace_s=0.05)
    assert (await world.end(name)).signal == signal.SIGKILL


async def test_cancelling_what_is_unknown_or_over_is_ignored(world: World) -> None:
    name = await world.launch("quick")
    await world.end(name)
    await world.executor.cancel(name, grace_s=0)
    await world.executor.cancel(AttemptId.parse("Flow/1/99.0"), grace_s=0)
    await world.end(await world.launch("quick", 2))
    assert world.kinds(name) == ["AttemptStarted", "AttemptExited"]


async def test_adopt_names_nothing_of_what_never_existed(world: World) -> None:
    assert list(await world.executor.adopt([AttemptId.parse("Flow/1/7.0")])) == []


@pytest.mark.virtual_time
async def test_an_adopted_attempt_is_seen_to_start_once_more() -> None:
    """Its former owner may have died before anybody heard of it."""
    machine = SimulatedMachine(lambda _, order: FATES[order.step], survive=True)
    former, heir = World(SimulatedExecutor(machine)), World(SimulatedExecutor(machine))
    name = await former.launch("sleeps")
    started: AttemptStarted = await former.until(AttemptStarted, name)
    assert list(await heir.executor.adopt([name])) == [name]
    assert await heir.until(AttemptStarted, name) == started
    await heir.aclose()
    await former.aclose()


async def test_a_closed_executor_ends_what_runs_and_its_watch(world: World) -> None:
    name = await world.launch("sleeps")
    await world.until(AttemptStarted, name)
    await world.executor.aclose()
    if isinstance(world.executor, PoolExecutor | RemoteExecutor):  # they outlive it: see tests/integration
        return
    with anyio.fail_after(60):
        rest = [seen async for seen in world._watch]
    assert [type(seen.event) for seen in rest if isinstance(seen, Observation)] == [AttemptExited]
