"""What Kubernetes warns of: why a Job gets no pod, and why a pod that has a node does not start.

A pod itself says nothing of a volume that cannot be mounted or a network that cannot be had: it stays in ContainerCreating, as one does whose image is
being pulled. Only an event tells the two apart. Events are kept for an hour and are no promise: they explain, and decide nothing.
"""

from collections.abc import Mapping
from typing import Any

from evflow_executors.kubernetes.answers import part, rows
from evflow_executors.kubernetes.api import KubernetesApi, path_of
from evflow_executors.remote.platform import PlatformProblem


async def why_podless(api: KubernetesApi, namespace: str, job: str) -> str:
    """Why Kubernetes makes no pod for a Job, as a sentence; empty where it does not say."""
    try:
        warning = await _last_warning(api, namespace, job)
    except PlatformProblem:
        return "Kubernetes has made no pod for it yet."  # who may not read events is told that much
    return f"Kubernetes makes no pod for it: {warning}." if warning else ""


async def why_slow(api: KubernetesApi, pod: Mapping[str, Any], before: str) -> str:
    """Why a pod that has a node does not start, as a sentence; empty where nothing is known.

    Args:
        api: The server.
        pod: The pod.
        before: What this said before: it is still so where the server does not answer.
    """
    metadata = part(pod, "metadata")
    try:
        warning = await _last_warning(api, str(metadata.get("namespace")), str(metadata.get("name")), placed=True)
    except PlatformProblem:
        return before
    return f"The container does not start yet: {warning}." if warning else ""


async def _last_warning(api: KubernetesApi, namespace: str, name: str, *, placed: bool = False) -> str:
    """The newest warning about a thing, without its full stop; of one that has a node, none about why it had none."""
    query = {"fieldSelector": f"involvedObject.name={name},type=Warning"}
    said = await api.call("GET", path_of(namespace=namespace, kind="events"), query)
    found = [each for each in rows(said, "items") if not (placed and each.get("reason") == "FailedScheduling")]
    if not found:
        return ""
    newest = max(found, key=lambda each: str(each.get("lastTimestamp") or part(each, "metadata").get("creationTimestamp") or ""))
    return " ".join(str(newest.get("message") or "").split()).rstrip(".")
