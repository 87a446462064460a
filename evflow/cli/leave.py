"""Leave a process that has done its work, without taking it apart.

At its end the interpreter frees every module and object one by one: 30 ms of every command, for memory that the kernel takes
back at once. So what the process promised to do at its end is done (exit callbacks, the streams), and then it ends.
"""

import atexit
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn


def leave(code: int, caller: FrameType | None = None, *, first: Callable[[], object] | None = None) -> NoReturn:
    """End this process with an exit code. One Ctrl-C more, from here on, does not give it another one.

    The interpreter ends as it always does where somebody could notice the difference: a thread is still there that must be
    waited for, or the code that called us may have a `finally`.

    Args:
        code: The exit code.
        caller: The user's frame that the command line was started from, if there is one.
        first: What to do before anything else.
    """
    signal, on_ctrl_c = sys.modules.get("signal"), None
    if signal is not None:  # what has not imported it is short; its import would be a hundredth of it
        with suppress(ValueError):  # not the main thread: no Ctrl-C comes here
            on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
    if first is not None:
        first()
    run_callbacks = getattr(atexit, "_run_exitfuncs", None)
    threads = "threading" in sys.modules and _has_others(sys.modules["threading"])
    if run_callbacks is None or threads or _may_catch(caller):
        gc.enable()  # code of the user's goes on
        if signal is not None and on_ctrl_c is not None:
            signal.signal(signal.SIGINT, on_ctrl_c)
        sys.exit(code)
    run_callbacks()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a closed pipe, a closed stream, no stream at all
            stream.flush()
    os._exit(code)


def _may_catch(frame: FrameType | None) -> bool:
    """Whether this frame or one around it has a `try` or a `with`."""
    while frame is not None:
        if getattr(frame.f_code, "co_exceptiontable", b"?"):
            return True
        frame = frame.f_back
    return False


def _has_others(threading: Any) -> bool:
    return any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate())
