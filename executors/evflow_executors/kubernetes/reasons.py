"""What a pod's state means for its attempt: from what the API tells to a phase, a verdict and a sentence. Pure.

A pod says why it ended in four places, which are asked in this order: the condition `DisruptionTarget` (servers from 1.26 on), its own reason
(`Evicted`, `DeadlineExceeded`, what kubelets write), its container's (`OOMKilled`), and that it is gone. Sources: the Kubernetes documentation, "Disruptions"
and "Pod lifecycle"; `pkg/kubelet/images/types.go` and `pkg/kubelet/kuberuntime` for why a container waits; `pkg/apis/core/types.go`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from evflow.core.values import value
from evflow_executors.kubernetes.answers import container_state, part, rows
from evflow_executors.kubernetes.manifest import CONTAINER
from evflow_executors.remote.verdicts import EXITED, PASSING_PULL, Code, Verdict

Phase = Literal["waiting", "running", "ended"]

DISRUPTIONS_SINCE: Final = (1, 26)
"""From this version of the server on a pod that Kubernetes itself deletes carries the condition `DisruptionTarget`."""
_CHARS: Final = 700


@value
class PodSeen:
    """What a pod's state says.

    Attributes:
        phase: `waiting` until its container runs, `running`, `ended`.
        verdict: What its end means; None as long as it has not ended.
        exit_code: Of the container, where it ended by itself.
        note: Why it waits, as a sentence; empty where there is nothing to tell.
        code: Why it waits, for programs.
    """

    phase: Phase
    verdict: Verdict | None = None
    exit_code: int | None = None
    note: str = ""
    code: Code = ""


_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_BROKEN: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
    }
)
_HOPELESS: Final = (
    "not found",
    "not exist",
    "no such",
    "find key",
    "denied",
    "unauthorized",
    "authentication",
    "invalid",
    "forbidden",
    "manifest unknown",
    "non-root",
    "will run as root",
)
"""Words in a message that another pull, or another try of the kubelet's, does not change."""
_NO_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]*" not found')
"""What the scheduler says where no further node helps: its `volumebinding` and `volumezone` plug-ins."""
_AT_ONCE: Final = frozenset({"InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed", "PostStartHookError"})

_DISRUPTIONS: Final[Mapping[str, tuple[Literal["preempted", "evicted", "host-lost"], str]]] = MappingProxyType(
    {
        "PreemptionByScheduler": ("preempted", "The pod made place for one of a higher priority"),
        "PreemptionByKubeScheduler": ("preempted", "The pod made place for one of a higher priority"),
        "DeletionByTaintManager": ("host-lost", "The pod's node was tainted, as it is when it does not answer"),
        "EvictionByEvictionAPI": ("evicted", "The pod was evicted, as when a node is drained"),
        "DeletionByPodGC": ("host-lost", "The pod's node does not exist any more"),
        "TerminationByKubelet": ("evicted", "The node ended the pod"),
    }
)
_OF_POD: Final[Mapping[str, tuple[Literal["preempted", "evicted", "host-lost"], str]]] = MappingProxyType(
    {
        "Evicted": ("evicted", "The node evicted the pod"),
        "Preempting": ("preempted", "The node ended the pod to make place for a critical one"),
        "NodeLost": ("host-lost", "The pod's node does not answer"),
        "NodeShutdown": ("host-lost", "The pod's node was shut down"),
        "Shutdown": ("host-lost", "The pod's node was shut down"),
        "Terminated": ("host-lost", "The pod's node was shut down"),
        "OutOfcpu": ("evicted", "The node had no cores left when the pod came"),
        "OutOfmemory": ("evicted", "The node had no memory left when the pod came"),
        "OutOfpods": ("evicted", "The node had no place left when the pod came"),
        "OutOfephemeral-storage": ("evicted", "The node had no disk left when the pod came"),
        "UnexpectedAdmissionError": ("evicted", "The node could not take the pod"),
        "NodeAffinity": ("evicted", "The node did not fit the pod any more when it came"),
        "NodePorts": ("evicted", "The node's port was taken when the pod came"),
    }
)


def pod_seen(pod: Mapping[str, Any], *, gone: bool = False, ending: bool = False, tells_disruptions: bool = True) -> PodSeen:
    """What a pod says.

    Args:
        pod: As the API gives it.
        gone: It has been deleted: this is what it was last.
        ending: We asked for its end ourselves.
        tells_disruptions: The server writes why it deletes a pod (`DISRUPTIONS_SINCE`). An older one lets a drained node's pods go as if somebody had
            deleted them by hand, so there the attempt counts as lost.
    """
    status = part(pod, "status")
    state = container_state(pod)
    disrupted = _disruption(status)
    ended = state.get("terminated")
    phase = status.get("phase")
    by_others: Verdict | None = None
    if part(pod, "metadata").get("deletionTimestamp") is not None:
        by_others = _gone(pod, ending=ending, by_hand=tells_disruptions)
    if ended is not None and ended.get("reason") != "ContainerStatusUnknown":
        # A sidecar may live on: the step is over when its own container is.
        return _container_ended(ended, status, disrupted or (None if ending else by_others))
    if phase in ("Failed", "Succeeded"):
        # A kubelet that was told to delete a pod may have lost its container before it looked how that ended.
        return PodSeen("ended", disrupted or _of_pod(status) or by_others or _pod_ended(status, str(phase)))
    if gone:
        return PodSeen("ended", disrupted or _gone(pod, ending=ending, by_hand=tells_disruptions))
    if phase == "Unknown":
        return PodSeen("running", note="The pod's node does not answer.")
    if state.get("running") is not None:
        return PodSeen("running")
    waits = _waiting(state) or _init_waits(status)
    if waits is not None and waits.get("reason") in _IMAGE | _BROKEN:
        return _stuck(waits, pod)
    unplaced = _unscheduled(status)
    if _NO_CLAIM.search(unplaced):
        return _ended_or_waiting("unschedulable", unplaced, hopeless=True)
    return PodSeen("waiting", note=unplaced, code="unschedulable" if unplaced else "")


def is_silent(pod: Mapping[str, Any]) -> bool:
    """Whether a pod waits and does not say why: it has a node, and its image is being pulled, or a volume cannot be mounted."""
    seen = pod_seen(pod)
    return seen.phase == "waiting" and not seen.note


def overdue(seen: PodSeen, waited_s: float, patience_s: float) -> PodSeen:
    """What becomes of a pod that has been waiting: with a patience that is over, it has failed by the reason for which it waits.

    Args:
        seen: What it says.
        waited_s: How long it has waited.
        patience_s: How long it may; 0 for as long as it takes.
    """
    if seen.phase != "waiting" or seen.verdict is not None or not patience_s or waited_s < patience_s or not seen.note:
        return seen
    return PodSeen(
        "ended", Verdict("failed", seen.code, f"{seen.note} It has waited for {waited_s:.0f} s."), note=seen.note, code=seen.code
    )


def told_by_job(job: Mapping[str, Any], *, gone: bool = False, ending: bool = False) -> PodSeen | None:
    """What a Job says of an attempt whose pod is not there; None where it is only waiting for one."""
    for condition in rows(part(job, "status"), "conditions"):
        if condition.get("status") != "True":
            continue
        text = _sentence(condition.get("message"))
        if condition.get("type") == "Complete":
            return PodSeen("ended", EXITED, 0)
        if condition.get("type") == "Failed":
            if condition.get("reason") == "DeadlineExceeded":
                return PodSeen("ended", Verdict("failed", "container-timeout", _TIMEOUT))
            return PodSeen("ended", Verdict("lost", "job-gone", f"The pod is gone, and its Job says: {text or condition.get('reason')}"))
    if gone:
        return PodSeen("ended", _gone(job, ending=ending, what="Job"))
    return None


_NO_START: Final = "The container cannot start"
_TIMEOUT: Final = "The pod has run for longer than its step's @timeout allows, and Kubernetes ended it."


def _waiting(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    waits: Mapping[str, Any] | None = state.get("waiting")
    return waits


def _init_waits(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Why a container of a pod template that comes before ours waits."""
    for each in rows(status, "initContainerStatuses"):
        waits = _waiting(part(each, "state"))
        if waits is not None and waits.get("reason") in _IMAGE | _BROKEN:
            return dict(waits, container=each.get("name"))
    return None


def _disruption(status: Mapping[str, Any]) -> Verdict | None:
    for condition in rows(status, "conditions"):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            known = _DISRUPTIONS.get(str(condition.get("reason")))
            code, text = known or ("evicted", f"Kubernetes ended the pod ({condition.get('reason')})")
            return Verdict("lost", code, _with(text, condition.get("message")))
    return None


def _container_ended(ended: Mapping[str, Any], status: Mapping[str, Any], disrupted: Verdict | None) -> PodSeen:
    code, reason = ended.get("exitCode"), ended.get("reason")
    if code == 0:
        return PodSeen("ended", EXITED, 0)
    if reason == "OOMKilled":
        return PodSeen("ended", Verdict("failed", "container-out-of-memory", _OUT_OF_MEMORY), code)
    if reason in ("ContainerCannotRun", "StartError"):
        text = _with(_NO_START, ended.get("message"))
        return PodSeen("ended", Verdict("failed", "container-broken", text, retryable=False), code)
    # What its node or the API says of the pod is why its container was ended.
    of_pod = disrupted or (_of_pod(status) if status.get("reason") else None)
    return PodSeen("ended", of_pod or EXITED, code)


_OUT_OF_MEMORY: Final = (
    "The container was killed because it used more memory than it may. Give the step more: @kubernetes(memory=…), in MB."
)


def _pod_ended(status: Mapping[str, Any], phase: str) -> Verdict:
    if phase == "Succeeded":
        return EXITED
    return _of_pod(status) or Verdict(
        "lost", "job-gone", _with("The pod failed before its container ran", status.get("message") or status.get("reason"))
    )


def _of_pod(status: Mapping[str, Any]) -> Verdict | None:
    reason, message = status.get("reason"), status.get("message")
    if reason == "DeadlineExceeded":
        return Verdict("failed", "container-timeout", _TIMEOUT)
    known = _OF_POD.get(str(reason))
    if known is None:
        return None
    code, text = known
    return Verdict("lost", code, _with(text, message))


def _gone(thing: Mapping[str, Any], *, ending: bool, by_hand: bool = True, what: str = "pod") -> Verdict:
    if ending:
        return EXITED
    if part(thing, "status").get("phase") == "Unknown":
        return Verdict("lost", "host-lost", "The pod's node does not answer, and the pod was given up.")
    name = part(thing, "metadata").get("name", "")
    text = f"The {what} '{name}' was deleted while its step ran, and not by evflow"
    if by_hand:
        return Verdict("failed", "killed-by-hand", f"{text}.")
    return Verdict(
        "lost",
        "evicted",
        f"{text}: by hand, or because its node was drained or made place for another pod; this server does not say which.",
    )


def _stuck(waits: Mapping[str, Any], pod: Mapping[str, Any]) -> PodSeen:
    reason, message = str(waits.get("reason")), str(waits.get("message") or "")
    if reason in _IMAGE:
        name = waits.get("container") or CONTAINER
        spec = part(pod, "spec")
        containers = [*rows(spec, "containers"), *rows(spec, "initContainers")]
        image = next((each.get("image") for each in containers if each.get("name") == name), "")
        note = _with(f"The image '{image}' cannot be pulled ({reason})", message)
        said = _without(message, str(image))
        hopeless = reason in _AT_ONCE or (not PASSING_PULL.search(said) and _is_hopeless(said))
        return _ended_or_waiting("image-pull", note, hopeless=hopeless)
    note = _with(f"{_NO_START} ({reason})", message)
    return _ended_or_waiting("container-broken", note, hopeless=reason in _AT_ONCE or _is_hopeless(message))


def _is_hopeless(message: str) -> bool:
    return any(word in message.lower() for word in _HOPELESS)


def _without(message: str, image: str) -> str:
    """A message without the image's name, in which any word may be: whole, without its tag, and by its registry alone."""
    plain = image.partition("@")[0]
    before, colon, tag = plain.rpartition(":")
    untagged = before if colon and "/" not in tag else plain
    registry, slash, repository = untagged.partition("/")
    for name in (image, plain, untagged, repository, registry if slash else ""):
        message = message.replace(name, "…") if name else message
    return message


def _ended_or_waiting(code: Code, note: str, *, hopeless: bool) -> PodSeen:
    return PodSeen("ended", Verdict("failed", code, note), note=note, code=code) if hopeless else PodSeen("waiting", note=note, code=code)


def _unscheduled(status: Mapping[str, Any]) -> str:
    for condition in rows(status, "conditions"):
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") in ("Unschedulable", "SchedulingGated")
        ):
            return _with("No node can take the pod", condition.get("message"))
    return ""


def _with(text: str, message: object) -> str:
    said = _sentence(message)
    return f"{text}: {said}" if said else f"{text}."


def _sentence(message: object) -> str:
    """What Kubernetes says, in one line and with its end."""
    text = " ".join(str(message or "").split())
    if not text:
        return ""
    text = text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"
    return text if text.endswith((".", "…")) else f"{text}."
