"""Attempt locks: the kernel says who holds one, and frees it at a death."""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evflow.worker import locks


@contextmanager
def a_process(act: Callable[[], None]) -> Generator[int]:
    """A child that acts, says so, and lives until the end of the block."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        locks.forget_held()
        act()
        os.write(writing, b"x")
        signal.pause()
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_holder_is_named_by_its_pid_and_gone_with_its_death(root: Path) -> None:
    file = str(root / "locks")
    with a_process(lambda: locks.take(file, 7, 2)) as pid:
        assert locks.holder(file, 7, 2) == pid
        assert locks.holder(file, 7, 1) is None
        assert locks.holder(file, 8, 2) is None
    assert locks.holder(file, 7, 2) is None


def test_a_twin_cannot_take_the_lock(root: Path) -> None:
    file = str(root / "locks")
    with a_process(lambda: locks.take(file, 1, 0)) as pid:
        with pytest.raises(locks.AttemptRuns, match="task 1") as caught:
            locks.take(file, 1, 0)
        assert caught.value.pid == pid
        _close(file)


def test_asking_about_others_does_not_lose_ones_own_lock(root: Path) -> None:
    file = str(root / "locks")

    def take_and_ask() -> None:
        locks.take(file, 1, 0)
        for task in range(5):
            locks.holder(file, task, 0)

    with a_process(take_and_ask) as pid:
        assert locks.holder(file, 1, 0) == pid


def test_children_of_the_holder_do_not_keep_the_lock(root: Path) -> None:
    file = str(root / "locks")
    reading, writing = os.pipe()

    def take_and_fork() -> None:
        locks.take(file, 1, 0)
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(writing, str(child).encode())

    with a_process(take_and_fork):
        child = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    assert locks.holder(file, 1, 0) is None
    os.kill(child, signal.SIGKILL)


def test_nobody_holds_a_lock_of_a_file_that_is_not_there(root: Path) -> None:
    assert locks.holder(str(root / "none"), 1, 0) is None


def test_a_lock_file_that_cannot_be_made_says_what_to_do(root: Path) -> None:
    with pytest.raises(locks.LocksUnusable, match="EVFLOW_HOME"):
        locks.take(str(root / "missing" / "locks"), 1, 0)


def test_a_file_that_took_the_number_of_a_lock_is_left_open(root: Path) -> None:
    file = str(root / "locks")
    locks.take(file, 1, 0)
    number, _ = locks._held[file]
    with (root / "own").open("w") as own:
        os.dup2(own.fileno(), number)  # closes it, as the body did whose next file got the number
    locks.release(file)
    assert os.write(number, b"mine") == 4
    os.close(number)


def _close(file: str) -> None:
    locks.release(file)
