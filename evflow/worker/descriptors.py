"""Which open files a forked process keeps.

A fork has a copy of every descriptor: the event log's sockets, lock files, other attempts' pipes. What the framework
opened is of no use in the copy and does harm there (a lock that does not end, a pipe without an end-of-file), so it is
closed. What the user's modules opened when they were imported is theirs: a regular file stays open, as after any fork
(a log handler goes on writing). A connection of theirs cannot be shared by processes: its number is kept and points to
/dev/null, so that an object that still uses it gets an error and never another file that got the number.
"""

import os
import resource
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress

_FIRST = 3
_ROOM = 64
"""Descriptors that an attempt may need behind its body: modules to read, objects to write, one connection."""


def keep_only(own: Collection[int], framework_folder: str) -> tuple[int, ...]:
    """In a fresh fork of the foreground: close what is the framework's, make the user's safe.

    Args:
        own: Descriptors of the caller, left as they are.
        framework_folder: Files below it are the framework's.

    Returns:
        The descriptors of the user's that stay, in order.
    """
    kept: list[int] = []
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _open_descriptors():
        if descriptor < _FIRST or descriptor == null or descriptor in own:
            continue
        if not _exists(descriptor):
            continue
        if _is_below(descriptor, framework_folder):
            os.close(descriptor)
            continue
        if not _is_file(descriptor):
            os.dup2(null, descriptor, inheritable=False)
        kept.append(descriptor)
    os.close(null)
    return tuple(sorted(kept))


def close_all_but(kept: Sequence[int]) -> None:
    """Close every descriptor from 3 on but these (in order): one system call where none is kept."""
    first = _FIRST
    for descriptor in kept:
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _limit())


def make_room() -> None:
    """Allow some more open files than the user's code had: one that used them all up could not even be reported.

    Nothing is gained where the limit is the hard one already.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    more = soft + _ROOM if hard == resource.RLIM_INFINITY else min(soft + _ROOM, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))


def _open_descriptors() -> list[int]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112 - pathlib is a heavy import
    return sorted(int(name) for name in os.listdir(folder))  # noqa: PTH208


def _exists(descriptor: int) -> bool:
    """False for the descriptor that listed the others."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _is_file(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _is_below(descriptor: int, folder: str) -> bool:
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        path = _path_on_macos(descriptor)
    return bool(folder) and path.startswith(folder.rstrip("/") + "/")


def _path_on_macos(descriptor: int) -> str:
    import fcntl

    command = getattr(fcntl, "F_GETPATH", None)
    if command is None or not _is_file(descriptor):
        return ""
    return os.fsdecode(fcntl.fcntl(descriptor, command, bytes(1024)).rstrip(b"\0"))


def _limit() -> int:
    try:
        limit = os.sysconf("SC_OPEN_MAX")
    except (OSError, ValueError):
        limit = -1
    return min(limit, 1 << 20) if limit > 0 else 65_536
