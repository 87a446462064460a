"""What only one thing can use at a time, in virtual time: a scheduler's core, the server's thread."""

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Core:
    """Works on one thing after the other, in the order in which they come.

    Attributes:
        free_s: When it has done all that it was given.
        busy_s: How long it has worked.
    """

    free_s: float = 0.0
    busy_s: float = 0.0

    def take(self, microseconds: float, from_s: float) -> float:
        """Give it work that is there from an instant on; answers when it is done."""
        self.free_s = max(from_s, self.free_s) + microseconds / 1e6
        self.busy_s += microseconds / 1e6
        return self.free_s

    async def work(self, microseconds: float) -> None:
        """Return when it has done this."""
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(self.take(microseconds, now_s) - now_s)
