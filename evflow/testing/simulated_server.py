"""A server of the log in memory, in virtual time: what survives the processes that are connected to it, and what they may see of its faults.

All acts that change something are kept in a journal, as functions of the state (`evflow.testing.simulated_state`), so that the server can lose a
suffix of them (`regress`) as a fail-over does.
"""

import asyncio
import copy
from collections.abc import Callable
from typing import TypeVar

from evflow.core.ids import Micros
from evflow.log.errors import LogOutOfMemory, LogUnavailable
from evflow.log.protocol import Lease
from evflow.testing.simulated_state import Held, State

T = TypeVar("T")
START_US = 1_700_000_000_000_000
"""The instant at which virtual time begins."""
_JOURNAL = 400


class SimulatedServer:
    """What is behind the connections, and survives the processes that made them.

    Args:
        clock_us: The server's clock. Without one: the running event loop's time, from `START_US` on.

    Attributes:
        refusal: Raised by everything that writes: out of memory, read-only, ...
        down: Nobody can connect.
        levels: Durability levels that it can give.
    """

    def __init__(self, clock_us: Callable[[], int] | None = None) -> None:
        self.refusal: LogUnavailable | None = None
        self.down = False
        self.levels: set[str] = {"everysec", "fsync", "replicated"}
        self.connection = 0
        self._clock_us = clock_us or (lambda: START_US + loop_us())
        self._latest_us = self._read_us = START_US
        self._state = State()
        self._base = State()
        self._journal: list[Callable[[State], object]] = []
        self._durable = 0
        self._arrival: asyncio.Event | None = None

    # --- faults ------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the server: every connection breaks; what it had acknowledged is still there after `start`."""
        self.down = True
        self.connection += 1

    def start(self) -> None:
        """Let connections in again."""
        self.down = False

    def regress(self, writes: int) -> int:
        """Lose the last writes, as a fail-over does, but none that was waited for; every connection breaks.

        Returns:
            How many were lost.
        """
        lost = min(writes, len(self._journal) - self._durable)
        kept = self._journal[: len(self._journal) - lost]
        self._state = copy.deepcopy(self._base)
        for act in kept:
            act(self._state)
        self._journal = kept
        self.connection += 1
        return lost

    def forget_lease(self, shard: str) -> None:
        """Lose a shard's lease, epoch and all."""
        self.write(lambda state: setattr(state.shard(shard), "held", Held()))

    def expire_lease(self, shard: str) -> None:
        """Let a shard's lease be over, as if its time had passed."""

        def expire(state: State) -> None:
            state.shard(shard).held = state.shard(shard).held._replace(expires_us=0)

        self.write(expire)

    def steal_lease(self, shard: str, thief: str = "thief", ttl_s: float = 3_600.0) -> Lease:
        """Give the shard to somebody else, as if its owner had slept through its lease."""
        now_us = self.now_us()

        def steal(state: State) -> Lease:
            held = state.shard(shard).held
            state.shard(shard).held = held._replace(expires_us=0)
            return state.take(shard, thief, ttl_s, now_us)

        return self.write(steal)

    def litter(self, shard: str, payload: bytes = b"\xc1") -> None:
        """Put something that is no report into a shard's inbox."""
        now_us = self.now_us()
        self.write(lambda state: state.put(shard, "", payload, now_us))

    # --- the inside --------------------------------------------------------------------------------------

    def now_us(self) -> Micros:
        """The server's clock: no two looks see the same microsecond, as none of two commands do, but where it goes back."""
        clock_us = self._clock_us()
        went_back, self._read_us = clock_us < self._read_us, clock_us
        self._latest_us = clock_us if went_back else max(self._latest_us + 1, clock_us)
        return Micros(self._latest_us)

    @property
    def state(self) -> State:
        """What it holds; to look at."""
        return self._state

    def write(self, act: Callable[[State], T], *, frees: bool = False) -> T:
        """Carry out an act that changes something. An act that raises has changed nothing.

        Args:
            act: The act.
            frees: It takes no memory: a server that is full lets it happen.
        """
        if self.refusal is not None and not (frees and isinstance(self.refusal, LogOutOfMemory)):
            raise self.refusal
        result = act(self._state)
        self._journal.append(act)
        if len(self._journal) > 2 * _JOURNAL:
            for old in self._journal[:_JOURNAL]:
                old(self._base)
            del self._journal[:_JOURNAL]
            self._durable = max(0, self._durable - _JOURNAL)
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None
        return result

    def make_durable(self) -> None:
        """Nothing written so far can be lost any more."""
        self._durable = len(self._journal)

    async def changed(self) -> None:
        """Wait for the next write of anybody."""
        if self._arrival is None:
            self._arrival = asyncio.Event()
        # No deadline here: `_waited`, the one caller, has one.
        await self._arrival.wait()


def loop_us() -> int:
    """The running event loop's clock, in microseconds; 0 where none runs."""
    try:
        return round(asyncio.get_running_loop().time() * 1e6)
    except RuntimeError:
        return 0
