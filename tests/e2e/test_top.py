"""`evflow top` over a real log: once, and in a terminal."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_scheduler import WITHIN_S, Site, ended, scheduler, told
from tests.real_runs import evflow
from tests.waiting import wait_until


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root)


def test_it_shows_what_a_scheduler_does_and_what_waits(site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--max-workers", "1") as process:
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: site.began(run, 0) or site.began(run, 1), "a body runs", WITHIN_S)
        wait_until(lambda: told("top")["tasks_waiting"] == 1, "the other one waits", WITHIN_S)
        wait_until(
            lambda: [(one["pid"], one["tasks"], len(one["shards"])) for one in told("top")["schedulers"]] == [(process.pid, 1, 8)],
            "the scheduler is seen with its task",  # it says each second that it lives, and counts for three
            WITHIN_S,
        )
        [seen] = told("top")["runs"]
        assert (seen["run"], seen["status"], seen["running"], seen["waiting"]) == (run, "running", 1, {"slot": 1, "join": 1})
        evflow("limits", "set", "flow:Nightly", "0")
        assert told("top")["runs"][0]["waiting"] == {"limit": 1, "join": 1}, "no slot alone would let it begin"
        evflow("limits", "unset", "flow:Nightly")
        page = evflow("top")
        assert f"{run}  running" in page.stdout
        assert "\x1b" not in page.stdout
        assert told("top", "--flow", "hourly")["runs"] == []
        site.go()
        assert ended(run) == "succeeded"
        assert told("top")["runs"] == []


@pytest.mark.parametrize("end", ["q", "sigterm"])
def test_in_a_terminal_it_follows_and_leaves_the_terminal_as_it_was(site: Site, root: Path, end: str) -> None:
    site.deploy("Nightly", "a")
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "LINES": "30", "COLUMNS": "120", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "evflow.cli", "top"], stdin=other, stdout=other, stderr=other, start_new_session=True, env=environment
    )
    os.close(other)
    os.set_blocking(main, False)
    said = b""

    def shows(what: str) -> bool:
        nonlocal said
        with contextlib.suppress(OSError):  # nothing now, or its end
            said += os.read(main, 1 << 20)
        return what.encode() in said

    try:
        wait_until(lambda: shows("No run goes on."), "it has drawn", WITHIN_S)
        run = site.ask("Nightly")
        wait_until(lambda: shows(run) and shows("requested"), "what is asked for is seen", WITHIN_S)
        os.write(main, b"/zzz\r")
        wait_until(lambda: shows("of flows with 'zzz'"), "the filter holds", WITHIN_S)
        if end == "q":
            os.write(main, b"q")
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == (0 if end == "q" else 143)
        wait_until(lambda: shows("\x1b[?1049l"), "the page is left", WITHIN_S)
    finally:
        process.kill()
        process.wait()
        os.close(main)
