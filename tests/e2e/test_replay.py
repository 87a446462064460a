"""`evflow replay` on real runs: in a fresh process, with another hash seed, without the flow's code."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

FLOW = """
import os, signal
from evflow import FlowSpec, catch, current, retry, step

class Rebuilt(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.big = bytes(300_000)
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def work(self):
        if self.input == 1 and current.retry_count == 0:
            raise ValueError("not yet")
        if self.input == 2 and current.retry_count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.mine = os.urandom(200_000)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(len(one.mine) for one in inputs)
        self.next(self.risky)

    @catch(var="problem")
    @step
    def risky(self):
        raise RuntimeError("caught")
        self.next(self.end)

    @step
    def end(self):
        print(self.total)

if __name__ == "__main__":
    Rebuilt()
"""


def command(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def replay(*arguments: str, seed: str = "7") -> "subprocess.CompletedProcess[str]":
    """`evflow replay Rebuilt/1`."""
    return command("-m", "evflow.cli", "replay", "Rebuilt/1", *arguments, PYTHONHASHSEED=seed)


@pytest.fixture
def run(evflow_home: Path) -> Path:
    """One finished run whose flow's file is gone; its store's folder."""
    flow = Path.cwd() / "rebuilt.py"
    flow.write_text(textwrap.dedent(FLOW))
    done = command("rebuilt.py", "run", PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    flow.unlink()
    return evflow_home / "store"


def test_a_run_is_told_verified_and_shown_at_any_point_without_its_code(run: Path) -> None:
    """The story, its JSON form, the proof, the state at a position and at an instant."""
    told = replay()
    assert told.returncode == 0, told.stderr
    for sentence in (
        "failed in",
        "ValueError: not yet",
        "was lost: killed (signal 9)",
        "and @catch took it",
        "succeeded after",
        "sealed with",
    ):
        assert sentence in told.stdout

    plain: Any = json.loads(replay("--json").stdout)
    assert plain["status"] == "succeeded"
    assert [entry["seq"] for entry in plain["timeline"]] == sorted(entry["seq"] for entry in plain["timeline"])

    verdicts = [json.loads(replay("--verify", "--json", seed=seed).stdout) for seed in ("0", "99")]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0]["problems"] == []
    assert verdicts[0]["objects"] > 6
    proved = replay("--verify")
    assert proved.returncode == 0
    assert "Rebuilt/1 verified: what its log says is what happened." in proved.stdout

    last = plain["timeline"][-1]["seq"]
    early: Any = json.loads(replay("--at", "3", "--json").stdout)
    assert (early["at"]["seq"], early["status"]) == (3, "running")
    assert [task["step"] for task in early["tasks"]] == ["start"]
    late: Any = json.loads(replay("--at", str(last), "--json").stdout)
    assert late["status"] == "succeeded"
    started = plain["timeline"][0]["at"]
    by_time: Any = json.loads(replay("--at", started, "--json").stdout)
    assert by_time["at"]["seq"] >= 1
    before = replay("--at", "2001-01-01T00:00:00")
    assert before.returncode == 2
    assert "The run began after" in before.stderr
    nonsense = replay("--at", 5000 * "9")
    assert (nonsense.returncode, "is neither a position nor a time" in nonsense.stderr) == (2, True)


def _objects(store: Path) -> list[Path]:
    """The large objects, whose damage is somebody's artifact."""
    return sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size > 150_000)


def test_a_damaged_artifact_is_found_and_its_task_named(run: Path) -> None:
    """One byte of one object; the log alone still verifies."""
    victim = _objects(run)[0]
    victim.chmod(0o600)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    verdict = replay("--verify")
    assert verdict.returncode == 1
    assert "Rebuilt/1 does not verify" in verdict.stdout
    assert "Rebuilt/1/work/" in verdict.stdout
    assert "Traceback" not in verdict.stderr
    assert replay("--verify", "--no-artifacts").returncode == 0


def test_a_missing_artifact_is_found_and_its_task_named(run: Path) -> None:
    """Somebody cleaned up."""
    _objects(run)[0].unlink()
    verdict = replay("--verify", "--json")
    assert verdict.returncode == 1
    problems: Any = json.loads(verdict.stdout)["problems"]
    assert problems
    assert all(problem["check"] == "artifact" and problem["what"].startswith("Rebuilt/1/work/") for problem in problems)


def test_a_run_that_is_not_there_is_said_to_be_so(run: Path) -> None:
    """With those that are."""
    missing = command("-m", "evflow.cli", "replay", "Rebuilt/9", "--verify")
    assert missing.returncode == 1
    assert "There is no run 'Rebuilt/9'." in missing.stderr
    assert "Rebuilt/1" in missing.stderr
