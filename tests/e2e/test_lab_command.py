"""`evflow lab` as a user meets it where the flow fails or is none."""

from pathlib import Path

import pytest

from tests.real_runs import evflow

FAILS = """
from evflow import FlowSpec, step

class Fails(FlowSpec):
    @step
    def start(self):
        raise ValueError("no")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Fails()
"""


@pytest.fixture
def fails(tmp_path: Path) -> str:
    """Answer the flow's file."""
    (tmp_path / "fails.py").write_text(FAILS)
    return str(tmp_path / "fails.py")


def test_a_rehearsal_never_waits_for_somebody_who_cannot_come(fails: str) -> None:
    done = evflow("lab", fails, "--seeds", "1", EVFLOW_ON_FAILURE="pause")
    assert done.returncode == 0, done.stderr
    assert "The run failed as it had" in done.stdout


@pytest.mark.parametrize("asked", [["--on-failure", "pause"], ["--on_failure=pause"]])
def test_a_rehearsal_that_would_wait_is_refused(fails: str, asked: list[str]) -> None:
    refused = evflow("lab", fails, "--seeds", "1", "--", *asked)
    assert refused.returncode == 2
    assert "leave --on-failure out" in refused.stderr


def test_a_flow_of_metaflow_s_is_played(fails: str) -> None:
    Path(fails).write_text(FAILS.replace("from evflow", "from metaflow"))
    done = evflow("lab", fails, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "The run failed as it had" in done.stdout


def test_a_file_without_a_flow_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    refused = evflow("lab", str(tmp_path / "empty.py"))
    assert refused.returncode == 1
    assert "A flow's file ends in a call of its class" in refused.stderr
