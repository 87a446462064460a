"""The thread that carries out a process's requests to S3: one event loop, made at the first request.

The store's methods block, because whoever calls them (a step's body, a command) does. Their requests still run side by side, in this one loop.

A forked child has none of its parent's threads. It makes a loop of its own when it needs one; the parent's is left alone, since closing it
would take descriptors out of a selector that both processes share.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

CLOSE_WITHIN_S: Final = 2.0
"""How long a process that exits waits for its connections to be closed."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_closing: list[Callable[[], Coroutine[Any, Any, None]]] = []
_of_parents: Final[list[object]] = []
"""Kept for ever: see the module's docstring."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Carry out a coroutine in the loop and wait for it; an exception in the waiting thread (a signal's) cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _running())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def start(work: Coroutine[Any, Any, object]) -> None:
    """Begin with something of use later. Whoever needs it does it again if it fails, and is told."""
    asyncio.run_coroutine_threadsafe(work, _running())


def keep(of_parent: object) -> None:
    """Keep what a forked child has of its parent's loop from being collected, which would touch the parent's connections."""
    _of_parents.append(of_parent)


def at_close(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have something closed in the loop before it ends."""
    _closing.append(close)


def close() -> None:
    """Close all connections and end the thread; the next request makes another."""
    global _loop, _thread
    with _lock:
        loop, thread, _loop, _thread = _loop, _thread, None, None
    if loop is None:
        return
    closing, _closing[:] = _closing[:], []

    async def ended() -> None:
        for each in closing:
            await each()

    try:
        asyncio.run_coroutine_threadsafe(ended(), loop).result(CLOSE_WITHIN_S)
    except TimeoutError:  # the process ends: the system closes them
        pass
    finally:
        loop.call_soon_threadsafe(loop.stop)
        if thread is not None:
            thread.join(CLOSE_WITHIN_S)


def _running() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="evflow-s3", daemon=True)
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def _forget() -> None:
    global _lock, _loop, _thread
    keep((_loop, _closing[:]))
    _lock, _loop, _thread = threading.Lock(), None, None
    _closing.clear()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
