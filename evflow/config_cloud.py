"""Settings of what runs and lies elsewhere: containers, AWS Batch, Kubernetes, S3. A part of `evflow.config.SETTINGS`."""

from typing import Final

from evflow.config_kinds import ENDPOINT, LOG_URL, NAME, PATH, Kind, Setting, choice, integer, number, words

_NAMES_AND_VALUES: Final = Kind("a list of NAME=VALUE", words(","))


def cloud_settings() -> tuple[Setting, ...]:
    """They, in the order in which they are shown."""
    return (*_OF_CONTAINERS, *_OF_BATCH, *_OF_S3)


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
