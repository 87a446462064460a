"""Asyncio in virtual time: hours of timers in milliseconds, in the same order on every run.

A scheduler is mostly waiting: for retries, leases, time-outs, cron ticks. A test that waits for real is slow, and one that
shortens the waits tests other numbers than the ones in use. Here the loop's clock stands still while code runs, and when
nothing is ready it jumps to the next timer. (Prior art: trio's MockClock with autojump; the idea of tokio's paused time.)

Rules:

* Only what lives inside the loop takes part: coroutines, timers, anyio's streams and events. A thread, a process or a
  socket works in real time, which the jumping clock would outrun, so handing work to a thread is refused.
* Code under test reads the time from the loop (`anyio.current_time()`, or a clock made from `loop.time`), never from
  `time`.
* When no task is ready and no timer is set, nothing can ever happen again: that is a deadlock, and it raises `Deadlock`,
  naming the tasks and where each one waits, instead of hanging the test.

Use it directly with `run`, or give anyio the loop: `("asyncio", {"loop_factory": VirtualTimeLoop})`.
"""

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar

__all__ = ["Deadlock", "VirtualTimeLoop", "run"]

T = TypeVar("T")


class Deadlock(RuntimeError):
    """No task of the loop is ready and no timer is set.

    Attributes:
        waiting: One line for each unfinished task: its name and the place in the source where it waits.
    """

    def __init__(self, at_s: float, waiting: list[str]) -> None:
        self.at_s = at_s
        self.waiting = waiting
        places = "".join(f"\n  {line}" for line in waiting) or "\n  (no task is left)"
        super().__init__(f"Deadlock at virtual time {at_s:g} s: nothing is ready and no timer is set. Waiting:{places}")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `time()` is virtual: seconds, moved on only by timers.

    Args:
        start_s: What `time()` answers at first. A float holds microseconds exactly up to about 285 years.
    """

    _now_s = 0.0

    def __init__(self, start_s: float = 0.0) -> None:
        super().__init__(_JumpingSelector(self))
        self._set(start_s)

    def time(self) -> float:
        """Answer the virtual time in seconds."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Move the clock on by so many seconds, as a suspended machine or a stepped clock would.

        Timers that become due run in their order at the loop's next turn.

        Raises:
            ValueError: If `seconds` is negative: the clock of a loop is monotonic.
        """
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds:g} s")
        self._set(self._now_s + seconds)

    def _set(self, now_s: float) -> None:
        self._now_s = now_s
        # The base class runs what is due before `time() + resolution`. Where a float's steps are coarser than its
        # nanosecond (after three virtual months), that sum is `time()` itself, and a due timer would never run.
        self._clock_resolution = max(1e-9, math.ulp(now_s))

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuse: a thread works in real time, and the virtual clock would run ahead of it."""
        name = getattr(func, "__qualname__", repr(func))
        raise RuntimeError(
            f"{name} was handed to a thread inside virtual time. Call it directly, or pass in a simulated part that needs no thread."
        )


class _JumpingSelector(selectors.SelectSelector):
    """Look for ready descriptors without waiting; where the loop would have waited, move its clock instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Answer what is ready now. `timeout` is the time to the loop's next timer, None where there is none."""
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock(self._loop.time(), _waiting_tasks(self._loop))
        self._loop.jump(max(0.0, timeout))
        return ready


def run(func: Callable[..., Awaitable[T]], *args: Any, start_s: float = 0.0) -> T:
    """Run an async function to its end in virtual time, on a loop of its own.

    Raises:
        Deadlock: If it can never end.
    """

    async def main() -> T:
        return await func(*args)

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_s)) as runner:
        return runner.run(main())


def _waiting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    lines: list[str] = []
    for task in asyncio.all_tasks(loop):
        frames = task.get_stack()
        place = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "an unknown place"
        lines.append(f"{task.get_name()} at {place}")
    return sorted(lines)
