"""evflow's Jobs of a cluster, for people: what there is, and removing some of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from evflow.core.ids import RunId
from evflow.core.values import value
from evflow_executors.kubernetes.answers import part, rows
from evflow_executors.kubernetes.api import CallRefused, KubernetesApi, path_of, selector
from evflow_executors.kubernetes.platform import Operator
from evflow_executors.kubernetes.reasons import PodSeen, pod_seen, told_by_job
from evflow_executors.remote.names import LABELS, label_value, log_label

_ATTEMPT: Final = "evflow.dev/attempt"


@value
class JobRow:
    """A Job.

    Attributes:
        name: Its name.
        namespace: Where it is.
        attempt: What it runs, `Flow/3/17.0`.
        step: The step.
        status: `waiting`, `running`, `succeeded`, `failed`.
        why: Why it waits, or why it failed, where Kubernetes says that.
        pod: Its pod; empty where it has none.
        node: Where that runs.
        made_us: When it was made.
    """

    name: str
    namespace: str
    attempt: str
    step: str
    status: str
    why: str
    pod: str
    node: str
    made_us: int

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.status in ("succeeded", "failed")


async def jobs_of(api: KubernetesApi, log: str | None, run: RunId | None, namespaces: Sequence[str]) -> list[JobRow]:
    """The Jobs of a log or of a run, by their age.

    Args:
        api: The server.
        log: The log's identity; None for those of all logs.
        run: Only those of this run.
        namespaces: Where to look.

    Raises:
        PlatformProblem: The server does not answer, or refuses.
    """
    labels = {"app.kubernetes.io/managed-by": "evflow"}
    if log is not None:
        labels[LABELS[0]] = log_label(log)
    if run is not None:
        labels |= {LABELS[3]: label_value(run.flow), LABELS[4]: str(run.number)}
    found: list[JobRow] = []
    for namespace in namespaces:
        jobs, _ = await api.items(path_of(namespace=namespace, kind="jobs"), selector(labels))
        pods, _ = await api.items(path_of(namespace=namespace, kind="pods"), selector(labels)) if jobs else ([], "")
        by_job = {str(part(part(pod, "metadata"), "labels").get("job-name")): pod for pod in pods}
        found += [_row(namespace, job, by_job.get(job["metadata"]["name"])) for job in jobs]
    # Two flows may have one label: it is cut, and has no letters but those of labels.
    return sorted((row for row in found if run is None or row.attempt.startswith(f"{run}/")), key=lambda row: (row.made_us, row.name))


async def remove(api: KubernetesApi, job: JobRow) -> None:
    """Delete a Job and its pod; one that is gone is fine.

    Raises:
        PlatformProblem: The server does not answer, or refuses.
    """
    try:
        await api.call("DELETE", path_of(namespace=job.namespace, kind="jobs", name=job.name), body={"propagationPolicy": "Background"})
    except CallRefused as error:
        if error.status != 404:
            raise


def namespaces_of(operator: Operator, api: KubernetesApi, named: Sequence[str]) -> list[str]:
    """Where to look: what is named, else where Jobs are made that name none."""
    return list(named) or [operator.namespace or api.namespace]


def _row(namespace: str, job: Mapping[str, Any], pod: Mapping[str, Any] | None) -> JobRow:
    seen = (pod_seen(pod) if pod is not None else told_by_job(job)) or PodSeen("waiting")
    metadata = part(job, "metadata")
    ended = next((each["type"] for each in rows(part(job, "status"), "conditions") if each.get("status") == "True"), "")
    is_good = ended == "Complete" or (not ended and seen.exit_code == 0)
    status = seen.phase if seen.phase != "ended" else "succeeded" if is_good else "failed"
    why = seen.note
    if status == "failed":
        why = (seen.verdict.text if seen.verdict is not None else "") or (f"Exit code {seen.exit_code}." if seen.exit_code else "")
    return JobRow(
        name=str(metadata.get("name")),
        namespace=namespace,
        attempt=str(part(metadata, "annotations").get(_ATTEMPT) or ""),
        step=str(part(metadata, "labels").get(LABELS[5]) or ""),
        status=status,
        why=why,
        pod=str(part(pod or {}, "metadata").get("name") or ""),
        node=str(part(pod or {}, "spec").get("nodeName") or ""),
        made_us=_instant(metadata.get("creationTimestamp")),
    )


def _instant(stamp: object) -> int:
    return round(datetime.fromisoformat(stamp).timestamp()) * 1_000_000 if isinstance(stamp, str) else 0
