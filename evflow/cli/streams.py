"""Standard streams that take less than they are given: closed ones (`>&-`), full disks, readers that left, encodings without a character."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def open_closed() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed, before another file gets that number, and a stream where Python has none."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if not _is_open(descriptor):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)  # a standard stream is inherited, what `open` gives is not
            if null != descriptor:
                os.close(null)
            else:
                os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            stream = open(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def take_any_text() -> None:
    """Let stdout write what its encoding has no characters for as escapes, as stderr does: a name in a log is no reason to lose the rest."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # what a caller has put in the place of stdout may have none
    if reconfigure is not None and sys.stdout.errors == "strict":
        reconfigure(errors="backslashreplace")


def to_nowhere(stream: TextIO) -> None:
    """Drop what a stream holds and all that will be written to it: its buffer would fail again at each flush, and at the process's end."""
    with suppress(OSError, ValueError):  # a stream without a descriptor holds nothing that matters
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
