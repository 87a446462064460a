"""AWS Batch for tests of both kinds: moto's server as a process of the test's own, or the endpoint that EVFLOW_TEST_BATCH_ENDPOINT names, which runs containers."""

import os
from importlib import import_module
from typing import Any
from uuid import uuid4

from tests.aws import REGION

REAL = os.environ.get("EVFLOW_TEST_BATCH_ENDPOINT", "")
"""An endpoint that runs what is submitted in the image of EVFLOW_TEST_IMAGE: the tests of what both have to do run there as well."""
IMAGE = os.environ.get("EVFLOW_TEST_IMAGE", "python:local")


class BatchEndpoint:
    """What answers as AWS does at a URL.

    Args:
        url: Where.
        runs: It runs containers.
    """

    def __init__(self, url: str, *, runs: bool) -> None:
        self.url = url
        self.runs = runs
        self.log = f"log-{uuid4().hex}"
        """What jobs of this test are named after: an endpoint may have those of others, and keeps those of yesterday."""

    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        return import_module("boto3").client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id="testing", aws_secret_access_key="testing"
        )

    def queue(self) -> str:
        """A new queue of an environment that nobody manages."""
        name = f"evflow-{uuid4().hex[:12]}"
        made = self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        role = made["Role"]["Arn"]
        batch = self.client("batch")
        made = batch.create_compute_environment(computeEnvironmentName=name, type="UNMANAGED", state="ENABLED", serviceRole=role)
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order)
        return name
