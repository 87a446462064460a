"""Archiving as a user sees it: real runs, a real scheduler, everything readable before and after."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.keys import own_shard, run_keys
from evflow.log.wire import Wire
from tests.real_runs import evflow, open_log, python, verified
from tests.waiting import wait_until

FLOW = """
from evflow import FlowSpec, Parameter, step

class Kept(FlowSpec):
    size = Parameter("size", default=2)

    @step
    def start(self):
        self.items = list(range(self.size))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("work", self.input)
        self.square = self.input ** 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.squares = [one.square for one in inputs]
        self.next(self.end)

    @step
    def end(self):
        if self.size > 100:
            raise ValueError("too large")

if __name__ == "__main__":
    Kept()
"""


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """Answer the flow's file."""
    file = tmp_path / "kept.py"
    file.write_text(textwrap.dedent(FLOW))
    return file


def ran(flow: Path, *arguments: str) -> None:
    done = python(flow, "run", *arguments)
    assert done.returncode == 0, done.stderr


def said(*arguments: str, code: int = 0) -> Any:
    done = evflow(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


QUESTIONS = (
    ("show", "Kept/1"),
    ("show", "Kept/1/work"),
    ("logs", "Kept/1"),
    ("events", "Kept/1"),
    ("dump", "Kept/1/join"),
    ("explain", "Kept/1"),
    ("replay", "Kept/1"),
    ("replay", "Kept/1", "--at", "12"),
    ("replay", "Kept/1", "--verify"),
    ("runs",),
    ("tag", "list", "Kept/1"),
)


def answers() -> dict[tuple[str, ...], Any]:
    return {question: said(*question) for question in QUESTIONS}


def test_every_command_answers_the_same_before_and_after(flow: Path, evflow_home: Path) -> None:
    ran(flow, "--tag", "first")
    evflow("tag", "add", "Kept/1", "later")
    before = answers()
    (archived,) = said("archive", "Kept/1", "--hot-for", "0")["runs"]
    assert (archived["archived_now"], archived["at_server"]) == (True, False)
    with open_log(evflow_home) as log:
        wire = Wire.connect(log.url)
        assert (
            wire.call("EXISTS", run_keys(own_shard(RunId(FlowName("Kept"), RunNumber(1))), RunId(FlowName("Kept"), RunNumber(1))).stream)
            == 0
        )
        wire.close()
    assert answers() == before
    resumed = python(flow, "resume", "--origin-run-id", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert said("cancel", "Kept/1", code=1) == {"run": "Kept/1", "status": "succeeded", "over": True, "was_over": True}


def test_the_python_client_answers_from_an_archive(flow: Path) -> None:
    ran(flow)
    said("archive", "--all", "--hot-for", "0")
    shown = python("-c", "from evflow import Run; r = Run('Kept/1'); print(r.successful, r.data.squares, r['work'].task.stdout.strip())")
    assert shown.stdout.strip() in ("True [0, 1] work 1", "True [0, 1] work 0"), shown.stderr


def test_a_run_that_is_archived_while_it_is_followed_is_followed_to_its_end(flow: Path) -> None:
    ran(flow)
    whole = said("events", "Kept/1")
    with subprocess.Popen(
        [sys.executable, "-m", "evflow.cli", "events", "Kept/1", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as following:
        said("archive", "Kept/1", "--hot-for", "0")
        output, _ = following.communicate(timeout=60)
    assert [json.loads(line) for line in output.splitlines()] == whole


def test_a_dry_run_changes_nothing(flow: Path, evflow_home: Path) -> None:
    ran(flow)
    planned = said("archive", "--all", "--hot-for", "0", "--dry-run")
    assert [(run["run"], run["archived_now"], run["at_server"]) for run in planned["runs"]] == [("Kept/1", True, False)]
    assert not (evflow_home / "store" / "named" / "archives").exists()
    assert [run["archived_now"] for run in said("archive", "--all")["runs"]] == [True]
    assert [run["archived_now"] for run in said("archive", "--all")["runs"]] == [False]


def test_a_missing_archive_is_said_by_every_command_that_needs_it(flow: Path, evflow_home: Path) -> None:
    ran(flow)
    said("archive", "Kept/1", "--hot-for", "0")
    (archive,) = [path for path in (evflow_home / "store" / "named" / "archives").rglob("*") if path.is_file()]
    archive.unlink()
    for command in ("show", "logs", "events", "replay", "dump"):
        failed = evflow(command, "Kept/1")
        assert failed.returncode == 1
        assert str(archive) in failed.stderr
        assert "Restore it" in failed.stderr
    assert evflow("runs").returncode == 0


@pytest.mark.parametrize("arguments", [(), ("Kept/1", "--all"), ("--all", "--hot-for", "soon"), ("Kept/9",), ("--flow", "None")])
def test_what_makes_no_sense_is_said(flow: Path, arguments: tuple[str, ...]) -> None:
    ran(flow)
    refused = evflow("archive", *arguments)
    assert refused.returncode in (1, 2)
    assert refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_log_that_has_no_runs_has_nothing_to_archive() -> None:
    assert evflow("archive", "--all").returncode == 0


def test_a_scheduler_archives_what_ends_in_the_foreground_too(flow: Path, evflow_home: Path) -> None:
    ran(flow)
    with (
        (flow.parent / "said").open("wb") as said,  # a pipe that nobody reads would be full before long, and the scheduler wait
        subprocess.Popen(
            [sys.executable, "-m", "evflow.cli", "scheduler", "--hot-for", "0", "--log-level", "debug"],
            stdin=subprocess.DEVNULL,
            stderr=said,
        ) as scheduler,
    ):
        try:
            with open_log(evflow_home) as log:
                wire = Wire.connect(log.url)
                run = RunId(FlowName("Kept"), RunNumber(1))
                wait_until(lambda: wire.call("EXISTS", run_keys(own_shard(run), run).stream) == 0, "the log has left the server")
                wire.close()
        finally:
            scheduler.terminate()
            scheduler.wait(60)
    assert verified("Kept/1")["ok"]


# --- forget, gc, reindex ----------------------------------------------------------------------------------


def grow_old(home: Path) -> None:
    """Let everything in the store be three days old."""
    when = time.time() - 3 * 86_400
    for path in (home / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (when, when))


def test_runs_go_on_and_are_readable_beside_a_collection(flow: Path, evflow_home: Path) -> None:
    for _ in range(2):
        ran(flow)
    grow_old(evflow_home)
    with subprocess.Popen(
        [sys.executable, str(flow), "run", "--size", "30"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while run.poll() is None:
            assert said("gc")["objects"]["removed"] == 0
    assert run.returncode == 0
    assert all(verified(f"Kept/{number}")["ok"] for number in (1, 2, 3))


def test_a_rule_forgets_old_runs_after_a_yes(flow: Path, evflow_home: Path) -> None:
    for _ in range(3):
        ran(flow)
    refused = evflow("gc", "--keep-last", "1")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert said("gc", "--keep-last", "1", "--dry-run")["forgotten"] == ["Kept/1", "Kept/2"]
    assert [run["run"] for run in said("runs")] == ["Kept/3", "Kept/2", "Kept/1"]
    assert said("gc", "--keep-last", "1", "--yes")["forgotten"] == ["Kept/1", "Kept/2"]
    assert [run["run"] for run in said("runs")] == ["Kept/3"]
    assert evflow("show", "Kept/1").returncode == 1
    ran(flow)
    assert [run["run"] for run in said("runs")] == ["Kept/4", "Kept/3"]
    assert not any(said("reindex")[0]["changed"].values())


def test_a_run_is_forgotten_by_name(flow: Path) -> None:
    ran(flow)
    assert evflow("forget", "Kept/1").returncode == 1
    assert evflow("forget", "Kept/2", "--yes").returncode == 1
    assert said("forget", "Kept/1", "--reason", "a mistake", "--yes") == {"forgotten": ["Kept/1"]}
    assert said("runs") == []


@pytest.mark.parametrize("part", ["Kept/1/start", "Kept/1/start/1", "Kept/1/1"])
@pytest.mark.parametrize("command", [("forget", "--yes"), ("archive",)])
def test_what_is_done_to_whole_runs_is_not_done_for_the_name_of_a_task(flow: Path, command: tuple[str, ...], part: str) -> None:
    ran(flow)
    refused = evflow(*command, part)
    assert refused.returncode == 1
    assert f"'{part}' is a part of 'Kept/1'" in refused.stderr
    assert [run["run"] for run in said("runs")] == ["Kept/1"]


def test_a_log_that_does_not_use_the_store_is_retired_with_a_note(flow: Path) -> None:
    ran(flow)
    for wrong in ("nope", ""):
        done = evflow("gc", "--retire", wrong)
        assert done.returncode == 0
        assert f"No log with the id '{wrong}' uses this store." in done.stderr


def test_who_cannot_be_asked_is_told_the_question(flow: Path) -> None:
    ran(flow)
    assert "There is no terminal to ask: Forget Kept/1 for ever? Nothing was changed." in evflow("forget", "Kept/1").stderr


@pytest.mark.parametrize(
    "arguments", [("--grace", "1m"), ("--grace", "x"), ("--flow", "Kept"), ("--keep-last", "-1"), ("--keep-last", "1", "--flow", "None")]
)
def test_what_makes_no_sense_to_a_collection_is_said(flow: Path, arguments: tuple[str, ...]) -> None:
    ran(flow)
    refused = evflow("gc", *arguments)
    assert (refused.returncode in (1, 2), "Traceback" in refused.stderr) == (True, False)


def test_after_the_server_lost_everything_history_is_there_and_numbers_go_on(flow: Path, evflow_home: Path) -> None:
    for _ in range(2):
        ran(flow)
    said("archive", "--all", "--hot-for", "0")
    before = {question: said(*question) for question in QUESTIONS}
    with open_log(evflow_home) as log:
        wire = Wire.connect(log.url)
        wire.call("FLUSHALL")
        wire.close()
    ran(flow)
    assert [run["run"] for run in said("runs")] == ["Kept/3"]
    (found,) = said("reindex")
    assert (found["runs"]["archived"], found["changed"]["archives"], found["unreadable"]) == (2, 2, [])
    assert [run["run"] for run in said("runs")] == ["Kept/3", "Kept/2", "Kept/1"]
    before.pop(("runs",))
    assert {question: said(*question) for question in before} == before
    said("gc")
