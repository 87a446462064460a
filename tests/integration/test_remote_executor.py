"""The executor of platforms of containers: what it does when owners die, platforms are away and answers are lost."""

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import anyio.from_thread
import pytest

from evflow.core.codec import decode_report
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.log.link import Link
from evflow.log.said_waits import NO_ANSWER
from evflow.store import StoreUnusable
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.remote import executor as remote, owner, reports, storeless, submitting, terminations
from evflow_executors.remote.command import ContainerSettings
from evflow_executors.remote.executor import RemoteExecutor
from evflow_executors.remote.names import job_name
from evflow_executors.remote.owner import OwnerDispatch
from evflow_executors.remote.platform import Job, PlatformProblem
from evflow_executors.remote.provision import container_settings
from evflow_executors.remote.verdicts import Verdict
from tests.contract.test_executor import FLOW, World
from tests.fakes.container_host import PlainPlatform, PlainService
from tests.pool_world import SHARD, a_pooled_context
from tests.redis_server import DebianRedis
from tests.remote_world import OWNER, a_remote_executor, a_service, reports_of, store_waits, via

WITHIN_S = 60.0
AWAY = PlatformProblem("The platform is away.", transient=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for the inbox."""
    missing = DebianRedis.why_missing()
    if missing:
        pytest.skip(missing)
    with DebianRedis.started() as server:
        yield server.url


@pytest.fixture
def context(root: Path) -> RunContext:
    """The context of a run whose reports go by the store."""
    via("store")
    return a_pooled_context(root, FLOW, options={"start_method": "fork", "installation": "log-1"})


@pytest.fixture
async def service(root: Path) -> AsyncIterator[PlainService]:
    """The platform's service, which outlives owners."""
    async with a_service(root) as made:
        yield made


def name_of(attempt: AttemptId) -> str:
    return job_name("log-1", attempt)


@asynccontextmanager
async def a_world(
    url: str, context: RunContext, service: PlainService, *, epoch: int = 7, by: str = OWNER, said: list[str] | None = None
) -> AsyncGenerator[World]:
    """An owner of attempts, for the block."""
    async with a_remote_executor(url, context, PlainPlatform(service), epoch=epoch, owner=by, said=said) as executor:
        world = World(executor)
        yield world
        await world.aclose()


async def end_beside(world: World, name: AttemptId, work: Callable[[], Coroutine[Any, Any, None]]) -> AttemptExited:
    """How an attempt ends while something else is done, which is waited for as well."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await world.end(name)
    return await world.end(name)  # it is known by now


async def told_of_stores(url: str) -> list[tuple[str, str, int, str, str]]:
    """What is said of runs that wait for their store, as soon as something is."""
    while not (told := await store_waits(url)):  # noqa: ASYNC110 - what is said there wakes nobody
        await anyio.sleep(0.01)
    return told


async def test_a_new_owner_adopts_what_the_former_one_submitted_and_nothing_is_submitted_again(
    url: str, context: RunContext, service: PlainService
) -> None:
    async with a_world(url, context, service) as former:
        name = await former.launch("sleeps")
        started = await former.until(AttemptStarted, name)
    gone = AttemptId.parse("Flow/1/9.0")
    async with a_world(url, context, service, epoch=8, by="owner-2") as heir:
        assert list(await heir.executor.adopt([name, gone])) == [name]
        assert await heir.until(AttemptStarted, name) == started
        await heir.executor.launch(name, AttemptOrder("sleeps", 1, 0))
        await heir.executor.cancel(name, grace_s=60)
        await heir.end(name)
    assert service.submitted == [name_of(name)]
    assert service.terminated == [name_of(name)]


async def test_what_ended_while_nobody_looked_is_told_with_its_report(url: str, context: RunContext, service: PlainService) -> None:
    async with a_world(url, context, service) as former:
        name = await former.launch("code")
        await former.until(AttemptStarted, name)
    await _ended(service, name_of(name))
    before = len(await reports_of(url))
    async with a_world(url, context, service, epoch=8) as heir:
        await heir.executor.adopt([name])
        assert await heir.end(name) == AttemptExited(1, 0, 3, None)
        assert heir.kinds(name)[0] == "AttemptStarted"
    told = [decode_report(payload)[0] for payload in (await reports_of(url))[before:]]
    assert [type(event) for event in told] == [AttemptStarted, AttemptExited]


async def test_a_platform_that_is_away_at_a_take_over_loses_nothing(url: str, context: RunContext, service: PlainService) -> None:
    async with a_world(url, context, service) as former:
        name = await former.launch("sleeps")
        await former.until(AttemptStarted, name)
    gone = AttemptId.parse("Flow/1/9.0")
    service.faults.away = True
    async with a_world(url, context, service, epoch=8) as heir:
        assert sorted(await heir.executor.adopt([name, gone])) == [name, gone]
        service.faults.away = False
        assert await heir.end(gone) == AttemptExited(9, 0, None, None, "job-gone")
        await heir.until(AttemptStarted, name)
    assert service.submitted == [name_of(name)]


async def test_a_submit_is_repeated_until_it_is_done_and_done_once(url: str, context: RunContext, service: PlainService) -> None:
    service.faults.submits = [PlatformProblem("Too many calls.", transient=True, undone=True, retry_after_s=0.01), AWAY, AWAY]
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")
        assert await world.end(name) == AttemptExited(1, 0, 0, None)
    assert service.submitted == [name_of(name)]


class Said(list[str]):
    """What a run is told, and when there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.something = anyio.Event()

    def append(self, text: str, /) -> None:
        super().append(text)
        self.something.set()


class StoreAway(StoreUnusable):
    """What S3 says while it is away."""

    is_transient = True

    def __init__(self) -> None:
        super().__init__("s3://bucket/evflow", "no answer")


@pytest.fixture
def store_away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The store that takes orders is away for so many tries as the list's item says, once it is set."""
    left = [0]

    def settings(*arguments: Any, **options: Any) -> ContainerSettings:
        if left[0] > 0:
            left[0] -= 1
            raise StoreAway
        return container_settings(*arguments, **options)

    monkeypatch.setattr(owner, "container_settings", settings)
    monkeypatch.setattr(submitting, "STORE_AGAIN_S", 0.01)
    monkeypatch.setattr(storeless, "LATE_S", 3_600.0)  # what it says is to be heard, not that it is slow
    return left


async def test_a_store_that_is_away_is_waited_for_as_the_platform_is(
    url: str, context: RunContext, service: PlainService, store_away: list[int]
) -> None:
    said: list[str] = []
    store_away[0] = 10**9
    async with a_world(url, context, service, said=said) as world:
        name = await world.launch("quick")

        async def comes_back() -> None:
            told = await told_of_stores(url)
            assert told == [(str(name.run), "plain", 1, "The store cannot use 's3://bucket/evflow': no answer.", OWNER)]
            store_away[0] = 0

        assert await end_beside(world, name, comes_back) == AttemptExited(1, 0, 0, None)
        assert await store_waits(url) == []
    assert service.submitted == [name_of(name)]
    assert said == ["plain: The store cannot use 's3://bucket/evflow': no answer. It is tried again."]


async def test_a_store_that_does_not_answer_soon_is_said_to_be_waited_for(
    url: str, context: RunContext, service: PlainService, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Event()

    def settings(*arguments: Any, **options: Any) -> ContainerSettings:
        answers.wait(WITHIN_S)
        return container_settings(*arguments, **options)

    monkeypatch.setattr(owner, "container_settings", settings)
    monkeypatch.setattr(storeless, "LATE_S", 0.0)
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")

        async def answer() -> None:
            told = await told_of_stores(url)
            answers.set()
            assert told == [(str(name.run), "plain", 1, NO_ANSWER, OWNER)]

        assert await end_beside(world, name, answer) == AttemptExited(1, 0, 0, None)
        assert await store_waits(url) == []


async def test_what_waits_for_its_store_can_be_taken_back(
    url: str, context: RunContext, service: PlainService, store_away: list[int]
) -> None:
    store_away[0] = 10**9
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")

        async def take_back() -> None:
            await told_of_stores(url)
            await world.executor.cancel(name, grace_s=1)

        assert await end_beside(world, name, take_back) == AttemptExited(1, 0, None, None, "never-started")
        assert await store_waits(url) == []
    assert service.submitted == []


async def test_a_store_that_takes_long_to_be_found_away_is_asked_once_for_all_and_what_waits_for_that_can_be_taken_back(
    url: str, context: RunContext, service: PlainService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = anyio.Event(), threading.Event()
    tries = 0

    def settings(*_: Any, **__: Any) -> ContainerSettings:
        nonlocal tries
        tries += 1
        anyio.from_thread.run_sync(asked.set)
        answer.wait(WITHIN_S)
        raise StoreAway

    monkeypatch.setattr(owner, "container_settings", settings)
    monkeypatch.setattr(submitting, "STORE_AGAIN_S", 600.0)
    said = Said()
    async with a_world(url, context, service, said=said) as world:
        names = [await world.launch("quick", task) for task in (1, 2, 3)]

        async def take_back() -> None:
            await asked.wait()
            names.append(await world.launch("quick", 4))
            await anyio.wait_all_tasks_blocked()
            await world.executor.cancel(names[0], grace_s=1)
            await said.something.wait()
            await anyio.wait_all_tasks_blocked()
            for name in names[1:]:
                await world.executor.cancel(name, grace_s=1)

        async with anyio.create_task_group() as group:
            group.start_soon(take_back)
            assert await world.end(names[0]) == AttemptExited(1, 0, None, None, "never-started")
            answer.set()
            for name in names:
                assert await world.end(name) == AttemptExited(name.task, 0, None, None, "never-started")
    assert tries == 1
    assert service.submitted == []


async def test_a_store_that_stays_away_is_given_up_and_the_attempt_never_started(
    url: str, context: RunContext, service: PlainService, store_away: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "SUBMIT_PATIENCE_S", 0.1)
    store_away[0] = 10**9
    async with a_world(url, context, service) as world:
        end = await world.end(await world.launch("quick"))
    assert isinstance(end, AttemptExited)
    assert end.why == "never-started: The store cannot use 's3://bucket/evflow': no answer."


async def test_a_report_in_a_store_that_is_away_is_fetched_when_it_is_back(
    url: str, context: RunContext, service: PlainService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = count(1)

    def take(store_url: str, attempt: AttemptId) -> Sequence[bytes]:
        if next(tries) <= 2 * owner.MOST_FAILURES:
            raise StoreAway
        return taken(store_url, attempt)

    taken = reports.take
    monkeypatch.setattr(reports, "take", take)
    monkeypatch.setattr(owner, "AGAIN_S", 0.0)
    before = len(await reports_of(url))
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")
        assert await world.end(name) == AttemptExited(1, 0, 0, None)
    assert next(tries) > 2 * owner.MOST_FAILURES
    assert len(await reports_of(url)) > before


async def test_who_insists_does_not_wait_for_a_report_in_a_store_that_is_away(
    url: str, context: RunContext, service: PlainService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(store_url: str, attempt: AttemptId) -> Sequence[bytes]:
        raise StoreAway

    monkeypatch.setattr(reports, "take", take)
    monkeypatch.setattr(remote, "LEAVE_S", 0.0)
    said = Said()
    async with a_world(url, context, service, said=said) as world:
        name = await world.launch("quick")

        async def insist() -> None:
            await said.something.wait()
            for _ in range(2):
                await world.executor.cancel(name, grace_s=1)

        assert await end_beside(world, name, insist) == AttemptExited(1, 0, 0, None)
    assert said[0].startswith(f"plain: the store {context.store_url} is away")
    assert said[1:] == [f"plain: what the container of {name} reported is left in the store."]


async def test_a_lost_answer_to_a_submit_makes_no_twin(url: str, context: RunContext, service: PlainService) -> None:
    service.faults.submits, service.faults.lost = [AWAY, AWAY], True
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")
        await world.end(name)
    assert service.submitted == [name_of(name)]


async def test_what_is_refused_for_good_fails_with_the_reason(url: str, context: RunContext, service: PlainService) -> None:
    service.faults.submits = [PlatformProblem("No such queue.", "Name another one.")]
    async with a_world(url, context, service) as world:
        name = await world.launch("quick")
        failed = await world.until(AttemptFailed, name)
        assert (failed.kind, failed.message) == ("container", "No such queue. Name another one.")
    assert service.submitted == []


async def test_a_job_that_a_former_owner_submits_too_late_is_ended(url: str, context: RunContext, service: PlainService) -> None:
    late = AttemptId.parse("Flow/1/5.0")
    async with a_remote_executor(url, context, PlainPlatform(service)) as heir_s_past:
        jobs = await heir_s_past._dispatch.jobs([(name_of(late), late, AttemptOrder("sleeps", 5, 0))])
    async with a_world(url, context, service, epoch=8) as heir:
        assert list(await heir.executor.adopt([late])) == []
        await PlainPlatform(service).submit([job for job in jobs.values() if isinstance(job, Job)])
        await heir.end(await heir.launch("quick"))
        await _ended(service, name_of(late))
    assert service.terminated == [name_of(late)]


async def test_a_job_of_a_newer_owner_is_left_alone(url: str, context: RunContext, service: PlainService) -> None:
    async with (
        a_remote_executor(url, context, PlainPlatform(service), epoch=9) as newer,
        a_remote_executor(url, context, PlainPlatform(service), epoch=8) as stale,
    ):
        new, old = World(newer), World(stale)
        name = await new.launch("sleeps")
        await new.until(AttemptStarted, name)
        assert await _next_or_none(old) is None  # it has looked at the job
        assert service.terminated == []
        await new.aclose()
        await old.aclose()


async def test_an_owner_that_lost_its_shard_submits_nothing(url: str, context: RunContext, service: PlainService) -> None:
    from evflow.log import open_event_log

    log = await open_event_log(url)
    try:
        lease = await log.take(SHARD, "somebody-else", 60.0)
        async with a_world(url, context, service) as world:
            name = await world.launch("quick")
            watched = await _next_or_none(world)
            assert (watched, service.submitted) == (None, [])
            assert name in world.executor.running
        await log.release(lease)
    finally:
        await log.aclose()


async def test_the_platform_s_reason_is_told_in_the_place_of_the_exit_code(url: str, context: RunContext, service: PlainService) -> None:
    name = AttemptId.parse("Flow/1/1.0")
    service.faults.verdicts[name_of(name)] = Verdict("lost", "evicted", "Its node had no memory left.")
    async with a_world(url, context, service) as world:
        await world.launch("sleeps")
        await world.until(AttemptStarted, name)
        service.kill(name_of(name))
        assert await world.end(name) == AttemptExited(1, 0, None, None, "evicted: Its node had no memory left.")


async def test_a_cancelled_attempt_that_was_not_submitted_yet_never_is(url: str, context: RunContext, service: PlainService) -> None:
    async with a_world(url, context, service) as world:
        name = AttemptId.parse("Flow/1/1.0")
        await world.executor.launch(name, AttemptOrder("quick", 1, 0))
        await world.executor.cancel(name, grace_s=1)
        assert await world.end(name) == AttemptExited(1, 0, None, None, "never-started")
    assert service.submitted == []


async def test_who_insists_does_not_wait_for_a_platform_that_is_away_and_a_job_left_behind_is_ended_later(
    url: str, context: RunContext, service: PlainService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminations, "LEAVE_S", 0.2)
    async with a_world(url, context, service) as world:
        name = await world.launch("sleeps")
        await world.until(AttemptStarted, name)
        service.faults.away = True
        await world.executor.cancel(name, grace_s=5)
        await world.executor.cancel(name, grace_s=0)
        assert await world.end(name) == AttemptExited(1, 0, None, None, "left-behind")
        service.faults.away = False
        with anyio.fail_after(WITHIN_S):
            while service.jobs[name_of(name)].phase != "ended":
                await service.change()


async def test_a_container_without_its_code_fails_and_says_why(url: str, context: RunContext, service: PlainService) -> None:
    from dataclasses import replace

    async with a_world(url, replace(context, package=b"\0" * 32), service) as world:
        name = await world.launch("quick")
        ended = await world.end(name)
        assert ended.exit_code == 1
    failed = [event for event in (decode_report(payload)[0] for payload in await reports_of(url)) if isinstance(event, AttemptFailed)]
    assert failed[-1].kind == "load"
    assert "is not in the store" in failed[-1].message


async def test_a_job_that_ends_after_its_run_was_forgotten_is_told_all_the_same(
    url: str, context: RunContext, service: PlainService
) -> None:
    known = [context]
    link = Link(url)
    executor = RemoteExecutor(PlainPlatform(service), OwnerDispatch(link, SHARD, OWNER, lambda: 7, lambda _: known[0]), live=True)
    world = World(executor)
    name = await world.launch("sleeps")
    await world.until(AttemptStarted, name)
    known.clear()
    await executor.cancel(name, grace_s=30)
    assert (await world.end(name)).signal == 15
    await world.aclose()
    await link.aclose()


async def _ended(service: PlainService, name: str) -> None:
    import anyio

    with anyio.fail_after(WITHIN_S):
        while name not in service.jobs or service.jobs[name].phase != "ended":  # noqa: ASYNC110 - the service has no event for it
            await anyio.sleep(0.02)


async def _next_or_none(world: World) -> object:
    import anyio

    with anyio.move_on_after(0.5):
        return await anext(world._watch)
    return None
