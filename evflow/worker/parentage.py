"""A process that ends when its parent does.

On Linux the kernel signals it (PR_SET_PDEATHSIG). The signal is sent when the *thread* that forked ends, so forks
are made by threads that live as long as their process. Elsewhere a pipe or socket of the parent's reaches its end.
"""

import os
import sys
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


class Orphaned(Exception):
    """The parent was gone before this process could ask to be told."""


def die_with(parent: int, number: int) -> None:
    """Have this process sent a signal when its parent dies.

    Costs a system call once `ctypes` is loaded (3 ms); `warm` loads it ahead of a fork.

    Raises:
        Orphaned: The parent is gone already.
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        raise Orphaned


def adopt_orphans() -> None:
    """Have processes whose parents below this one die become its children, where the system can (Linux)."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def flush_c() -> None:
    """Write what C code of this process printed and C's library still holds."""
    _libc().fflush(None)


def warm() -> None:
    """Load what the others need."""
    libc = _libc()
    assert libc.prctl is not None if sys.platform == "linux" else libc.fflush is not None


_loaded: Any = None


def _libc() -> Any:  # a `ctypes.CDLL`; naming its type would import it
    global _loaded
    if _loaded is None:
        import ctypes

        _loaded = ctypes.CDLL(None)
    return _loaded
