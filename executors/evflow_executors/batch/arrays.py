"""Array jobs: many attempts by one submit. What is known of them is here; `api` has the calls.

An array is named by its run and by the digest of its sheet (`remote.sheets`), which says which index is which attempt:

    ev7k2m4qpa-wide-x3fb2a-12-array-<52 characters: the sheet's digest>

So equal members make the same name, and a new owner that lists the run's jobs finds the array, reads its sheet and knows each member's name. The name holds
no task and no attempt; a member is called on AWS Batch `<id of the array>:<index>`, and here as a job of its own would be.

Rules of the API: 2 to 10,000 members (SubmitJob, `arrayProperties`). Members have the array's name and tags. They are described by their ids; lists by name
have the array alone. To end an array is to end all of its members, and to end a member that one alone.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow.core.values import value
from evflow_executors.batch.definitions import BatchDefaults, submit_of
from evflow_executors.remote.command import ORDERS_AT
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import Job

FEWEST: Final = 2
MOST: Final = 10_000
MOST_NAME_CHARS: Final = 128
_ARRAY: Final = "array-"
_OWN_LABELS: Final = LABELS[6:]
"""Of one attempt, so of no array."""


@value
class PlannedArray:
    """An array that is to be submitted, or was without an answer.

    Attributes:
        name: Its name.
        prefix: That of its run's names.
        digest: Of its sheet.
        jobs: Its members, in order.
    """

    name: str
    prefix: str
    digest: bytes
    jobs: tuple[Job, ...]

    @property
    def names(self) -> list[str]:
        """The names of its members."""
        return [job.name for job in self.jobs]


class Array:
    """An array that is there.

    Attributes:
        id: What AWS Batch calls it.
        name: Its name.
        names: Of its members, in order.
        labels: What all of them carry.
        reads: The digest of its sheet, which is in its name.
        left: The names of those that are waited for.
    """

    def __init__(self, job_id: str, name: str, names: Sequence[str], labels: Mapping[str, str]) -> None:
        self.id = job_id
        self.name = name
        self.names = names
        self.labels = labels
        parts = parts_of(name)
        self.reads = frozenset[bytes]() if parts is None else frozenset({parts[1]})
        self.left: set[str] = set()
        self.ending: set[str] = set()  # of which somebody wants to be ended
        self.end: asyncio.Task[None] | None = None  # of all of it

    def ids(self) -> dict[str, str]:
        """The ids of its members by name."""
        return {name: f"{self.id}:{index}" for index, name in enumerate(self.names)}

    def member(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """A member of `DescribeJobs` as a job of its own would be: with its name and its tags."""
        name = self.names[int(str(job["jobId"]).partition(":")[2])]
        task, _, attempt = tail_of(name).partition("-")
        return {**job, "jobName": name, "tags": {**self.labels, _OWN_LABELS[0]: task, _OWN_LABELS[1]: attempt}}


def grouped(jobs: Sequence[Job], least: int, kind_of: Mapping[str, object]) -> tuple[list[Sequence[Job]], list[Job]]:
    """What goes as arrays, and what goes alone.

    Args:
        jobs: All of them.
        least: So many of a kind become an array; 0 for none.
        kind_of: By name: what has to be equal within an array. A job that is not there goes alone.
    """
    kinds: dict[object, list[Job]] = {}
    for job in jobs:
        if least and job.name in kind_of and prefix_of(job):
            kinds.setdefault((prefix_of(job), kind_of[job.name], job.timeout_s), []).append(job)
    arrays: list[Sequence[Job]] = []
    together = set[str]()
    for some in kinds.values():
        for first in range(0, len(some), MOST):
            part = some[first : first + MOST]
            if len(part) >= max(FEWEST, least) and len(array_name(prefix_of(part[0]), bytes(32))) <= MOST_NAME_CHARS:
                arrays.append(part)
                together.update(job.name for job in part)
    return arrays, [job for job in jobs if job.name not in together]


def prefix_of(job: Job) -> str:
    """How the names of a job's run begin; empty where its name has no such beginning."""
    prefix, tail = job.name.removesuffix(tail_of(job.name)), f"{job.attempt.task}-{job.attempt.attempt}"
    return prefix if tail_of(job.name) == tail else ""


def tail_of(name: str) -> str:
    """What a name has behind its run's prefix: task and attempt."""
    return "-".join(name.rsplit("-", 2)[1:])


def array_name(prefix: str, digest: bytes) -> str:
    """What an array is called."""
    return f"{prefix}{_ARRAY}{base64.b32encode(digest).decode().lower().rstrip('=')}"


def arrays_prefix(prefix: str) -> str:
    """How the names of all arrays of a run begin."""
    return f"{prefix}{_ARRAY}"


def parts_of(name: str) -> tuple[str, bytes] | None:
    """The run's prefix and the sheet's digest of an array's name; None where it is none."""
    before, _, code = name.rpartition("-")
    prefix = f"{before}-".removesuffix(_ARRAY)
    if prefix == f"{before}-":
        return None
    try:
        digest = base64.b32decode(code.upper() + "=" * (-len(code) % 8))
    except ValueError:
        return None
    return (prefix, digest) if len(digest) == 32 else None


def submit_of_array(array: PlannedArray, queue: str, definition: str, defaults: BatchDefaults) -> dict[str, Any]:
    """What `SubmitJob` is given.

    Raises:
        BatchUnfit: It has too many tags.
    """
    first = array.jobs[0]
    alone = submit_of(first, queue, definition, defaults)
    return {
        **alone,
        "jobName": array.name,
        "arrayProperties": {"size": len(array.jobs)},
        "containerOverrides": {"environment": [{"name": ORDERS_AT, "value": array.digest.hex()}]},
        "tags": {name: text for name, text in alone["tags"].items() if name not in _OWN_LABELS},
    }
