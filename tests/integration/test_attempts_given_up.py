"""An attempt that was declared dead never starts, however late its process comes."""

import subprocess
import sys
from pathlib import Path

import pytest

from evflow.core.ids import AttemptId
from evflow.worker import leftovers, locks
from tests.waiting import wait_until

ATTEMPT = AttemptId.parse("LateFlow/1/7.0")
TAKE = "import sys; from evflow.worker import locks; locks.take(sys.argv[1], 7, 0); print('started', flush=True); sys.stdin.read()"


def attempt(lock_file: Path) -> "subprocess.Popen[str]":
    """A process that starts the attempt, as far as its lock."""
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(lock_file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_an_attempt_that_was_ended_before_it_took_its_lock_does_not_start(tmp_path: Path) -> None:
    """A stopped owner that is resumed may still launch what its successor has given up."""
    lock_file = tmp_path / "locks"
    assert leftovers.end_attempt(str(lock_file), ATTEMPT) == 0
    late = attempt(lock_file)
    out, err = late.communicate(timeout=60)
    assert out == ""
    assert "AttemptGivenUp" in err


def test_another_attempt_of_the_task_starts(tmp_path: Path) -> None:
    """The mark is the attempt's alone."""
    lock_file = tmp_path / "locks"
    leftovers.end_attempt(str(lock_file), AttemptId.parse("LateFlow/1/7.1"))
    other = attempt(lock_file)
    out, _ = other.communicate("", timeout=60)
    assert out == "started\n"


def test_a_running_attempt_is_not_given_up_while_it_lives(tmp_path: Path) -> None:
    """`end_attempt` kills it first."""
    lock_file = tmp_path / "locks"
    with attempt(lock_file) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        assert not locks.give_up(str(lock_file), 7, 0)
        assert leftovers.end_attempt(str(lock_file), ATTEMPT) == 1
        assert wait_until(running.poll, "the attempt is dead") == -9
    assert locks.give_up(str(lock_file), 7, 0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Whoever cannot mark an attempt must not take it for dead."""
    with pytest.raises(locks.LocksUnusable, match="nowhere"):
        locks.give_up(str(tmp_path / "nowhere" / "locks"), 7, 0)


GIVE_UP_SLOWLY = """
import os, sys, time
from evflow.worker import locks
write = os.pwrite
def slowly(*arguments):
    print("stopped", flush=True)
    sys.stdin.readline()
    return write(*arguments)
os.pwrite = slowly
locks.give_up(sys.argv[1], 7, 0)
"""


def test_an_owner_in_the_middle_of_giving_an_attempt_up_is_not_taken_for_the_attempt(tmp_path: Path) -> None:
    """Two schedulers of one machine may do so at once, and one may be stopped there; the other killed it, and all that it ran."""
    lock_file = tmp_path / "locks"
    slow = subprocess.Popen(
        [sys.executable, "-c", GIVE_UP_SLOWLY, str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert slow.stdout is not None
    assert slow.stdout.readline() == "stopped\n"
    assert locks.holder(str(lock_file), 7, 0) is None
    with attempt(lock_file) as late:
        out, err = late.communicate(timeout=60)
    assert (out, "AttemptRuns" in err) == ("", True)
    assert leftovers.end_attempt(str(lock_file), ATTEMPT) == 0
    assert slow.poll() is None
    slow.communicate("\n", timeout=60)
    assert slow.returncode == 0
    with attempt(lock_file) as later:
        _, err = later.communicate(timeout=60)
    assert "AttemptGivenUp" in err
