"""How many calls a second: what all callers of a platform's API share.

No second has more calls than the rate, not even the first one after a pause, and not by the platform's clock: who sets a rate below an account's quota means
that. A call arrives somewhere between its beginning and its answer, so its place in the rate is free again a second after the answer. What was not
used is no credit, but a second that had no call may have all of its calls at once.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

SPAN_S = 1.0
LEAST_PAUSE_S = 0.0005
"""A shorter pause may not move the clock at all."""


class CallRate:
    """So many calls in any second.

    Args:
        calls_per_s: Calls a second; below one, a call in so much more than a second.
    """

    def __init__(self, calls_per_s: float) -> None:
        self._span_s = SPAN_S if calls_per_s >= 1 else 1 / calls_per_s
        self._most = max(1, int(calls_per_s))
        self._free_s = deque([0.0] * self._most)  # when each place is free that no call has now
        self._closed_until_s = 0.0
        self._turn = anyio.Lock(fast_acquire=True)
        self._answered: anyio.Event | None = None

    @asynccontextmanager
    async def call(self) -> AsyncGenerator[None]:
        """Wait until a call may be made, in the order of those who wait; it is answered, or has failed, at the end of the block."""
        async with self._turn:  # only the first of them looks at the clock
            while (pause_s := self._pause_s()) is None or pause_s > 0:
                if pause_s is None:  # all are on their way; each has a deadline of its own
                    self._answered = anyio.Event()
                    await self._answered.wait()
                else:
                    await anyio.sleep(max(pause_s, LEAST_PAUSE_S))
            self._free_s.popleft()
        try:
            yield
        finally:
            self._free_s.append(anyio.current_time() + self._span_s)
            if self._answered is not None:
                self._answered.set()

    def hold(self, pause_s: float) -> None:
        """Let nobody call for so long: the platform asked for that. Behind it the calls of the first second come one by one."""
        self._closed_until_s = max(self._closed_until_s, anyio.current_time() + pause_s)
        first_s, step_s = self._closed_until_s, self._span_s / self._most
        self._free_s = deque(max(at_s, first_s + number * step_s) for number, at_s in enumerate(self._free_s))

    def _pause_s(self) -> float | None:
        """How long until a call may be made; None where all places are taken."""
        return max(self._free_s[0], self._closed_until_s) - anyio.current_time() if self._free_s else None
