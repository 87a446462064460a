"""How many calls a second: a token bucket that all callers of a platform's API share."""

import anyio

MOST_BURST_S = 1.0
"""What was not used is kept for so long: a burst is at most the calls of a second."""
LEAST_PAUSE_S = 0.0005
"""A shorter pause may not move the clock at all."""


class CallRate:
    """A bucket of calls.

    Args:
        calls_per_s: Calls a second, in the long run.
    """

    def __init__(self, calls_per_s: float) -> None:
        self._per_s = calls_per_s
        self._most = max(1.0, calls_per_s * MOST_BURST_S)
        self._left = self._most
        self._at_s: float | None = None
        self._closed_until_s = 0.0
        self._turn = anyio.Lock(fast_acquire=True)

    async def take(self) -> None:
        """Wait until a call may be made, in the order of those who wait: only the first of them looks at the clock."""
        async with self._turn:
            while (pause_s := self._pause_s()) > 0:  # noqa: ASYNC110 - what it waits for is time's doing
                await anyio.sleep(max(pause_s, LEAST_PAUSE_S))

    def hold(self, pause_s: float) -> None:
        """Let nobody call for so long: the platform asked for that. What was saved up is gone."""
        self._closed_until_s = max(self._closed_until_s, anyio.current_time() + pause_s)
        self._left = min(self._left, 1.0)

    def _pause_s(self) -> float:
        now_s = anyio.current_time()
        if self._at_s is not None:
            self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if now_s < self._closed_until_s:
            self._left = min(self._left, 1.0)  # no burst right after it
            return self._closed_until_s - now_s
        if self._left < 1.0:
            return (1.0 - self._left) / self._per_s
        self._left -= 1.0
        return 0.0
