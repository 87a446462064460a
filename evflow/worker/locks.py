"""Attempt locks: who runs an attempt right now, answered by the kernel.

Each run has one lock file. An attempt holds a POSIX record lock on one byte of it from before its body until its
exit. The kernel names the holder's pid (F_GETLK), frees the lock at the holder's death however it dies, and no
child inherits it. So "is it still running?" needs no heartbeat and no pid file, and a second process of the same
attempt cannot start its body.

Who declares an attempt dead writes a mark into its byte, under a lock. So an attempt whose process had not come as
far as its lock, or whose launch a stopped owner sends when it is resumed, finds the mark and does not start either. That lock
is a shared one, as no attempt's is: nobody takes an owner that declares an attempt dead for the attempt.

The trap of POSIX locks: a process loses its lock when it closes *any* descriptor of the file. Therefore a process
that holds one asks through the descriptor that it keeps, never through a new one.
"""

import fcntl
import os
import struct
import sys
from contextlib import suppress
from typing import Final

from evflow.errors import Conflict, EnvironmentProblem

ATTEMPTS_A_TASK: Final = 4096
"""Bytes between two tasks in the lock file. Marks are rare, so the file is sparse, and mostly empty."""
_GIVEN_UP: Final = b"x"

# `struct flock`, which the two systems lay out differently: (format, index of the pid).
_FLOCK: Final = ("qqihh", 2) if sys.platform == "darwin" else ("hhqqi", 4)
_held: Final[dict[str, tuple[int, os.stat_result]]] = {}
"""The descriptor of each lock file that this process has open, and which file that is."""


class AttemptRuns(Conflict):
    """Another process runs this attempt: its twin must not start."""

    code = "attempt-runs"

    def __init__(self, lock_file: str, task: int, attempt: int, pid: int | None) -> None:
        super().__init__(f"Attempt {attempt} of task {task} is run by process {pid or '?'} (lock file {lock_file}).")
        self.pid = pid


class AttemptGivenUp(Conflict):
    """A later owner of the run has declared this attempt dead: it must not start."""

    code = "attempt-given-up"

    def __init__(self, lock_file: str, task: int, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} of task {task} was given up before it started (lock file {lock_file}).")


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
        AttemptGivenUp: It was declared dead.
        LocksUnusable: The file cannot be opened or locked.
    """
    try:
        if lock_file not in _held:
            opened = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _held[lock_file] = opened, os.fstat(opened)
        descriptor, _ = _held[lock_file]
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(task, attempt))
        given_up = os.pread(descriptor, 1, _place(task, attempt)) == _GIVEN_UP
    except (BlockingIOError, PermissionError) as error:
        pid = holder(lock_file, task, attempt) if os.path.exists(lock_file) else None  # noqa: PTH110 - pathlib is a heavy import
        if pid is None and isinstance(error, PermissionError):
            raise LocksUnusable(lock_file, error) from error
        raise AttemptRuns(lock_file, task, attempt, pid) from None
    except OSError as error:
        raise LocksUnusable(lock_file, error) from error
    if given_up:
        raise AttemptGivenUp(lock_file, task, attempt)


def release(lock_file: str) -> None:
    """Free this process's locks of a run: its attempt is over, and the process goes on to another one.

    A body that closed the descriptor freed them, and the number may be that of a file of its own now, which stays open.
    """
    held = _held.pop(lock_file, None)
    if held is not None:
        descriptor, file = held
        with suppress(OSError):  # nothing has that number
            if os.path.samestat(os.fstat(descriptor), file):
                os.close(descriptor)


def give_up(lock_file: str, task: int, attempt: int) -> bool:
    """Declare the attempt dead for ever, unless a process holds its lock; not for a process that holds locks itself.

    Returns:
        Whether it is dead now.

    Raises:
        LocksUnusable: The file cannot be opened, locked or written.
    """
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _place(task, attempt))
            os.pwrite(descriptor, _GIVEN_UP, _place(task, attempt))
        finally:
            os.close(descriptor)  # frees the lock, too
    except (BlockingIOError, PermissionError) as error:
        if holder(lock_file, task, attempt) is None and isinstance(error, PermissionError):
            raise LocksUnusable(lock_file, error) from error
        return False
    except OSError as error:
        raise LocksUnusable(lock_file, error) from error
    return True


def holder(lock_file: str, task: int, attempt: int) -> int | None:
    """The pid of the process that runs the attempt, or None where nobody does.

    0 says that somebody does whose pid cannot be seen from here (another container). This process's own lock
    does not count: the kernel answers what stands in *our* way.

    Raises:
        LocksUnusable: The file cannot be opened or asked.
    """
    held = _held.get(lock_file)
    try:
        if held is not None:
            return _ask(held[0], task, attempt)
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
    return max(0, answer[pid_at]) if kind == fcntl.F_WRLCK else None


def _place(task: int, attempt: int) -> int:
    return task * ATTEMPTS_A_TASK + attempt
