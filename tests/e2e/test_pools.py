"""Pools of workers: real processes, one log. Workers and owners are killed, drained, cut off and suspended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from evflow.log.keys import pool_keys, shared_shards
from evflow.log.transport import connect_blocking
from evflow.log.url import parse
from tests.e2e.test_scheduler import Site, ended, scheduler, state_of, told
from tests.real_runs import evflow, open_log, python, verified
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

WITHIN_S = 60.0
PATIENCE_S = "60"
"""Of a worker. One that does not get to say that it lives, on a busy machine or one that stands still for seconds, is not taken for dead."""
SHORT_S = "2"
"""Of one that is to be taken for dead. It may be so before its time comes, too, and what it ran begins again: what such a test counts, it counts from then."""


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root)


def deploy(site: Site, name: str = "Nightly", body: str = "") -> None:
    """Deploy the scheduler tests' flow, its foreach in the pool `gpu`."""
    folder = site.root / name
    site.deploy(name, "a")
    text = (folder / "flow.py").read_text()
    text = text.replace("import FlowSpec,", "import FlowSpec, pool,").replace(
        "    @step\n    def work", '    @pool("gpu")\n    @step\n    def work'
    )
    (folder / "flow.py").write_text(text.replace("        while self.folder", f"        {body}\n        while self.folder"))
    done = python("flow.py", "deploy", cwd=folder)
    assert done.returncode == 0, done.stderr


@contextmanager
def worker(root: Path, *options: str, pool: str = "gpu", name: str = "w1", patience: str = PATIENCE_S) -> Generator[subprocess.Popen[str]]:
    """A worker that lives; drained at the end of the block if it still does."""
    log = root / f"{name}.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "evflow.cli", "worker", "--pool", pool, "--name", name, "--worker-patience", patience, *options],
            stdout=subprocess.DEVNULL,
            stderr=file,
            text=True,
            start_new_session=True,
            env={**os.environ, "EVFLOW_LOG_LEVEL": "debug"},
        )
    try:
        wait_until(lambda: process.pid in {one["pid"] for one in workers(pool)}, "the worker lives", WITHIN_S)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def pool_of(name: str = "gpu") -> dict[str, Any]:
    done = evflow("pools", name, "--json")
    if done.returncode != 0:
        return {"workers": [], "queued": 0, "running": []}
    import json

    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found[0]


def workers(name: str = "gpu") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pool_of(name)["workers"]
    return found


def test_a_scheduler_s_run_goes_to_the_pool_and_its_other_steps_stay(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root), worker(root, "--slots", "2") as one:
        run = site.ask("Nightly", folder=site.said, times=3)
        wait_until(
            lambda: len(pool_of()["running"]) == 2 and pool_of()["queued"] == 1 and site.began(run, 0), "two run and one waits", WITHIN_S
        )
        assert psutil.Process(site.began(run, 0)[0]).parents()[1].pid == one.pid
        site.go()
        assert ended(run) == "succeeded"
        wait_until(lambda: not pool_of()["running"], "all claims are given back", WITHIN_S)
    assert verified(run)["problems"] == []
    assert [len(site.began(run, number)) for number in range(3)] == [1, 1, 1]


def test_a_killed_scheduler_s_tasks_in_pools_go_on_and_run_once(site: Site, root: Path) -> None:
    deploy(site)
    with worker(root, "--slots", "2"):
        with scheduler(root) as first:
            run = site.ask("Nightly", folder=site.said, times=3)
            wait_until(lambda: len(pool_of()["running"]) == 2 and site.began(run, 0) and site.began(run, 1), "two bodies run", WITHIN_S)
            bodies = site.began(run, 0) + site.began(run, 1)
            first.kill()
            first.wait()
        assert all(psutil.pid_exists(body) for body in bodies)
        with scheduler(root):
            site.go()
            assert ended(run) == "succeeded"
    assert [len(site.began(run, number)) for number in range(3)] == [1, 1, 1]
    assert verified(run)["problems"] == []


def test_a_scheduler_goes_on_behind_an_epoch_that_only_the_pool_still_knows(site: Site, root: Path, evflow_home: Path) -> None:
    """As where a server loses its leases while its clock goes back by an hour."""
    deploy(site)
    later_us = time.time_ns() // 1_000 + 3_600_000_000
    with scheduler(root), worker(root), open_log(evflow_home) as log:
        with closing(connect_blocking(parse(log.url))) as transport:
            for shard in shared_shards():
                transport.call("HSET", pool_keys("gpu").fences, shard, f"{later_us} 0")
        site.go()
        run = site.ask("Nightly", folder=site.said, times=2)
        assert ended(run) == "succeeded"
    assert "takes orders of the shard" in (root / "scheduler.log").read_text()
    assert [len(site.began(run, number)) for number in (0, 1)] == [1, 1]
    assert verified(run)["problems"] == []


def test_what_ended_while_nobody_owned_the_run_is_not_run_again(site: Site, root: Path) -> None:
    deploy(site)
    with worker(root):
        with scheduler(root) as first:
            run = site.ask("Nightly", folder=site.said, times=1)
            wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
            first.kill()
            first.wait()
        site.go()
        wait_until(lambda: not pool_of()["running"], "the attempt is over", WITHIN_S)
        with scheduler(root):
            assert ended(run) == "succeeded"
    assert len(site.began(run, 0)) == 1


def test_a_drained_scheduler_does_not_wait_for_tasks_in_pools(site: Site, root: Path) -> None:
    deploy(site)
    with worker(root):
        with scheduler(root) as first:
            run = site.ask("Nightly", folder=site.said, times=1)
            wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
            first.send_signal(signal.SIGTERM)
            assert first.wait(WITHIN_S) == 0
        with scheduler(root):
            site.go()
            assert ended(run) == "succeeded"
    assert len(site.began(run, 0)) == 1


def test_the_tasks_of_a_killed_worker_are_run_by_another_and_do_not_count_as_retries(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root), worker(root, name="w1", patience=SHORT_S) as one:
        run = site.ask("Nightly", folder=site.said, times=1)
        wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        one.kill()
        one.wait()
        wait_until(lambda: not any(map(psutil.pid_exists, site.began(run, 0))), "its attempts die with it", WITHIN_S)
        before = len(site.began(run, 0))
        with worker(root, name="w2"):
            wait_until(lambda: len(site.began(run, 0)) > before, "another one runs it", WITHIN_S)
            site.go()
            assert ended(run) == "succeeded"
    assert "its worker died: w1:" in evflow("replay", run).stdout


def test_a_suspended_worker_ends_its_attempts_when_it_wakes_up_and_works_again(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root), worker(root, name="w1", patience=SHORT_S) as one:
        run = site.ask("Nightly", folder=site.said, times=1)
        wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        one.send_signal(signal.SIGSTOP)
        bodies = site.began(run, 0)
        with worker(root, name="w2"):
            wait_until(lambda: len(site.began(run, 0)) > len(bodies), "another one runs it", WITHIN_S)
            one.send_signal(signal.SIGCONT)
            wait_until(lambda: not any(map(psutil.pid_exists, bodies)), "the first one's attempt is ended", WITHIN_S)
            site.go()
            assert ended(run) == "succeeded"
            wait_until(lambda: len(workers()) == 2, "it joined anew", WITHIN_S)
    assert len(site.began(run, 0)) == len(bodies) + 1
    assert verified(run)["problems"] == []


def let_them_be_dead(home: Path) -> None:
    """Let the pool have heard of none of its workers for longer than its patience."""
    with open_log(home) as log, closing(connect_blocking(parse(log.url))) as transport:
        living = pool_keys("gpu").workers
        for name in transport.call("ZRANGE", living, 0, -1):
            transport.call("ZADD", living, "XX", 0, name)


def test_a_task_that_kills_its_workers_is_quarantined(site: Site, root: Path, evflow_home: Path) -> None:
    """They have patience: one that was taken for dead before the task killed it would be one too many."""
    deploy(site, body="os.kill(os.getppid(), 0); os.kill(__import__('psutil').Process().parents()[1].pid, 9); import time; time.sleep(60)")
    with scheduler(root):
        run = site.ask("Nightly", times=1)
        for number in range(4):
            with worker(root, name=f"w{number}") as victim:
                assert victim.wait(WITHIN_S) == -signal.SIGKILL
            let_them_be_dead(evflow_home)
        assert ended(run) == "failed"
    reason = state_of(run)["reason"]
    assert "It is quarantined: 4 attempts" in reason
    assert all(f"w{number}:" in reason for number in range(4))


def test_a_worker_survives_attempts_and_fork_servers_that_crash(site: Site, root: Path) -> None:
    deploy(site, body="if current.retry_count < 2: os.kill(os.getppid() if current.retry_count else os.getpid(), 9)")
    with scheduler(root), worker(root) as one:
        run = site.ask("Nightly", times=1)
        assert ended(run) == "succeeded"
        assert one.poll() is None


def test_sigterm_drains_a_worker_and_what_it_did_not_begin_goes_to_others(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root), worker(root, "--slots", "1", name="w1") as one:
        run = site.ask("Nightly", folder=site.said, times=3)
        wait_until(lambda: pool_of()["queued"] == 2 and site.began(run, 0), "one runs, two wait", WITHIN_S)
        one.send_signal(signal.SIGTERM)
        wait_until(lambda: workers()[0]["draining"], "it drains", WITHIN_S)
        with worker(root, name="w2"):
            wait_until(lambda: site.began(run, 1) and site.began(run, 2), "the others run elsewhere", WITHIN_S)
            assert one.poll() is None
            site.go()
            assert one.wait(WITHIN_S) == 0
            assert ended(run) == "succeeded"
    assert [len(site.began(run, number)) for number in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("how", ["second signal", "deadline"])
def test_a_drain_that_is_over_ends_what_runs_and_it_is_started_elsewhere(site: Site, root: Path, how: str) -> None:
    deploy(site)
    options = ("--drain-timeout", "0.2") if how == "deadline" else ()
    with scheduler(root), worker(root, *options, name="w1") as one:
        run = site.ask("Nightly", folder=site.said, times=1)
        [body] = wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        one.send_signal(signal.SIGTERM)
        if how == "second signal":
            wait_until(lambda: "drains" in (root / "w1.log").read_text(), "it drains", WITHIN_S)
            one.send_signal(signal.SIGTERM)
        assert one.wait(WITHIN_S) == 0
        assert not psutil.pid_exists(body)
        with worker(root, name="w2"):
            site.go()
            assert ended(run) == "succeeded"
    assert "its worker was stopped" in evflow("replay", run).stdout


def test_a_cancelled_run_s_tasks_end_and_those_that_wait_are_taken_back(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root), worker(root, "--slots", "1"):
        run = site.ask("Nightly", folder=site.said, times=3)
        [body] = wait_until(lambda: pool_of()["queued"] == 2 and site.began(run, 0), "one runs, two wait", WITHIN_S)
        assert evflow("cancel", run).returncode == 0
        assert ended(run) == "cancelled"
        assert not psutil.pid_exists(body)
        assert pool_of()["queued"] == 0
    assert not site.began(run, 1)


def test_a_run_waits_for_a_worker_and_explain_says_so(site: Site, root: Path) -> None:
    deploy(site)
    with scheduler(root):
        run = site.ask("Nightly", times=1)
        wait_until(lambda: pool_of()["queued"] == 1, "it waits in the queue", WITHIN_S)
        assert "waits for a worker of pool gpu" in evflow("explain", run).stdout
        assert "none is alive. `evflow worker --pool gpu` starts one." in evflow("explain", run).stdout
        assert "no worker is alive" in evflow("pools").stdout
        with worker(root):
            assert ended(run) == "succeeded"


def test_the_foreground_shows_what_tasks_in_pools_print(site: Site, root: Path) -> None:
    deploy(site, body='print("in the pool", self.input)')
    with worker(root):
        done = python("flow.py", "run", "--times", "3", cwd=site.root / "Nightly")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert all(f"in the pool {number}" in said for number in range(3))
    starts = json.loads(evflow("events", "Nightly/1", "--type", "AttemptStarted", "--json").stdout)
    started = [(one["fields"]["task"], one["fields"]["attempt"]) for one in starts]
    # One that is over before its start was reported has none (decision 83).
    assert 0 < len(started) == len(set(started)) <= 6, "what is seen live and reported is written once"


def test_the_foreground_runs_the_steps_here_where_nobody_works_and_the_log_says_so(site: Site) -> None:
    deploy(site)
    done = python("flow.py", "run", "--times", "1", cwd=site.root / "Nightly")
    assert done.returncode == 0, done.stderr
    assert "No worker of the pool 'gpu' is alive: its steps run on this machine." in done.stdout + done.stderr
    assert "no worker of pool gpu is alive" in evflow("events", "Nightly/1", "--json").stdout
    refused = python("flow.py", "run", "--times", "1", "--fallback", "error", cwd=site.root / "Nightly")
    assert refused.returncode != 0
    assert "`evflow worker --pool gpu` starts one" in refused.stderr
    assert len(told("runs")) == 1, "no number was taken"


def test_a_killed_foreground_is_continued_and_its_task_in_the_pool_runs_once(site: Site, root: Path) -> None:
    deploy(site)
    with worker(root):
        foreground = subprocess.Popen(
            [sys.executable, "flow.py", "run", "--times", "1", "--folder", str(site.said)],
            cwd=site.root / "Nightly",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        [body] = wait_until(lambda: site.began("Nightly/1", 0), "the body runs", WITHIN_S)
        foreground.kill()
        foreground.wait()
        assert psutil.pid_exists(body)
        site.go()
        assert evflow("continue", "Nightly/1").returncode == 0
    assert len(site.began("Nightly/1", 0)) == 1
    assert verified("Nightly/1")["problems"] == []


@pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))
def test_a_worker_that_is_cut_off_ends_its_attempts_before_others_start_them(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DebianRedis.started() as server:
        monkeypatch.setenv("EVFLOW_REDIS_URL", server.url)
        deploy(site)
        with scheduler(root), worker(root, patience=SHORT_S):
            run = site.ask("Nightly", folder=site.said, times=1)
            wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
            with server.out_of_reach():
                wait_until(lambda: not any(map(psutil.pid_exists, site.began(run, 0))), "the attempt is ended", WITHIN_S)
                before = len(site.began(run, 0))
            wait_until(lambda: len(site.began(run, 0)) > before, "it is started again", WITHIN_S)
            site.go()
            assert ended(run) == "succeeded"


def test_a_worker_that_waits_for_its_log_says_so_and_ends_when_it_is_told_to(root: Path) -> None:
    log = root / "alone.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "evflow.cli", "worker", "--pool", "gpu"],
            stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, "EVFLOW_REDIS_URL": "redis://127.0.0.1:1/0"},
        )  # fmt: skip
    try:
        wait_until(lambda: "the worker waits for the log" in log.read_text(), "it says what it waits for", WITHIN_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
    assert "127.0.0.1:1 cannot be reached" in log.read_text()


def test_a_task_of_a_higher_priority_is_taken_first_though_it_came_last(site: Site, root: Path) -> None:
    """One slot, and two of three tasks wait in the queue when an urgent run comes."""
    deploy(site)
    with scheduler(root), worker(root, "--slots", "1"):
        many = site.ask("Nightly", folder=site.said, times=3)
        wait_until(lambda: len(pool_of()["running"]) == 1 and pool_of()["queued"] == 2, "one runs and two wait", WITHIN_S)
        urgent = str(told("run", "Nightly", "--priority", "5", "--param", f"folder={site.said}", "--param", "times=1")["run"])
        wait_until(lambda: pool_of()["queued"] == 3, "the urgent one waits as well", WITHIN_S)
        site.go()
        assert [ended(run) for run in (many, urgent)] == ["succeeded"] * 2
    began = {
        (run, number): (site.said / f"began.{run.partition('/')[2]}.{number}").stat().st_mtime_ns
        for run, number in [(urgent, 0), *((many, n) for n in range(3))]
    }
    assert sorted(began, key=lambda one: began[one])[:2] == [min(((many, n) for n in range(3)), key=lambda one: began[one]), (urgent, 0)]
    assert verified(urgent)["problems"] == []


def test_limits_hold_for_tasks_in_pools_and_explain_says_who_holds_them(site: Site, root: Path) -> None:
    deploy(site)
    assert evflow("limits", "set", "step:Nightly/work", "1").returncode == 0
    with scheduler(root), worker(root, "--slots", "3"):
        run = site.ask("Nightly", folder=site.said, times=3)
        wait_until(lambda: len(pool_of()["running"]) == 1, "one runs", WITHIN_S)
        said = evflow("explain", run).stdout
        assert f"{run} waits for limit step:Nightly/work: 1 of 1 hold it ({run}/" in said, said
        assert (len(pool_of()["running"]), pool_of()["queued"]) == (1, 0)
        site.go()
        assert ended(run) == "succeeded"
    assert verified(run)["problems"] == []
