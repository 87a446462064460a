"""Settings of what runs and lies elsewhere: containers, AWS Batch, Kubernetes, S3. A part of `evflow.config.SETTINGS`."""

from typing import Any, Final

from evflow.config_kinds import ENDPOINT, LOG_URL, NAME, PATH, SECONDS, Kind, Setting, choice, integer, number, words

_NAMES: Final = Kind("a list of names", words(","))
_NAMES_AND_VALUES: Final = Kind("a list of NAME=VALUE", words(","))


def cloud_settings() -> tuple[Setting, ...]:
    """They, in the order in which they are shown."""
    return (*_OF_CONTAINERS, *_OF_BATCH, *_OF_KUBERNETES, *_OF_S3)


_OF_CONTAINERS: Final = (
    Setting(
        "report_via",
        choice("auto", "log", "store"),
        "auto",
        "How tasks in containers say how they ended: to the log, or by files in the store; auto: the store where the log is a socket here.",
    ),
    Setting("container_image", NAME, None, "Image of tasks in containers whose decorator names none; unset: python:X.Y of this machine."),
    Setting(
        "container_redis_url",
        LOG_URL,
        None,
        "The log as containers reach it; unset: redis_url. A password is never passed on: give it by the platform's secrets.",
        secret=True,
    ),
    Setting("container_store", PATH, None, "The store as containers reach it, such as file:///mnt/store; unset: store.", secret=True),
    Setting(
        "container_grace", SECONDS, 20.0, "Seconds that a task in a container gets to end itself when the platform ends the container."
    ),
    Setting("container_env", _NAMES_AND_VALUES, (), "Variables of every task in a container, as NAME=VALUE; no secrets."),
    Setting(
        "container_install",
        NAME,
        None,
        "What pip installs in a container whose image has not this version of evflow; unset: what the executor itself is, by way of the store.",
    ),
)

_OF_BATCH: Final = (
    Setting("batch_job_queue", NAME, None, "Queue of AWS Batch for steps whose @batch names none; a name or an ARN."),
    Setting("batch_container_image", NAME, None, "Image for @batch; unset: container_image."),
    Setting("batch_job_role", NAME, None, "ARN of the role that tasks have on AWS Batch."),
    Setting("batch_execution_role", NAME, None, "ARN of the role with which AWS Batch starts tasks: images, secrets, Fargate."),
    Setting("batch_secrets", _NAMES_AND_VALUES, (), "Variables of tasks on AWS Batch that it takes from its secrets, as NAME=ARN."),
    Setting("batch_tags", _NAMES_AND_VALUES, (), "Tags of jobs on AWS Batch, as NAME=VALUE."),
    Setting(
        "batch_array_least",
        integer(0),
        20,
        "So many attempts of a step that are submitted together to AWS Batch go as an array job; 0: each is a job of its own.",
    ),
    Setting("batch_rate", number(0.1), 25.0, "Calls of AWS Batch a second, at most, of one process."),
)

_OF_S3: Final = (
    Setting(
        "s3_endpoint", ENDPOINT, None, "URL of another S3 server than AWS's, as MinIO; unset: aws_endpoint, or what the platform says."
    ),
    Setting(
        "s3_sse",
        choice("AES256", "aws:kms", "aws:kms:dsse"),
        None,
        "How S3 encrypts what evflow writes; unset: as the bucket has it.",
    ),
    Setting("s3_kms_key", NAME, None, "Key of AWS KMS for it, as an id, an ARN or alias/NAME."),
    Setting(
        "s3_root", NAME, None, "Where evflow.S3 has the data of flows, as s3://BUCKET/PREFIX; unset: the folder data of a store in S3."
    ),
    Setting("s3_cache", PATH, None, "Folder of what was read from S3 or written to it on this machine; unset: cache/s3 of home."),
    Setting("s3_cache_mb", integer(0), 10_000, "How much it holds, in MB; what was not used for longest goes. 0: nothing is kept."),
)


def _tolerations(raw: Any) -> Any:
    """A list of tables, as a file has it, or in JSON, as a variable has it."""
    import json

    from evflow.core.kubernetes_rules import toleration_mistakes

    said = json.loads(raw) if isinstance(raw, str) else raw
    if next(toleration_mistakes(said), None) is not None:
        raise ValueError
    return said


_OF_KUBERNETES: Final = (
    Setting(
        "kubernetes_config",
        PATH,
        None,
        "The kubeconfig for @kubernetes; unset: KUBECONFIG, else the pod's own account, else ~/.kube/config.",
    ),
    Setting("kubernetes_context", NAME, None, "The context of the kubeconfig; unset: its current one."),
    Setting("kubernetes_namespace", NAME, None, "The namespace of Jobs whose @kubernetes names none; unset: that of the credentials."),
    Setting("kubernetes_container_image", NAME, None, "Image for @kubernetes; unset: container_image."),
    Setting("kubernetes_image_pull_policy", choice("Always", "IfNotPresent", "Never"), None, "When images are pulled."),
    Setting("kubernetes_image_pull_secrets", _NAMES, (), "Secrets for registries of images."),
    Setting("kubernetes_service_account", NAME, None, "The service account of tasks on Kubernetes."),
    Setting("kubernetes_secrets", _NAMES, (), "Secrets whose keys all tasks on Kubernetes have as variables."),
    Setting(
        "kubernetes_secret_env", _NAMES_AND_VALUES, (), "Variables of tasks that Kubernetes takes from its secrets, as NAME=SECRET/KEY."
    ),
    Setting("kubernetes_node_selector", _NAMES_AND_VALUES, (), "Labels that a node must have, as NAME=VALUE."),
    Setting(
        "kubernetes_tolerations",
        Kind("a list of tolerations, in JSON", _tolerations),
        None,
        "Tolerations of tasks, as Kubernetes writes them.",
    ),
    Setting("kubernetes_labels", _NAMES_AND_VALUES, (), "Labels of Jobs and pods, as NAME=VALUE."),
    Setting("kubernetes_annotations", _NAMES_AND_VALUES, (), "Annotations of Jobs and pods, as NAME=VALUE."),
    Setting("kubernetes_persistent_volume_claims", _NAMES_AND_VALUES, (), "Claims that all tasks mount, as CLAIM=/path."),
    Setting("kubernetes_cpu", NAME, None, "Cores of a task that asks for none; unset: 1."),
    Setting("kubernetes_memory", NAME, None, "Memory in MB of a task that asks for none; unset: 4096."),
    Setting("kubernetes_disk", NAME, None, "Disk in MB of a task that asks for none; unset: 10240."),
    Setting("kubernetes_shared_memory", NAME, None, "Size in MB of /dev/shm of a task that asks for none."),
    Setting("kubernetes_port", NAME, None, "The port of a task that names none."),
    Setting("kubernetes_gpu_vendor", choice("nvidia", "amd", "intel", "habana"), None, "Whose accelerators `gpu` means; unset: nvidia."),
    Setting(
        "kubernetes_qos",
        choice("guaranteed", "burstable", "besteffort"),
        None,
        "Quality of service of a task that names none; unset: burstable.",
    ),
    Setting("kubernetes_pod_template", PATH, None, "A file with a pod template that is laid over each task's, by strategic merge."),
    Setting("kubernetes_ttl_s", integer(0), 86_400, "So many seconds after its end Kubernetes removes a Job."),
    Setting(
        "kubernetes_patience_s",
        SECONDS,
        0.0,
        "How long a pod may wait for a node, an image or a volume, before its attempt fails; 0: as long as it takes.",
    ),
    Setting("kubernetes_rate", number(0.1), 250.0, "Calls of Kubernetes a second, at most, of one process."),
)
