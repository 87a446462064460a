"""Reading what the API answers, in which anything may be missing or null. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow_executors.kubernetes.manifest import CONTAINER
from evflow_executors.remote.command import OF_OBJECTS


def part(thing: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of an answer; empty where it is not there, or null."""
    return thing.get(key) or {}


def rows(thing: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """A list in an answer; empty where it is not there, or null."""
    return thing.get(key) or ()


def container_state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a pod says of our container: `waiting`, `running` or `terminated`, each with its facts; empty where it says nothing."""
    found = next((status for status in rows(part(pod, "status"), "containerStatuses") if status.get("name") == CONTAINER), None)
    return part(found or {}, "state")


_OF_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "labels",
    "annotations",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
)


def _lean_container(container: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": container.get("name"), "image": container.get("image")}
    variables = [dict(each) for each in rows(container, "env") if each.get("name") in OF_OBJECTS]
    return {**found, "env": variables} if variables else found


def lean(pod: Mapping[str, Any]) -> dict[str, Any]:
    """What of a pod is looked at again: a tenth of it. Thousands of whole ones keep the garbage collector busy."""
    metadata, spec = part(pod, "metadata"), part(pod, "spec")
    containers = {kind: [_lean_container(each) for each in rows(spec, kind)] for kind in ("containers", "initContainers") if kind in spec}
    return {
        "metadata": {name: metadata[name] for name in _OF_METADATA if name in metadata},
        "spec": {"nodeName": spec.get("nodeName"), **containers},
        "status": pod.get("status"),
    }
