"""Objects that are put into a bucket start runs, by way of a queue or of listings, with real schedulers and moto."""

import json
import signal
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.aws import CREDENTIALS, Aws, serving
from tests.e2e.test_event_sources import FLOW, runs_of, said, until_there_are
from tests.e2e.test_scheduler import WITHIN_S, scheduler, told
from tests.e2e.test_scheduler_http import numbers
from tests.real_runs import evflow, python
from tests.waiting import wait_until


@pytest.fixture
def aws(root: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Aws]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serving(root) as server:
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", server.url)
        file = root / "files.py"
        file.write_text(FLOW.format(name="Files", event={"name": "arrived", "parameters": {"what": "key"}}))
        assert python(file, "deploy", cwd=root).returncode == 0
        yield server


def sources() -> list[dict[str, Any]]:
    return [one for found in told("scheduler", "status")["schedulers"] for one in found["sources"]]


def events(name: str) -> list[dict[str, Any]]:
    return [one for one in json.loads(evflow("event", "list", "--json").stdout or "[]") if one["name"] == name]


def test_an_object_starts_a_run_once_whoever_reads_and_dies(root: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = aws.queue("arrivals")
    aws.bucket("data", notified=queue)
    monkeypatch.setenv("EVFLOW_EVENT_QUEUES", f"{queue}?prefix=in/&suffix=.csv=arrived")
    with scheduler(root, "--http", "0") as first:
        aws.put("data", "elsewhere/a.csv")
        aws.put("data", "in/a.txt")
        aws.put("data", "in/a b+ü.csv")
        assert "what in/a b+ü.csv" in said(until_there_are("Files", 1)[-1])
        wait_until(lambda: aws.left(queue) == (0, 0), "what was read is deleted", WITHIN_S)
        aws.client("s3").delete_object(Bucket="data", Key="in/a b+ü.csv")
        aws.send(queue, "no JSON")
        wait_until(lambda: events("evflow.refused"), "what cannot be read is recorded", WITHIN_S)
        wait_until(lambda: aws.left(queue) == (0, 0), "and deleted, because the queue has no policy", WITHIN_S)
        found = numbers(root)
        assert found[f'evflow_source_up{{place="{queue}"}}'] == 1
        outcomes = {
            outcome: found[f'evflow_source_events_total{{outcome="{outcome}",place="{queue}"}}'] for outcome in ("published", "refused")
        }
        assert outcomes == {"published": 1, "refused": 1}
        wait_until(
            lambda: [(one["is_up"], one["published"], one["refused"]) for one in sources()] == [(True, 1, 1)], "it says so", WITHIN_S
        )
        wait_until(lambda: f"{queue}  read" in evflow("scheduler", "status").stdout, "and shows it", WITHIN_S)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert len(runs_of("Files")) == 1


def test_a_part_of_a_bucket_is_listed(root: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.bucket("data")
    monkeypatch.setenv("EVFLOW_EVENT_BUCKETS", "s3://data/in/?suffix=.csv&every=1=arrived")
    with scheduler(root):
        wait_until(lambda: any(one["is_up"] for one in sources()), "it is listed", WITHIN_S)
        aws.put("data", "elsewhere/a.csv")
        aws.put("data", "in/a.txt")
        aws.put("data", "in/a.csv")
        assert "what in/a.csv" in said(until_there_are("Files", 1)[-1])
    aws.put("data", "in/b.csv")
    with scheduler(root):
        assert "what in/b.csv" in said(until_there_are("Files", 2)[-1])
    assert len(runs_of("Files")) == 2


class Between:
    """What stands between a scheduler and SQS, and lets no message be deleted."""

    def __init__(self, aws: Aws) -> None:
        self.deletions = 0
        self.receipts: list[str] = []
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                target = self.headers.get("X-Amz-Target", "")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if target.endswith("DeleteMessageBatch"):
                    outer.deletions += 1
                    outer._ended.wait(WITHIN_S)
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
                with urllib.request.urlopen(urllib.request.Request(aws.url + self.path, body, headers), timeout=60) as answer:
                    said = answer.read()
                if target.endswith("ReceiveMessage"):
                    outer.receipts += [one["ReceiptHandle"] for one in json.loads(said).get("Messages", [])]
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/x-amz-json-1.0")
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)
                except OSError:
                    self.close_connection = True  # it was killed meanwhile

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Generator[None]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def test_a_scheduler_killed_before_it_deletes_leaves_one_run(root: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = aws.queue("arrivals")
    aws.bucket("data", notified=queue)
    aws.client("sqs").purge_queue(QueueUrl=queue)  # S3's test of the configuration
    monkeypatch.setenv("EVFLOW_EVENT_QUEUES", f"{queue}=arrived")
    between = Between(aws)
    with between.serving():
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", between.url)
        with scheduler(root) as first:
            aws.put("data", "in/a.csv")
            wait_until(lambda: between.deletions, "it would delete what it published", WITHIN_S)
            assert len(events("arrived")) == 1
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert aws.left(queue) == (0, 1)
    aws.client("sqs").change_message_visibility(QueueUrl=queue, ReceiptHandle=between.receipts[-1], VisibilityTimeout=0)
    monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", aws.url)
    with scheduler(root):
        assert "what in/a.csv" in said(until_there_are("Files", 1)[-1])
        wait_until(lambda: aws.left(queue) == (0, 0), "what comes again is deleted", WITHIN_S)
        wait_until(lambda: [(one["published"], one["known"]) for one in sources()] == [(0, 1)], "it was known", WITHIN_S)
    assert len(runs_of("Files")) == 1


def test_an_outage_of_the_queue_is_told_and_over_when_it_is(root: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_EVENT_QUEUES", f"{aws.url}/123456789012/arrivals=arrived")
    with scheduler(root):
        wait_until(lambda: any(one["is_up"] is False for one in sources()), "it cannot be read", WITHIN_S)
        wait_until(lambda: any("NonExistentQueue" in one["why"] for one in sources()), "it is said why", WITHIN_S)
        wait_until(lambda: "not read since" in evflow("scheduler", "status").stdout, "and shown", WITHIN_S)
        assert "NonExistentQueue" in (root / "scheduler.log").read_text()
        looked = json.loads(evflow("doctor", "--json").stdout)
        assert [one["level"] for one in looked["findings"] if one["name"] == "event-queue"] == ["error"]
        queue = aws.queue("arrivals")
        aws.send(queue, {"key": "by hand"})
        assert "what by hand" in said(until_there_are("Files", 1)[-1])
        wait_until(lambda: [one["is_up"] for one in sources()] == [True], "it is said that it can be read", WITHIN_S)
    looked = json.loads(evflow("doctor", "--json").stdout)
    assert [one["level"] for one in looked["findings"] if one["name"] == "event-queue"] == ["ok"]
