"""What an attempt is called on a platform, and how all jobs of a log or a run are found again. Pure.

A name follows from the log's identity and the attempt alone, so a new owner knows the names of what the former one may have
submitted. It is a DNS label of RFC 1123 (Kubernetes; 63 characters of a-z, 0-9 and '-') and within the pattern of AWS Batch
(128 characters):

    ev<log>-<flow>-<flow's digest>-<run>-<task>-<attempt>
    ev7k2m4qpa-trainflow-x3fb2a-12-34-0

A gang that is one job has a name of its own, which follows from node 0's attempt. The prefixes of a log and of a run end with '-' and are none of each other, so a search for names that begin so finds theirs alone. Letters'
case and other signs are lost in a label, so the flow's exact name is in its digest: `Train_Flow` and `trainflow` never collide.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from evflow.core.ids import AttemptId, RunId

MOST_CHARS: Final = 63
_LOG_CHARS: Final = 8
_INDEX_CHARS: Final = 4
"""What a pod of a gang has behind its job's name, and it is a label as well: `-199`."""
_FLOW_CHARS: Final = 16
_FLOW_DIGEST_CHARS: Final = 6
_LONG_DIGEST_CHARS: Final = 32
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9._-]+")

LABELS: Final = ("evflow-log", "evflow-shard", "evflow-epoch", "evflow-flow", "evflow-run", "evflow-step", "evflow-task", "evflow-attempt")
"""The labels that each job carries; platforms may write them with a prefix of their own."""
NODES_LABEL: Final = "evflow-nodes"
"""The label of a job that is a gang: how many nodes it has. Its task is that of node 0."""


def log_prefix(log: str) -> str:
    """How the names of all jobs of a log begin.

    Args:
        log: The log's identity (`RunStarted.installation`).
    """
    return f"ev{_digest(log, _LOG_CHARS)}-"


def run_prefix(log: str, run: RunId) -> str:
    """How the names of a run's jobs begin."""
    slug = _OTHER.sub("-", run.flow.lower())[:_FLOW_CHARS].strip("-") or "flow"
    return f"{log_prefix(log)}{slug}-{_digest(run.flow, _FLOW_DIGEST_CHARS)}-{run.number}-"


def job_name(log: str, attempt: AttemptId) -> str:
    """What an attempt is called."""
    name = f"{run_prefix(log, attempt.run)}{attempt.task}-{attempt.attempt}"
    if len(name) <= MOST_CHARS:
        return name
    # Numbers of dozens of digits: no prefix of a run's is left, and the name is still one.
    return f"{log_prefix(log)}{_digest(name, _LONG_DIGEST_CHARS)}"


def gang_name(log: str, control: AttemptId) -> str:
    """What the job of a gang is called.

    Args:
        log: The log's identity.
        control: The attempt of node 0.
    """
    name = f"{job_name(log, control)}-gang"
    if len(name) + _INDEX_CHARS <= MOST_CHARS:
        return name
    return f"{log_prefix(log)}{_digest(name, _LONG_DIGEST_CHARS)}"


def labels(log: str, attempt: AttemptId, *, shard: str, epoch: int, step: str) -> Mapping[str, str]:
    """What a job carries beside its name: whose it is, in values that are labels of Kubernetes and tags of AWS.

    Args:
        log: The log's identity.
        attempt: The attempt.
        shard: The shard of its run.
        epoch: The epoch of the owner who submits it.
        step: Its step.
    """
    values = (
        _digest(log, _LOG_CHARS),
        shard,
        str(epoch),
        attempt.run.flow,
        str(attempt.run.number),
        step,
        str(attempt.task),
        str(attempt.attempt),
    )
    return {name: label_value(text) for name, text in zip(LABELS, values, strict=True)}


def log_label(log: str) -> str:
    """The value of the label `evflow-log`: one selector finds all jobs of a log."""
    return _digest(log, _LOG_CHARS)


def label_value(text: str) -> str:
    """A text as the value of a label: what cannot be in one is replaced, what is too long is cut."""
    return _NO_LABEL.sub("-", text)[:MOST_CHARS].strip("-._")


def _digest(text: str, chars: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode(errors="surrogatepass")).digest()).decode().lower()[:chars]
