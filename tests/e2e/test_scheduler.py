"""Deployed flows, and the schedulers that carry their runs out: real processes, one log."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from evflow.core import flow_events, versions
from evflow.core.deployments import pack, tick_of
from evflow.core.flow_events import FlowUnpaused, RunRequested, ScheduleTicked
from evflow.core.ids import FlowName, RunId
from evflow.deployments.beginning import take_number
from evflow.deployments.catalog import deployed
from evflow.deployments.request import Asked, make_ready
from evflow.log import connect
from evflow.log.keys import shared_shard
from evflow.log.protocol import DeploymentChange
from evflow.log.shard_sets import announced
from evflow.store import open_store
from evflow_scheduler.daemon import LEASE_S
from tests.real_runs import evflow, open_log, python, verified
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

WITHIN_S = 60.0
RIVAL = announced("elsewhere:1:2:3", (), versions.shown(versions.GENERATION))
"""A scheduler of this version on another machine, among those that live."""
FLOW = """
import os, sys, time
from evflow import FlowSpec, Parameter, current, step
from {module} import SIGN

class {name}(FlowSpec):
    times = Parameter("times", default=2)
    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.items = list(range(self.times))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.sign = SIGN * (1 + self.input)
        with open(os.path.join(self.folder or ".", f"began.{{current.run_id}}.{{self.input}}"), "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        while self.folder and not os.path.exists(os.path.join(self.folder, "go")):
            time.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.signs = sorted(one.sign for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("the end of", current.pathspec, self.signs)

if __name__ == "__main__":
    {name}()
"""


class Site:
    """A folder with flows, and a folder for what their bodies say."""

    def __init__(self, root: Path) -> None:
        self.root = root / "site"
        self.said = root / "said"
        self.said.mkdir()

    def deploy(self, name: str, sign: str) -> None:
        """Write a flow with a module beside it, and deploy it."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "helper.py").write_text(f"SIGN = {sign!r}\n")
        (folder / "flow.py").write_text(textwrap.dedent(FLOW).format(name=name, module="helper"))
        done = python("flow.py", "deploy", cwd=folder)
        assert done.returncode == 0, done.stderr

    def ask(self, name: str, **parameters: Any) -> str:
        """Ask for a run; answers its name."""
        given = [word for parameter, value in parameters.items() for word in ("--param", f"{parameter}={value}")]
        return str(told("run", name, *given)["run"])

    def began(self, run: str, number: int) -> list[int]:
        """The processes in which the body began."""
        file = self.said / f"began.{run.partition('/')[2]}.{number}"
        return list(map(int, file.read_text().split())) if file.exists() else []

    def go(self) -> None:
        (self.said / "go").touch()


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root)


@contextmanager
def scheduler(root: Path, *options: str, shards: int = 8) -> Generator[subprocess.Popen[str]]:
    """A scheduler that owns its shards; ended within the block or at its end."""
    log = root / "scheduler.log"
    with log.open("a") as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "evflow.cli", "scheduler", *options],
            stdout=subprocess.DEVNULL,
            stderr=file,
            text=True,
            start_new_session=True,
        )
    try:
        # Each question is a process, which takes from the scheduler what it needs to begin.
        wait_until(lambda: log.read_bytes()[begin:].count(b"shard taken") >= shards, "the scheduler takes its shards", WITHIN_S)
        wait_until(lambda: owned_by(process.pid) >= shards, "the scheduler owns its shards", WITHIN_S)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0, (root / "scheduler.log").read_text()
    finally:
        process.kill()
        process.wait()


def told(*arguments: str) -> dict[str, Any]:
    """What a command says for programs."""
    done = evflow(*arguments, "--json")
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def owned_by(pid: int) -> int:
    """How many shards a process owns."""
    return sum(len(one["shards"]) for one in told("scheduler", "status")["schedulers"] if one["pid"] == pid)


def state_of(run: str) -> dict[str, Any]:
    return told("show", run)


def ended(run: str) -> str:
    """Wait for a run's end; its status."""
    over = {"succeeded", "failed", "cancelled"}
    return wait_until(lambda: status if (status := str(state_of(run)["status"])) in over else "", f"{run} is over", WITHIN_S)


def test_runs_of_deployed_flows_are_carried_out_each_with_its_own_code(site: Site, root: Path) -> None:
    """Two flows with modules of one name; one is asked for before there is a scheduler."""
    site.deploy("Nightly", "a")
    early = site.ask("Nightly", times=3)
    with scheduler(root):
        site.deploy("Hourly", "b")
        late = site.ask("Hourly")
        assert [ended(early), ended(late)] == ["succeeded", "succeeded"]
    assert verified(early)["problems"] == []
    assert "the end of" in evflow("logs", f"{late}/end").stdout


def test_a_run_keeps_the_version_that_it_was_asked_of(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    old = site.ask("Nightly", folder=site.said, times=1)
    site.deploy("Nightly", "b")
    new = site.ask("Nightly", folder=site.said, times=1)
    site.go()
    with scheduler(root):
        assert [ended(old), ended(new)] == ["succeeded", "succeeded"]
    assert ["'a'" in evflow("logs", f"{run}/end").stdout for run in (old, new)] == [True, False]


def test_who_asked_and_died_before_the_offer_has_its_run(site: Site, root: Path, evflow_home: Path) -> None:
    site.deploy("Nightly", "a")
    flow = FlowName("Nightly")
    with open_log(evflow_home) as opened:
        log = opened.client
        deployment = deployed(log, flow)["default"]
        ready = make_ready(open_store(deployment.store), deployment, Asked({"times": "3"}, ("mine",), "bob", "desk"))
        run = take_number(log, flow, ready.requested(), store=deployment.store)  # and no more: it was killed
    with scheduler(root):
        wait_until(lambda: evflow("show", str(run)).returncode == 0, "the run has its line", WITHIN_S)
        assert ended(str(run)) == "succeeded"
    shown = told("show", str(run))
    assert shown["parameters"]["times"] == "3"
    assert shown["tags"] == ["mine"]


def test_sigterm_lets_what_runs_end_and_the_next_scheduler_goes_on(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root) as first:
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: site.began(run, 0) and site.began(run, 1), "both bodies run", WITHIN_S)
        first.send_signal(signal.SIGTERM)
        wait_until(lambda: "drains" in (root / "scheduler.log").read_text(), "it drains", WITHIN_S)
        waiting = site.ask("Nightly", times=1)
        site.go()
        assert first.wait(WITHIN_S) == 0
    assert state_of(run)["status"] != "succeeded"
    with scheduler(root):
        assert [ended(run), ended(waiting)] == ["succeeded", "succeeded"]
    assert [len(site.began(run, number)) for number in (0, 1)] == [1, 1]


@pytest.mark.parametrize("twice", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_runs_and_leaves_nothing(site: Site, root: Path, twice: int) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root) as first:
        run = site.ask("Nightly", folder=site.said, times=1)
        [body] = wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        first.send_signal(twice)
        wait_until(lambda: "drains" in (root / "scheduler.log").read_text(), "it drains", WITHIN_S)
        first.send_signal(twice)
        assert first.wait(WITHIN_S) == 0, (root / "scheduler.log").read_text()
        assert not psutil.pid_exists(body)
    site.go()
    with scheduler(root):
        assert ended(run) == "succeeded"


def test_what_still_runs_when_the_time_to_drain_is_over_is_started_again_elsewhere(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--drain-timeout", "0.2") as first:
        run = site.ask("Nightly", folder=site.said, times=1)
        [body] = wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        first.send_signal(signal.SIGTERM)
        assert first.wait(WITHIN_S) == 0, (root / "scheduler.log").read_text()
        assert not psutil.pid_exists(body)
    site.go()
    with scheduler(root):
        assert ended(run) == "succeeded"
    assert len(site.began(run, 0)) == 2


def test_a_run_that_waits_for_slots_which_other_runs_hold_is_told_who_holds_them_and_who_comes_first(site: Site, root: Path) -> None:
    """In whichever shards they are; and an urgent one begins first when a slot is free."""
    site.deploy("Nightly", "a")
    with scheduler(root, "--max-workers", "1"):
        first = site.ask("Nightly", folder=site.said, times=1)
        wait_until(lambda: site.began(first, 0), "it holds the slot", WITHIN_S)
        later = [site.ask("Nightly", folder=site.said, times=1) for _ in range(2)]
        urgent = str(told("run", "Nightly", "--priority", "3", "--param", "times=1", "--param", f"folder={site.said}")["run"])
        assert len({shared_shard(RunId.parse(run)) for run in (first, *later, urgent)}) > 1
        waits = later[-1]
        wait_until(lambda: "1 run of higher priority" in evflow("explain", waits).stdout, "both wait", WITHIN_S)
        said = evflow("explain", waits).stdout
        assert f"{waits}/start/1 waits for a slot of 'local'" in said
        assert "its run has 0 of the 16 that it may have" in said, said
        assert "with 3 other runs at work; 1 slot is held by Nightly/1/work/2." in said, said
        site.go()
        assert [ended(run) for run in (*later, urgent)] == ["succeeded"] * 3
    began = {run: (site.said / f"began.{run.partition('/')[2]}.0").stat().st_mtime_ns for run in (*later, urgent)}
    assert min(began, key=lambda run: began[run]) == urgent


def test_a_scheduler_without_a_free_slot_gives_busy_shards_away(site: Site, root: Path) -> None:
    """Nothing is started twice for it: what runs of such a shard ends where it began."""
    site.deploy("Nightly", "a")
    with scheduler(root, "--max-workers", "8") as first:
        runs = [site.ask("Nightly", folder=site.said, times=2) for _ in range(16)]
        assert len({shared_shard(RunId.parse(run)) for run in runs}) > 4
        wait_until(lambda: len(running(site, runs)) == 8, "all slots are taken", WITHIN_S)
        with scheduler(root, shards=0) as second:
            said = root / "scheduler.log"
            wait_until(lambda: said.read_text().count("is to be another") >= 4, "it drains its surplus", WITHIN_S)
            wait_until(lambda: len(running(site, runs)) > 8, "the other one has begun with what nothing ran of", WITHIN_S)
            site.go()
            assert [ended(run) for run in runs] == ["succeeded"] * 16
            wait_until(lambda: (owned_by(first.pid), owned_by(second.pid)) == (4, 4), "they share the shards evenly", WITHIN_S)
    # Where a machine stands still for longer than a lease lasts, an owner loses what it has to the other one: that is not what is tested here.
    assert [len(site.began(run, number)) for run in runs for number in (0, 1)] == [1] * 32 or "shard given up" in said.read_text()


@pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))
@pytest.mark.parametrize("rivals", [False, True])
def test_a_scheduler_that_is_cut_off_ends_its_attempts_only_where_another_machine_may_start_them(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch, *, rivals: bool
) -> None:
    def elsewhere(lives_for_s: float) -> None:
        with closing(connect(server.url)) as log:
            log.schedulers(RIVAL, lives_for_s)

    with DebianRedis.started() as server:
        monkeypatch.setenv("EVFLOW_REDIS_URL", server.url)
        site.deploy("Nightly", "a")
        if rivals:
            elsewhere(lives_for_s=200.0)
        with scheduler(root, shards=4 if rivals else 8):
            runs = [site.ask("Nightly", folder=site.said, times=1) for _ in range(8)]
            [body, *_] = wait_until(lambda: running(site, runs), "a body runs", WITHIN_S)
            with server.out_of_reach():
                if rivals:
                    wait_until(lambda: not psutil.pid_exists(body), "the attempt is ended", WITHIN_S)
                else:
                    wait_until(lambda: "server away" in (root / "scheduler.log").read_text(), "it is cut off", WITHIN_S)
                    time.sleep(LEASE_S + 2)
                    assert psutil.pid_exists(body)
            elsewhere(lives_for_s=0.0)
            site.go()
            assert [ended(run) for run in runs] == ["succeeded"] * 8
    assert (sum(len(site.began(run, 0)) for run in runs) > 8) == rivals


def test_a_scheduler_whose_log_hangs_ends_its_attempts_when_its_leases_have_run_out(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for answers for a minute, and does not wait so long with this."""
    monkeypatch.setenv("EVFLOW_LOG_TIMEOUT", "60")
    with DebianRedis.started() as server:
        monkeypatch.setenv("EVFLOW_REDIS_URL", server.url)
        site.deploy("Nightly", "a")
        with closing(connect(server.url)) as log:
            log.schedulers(RIVAL, 200.0)
        with scheduler(root, shards=4):
            runs = [site.ask("Nightly", folder=site.said, times=1) for _ in range(8)]
            [body, *_] = wait_until(lambda: running(site, runs), "a body runs", WITHIN_S)
            server.process.send_signal(signal.SIGSTOP)
            try:
                wait_until(lambda: not psutil.pid_exists(body), "the attempt is ended", 40.0)
            finally:
                server.process.send_signal(signal.SIGCONT)
            with closing(connect(server.url)) as log:
                log.schedulers(RIVAL, 0.0)
            site.go()
            assert [ended(run) for run in runs] == ["succeeded"] * 8


def test_a_killed_scheduler_is_followed_by_another_one(site: Site, root: Path) -> None:
    """They share the shards; the attempts of the one that is killed die with it, and what had finished is not repeated."""
    site.deploy("Nightly", "a")
    with scheduler(root) as first, scheduler(root, shards=4) as second:
        wait_until(lambda: owned_by(first.pid) == 4, "they share the shards evenly", WITHIN_S)
        runs = [site.ask("Nightly", folder=site.said) for _ in range(6)]
        bodies = wait_until(
            lambda: [pid for run in runs for pid in site.began(run, 0)][:6][5:] and running(site, runs), "bodies run", WITHIN_S
        )
        first.kill()
        first.wait()
        wait_until(lambda: owned_by(second.pid) == 8, "the second owns all shards", WITHIN_S)
        site.go()
        assert [ended(run) for run in runs] == ["succeeded"] * 6
        assert not any(psutil.pid_exists(body) for body in bodies)
    assert all(verified(run)["problems"] == [] for run in runs)
    assert sum(len(site.began(run, number)) for run in runs for number in (0, 1)) > 12, "nothing of the killed one was repeated"


def running(site: Site, runs: list[str]) -> list[int]:
    return [pid for run in runs for number in (0, 1) for pid in site.began(run, number)]


def test_a_killed_server_is_survived(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root):
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: site.began(run, 0), "a body runs", WITHIN_S)
        os.kill(told("server", "status")["pid"], signal.SIGKILL)
        site.go()
        assert ended(run) == "succeeded"


def test_a_flow_that_cannot_be_imported_fails_its_own_runs_only(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    site.deploy("Broken", "b")
    broken = site.root / "Broken"
    with scheduler(root):
        (broken / "flow.py").write_text(
            (broken / "flow.py").read_text().replace("class Broken", "if 'deploy' not in sys.argv: import no_such\nclass Broken")
        )
        assert python("flow.py", "deploy", cwd=broken).returncode == 0
        failing, fine = site.ask("Broken"), site.ask("Nightly")
        assert [ended(failing), ended(fine)] == ["failed", "succeeded"]
    assert "no_such" in state_of(failing)["reason"]


def test_a_waiting_run_is_cancelled_by_the_next_scheduler(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    run = site.ask("Nightly")
    assert "evflow scheduler" in evflow("cancel", run).stderr
    with scheduler(root):
        assert ended(run) == "cancelled"


CRON = f"0 {(datetime.now(ZoneInfo('Europe/Berlin')).hour + 12) % 24} * * *"
"""Half a day away, so that no tick comes while a test runs."""
TICKING = f"""
from evflow import FlowSpec, current, schedule, step

@schedule(cron="{CRON}", timezone="Europe/Berlin", catch_up="last")
class Daily(FlowSpec):
    @step
    def start(self):
        self.trigger = current.trigger
        self.next(self.end)

    @step
    def end(self):
        print("the tick of", (current.trigger or {{"tick": "nothing"}})["tick"])

if __name__ == "__main__":
    Daily()
"""


def turn_back(home: Path, flow: FlowName, days: int) -> None:
    """Let the ticks of the last days be undecided."""
    with open_log(home) as log:
        before = deployed(log.client, flow)["default"]
        packed = pack(replace(before, ticked_us=before.ticked_us - days * 86_400_000_000))
        nothing = flow_events.encode(FlowUnpaused("nothing"), at_us=1, principal="test")
        log.client.append_flow(flow, log.client.flow_seq(flow), nothing, DeploymentChange("default", packed))


def test_a_tick_starts_one_run_whoever_is_alive(site: Site, root: Path, evflow_home: Path) -> None:
    folder = site.root / "Daily"
    folder.mkdir(parents=True)
    (folder / "flow.py").write_text(TICKING)
    by_hand = python("flow.py", "run", cwd=folder)
    assert by_hand.returncode == 0, "a schedule means nothing to a run in the foreground"
    assert "the tick of nothing" in by_hand.stdout
    done = python("flow.py", "deploy", cwd=folder)
    assert f"at each tick of {CRON} (Europe/Berlin); the next tick is at" in done.stderr
    with scheduler(root), scheduler(root, shards=4):
        turn_back(evflow_home, FlowName("Daily"), 3)
        wait_until(lambda: "Daily/2" in evflow("runs").stdout, "the tick's run is asked for", WITHIN_S)
        assert ended("Daily/2") == "succeeded"
        with open_log(evflow_home) as log:
            events = [flow_events.decode(*stored).event for stored in log.client.flow_events(FlowName("Daily"))]
    ticks = [tick for event in events if (tick := tick_of(event)) is not None]
    assert [type(event) for event in events if tick_of(event) is not None] == [ScheduleTicked, RunRequested]
    said = evflow("logs", "Daily/2/end").stdout
    assert f"the tick of {datetime.fromtimestamp(ticks[-1] / 1e6, ZoneInfo('Europe/Berlin')).isoformat()}" in said
    assert state_of("Daily/2")["trigger"]["tick_us"] == ticks[-1]
    assert f"{CRON} (Europe/Berlin), the tick of" in evflow("show", "Daily/2").stdout
    assert verified("Daily/2")["problems"] == []


def test_a_paused_deployment_skips_its_ticks(site: Site, root: Path, evflow_home: Path) -> None:
    folder = site.root / "Daily"
    folder.mkdir(parents=True)
    (folder / "flow.py").write_text(TICKING)
    assert python("flow.py", "deploy", cwd=folder).returncode == 0
    assert evflow("pause", "Daily").returncode == 0
    turn_back(evflow_home, FlowName("Daily"), 3)

    def skipped() -> list[ScheduleTicked]:
        with open_log(evflow_home) as log:
            events = [flow_events.decode(*stored).event for stored in log.client.flow_events(FlowName("Daily"))]
        return [event for event in events if isinstance(event, ScheduleTicked)]

    with scheduler(root):
        [event] = wait_until(skipped, "the tick is decided", WITHIN_S)
    assert (event.decision, event.reason) == ("skip", "paused")
    assert json.loads(evflow("runs", "--json").stdout) == []


def test_a_scheduler_owns_the_shards_that_it_may_and_says_which_nobody_may(site: Site, root: Path, evflow_home: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--shards", "0-5", shards=6) as first:
        text = evflow("scheduler", "status").stdout
        assert "(may own 0-5)" in text
        assert "No scheduler may own s6, s7: start one with `--shards 6-7`." in text
        owned, left = list[str](), list[str]()
        while not (owned and left):
            run = site.ask("Nightly", times=1)
            (left if shared_shard(RunId.parse(run)) in ("s6", "s7") else owned).append(run)
        assert ended(owned[-1]) == "succeeded"
        with open_log(evflow_home) as log:
            assert [entry.summary["status"] for entry in log.client.runs(FlowName("Nightly")) if str(entry.run) in left] == [
                "requested"
            ] * len(left)
        with scheduler(root, shards=2) as second:
            assert ended(left[0]) == "succeeded"
            wait_until(lambda: (owned_by(first.pid), owned_by(second.pid)) == (4, 4), "they share the shards evenly", WITHIN_S)


@pytest.mark.parametrize(("option", "variable"), [("0-8", None), ("s1", None), (None, "3-1")])
def test_shards_that_there_are_not_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, option: str | None, variable: str | None) -> None:
    if variable is not None:
        monkeypatch.setenv("EVFLOW_SHARDS", variable)
    result = evflow("scheduler", *(() if option is None else ("--shards", option)))
    assert result.returncode != 0
    assert "shards from 0 to 7, like 0-3,6" in result.stderr
