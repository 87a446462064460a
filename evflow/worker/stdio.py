"""Standard streams of an attempt and of its supervisor.

Text that Python holds back in its own buffers, or C in its, is written before a process leaves without finalising.
"""

import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from evflow.masking import announcement
from evflow.worker import parentage

_replaced: Final[list[object]] = []
"""Streams that were put aside: their end would write what they still hold a second time."""


def open_line_buffered() -> None:
    """Have `sys.stdout` and `sys.stderr` write UTF-8 to descriptors 1 and 2, line by line.

    Where they do that already, by another encoding or buffer, they are told otherwise and stay the same objects:
    a log handler may hold them.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream: object = getattr(sys, name)
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and _number(stream) == descriptor:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)
            continue
        _replaced.append(stream)
        raw = open(descriptor, "wb", closefd=False)  # noqa: SIM115
        fresh = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)


def forget_stdin() -> None:
    """Have descriptor 0 and `sys.stdin` read nothing."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    stdin: object = sys.stdin
    if _number(stdin) == 0:
        return
    _replaced.append(stdin)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115


def announce_masks(pieces: Iterable[bytes]) -> None:
    """Tell whoever reads the two streams what is to be masked in them (`evflow.masking`)."""
    flush()
    for line in announcement(pieces):
        for descriptor in (1, 2):
            with suppress(OSError):  # it was closed: nothing is printed there
                os.write(descriptor, line)


def flush() -> None:
    """Write what Python and C still hold of the two streams."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a body may have put anything in their place
            stream.flush()
    with suppress(OSError, AttributeError):
        parentage.flush_c()


def _number(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined,no-any-return]
    except (OSError, ValueError, AttributeError):
        return None
