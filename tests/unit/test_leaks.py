"""The checks that every test gets for nothing must be able to fail: each is shown a leak of its kind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests import leaks
from tests.leaks import Before, new_tasks
from tests.waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def before(root: Path, monkeypatch: pytest.MonkeyPatch) -> Before:
    monkeypatch.setattr(leaks, "PATIENCE_S", 0.2)
    monkeypatch.setattr(leaks, "FD_PATIENCE_S", 0.05)
    watched = root / "watched"
    watched.mkdir()
    return Before.look(root, (watched, root / "missing"))


def test_nothing_left_is_nothing_found(before: Before) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert before.leaks() == []


def test_a_child_left_running_is_named_and_killed(before: Before) -> None:
    child = subprocess.Popen(SLEEP)
    [leak] = before.leaks()
    assert leak.startswith(f"process {child.pid} ")
    assert "time.sleep(60)" in leak
    assert not psutil.pid_exists(child.pid)
    child.wait()


def test_an_orphan_in_a_session_of_its_own_is_found(before: Before) -> None:
    script = f"import subprocess; print(subprocess.Popen({SLEEP!r}, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    [leak] = before.leaks()
    assert leak.startswith(f"process {pid} ")
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the orphan is gone")


def test_a_process_of_somebody_else_is_left_alone(before: Before, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv(leaks.TEST_ROOT_VARIABLE, "/tmp/another-test")
    script = f"import subprocess; print(subprocess.Popen({SLEEP!r}, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    try:
        assert before.leaks() == []
        assert psutil.pid_exists(pid)
    finally:
        psutil.Process(pid).kill()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the other process is gone")


def test_an_open_socket_is_found(before: Before) -> None:
    with socket.socket(socket.AF_UNIX):
        [leak] = before.leaks()
        assert "socket" in leak
    assert before.leaks() == []


def test_an_open_file_is_found(before: Before, root: Path) -> None:
    with (root / "left-open").open("w"):
        [leak] = before.leaks()
        assert leak.endswith("left-open") or "inode" in leak
    assert before.leaks() == []


def test_a_signal_that_is_heard_no_more_is_found_and_heard_again(before: Before) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    [leak] = before.leaks()
    assert leak.startswith("signals ")
    assert before.leaks() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_file_outside_of_the_tests_folder_is_found(before: Before) -> None:
    path = before.watched[0] / "stray"
    path.touch()
    assert before.leaks() == [f"file {path}"]


async def test_a_task_that_goes_on_is_found() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.sleep(60), name="goes on")
    [leak] = new_tasks(before)
    assert "goes on" in leak
    task.cancel()


def test_home_and_temporary_files_are_the_tests_own(root: Path, evflow_home: Path) -> None:
    assert os.environ["EVFLOW_HOME"] == str(evflow_home)
    assert Path.home().is_relative_to(root)
    assert Path.cwd().is_relative_to(root)
    assert Path(tempfile.gettempdir()).is_relative_to(root)
    assert {name for name in os.environ if name.startswith("EVFLOW_")} <= {
        "EVFLOW_HOME",
        "EVFLOW_LINGER_S",
        "EVFLOW_RETRY_SCALE",
        "EVFLOW_TEST_ROOT",
        "EVFLOW_TEST_SCALE",
        "EVFLOW_TEST_SEED",
    }


def test_a_socket_path_under_evflow_home_fits(evflow_home: Path) -> None:
    assert len(str(evflow_home)) < 40


def test_the_fixtures_fail_a_test_that_leaks(pytester: pytest.Pytester) -> None:
    """The wiring, not only the parts: a nested pytest run with this very conftest."""
    pytester.makeini("[pytest]\nanyio_mode = auto\nmarkers = may_block(reason): x\n  virtual_time: x\n")
    pytester.makeconftest("from tests.conftest import *")
    pytester.makepyfile("""
        import asyncio, socket
        import evflow.testing.virtual_time as ours
        kept = []

        async def test_task():
            kept.append(asyncio.create_task(asyncio.sleep(60)))

        def test_socket():
            kept.append(socket.socket())

        async def test_blocks():
            code = compile("import time; time.sleep(0.001)", ours.__file__, "exec")
            exec(code)

        async def test_clean():
            await asyncio.sleep(0)
    """)
    result = pytester.runpytest_subprocess("-pno:valkey", "-pno:cacheprovider", "--import-mode=importlib", "-q")
    result.assert_outcomes(passed=2, failed=2, errors=1)
    result.stdout.fnmatch_lines_random(["*asyncio task*", "*descriptor * socket:*", "*Blocking call to time.sleep*"])
