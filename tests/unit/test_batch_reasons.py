"""What AWS Batch says of a job, and what that means."""

from typing import Any

import pytest

from evflow_executors.batch.reasons import seen_of, verdict_of, waiting_for

ENDED = {"jobName": "ev1-x", "jobId": "id", "status": "FAILED"}


@pytest.mark.parametrize(
    ("job", "kind", "code"),
    [
        ({"status": "SUCCEEDED", "container": {"exitCode": 0}}, "exited", ""),
        ({"statusReason": "Essential container in task exited", "container": {"exitCode": 3}}, "exited", ""),
        ({"statusReason": "Essential container in task exited", "container": {"exitCode": 137}}, "exited", ""),
        ({"statusReason": "Host EC2 (instance i-06f3) terminated.", "container": {}}, "lost", "host-lost"),
        ({"statusReason": "Host EC2 (instance i-06f3) terminated.", "container": {"exitCode": 143}}, "lost", "host-lost"),
        ({"statusReason": "Your Spot Task was interrupted.", "container": {}}, "lost", "spot-interruption"),
        (
            {"container": {"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}},
            "failed",
            "container-out-of-memory",
        ),
        (
            {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: manifest unknown"}},
            "failed",
            "image-pull",
        ),
        (
            {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: net/http: TLS handshake timeout"}},
            "lost",
            "image-pull",
        ),
        (
            {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: toomanyrequests: rate limit"}},
            "lost",
            "image-pull",
        ),
        ({"statusReason": "ResourceInitializationError: unable to pull secrets", "container": {}}, "failed", "container-broken"),
        ({"statusReason": "CannotStartContainerError: no such file", "container": {"exitCode": 127}}, "failed", "container-broken"),
        ({"statusReason": "Job attempt duration exceeded timeout", "container": {"exitCode": 137}}, "failed", "container-timeout"),
        ({"statusReason": "stop it", "isTerminated": True, "container": {"exitCode": 143}}, "failed", "killed-by-hand"),
        ({"statusReason": "evflow: the run asked for it", "isTerminated": True, "container": {"exitCode": 143}}, "exited", ""),
        ({"isCancelled": True, "statusReason": "by the console"}, "failed", "killed-by-hand"),
        ({"statusReason": "DockerTimeoutError: Could not transition", "container": {}}, "lost", "host-lost"),
        ({"statusReason": "Task failed to start", "container": {}}, "lost", "host-lost"),
        ({}, "lost", "host-lost"),
        ({"statusReason": "Something that no page tells of", "container": {}}, "failed", "container-broken"),
    ],
)
def test_an_end_is_nobody_s_fault_the_step_s_or_the_process_s_own(job: dict[str, Any], kind: str, code: str) -> None:
    verdict = verdict_of({**ENDED, **job})
    assert (verdict.kind, verdict.code) == (kind, code)
    assert (verdict.text == "") is (kind == "exited")


@pytest.mark.parametrize(
    ("status", "phase"),
    [(state, "waiting") for state in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING")]
    + [("RUNNING", "running"), ("SUCCEEDED", "ended"), ("FAILED", "ended")],
)
def test_each_state_is_a_phase(status: str, phase: str) -> None:
    assert seen_of({**ENDED, "status": status}).phase == phase


def test_a_job_says_whose_it_is_and_when_it_began() -> None:
    job = {
        **ENDED,
        "status": "RUNNING",
        "startedAt": 1_700_000_000_123,
        "tags": {"evflow-epoch": "12", "evflow-shard": "s3"},
        "jobArn": "arn:x",
    }
    seen = seen_of(job)
    assert (seen.epoch, seen.started_us, seen.place, seen.labels["evflow-shard"]) == (12, 1_700_000_000_123_000, "arn:x", "s3")
    assert seen_of({**ENDED, "tags": {"evflow-epoch": "x"}}).epoch == 0


def test_why_a_job_cannot_begin_is_told_and_a_usual_wait_is_not() -> None:
    assert "cannot begin as things are" in waiting_for("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - more than any instance has")
    assert "no instances" in waiting_for("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - none left")
    assert waiting_for("") == waiting_for("Waiting its turn") == ""
