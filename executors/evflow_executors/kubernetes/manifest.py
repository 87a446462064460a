"""From what a step asks of Kubernetes to the Job of one attempt, or of a gang's attempts. Pure.

The pod is one that the *restricted* level of the pod security standards admits: it does not run as root, gains no privileges, has no capabilities and a
read-only root; `/tmp` and its home are volumes of its own. `@kubernetes(security_context=…)` and an operator's template may say otherwise.

A Job makes at most one pod (`backoffLimit: 0`, `restartPolicy: Never`): evflow decides about further attempts, and their number is in the name.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from math import ceil
from types import MappingProxyType
from typing import Any, Final

from evflow.core.kubernetes_rules import GPU_VENDORS, PULL_POLICIES, cores, field_mistakes, megabytes, names_of, node_selector
from evflow.core.values import field, value
from evflow.errors import UsageError

CONTAINER: Final = "task"
"""The name of our container: a pod template says more about it under this name."""
HOME: Final = "/home/evflow"
INDEXED_SINCE: Final = (1, 24)
"""The version of the server from which on every one has Indexed Jobs."""
FAILURE_POLICY_SINCE: Final = (1, 28)
"""From here on no server has pod failure policies switched off by default, and those that have them know all that we write."""
TTL_SINCE: Final = (1, 21)

_ID: Final = 1000
"""The user and group of a task, where nobody names others: not root, and what most images give their first user."""
_GRACE_S: Final = 30
"""From SIGTERM to SIGKILL: what a task may take to say that it was interrupted."""
_ORIGIN: Final = "app.kubernetes.io/managed-by"
_POD_FIELDS: Final = MappingProxyType(
    {
        "EVFLOW_KUBERNETES_POD_NAMESPACE": "metadata.namespace",
        "EVFLOW_KUBERNETES_POD_NAME": "metadata.name",
        "EVFLOW_KUBERNETES_POD_ID": "metadata.uid",
        "EVFLOW_KUBERNETES_SERVICE_ACCOUNT_NAME": "spec.serviceAccountName",
        "EVFLOW_KUBERNETES_NODE_IP": "status.hostIP",
        "EVFLOW_KUBERNETES_NODE_NAME": "spec.nodeName",
        "EVFLOW_KUBERNETES_POD_IP": "status.podIP",
    }
)


class StepUnfit(UsageError):
    """A step asks of Kubernetes what its server would refuse."""

    code = "kubernetes-step"

    def __init__(self, step: str, mistakes: Sequence[str]) -> None:
        super().__init__(
            f"Step '{step}' cannot run on Kubernetes: " + " ".join(f"@kubernetes {mistake}" for mistake in mistakes),
            "Mend the step's @kubernetes, or the setting EVFLOW_KUBERNETES_* that fills the field.",
        )


@value
class Server:
    """What the server is, as far as a manifest depends on it: its version, `(1, 31)`."""

    version: tuple[int, int] = (1, 31)

    def has(self, since: tuple[int, int]) -> bool:
        """Whether it is of that version or a later one."""
        return self.version >= since


@value
class TaskJob:
    """One attempt, as a manifest needs it.

    Attributes:
        name: Of the Job: a DNS label.
        labels: By which it is found again.
        fields: Of the step's `@kubernetes`, those that somebody gave; amounts are already the larger of those of `@resources`.
        argv: What the container runs.
        env: Its variables.
        step: The step, for messages.
        timeout_s: How long the pod may live, for Kubernetes to end what nobody else does; 0 for no limit.
        about: For people: annotations.
        secret_env: Variables that Kubernetes takes from its secrets, by name: `secret/key`.
    """

    name: str
    labels: Mapping[str, str]
    fields: Mapping[str, Any]
    argv: Sequence[str]
    env: Mapping[str, str]
    step: str = ""
    timeout_s: float = 0
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    secret_env: Mapping[str, str] = field(default_factory=dict[str, str])


def job_manifest(job: TaskJob, server: Server, *, ttl_s: int) -> dict[str, Any]:
    """The Job of one attempt.

    Args:
        job: The attempt. Fields that nobody gave have been filled by the settings, as `filled` does.
        server: What the server can do.
        ttl_s: After so many seconds the server removes a Job that has ended.

    Raises:
        StepUnfit: The server would refuse it.
    """
    if mistakes := list(_mistakes(job.fields)):
        raise StepUnfit(job.step, mistakes)
    labels = {**_table(job.fields, "labels"), **job.labels, _ORIGIN: "evflow"}
    annotations = {**_table(job.fields, "annotations"), **job.about}
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod(job)},
    }
    if server.has(TTL_SINCE):
        spec["ttlSecondsAfterFinished"] = ttl_s
    if server.has(FAILURE_POLICY_SINCE):
        spec["podFailurePolicy"] = _failure_policy()
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def gang_manifest(job: TaskJob, nodes: int, server: Server, *, ttl_s: int) -> dict[str, Any]:
    """The Indexed Job of a gang, in which Kubernetes makes a pod for each index and tells it that by JOB_COMPLETION_INDEX.

    Whichever pod fails, the Job does, and Kubernetes ends the others; none is made anew.

    Args:
        job: The gang under its name; its command runs in each pod.
        nodes: How many there are.
        server: It has Indexed Jobs (`INDEXED_SINCE`).
        ttl_s: As in `job_manifest`.

    Raises:
        StepUnfit: The server would refuse it.
    """
    made = job_manifest(job, server, ttl_s=ttl_s)
    made["spec"].update(completionMode="Indexed", completions=nodes, parallelism=nodes)
    return made


def filled(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a step with those of the settings where it gives none; labels and annotations are laid over each other.

    Args:
        fields: Of the step.
        defaults: Of the settings, by the names of fields.
    """
    both = {
        **{name: said for name, said in defaults.items() if said is not None},
        **{name: said for name, said in fields.items() if said is not None},
    }
    for name in ("labels", "annotations"):
        if fields.get(name) and defaults.get(name):
            both[name] = {**defaults[name], **fields[name]}
    if defaults.get("secrets") and fields.get("secrets"):
        both["secrets"] = [*names_of(defaults["secrets"]), *names_of(fields["secrets"])]
    return both


def _mistakes(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, said in fields.items():
        yield from field_mistakes(name, said)
    if not fields.get("image"):
        yield "names no image, and no setting does."


def _table(asked: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return asked.get(name) or {}


def _failure_policy() -> dict[str, Any]:
    """Whatever happens to a pod, the Job fails and says why; evflow makes the next attempt."""
    return {
        "rules": [
            {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]}},
        ]
    }


def _pod(job: TaskJob) -> dict[str, Any]:
    asked = job.fields
    mounts, volumes = _volumes(asked)
    user = _user(asked)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": asked["image"],
        "command": list(job.argv),
        "workingDir": HOME,
        "env": [*_plain_env(job), *_pod_env()],
        "resources": resources_of(asked),
        "securityContext": _container_security(asked),
        "volumeMounts": mounts,
        # The last lines of a container that died before it could say anything are its message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if asked.get("image_pull_policy"):
        container["imagePullPolicy"] = _as_written(asked["image_pull_policy"], PULL_POLICIES)
    if secrets := names_of(asked.get("secrets") or ()):
        container["envFrom"] = [{"secretRef": {"name": name}} for name in secrets]
    if asked.get("port"):
        container["ports"] = [{"containerPort": int(asked["port"])}]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
        # A variable for each service of the namespace is of no use, and in large namespaces too much for a process to start with.
        "enableServiceLinks": False,
    }
    if asked.get("service_account"):
        # Whether its pods get a token for the API, the account itself says.
        pod["serviceAccountName"] = asked["service_account"]
    else:
        pod["automountServiceAccountToken"] = False
    if job.timeout_s:
        pod["activeDeadlineSeconds"] = ceil(job.timeout_s)
    selector = dict(node_selector(asked.get("node_selector") or {}))
    if asked.get("compute_pool"):
        selector["outerbounds.co/compute-pool"] = asked["compute_pool"]
    if selector:
        pod["nodeSelector"] = selector
    if asked.get("tolerations"):
        pod["tolerations"] = [dict(each) for each in asked["tolerations"]]
    if pulls := names_of(asked.get("image_pull_secrets") or ()):
        pod["imagePullSecrets"] = [{"name": name} for name in pulls]
    return pod


def _plain_env(job: TaskJob) -> list[dict[str, Any]]:
    asked = job.fields
    env = {"HOME": HOME, **job.env}
    if _tmpfs_mb(asked) and asked.get("tmpfs_tempdir", True):
        env.setdefault("TMPDIR", str(asked.get("tmpfs_path") or "/metaflow_temp"))
    # `$(NAME)` in a value is a reference to another variable; `$$` is a dollar sign.
    plain = [{"name": name, "value": text.replace("$(", "$$(")} for name, text in env.items() if name not in job.secret_env]
    return [*plain, *({"name": name, "valueFrom": {"secretKeyRef": _secret(place)}} for name, place in job.secret_env.items())]


def _secret(place: str) -> dict[str, str]:
    secret, _, key = place.partition("/")
    return {"name": secret, "key": key}


def _pod_env() -> list[dict[str, Any]]:
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _POD_FIELDS.items()]


def resources_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Requests and limits of the container, by the quality of service that the step asks for.

    `guaranteed`: limits are requests. `burstable`: no limits but for devices, which have no other. `besteffort`: neither.
    """
    amounts = {
        "cpu": _cpu(cores(asked.get("cpu", 1)) or Decimal(1)),
        "memory": f"{_ceiling(megabytes(asked.get('memory', 4096)) or Decimal(1))}M",
        "ephemeral-storage": f"{_ceiling(megabytes(asked.get('disk', 10240)) or Decimal(1))}M",
    }
    devices: dict[str, str] = {name: str(int(Decimal(str(count)))) for name, count in _table(asked, "extended_resources").items()}
    if asked.get("gpu") is not None and Decimal(str(asked["gpu"])) > 0:
        devices[GPU_VENDORS[str(asked.get("gpu_vendor") or "nvidia").lower()]] = str(int(Decimal(str(asked["gpu"]))))
    qos = str(asked.get("qos") or "burstable").lower()
    requests = {} if qos == "besteffort" else amounts
    limits = amounts if qos == "guaranteed" else {}
    # A device is requested by its limit; asking for it by both, and the same, is what every server takes.
    both = {"requests": {**requests, **devices}, "limits": {**limits, **devices}}
    return {name: table for name, table in both.items() if table}


def _cpu(number: Decimal) -> str:
    thousandths = max(1, _ceiling(number * 1000))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def _ceiling(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING))


def _tmpfs_mb(asked: Mapping[str, Any]) -> int:
    """The size of the tmpfs, 0 for none: half of the memory where only `use_tmpfs` is said, as in Metaflow."""
    if asked.get("tmpfs_size"):
        return int(Decimal(str(asked["tmpfs_size"])))
    return max(1, _ceiling(megabytes(asked.get("memory", 4096)) or Decimal(1)) // 2) if asked.get("use_tmpfs") else 0


def _volumes(asked: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts and volumes: what a read-only root needs to be written elsewhere, and what the step asks for."""
    mounts = [{"name": "evflow-tmp", "mountPath": "/tmp"}, {"name": "evflow-home", "mountPath": HOME}]  # noqa: S108 - it is the container's
    volumes: list[dict[str, Any]] = [{"name": "evflow-tmp", "emptyDir": {}}, {"name": "evflow-home", "emptyDir": {}}]

    def add(name: str, path: str, **source: Any) -> None:
        mounts[:] = [mount for mount in mounts if mount["mountPath"] != path]
        mounts.append({"name": name, "mountPath": path})
        volumes.append({"name": name, **source})

    if size := _tmpfs_mb(asked):
        add("evflow-tmpfs", str(asked.get("tmpfs_path") or "/metaflow_temp"), emptyDir={"medium": "Memory", "sizeLimit": f"{size}Mi"})
    if asked.get("shared_memory"):
        size = int(Decimal(str(asked["shared_memory"])))
        add("evflow-shm", "/dev/shm", emptyDir={"medium": "Memory", "sizeLimit": f"{size}Mi"})  # noqa: S108
    for number, (claim, path) in enumerate(_table(asked, "persistent_volume_claims").items()):
        # A claim's name is a subdomain, a volume's a label: so it has one of its own.
        add(f"evflow-claim-{number}", path.rstrip("/"), persistentVolumeClaim={"claimName": claim})
    used = {mount["name"] for mount in mounts}
    return mounts, [volume for volume in volumes if volume["name"] in used]


def _user(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Who the pod runs as. Where a step does not want `run_as_non_root`, and names nobody, it is whom the image names."""
    said = _said(asked)
    user = said.get("run_as_user")
    if user is None:
        if said.get("privileged") or said.get("run_as_non_root") is False:
            return {}
        user = _ID
    group = said.get("run_as_group", user)
    non_root = bool(said.get("run_as_non_root", user != 0)) and user != 0
    return {"runAsUser": user, "runAsGroup": group, "fsGroup": group, **({"runAsNonRoot": True} if non_root else {})}


def _container_security(asked: Mapping[str, Any]) -> dict[str, Any]:
    said = _said(asked)
    if said.get("privileged"):
        return {"privileged": True, "readOnlyRootFilesystem": bool(said.get("read_only_root_filesystem", False))}
    escalation = bool(said.get("allow_privilege_escalation", False))
    return {
        "allowPrivilegeEscalation": escalation,
        "readOnlyRootFilesystem": bool(said.get("read_only_root_filesystem", True)),
        **({} if escalation else {"capabilities": {"drop": ["ALL"]}}),
    }


def _said(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: said for key, said in _table(asked, "security_context").items() if said is not None}


def _as_written(said: str, choices: Sequence[str]) -> str:
    return next(choice for choice in choices if choice.lower() == said.lower())
