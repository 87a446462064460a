"""Attempt locks: who runs an attempt right now, answered by the kernel.

Each run has one lock file. An attempt holds a POSIX record lock on one byte of it from before its body until its
exit. The kernel names the holder's pid (F_GETLK), frees the lock at the holder's death however it dies, and no
child inherits it. So "is it still running?" needs no heartbeat and no pid file, and a second process of the same
attempt cannot start its body.

The trap of POSIX locks: a process loses its lock when it closes *any* descriptor of the file. Therefore a process
that holds one asks through the descriptor that it keeps, never through a new one.
"""

import fcntl
import os
import struct
import sys
from typing import Final

from evflow.errors import Conflict, EnvironmentProblem

ATTEMPTS_A_TASK: Final = 4096
"""Bytes between two tasks in the lock file; nothing is written there, so the file stays empty."""

# `struct flock`, which the two systems lay out differently: (format, index of the pid).
_FLOCK: Final = ("qqihh", 2) if sys.platform == "darwin" else ("hhqqi", 4)
_held: Final[dict[str, int]] = {}


class AttemptRuns(Conflict):
    """Another process runs this attempt: its twin must not start."""

    code = "attempt-runs"

    def __init__(self, lock_file: str, task: int, attempt: int, pid: int | None) -> None:
        super().__init__(f"Attempt {attempt} of task {task} is run by process {pid or '?'} (lock file {lock_file}).")
        self.pid = pid


class LocksUnusable(EnvironmentProblem):
    """The file system has no record locks, or refuses the file."""

    code = "locks-unusable"

    def __init__(self, lock_file: str, error: OSError) -> None:
        super().__init__(
            f"The lock file '{lock_file}' cannot be used: {error.strerror or error}.",
            "EVFLOW_HOME must lie on a file system with locks, writable for you; a local disk always is.",
        )


def take(lock_file: str, task: int, attempt: int) -> None:
    """Hold the attempt's lock until this process ends.

    Raises:
        AttemptRuns: Another process holds it.
        LocksUnusable: The file cannot be opened or locked.
    """
    try:
        descriptor = _held.get(lock_file)
        if descriptor is None:
            descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _held[lock_file] = descriptor
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(task, attempt))
    except (BlockingIOError, PermissionError) as error:
        pid = holder(lock_file, task, attempt) if os.path.exists(lock_file) else None  # noqa: PTH110 - pathlib is a heavy import
        if pid is None and isinstance(error, PermissionError):
            raise LocksUnusable(lock_file, error) from error
        raise AttemptRuns(lock_file, task, attempt, pid) from None
    except OSError as error:
        raise LocksUnusable(lock_file, error) from error


def holder(lock_file: str, task: int, attempt: int) -> int | None:
    """The pid of the process that runs the attempt, or None where nobody does.

    0 says that somebody does whose pid cannot be seen from here (another container). This process's own lock
    does not count: the kernel answers what stands in *our* way.

    Raises:
        LocksUnusable: The file cannot be opened or asked.
    """
    descriptor = _held.get(lock_file)
    try:
        if descriptor is not None:
            return _ask(descriptor, task, attempt)
        try:
            descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return _ask(descriptor, task, attempt)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LocksUnusable(lock_file, error) from error


def forget_held() -> None:
    """In a fresh fork: the parent's locks are not ours, and its descriptors are about to be closed."""
    _held.clear()


def _ask(descriptor: int, task: int, attempt: int) -> int | None:
    layout, pid_at = _FLOCK
    place = _place(task, attempt)
    if sys.platform == "darwin":
        question = struct.pack(layout, place, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
    else:
        question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    kind = answer[3] if sys.platform == "darwin" else answer[0]
    return None if kind == fcntl.F_UNLCK else max(0, answer[pid_at])


def _place(task: int, attempt: int) -> int:
    return task * ATTEMPTS_A_TASK + attempt
