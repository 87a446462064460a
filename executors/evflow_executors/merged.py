"""One stream of what several sources saw, in the order in which it came.

Waiting and taking are two acts, and only the wait can be cancelled, so nothing is lost with a watcher's deadline.
"""

from collections import deque
from collections.abc import AsyncGenerator

import anyio

from evflow_executors.protocol import Observation, OutputLine


class MergedStream:
    """A bounded queue with one taker.

    Args:
        bound: Who puts more than this waits until the taker has caught up.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[Observation | OutputLine] = deque()
        self._arrived = anyio.Event()
        self._taken = anyio.Event()
        self._closed = False
        self._error: BaseException | None = None

    async def put(self, seen: Observation | OutputLine) -> None:
        """Put something in, behind all else. After `lift` nothing waits: there may be no taker any more."""
        while len(self._items) >= self._bound:
            if self._taken.is_set():  # else another source waits on it already, and must be woken as well
                self._taken = anyio.Event()
            await self._taken.wait()
        self._items.append(seen)
        self._arrived.set()

    def lift(self) -> None:
        """Let in whatever comes from now on; what is left is bounded by what ran."""
        self._bound = 2**62
        self._taken.set()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come; the taker gets what is there, then the end, or this error."""
        self._closed = True
        self._error = self._error or error
        self._arrived.set()

    async def take(self) -> AsyncGenerator[Observation | OutputLine]:
        """All of it, until the end."""
        while True:
            while self._items:
                self._taken.set()
                yield self._items.popleft()
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            self._arrived = anyio.Event()
            await self._arrived.wait()
