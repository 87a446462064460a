"""`evflow cancel`: of a run that lives, and of one that nobody runs any more."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import redis
from click.testing import CliRunner

from evflow.cli.control import cancel_command
from evflow.core.state import RunState
from evflow.log.protocol import LeaseHeld, RunEntry
from evflow_scheduler.cancel import end_ownerless
from tests.e2e.test_cli import evflow
from tests.real_runs import open_log, run_id
from tests.waiting import gone, wait_until

FLOW = """
import os, time
from evflow import FlowSpec, catch, retry, step

class Waits(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @retry(times=2)
    @catch(var="problem")
    @step
    def work(self):
        if self.input:
            open(f"pid.{self.input}", "w").write(str(os.getpid()))
            while not os.path.exists("go"):
                time.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Waits()
"""


@contextmanager
def running() -> Generator["subprocess.Popen[bytes]"]:
    """A run of which one member is done and two are at work."""
    Path("waits.py").write_text(textwrap.dedent(FLOW))
    process = subprocess.Popen([sys.executable, "waits.py", "--quiet", "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(map(pid_of, (1, 2))), "two members are at work")
        wait_until(lambda: task("Waits/1/work/2")["status"] == "succeeded", "one member is done")
        yield process
    finally:
        process.kill()
        process.wait()


def pid_of(item: int) -> int:
    """The process of a member's body; 0 before it has said so."""
    file = Path(f"pid.{item}")
    return int(file.read_text() or 0) if file.exists() else 0


def task(name: str) -> dict[str, Any]:
    shown = evflow("show", name, "--json")
    return {"status": ""} if shown.returncode else json.loads(shown.stdout)


def events() -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", json.loads(evflow("events", "Waits/1", "--json").stdout))


def the_bodies_are_gone() -> bool:
    return not any(map(lives, (1, 2)))


def lives(item: int) -> bool:
    """Whether a member's body does; that of an owner that was killed is a dead process until its new parent has heard of its end."""
    try:
        return not gone(psutil.Process(pid_of(item)))
    except psutil.NoSuchProcess:
        return False


def verified() -> bool:
    done = evflow("replay", "Waits/1", "--verify", "--json")
    return done.returncode == 0 and json.loads(done.stdout)["ok"]


def the_log_tells_one_cancellation_by_me() -> None:
    log = events()
    kinds = [event["type"] for event in log]
    [asked] = [event for event in log if event["type"] == "RunCancelRequested"]
    assert asked["principal"] == "user:ada"
    assert asked["fields"]["reason"] == "enough"
    assert kinds.count("RunCancelled") == 1
    assert kinds[-1] == "RunSealed"
    assert "RetryScheduled" not in kinds
    assert not any(event["fields"].get("caught") for event in log)


@pytest.fixture(autouse=True)
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_USER", "ada")


def test_a_run_that_lives_is_ended_by_its_owner_and_cancel_waits_for_that() -> None:
    with running() as process:
        done = evflow("cancel", "Waits/1", "--reason", "enough")
        assert done.returncode == 0, done.stderr
        assert "Waits/1 cancelled at" in done.stderr
        assert process.wait(60) == 1
    assert the_bodies_are_gone()
    the_log_tells_one_cancellation_by_me()
    assert "RunContinued" not in [event["type"] for event in events()]
    assert verified()


def test_by_force_what_runs_is_killed_at_once_and_asked_once() -> None:
    with running() as process:
        for item in (1, 2):
            psutil.Process(pid_of(item)).suspend()  # deaf to SIGTERM
        assert evflow("cancel", "Waits/1", "--force", "--reason", "enough").returncode == 0
        assert process.wait(60) == 1
    assert the_bodies_are_gone()
    the_log_tells_one_cancellation_by_me()
    ends = [event["fields"] for event in events() if event["type"] == "AttemptCancelRequested"]
    assert [(end["task"], end["reason"]) for end in ends] == [(3, "killed"), (4, "killed")]


def test_without_waiting_cancel_only_asks(evflow_home: Path) -> None:
    with running() as process, open_log(evflow_home) as log:
        process.send_signal(signal.SIGSTOP)
        with log.lease_kept(run_id("Waits")):
            done = evflow("cancel", "Waits/1", "--no-wait", "--reason", "enough", "--json")
        assert json.loads(done.stdout) == {"run": "Waits/1", "status": "running", "over": False, "was_over": False}
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 1
    the_log_tells_one_cancellation_by_me()


def test_a_run_whose_process_was_killed_is_ended_by_the_command_itself() -> None:
    with running() as process:
        process.kill()
        process.wait()
        done = evflow("cancel", "Waits/1", "--reason", "enough")
    assert done.returncode == 0, done.stderr
    assert "Waits/1 cancelled at" in done.stderr
    assert the_bodies_are_gone()
    the_log_tells_one_cancellation_by_me()
    assert "RunContinued" in [event["type"] for event in events()]
    assert task("Waits/1/work/2")["status"] == "succeeded"
    assert verified()
    assert json.loads(evflow("runs", "--json").stdout)[0]["status"] == "cancelled"


def test_what_a_dead_owners_attempts_left_running_is_ended_too() -> None:
    with running() as process:
        children = psutil.Process(process.pid).children(recursive=True)
        stopped = [child for child in children if child.pid in {pid_of(1), pid_of(2)}]
        for child in stopped:
            child.suspend()
        process.kill()
        process.wait()
        assert evflow("cancel", "Waits/1", "--reason", "enough").returncode == 0
    assert the_bodies_are_gone()
    the_log_tells_one_cancellation_by_me()


def test_an_owner_that_dies_while_cancel_waits_for_it_is_stood_in_for(evflow_home: Path) -> None:
    with running() as process, open_log(evflow_home) as log:
        process.send_signal(signal.SIGSTOP)
        with log.lease_kept(run_id("Waits")):
            asks = subprocess.Popen([sys.executable, "-m", "evflow.cli", "cancel", "Waits/1", "--reason", "enough"], stderr=subprocess.PIPE)
            try:
                wait_until(waiting_reports, "the request is made")
                process.kill()
                process.wait()
                _, told = asks.communicate(timeout=60)
            finally:
                asks.kill()
                asks.wait()
    assert asks.returncode == 0, told
    assert b"Waits/1 cancelled at" in told
    the_log_tells_one_cancellation_by_me()


def test_cancel_that_another_owner_beats_to_it_waits_for_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten(entry: RunEntry, host: str) -> RunState:
        end_ownerless(entry, host)
        raise LeaseHeld(entry.shard, f"{host}:{os.getpid()}", 15.0)

    with running() as process:
        process.kill()
        process.wait()
        monkeypatch.setattr("evflow_scheduler.cancel.end_ownerless", beaten)
        done = CliRunner().invoke(cancel_command, ["Waits/1", "--reason", "enough"])
    assert done.exit_code == 0, done.output
    assert "Waits/1 cancelled at" in done.stderr
    the_log_tells_one_cancellation_by_me()


def waiting_reports() -> int:
    """How many reports lie in the run's inbox."""
    url = json.loads(evflow("server", "status", "--json").stdout)["url"]
    with redis.Redis.from_url(url) as server:
        return int(server.xlen("{evflow:run:Waits:1}:inbox"))


def test_a_run_that_nobody_ran_for_long_can_be_cancelled_after_its_lease_ended(evflow_home: Path) -> None:
    with running() as process:
        process.kill()
        process.wait()
        with open_log(evflow_home) as log:
            wait_until(lambda: log.client.owner("run:Waits:1") is None, "the lease is over", 60)
        assert evflow("cancel", "Waits/1", "--reason", "enough").returncode == 0
    the_log_tells_one_cancellation_by_me()


def test_a_cancelled_run_is_not_cancelled_again() -> None:
    with running() as process:
        process.kill()
        process.wait()
        assert evflow("cancel", "Waits/1", "--reason", "enough").returncode == 0
        before = len(events())
        done = evflow("cancel", "Waits/1", "--reason", "once more")
    assert done.returncode == 0
    assert "Waits/1 was over before: it was cancelled at" in done.stderr
    assert len(events()) == before
