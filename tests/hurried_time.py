"""A loop whose clock runs faster than the world's: a minute of pauses and retries in two seconds, with real sockets and processes beside it.

Virtual time knows no sockets. Here every timer of the loop (`asyncio.sleep`, time-outs, back-off, rates) is as much shorter as the clock is
faster, in proportion; what is not the loop's, as a server in a thread of its own, goes on at its own pace.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any, Final

FASTER: Final = 30.0


class _HurriedSelector(selectors.BaseSelector):
    """Waits so much less than it is asked to."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._real.select(None if timeout is None else timeout / FASTER)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class HurriedLoop(asyncio.SelectorEventLoop):
    """Its `time()` is `FASTER` times the monotonic clock."""

    def __init__(self) -> None:
        super().__init__(_HurriedSelector())

    def time(self) -> float:
        """Answer the hurried time in seconds."""
        return super().time() * FASTER
