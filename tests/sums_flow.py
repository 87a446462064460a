"""A flow whose steps run in containers of a platform, written into the current folder and run there."""

import json
import subprocess
import sys
from pathlib import Path

from tests.real_runs import evflow

WITHIN_S = 120.0
FLOW = """
from evflow import FlowSpec, batch, kubernetes, step

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


def write(body: str = "pass") -> None:
    """Write it; each of its three middle tasks does something more."""
    Path("sums.py").write_text(FLOW.replace("BODY", body))


def a_run(*options: str) -> "subprocess.Popen[bytes]":
    """Start a run of it, which says what it says in `run.log`."""
    with Path("run.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "sums.py", "run", *options], stdout=log, stderr=log, start_new_session=True)


def fields(run: str, kind: str) -> list[dict[str, object]]:
    """What a run's events of a kind say."""
    return [event["fields"] for event in json.loads(evflow("events", run, "--json", "--type", kind).stdout)]
