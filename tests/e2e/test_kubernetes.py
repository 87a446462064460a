"""`--with kubernetes`: whole flows whose steps run as Jobs of an API server (`tests.fakes.kubernetes_api`)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.timeout(600)
WITHIN_S = 120.0
FLOW = """
from evflow import FlowSpec, kubernetes, step

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
def server(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """An API server, and an environment whose cluster it is."""
    del folder
    with fake_kubernetes(root / "cluster") as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(root / "kubeconfig")))
        yield found


def write(body: str = "pass") -> None:
    Path("sums.py").write_text(FLOW.replace("BODY", body))


def fields(run: str, kind: str) -> list[dict[str, object]]:
    return [event["fields"] for event in json.loads(evflow("events", run, "--json", "--type", kind).stdout)]


def test_a_flow_runs_on_kubernetes_from_its_start_to_its_end(server: FakeKubernetes) -> None:
    write()
    done = python("sums.py", "run", "--with", "kubernetes:image=python:local,memory=256")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = server.jobs()
    assert len(jobs) == 6
    assert len(server.pods()) == 6
    assert all(job["status"]["conditions"][0]["type"] == "Complete" for job in jobs.values())
    container = next(iter(jobs.values()))["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "python:local"
    assert container["resources"]["requests"]["memory"] == "256M"
    assert "working on 2" in done.stdout
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    verified("Sums/1")
