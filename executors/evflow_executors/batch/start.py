"""AWS Batch as a platform, made from the settings."""

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from evflow import aws, config
from evflow_executors.batch.api import BatchPlatform
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.remote.platform import Sheets
from evflow_executors.remote.provision import pairs
from evflow_executors.remote.rate import CallRate

HOW_SECRETS = "Set `batch_secrets` to EVFLOW_REDIS_URL=<ARN of a secret>"


def defaults() -> BatchDefaults:
    """What steps get that do not say otherwise."""
    image: str | None = config.get("batch_container_image") or config.get("container_image")
    return BatchDefaults(
        image=image or f"python:{sys.version_info.major}.{sys.version_info.minor}",
        queue=config.get("batch_job_queue"),
        job_role=config.get("batch_job_role"),
        execution_role=config.get("batch_execution_role"),
        secrets=pairs(config.get("batch_secrets")),
        tags=pairs(config.get("batch_tags")),
    )


def platform(sheets: Sheets | None = None) -> BatchPlatform:
    """AWS Batch, as the settings have it; without `sheets` there are no arrays.

    Raises:
        AwsMissing: The client is not installed.
    """
    aws.installed("@batch")
    return BatchPlatform(
        defaults(),
        rate=config.get("batch_rate"),
        limit=limit(config.get("batch_rate")),
        region=config.get("aws_region"),
        endpoint=config.get("aws_endpoint"),
        sheets=sheets,
        array_least=config.get("batch_array_least"),
    )


@cache
def limit(calls_per_s: float) -> CallRate:
    """What all platforms of this process share: a scheduler has one for each of its shards."""
    return CallRate(calls_per_s)


def secrets() -> Collection[str]:
    """The variables that AWS Batch takes from its secrets."""
    return pairs(config.get("batch_secrets")).keys()


def why_not(asked: Sequence[Mapping[str, Any]]) -> str:
    """Why steps that ask so cannot run on AWS Batch from here; an empty string where they can."""
    try:
        aws.installed("@batch")
    except aws.AwsMissing as error:
        return f"{error.message} {error.hint}"
    if config.get("batch_job_queue") is None and not all(one.get("queue") for one in asked):
        return "no queue is named (`batch_job_queue`, EVFLOW_BATCH_JOB_QUEUE, or @batch(queue=…))"
    return ""
