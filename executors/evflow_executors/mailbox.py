"""What comes in for a loop, in order, until it is taken.

A memory object stream hands an item to a receiver that may be cancelled in the same instant, by the end of its wait: the item
is gone then. Here waiting and taking are two acts, and only the wait can be cancelled, so nothing is ever lost between them.

A task that is woken costs as much as dozens of items. So an item may say how long it can lie, and who waits sleeps on until one comes
that cannot. The wait is a plain future with a timer beside it: anyio's events and scopes are three times as dear.
"""

import asyncio
import sys
from collections import deque
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A bounded queue for one taker.

    Args:
        bound: Who puts more than this waits until the taker has caught up.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[T] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._room: anyio.Event | None = None
        self._pressing = False
        self._presses: asyncio.TimerHandle | None = None
        self._woken = False

    async def put(self, item: T, may_lie_s: float = 0.0) -> None:
        """Put an item in, behind all others; the taker is woken for it in so many seconds, if nothing else wakes it before."""
        while len(self._items) >= self._bound:
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self._items.append(item)
        if not may_lie_s:
            self._press()
        elif self._presses is None and not self._pressing:
            self._presses = asyncio.get_running_loop().call_later(may_lie_s, self._press)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return when something has to be taken, somebody calls `wake`, or the time is over. Cancelling it loses nothing."""
        if not self._pressing and not self._woken:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            over = None if timeout_s is None else loop.call_later(timeout_s, self._end_wait)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if over is not None:
                    over.cancel()
        self._woken = False

    def wake(self) -> None:
        """End the wait of now, or the next one, though there may be nothing to take."""
        self._woken = True
        self._end_wait()

    def lift(self) -> None:
        """Let in whatever comes from now on: nobody who puts something in waits any more."""
        self._bound = sys.maxsize
        self._make_room()

    def take(self) -> T | None:
        """The first item, or None."""
        if not self._items:
            return None
        item = self._items.popleft()
        self._make_room()
        if not self._items:
            self._pressing = False
            if self._presses is not None:
                self._presses.cancel()
                self._presses = None
        return item

    def _press(self) -> None:
        self._pressing = True
        self._end_wait()

    def _end_wait(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
