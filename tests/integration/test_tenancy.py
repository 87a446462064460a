"""Runs of shared shards on one machine: whose attempt it is, and code that is missing."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest

from evflow.core import events as ev
from evflow.core.decide import LOGIC
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.log.keys import shared_shard
from evflow.log.said_waits import NO_ANSWER, UNHEARD, Unheard, Waits
from evflow.store import open_store
from evflow.store.packages import build
from evflow.store.s3.problems import Answer, S3Unusable
from evflow.testing.simulated_executor import Fate, SimulatedExecutor, SimulatedMachine
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.protocol import Observation
from evflow_scheduler import start, tenancy
from evflow_scheduler.offers import OfferUnfit
from evflow_scheduler.start import RunFolder
from evflow_scheduler.tenancy import Premises, Tenancies, Tenancy

pytestmark = pytest.mark.anyio

LONG_S = 3_600.0
WITHIN_S = 60.0


class Executor(SimulatedExecutor):
    """Notes what it is prepared for."""

    def __init__(self, machine: SimulatedMachine) -> None:
        super().__init__(machine)
        self.contexts: dict[RunId, RunContext] = {}
        self.has_process = True
        self.listens = True

    async def prepare(self, context: RunContext) -> None:
        self.contexts[RunId.parse(f"{context.flow}/{context.run}")] = context
        if not self.has_process:
            raise OSError("no process")
        if not self.listens:
            await anyio.sleep(LONG_S)

    async def release(self, run: RunId) -> None:
        self.contexts.pop(run, None)


def run_of(shard: str) -> RunId:
    """A run that belongs to the shard."""
    return runs_of(shard, 1)[0]


def runs_of(shard: str, count: int) -> list[RunId]:
    """The first runs that belong to the shard."""
    numbers = (RunId(FlowName("Nightly"), RunNumber(number)) for number in range(1, 10_000))
    return list(islice((run for run in numbers if shared_shard(run) == shard), count))


def attempt_of(run: RunId, task: int = 1) -> AttemptId:
    return AttemptId(run, TaskId(task), 0)


ORDER = AttemptOrder("start", 1, 0)


class Machine:
    """A machine with a store, and tenancies over an executor whose bodies run for an hour."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.flow = root / "code" / "nightly.py"
        self.flow.parent.mkdir(parents=True)
        self.flow.write_text("x = 1\n")
        self.store = str(self.home / "store")
        self.machine = SimulatedMachine(lambda _attempt, _order: Fate(runs_s=LONG_S))
        self.executor = Executor(self.machine)
        self.digest = build(open_store(self.store), self.flow).digest
        self.all = Tenancies(self.executor, Premises(self.home, "box", "unix:///nowhere", "installation"))

    def assert_ready(self, context: RunContext) -> None:
        assert Path(context.flow_file).read_text() == self.flow.read_text()
        assert Path(context.lock_file).parent.is_dir()

    def started(self, run: RunId, package: bytes | None) -> ev.RunStarted:
        code = {"file": str(self.flow), "package": package}
        return ev.RunStarted(run.flow, run.number, LOGIC - 1, {}, b"p" * 32, {}, {}, code, "ada", "", host="laptop", store=self.store)

    @asynccontextmanager
    async def tenants(self, *shards: str, waits: Waits = UNHEARD) -> AsyncGenerator[list[Tenancy]]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.all.watch)
            yield [self.all.begin(shard, group, waits) for shard in shards]
            group.cancel_scope.cancel()


@pytest.fixture
def here(root: Path) -> Machine:
    return Machine(root)


async def next_of(tenant: Tenancy) -> ev.Event:
    """The next thing that the tenant's shard sees."""
    with anyio.fail_after(WITHIN_S):
        async for seen in tenant.watch():
            assert isinstance(seen, Observation)
            return seen.event
    raise AssertionError


async def test_a_run_is_welcomed_with_what_only_its_owner_knows(here: Machine) -> None:
    async with here.tenants("s0") as [tenant]:
        started = tenant.welcome(here.started(run_of("s0"), None))
    assert (started.host, started.installation, started.logic) == ("box", "installation", LOGIC)


async def test_the_first_launch_fetches_the_code_and_the_shard_sees_its_own_attempts_only(here: Machine) -> None:
    one, other = run_of("s0"), run_of("s1")
    async with here.tenants("s0", "s1") as [tenant, neighbour]:
        for run, host in ((one, tenant), (other, neighbour)):
            host.welcome(here.started(run, here.digest))
            await host.launch(attempt_of(run), ORDER)
        for run, host in ((one, tenant), (other, neighbour)):
            assert isinstance(await next_of(host), ev.AttemptStarted)
            assert list(host.running) == [attempt_of(run)]
        context = here.executor.contexts[one]
    assert (context.shard, context.log_url) == ("s0", "unix:///nowhere")
    here.assert_ready(context)


class Away:
    """What writes the note that a log uses the store: S3 is away for some calls."""

    def __init__(self, calls: int, status: int) -> None:
        self.left, self.status, self.asked = calls, status, 0

    def sign(self, *_: object) -> None:
        self.asked += 1
        if self.left:
            self.left -= 1
            kind = "ServiceUnavailable" if self.status == 503 else "AccessDenied"
            raise S3Unusable("s3://bucket/evflow/named/installations/x", Answer(kind, "it says so", self.status), 7)


class Heard(Unheard):
    """Hears which runs wait for their store."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []
        self.heard = Event()

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        self.said.append(("waits", executor, why))
        self.heard.set()

    async def unsay(self, run: RunId, executor: str) -> None:
        self.said.append(("waits no more", executor, ""))


def at_once(_failures: int) -> float:
    return 0.0


async def test_a_run_that_begins_while_its_store_is_away_waits_for_it(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    away, run = Away(2, 503), run_of("s0")
    monkeypatch.setattr(start, "sign", away.sign)
    monkeypatch.setattr(tenancy, "pause_s", at_once)
    monkeypatch.setattr(tenancy, "LATE_S", LONG_S)
    heard = Heard()
    async with here.tenants("s0", waits=heard) as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run), ORDER)
        assert isinstance(await next_of(tenant), ev.AttemptStarted)
    assert away.asked == 3
    assert [(what, executor, "it says so" in why) for what, executor, why in heard.said] == [
        ("waits", "local", True), ("waits", "local", True), ("waits no more", "local", False),
    ]  # fmt: skip


async def test_a_store_that_does_not_answer_soon_is_said_to_be_waited_for(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, run = Heard(), run_of("s0")

    def sign(*_: object) -> None:
        heard.heard.wait(WITHIN_S)

    monkeypatch.setattr(start, "sign", sign)
    monkeypatch.setattr(tenancy, "LATE_S", 0.0)
    async with here.tenants("s0", waits=heard) as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run), ORDER)
        assert isinstance(await next_of(tenant), ev.AttemptStarted)
    assert heard.said == [("waits", "local", NO_ANSWER), ("waits no more", "local", "")]


@pytest.mark.parametrize(("status", "patience_s"), [(503, 0.0), (403, 120.0)], ids=["for-too-long", "refused"])
async def test_a_store_that_is_away_for_too_long_or_refuses_fails_the_attempt(
    here: Machine, monkeypatch: pytest.MonkeyPatch, status: int, patience_s: float
) -> None:
    away, run = Away(1_000_000, status), run_of("s0")
    monkeypatch.setattr(start, "sign", away.sign)
    monkeypatch.setattr(tenancy, "STORE_PATIENCE_S", patience_s)
    monkeypatch.setattr(tenancy, "LATE_S", LONG_S)
    heard = Heard()
    async with here.tenants("s0", waits=heard) as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run), ORDER)
        failed = await next_of(tenant)
    assert isinstance(failed, ev.AttemptFailed)
    assert (failed.kind, away.asked) == ("load", 1)
    assert heard.said == [("waits no more", "local", "")]


@pytest.mark.parametrize(
    "unfit",
    [
        {"parameters": b"short"},
        {"tags": (1,)},
        {"code": {"package": b"x" * 32}},
        {"code": {"package": b"x" * 32, "file": 7}},
        {"code": {"package": b"x" * 32, "file": "folder/"}},
        {"code": {"package": "text", "file": "nightly.py"}},
        {"options": {"max_workers": "many"}},
        {"options": {"max_workers": 0}},
        {"options": {"max_log_size_mb": "big"}},
        {"options": {"start_method": ("fork",)}},
        {"options": {"with": 5}},
        {"options": {"with": ({"retry": 1},)}},
    ],
    ids=str,
)
async def test_a_run_that_nobody_could_carry_out_is_not_welcome(here: Machine, unfit: dict[str, Any]) -> None:
    async with here.tenants("s0") as [tenant]:
        with pytest.raises(OfferUnfit):
            tenant.welcome(replace(here.started(run_of("s0"), here.digest), **unfit))


async def test_a_run_of_another_shard_is_not_welcome(here: Machine) -> None:
    async with here.tenants("s0") as [tenant]:
        with pytest.raises(OfferUnfit):
            tenant.welcome(here.started(run_of("s1"), here.digest))


async def test_code_in_a_place_that_no_evflow_named_fails_its_run_and_leaves_the_shard_alone(here: Machine) -> None:
    """A store that no file system has: what the reading raises is nobody's promise."""
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(replace(here.started(run, here.digest), store=here.store + "\0"))
        await tenant.launch(attempt_of(run), ORDER)
        failed = await next_of(tenant)
    assert isinstance(failed, ev.AttemptFailed)
    assert failed.kind == "load"


@pytest.mark.parametrize(("package", "code"), [(None, "no-package"), (b"x" * 32, "object-missing")])
async def test_a_run_whose_code_cannot_be_had_fails_and_says_why(here: Machine, package: bytes | None, code: str) -> None:
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, package))
        await tenant.launch(attempt_of(run), ORDER)
        failed = await next_of(tenant)
        assert isinstance(failed, ev.AttemptFailed)
        assert (failed.kind, failed.error, failed.retryable) == ("load", code, True)
        assert failed.message
        assert list(tenant.running) == []


async def prepared(here: Machine, run: RunId) -> None:
    with anyio.fail_after(WITHIN_S):
        while run not in here.executor.contexts:
            await anyio.lowlevel.checkpoint()


async def test_a_run_that_is_expected_has_its_code_before_its_first_launch(here: Machine) -> None:
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        tenant.expect(run)
        assert list(tenant.running) == []
        await prepared(here, run)
        here.assert_ready(here.executor.contexts[run])
        assert here.machine.launches == []
        await tenant.launch(attempt_of(run), ORDER)
        assert here.machine.launches == [attempt_of(run)]


async def test_an_attempt_is_launched_once_where_its_run_s_code_is_being_fetched_already(here: Machine) -> None:
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        tenant.expect(run)
        tenant.expect(run)
        await tenant.launch(attempt_of(run), ORDER)
        assert isinstance(await next_of(tenant), ev.AttemptStarted)
    assert here.machine.launches == [attempt_of(run)]


async def test_what_is_wrong_with_an_expected_run_s_code_is_told_by_its_first_attempt(here: Machine) -> None:
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, b"x" * 32))
        tenant.expect(run)
        await anyio.wait_all_tasks_blocked()
        await tenant.launch(attempt_of(run), ORDER)
        failed = await next_of(tenant)
        assert isinstance(failed, ev.AttemptFailed)
        assert (failed.kind, failed.error) == ("load", "object-missing")


async def test_an_expected_run_that_is_over_before_its_first_launch_is_forgotten(here: Machine) -> None:
    one, two = runs_of("s0", 2)
    async with here.tenants("s0") as [tenant]:
        for run in (one, two):
            tenant.welcome(here.started(run, here.digest))
            tenant.expect(run)
        tenant.dismiss(one)
        await prepared(here, two)
        tenant.dismiss(two)
        with anyio.fail_after(WITHIN_S):
            while here.executor.contexts:
                await anyio.lowlevel.checkpoint()


async def test_a_run_for_which_the_system_has_no_process_is_forgotten(here: Machine) -> None:
    run = run_of("s0")
    here.executor.has_process = False
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run), ORDER)
        assert isinstance(await next_of(tenant), ev.AttemptFailed)
        assert not here.executor.contexts


async def test_a_run_whose_shard_is_lost_while_it_is_got_ready_is_forgotten(here: Machine) -> None:
    run = run_of("s0")
    here.executor.listens = False
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        tenant.expect(run)
        await prepared(here, run)
    assert not here.executor.contexts


async def test_an_attempt_that_is_cancelled_while_its_code_is_fetched_never_starts(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cancelled = run_of("s0"), Event()

    def sign(*_: object) -> None:
        cancelled.wait(WITHIN_S)

    monkeypatch.setattr(start, "sign", sign)
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run, 1), ORDER)
        await tenant.launch(attempt_of(run, 2), ORDER)
        await tenant.cancel(attempt_of(run, 1), grace_s=0)
        cancelled.set()
        exited = await next_of(tenant)
        assert isinstance(exited, ev.AttemptExited)
        assert (exited.task, exited.why) == (1, "never-started")
        assert isinstance(await next_of(tenant), ev.AttemptStarted)
    assert here.machine.launches == [attempt_of(run, 2)]


async def test_a_shard_that_is_lost_leaves_nothing_running_and_its_neighbour_alone(here: Machine) -> None:
    one, other = run_of("s0"), run_of("s1")
    async with here.tenants("s0", "s1") as [tenant, neighbour]:
        for run, host in ((one, tenant), (other, neighbour)):
            host.welcome(here.started(run, here.digest))
            await host.launch(attempt_of(run), ORDER)
            assert isinstance(await next_of(host), ev.AttemptStarted)
        with anyio.fail_after(WITHIN_S):
            await tenant.end()
        assert here.machine.running == {attempt_of(other)}
        assert list(here.executor.contexts) == [other]


TAKE = "import sys; from evflow.worker import locks; locks.take(sys.argv[1], 1, 0)"


async def test_an_attempt_that_a_former_owner_never_came_to_start_does_not_start_any_more(here: Machine) -> None:
    """It may only be suspended, between its decision and the launch."""
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        assert list(await tenant.adopt([attempt_of(run)])) == []
    given_up = await anyio.run_process([sys.executable, "-c", TAKE, str(RunFolder.of(here.home, run).locks)], check=False)
    assert b"AttemptGivenUp" in given_up.stderr


async def test_a_lost_shard_that_is_told_more_than_it_takes_holds_up_nobody(here: Machine) -> None:
    run = run_of("s0")
    seen = Observation(attempt_of(run), ev.AttemptStarted(1, 0, "box", 1, 1))
    async with here.tenants("s0") as [tenant], anyio.create_task_group() as group:
        for _ in range(1_100):
            group.start_soon(tenant.hear, seen)
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(WITHIN_S):
            await tenant.end()
            await tenant.hear(seen)


async def test_a_run_that_is_over_is_forgotten(here: Machine) -> None:
    run = run_of("s0")
    async with here.tenants("s0") as [tenant]:
        tenant.welcome(here.started(run, here.digest))
        await tenant.launch(attempt_of(run), ORDER)
        await next_of(tenant)
        tenant.dismiss(run)
        with anyio.fail_after(WITHIN_S):
            while here.executor.contexts:
                await anyio.lowlevel.checkpoint()
