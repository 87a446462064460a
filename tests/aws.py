"""S3 and SQS for tests: moto as a process of its own (`tests.moto_server`), and plain requests to it through boto3."""

import json
import os
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

REPOSITORY = Path(__file__).resolve().parents[1]
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
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=60).close()

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

    def age(self, bucket: str, key: str, seconds: float) -> None:
        """Let an object be written so long before it was."""
        self._tell("age", {"bucket": bucket, "key": key, "seconds": seconds})

    def fail(self, *faults: dict[str, Any]) -> None:
        """Let requests fail from now on, each fault as often as it says (`tests.moto_server`); without any: no longer."""
        self._tell("faults", faults)

    def asked(self) -> list[str]:
        """The requests since this was asked last, as `PUT /bucket/key?query`, ` unsigned` behind it where the signature leaves the body out."""
        with urllib.request.urlopen(f"{self.url}/tests/asked", timeout=60) as answer:
            found: list[str] = json.load(answer)
        return found

    def _tell(self, what: str, told: object) -> None:
        request = urllib.request.Request(f"{self.url}/tests/{what}", json.dumps(told).encode(), method="POST")
        urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def serving(folder: Path, port: int = 0, contents: Path | None = None) -> Generator[Aws]:
    """A server for the block, on a port of its own or a given one; what it holds is in its memory and, where large, below `contents`."""
    aws = Aws(port or free_port())
    with (folder / "moto.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.moto_server", str(aws.port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=REPOSITORY,
            env=os.environ if contents is None else {**os.environ, "TMPDIR": str(contents)},
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
