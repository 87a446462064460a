"""`--with batch`: whole flows whose steps run as jobs of AWS Batch (`tests.fakes.batch_server`), with owners that die around a submit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.batch_server import BatchServer, a_batch_server
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(600)
WITHIN_S = 120.0
FLOW = """
from evflow import FlowSpec, step

class Sums(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2, 3]
        print("begun")
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.twice = 2 * self.input
        print("working on", self.input)
        BODY
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.twice for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)

if __name__ == "__main__":
    Sums()
"""


@pytest.fixture
def batch(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """The service, and an environment whose AWS it is."""
    del folder
    with a_batch_server(root) as server:
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", server.url)
        monkeypatch.setenv("EVFLOW_BATCH_JOB_QUEUE", "queue")
        for name, text in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}.items():
            monkeypatch.setenv(name, text)
        yield server


def write(body: str = "pass") -> None:
    Path("sums.py").write_text(FLOW.replace("BODY", body))


def fields(run: str, kind: str) -> list[dict[str, object]]:
    return [event["fields"] for event in json.loads(evflow("events", run, "--json", "--type", kind).stdout)]


def test_a_flow_runs_on_aws_batch_from_its_start_to_its_end(batch: BatchServer) -> None:
    write()
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [len(batch.of_name(job.name)) for job in batch.jobs.values()] == [1] * 6
    assert {job.status for job in batch.jobs.values()} == {"SUCCEEDED"}
    assert "working on 2" in done.stdout
    assert batch.calls["registerjobdefinition"] == 1
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    verified("Sums/1")
