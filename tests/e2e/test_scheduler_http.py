"""A real scheduler as its surroundings see it: over HTTP, and by its lines."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.e2e.test_scheduler import WITHIN_S, Site, ended, scheduler
from tests.ports import free_port
from tests.real_runs import evflow
from tests.waiting import wait_until


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root)


def lines(root: Path) -> list[dict[str, Any]]:
    """What the scheduler said: each line must be a JSON document."""
    return [json.loads(line) for line in (root / "scheduler.log").read_text().splitlines()]


def address(root: Path) -> str:
    return next(str(line["address"]) for line in lines(root) if line["event"] == "HTTP is served")


def get(root: Path, path: str) -> tuple[int, str]:
    """Status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://{address(root)}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def is_healthy(listening: str) -> bool:
    """What the health check of docker/Dockerfile says where EVFLOW_HTTP is that."""
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*EVFLOW_HTTP.*)$", (REPOSITORY / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    _, *words = json.loads(check)
    done = subprocess.run([sys.executable, *words], env={"EVFLOW_HTTP": listening}, capture_output=True, check=False)
    return done.returncode == 0


def numbers(root: Path) -> dict[str, float]:
    """The metrics, by name with labels."""
    found = (line.rpartition(" ") for line in get(root, "/metrics")[1].splitlines() if not line.startswith("#"))
    return {name: float(number) for name, _, number in found}


def test_it_is_live_and_ready_and_counts_what_it_does(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--http", "0", "--max-workers", "1"):
        assert get(root, "/live") == (200, '{"live":true}\n')
        assert is_healthy(address(root))
        assert not is_healthy(f"127.0.0.1:{free_port()}")
        wait_until(lambda: get(root, "/ready")[0] == 200, "it is ready", WITHIN_S)
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: numbers(root).get('evflow_tasks_waiting{reason="slot"}') == 1, "one body waits for the other's slot", WITHIN_S)
        wait_until(lambda: numbers(root)["evflow_tasks_running"], "the log has the other one's start", WITHIN_S)
        now = numbers(root)
        assert (now["evflow_tasks_running"], now["evflow_slots_taken"], now['evflow_runs{state="running"}']) == (1, 1, 1)
        assert now['evflow_fork_servers{state="busy"}'] == 1
        assert now["evflow_fork_servers_memory_bytes"] > 1_000_000
        site.go()
        assert ended(run) == "succeeded"
        wait_until(lambda: numbers(root)['evflow_runs_ended_total{status="succeeded"}'] == 1, "the run's end is counted", WITHIN_S)
        now = numbers(root)
        assert now['evflow_attempts_ended_total{outcome="succeeded"}'] == 5
        assert now['evflow_task_wait_seconds_count{until="granted"}'] == now['evflow_task_wait_seconds_count{until="started"}'] == 5
        assert now["evflow_append_seconds_count"] >= 5
        wait_until(lambda: numbers(root)["evflow_shards_owned"] == 8, "it owns all shards, also where a stall took one from it", WITHIN_S)
        wait_until(
            lambda: numbers(root)['evflow_fork_servers{state="warm"}'] == 1, "the process that ran them is warm, a moment later", WITHIN_S
        )
        assert get(root, "/nowhere")[0] == 404


def test_one_that_drains_is_live_and_not_ready(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--http", "127.0.0.1:0") as process:
        run = site.ask("Nightly", folder=site.said, times=1)
        wait_until(lambda: site.began(run, 0), "the body runs", WITHIN_S)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "drains" in (root / "scheduler.log").read_text(), "it drains", WITHIN_S)
        status, body = get(root, "/ready")
        assert status == 503
        assert json.loads(body)["reasons"] == ["It drains: no run begins here any more."]
        assert get(root, "/live")[0] == 200
        site.go()
        assert process.wait(WITHIN_S) == 0


def test_it_ends_although_somebody_keeps_a_connection(site: Site, root: Path) -> None:
    with scheduler(root, "--http", "0") as process:
        host, _, port = address(root).rpartition(":")
        with socket.create_connection((host, int(port))) as kept:
            kept.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0


def test_every_line_of_its_life_is_a_json_document_with_the_same_keys(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--http", "0", "--log-level", "debug"):
        run = site.ask("Nightly", times=1)
        assert ended(run) == "succeeded"
        host, _, port = address(root).rpartition(":")
        with socket.create_connection((host, int(port))) as nonsense:
            nonsense.sendall(b"\x00\x01 what\r\n\r\n")  # uvicorn has something to say about it
            nonsense.recv(1000)
    said = lines(root)
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in said)
    assert {"scheduler begins", "run begins", "run over", "scheduler ends", "HTTP"} <= {line["event"] for line in said}
    launch = next(line for line in said if line["event"] == "launch")
    assert (launch["run"], launch["task"], launch["attempt"]) == (run, 1, 0)
    assert isinstance(launch["seq"], int)


def test_its_lines_are_text_where_that_is_asked_for(root: Path) -> None:
    with scheduler(root, "--log-format", "text"):
        pass
    assert re.match(r'timestamp=\S+Z level=info event="scheduler begins" host=', (root / "scheduler.log").read_text())


def test_a_port_in_use_is_a_clear_error_before_anything_is_owned(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = evflow("scheduler", "--http", str(port))
    assert done.returncode == 1
    assert f"HTTP cannot be served on 127.0.0.1:{port}: Address already in use." in done.stderr
    assert not (root / "e" / "valkey").exists()


@pytest.mark.parametrize("given", ["a:b:c", "99999", ":80", "host:"])
def test_an_address_that_is_none_is_wrong_usage(given: str) -> None:
    done = evflow("scheduler", "--http", given)
    assert done.returncode == 2
    assert "is not HOST:PORT, or PORT alone for this machine only" in done.stderr


def test_the_page_lists_every_metric_and_no_other(root: Path) -> None:
    with scheduler(root, "--http", "0"):
        families = re.findall(r"^# TYPE (\S+)", get(root, "/metrics")[1], re.MULTILINE)
    page = (REPOSITORY / "docs" / "scheduler.md").read_text()
    listed = re.findall(r"^\| `(evflow_\w+)", page, re.MULTILINE)
    # A scheduler that owns nothing yet looks after no flow's archives, and a source that nobody names has no gauge.
    absent = {"evflow_unarchived_bytes", "evflow_source_up", "evflow_source_events_total", "evflow_source_failures_total"}
    assert sorted(set(listed) - absent) == sorted(
        name for name in families if name.startswith("evflow_") and name != "evflow_unarchived_bytes"
    )


def test_what_is_not_archived_is_a_gauge_once_a_shard_is_owned(root: Path) -> None:
    with scheduler(root, "--http", "0"):
        wait_until(lambda: "\nevflow_unarchived_bytes 0.0" in get(root, "/metrics")[1], "the gauge of what is not archived")
