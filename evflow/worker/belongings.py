"""What a new process would have found, put back between two attempts of one process.

What the kernel and Python keep for the whole process and a body can have changed: environment, working folder, umask,
signal handlers, timers, limits, `sys.path`, `sys.argv`, standard streams. What lives in modules is not touched: a model or a
connection that a module of the user's keeps is what a process is reused for.

What cannot be put back is seen, and ends the process: children and threads that go on, descriptors of ours that the body closed
or turned elsewhere, another user, group, session or priority, a lowered hard limit.
"""

import atexit
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow.imports import user_view
from evflow.worker.forks import set_handler, set_mask

_get_handler: Final[Any] = vars(signal)["_signal"].getsignal
_SIGNALS: Final = tuple(sorted(int(number) for number in signal.valid_signals()))
_FIXED: Final = frozenset(map(int, (signal.SIGKILL, signal.SIGSTOP)))
_SETMASK: Final = int(signal.SIG_SETMASK)
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS: Final = tuple(sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}))
_STREAMS: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


class Belongings:
    """A process as it is now.

    Args:
        pipes: Descriptors of ours, which must stay what they are.
    """

    def __init__(self, pipes: Sequence[int]) -> None:
        self._descriptors = (1, 2, *pipes)
        self._environment = os.environ
        self._variables = dict(_variables(os.environ))
        self._folder = os.getcwd()  # noqa: PTH109 - pathlib is a heavy import
        self._umask = _umask()
        self._handlers = {number: _get_handler(number) for number in _SIGNALS if number not in _FIXED}
        self._limits = {which: resource.getrlimit(which) for which in _LIMITS}
        self._recursion = sys.getrecursionlimit()
        self._argv = list(sys.argv)
        self._streams = {name: getattr(sys, name) for name in _STREAMS}
        with user_view():
            self._path = list(sys.path)
        self._identity = self._identify()

    def put_back(self) -> bool:
        """Put everything back; returns False where that cannot be: the process has to end then."""
        try:
            if self._identify() != self._identity or _has_children() or _has_threads():
                return False
            self._put_back()
        except (OSError, ValueError, RecursionError):  # its folder is gone, a limit cannot be raised, a descriptor was closed
            return False
        return True

    def _put_back(self) -> None:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, handler in self._handlers.items():
            if handler is not None and _get_handler(number) is not handler:
                set_handler(number, handler)
        set_mask(_SETMASK, ())
        self._put_variables_back()
        os.chdir(self._folder)
        os.umask(self._umask)
        for which, limit in self._limits.items():
            if resource.getrlimit(which) != limit:
                resource.setrlimit(which, limit)
        sys.setrecursionlimit(self._recursion)
        sys.argv[:] = self._argv
        for name, stream in self._streams.items():
            setattr(sys, name, stream)
        with user_view():
            if sys.path != self._path:
                sys.path[:] = self._path

    def _put_variables_back(self) -> None:
        """Touch those that differ; each attempt has some of its own, and to write all anew takes longer than the attempt."""
        now = _variables(self._environment)
        if now != self._variables:
            for name in now.keys() - self._variables.keys():
                del os.environb[name]
            for name, said in self._variables.items() - now.items():
                os.environb[name] = said

    def _identify(self) -> tuple[object, ...]:
        """What nobody can put back, or must not have changed."""
        files = [os.fstat(descriptor) for descriptor in self._descriptors]
        return (
            *((file.st_dev, file.st_ino) for file in files),
            id(os.environ),
            os.getpgrp(),
            os.getsid(0),
            os.geteuid(),
            os.getegid(),
            os.getpriority(os.PRIO_PROCESS, 0),
            vars(atexit)["_ncallbacks"](),
        )


def _variables(environment: Mapping[str, str]) -> dict[bytes, bytes]:
    """What is behind `os.environ`, as bytes: a look at it through the mapping decodes each name and value."""
    found: dict[bytes, bytes] = vars(environment)["_data"]
    return found


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _has_children() -> bool:
    """Whether a process goes on that an attempt started, or that lost its parent below; zombies are cleared away."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _has_threads() -> bool:
    threading = sys.modules.get("threading")
    return threading is not None and threading.active_count() > 1
