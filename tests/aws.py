"""S3 and SQS for tests: moto as a process of its own, and plain requests to it through boto3."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.ports import free_port
from tests.waiting import wait_until

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}


class Aws:
    """A server that answers as S3 and SQS do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        return import_module("boto3").client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def reset(self) -> None:
        """Forget every bucket and queue."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=10).close()

    def queue(self, name: str, **attributes: str) -> str:
        """A new queue; its URL."""
        url: str = self.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def arn(self, url: str) -> str:
        """What policies call a queue."""
        found: str = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return found

    def send(self, url: str, body: object) -> None:
        """Send a message: a text, or what becomes JSON."""
        self.client("sqs").send_message(QueueUrl=url, MessageBody=body if isinstance(body, str) else json.dumps(body))

    def left(self, url: str) -> tuple[int, int]:
        """How many messages wait in a queue, and how many are taken and not deleted yet."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def bucket(self, name: str, notified: str | None = None) -> None:
        """A new bucket, which tells a queue of what is put there."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        if notified is not None:
            queues = [{"QueueArn": self.arn(notified), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
            s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": queues})

    def put(self, bucket: str, key: str, body: bytes = b"1") -> None:
        """Put an object."""
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


@contextmanager
def serving(folder: Path, port: int = 0) -> Generator[Aws]:
    """A server for the block, on a port of its own or a given one."""
    aws = Aws(port or free_port())
    with (folder / "moto.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(aws.port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: _answers(aws) or process.poll() is not None, "moto answers", 60.0)
        assert process.poll() is None, (folder / "moto.log").read_text()
        yield aws
    finally:
        process.kill()
        process.wait()


def _answers(aws: Aws) -> bool:
    try:
        urllib.request.urlopen(f"{aws.url}/moto-api/data.json", timeout=5).close()
    except (URLError, OSError):
        return False
    return True
