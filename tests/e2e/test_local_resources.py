"""What steps declare bounds how many of them run at once on this machine."""

from pathlib import Path

from tests.real_runs import python

FLOW = """
import time
from evflow import FlowSpec, resources, step

class Greedy(FlowSpec):
    @step
    def start(self):
        self.xs = [1, 2, 3]
        self.next(self.work, foreach="xs")

    @resources(cpu=4096)
    @step
    def work(self):
        began = time.monotonic()
        time.sleep(0.1)
        self.span = (began, time.monotonic())
        self.next(self.collect)

    @step
    def collect(self, inputs):
        spans = sorted(given.span for given in inputs)
        print("apart:", all(one[1] <= other[0] for one, other in zip(spans, spans[1:])))
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Greedy()
"""


def test_a_step_that_declares_more_cores_than_there_are_runs_alone(tmp_path: Path) -> None:
    """Its tasks run one after the other, though sixteen might run at once."""
    (tmp_path / "greedy.py").write_text(FLOW)
    done = python("greedy.py", "--quiet", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "apart: True" in done.stdout
