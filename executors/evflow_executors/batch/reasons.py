"""What AWS Batch says of a job, and what that means. Pure.

Sources of the texts: AWS Batch user guide, "Troubleshooting AWS Batch", "Automated job retries" (`Host EC2*`), "Job timeouts", "Jobs stuck in RUNNABLE";
ECS developer guide, "Stopped tasks error codes".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow_executors.remote.command import objects_read
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import JobSeen, Phase
from evflow_executors.remote.verdicts import EXITED, PASSING_PULL, Verdict

ENDED: Final = ("SUCCEEDED", "FAILED")
OURS: Final = "evflow: "
"""How the reason begins with which we end a job."""
_BROKEN: Final = (
    "CannotStartContainerError",
    "CannotCreateContainerError",
    "ResourceInitializationError",
    "CannotCreateVolumeError",
    "CannotInspectContainerError",
)
_TRANSIENT: Final = ("DockerTimeoutError", "InternalError", "AgentError", "Task failed to start", "ServerException", "Timeout waiting for")


def seen_of(job: Mapping[str, Any], reads: frozenset[bytes] = frozenset()) -> JobSeen:
    """A job of `DescribeJobs`.

    Args:
        job: The job.
        reads: What its container will read first, beside what its variables say.
    """
    status = str(job.get("status", ""))
    container: Mapping[str, Any] = job.get("container") or {}
    ended = status in ENDED
    phase: Phase = "ended" if ended else "running" if status == "RUNNING" else "waiting"
    given: Mapping[str, Any] = job.get("tags") or {}
    variables: Sequence[Mapping[str, Any]] = container.get("environment") or ()
    tags = {name: str(text) for name, text in given.items()}
    epoch = tags.get(LABELS[2], "")
    return JobSeen(
        name=str(job["jobName"]),
        phase=phase,
        verdict=verdict_of(job) if ended else EXITED,
        exit_code=_exit_code(job) if ended else None,
        message="" if ended else waiting_for(str(job.get("statusReason") or "")),
        host=f"batch:{job['jobId']}",
        started_us=int(job.get("startedAt") or 0) * 1_000,
        epoch=int(epoch) if epoch.isdecimal() else 0,
        place=str(job.get("jobArn") or container.get("taskArn") or job["jobId"]),
        labels=tags,
        reads=reads | objects_read({str(one["name"]): str(one.get("value", "")) for one in variables}),
    )


def waiting_for(reason: str) -> str:
    """Why a job waits, where AWS Batch says that it will not begin by itself; an empty string where it says nothing of the kind."""
    kind, _, text = reason.partition(":")
    if kind == "MISCONFIGURATION":
        return f"The job cannot begin as things are: {text.strip()}. Compare what the step asks for with the queue's compute environments."
    if kind == "CAPACITY":
        return f"There are no instances for the job now: {text.strip()}."
    return ""


def verdict_of(job: Mapping[str, Any]) -> Verdict:
    """What became of a job that ended."""
    if job.get("status") == "SUCCEEDED":
        return EXITED
    container: Mapping[str, Any] = job.get("container") or {}
    status, reason = str(job.get("statusReason") or ""), str(container.get("reason") or "")
    said = f"{reason} {status}".strip()
    if status.startswith(OURS):
        return EXITED
    if status.startswith("Host EC2"):
        return Verdict("lost", "host-lost", f"Its host went away, as spot instances do ({status.rstrip('.')}).")
    if "Spot" in said and ("interrupt" in said.lower() or "reclaim" in said.lower()):
        return Verdict("lost", "spot-interruption", f"Its spot capacity was taken back ({said.rstrip('.')}).")
    if "OutOfMemory" in said:
        text = "The container needed more memory than the step asks for. Ask for more: @resources(memory=…) or @batch(memory=…), in MB."
        return Verdict("failed", "container-out-of-memory", text)
    if "CannotPull" in said or "pull image" in said.lower():
        if PASSING_PULL.search(said):
            return Verdict("lost", "image-pull", f"Its image could not be pulled this time: {said}")
        text = (
            f"Its image cannot be pulled: {said}. Is its name right, and may the execution role, or the instances' role, read its registry?"
        )
        return Verdict("failed", "image-pull", text)
    if "attempt duration exceeded timeout" in said:
        return Verdict("failed", "container-timeout", "The job took longer than AWS Batch was told to let it run, and was ended by it.")
    if any(word in said for word in _BROKEN):
        return Verdict("failed", "container-broken", f"Its container could not be made: {said}")
    if job.get("isTerminated") or job.get("isCancelled"):
        return Verdict("failed", "killed-by-hand", f"Somebody ended the job on AWS Batch: {status or 'no reason was given'}.")
    if _exit_code(job) is None:
        if any(word in said for word in _TRANSIENT) or not said:
            return Verdict("lost", "host-lost", f"The job ended without its container having ended ({said or 'no reason was given'}).")
        return Verdict("failed", "container-broken", f"The job ended before its container did: {said}")
    return EXITED


def _exit_code(job: Mapping[str, Any]) -> int | None:
    container: Mapping[str, Any] = job.get("container") or {}
    code = container.get("exitCode")
    return int(code) if code is not None else (0 if job.get("status") == "SUCCEEDED" else None)
