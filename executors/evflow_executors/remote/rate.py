"""How many calls a second: what all callers of a platform's API share.

No second has more calls than the rate, not even the first one after a pause: who sets a rate below an account's quota means that. What was not used
is no credit, but a second that had no call may have all of its calls at once.
"""

from collections import deque

import anyio

SPAN_S = 1.1
"""A second, and by how much calls may come closer together on their way."""
LEAST_PAUSE_S = 0.0005
"""A shorter pause may not move the clock at all."""


class CallRate:
    """So many calls in any second.

    Args:
        calls_per_s: Calls a second; below one, a call in so much more than a second.
    """

    def __init__(self, calls_per_s: float) -> None:
        self._span_s = SPAN_S if calls_per_s >= 1 else 1 / calls_per_s
        self._last_s = deque[float](maxlen=max(1, int(calls_per_s)))
        self._closed_until_s = 0.0
        self._turn = anyio.Lock(fast_acquire=True)

    async def take(self) -> None:
        """Wait until a call may be made, in the order of those who wait: only the first of them looks at the clock."""
        async with self._turn:
            while (pause_s := self._pause_s()) > 0:  # noqa: ASYNC110 - what it waits for is time's doing
                await anyio.sleep(max(pause_s, LEAST_PAUSE_S))
            self._last_s.append(anyio.current_time())

    def hold(self, pause_s: float) -> None:
        """Let nobody call for so long: the platform asked for that. Behind it the calls of the first second come one by one."""
        self._closed_until_s = max(self._closed_until_s, anyio.current_time() + pause_s)
        most = self._last_s.maxlen or 1
        self._last_s.extend(self._closed_until_s - self._span_s * (1 - each / most) for each in range(most))

    def _pause_s(self) -> float:
        now_s = anyio.current_time()
        free_s = self._last_s[0] + self._span_s if len(self._last_s) == self._last_s.maxlen else 0.0
        return max(free_s, self._closed_until_s) - now_s
