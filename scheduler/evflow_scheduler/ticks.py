"""What starts runs by itself, in a scheduler: which flows it looks after, and when.

The owner of a flow's shard decides the flow's ticks and what becomes of events; `evflow.deployments.book` says how. That it is one at a time only
saves work: where two believe to be it, each is decided once all the same. A scheduler that drains goes on, for as long as it owns shards with
running attempts: what it asks for is carried out by whoever owns the run's shard next.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.archives import connect
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.backfill_book import BackfillBook
from evflow.deployments.book import LOOK_EVERY_S, Book as DeploymentBook
from evflow.errors import EvflowError
from evflow.log.event_log import RedisEventLog
from evflow.log.keys import shared_shard
from evflow.log.protocol import PublishedEvent
from evflow_scheduler.tenancy import Premises

_AGAIN_AFTER_S: Final = 1.0


class Book(Protocol):
    """Where ticks and events are decided."""

    @property
    def position_us(self) -> int:
        """Up to where what was published was read."""
        ...

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """As `evflow.deployments.book.Book.look`."""
        ...

    def hear(self, is_mine: Callable[[FlowName], bool], events: Sequence[PublishedEvent]) -> float:
        """As `evflow.deployments.book.Book.hear`."""
        ...


class Publications(Protocol):
    """Where events are waited for."""

    async def published(self, after_us: int, timeout_s: float) -> list[PublishedEvent]:
        """As `EventLog.published`."""
        ...


class Looked(Protocol):
    """Where only time and the log are looked at."""

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """As `evflow.deployments.book.Book.look`."""
        ...


class Books:
    """A book, and others that are looked into with it."""

    def __init__(self, book: Book, *others: Looked) -> None:
        self._book = book
        self._others = others

    @property
    def position_us(self) -> int:
        """See `Book`."""
        return self._book.position_us

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """As `Book.look`, of all."""
        return min(book.look(is_mine) for book in (self._book, *self._others))

    def hear(self, is_mine: Callable[[FlowName], bool], events: Sequence[PublishedEvent]) -> float:
        """See `Book`."""
        return self._book.hear(is_mine, events)


def shard_of(flow: FlowName) -> str:
    """The shard whose owner decides the flow's ticks, and what becomes of events that it listens for."""
    return shared_shard(RunId(flow, RunNumber(0)))


async def look_after(
    premises: Premises, owned: Callable[[], frozenset[str]], on_offer: Callable[[str, float], None] = lambda _kind, _lag_s: None
) -> None:
    """Decide the ticks and events of the flows of the owned shards, and carry their backfills on, until cancelled.

    Args:
        premises: This machine.
        owned: The shards that this process owns now.
        on_offer: As for `evflow.deployments.book.Book`.
    """
    events = RedisEventLog(premises.log_url)
    try:
        with closing(connect(premises.log_url)) as log:
            books = Books(DeploymentBook(log, premises.host, on_offer=on_offer), BackfillBook(log, premises.host))
            await keep_book(books, events, owned, anyio.to_thread.run_sync)
    finally:
        with anyio.CancelScope(shield=True):  # closing has a deadline of its own
            await events.aclose()


async def keep_book(
    book: Book,
    events: Publications,
    owned: Callable[[], frozenset[str]],
    in_thread: Callable[[Callable[[], float]], Awaitable[float]],
) -> None:
    """Look whenever something is due, and each second for what was deployed; in between, hear events as they are published.

    Args:
        book: Where ticks and events are decided.
        events: Where events are waited for.
        owned: The shards that this process owns now.
        in_thread: Calls something that blocks.
    """
    said = False
    while True:
        shards = owned()
        try:
            if shards:
                until_s = anyio.current_time() + await in_thread(partial(book.look, partial(is_of, shards)))
                await _hear(book, events, shards, until_s, in_thread)
            else:
                await anyio.sleep(LOOK_EVERY_S)
            said = False
        except EvflowError as error:  # a server that is away, most of all: once is enough
            (diagnostics.debug if said else diagnostics.warning)("ticks and events wait for the log", why=str(error))
            said = True
            await anyio.sleep(_AGAIN_AFTER_S)


async def _hear(
    book: Book,
    events: Publications,
    shards: frozenset[str],
    until_s: float,
    in_thread: Callable[[Callable[[], float]], Awaitable[float]],
) -> None:
    """Hear events as they are published, until it is time to look."""
    while (left_s := until_s - anyio.current_time()) > 0:
        found = await events.published(book.position_us, left_s)
        if found:
            wait_s = await in_thread(partial(book.hear, partial(is_of, shards), found))
            until_s = min(until_s, anyio.current_time() + wait_s)


def is_of(shards: frozenset[str], flow: FlowName) -> bool:
    """Whether the owner of these shards looks after the flow."""
    return shard_of(flow) in shards
