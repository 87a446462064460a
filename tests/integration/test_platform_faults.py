"""What both platforms of containers do when their service is away or throttles, a minute long: the executor over each, on a clock that is faster.

The services are the fakes, with a pace of their own; the attempts are lines of shell.
"""

import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from evflow.core.events import AttemptExited, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.worker.spec import AttemptOrder
from evflow_executors.batch.api import BatchPlatform
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.kubernetes.api import Cluster
from evflow_executors.kubernetes.operator import Operator
from evflow_executors.kubernetes.platform import KubernetesPlatform
from evflow_executors.remote import submitting
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.executor import RemoteExecutor
from evflow_executors.remote.names import job_name, labels
from evflow_executors.remote.platform import Job, JobSeen, Platform
from evflow_executors.remote.rate import CallRate
from tests.aws import CREDENTIALS, REGION
from tests.contract.test_executor import World
from tests.fakes.batch_server import BatchServer, a_batch_server
from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.hurried_time import HurriedLoop

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.may_block("the clients read their models and configurations in the loop")

MINUTE_S = 60.0
RATE = 25.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A clock that is faster, for each test here."""
    return "asyncio", {"loop_factory": HurriedLoop}


class Dispatch:
    """An owner that nobody disputes, of attempts that are lines of shell."""

    epoch = 7

    def log_of(self, attempt: AttemptId) -> str:
        return "log"

    def store_of(self, attempt: AttemptId) -> str:
        return "store"

    async def jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, Job | EvflowError]:
        return {name: self._job(name, attempt, order.step) for name, attempt, order in orders}

    def _job(self, name: str, attempt: AttemptId, script: str) -> Job:
        command = ContainerCommand(("sh", "-c", script), {"SHARED": "1"}, {"OWN": str(attempt)})
        asked = {"image": "python:local", "cpu": 1, "memory": 50}
        return Job(name, attempt, "work", asked, command, labels("log", attempt, shard="s0", epoch=self.epoch, step="work"), 0.0)

    async def gang(self, name: str, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Job:
        raise AssertionError("no gang is launched here")

    async def forget_gang(self, control: AttemptId) -> None: ...

    async def is_owner(self) -> bool:
        return True

    async def keep(self, waiting: Mapping[AttemptId, frozenset[bytes]]) -> bool:
        return True

    async def carry(self, attempt: AttemptId, *, unless: str, tell: Callable[[str], None]) -> None: ...

    def is_ours(self, seen: JobSeen) -> bool:
        return True

    def asked_by(self, attempts: Sequence[AttemptId]) -> Sequence[Mapping[str, Any]]:
        return [{}]


class Service:
    """A fake of either platform, seen alike."""

    def __init__(self, server: BatchServer | FakeKubernetes, platform: Callable[[Callable[[str], None]], Platform]) -> None:
        self.server = server
        self.platform = platform
        self.faults = server.faults

    def made(self) -> list[str]:
        """The names of all jobs that were ever made, twins twice."""
        if isinstance(self.server, BatchServer):
            return sorted(job.name for job in self.server.jobs.values())
        return sorted(pod["metadata"]["labels"]["job-name"] for pod in self.server.pods().values())

    def asked(self) -> int:
        """How many requests there were."""
        return sum(self.server.calls.values()) if isinstance(self.server, BatchServer) else len(self.server.requests)

    def go(self) -> None:
        """Cut what is open, so that whoever watches notices."""
        if isinstance(self.server, FakeKubernetes):
            self.server.cut_watches()


@contextmanager
def _batch(root: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Service]:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    with a_batch_server(root) as server:
        defaults = BatchDefaults("image", "queue")
        yield Service(server, lambda tell: BatchPlatform(defaults, rate=RATE, region=REGION, endpoint=server.url, on_notice=tell))


@contextmanager
def _kubernetes(root: Path) -> Generator[Service]:
    with fake_kubernetes(root / "cluster") as server:
        kubeconfig = str(server.kubeconfig(root / "kubeconfig"))
        yield Service(server, lambda tell: KubernetesPlatform(Cluster(kubeconfig), CallRate(RATE), Operator, tell))


@pytest.fixture(params=["batch", "kubernetes"])
def service(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service of either platform."""
    with _batch(root, monkeypatch) if request.param == "batch" else _kubernetes(root) as made:
        yield made


@asynccontextmanager
async def a_world(service: Service) -> AsyncGenerator[tuple[World, list[str]]]:
    """An owner of attempts there, for the block, and what people are told."""
    notices: list[str] = []
    made = World(RemoteExecutor(service.platform(notices.append), Dispatch(), live=True, on_notice=notices.append))
    try:
        yield made, notices
    finally:
        with anyio.CancelScope(shield=True):
            await made.aclose()


async def test_a_service_that_is_away_for_a_minute_is_waited_for_and_nothing_is_made_twice(service: Service, root: Path) -> None:
    """What runs goes on and its end is seen, what was to begin begins behind the minute, and people are told what is waited for."""
    os.mkfifo(root / "go")
    async with a_world(service) as (world, notices):
        before = await world.launch(f"read go < {root / 'go'}; exit 4", 1)
        await world.until(AttemptStarted, before)
        service.faults.away = True
        service.go()
        asked, gone_s = service.asked(), anyio.current_time()
        during = [await world.launch("exit 5", task) for task in range(2, 40)]
        await anyio.sleep(MINUTE_S / 2)
        await anyio.to_thread.run_sync((root / "go").write_text, "\n")  # it ends while nobody can see that
        await anyio.sleep_until(gone_s + MINUTE_S)
        await heard(notices, "It is tried again.")  # on a busy machine the minute is over sooner
        await heard(notices, "AWS Batch is waited for", "does not answer")
        assert service.asked() - asked < (anyio.current_time() - gone_s) * RATE / 10, "what is away is not asked for each job again"
        assert service.made() == [job_name("log", before)]
        service.faults.away = False
        assert (await world.end(before)).exit_code == 4
        ends = [await world.end(attempt) for attempt in during]
        assert [end.exit_code for end in ends] == [5] * len(during), ends
    assert service.made() == sorted(job_name("log", attempt) for attempt in [before, *during])


async def heard(notices: Sequence[str], *texts: str) -> None:
    """Wait until people are told something that one of these texts is in."""
    while not any(text in notice for text in texts for notice in notices):  # noqa: ASYNC110 - a list has no event
        await anyio.sleep(1)


def _for_ever(failures: int) -> float:
    return 1e6


async def test_what_was_not_submitted_to_a_service_that_is_gone_for_good_is_taken_back_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far away the next try is."""
    monkeypatch.setattr(submitting, "pause_s", _for_ever)
    async with a_world(service) as (world, notices):
        await world.end(await world.launch("exit 0", 1))
        service.faults.away = True
        service.go()
        attempts = [await world.launch("exit 5", task) for task in range(2, 40)]
        await heard(notices, "It is tried again.")
        attempts = attempts[-3:]  # of the first ones answers may have been lost
        for attempt in attempts:
            await world.executor.cancel(attempt, grace_s=5)
        for attempt in attempts:
            assert await world.end(attempt) == AttemptExited(attempt.task, 0, None, None, "never-started")
    assert service.made() == [job_name("log", AttemptId.parse("Flow/1/1.0"))]


async def test_a_service_that_throttles_for_a_minute_is_asked_ever_less_and_all_is_made_once(service: Service) -> None:
    async with a_world(service) as (world, _):
        first = await world.launch("exit 0", 1)
        await world.end(first)
        service.faults.throttled = 10**6
        if isinstance(service.server, FakeKubernetes):
            service.server.faults.retry_after_s = 5
        asked, since_s = service.asked(), anyio.current_time()
        attempts = [await world.launch("exit 0", task) for task in range(2, 60)]
        await anyio.sleep(MINUTE_S)
        assert service.asked() - asked < (anyio.current_time() - since_s) * RATE / 10, "a tenth of what is allowed"
        assert len(service.made()) == 1
        service.faults.throttled = 0
        for attempt in attempts:
            assert await world.end(attempt) == AttemptExited(attempt.task, 0, 0, None)
    assert service.made() == sorted(job_name("log", attempt) for attempt in [first, *attempts])
