"""What a worker sees of its attempts, on its way to the live view of their run.

For the eyes: what counts is in the shard's inbox, and what was printed is in the store. So nothing waits for it, what is too much is
left out, and a server that is away loses some of it.
"""

from collections import deque
from typing import Any, Final

import anyio
import msgpack

from evflow.core.codec import decode_report, encode_report
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.log import pools
from evflow.log.errors import LogUnavailable
from evflow.log.link import Link
from evflow_executors.protocol import Observation, OutputLine

MOST_UNSENT: Final = 10_000
MOST_AT_ONCE: Final = 500
LINE_CHARS: Final = 2_000


class LiveSender:
    """The worker's side."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unsent: deque[tuple[str, list[Any]]] = deque()
        self._arrived = anyio.Event()

    def add(self, shard: str, seen: Observation | OutputLine) -> None:
        """Something was seen of an attempt of this shard."""
        if isinstance(seen, Observation):
            self._unsent.append((shard, [str(seen.attempt), encode_report(seen.event, principal="")]))
        elif len(self._unsent) < MOST_UNSENT:
            self._unsent.append((shard, [str(seen.attempt), seen.stream, seen.at_us, seen.text[:LINE_CHARS], seen.pid]))
        self._arrived.set()

    async def send(self) -> None:
        """Send what there is, for ever: as much at once as came in meanwhile."""
        while True:
            while not self._unsent:
                self._arrived = anyio.Event()
                await self._arrived.wait()
            shard, items = self._unsent[0][0], list[list[Any]]()
            while self._unsent and self._unsent[0][0] == shard and len(items) < MOST_AT_ONCE:
                items.append(self._unsent.popleft()[1])
            try:
                packed: bytes = msgpack.packb(items, unicode_errors="replace")
                await self._link.do(pools.show(shard, packed))
            except LogUnavailable:
                await anyio.sleep(pools.BEAT_EVERY_S)


def read_live(packed: bytes) -> list[Observation | OutputLine]:
    """What a sender sent; what cannot be read is left out."""
    found: list[Observation | OutputLine] = []
    try:
        items: list[list[Any]] = msgpack.unpackb(packed)
        for name, *rest in items:
            attempt = AttemptId.parse(name)
            if len(rest) > 1:
                stream, at_us, text, pid = rest
                found.append(OutputLine(attempt, stream, at_us, text, pid))
                continue
            event, _ = decode_report(rest[0])
            if isinstance(event, AttemptStarted | AttemptFailed | AttemptExited):
                found.append(Observation(attempt, event))
    except (ValueError, TypeError, AttributeError, LookupError, msgpack.UnpackException, EvflowError):
        return found
    return found
