"""What comes in for a loop, in order, until it is taken.

A memory object stream hands an item to a receiver that may be cancelled in the same instant, by the end of its wait: the item
is gone then. Here waiting and taking are two acts, and only the wait can be cancelled, so nothing is ever lost between them.
"""

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
        self._arrived = anyio.Event()
        self._taken = anyio.Event()
        self._woken = False

    async def put(self, item: T) -> None:
        """Put an item in, behind all others."""
        while len(self._items) >= self._bound:
            if self._taken.is_set():  # else somebody waits on it already, and must be woken as well
                self._taken = anyio.Event()
            await self._taken.wait()
        self._items.append(item)
        self._arrived.set()

    async def wait(self) -> None:
        """Return when there is something to take, or somebody calls `wake`. Cancelling it loses nothing."""
        while not self._items and not self._woken:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self._woken = False

    def wake(self) -> None:
        """End the wait of now, or the next one, though there may be nothing to take."""
        self._woken = True
        self._arrived.set()

    def lift(self) -> None:
        """Let in whatever comes from now on: nobody who puts something in waits any more."""
        self._bound = sys.maxsize
        self._taken.set()

    def take(self) -> T | None:
        """The first item, or None."""
        if not self._items:
            return None
        self._taken.set()
        return self._items.popleft()
