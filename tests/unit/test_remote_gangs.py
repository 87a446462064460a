"""Gangs of the remote executor: one submit, one fate, and who is told to have failed; over a platform that does what it is told."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.log.said_waits import UNHEARD, Waits
from evflow.worker.spec import AttemptOrder
from evflow_executors.protocol import GangExecutor, Observation
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.executor import FATE_S, RemoteExecutor
from evflow_executors.remote.names import MOST_CHARS, gang_name, job_name
from evflow_executors.remote.platform import NO_GANGS, Job, JobSeen, LogText, Phase, PlatformProblem
from evflow_executors.remote.verdicts import GANG_ENDED, Verdict

pytestmark = pytest.mark.virtual_time
NODES = [AttemptId.parse(f"Crew/1/{task}.0") for task in (2, 3, 4)]
NAMES = [job_name("log", node) for node in NODES]
GANG = gang_name("log", NODES[0])
ENDED_WITH_IT = Verdict("exited", GANG_ENDED, "Its Job was ended.")
LOST = Verdict("lost", "host-lost", "Its node is gone.")


class Told:
    """A platform: what it was asked for, and what it is told to say."""

    name = "told"
    together = 0

    def __init__(self) -> None:
        self.submitted: list[Job] = []
        self.terminated: list[str] = []
        self.looked_for: Mapping[str, Sequence[str]] = {}
        self.problem: PlatformProblem | None = None
        self.there: set[str] = set()
        self.phase: Phase = "running"
        self.reads = frozenset[bytes]()
        self.says = asyncio.Queue[JobSeen]()

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        self.submitted += jobs
        return {} if self.problem is None else dict.fromkeys([job.name for job in jobs], self.problem)

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        self.looked_for = gangs
        return {name: JobSeen(name, self.phase, reads=self.reads) for name in names if name in self.there}

    async def watch(self) -> AsyncIterator[JobSeen]:
        while True:
            yield await self.says.get()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        self.terminated.append(name)

    async def logs(self, name: str) -> AsyncIterator[LogText]:
        nothing: Sequence[LogText] = ()
        for line in nothing:
            yield line

    async def log_tail(self, name: str, lines: int) -> str:
        return ""

    async def aclose(self) -> None:
        pass

    def end(self, index: int, exit_code: int | None, verdict: Verdict | None = None) -> None:
        seen = JobSeen(NAMES[index], "ended", exit_code=exit_code)
        self.says.put_nowait(seen if verdict is None else replace(seen, verdict=verdict))


class Owner:
    """The owner of the attempts; see `Dispatch`."""

    epoch = 7

    def __init__(self) -> None:
        self.forgotten: list[AttemptId] = []
        self.kept: list[Mapping[AttemptId, frozenset[bytes]]] = []
        self.variables: Mapping[str, str] = {}

    def log_of(self, attempt: AttemptId) -> str:
        return "log"

    def store_of(self, attempt: AttemptId) -> str:
        return "store"

    async def jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, Job | EvflowError]:
        return {name: Job(name, attempt, "work", {}, ContainerCommand((), {}, self.variables)) for name, attempt, _ in orders}

    async def gang(self, name: str, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Job | EvflowError:
        nodes = [job for job in (await self.jobs(orders)).values() if isinstance(job, Job)]
        return replace(nodes[0], name=name, nodes=nodes)

    async def forget_gang(self, control: AttemptId) -> None:
        self.forgotten.append(control)

    async def is_owner(self) -> bool:
        return True

    async def carry(self, attempt: AttemptId, *, unless: str, tell: Callable[[str], None]) -> None:
        pass

    async def keep(self, waiting: Mapping[AttemptId, frozenset[bytes]]) -> bool:
        self.kept.append(waiting)
        return True

    def is_ours(self, seen: JobSeen) -> bool:
        return True

    def asked_by(self, attempts: Sequence[AttemptId]) -> Sequence[Mapping[str, Any]]:
        return []


class World:
    """An executor, and the ends that it tells, in their order."""

    def __init__(self, waits: Waits = UNHEARD) -> None:
        self.platform, self.owner = Told(), Owner()
        self.executor = RemoteExecutor(self.platform, self.owner, waits=waits)
        self._watch = self.executor.watch()

    async def launch(self) -> None:
        await self.executor.launch_gang([(node, AttemptOrder("work", node.task, 0)) for node in NODES])

    async def ends(self, count: int) -> list[tuple[int, AttemptExited | AttemptFailed]]:
        found: list[tuple[int, AttemptExited | AttemptFailed]] = []
        async for seen in self._watch:
            if isinstance(seen, Observation) and isinstance(seen.event, AttemptExited | AttemptFailed):
                found.append((seen.attempt.task, seen.event))
                if len(found) == count:
                    break
        return found

    @staticmethod
    @asynccontextmanager
    async def made(waits: Waits = UNHEARD) -> "AsyncGenerator[World]":
        world = World(waits)
        try:
            yield world
        finally:
            await world.executor.aclose()
            async for _ in world._watch:  # what is left, and its end
                pass


async def test_a_gang_is_one_submit_and_a_second_launch_changes_nothing() -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        assert isinstance(world.executor, GangExecutor)
        await world.launch()
        await world.launch()

        async def end() -> None:
            await anyio.sleep(1)
            for index in range(3):
                world.platform.end(index, 0)

        group.start_soon(end)
        assert await world.ends(3) == [(node.task, AttemptExited(node.task, 0, 0, None)) for node in NODES]
        ((name, nodes),) = [(job.name, [node.name for node in job.nodes]) for job in world.platform.submitted]
        assert (name, nodes) == (GANG, NAMES)
    assert world.owner.forgotten == [NODES[0]]


async def test_what_is_refused_for_good_fails_all_nodes_with_the_reason() -> None:
    async with World.made() as world:
        world.platform.problem = PlatformProblem("No such namespace.")
        await world.launch()
        assert [(task, end.message) for task, end in await world.ends(3) if isinstance(end, AttemptFailed)] == [
            (node.task, "No such namespace.") for node in NODES
        ]


async def test_a_gang_that_is_taken_back_before_its_submit_never_starts() -> None:
    async with World.made() as world:
        await world.launch()
        await world.executor.cancel(NODES[1], grace_s=5)
        assert {(task, end.why) for task, end in await world.ends(3) if isinstance(end, AttemptExited)} == {
            (node.task, "never-started") for node in NODES
        }
        assert world.platform.submitted == []


async def test_nodes_that_were_ended_with_their_gang_are_told_when_the_run_asks_for_it() -> None:
    """Behind the one that failed, whatever comes first from the platform."""
    async with World.made() as world:
        await world.launch()
        world.platform.end(0, 143, ENDED_WITH_IT)
        world.platform.end(2, None, ENDED_WITH_IT)
        world.platform.end(1, 137, Verdict("failed", "container-out-of-memory", "More."))
        ((failed, end),) = await world.ends(1)
        assert (failed, isinstance(end, AttemptFailed)) == (3, True)
        for node in (NODES[0], NODES[2]):
            await world.executor.cancel(node, grace_s=5)
        assert [task for task, _ in await world.ends(2)] == [2, 4]


async def test_nodes_whose_end_nobody_asks_for_are_lost_in_the_end() -> None:
    async with World.made() as world:
        await world.launch()
        before = asyncio.get_running_loop().time()
        world.platform.end(0, 143, ENDED_WITH_IT)
        ((_, end),) = await world.ends(1)
        assert isinstance(end, AttemptExited)
        assert end.why == "job-gone: Its Job was ended."
        assert asyncio.get_running_loop().time() - before >= FATE_S


async def test_a_node_that_was_lost_is_lost_though_its_end_was_asked_for_and_one_that_was_stopped_without_a_reason_is() -> None:
    async with World.made() as world:
        await world.launch()
        world.platform.says.put_nowait(JobSeen(NAMES[0], "running"))
        world.platform.end(1, 143)
        ((_, stopped),) = await world.ends(1)
        assert isinstance(stopped, AttemptExited)
        assert stopped.why.startswith("container-stopped")
        await world.executor.cancel(NODES[0], grace_s=5)
        world.platform.end(0, None, LOST)
        ((_, lost),) = await world.ends(1)
        assert lost == AttemptExited(2, 0, None, None, "host-lost: Its node is gone.")


async def test_a_new_owner_looks_for_a_gang_by_its_name() -> None:
    async with World.made() as world:
        world.platform.there = set(NAMES[1:])
        world.executor.know_gangs([NODES])
        assert await world.executor.adopt(NODES[:2]) == [NODES[1]]
        assert world.platform.looked_for == {GANG: tuple(NAMES)}
        world.platform.end(1, 0)
        await world.ends(1)
    assert world.owner.forgotten == [NODES[0]]


async def test_a_gang_none_of_whose_nodes_is_there_is_not_looked_for_again() -> None:
    async with World.made() as world:
        world.executor.know_gangs([NODES])
        assert await world.executor.adopt(NODES) == []
        assert world.platform.looked_for == {GANG: tuple(NAMES)}
        assert await world.executor.adopt(NODES) == []
        assert world.platform.looked_for == {}


def test_the_name_of_a_gang_leaves_its_pods_room_for_their_indexes() -> None:
    for attempt in ("Crew/1/2.0", f"{'F' * 60}/123456789/123456789.99", f"Crew/{10**30}/2.0"):
        name = gang_name("log", AttemptId.parse(attempt))
        assert len(f"{name}-199") <= MOST_CHARS
        assert name != job_name("log", AttemptId.parse(attempt))
