"""The two locks of an embedded server, of two kinds on purpose.

`clients.lock` is a POSIX record lock: a forked child does not inherit it, so a fork server or a task that outlives
its run never keeps the server alive. Such a lock belongs to a process and a file, and closing *any* descriptor of the
file gives it up; therefore one descriptor a process, here, and nobody else opens the file.

`guard.lock` is a flock: it belongs to an open file and passes with its descriptor, from the client that starts a
server to the guard.
"""

import errno
import fcntl
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from evflow.log.embedded.problems import HomeUnusable

_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO})


class LocksUnsupported(Exception):
    """The file system has no locks."""


class _Held:
    """A process's one descriptor of a `clients.lock`, and how many of its servers share it."""

    __slots__ = ("count", "fd", "pid")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pid = os.getpid()
        self.count = 1


_held: dict[str, _Held] = {}
_guarding = threading.Lock()


def join(path: Path) -> bool:
    """Become a client; False while a guard is stopping the server.

    Raises:
        LocksUnsupported: The file system has no locks.
        HomeUnusable: The file cannot be opened.
    """
    key = str(path)
    with _guarding:
        held = _held.get(key)
        if held is not None and held.pid == os.getpid():
            held.count += 1
            return True
        # A descriptor that came with a fork is left alone: it holds nothing, and its number may be another file by now.
        fd = _opened(path)
        try:
            locked = _try(fcntl.lockf, fd, fcntl.LOCK_SH)
            if locked:
                os.utime(fd)  # the guard's linger begins anew
        except BaseException:
            os.close(fd)
            raise
        if locked:
            _held[key] = _Held(fd)
        else:
            os.close(fd)
        return locked


def leave(path: Path) -> None:
    """Be a client no longer, once for each `join`."""
    key = str(path)
    with _guarding:
        held = _held.get(key)
        if held is None or held.pid != os.getpid():
            return
        held.count -= 1
        if held.count == 0:
            del _held[key]
            os.close(held.fd)


def other_client(path: Path) -> int | None:
    """The pid of a client in another process; 0 where the system does not name it; None where there is none."""
    key = str(path)
    with _guarding:
        held = _held.get(key)
        own = held is not None and held.pid == os.getpid()
        fd = held.fd if held is not None and own else _opened(path)
        try:
            return _holder(fd)
        finally:
            if not own:
                os.close(fd)


def responsibility(path: Path) -> int | None:
    """A descriptor that holds `guard.lock`, or None: somebody is responsible for the server already.

    Raises:
        LocksUnsupported: The file system has no locks.
        HomeUnusable: The file cannot be opened.
    """
    fd = _opened(path)
    try:
        locked = _try(fcntl.flock, fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    if not locked:
        os.close(fd)
        return None
    return fd


def is_guarded(path: Path) -> bool:
    """Whether somebody is responsible for the server."""
    fd = responsibility(path)
    if fd is None:
        return True
    os.close(fd)
    return False


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeUnusable(path, error.strerror or str(error)) from error


def _try(lock: Callable[[int, int], None], fd: int, kind: int) -> bool:
    try:
        lock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # EACCES is POSIX's other word for "held by somebody"
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LocksUnsupported from error
        raise
    return True


def _holder(fd: int) -> int | None:
    # struct flock: <fcntl.h> of Linux (64 bit) and of macOS.
    if sys.platform == "darwin":
        asked = struct.pack("qqihh", 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        _, _, pid, kind, _ = struct.unpack("qqihh", fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    else:
        layout = "hhqqi4x"
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    # An exclusive holder is the guard, not a client.
    return max(0, int(pid)) if kind == fcntl.F_RDLCK else None
