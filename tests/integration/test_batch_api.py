"""The platform of AWS Batch against moto's server, which keeps jobs as AWS does and runs none of them.

With EVFLOW_TEST_BATCH_ENDPOINT (and EVFLOW_TEST_IMAGE, an image with a shell that the endpoint has) each test runs there too, in containers.
"""

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from evflow.core.ids import AttemptId
from evflow_executors.batch.api import BatchPlatform
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import job_name, labels, run_prefix
from evflow_executors.remote.platform import Job, JobSeen
from tests.aws import CREDENTIALS, REGION, Aws, serving
from tests.batch_world import IMAGE, REAL, BatchEndpoint
from tests.ports import free_port


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The service, told not to use Docker."""
    with serving(tmp_path_factory.mktemp("moto")) as aws:
        body = json.dumps({"batch": {"use_docker": False}}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{aws.url}/moto-api/config", data=body, method="POST"), timeout=10).close()
        yield aws


@pytest.fixture(params=["moto", "real"])
def endpoint(request: pytest.FixtureRequest, moto: Aws) -> BatchEndpoint:
    """The service, of which this test has a log's name of its own."""
    if request.param == "real":
        if not REAL:
            pytest.skip("EVFLOW_TEST_BATCH_ENDPOINT names no endpoint")
        return BatchEndpoint(REAL, runs=True)
    return BatchEndpoint(moto.url, runs=False)


@pytest.fixture
def queue(endpoint: BatchEndpoint) -> str:
    """A new queue."""
    return endpoint.queue()


@pytest.fixture
async def platform(endpoint: BatchEndpoint, queue: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchPlatform]:
    """The platform over it."""
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    made = a_platform(endpoint, queue)
    yield made
    await made.aclose()


def a_platform(endpoint: BatchEndpoint, queue: str) -> BatchPlatform:
    return BatchPlatform(BatchDefaults(IMAGE, queue), rate=1_000, region=REGION, endpoint=endpoint.url)


def a_job(endpoint: BatchEndpoint, task: int, script: str = "true", **asked: Any) -> Job:
    attempt = AttemptId.parse(f"Flow/1/{task}.0")
    command = ContainerCommand(("sh", "-c", script), {"A": "1"}, {"EVFLOW_ORDER": str(task)})
    told = labels(endpoint.log, attempt, shard="s1", epoch=7, step="start")
    return Job(job_name(endpoint.log, attempt), attempt, "start", asked, command, told, 100.0)


@pytest.mark.may_block("botocore reads its models")
async def test_jobs_of_a_step_share_one_definition_and_are_found_again_by_name(
    platform: BatchPlatform, endpoint: BatchEndpoint, queue: str
) -> None:
    jobs = [a_job(endpoint, task) for task in range(1, 5 if endpoint.runs else 31)]
    assert await platform.submit(jobs) == {}
    assert await platform.submit(jobs) == {}  # what is there is left as it is
    batch = endpoint.client("batch")
    listed = batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["ev*"]}])["jobSummaryList"]
    assert len(listed) == len(jobs)
    assert len({job["jobDefinition"] for job in batch.describe_jobs(jobs=[one["jobId"] for one in listed])["jobs"]}) == 1
    other = a_platform(endpoint, queue)
    found = await other.find([job.name for job in jobs] + [a_job(endpoint, 99).name], [])
    assert sorted(found) == sorted(job.name for job in jobs)
    assert {(seen.epoch, seen.labels["evflow-shard"]) for seen in found.values()} == {(7, "s1")}
    few = await other.find([jobs[3].name, a_job(endpoint, 99).name], [{"queue": queue}])
    assert list(few) == [jobs[3].name]
    await other.aclose()


@pytest.mark.may_block("botocore reads its models")
async def test_a_job_is_seen_to_end(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    await platform.submit([a_job(endpoint, 1)])
    ends = [seen async for seen in _until_closed(platform) if seen.phase == "ended"]
    assert [(seen.name, seen.exit_code, seen.verdict.kind) for seen in ends] == [(a_job(endpoint, 1).name, 0, "exited")]


@pytest.mark.may_block("botocore reads its models")
async def test_what_is_wrong_with_a_job_is_told_of_it_alone(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    problems = await platform.submit([a_job(endpoint, 1), a_job(endpoint, 2, queue="nowhere"), a_job(endpoint, 3, swappiness=3)])
    assert {name: problem.transient for name, problem in problems.items()} == {
        a_job(endpoint, 2).name: False,
        a_job(endpoint, 3).name: False,
    }
    assert "there is no queue 'nowhere'" in problems[a_job(endpoint, 2).name].message


@pytest.mark.may_block("botocore reads its models")
async def test_a_submit_that_was_not_done_says_whether_aws_batch_may_have_heard_of_it(
    platform: BatchPlatform, endpoint: BatchEndpoint, moto: Aws, queue: str
) -> None:
    """Only what it may have heard of has to be looked for before the job counts as not there."""
    if endpoint.runs:
        pytest.skip("the faults are moto's")
    nobody = BatchPlatform(BatchDefaults(IMAGE, queue), rate=1_000, region=REGION, endpoint=f"http://127.0.0.1:{free_port()}")
    unheard = (await nobody.submit([a_job(endpoint, 1)]))[a_job(endpoint, 1).name]
    assert (unheard.transient, unheard.undone) == (True, True)
    await nobody.aclose()
    moto.fail({"path": "/submitjob", "status": 500})
    maybe = (await platform.submit([a_job(endpoint, 2)]))[a_job(endpoint, 2).name]
    assert (maybe.transient, maybe.undone) == (True, False)
    moto.fail({"path": "/listjobs", "status": 500})
    still = (await platform.submit([a_job(endpoint, 2)]))[a_job(endpoint, 2).name]
    assert (still.transient, still.undone) == (True, False)


@pytest.mark.may_block("botocore reads its models")
async def test_a_job_that_is_over_or_unknown_is_ended_without_a_word(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    await platform.submit([a_job(endpoint, 1)])
    await platform.terminate(a_job(endpoint, 1).name, "because", 0)
    await platform.terminate(a_job(endpoint, 2).name, "because", 0)


@pytest.mark.may_block("botocore reads its models")
async def test_output_that_is_not_there_yet_is_none(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    await platform.submit([a_job(endpoint, 1, "sleep 5")])
    assert await platform.log_tail(a_job(endpoint, 1).name, 10) == ""


@pytest.mark.may_block("botocore reads its models")
async def test_a_run_s_prefix_lists_its_jobs_alone(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    await platform.submit([a_job(endpoint, 1)])
    run = AttemptId.parse("Flow/1/1.0").run
    listed = await platform.listed(run_prefix(endpoint.log, run), [])
    assert {job["jobName"] for job in listed} <= {a_job(endpoint, 1).name}
    assert await platform.listed(run_prefix("other", run), []) == []


@pytest.mark.may_block("botocore reads its models")
async def test_containers_end_with_their_codes_leave_their_output_and_are_killed(platform: BatchPlatform, endpoint: BatchEndpoint) -> None:
    if not endpoint.runs:
        pytest.skip("moto runs containers where EVFLOW_TEST_BATCH_ENDPOINT names it; fakes do what these show in tests/e2e/test_batch.py")
    says, killed, sleeps = (
        a_job(endpoint, 1, 'echo "hello $EVFLOW_ORDER"; exit 3'), a_job(endpoint, 2, "sh -c 'kill -9 $$'; exit $?"), a_job(endpoint, 3, "sleep 600"),
    )  # fmt: skip
    assert await platform.submit([says, killed, sleeps]) == {}
    ends: dict[str, JobSeen] = {}
    asked = False
    with anyio.fail_after(120):
        async for seen in platform.watch():
            if seen.name == sleeps.name and seen.phase == "running" and not asked:
                asked = True
                await platform.terminate(sleeps.name, "the run asked for it", 1)
            if seen.phase == "ended":
                ends[seen.name] = seen
            if len(ends) == 3:
                break
    # moto's DescribeJobs leaves exit codes out, AWS' has them.
    assert ends[says.name].exit_code in (3, None)
    assert ends[killed.name].exit_code in (137, None)
    assert ends[sleeps.name].verdict.kind == "exited"
    assert [line.text async for line in platform.logs(says.name)] == ["hello 1"]
    assert (await platform.log_tail(says.name, 1)).strip() == "hello 1"


async def _until_closed(platform: BatchPlatform) -> AsyncIterator[JobSeen]:
    """What is seen until the first end, with which the platform is closed."""
    async for seen in platform.watch():
        yield seen
        if seen.phase == "ended":
            await platform.aclose()
