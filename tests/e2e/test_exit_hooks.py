"""Exit hooks of real runs: in a terminal and of a scheduler, also where whoever runs them is killed."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.test_scheduler import WITHIN_S, scheduler
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

FLOW = """
import os, signal, sys, time
from pathlib import Path
from evflow import FlowSpec, Parameter, current, exit_hook, step

HERE = Path(os.environ["HOOKED"])

def note(text):
    with HERE.open("a") as file:
        file.write(text + "\\n")

def good(run):
    note(f"good {run.pathspec} {run.successful} {run.data.x} {current.is_running_flow} {os.getppid() == os.getpid()}")
    while (HERE.parent / "hold").exists():
        time.sleep(0.02)
    note("good done")

async def later():
    note("later")

def broken():
    print("hook prints")
    raise ValueError("hook is broken")

def slow():
    try:
        time.sleep(60)
    finally:
        note("slow")  # now, where no time runs out

def died(run):
    note(f"died {run.successful} {run['start'].task.exception is not None}")

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

@exit_hook(on_success=[good, broken, "later"], on_error=[died])
@exit_hook(on_success=[slow], options={"timeout_s": 0.1})
@exit_hook(on_error=[dies])
class Hooked(FlowSpec):
    fail = Parameter("fail", default=False)

    @step
    def start(self):
        self.x = 1
        if self.fail:
            raise RuntimeError("it fails")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Hooked()
"""
ALL = ["good Hooked/1 True 1 False False", "good done", "later", "slow"]


@pytest.fixture
def file(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOKED", str(root / "hooked"))
    found = root / "hooked.py"
    found.write_text(textwrap.dedent(FLOW))
    return found


def hooked(root: Path) -> list[str]:
    noted = root / "hooked"
    return noted.read_text().splitlines() if noted.exists() else []


def killed(owner: "subprocess.Popen[Any]") -> None:
    """SIGKILL for whoever runs hooks; what it has started follows it in a moment, and is waited for."""
    left = [process for process in psutil.Process(owner.pid).children(recursive=True) if process.name() != "redis-server"]
    assert left
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(left, WITHIN_S)
    assert not alive


def named(run: str, *names: str) -> list[str]:
    done = evflow("events", run)
    return [line for line in done.stdout.splitlines() if any(name in line for name in names)]


def test_hooks_run_once_in_their_order_and_change_nothing_of_the_run(root: Path, file: Path) -> None:
    ran = python(file, "run", cwd=root)
    assert ran.returncode == 0, ran.stderr
    assert hooked(root) == ALL
    assert "hook prints" in ran.stdout
    assert "Exit hook 'broken' failed:" in ran.stdout + ran.stderr
    assert "took longer than 0.1 s" in ran.stdout + ran.stderr
    assert "[exit_hook/0] hook prints" in evflow("logs", "Hooked/1").stdout
    assert "hook prints" not in evflow("logs", "Hooked/1/start").stdout
    assert "succeeded" in evflow("runs").stdout
    story = evflow("replay", "Hooked/1").stdout
    assert "its exit hooks begin: good, broken, later, slow" in story
    assert "an exit hook failed (exit code 1); what the run came to stays" in story
    assert verified("Hooked/1")["exit"] == 0


def test_hooks_of_a_run_that_failed_and_of_a_process_that_dies(root: Path, file: Path) -> None:
    assert python(file, "run", "--fail", "True", cwd=root).returncode == 1
    assert hooked(root) == ["died False True"]
    assert "an exit hook failed (signal 9)" in evflow("replay", "Hooked/1").stdout
    assert verified("Hooked/1")["exit"] == 0


def held(root: Path, file: Path) -> "subprocess.Popen[bytes]":
    """A run whose first hook runs until it may end."""
    (root / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, str(file), "run"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_until(lambda: bool(hooked(root)), "the first hook runs", WITHIN_S)
    return process


def test_a_hook_whose_owner_is_killed_runs_again_when_the_run_is_continued(root: Path, file: Path) -> None:
    process = held(root, file)
    killed(process)
    (root / "hold").unlink()
    done = evflow("continue", "Hooked/1")
    assert done.returncode == 0, done.stderr
    assert hooked(root) == [ALL[0], *ALL]
    assert len(named("Hooked/1", "ExitHookStarted")) == 2
    assert len(named("Hooked/1", "ExitHookEnded")) == 1
    assert verified("Hooked/1")["exit"] == 0


def test_hooks_of_a_flow_that_cannot_be_loaded_any_more_are_over(root: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(file.read_text().replace("HERE = Path(", 'HERE = Path("" if os.environ.get("BROKEN") and 1 / 0 else '))
    assert python(file, "deploy", cwd=root).returncode == 0
    (root / "hold").touch()
    assert evflow("run", "Hooked").returncode == 0
    with scheduler(root) as first:
        wait_until(lambda: bool(hooked(root)), "the first hook runs", WITHIN_S)
        killed(first)
    monkeypatch.setenv("BROKEN", "1")
    with scheduler(root):
        wait_until(lambda: bool(named("Hooked/1", "RunSealed")), "the run is sealed", WITHIN_S)
    assert "division by zero" in evflow("logs", "Hooked/1").stdout
    assert verified("Hooked/1")["exit"] == 0


def test_ctrl_c_ends_hooks_and_not_what_the_run_came_to(root: Path, file: Path) -> None:
    process = held(root, file)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 0
    assert hooked(root) == ALL[:1]
    assert "succeeded" in evflow("runs").stdout
    assert verified("Hooked/1")["exit"] == 0


def test_cancelling_a_run_that_is_over_ends_its_hooks_and_says_what_becomes_of_them(root: Path, file: Path) -> None:
    """In a terminal; where their owner died it says who runs them again, and of a sealed run that nothing was done."""
    process = held(root, file)
    done = evflow("cancel", "Hooked/1")
    assert done.returncode == 1
    assert "Hooked/1 was over before: it succeeded at" in done.stderr
    assert "Its exit hooks went on, and have ended." in done.stderr
    assert process.wait(WITHIN_S) == 0
    assert hooked(root) == ALL[:1]
    assert "Nothing was done." in evflow("cancel", "Hooked/1").stderr
    assert verified("Hooked/1")["exit"] == 0
    (root / "hooked").unlink()
    process = held(root, file)
    killed(process)
    assert json.loads(evflow("cancel", "Hooked/2", "--json").stdout)["exit_hooks"] == "left"
    assert "`evflow continue Hooked/2` runs them again." in evflow("cancel", "Hooked/2").stderr
    (root / "hold").unlink()
    assert evflow("continue", "Hooked/2").returncode == 0


def test_a_run_of_a_scheduler_has_its_hooks_ended_too(root: Path, file: Path) -> None:
    assert python(file, "deploy", cwd=root).returncode == 0
    (root / "hold").touch()
    with scheduler(root):
        assert evflow("run", "Hooked").returncode == 0
        wait_until(lambda: bool(hooked(root)), "the first hook runs", WITHIN_S)
        assert "Its exit hooks went on, and have ended." in evflow("cancel", "Hooked/1").stderr
    assert hooked(root) == ALL[:1]


def test_a_scheduler_runs_them_and_the_next_one_where_it_is_killed(root: Path, file: Path) -> None:
    assert python(file, "deploy", cwd=root).returncode == 0
    (root / "hold").touch()
    assert evflow("run", "Hooked").returncode == 0
    with scheduler(root) as first:
        wait_until(lambda: bool(hooked(root)), "the first hook runs", WITHIN_S)
        killed(first)
    (root / "hold").unlink()
    with scheduler(root):
        wait_until(lambda: bool(named("Hooked/1", "RunSealed")), "the run is sealed", WITHIN_S)
    assert hooked(root) == [ALL[0], *ALL]
    assert verified("Hooked/1")["exit"] == 0
