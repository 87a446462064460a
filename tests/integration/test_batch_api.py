"""The platform of AWS Batch against moto's server, which keeps jobs as AWS does and runs none of them."""

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from evflow.core.ids import AttemptId
from evflow_executors.batch.api import BatchPlatform
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import job_name, labels, run_prefix
from evflow_executors.remote.platform import Job, JobSeen
from tests.aws import CREDENTIALS, REGION, Aws, serving

ROLE = "arn:aws:iam::123456789012:role/batch"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The service, told not to use Docker."""
    with serving(tmp_path_factory.mktemp("moto")) as aws:
        body = json.dumps({"batch": {"use_docker": False}}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{aws.url}/moto-api/config", data=body, method="POST"), timeout=10).close()
        yield aws


@pytest.fixture
def queue(server: Aws) -> str:
    """A new queue of an environment that nobody manages."""
    server.reset()
    server.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")
    batch = server.client("batch")
    made = batch.create_compute_environment(computeEnvironmentName="here", type="UNMANAGED", state="ENABLED", serviceRole=ROLE)
    order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
    return str(batch.create_job_queue(jobQueueName="queue", state="ENABLED", priority=1, computeEnvironmentOrder=order)["jobQueueName"])


@pytest.fixture
async def platform(server: Aws, queue: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchPlatform]:
    """The platform over it."""
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    made = BatchPlatform(BatchDefaults("python:3.11", queue), rate=1_000, region=REGION, endpoint=server.url)
    yield made
    await made.aclose()


def a_job(task: int, **asked: Any) -> Job:
    attempt = AttemptId.parse(f"Flow/1/{task}.0")
    command = ContainerCommand(("sh", "-c", "true"), {"A": "1"}, {"EVFLOW_ORDER": str(task)})
    return Job(job_name("log", attempt), attempt, "start", asked, command, labels("log", attempt, shard="s1", epoch=7, step="start"), 100.0)


@pytest.mark.may_block("botocore reads its models")
async def test_jobs_of_a_step_share_one_definition_and_are_found_again_by_name(platform: BatchPlatform, server: Aws) -> None:
    jobs = [a_job(task) for task in range(1, 31)]
    assert await platform.submit(jobs) == {}
    assert await platform.submit(jobs) == {}  # what is there is left as it is
    assert len(server.client("batch").describe_job_definitions()["jobDefinitions"]) == 1
    assert (
        len(server.client("batch").list_jobs(jobQueue="queue", filters=[{"name": "JOB_NAME", "values": ["ev*"]}])["jobSummaryList"]) == 30
    )
    other = BatchPlatform(BatchDefaults("python:3.11", "queue"), rate=1_000, region=REGION, endpoint=server.url)
    found = await other.find([job.name for job in jobs] + [a_job(99).name], [])
    assert sorted(found) == sorted(job.name for job in jobs)
    assert {(seen.epoch, seen.labels["evflow-shard"]) for seen in found.values()} == {(7, "s1")}
    few = await other.find([jobs[3].name, a_job(99).name], [{"queue": "queue"}])
    assert list(few) == [jobs[3].name]
    await other.aclose()


@pytest.mark.may_block("botocore reads its models")
async def test_a_job_is_seen_to_end(platform: BatchPlatform) -> None:
    await platform.submit([a_job(1)])
    ends = [seen async for seen in _until_closed(platform) if seen.phase == "ended"]
    assert [(seen.name, seen.exit_code, seen.verdict.kind) for seen in ends] == [(a_job(1).name, 0, "exited")]


@pytest.mark.may_block("botocore reads its models")
async def test_what_is_wrong_with_a_job_is_told_of_it_alone(platform: BatchPlatform) -> None:
    problems = await platform.submit([a_job(1), a_job(2, queue="nowhere"), a_job(3, swappiness=3)])
    assert {name: problem.transient for name, problem in problems.items()} == {a_job(2).name: False, a_job(3).name: False}
    assert "there is no queue 'nowhere'" in problems[a_job(2).name].message


@pytest.mark.may_block("botocore reads its models")
async def test_a_job_that_is_over_or_unknown_is_ended_without_a_word(platform: BatchPlatform) -> None:
    await platform.submit([a_job(1)])
    await platform.terminate(a_job(1).name, "because", 0)
    await platform.terminate(a_job(2).name, "because", 0)


@pytest.mark.may_block("botocore reads its models")
async def test_output_that_is_not_there_yet_is_none(platform: BatchPlatform) -> None:
    await platform.submit([a_job(1)])
    assert await platform.log_tail(a_job(1).name, 10) == ""


@pytest.mark.may_block("botocore reads its models")
async def test_a_run_s_prefix_lists_its_jobs_alone(platform: BatchPlatform) -> None:
    await platform.submit([a_job(1)])
    run = AttemptId.parse("Flow/1/1.0").run
    listed = await platform.listed(run_prefix("log", run), [])
    assert {job["jobName"] for job in listed} <= {a_job(1).name}
    assert await platform.listed(run_prefix("other", run), []) == []


async def _until_closed(platform: BatchPlatform) -> AsyncIterator[JobSeen]:
    """What is seen until the first end, with which the platform is closed."""
    async for seen in platform.watch():
        yield seen
        if seen.phase == "ended":
            await platform.aclose()
