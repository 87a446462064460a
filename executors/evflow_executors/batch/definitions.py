"""Job definitions and submits of AWS Batch, from what a step asks for. Pure.

A definition holds all that the attempts of a step share. Its name is a digest of its content, so it is registered once however many runs and
schedulers use it, and never changes. What is one attempt's own goes into the submit: its name, its order, its tags.

Defaults and meanings are Metaflow's (`plugins/aws/batch/batch_client.py`), bounds are those of the API's reference (RegisterJobDefinition, SubmitJob).
What the server would refuse is refused here, with the step's field in the message.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final, cast

from evflow.core.values import field, value
from evflow.errors import UsageError
from evflow.flow.decorators.fields import as_number
from evflow_executors.remote.platform import Job

DEFAULT_CPU: Final = 1.0
DEFAULT_MEMORY_MB: Final = 4096
LEAST_MEMORY_MB: Final = 4
LEAST_TIMEOUT_S: Final = 60
FARGATE_CPU: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
EPHEMERAL_GIB: Final = (21, 200)
MOST_TAGS: Final = 50
LOG_GROUP: Final = "/aws/batch/job"
_NAME_CHARS: Final = 32
_ONLY_ON_EC2: Final = (
    "gpu",
    "inferentia",
    "trainium",
    "efa",
    "shared_memory",
    "max_swap",
    "swappiness",
    "use_tmpfs",
    "tmpfs_size",
    "privileged",
    "host_volumes",
)


class BatchUnfit(UsageError):
    """AWS Batch would refuse what a step asks for."""

    code = "job-unfit"

    def __init__(self, step: str, why: str, hint: str = "") -> None:
        super().__init__(f"Step {step} cannot run on AWS Batch: {why}.", hint)


@value
class BatchDefaults:
    """What steps get that do not say otherwise.

    Attributes:
        image: The image.
        queue: The queue, or None.
        job_role: ARN of the tasks' role, or None.
        execution_role: ARN of the role that starts them, or None.
        secrets: Variables that AWS Batch takes from its secrets: name and ARN.
        tags: Tags of all jobs.
    """

    image: str
    queue: str | None = None
    job_role: str | None = None
    execution_role: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


def queue_of(job: Job, defaults: BatchDefaults) -> str:
    """The queue of a job.

    Raises:
        BatchUnfit: None is named.
    """
    queue = job.asked.get("queue") or defaults.queue
    if not queue:
        raise BatchUnfit(job.step, "no queue is named", "Set `batch_job_queue` (EVFLOW_BATCH_JOB_QUEUE), or @batch(queue=…).")
    return str(queue)


def definition_of(job: Job, defaults: BatchDefaults, *, fargate: bool) -> dict[str, Any]:
    """What `RegisterJobDefinition` is given, name included.

    Args:
        job: The job.
        defaults: What the step does not say.
        fargate: Its queue leads to Fargate, not to instances.

    Raises:
        BatchUnfit: The server would refuse it.
    """
    asked = job.asked
    _check(job.step, asked, fargate=fargate)
    container: dict[str, Any] = {
        "image": str(asked.get("image") or defaults.image),
        "command": list(job.command.argv),
        "resourceRequirements": _resources(job.step, asked, fargate=fargate),
        "environment": _environment({**_tempdir(asked), **job.command.shared}),
    }
    if role := asked.get("iam_role") or defaults.job_role:
        container["jobRoleArn"] = str(role)
    if role := asked.get("execution_role") or defaults.execution_role:
        container["executionRoleArn"] = str(role)
    elif fargate or defaults.secrets:
        raise BatchUnfit(
            job.step,
            f"{'Fargate' if fargate else 'a secret'} needs an execution role",
            "Set `batch_execution_role`, or @batch(execution_role=…).",
        )
    if defaults.secrets:
        container["secrets"] = [{"name": name, "valueFrom": arn} for name, arn in sorted(defaults.secrets.items())]
    if linux := _linux(asked, fargate=fargate):
        container["linuxParameters"] = linux
    volumes, mounts = _volumes(job.step, asked)
    if volumes:
        container.update(volumes=volumes, mountPoints=mounts)
    if asked.get("privileged"):
        container["privileged"] = True
    if driver := asked.get("log_driver"):
        container["logConfiguration"] = {"logDriver": str(driver), "options": _log_options(job.step, asked)}
    elif asked.get("log_options"):
        container["logConfiguration"] = {"logDriver": "awslogs", "options": _log_options(job.step, asked)}
    if fargate:
        container["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
        container["fargatePlatformConfiguration"] = {"platformVersion": "LATEST"}
        if size := as_number(asked.get("ephemeral_storage")):
            container["ephemeralStorage"] = {"sizeInGiB": int(size)}
    definition = {
        "type": "container",
        "containerProperties": container,
        "retryStrategy": {"attempts": 1},  # whether there is another attempt is the run's to decide
        "propagateTags": True,
        "platformCapabilities": ["FARGATE" if fargate else "EC2"],
    }
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:_NAME_CHARS]
    return {"jobDefinitionName": f"evflow-{digest}", **definition}


def submit_of(job: Job, queue: str, definition: str, defaults: BatchDefaults) -> dict[str, Any]:
    """What `SubmitJob` is given.

    Args:
        job: The job.
        queue: Its queue.
        definition: Name or ARN of its definition.
        defaults: Tags of all jobs.

    Raises:
        BatchUnfit: It has too many tags.
    """
    tags = {**defaults.tags, **tags_of(job.asked.get("aws_batch_tags")), **job.labels}
    if len(tags) > MOST_TAGS:
        raise BatchUnfit(job.step, f"it would have {len(tags)} tags, and AWS takes {MOST_TAGS}", "Give it fewer aws_batch_tags.")
    return {
        "jobName": job.name,
        "jobQueue": queue,
        "jobDefinition": definition,
        "containerOverrides": {"environment": _environment(job.command.own)},
        "timeout": {"attemptDurationSeconds": max(LEAST_TIMEOUT_S, ceil(job.timeout_s))},
        "tags": tags,
        "propagateTags": True,
    }


def tags_of(given: object) -> dict[str, str]:
    """Tags as a mapping, or as a text `a=1,b=2`."""
    if isinstance(given, Mapping):
        return {str(name): str(text) for name, text in cast("Mapping[object, object]", given).items()}
    parts = [one.partition("=") for one in str(given).split(",")] if given else []
    return {name.strip(): text.strip() for name, _, text in parts}


def texts_of(given: object) -> Sequence[str]:
    """A list of texts, or one text with commas."""
    if isinstance(given, str):
        return [text.strip() for text in given.split(",") if text.strip()]
    return [str(one) for one in cast("Sequence[object]", given)] if isinstance(given, list | tuple) else []


def _check(step: str, asked: Mapping[str, Any], *, fargate: bool) -> None:
    wrong = [name for name in _ONLY_ON_EC2 if asked.get(name)]
    if fargate and wrong:
        raise BatchUnfit(step, f"its queue leads to Fargate, which has no {', '.join(wrong)}", "Choose a queue of EC2 instances.")
    size = as_number(asked.get("ephemeral_storage"))
    if size and not fargate:
        raise BatchUnfit(step, "ephemeral_storage is for Fargate, and its queue leads to EC2 instances")
    if size and not EPHEMERAL_GIB[0] <= size <= EPHEMERAL_GIB[1]:
        raise BatchUnfit(step, f"ephemeral_storage is {size:g} GiB, and may be {EPHEMERAL_GIB[0]} to {EPHEMERAL_GIB[1]}")
    if asked.get("max_swap") is None and asked.get("swappiness") is not None:
        raise BatchUnfit(step, "swappiness needs max_swap")


def _resources(step: str, asked: Mapping[str, Any], *, fargate: bool) -> list[dict[str, str]]:
    cpu = as_number(asked.get("cpu")) or DEFAULT_CPU
    memory = ceil(as_number(asked.get("memory")) or DEFAULT_MEMORY_MB)
    if fargate and cpu not in FARGATE_CPU:
        raise BatchUnfit(step, f"Fargate has no {cpu:g} cores", f"It has {', '.join(f'{one:g}' for one in FARGATE_CPU)}.")
    if memory < LEAST_MEMORY_MB:
        raise BatchUnfit(step, f"memory is {memory} MB, and at least {LEAST_MEMORY_MB} are needed")
    # Instances have whole cores: less than one is refused, so a step that asks for half of one gets one.
    found = [{"type": "VCPU", "value": f"{cpu:g}" if fargate else str(max(1, ceil(cpu)))}, {"type": "MEMORY", "value": str(memory)}]
    if gpu := as_number(asked.get("gpu")):
        found.append({"type": "GPU", "value": str(ceil(gpu))})
    return found


def _linux(asked: Mapping[str, Any], *, fargate: bool) -> dict[str, Any]:
    found: dict[str, Any] = {} if fargate else {"initProcessEnabled": True}  # it reaps what a body leaves, and passes SIGTERM on
    for name, key in (("shared_memory", "sharedMemorySize"), ("max_swap", "maxSwap"), ("swappiness", "swappiness")):
        if (number := as_number(asked.get(name))) is not None:
            found[key] = ceil(number)
    devices = [f"/dev/neuron{index}" for index in range(ceil(as_number(asked.get("inferentia") or asked.get("trainium")) or 0))]
    listed = [{"containerPath": path, "hostPath": path, "permissions": ["READ", "WRITE"]} for path in devices]
    for index in range(ceil(as_number(asked.get("efa")) or 0)):
        path = f"/dev/infiniband/uverbs{index}"
        listed.append({"containerPath": path, "hostPath": path, "permissions": ["READ", "WRITE", "MKNOD"]})
    if listed:
        found["devices"] = listed
    if asked.get("use_tmpfs") or asked.get("tmpfs_size"):
        memory = as_number(asked.get("memory")) or DEFAULT_MEMORY_MB
        size = ceil(as_number(asked.get("tmpfs_size")) or memory / 2)
        found["tmpfs"] = [{"containerPath": _tmpfs_path(asked), "size": size, "mountOptions": ["rw", "noexec", "nosuid"]}]
    return found


def _tempdir(asked: Mapping[str, Any]) -> dict[str, str]:
    """Temporary files go into the memory's disk, where there is one."""
    wanted = (asked.get("use_tmpfs") or asked.get("tmpfs_size")) and asked.get("tmpfs_tempdir", True)
    return {"TMPDIR": _tmpfs_path(asked)} if wanted else {}


def _tmpfs_path(asked: Mapping[str, Any]) -> str:
    return str(asked.get("tmpfs_path") or "/metaflow_temp")


def _volumes(step: str, asked: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for text in texts_of(asked.get("host_volumes")):
        host, _, inside = text.partition(":")
        if not host.startswith("/"):
            raise BatchUnfit(step, f"the host volume '{text}' is no absolute path")
        name = host.strip("/").replace("/", "_").replace(".", "_") or "root"
        volumes.append({"name": name, "host": {"sourcePath": host}})
        mounts.append({"sourceVolume": name, "containerPath": inside or host, "readOnly": False})
    for text in texts_of(asked.get("efs_volumes")):
        system, _, inside = text.partition(":")
        name = f"efs_{system}"
        volumes.append({"name": name, "efsVolumeConfiguration": {"fileSystemId": system, "transitEncryption": "ENABLED"}})
        mounts.append({"sourceVolume": name, "containerPath": inside or f"/mnt/{system}", "readOnly": False})
    return volumes, mounts


def _log_options(step: str, asked: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts_of(asked.get("log_options")):
        name, separator, option = text.partition(":")
        if not separator:
            raise BatchUnfit(step, f"the log option '{text}' is not of the form NAME:VALUE")
        found[name.strip()] = option.strip()
    return found


def log_group_of(container: Mapping[str, Any]) -> str | None:
    """The group of CloudWatch that a job's output goes to; None where it goes elsewhere."""
    configuration: Mapping[str, Any] = container.get("logConfiguration") or {"logDriver": "awslogs"}
    if configuration.get("logDriver") != "awslogs":
        return None
    options: Mapping[str, Any] = configuration.get("options") or {}
    return str(options.get("awslogs-group") or LOG_GROUP)


def _environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Variables as the API takes them; it drops those that are empty, and refuses names that begin with AWS_BATCH."""
    return [{"name": name, "value": text} for name, text in sorted(variables.items()) if text]
