"""Array jobs against the double of AWS Batch: one submit, and each member as a job of its own."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from evflow.core.ids import AttemptId, RunId
from evflow.errors import EvflowError
from evflow.store import Store, StoreFull, StoreUnusable, open_store
from evflow_executors.batch import api
from evflow_executors.batch.api import BatchPlatform
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.remote import sheets
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import job_name, labels, run_prefix
from evflow_executors.remote.platform import Job, JobSeen
from tests.aws import CREDENTIALS, REGION
from tests.fakes.batch_server import BatchServer, a_batch_server

pytestmark = pytest.mark.may_block("botocore reads its models")

RUN = RunId.parse("Flow/1")
MARK = 'exit "$AWS_BATCH_JOB_ARRAY_INDEX"'
STAY = "exec sleep 600"


class StoredSheets:
    """Sheets in a store, of one run."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refusal: EvflowError | None = None

    async def write_sheet(self, run: RunId, members: Sequence[str], own: Sequence[Mapping[str, str]]) -> bytes:
        assert run == RUN
        if self.refusal is not None:
            raise self.refusal
        return await anyio.to_thread.run_sync(sheets.write, self.store, members, own)

    async def sheet_members(self, prefix: str, digest: bytes, size: int) -> Sequence[str] | None:
        if prefix != run_prefix("log", RUN):
            return None
        return await anyio.to_thread.run_sync(sheets.members_of, self.store, digest, size)


@pytest.fixture
def server(root: Path) -> Iterator[BatchServer]:
    with a_batch_server(root) as made:
        yield made


@pytest.fixture
def stored(root: Path) -> StoredSheets:
    return StoredSheets(open_store(str(root / "store")))


def an_owner(server: BatchServer, stored: StoredSheets) -> BatchPlatform:
    return BatchPlatform(BatchDefaults("image", "queue"), rate=1_000, region=REGION, endpoint=server.url, sheets=stored, array_least=3)


@pytest.fixture
async def platform(server: BatchServer, stored: StoredSheets, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchPlatform]:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    made = an_owner(server, stored)
    yield made
    await made.aclose()


def some_jobs(script: str, tasks: Sequence[int] = range(1, 6), attempt: int = 0) -> list[Job]:
    names = [AttemptId.parse(f"{RUN}/{task}.{attempt}") for task in tasks]
    return [
        Job(
            job_name("log", name),
            name,
            "work",
            {},
            ContainerCommand(("sh", "-c", script), {}, {"EVFLOW_ORDER": str(name.task)}),
            labels("log", name, shard="s1", epoch=7, step="work"),
            100.0,
        )
        for name in names
    ]


def again(server: BatchServer, given: dict[str, Any]) -> None:
    """Submit what was submitted, as somebody would whose list lagged."""
    server.answer("/v1/submitjob", "", given)


async def the_ends(platform: BatchPlatform, count: int) -> dict[str, JobSeen]:
    found: dict[str, JobSeen] = {}
    async with aclosing(platform.watch()) as watched:
        async for seen in watched:
            if seen.phase == "ended":
                found[seen.name] = seen
            if len(found) == count:
                break
    return found


async def test_a_wide_foreach_is_one_submit_and_each_member_has_an_end_of_its_own(platform: BatchPlatform, server: BatchServer) -> None:
    jobs = some_jobs(MARK)
    assert await platform.submit(jobs) == {}
    assert await platform.submit(jobs) == {}  # what is there is left as it is
    assert server.calls["submitjob"] == 1
    ends = await the_ends(platform, 5)
    assert [ends[job.name].exit_code for job in jobs] == [0, 1, 2, 3, 4]
    assert [ends[job.name].labels for job in jobs] == [job.labels for job in jobs]
    assert await platform.submit(some_jobs(MARK, [2, 4], attempt=1)) == {}  # further attempts of some are jobs of their own
    assert server.calls["submitjob"] == 3


@pytest.mark.parametrize(("config", "hint"), [("", "AWS_PROFILE"), ("[[", "AWS_CONFIG_FILE")], ids=["no profile", "no configuration"])
async def test_what_is_wrong_with_aws_s_configuration_is_told_of_each_job(
    config: str, hint: str, server: BatchServer, stored: StoredSheets, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(root / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mistyped")
    platform = an_owner(server, stored)
    problems = await platform.submit(some_jobs(MARK, [1]))
    await platform.aclose()
    assert [(problem.transient, hint in problem.hint) for problem in problems.values()] == [(False, True)]


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "other"])
async def test_certificates_that_cannot_be_read_are_told_of_each_job(
    content: str | None, server: BatchServer, stored: StoredSheets, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    if content is not None:
        (root / "trusted.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(root / "trusted.pem"))
    endpoint = server.url.replace("http://", "https://")
    platform = BatchPlatform(BatchDefaults("image", "queue"), rate=1_000, region=REGION, endpoint=endpoint, sheets=stored)
    problems = await platform.submit(some_jobs(MARK, [1]))
    await platform.aclose()
    assert [(problem.transient, "AWS_CA_BUNDLE" in problem.hint) for problem in problems.values()] == [(False, True)]


async def test_a_new_owner_finds_the_members_and_ends_one_of_them_or_the_rest_at_once(
    platform: BatchPlatform, server: BatchServer, stored: StoredSheets
) -> None:
    jobs = some_jobs(STAY)
    await platform.submit(jobs)
    heir = an_owner(server, stored)
    [gone] = some_jobs(STAY, [99])
    found = await heir.find([*(job.name for job in jobs[1:]), gone.name], [])
    assert sorted(found) == sorted(job.name for job in jobs[1:])
    assert {(seen.phase, seen.epoch) for seen in found.values()} == {("running", 7)}
    await heir.terminate(jobs[1].name, "because", 0)
    assert [job.terminated for job in server.jobs.values() if job.index is not None] == [False, True, False, False, False]
    assert (await the_ends(heir, 1)).keys() == {jobs[1].name}
    [sheet] = set.intersection(*(set(seen.reads) for seen in found.values()))  # so whoever adopts them keeps it
    assert stored.store.confirm(sheet)
    async with anyio.create_task_group() as group:
        for job in jobs[2:]:
            group.start_soon(heir.terminate, job.name, "because", 0)
    assert server.calls["terminatejob"] == 2
    assert all(job.terminated for job in server.jobs.values() if job.index is not None)
    assert server.calls["submitjob"] == 1
    await heir.aclose()


async def test_an_array_whose_answer_was_lost_is_found_and_one_that_never_came_is_submitted_as_it_was(
    platform: BatchPlatform, server: BatchServer
) -> None:
    jobs = some_jobs(STAY)
    server.faults.lost = 1
    problems = await platform.submit(jobs)
    assert {problem.transient for problem in problems.values()} == {True}
    assert problems.keys() == {job.name for job in jobs}
    assert await platform.submit(jobs[1:]) == {}
    assert len(server.running()) == 5
    more = some_jobs(STAY, range(11, 16))

    def break_off(at: str, name: str) -> None:
        server.faults.on_submit = None
        raise ConnectionAbortedError(at, name)

    server.faults.on_submit = break_off
    assert len(await platform.submit(more)) == 5
    assert await platform.submit([*more[2:], *some_jobs(STAY, range(21, 24))]) == {}
    assert sorted(len(job.members) for job in server.jobs.values() if job.members) == [3, 5, 5]


async def test_members_of_an_array_whose_answer_was_lost_can_be_ended(platform: BatchPlatform, server: BatchServer) -> None:
    jobs = some_jobs(STAY)
    server.faults.lost = 1
    assert all(not problem.undone for problem in (await platform.submit(jobs)).values())
    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(platform.terminate, job.name, "it was given up", 0)
    assert server.calls["terminatejob"] == 1
    assert len(await the_ends(platform, 5)) == 5


async def test_a_submit_that_aws_refuses_for_now_names_no_attempt(platform: BatchPlatform, server: BatchServer) -> None:
    """It is told of others, too, which are not tried."""
    assert await platform.submit(some_jobs(STAY, [9])) == {}  # so there is a definition
    server.faults.throttled = 1_000
    jobs = some_jobs(STAY, [1, 2])
    problems = await platform.submit(jobs)
    server.faults.throttled = 0
    assert problems.keys() == {job.name for job in jobs}
    assert all(str(job.attempt) not in problem.message for job in jobs for problem in problems.values())


async def test_of_two_arrays_of_one_name_the_first_counts_and_the_other_is_ended(
    platform: BatchPlatform, server: BatchServer, stored: StoredSheets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "STRAYS_AFTER_S", (0.0,))
    jobs = some_jobs(STAY)
    await platform.submit(jobs)
    [first] = [job for job in server.jobs.values() if job.members]
    again(server, first.given)
    [second] = [job for job in server.jobs.values() if job.members and job is not first]
    second.created_ms += 1
    heir = an_owner(server, stored)
    found = await heir.find([job.name for job in jobs], [])
    assert {seen.host for seen in found.values()} == {f"batch:{first.id}:{index}" for index in range(5)}
    assert all(job.terminated for job in second.members)
    assert not any(job.terminated for job in first.members)
    await heir.aclose()
    again(server, first.given)
    platform._sweep_soon()
    async with aclosing(platform.watch()) as watched:
        with anyio.fail_after(30):
            await anext(watched)  # it has looked, and swept before that
    assert [sum(job.terminated for job in made.members) for made in server.jobs.values() if made.members] == [0, 5, 5]


async def test_members_of_a_run_that_nobody_knows_are_one_job_that_can_be_ended(platform: BatchPlatform, server: BatchServer) -> None:
    await platform.submit(some_jobs(STAY))
    [array] = [job for job in server.jobs.values() if job.members]
    other = BatchPlatform(BatchDefaults("image", "queue"), rate=1_000, region=REGION, endpoint=server.url)
    assert [job["jobId"] for job in await other.listed(run_prefix("log", RUN), [])] == [array.id]
    await other.terminate(array.name, "because", 0)
    assert all(job.terminated for job in array.members)
    await other.aclose()


def _away() -> StoreUnusable:
    away = StoreUnusable("there", "no answer")
    away.is_transient = True
    return away


@pytest.mark.parametrize(
    ("refusal", "waits"),
    [(StoreFull("there", "no room"), True), (_away(), True), (StoreUnusable("there", "not allowed"), False)],
    ids=["full", "away", "not allowed"],
)
async def test_a_store_without_room_or_away_is_waited_for_and_one_that_refuses_is_not(
    platform: BatchPlatform, server: BatchServer, stored: StoredSheets, refusal: EvflowError, *, waits: bool
) -> None:
    stored.refusal = refusal
    problems = await platform.submit(some_jobs(STAY))
    assert {(problem.transient, problem.message) for problem in problems.values()} == {(waits, refusal.message)}
    assert server.calls["submitjob"] == 0
    stored.refusal = None
    assert await platform.submit(some_jobs(STAY)) == {}


def test_an_object_that_is_no_sheet_says_so(stored: StoredSheets) -> None:
    store = stored.store
    digest = sheets.write(store, ["1-0", "2-0"], [{"A": "1"}, {"A": "2"}])
    assert sheets.write(store, ["1-0", "2-0"], [{"A": "1"}, {"A": "2"}]) == digest
    assert sheets.variables_of(store, digest, 1) == {"A": "2"}
    with pytest.raises(sheets.SheetUnreadable, match="does not list 1 members"):
        sheets.members_of(store, digest, 1)
    with pytest.raises(sheets.SheetUnreadable, match="entry 2 has no variables"):
        sheets.variables_of(store, digest, 2)
