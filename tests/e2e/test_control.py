"""`evflow pause`, `resume-run`, `retry`, `skip`, `set-priority`: of a run in a terminal, of one that nobody runs, and of a scheduler's."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e.test_cli import evflow
from tests.real_runs import python
from tests.waiting import wait_until

FLOW = """
import os, time
from evflow import FlowSpec, step

class Waits(FlowSpec):
    @step
    def start(self):
        self.before = "start"
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        open(f"began.{self.input}", "a").write("x")
        if self.input == 1 and not os.path.exists("mended"):
            raise ValueError("not mended")
        while self.input == 2 and not os.path.exists("go"):
            time.sleep(0.02)
        self.made = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.made = [getattr(one, "made", None) for one in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Waits()
"""


@contextmanager
def running(*options: str) -> Generator["subprocess.Popen[bytes]"]:
    """A run of the flow in a terminal."""
    Path("waits.py").write_text(textwrap.dedent(FLOW))
    command = [sys.executable, "waits.py", "--quiet", "run", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def shown(what: str = "Waits/1") -> dict[str, Any]:
    done = evflow("show", what, "--json")
    return {"status": "", "steps": {}} if done.returncode else cast("dict[str, Any]", json.loads(done.stdout))


def is_status(status: str) -> None:
    wait_until(lambda: shown()["status"] == status, f"the run is {status}")


def events() -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", json.loads(evflow("events", "Waits/1", "--json").stdout))


def kinds() -> list[str]:
    return [event["type"] for event in events()]


def did(*arguments: str) -> str:
    done = evflow(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(*arguments: str) -> str:
    done = evflow(*arguments)
    assert done.returncode == 1
    return done.stderr


@pytest.fixture(autouse=True)
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_USER", "ada")


def test_what_failed_is_held_tried_again_and_the_run_succeeds() -> None:
    Path("go").touch()
    with running("--on-failure", "pause") as process:
        is_status("paused")
        assert "waits with 1 task that failed (work/3)" in evflow("explain", "Waits/1").stdout
        wait_until(lambda: json.loads(evflow("runs", "--status", "paused", "--json").stdout), "its line says so, a moment later")
        Path("mended").touch()
        assert "Waits/1/work/3 is tried again (attempt 1)." in did("retry", "Waits/1")
        assert process.wait(60) == 0
    assert Path("began.1").read_text() == "xx"
    [asked] = [event for event in events() if event["type"] == "TaskRetryRequested"]
    assert asked["principal"] == "user:ada"
    did("replay", "Waits/1", "--verify")


def test_a_skipped_task_is_marked_everywhere_and_passes_on_what_it_had_got() -> None:
    Path("go").touch()
    with running("--on-failure", "pause") as process:
        is_status("paused")
        assert "Waits/1/work/3 is skipped: the run goes on to join." in did("skip", "Waits/1/work/3", "--reason", "known")
        assert process.wait(60) == 0
    assert "skipped by ada" in evflow("show", "Waits/1").stdout
    assert shown("Waits/1/work/3")["skipped_by"] == "user:ada"
    assert "ada wants it skipped (known)" in evflow("replay", "Waits/1").stdout
    assert "was skipped by ada" in evflow("explain", "Waits/1/work/3").stdout
    script = (
        "from evflow import Run, Task, namespace; namespace(None); task = Task('Waits/1/work/3')\n"
        "print(task.skipped, task.finished, task.successful, task.status, task.data.before, 'made' in task.data, Run('Waits/1').data.made)"
    )
    assert python("-c", script).stdout.strip() == "True True False skipped start False [0, None, 2]"
    did("replay", "Waits/1", "--verify")


def test_a_paused_run_starts_nothing_and_ctrl_c_cancels_it() -> None:
    Path("mended").touch()
    with running("--max-workers", "1") as process:
        wait_until(Path("began.2").exists, "the last member runs")
        assert "1 task that runs goes on" in did("pause", "Waits/1", "--reason", "a look")
        assert "was paused by ada" in evflow("explain", "Waits/1").stdout
        Path("go").touch()
        wait_until(lambda: shown()["steps"].get("join", {}).get("tasks") == 1, "the join waits")
        assert shown("Waits/1/join/5")["status"] == "queued"
        assert "waits for the end of the pause" in evflow("explain", "Waits/1/join").stdout
        assert "cannot be paused: it is paused already, by ada." in refused("pause", "Waits/1")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    assert shown()["status"] == "cancelled"
    assert "TaskLaunched" not in kinds()[kinds().index("RunPauseRequested") :]
    assert "the run is over: it was cancelled" in refused("resume-run", "Waits/1")


def test_a_run_whose_process_died_is_acted_on_by_the_command_and_goes_on_so() -> None:
    with running("--on-failure", "pause") as process:
        wait_until(lambda: shown()["steps"].get("work", {}).get("failed") == 1, "one member has failed")
        process.kill()
        process.wait()
        assert "Nobody runs Waits/1 at present" in did("skip", "Waits/1/work/3")
        did("set-priority", "Waits/1", "4")
        did("pause", "Waits/1")
    assert shown()["status"] == "interrupted"
    assert (shown()["priority"], shown("Waits/1/work/3")["status"]) == (4, "skipped")
    did("unpause", "Waits/1")
    Path("go").touch()
    did("continue", "Waits/1", "--quiet")
    assert shown()["status"] == "succeeded"
    did("replay", "Waits/1", "--verify")


def test_what_cannot_be_is_said_before_anything_is_reported() -> None:
    Path("go").touch()
    with running("--on-failure", "pause") as process:
        is_status("paused")
        before = len(events())
        assert "nobody paused it: it waits for what failed, work/3" in refused("resume-run", "Waits/1")
        assert "'Waits/1/work/2' cannot be tried again: it succeeded." in refused("retry", "Waits/1/work/2")
        assert "'Waits/1/start/1' cannot be skipped: it succeeded." in refused("skip", "Waits/1/start/1")
        assert "does not lead to 'end'; it leads to join" in refused("skip", "Waits/1/work/3", "--to", "end")
        assert "No task of 'Waits/1/join' has failed" in refused("retry", "Waits/1/join")
        assert "Name the task" in evflow("skip", "Waits/1").stderr
        assert "A run is named with its number: Waits/1." in refused("pause", "Waits")
        assert len(events()) == before
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert "resume --origin-run-id 1" in refused("retry", "Waits/1")


def test_a_number_below_zero_is_a_number_and_no_option() -> None:
    Path("go").touch()
    with running("--on-failure", "pause") as process:
        is_status("paused")
        did("set-priority", "Waits/1", "-5", "--json")
        assert shown()["priority"] == -5
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert json.loads(evflow("limits", "set", "flow:Waits", "2", "--json").stdout) == {
        "limit": "flow:Waits",
        "operator": 2,
        "held": 0,
        "holders": [],
    }
    assert json.loads(evflow("limits", "unset", "flow:Waits", "--json").stdout)["operator"] is None
    wrong = evflow("limits", "set", "flow:Waits", "-1")
    assert wrong.returncode == 2
    assert "-1 is not in the range" in wrong.stderr
    assert "cannot be given another priority" in refused("set-priority", "Waits/1", "-1000000")
