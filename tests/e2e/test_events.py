"""Events that are published, and the runs that they start: real processes, one log."""

import json
import signal
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_scheduler import ended, scheduler
from tests.e2e.test_scheduler_http import address
from tests.real_runs import evflow, python
from tests.waiting import wait_until

WITHIN_S = 60.0
SCORE = """
import evflow
from evflow import FlowSpec, Parameter, current, step, trigger

@trigger(event="data.ready", parameters=["day"], filter={"rows": {">": 0}})
class Score(FlowSpec):
    day = Parameter("day", type=str, required=True)

    @step
    def start(self):
        self.trigger = current.trigger
        print("scoring", self.day, current.trigger.event.id)
        evflow.publish_event("scored", {"day": self.day}, id=f"scored/{self.day}")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Score()
"""
REPORT = """
from evflow import FlowSpec, Parameter, current, step, trigger, trigger_on_finish

@trigger(event="scored", debounce=0.3)
@trigger_on_finish(flow="Score")
class Report(FlowSpec):
    @step
    def start(self):
        run = current.trigger.run
        print("because of", run.pathspec if run else current.trigger["scored"].id)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Report()
"""


@pytest.fixture
def deployed(root: Path) -> Path:
    """Answer a folder whose two flows are deployed."""
    for name, text in (("score", SCORE), ("report", REPORT)):
        (root / f"{name}.py").write_text(text)
        done = python(f"{name}.py", "deploy", cwd=root)
        assert done.returncode == 0, done.stderr
    return root


def told(*arguments: str) -> Any:
    done = evflow(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def publish(day: str, rows: int = 1) -> bool:
    """Publish that a day's data is there; answers whether it is news."""
    return bool(
        told("event", "publish", "data.ready", "--id", f"data/{day}", "--payload", json.dumps({"day": day, "rows": rows}))["is_new"]
    )


def runs() -> set[str]:
    return {one["run"] for one in told("runs")}


def test_an_event_starts_a_run_which_starts_others_and_each_can_say_why(deployed: Path, root: Path) -> None:
    with scheduler(root):
        assert publish("monday")
        assert not publish("monday")
        publish("tuesday", rows=0)
        wait_until(lambda: runs() == {"Score/1", "Report/1", "Report/2"}, "all runs are asked for", WITHIN_S)
        assert {ended(run) for run in runs()} == {"succeeded"}
        assert "scoring monday data/monday" in evflow("logs", "Score/1").stdout
        said = evflow("logs", "Report/1").stdout + evflow("logs", "Report/2").stdout
        assert "because of Score/1" in said
        assert "because of scored/monday" in said
        why = told("why", "Score/1")
        assert why["parameters"] == {"day": "monday"}
        assert [(one["id"], one["payload"]) for one in why["chain"]] == [("data/monday", {"day": "monday", "rows": 1})]
        at = why["at"]
        entries = told("why-not", "Score", "--at", at, "--for", "10m")["entries"]
        assert [(one["id"], one["outcome"], one["reason"]) for one in entries if one["what"] == "event"] == [
            ("data/monday", "started", "event"), ("data/tuesday", "not-wanted", "rows is 0, wanted > 0"),
        ]  # fmt: skip
        (monday,) = [one["at"] for one in entries if one["id"] == "data/monday"]
        nearest = evflow("why-not", "Score", "--at", monday, "--for", "10m", "--most", "1").stdout
        assert "data/monday" in nearest
        assert "data/tuesday" not in nearest
        assert f"Those are the 1 nearest of {len(entries)}: --most shows more" in nearest


def test_events_that_come_while_no_scheduler_lives_are_not_lost(deployed: Path, root: Path) -> None:
    with scheduler(root) as first:
        publish("monday")
        wait_until(lambda: "Score/1" in runs(), "the first event is decided", WITHIN_S)
        first.send_signal(signal.SIGKILL)
        first.wait()
    publish("tuesday")
    alone = "Some is not decided: no scheduler is alive. `evflow scheduler` starts one."
    wait_until(
        lambda: alone in told("why-not", "Score", "--at", "12:00", "--for", "1d")["notes"], "it is told that nobody is there", WITHIN_S
    )
    with scheduler(root):
        wait_until(lambda: "Score/2" in runs(), "the second event is decided", WITHIN_S)
        assert ended("Score/2") == "succeeded"
        assert ended("Score/1") == "succeeded"
    assert {"Score/1", "Score/2"} == {run for run in runs() if run.startswith("Score")}


def test_what_cannot_be_published_says_what_to_do() -> None:
    bad = evflow("event", "publish", "data", "--payload", "{")
    assert bad.returncode == 2
    assert "it is no JSON" in bad.stderr
    assert evflow("event", "publish", "a b").returncode == 1
    assert "published by evflow alone" in evflow("event", "publish", "evflow.finished.X").stderr
    assert evflow("event", "list", "--json").stdout.strip() == "[]"


def test_a_trigger_with_a_mistake_is_told_with_its_line(root: Path) -> None:
    (root / "score.py").write_text(SCORE.replace('["day"]', '["dya"]'))
    done = python("score.py", "check", cwd=root)
    assert done.returncode == 1
    assert "score.py:5: @trigger: Flow Score has no parameter 'dya'. It has: day. Did you mean 'day'?" in done.stderr
    (root / "score.py").write_text(SCORE.replace('parameters=["day"], ', ""))
    done = python("score.py", "deploy", cwd=root)
    assert done.returncode == 1
    assert "'Score' is triggered by 'data.ready', and a parameter without a default gets no value from it: 'day'." in done.stderr


def test_an_event_over_http_starts_a_run_and_its_key_makes_it_one(deployed: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_HTTP_TOKEN", "letmein")
    with scheduler(root, "--http", "0"):
        statuses = [post(root, "/events/data.ready", b'{"day": "monday", "rows": 1}', token) for token in ("letmein", "letmein", "guess")]
        assert statuses == [202, 200, 401]
        wait_until(lambda: "Score/1" in runs(), "the run is asked for", WITHIN_S)
        assert ended("Score/1") == "succeeded"
    assert told("why", "Score/1")["chain"][0]["reason"] == "http, http"
    assert "letmein" not in evflow("config").stdout


def post(root: Path, path: str, body: bytes, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k1"}
    request = urllib.request.Request(f"http://{address(root)}{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_payload_that_is_nested_too_deeply_is_refused(root: Path) -> None:
    (root / "deep.json").write_text("[" * 100_000)
    bad = evflow("event", "publish", "data", "--payload", f"@{root / 'deep.json'}")
    assert bad.returncode == 2
    assert "nested too deeply" in bad.stderr


def test_why_of_a_run_that_is_not_there_says_so(deployed: Path) -> None:
    bad = evflow("why", "Score/99")
    assert bad.returncode == 1
    assert "There is no run 'Score/99'." in bad.stderr


def test_why_of_a_backfill_s_run_names_the_backfill_and_the_tick(root: Path) -> None:
    hour = (datetime.now(UTC).hour + 12) % 24  # so that no tick comes meanwhile
    (root / "daily.py").write_text(
        "from evflow import FlowSpec, schedule, step\n\n"
        f"@schedule(cron='30 {hour} * * *')\nclass Daily(FlowSpec):\n"
        "    @step\n    def start(self):\n        self.next(self.end)\n\n    @step\n    def end(self):\n        pass\n\n"
        "if __name__ == '__main__':\n    Daily()\n"
    )
    assert python("daily.py", "deploy", cwd=root).returncode == 0
    assert evflow("backfill", "Daily", "--from", "2026-03-27", "--to", "2026-03-27", "--yes").returncode == 0
    with scheduler(root):
        wait_until(lambda: "Daily/1" in runs(), "the run is asked for", WITHIN_S)
        assert ended("Daily/1") == "succeeded"
    said = evflow("why", "Daily/1").stdout
    assert f"was started by the backfill Daily/b1, for the tick of 2026-03-27T{hour:02}:30:00" in said


@pytest.mark.parametrize("at", ["0001-01-01", "9999-12-31", "1900-01-01"])
def test_a_time_that_is_too_far_away_is_refused(deployed: Path, at: str) -> None:
    bad = evflow("why-not", "Score", "--at", at)
    assert bad.returncode == 2
    assert "--at" in bad.stderr


def test_why_not_over_all_time_is_answered(deployed: Path) -> None:
    assert told("why-not", "Score", "--at", "12:00", "--for", "10000000d")["from"].startswith("1970")


def test_why_not_of_what_never_was_deployed_says_what_is(deployed: Path) -> None:
    for what, said in (("Nope", "'Nope' is not deployed."), ("Score:nope", "'Score' has no deployment 'nope'.")):
        bad = evflow("why-not", what, "--at", "12:00")
        assert bad.returncode == 1
        assert said in bad.stderr


def test_why_not_of_a_time_before_the_deployment_names_that_time(deployed: Path) -> None:
    said = evflow("why-not", "Score", "--at", "2020-01-01 02:00").stdout
    assert "Score was not deployed at 2020-01-01 02:00:00." in said
