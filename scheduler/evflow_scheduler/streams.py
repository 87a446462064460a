"""Events from Redis Streams that others write, at the log's server.

An event's id follows from the stream and the entry, so an entry that is read twice, by this scheduler or by two of them, is one event. How far a
stream has been read stands beside the events, and moves after they are durable: whoever goes on after a crash reads the last ones again.

One scheduler reads: the owner of one certain shard.
"""

from collections.abc import Callable, Sequence
from typing import Final

import anyio
import orjson

from evflow.log import sources
from evflow.log.keys import shared_shards
from evflow.log.link import Link
from evflow_scheduler.accepting import Acceptance, Offered, short_id
from evflow_scheduler.reading import Reading, Source

_READER: Final = shared_shards()[0]
_NOT_OURS_S: Final = 1.0
_WAIT_S: Final = 5.0
_PATIENCE_S: Final = 30.0
_BATCH: Final = 100


class StreamReader:
    """Reads one stream.

    Args:
        source: The stream's key, and the name of its events.
        acceptance: Where events go.
        reading: Counts.
        link: Where the stream is, and where it is kept how far it was read.
        owned: The shards that this process owns now.
    """

    def __init__(self, source: Source, acceptance: Acceptance, reading: Reading, link: Link, owned: Callable[[], frozenset[str]]) -> None:
        self._stream = source.place
        self._event = source.event
        self._name = f"stream:{source.place}"
        self._accept = acceptance
        self._reading = reading
        self._link = link
        self._owned = owned

    async def read(self) -> None:
        """Read until cancelled, whenever it is ours to do.

        Raises:
            LogUnavailable: The server is away.
        """
        while True:
            if _READER in self._owned():
                await self._follow(await self._begin())
            await anyio.sleep(_NOT_OURS_S)

    async def _begin(self) -> str:
        """The last entry that was read; what was there before somebody named the stream is no event."""
        after = await self._link.do(sources.position(self._name))
        if not after:
            after = await self._link.do(sources.newest(self._stream))
            await self._link.do(sources.move(self._name, after))
        self._reading.works()
        return after

    async def _follow(self, after: str) -> None:
        wait = self._link.wait()
        try:
            while _READER in self._owned():
                found = await wait.do(sources.entries(self._stream, after, _WAIT_S, _BATCH), _WAIT_S)
                self._reading.works()
                if not found:
                    continue
                offered = [Offered(short_id(f"{self._name}:{entry.id}"), self._event, _payload(entry.fields)) for entry in found]
                for fault in await self._accept.all_of(offered):
                    await self._accept.refuse(self._stream, [fault])
                after = found[-1].id
                await self._link.repeated(sources.move(self._name, after), _PATIENCE_S)
        finally:
            with anyio.CancelScope(shield=True):
                await wait.aclose()


def _payload(fields: Sequence[bytes]) -> object:
    """What an entry says: its fields, or what its only field `payload` holds as JSON."""
    texts = [field.decode(errors="replace") for field in fields]
    if len(texts) == 2 and texts[0] == "payload":
        try:
            return orjson.loads(fields[1])
        except orjson.JSONDecodeError:
            pass  # then it is a text
    return dict(zip(texts[::2], texts[1::2], strict=True))
