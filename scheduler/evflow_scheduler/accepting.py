"""From what came from outside to an event that is durable in the log, however long that takes.

An event's id follows from what came, so a try whose answer was lost is repeated, and changes nothing.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from evflow import aws, diagnostics
from evflow.client.publishing import EventInvalid, kept, made_of, own_store
from evflow.core.published import MOST_ID_CHARS, OURS, Publication, encode
from evflow.core.values import value
from evflow.errors import EvflowError
from evflow.log.protocol import Durability, Keep, Placed
from evflow_scheduler.reading import Reading

REFUSED: Final = f"{OURS}refused"
"""The event that records what came and could not be read: nobody listens to it, `evflow event list` shows it."""
_MOST_WHY: Final = 1_000


class Log(Protocol):
    """Where events are published."""

    async def publish(self, event_id: str, body: bytes, keep: Keep) -> Placed:
        """As `EventLog.publish`."""
        ...

    async def wait_durable(self, level: Durability) -> None:
        """As `EventLog.wait_durable`."""
        ...

    async def owner(self, shard: str) -> tuple[str, float] | None:
        """As `EventLog.owner`."""
        ...


@value
class Offered:
    """What is to be an event.

    Attributes:
        id: The event's id.
        event: Its name.
        payload: What it says.
    """

    id: str
    event: str
    payload: Any


class Acceptance:
    """Publishes what a source brings, and waits until the log has it for good.

    Args:
        log: Where.
        level: When it counts as written.
        reading: Counts.
        origin: What the events' `source` is.
    """

    def __init__(self, log: Log, level: Durability, reading: Reading, origin: str) -> None:
        self._log = log
        self._level: Durability = level
        self._reading = reading
        self._origin = origin

    async def log_answers(self) -> None:
        """Return once the log does: nothing is taken from a queue that could not be written, because each taking counts there."""
        while True:
            try:
                await self._log.owner("s0")
            except EvflowError as error:
                await self._pause(error)
            else:
                return

    async def all_of(self, offered: Sequence[Offered]) -> list[str]:
        """Publish, and return once all are durable. A log or a store that is away is waited for without end.

        Returns:
            What of it can be no event, each with its reason; it is passed over.
        """
        made: list[tuple[Offered, Publication]] = []
        faults: list[str] = []
        for one in offered:
            try:
                made.append((one, await self._made(one)))
            except EventInvalid as error:
                faults.append(error.message)
        await self._durable([(one.id, encode(publication)) for one, publication in made])
        return faults

    async def refuse(self, what: str, why: Sequence[str]) -> None:
        """Record what came and can be no event, once however often it comes.

        Args:
            what: Its name at the source.
            why: The reasons.
        """
        said = " ".join(why)[:_MOST_WHY].encode(errors="replace").decode()
        body = encode(Publication(REFUSED, {"source": self._reading.place, "message": what, "why": said}, self._origin, "scheduler"))
        if await self._written([(f"refused:{digest_of(f'{self._reading.place} {what} {said}')}", body)]):
            diagnostics.warning("what came is no event", place=self._reading.place, message=what, why=said)
            self._reading.count("refused")

    async def _made(self, one: Offered) -> Publication:
        """The event; a large payload goes to the store, for which is waited."""
        make = partial(made_of, one.event, one.payload, source=self._origin, principal="scheduler", store=own_store)
        while True:
            try:
                return await anyio.to_thread.run_sync(make)
            except EventInvalid:
                raise
            except EvflowError as error:
                await self._pause(error)

    async def _durable(self, events: Sequence[tuple[str, bytes]]) -> None:
        new = await self._written(events)
        for event_id, _ in events:
            self._reading.count("published" if event_id in new else "known")

    async def _written(self, events: Sequence[tuple[str, bytes]]) -> set[str]:
        """Write events until they are durable.

        Returns:
            The ids of those that had not been published before.
        """
        new: set[str] = set()
        while events:
            try:
                for event_id, body in events:
                    if (await self._log.publish(event_id, body, kept())).is_new:
                        new.add(event_id)
                await self._log.wait_durable(self._level)
            except EvflowError as error:
                await self._pause(error)
            else:
                break
        return new

    async def _pause(self, error: EvflowError) -> None:
        await anyio.sleep(min(5.0, aws.pause_s(self._reading.fails(error.message))))


def short_id(event_id: str) -> str:
    """An event's id, with a digest in the place of what is too long of it."""
    return event_id if len(event_id) <= MOST_ID_CHARS else f"{event_id[:20]}:{digest_of(event_id)}"


def digest_of(text: str) -> str:
    """A text in 32 characters; it may have what is no UTF-8, as paths and messages do."""
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
