"""What an executor and its supervisor say to each other over a stream socket.

A frame is a msgpack array that begins with its kind; msgpack tells where it ends. `run` is `Flow/3`.

To the supervisor:

    context  run, RunContext.pack()             before the first launch of a run
    launch   run, task, attempt, AttemptOrder.pack(), AttemptOrder.reuse
    forget   run                                no launch of the run will follow, unless its context comes again
    cancel   run, task, attempt, grace_s        SIGTERM, after the grace SIGKILL
    shutdown grace_s                            cancel everything, then leave

From it:

    ready    pid, method, why
    loaded   method, why                        once, after the first context: from now on attempts can begin
    started  run, task, attempt, pid, at_us
    lines    run, task, attempt, stream, [[at_us, text, ends], ...]
    exited   run, task, attempt, exit code, signal, why

For each attempt `started` comes before its `lines`, and `exited` comes once, after everything else. An attempt that
could not be started has `exited` only. End-of-file from the executor means that the owner is dead.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgpack

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""An order carries a join's members: 44 bytes each, so that a join of 300,000 fits."""
READ_BYTES: Final = 256 * 1024

CONTEXT: Final = "context"
LAUNCH: Final = "launch"
FORGET: Final = "forget"
CANCEL: Final = "cancel"
SHUTDOWN: Final = "shutdown"
READY: Final = "ready"
LOADED: Final = "loaded"
STARTED: Final = "started"
LINES: Final = "lines"
EXITED: Final = "exited"


def frame(*values: Any) -> bytes:
    """A frame as bytes."""
    packed: bytes = msgpack.packb(values)
    return packed


class FrameReader:
    """Turns received bytes into frames."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=2 * MAX_FRAME_BYTES)

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """The frames that are complete with these bytes."""
        self._unpacker.feed(data)
        yield from self._unpacker
