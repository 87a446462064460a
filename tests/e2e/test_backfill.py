"""Backfills as their users have them: commands, real schedulers, one of which is killed."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from evflow.cli.complete import of_backfills
from tests.e2e.test_scheduler import WITHIN_S, owned_by, scheduler, told
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

FLOW = """
import os, time
from evflow import FlowSpec, Parameter, current, schedule, step

@schedule(cron="30 2 * * *", timezone="Europe/Berlin")
class Daily(FlowSpec):
    day = Parameter("day", default="none")
    said = Parameter("said", default="")

    @step
    def start(self):
        if self.said:
            with open(os.path.join(self.said, current.trigger["tick"][:10]), "a") as file:
                file.write(f"{current.run_id}\\n")
            time.sleep(0.05)
        self.next(self.end)

    @step
    def end(self):
        assert self.day in ("none", current.trigger["tick"][:10]), self.day
        assert self.day != "2026-10-03"

if __name__ == "__main__":
    Daily()
"""


@pytest.fixture(autouse=True)
def _deployed(root: Path) -> None:
    folder = root / "flows"
    folder.mkdir()
    (folder / "daily.py").write_text(textwrap.dedent(FLOW))
    done = python("daily.py", "deploy", cwd=folder)
    assert done.returncode == 0, done.stderr


def backfill(*words: str, code: int = 0) -> Any:
    done = evflow("backfill", "Daily", *words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_backfill_runs_each_tick_with_its_day_and_tells_of_failures(root: Path) -> None:
    dry = backfill("--from", "2026-10-01", "--to", "2026-10-05", "--dry-run")
    assert [tick["tick"][:10] for tick in dry["ticks"]] == [f"2026-10-0{day}" for day in (1, 2, 3, 4, 5)]
    assert evflow("backfills", "--json").stdout.strip() == "[]"
    with scheduler(root):
        found = backfill("--from", "2026-10-01", "--to", "2026-10-05", "--max-parallel", "2", "--param", "day={date}", "--follow", code=1)
        assert (found["status"], found["succeeded"], found["failed"]) == ("done", 4, 1)
        again = backfill("--from", "2026-10-01", "--to", "2026-10-06", "--follow")
        assert (again["succeeded"], again["skipped"]) == (2, 4)
    runs = told("backfills", "Daily/b2")["runs"]
    assert [(run["tick"][:10], run["status"]) for run in runs] == [("2026-10-03", "succeeded"), ("2026-10-06", "succeeded")]
    assert evflow("backfills", "Daily/b1", "--follow").returncode == 1
    lines = evflow("backfills").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["Daily/b2", "Daily/b1"]
    assert verified("Daily/3")["problems"] == []


def test_a_backfill_is_meant_or_nothing_is_asked_for() -> None:
    done = evflow("backfill", "Daily", "--from", "2026-10-01", "--to", "2026-10-05")
    assert done.returncode == 2
    assert "Usage: evflow backfill [OPTIONS] DEPLOYMENT" in done.stderr
    assert "5 runs for 5 ticks from 2026-10-01T02:30:00+02:00 to 2026-10-05T02:30:00+02:00, 1 at a time." in done.stderr
    assert "Say --yes" in done.stderr
    assert evflow("backfills", "--json").stdout.strip() == "[]"
    refused = evflow("backfill", "Daily", "--from", "2020-01-01", "--to", "2026-10-05", "--yes")
    assert "has 2,470 ticks" in refused.stderr
    assert "`--most 2470` allows it." in refused.stderr
    waits = evflow("backfill", "Daily", "--from", "2026-10-01", "--to", "2026-10-05", "--yes")
    assert (waits.stdout, waits.returncode) == ("Daily/b1\n", 0)
    assert "`evflow scheduler` starts one" in waits.stderr
    completed: Any = of_backfills()
    assert [item.value for item in completed(None, None, "Da")] == ["Daily/b1"]
    cancelled = evflow("backfill", "cancel", "Daily/b1")
    assert "Daily/b1 is cancelled: no more runs are asked for." in cancelled.stderr
    assert "There are: Daily/b1." in evflow("backfill", "cancel", "Daily/b7").stderr


def test_a_backfill_survives_a_killed_scheduler_and_runs_each_tick_once(root: Path) -> None:
    said = root / "said"
    said.mkdir()
    with scheduler(root) as first, scheduler(root, shards=4) as second:
        asked = backfill(
            "--from", "2026-06-01", "--to", "2026-07-10", "--max-parallel", "4", "--param", f"said={said}", "--param", "day={date}"
        )
        wait_until(lambda: len(list(said.iterdir())) > 5, "some ticks are run", WITHIN_S)
        looks_after = first if len(told("scheduler", "status")["schedulers"]) and owned_by(first.pid) else second
        looks_after.kill()
        looks_after.wait()
        other = second if looks_after is first else first
        wait_until(lambda: owned_by(other.pid) == 8, "the other one owns all shards", WITHIN_S)
        assert evflow("backfills", asked["backfill"], "--follow").returncode == 0
    runs = told("backfills", asked["backfill"])["runs"]
    ticks = [run["tick"][:10] for run in runs]
    assert (len(ticks), ticks) == (40, sorted(set(ticks)))
    assert {run["status"] for run in runs} == {"succeeded"}
    for run in runs:
        numbers = set((said / run["tick"][:10]).read_text().split())
        assert numbers == {run["run"].partition("/")[2]}, "no other run had this tick"


def test_a_cancelled_backfill_ends_with_its_runs(root: Path) -> None:
    with scheduler(root):
        name = backfill("--from", "2026-01-01", "--to", "2026-10-05", "--most", "400")["backfill"]
        wait_until(lambda: told("backfills", name)["asked"] > 1, "it has begun", WITHIN_S)
        assert evflow("backfill", "cancel", name, "--runs").returncode == 0
        assert evflow("backfills", name, "--follow").returncode == 1
    found = told("backfills", name)
    assert (found["status"], found["running"], found["cancelled_by"]) == ("cancelled", 0, found["by"])
    assert found["asked"] < 100
