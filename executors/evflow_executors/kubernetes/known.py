"""What a platform knows of its Jobs, and of gangs, each of which is one Job with a pod for each node."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from evflow.clock import now_us
from evflow_executors.kubernetes.answers import container_state, part, rows
from evflow_executors.kubernetes.manifest import CONTAINER
from evflow_executors.kubernetes.reasons import PodSeen, pod_seen, told_by_job
from evflow_executors.remote.command import objects_read
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import JobSeen
from evflow_executors.remote.verdicts import EXITED, GANG_ENDED, Verdict

_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_ENDED: Final = Verdict("exited", GANG_ENDED, "Kubernetes ended the pod with its Job, and no node of the gang says why.")


class Gang:
    """A gang that is one Indexed Job.

    Attributes:
        name: Of the Job.
        nodes: The names of its nodes, by index.
        fallen: A node came to a bad end, so Kubernetes, or we, end the others.
        failed: It did so by itself: the Job has failed, or will, and no pod is made any more. It stays for people to look at.
        deleted: We deleted the Job.
    """

    __slots__ = ("deleted", "failed", "fallen", "name", "nodes")

    def __init__(self, name: str, nodes: Sequence[str]) -> None:
        self.name = name
        self.nodes = tuple(nodes)
        self.fallen = self.failed = False
        self.deleted = False


class Known:
    """A Job that was submitted, found or seen; or a node of a gang, which is a pod of one.

    Attributes:
        job: The name of the Job.
        gang: The gang, or None.
        pod: Its pod as it was last.
        told: What was told of it last.
        ending: We asked for its end.
        ended: It was told that it has ended.
        is_made: The server has said so: one whose submit it has not answered, or throttled, says nothing by not being there.
        slow: Why its pod does not start, where only an event says that.
    """

    __slots__ = ("asked_at", "ended", "ending", "gang", "is_made", "job", "namespace", "pod", "since", "slow", "told")

    def __init__(self, job: str, namespace: str, at: float, gang: Gang | None = None) -> None:
        self.job = job
        self.namespace = namespace
        self.gang = gang
        self.since = self.asked_at = at
        self.pod: dict[str, Any] | None = None
        self.told: JobSeen | None = None
        self.ending = False
        self.ended = False
        self.is_made = False
        self.slow = ""

    @property
    def has_fallen(self) -> bool:
        """Whether another node of its gang came to a bad end."""
        return self.gang is not None and self.gang.fallen

    def by_pod(self, pod: Mapping[str, Any], *, gone: bool = False, tells_disruptions: bool = True) -> PodSeen:
        """What its pod says; see `reasons.pod_seen`."""
        ending = self.ending or self.has_fallen
        return self._with_its_gang(pod_seen(pod, gone=gone, ending=ending, tells_disruptions=tells_disruptions), pod, gone=gone)

    def by_job(self, job: Mapping[str, Any], *, gone: bool = False) -> PodSeen | None:
        """What its Job says where there is no pod; see `reasons.told_by_job`."""
        seen = told_by_job(job, gone=gone, ending=self.ending or self.has_fallen)
        if seen is None or self.gang is None:
            return seen
        # A pod that Kubernetes ended with its Job is gone when its container is, and leaves no trace of its own.
        by_its_job = seen.verdict is not None and seen.verdict.code == "job-gone"
        return PodSeen("ended", _ENDED) if by_its_job and not self.ending else self._with_its_gang(seen, {}, gone=gone)

    def _with_its_gang(self, seen: PodSeen, pod: Mapping[str, Any], *, gone: bool) -> PodSeen:
        """An end that follows from that of another node, as that."""
        if not self.has_fallen or self.ending or seen.verdict != EXITED or seen.exit_code == 0:
            return seen
        was_ended = gone or part(pod, "metadata").get("deletionTimestamp") is not None
        return replace(seen, verdict=_ENDED) if was_ended else seen


def is_bad(seen: JobSeen) -> bool:
    """Whether a node's end is one that others have to share."""
    return seen.phase == "ended" and seen.verdict.code != GANG_ENDED and not (seen.verdict.kind == "exited" and seen.exit_code == 0)


def has_failed(job: Mapping[str, Any]) -> bool:
    """Whether a Job says that it has failed, or will have when its pods are gone (from 1.31 on)."""
    return any(
        each.get("type") in ("Failed", "FailureTarget") and each.get("status") == "True" for each in rows(part(job, "status"), "conditions")
    )


def job_of(pod: Mapping[str, Any]) -> str:
    """The name of a pod's Job."""
    return str(part(part(pod, "metadata"), "labels").get("job-name", ""))


def index_of(pod: Mapping[str, Any]) -> int | None:
    """Which of an Indexed Job's pods it is; None of a plain Job's."""
    text = str(part(part(pod, "metadata"), "annotations").get(_INDEX, ""))
    return int(text) if text.isdecimal() else None


def job_seen(name: str, thing: Mapping[str, Any], seen: PodSeen, namespace: str) -> JobSeen:
    """What is told of a Job.

    Args:
        name: Its name, or that of a node.
        thing: Its pod, or the Job itself.
        seen: What that says.
        namespace: Where it is.
    """
    labels: Mapping[str, str] = part(part(thing, "metadata"), "labels")
    epoch = labels.get(LABELS[2], "")
    return JobSeen(
        name,
        seen.phase,
        seen.verdict or EXITED,
        seen.exit_code,
        seen.note,
        host=str(part(thing, "spec").get("nodeName") or ""),
        started_us=_started_us(thing),
        epoch=int(epoch) if epoch.isdecimal() else 0,
        place=f"{namespace}/{part(thing, 'metadata').get('name') or name}",
        labels={key: text for key, text in labels.items() if key in LABELS},
        reads=_reads(thing),
    )


def _reads(thing: Mapping[str, Any]) -> frozenset[bytes]:
    spec = part(thing, "spec")
    pod = part(part(spec, "template"), "spec") or spec
    return frozenset[bytes]().union(
        *(
            objects_read({str(one.get("name")): str(one.get("value")) for one in rows(each, "env")})
            for each in rows(pod, "containers")
            if each.get("name") == CONTAINER
        )
    )


def _started_us(pod: Mapping[str, Any]) -> int:
    state = container_state(pod)
    at = part(state, "running").get("startedAt") or part(state, "terminated").get("startedAt")
    return round(datetime.fromisoformat(at).timestamp() * 1_000_000) if at else 0


def stamped(line: bytes) -> tuple[int, str]:
    """When a line was printed, and the line."""
    stamp, _, text = line.partition(b" ")
    try:
        whole, _, fraction = stamp.decode().rstrip("Z").partition(".")
        at = datetime.fromisoformat(f"{whole}+00:00")
        return round(at.timestamp()) * 1_000_000 + int((fraction + "000000")[:6] or 0), text.decode(errors="replace")
    except (ValueError, UnicodeDecodeError):
        return now_us(), line.decode(errors="replace")
