"""Waiting for real processes. Whatever lives inside one event loop is tested in virtual time instead."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import psutil

T = TypeVar("T")

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05
WITHIN_S = 60.0
"""Says nothing of speed: a machine that is busy, and stands still for seconds, is waited for. Only what never comes costs that much."""


def wait_until(predicate: Callable[[], T], description: str, timeout_s: float = WITHIN_S) -> T:
    """Ask `predicate` until it answers something true, and return that.

    Raises:
        TimeoutError: If that does not happen within `timeout_s`. It names `description` and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(_text(description, timeout_s, answer))
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def wait_until_async(predicate: Callable[[], Awaitable[T]], description: str, timeout_s: float = WITHIN_S) -> T:
    """Do the same with an async predicate, on the clock of the running loop."""
    deadline = anyio.current_time() + timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        answer = await predicate()
        if answer:
            return answer
        if anyio.current_time() >= deadline:
            raise TimeoutError(_text(description, timeout_s, answer))
        await anyio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, with all of its threads: a zombie whose other threads still end holds its sockets open; one that is just being waited for is dead."""
    try:
        status = process.status()
        return status == psutil.STATUS_DEAD or (status == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


def _text(description: str, timeout_s: float, answer: object) -> str:
    return f"waited {timeout_s:g} s for: {description}; the last answer was {answer!r}"
