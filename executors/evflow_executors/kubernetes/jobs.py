"""evflow's Jobs of a cluster, for people: what there is, and removing some of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from evflow.core.values import value
from evflow_executors.kubernetes.answers import container_state, part, rows
from evflow_executors.kubernetes.api import KubernetesApi, path_of, selector
from evflow_executors.kubernetes.reasons import PodSeen, pod_seen, told_by_job
from evflow_executors.remote.names import LABELS

_WAITS: Final = 1


@value
class JobThere:
    """A Job, with what its pod says.

    Attributes:
        name: Its name.
        namespace: Where it is.
        labels: What it carries of ours.
        status: `waiting`, `running`, `succeeded` or `failed`.
        why: Why it waits, or why it failed, where Kubernetes says that.
        created_us: When it was made.
        started_us: When its container began; 0 before.
        nodes: How many nodes the gang has that it is; 1 of an attempt by itself.
    """

    name: str
    namespace: str
    labels: dict[str, str]
    status: str
    why: str
    created_us: int
    started_us: int
    nodes: int = 1

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.status in ("succeeded", "failed")


async def jobs_there(api: KubernetesApi, prefix: str, namespace: str) -> list[JobThere]:
    """The Jobs of a namespace whose names begin so (`names.log_prefix`, `names.run_prefix`), by their age.

    Raises:
        PlatformProblem: The server does not answer, or refuses.
    """
    chosen = selector({"app.kubernetes.io/managed-by": "evflow"})
    jobs, _ = await api.items(path_of(namespace=namespace, kind="jobs"), chosen)
    ours = [job for job in jobs if str(job["metadata"]["name"]).startswith(prefix)]
    pods, _ = await api.items(path_of(namespace=namespace, kind="pods"), chosen) if ours else ([], "")
    by_job: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        by_job.setdefault(str(part(part(pod, "metadata"), "labels").get("job-name")), []).append(pod)
    found = [_there(namespace, job, by_job.get(job["metadata"]["name"], [])) for job in ours]
    return sorted(found, key=lambda job: (job.created_us, job.name))


async def remove(api: KubernetesApi, namespace: str, name: str) -> None:
    """Delete a Job and its pod; one that is gone is fine.

    Raises:
        PlatformProblem: The server does not answer, or refuses.
    """
    await api.delete("jobs", namespace, name, {"propagationPolicy": "Background"})


def _there(namespace: str, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> JobThere:
    nodes = int(part(job, "spec").get("completions") or 1)
    pod, seen = _foremost(job, pods, nodes)
    metadata = part(job, "metadata")
    conditions = [str(each["type"]) for each in rows(part(job, "status"), "conditions") if each.get("status") == "True"]
    ended = next((each for each in conditions if each in ("Complete", "Failed")), "")
    is_good = ended == "Complete" or (not ended and seen.exit_code == 0)
    status = seen.phase if seen.phase != "ended" else "succeeded" if is_good else "failed"
    why = seen.note
    if status == "failed":
        why = (seen.verdict.text if seen.verdict is not None else "") or (f"Exit code {seen.exit_code}." if seen.exit_code else "")
    state = container_state(pod or {})
    return JobThere(
        name=str(metadata.get("name")),
        namespace=namespace,
        labels={key: str(text) for key, text in part(metadata, "labels").items() if key in LABELS},
        status=status,
        why=why,
        created_us=_instant_us(metadata.get("creationTimestamp")),
        started_us=_instant_us(part(state, "running").get("startedAt")),
        nodes=nodes,
    )


def _foremost(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], nodes: int) -> tuple[Mapping[str, Any] | None, PodSeen]:
    """The pod that says how far a Job is: one that has failed, else one that waits, else one that runs, else one that is done."""
    found = min(((pod, pod_seen(pod)) for pod in pods), key=lambda one: _rank(one[1]), default=None)
    by_itself = told_by_job(job)
    if found is None or (len(pods) < nodes and by_itself is None and _rank(found[1]) > _WAITS):
        return None, by_itself or PodSeen("waiting")
    return found


def _rank(seen: PodSeen) -> int:
    if seen.phase == "ended":
        return 3 if seen.exit_code == 0 else 0
    return _WAITS if seen.phase == "waiting" else 2


def _instant_us(stamp: object) -> int:
    return round(datetime.fromisoformat(stamp).timestamp()) * 1_000_000 if isinstance(stamp, str) else 0
