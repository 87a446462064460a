"""Ends what an attempt started, and an attempt whose owner is gone.

An attempt leads a session and a process group of its own, so one kill of the group ends it and nearly all of its
children. A child that left the group (a daemon, a shell with job control, another session) is found by its
session, or by the marker that every program started by a body carries in its environment.

Nothing is killed by a number alone: a pid may belong to somebody else by now. A group's number stays taken while
one of its members, a zombie included, exists; psutil compares start times before it signals.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from evflow.clock import monotonic_s
from evflow.core.ids import AttemptId
from evflow.errors import EnvironmentProblem
from evflow.worker import locks

if TYPE_CHECKING:
    import psutil

ATTEMPT_VARIABLE: Final = "EVFLOW_ATTEMPT"
"""In the environment of a body: its attempt, as `Flow/3/17.0`."""
LOCKS_VARIABLE: Final = "EVFLOW_ATTEMPT_LOCKS"
"""Beside it: the run's lock file, which tells two installations' `Flow/3` apart."""

LEAVING_S: Final = 0.02
"""How long a process that was told to leave may take, before it is looked for."""
FREE_WITHIN_S: Final = 10.0
"""How long a killed process may need to disappear (a core dump, a hanging file system)."""


class AttemptWillNotEnd(EnvironmentProblem):
    """A process was killed and still holds its lock."""

    code = "attempt-will-not-end"

    def __init__(self, attempt: AttemptId, pid: int) -> None:
        super().__init__(
            f"Attempt '{attempt}' is still run by process {pid or '(of another container)'}, {FREE_WITHIN_S:g} s after it was killed.",
            "It hangs in the kernel or cannot be seen from here. End it yourself, then try again.",
        )


def end_attempt(lock_file: str, attempt: AttemptId, *, grace_s: float = 0.0) -> int:
    """End an attempt wherever it came from, with everything that it started, and see that it never starts again.

    Blocking: up to `grace_s` for it to end itself after SIGTERM, then `FREE_WITHIN_S` after SIGKILL.

    Returns:
        How many processes were told to end.

    Raises:
        AttemptWillNotEnd: It holds its lock even so.
        LocksUnusable: The lock file cannot be asked.
    """
    leader = locks.holder(lock_file, attempt.task, attempt.attempt)
    ended = 0
    members: list[psutil.Process] = []
    if leader:
        members = in_session(leader)
        if grace_s > 0:
            kill_group(leader, signal.SIGTERM)
            _wait(lambda: locks.holder(lock_file, attempt.task, attempt.attempt) != leader, grace_s)
        if locks.holder(lock_file, attempt.task, attempt.attempt) == leader:
            kill_group(leader, signal.SIGKILL)
            ended += 1
    ended += kill([*members, *(process for process, name in marked(lock_file) if name == str(attempt))])

    def is_given_up() -> bool:
        if locks.give_up(lock_file, attempt.task, attempt.attempt):
            return True
        late = locks.holder(lock_file, attempt.task, attempt.attempt)
        if late and late != leader:  # it was on its way to its lock
            kill_group(late, signal.SIGKILL)
        return False

    if not _wait(is_given_up, FREE_WITHIN_S):
        raise AttemptWillNotEnd(attempt, locks.holder(lock_file, attempt.task, attempt.attempt) or 0)
    return ended


def kill_group(leader: int, number: int) -> None:
    """Signal a process group; one that is gone already is no error.

    The caller knows that the number is still the group's: its leader lives, is a zombie of ours, or holds a lock.
    """
    if leader <= 1:  # 0 and 1 would mean our own group and everybody
        return
    with suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(leader, number)
        except ProcessLookupError:  # a fresh interpreter that does not lead its group yet
            os.kill(leader, number)


def in_session(leader: int) -> "list[psutil.Process]":
    """The processes of a session but for its leader. The caller knows that the session is still the one meant."""
    return [process for process in _others() if process.pid != leader and _session(process.pid) == leader]


def marked(lock_file: str) -> "list[tuple[psutil.Process, str]]":
    """The processes that carry the marker of an attempt of this run, each with the attempt's name."""
    import psutil  # 40 ms, needed only where something has to be cleaned up

    found: list[tuple[psutil.Process, str]] = []
    for process in _others():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(LOCKS_VARIABLE) == lock_file:
            found.append((process, environment.get(ATTEMPT_VARIABLE, "")))
    return found


def end_children() -> None:
    """Wait for the children of this process that are leaving, and kill the others, with theirs.

    They are what was left to a supervisor by its attempts. Usually there is none.
    """
    while not _wait(_no_child, LEAVING_S):
        import psutil

        kill(psutil.Process().children(recursive=True))


def _no_child() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def kill(processes: "Iterable[psutil.Process]") -> int:
    """Kill processes, each only if it is still the one that was found."""
    import psutil

    count = 0
    for process in set(processes):
        with suppress(psutil.Error):
            process.kill()
            count += 1
    return count


def _others() -> "Iterable[psutil.Process]":
    import psutil

    own = os.getpid()
    return (process for process in psutil.process_iter() if process.pid != own)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = monotonic_s() + timeout_s
    pause_s = 0.001
    while not condition():
        if monotonic_s() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(0.02, 2 * pause_s)
    return True
