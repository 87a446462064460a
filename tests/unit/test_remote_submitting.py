"""What becomes of attempts that are taken back, cancelled or given up while they are submitted; over a platform that does what it is told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import pytest

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.explain_said import UnstartedJob
from evflow.core.ids import AttemptId, RunId
from evflow.errors import EvflowError
from evflow.log.said_waits import LATE_S, Unheard
from evflow.store import StoreUnusable
from evflow.worker.spec import AttemptOrder
from evflow_executors.remote.names import job_name
from evflow_executors.remote.platform import JobSeen, PlatformProblem
from evflow_executors.remote.submitting import NOT_YET, SUBMIT_PATIENCE_S
from tests.unit.test_remote_gangs import NAMES, NODES, World

pytestmark = pytest.mark.virtual_time
ONE = AttemptId.parse("Flow/1/2.0")
NAME = job_name("log", ONE)
ONE_MORE = AttemptId.parse("Flow/1/3.0")
OTHER = AttemptId.parse("Flow/2/4.0")
ORDER = AttemptOrder("work", 2, 0)


class Held:
    """A call that is not answered until it is let go on."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self.begun = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def __call__(self, *arguments: Any) -> Any:
        self.begun.set()
        await self.goes_on.wait()
        return await self._call(*arguments)


def held_submit(world: World, monkeypatch: pytest.MonkeyPatch) -> Held:
    """The platform's `submit`, which is not answered until it is let go on."""
    submitting = Held(world.platform.submit)
    monkeypatch.setattr(world.platform, "submit", submitting)
    return submitting


async def answered_and_ended(world: World, submitting: Held) -> None:
    """Let it go on, and see that the platform is told to end the job, once; it does."""
    submitting.goes_on.set()
    await anyio.sleep(1)
    assert world.platform.terminated == [NAME]
    world.platform.says.put_nowait(JobSeen(NAME, "ended", exit_code=143))


async def test_what_is_taken_back_while_its_job_is_made_is_not_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        making = Held(world.owner.jobs)
        monkeypatch.setattr(world.owner, "jobs", making)
        await world.executor.launch(ONE, ORDER)

        async def take_back() -> None:
            await making.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            making.goes_on.set()

        group.start_soon(take_back)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, None, "never-started"))]
        await anyio.sleep(1)
        assert world.platform.submitted == []


async def test_what_is_cancelled_while_it_is_submitted_is_ended_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        submitting = held_submit(world, monkeypatch)
        await world.executor.launch(ONE, ORDER)

        async def cancel() -> None:
            await submitting.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            await anyio.sleep(1)
            assert world.platform.terminated == []
            await answered_and_ended(world, submitting)

        group.start_soon(cancel)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, 15))]


async def test_what_is_cancelled_twice_while_it_is_submitted_is_ended_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What insists finds no job to end yet."""
    async with World.made() as world, anyio.create_task_group() as group:
        submitting = held_submit(world, monkeypatch)
        await world.executor.launch(ONE, ORDER)

        async def cancel() -> None:
            await submitting.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            await world.executor.cancel(ONE, grace_s=0)
            await anyio.sleep(1)
            world.platform.terminated.clear()
            await answered_and_ended(world, submitting)

        group.start_soon(cancel)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, 15))]


@pytest.mark.parametrize("problem", [None, PlatformProblem("No answer.", transient=True)])
async def test_what_is_cancelled_twice_while_it_is_submitted_is_ended_although_it_was_said_to_be_gone(
    problem: PlatformProblem | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes says so of a job that it has not heard of."""
    async with World.made() as world, anyio.create_task_group() as group:
        submitting = held_submit(world, monkeypatch)
        world.platform.problem = problem
        await world.executor.launch(ONE, ORDER)

        async def cancel() -> None:
            await submitting.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            await world.executor.cancel(ONE, grace_s=0)
            world.platform.says.put_nowait(JobSeen(NAME, "ended"))

        group.start_soon(cancel)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, None, "job-gone"))]
        world.platform.terminated.clear()

        async def terminate(name: str, why: str, grace_s: float) -> None:
            await anyio.sleep(1)  # so it is not over when the submit is
            world.platform.terminated.append(name)

        monkeypatch.setattr(world.platform, "terminate", terminate)
        asyncio.get_running_loop().call_later(1, submitting.goes_on.set)  # while it is closed
    assert world.platform.terminated == [NAME]


async def test_what_is_cancelled_while_it_is_submitted_is_ended_when_it_is_seen_and_the_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        submitting = held_submit(world, monkeypatch)
        world.platform.problem = PlatformProblem("No answer.", transient=True)
        await world.executor.launch(ONE, ORDER)

        async def cancel() -> None:
            await submitting.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            world.platform.says.put_nowait(JobSeen(NAME, "waiting"))
            await anyio.sleep(1)
            await answered_and_ended(world, submitting)

        group.start_soon(cancel)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, 15))]


@pytest.mark.parametrize("times", [1, 2])
async def test_what_is_cancelled_before_it_is_handed_to_the_platform_is_not_submitted(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is asked whose the shard is, and takes its time."""
    async with World.made() as world, anyio.create_task_group() as group:
        asking = Held(world.owner.is_owner)
        monkeypatch.setattr(world.owner, "is_owner", asking)
        await world.launch()
        await world.executor.launch(ONE_MORE, ORDER)

        async def cancel() -> None:
            await asking.begun.wait()
            for _ in range(times):
                await world.executor.cancel(NODES[1], grace_s=5)
            asking.goes_on.set()

        group.start_soon(cancel)
        with anyio.fail_after(60):
            ended = await world.ends(3)
        assert ended == [(node.task, AttemptExited(node.task, 0, None, None, "never-started")) for node in NODES]
        await anyio.sleep(1)
        assert [job.name for job in world.platform.submitted] == [job_name("log", ONE_MORE)]


async def test_the_nodes_of_a_gang_that_is_given_up_are_ended_because_they_may_be_there() -> None:
    async with World.made() as world:
        world.platform.problem = PlatformProblem("It is away.", transient=True)
        before_s = anyio.current_time()
        await world.launch()
        why = "never-started: It is away."
        assert await world.ends(3) == [(node.task, AttemptExited(node.task, 0, None, None, why)) for node in NODES]
        assert anyio.current_time() - before_s >= SUBMIT_PATIENCE_S
    assert world.platform.terminated == NAMES


async def test_what_may_be_there_is_ended_when_its_repeat_is_refused_for_good() -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        world.platform.problem = PlatformProblem("No answer.", transient=True)
        await world.executor.launch(ONE, ORDER)

        async def refuse() -> None:
            await anyio.sleep(LATE_S)
            assert world.platform.terminated == []
            world.platform.problem = PlatformProblem("You may not.", undone=True)
            await world.executor.launch(ONE_MORE, ORDER)

        group.start_soon(refuse)
        assert await world.ends(2) == [(task, AttemptFailed(task, 0, "container", "platform-problem", "You may not.")) for task in (3, 2)]
    assert world.platform.terminated == [NAME]


@pytest.mark.parametrize("undone", [False, True])
async def test_a_job_that_is_given_up_is_ended_if_it_may_be_there(undone: bool) -> None:
    async with World.made() as world:
        world.platform.problem = PlatformProblem("Later.", transient=True, undone=undone)
        await world.executor.launch(ONE, ORDER)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, None, None, "never-started: Later."))]
    assert world.platform.terminated == ([] if undone else [NAME])


async def test_nodes_of_a_cancelled_gang_are_not_submitted_again_when_one_of_them_was_there() -> None:
    """As where each node is a job, and not all were taken."""
    async with World.made() as world, anyio.create_task_group() as group:
        world.platform.problem = PlatformProblem("One is there, and then the quota is full.", transient=True)
        await world.launch()

        async def cancel() -> None:
            await anyio.sleep(LATE_S)
            world.platform.says.put_nowait(JobSeen(NAMES[0], "running"))
            await anyio.sleep(LATE_S)
            for node in NODES:
                await world.executor.cancel(node, grace_s=5)
            submitted = len(world.platform.submitted)
            world.platform.end(0, 143)
            await anyio.sleep(120)
            assert len(world.platform.submitted) == submitted

        group.start_soon(cancel)
        assert sorted(await world.ends(3)) == [
            (2, AttemptExited(2, 0, None, 15)),
            *((node.task, AttemptExited(node.task, 0, None, None, "never-started")) for node in NODES[1:]),
        ]
    assert sorted(world.platform.terminated) == sorted(NAMES)


async def test_what_is_over_before_its_first_try_is_not_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A former owner submitted it, and its job is seen while this one still makes it."""
    async with World.made() as world, anyio.create_task_group() as group:
        making = Held(world.owner.jobs)
        monkeypatch.setattr(world.owner, "jobs", making)
        await world.executor.launch(ONE, ORDER)

        async def see() -> None:
            await making.begun.wait()
            world.platform.says.put_nowait(JobSeen(NAME, "ended", exit_code=0))

        group.start_soon(see)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, 0, None))]
        making.goes_on.set()
        await anyio.sleep(1)
        assert world.platform.submitted == []


class Hearing(Unheard):
    """Hears of jobs that do not begin, and lets whoever takes back that a store is waited for wait."""

    def __init__(self) -> None:
        self.said: list[tuple[int, Sequence[UnstartedJob]]] = []
        self.unsaying = Held(super().unsay)

    async def unsay(self, run: RunId, executor: str) -> None:
        if run == OTHER.run:
            await self.unsaying(run, executor)

    async def say_unstarted(self, run: RunId, executor: str, tasks: int, jobs: Sequence[UnstartedJob]) -> None:
        self.said.append((tasks, jobs))

    async def unsay_unstarted(self, run: RunId, executor: str) -> None:
        self.said.append((0, ()))


async def test_why_a_platform_does_not_take_a_gang_is_said_of_each_node_alike() -> None:
    heard = Hearing()
    async with World.made(heard) as world, anyio.create_task_group() as group:
        world.platform.problem = PlatformProblem(f'jobs.batch "{NAMES[1]}" is one too many.', transient=True, undone=True)
        await world.launch()

        async def look() -> None:
            await anyio.sleep(LATE_S * 4)
            ((tasks, jobs),) = heard.said
            assert (tasks, {job.why for job in jobs}) == (3, {f"{NOT_YET} jobs.batch is one too many."})
            await world.executor.cancel(NODES[0], grace_s=5)
            await anyio.sleep(LATE_S)
            assert heard.said[1:] == [(0, ())]

        group.start_soon(look)
        assert len(await world.ends(3)) == 3


async def test_why_a_platform_does_not_take_a_job_is_said_until_it_does() -> None:
    heard = Hearing()
    async with World.made(heard) as world, anyio.create_task_group() as group:
        world.platform.problem = PlatformProblem(f'A job is not made: "{NAME}" is one too many.', transient=True)
        await world.executor.launch(ONE, ORDER)

        async def look() -> None:
            await anyio.sleep(LATE_S / 2)
            assert heard.said == [], "a refusal or two are nothing to speak of"
            await anyio.sleep(LATE_S * 4)
            assert heard.said == [(1, [UnstartedJob(2, 0, f"{NOT_YET} A job is not made: is one too many.")])]
            world.platform.problem = None
            await anyio.sleep(120)
            assert heard.said[1:] == [(0, ())]
            world.platform.says.put_nowait(JobSeen(NAME, "ended", exit_code=0))

        group.start_soon(look)
        assert await world.ends(1) == [(2, AttemptExited(2, 0, 0, None))]


class Away(StoreUnusable):
    is_transient = True


async def test_what_waits_for_its_store_is_taken_back_while_another_attempt_of_its_round_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, away = Hearing(), Away("s3://bucket", "it is busy")
    rounds = 0

    async def jobs(orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, EvflowError]:
        nonlocal rounds
        rounds += 1
        return {name: away if rounds == 1 or attempt == ONE else PlatformProblem("No such image.") for name, attempt, _ in orders}

    async with World.made(heard) as world, anyio.create_task_group() as group:
        monkeypatch.setattr(world.owner, "jobs", jobs)
        await world.executor.launch(ONE, ORDER)
        await world.executor.launch(OTHER, ORDER)

        async def cancel() -> None:
            await heard.unsaying.begun.wait()
            await world.executor.cancel(ONE, grace_s=5)
            heard.unsaying.goes_on.set()

        group.start_soon(cancel)
        with anyio.fail_after(60):
            assert await world.ends(2) == [
                (2, AttemptExited(2, 0, None, None, "never-started")),
                (4, AttemptFailed(4, 0, "container", "platform-problem", "No such image.")),
            ]


async def test_a_mistake_while_a_job_is_made_is_raised_where_the_executor_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    async def jobs(orders: Sequence[Any]) -> None:
        raise RuntimeError("a mistake")

    async with World.made() as world:
        monkeypatch.setattr(world.owner, "jobs", jobs)
        await world.executor.launch(ONE, ORDER)
        with pytest.raises(RuntimeError, match="a mistake"):
            await world.ends(1)
