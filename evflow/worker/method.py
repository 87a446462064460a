"""How attempts are started: forked from a process that has the flow loaded, or each as a fresh interpreter.

A fork costs one to three milliseconds, a fresh interpreter as long as the flow's imports take. But a fork copies one
thread only: where the flow's modules started others, or talk to a device, the copy may hang or crash. So those flows
are spawned, with one line that says why; `--start-method` decides otherwise.
"""

import sys
from typing import Any, Final, Literal, NamedTuple

from evflow.errors import UsageError

Method = Literal["fork", "spawn"]

UNFORKABLE: Final[dict[str, str]] = {
    "polars": "its thread pool does not survive a fork",
    "grpc": "its threads do not survive a fork",
    "jax": "it is multithreaded, and a fork of it may hang",
    "tensorflow": "its runtime does not survive a fork",
    "ray": "its connection to the cluster does not survive a fork",
    "cupy": "CUDA does not survive a fork",
    "gevent": "its event loop does not survive a fork",
    "tkinter": "its connection to the display does not survive a fork",
}
"""Modules after whose import a process must not be forked, each with the reason.

Not here, because tried and known to survive: numpy and OpenBLAS (which restarts its threads in the child), pandas,
pyarrow, scikit-learn, torch on the CPU (as long as no tensor was computed in parallel before the fork).
"""


class StartMethod(NamedTuple):
    """The method, and why it is not the usual one (a clause for people, or an empty string)."""

    method: Method
    why: str


class StartMethodUnknown(UsageError):
    """Neither `fork`, nor `spawn`, nor `auto`."""

    code = "start-method-unknown"

    def __init__(self, value: str) -> None:
        super().__init__(f"'{value}' is no start method.", "Use fork, spawn, or auto (the default).")


def choose(asked: str = "auto") -> StartMethod:
    """Choose for what is loaded in this process.

    Raises:
        StartMethodUnknown: `asked` is none of `auto`, `fork` and `spawn`.
    """
    if asked == "fork":
        return StartMethod("fork", "")
    if asked == "spawn":
        return StartMethod("spawn", "asked for")
    if asked not in {"auto", ""}:
        raise StartMethodUnknown(asked)
    why = _why_not_fork()
    return StartMethod("spawn" if why else "fork", why)


def explain(method: StartMethod) -> str:
    """The one line that says why attempts are spawned."""
    return f"Attempts are started as fresh interpreters, not forked: {method.why}. --start-method fork decides otherwise."


def _why_not_fork() -> str:
    if sys.platform == "darwin":
        return "macOS's system libraries do not survive a fork"
    for name, reason in UNFORKABLE.items():
        if name in sys.modules:
            return f"the flow imports {name}, and {reason}"
    threads = _python_threads()
    if threads:
        return f"the flow's modules started {threads} thread{'s' if threads > 1 else ''}, which a fork would lose"
    if _cuda_in_use(sys.modules.get("torch")):
        return "the flow's modules initialised CUDA, which does not survive a fork"
    return ""


def _python_threads() -> int:
    import _thread

    count: int = vars(_thread)["_count"]()  # what `threading` counts, without importing it
    return count


def _cuda_in_use(torch: Any) -> bool:
    cuda = getattr(torch, "cuda", None)
    return bool(cuda is not None and cuda.is_initialized())
