"""The ticks of schedules and of backfills, in a scheduler: which flows it looks after, and when.

The owner of a flow's shard decides the flow's ticks; `evflow.deployments.ticks` says how. That it is one at a time only saves work: where two
believe to be it, each tick is decided once all the same. A scheduler that drains goes on, for as long as it owns shards with running
attempts: what it asks for is carried out by whoever owns the run's shard next.
"""

from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.archives import connect
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.backfill_book import BackfillBook
from evflow.deployments.ticks import LOOK_EVERY_S, TickBook
from evflow.errors import EvflowError
from evflow.log.keys import shared_shard
from evflow_scheduler.tenancy import Premises

_AGAIN_AFTER_S: Final = 1.0


class Book(Protocol):
    """Where ticks are decided."""

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """As `TickBook.look`."""
        ...


class Books:
    """Several books that are looked into one after the other."""

    def __init__(self, *books: Book) -> None:
        self._books = books

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """As `TickBook.look`."""
        return min(book.look(is_mine) for book in self._books)


def shard_of(flow: FlowName) -> str:
    """The shard whose owner decides the flow's ticks."""
    return shared_shard(RunId(flow, RunNumber(0)))


async def look_after(premises: Premises, owned: Callable[[], frozenset[str]], on_offer: Callable[[float], None] = lambda _: None) -> None:
    """Decide the ticks of the flows of the owned shards, until cancelled; `on_offer` as for `TickBook`."""
    with closing(connect(premises.log_url)) as log:
        books = Books(TickBook(log, premises.host, on_offer=on_offer), BackfillBook(log, premises.host))
        await decide_ticks(books, owned, anyio.to_thread.run_sync)


async def decide_ticks(
    book: Book, owned: Callable[[], frozenset[str]], in_thread: Callable[[Callable[[], float]], Awaitable[float]]
) -> None:
    """Look whenever a tick comes, and each second for what was deployed.

    Args:
        book: Where ticks are decided.
        owned: The shards that this process owns now.
        in_thread: Calls something that blocks.
    """
    said = False
    while True:
        shards = owned()
        wait_s = LOOK_EVERY_S
        if shards:
            try:
                wait_s = await in_thread(partial(book.look, partial(is_of, shards)))
                said = False
            except EvflowError as error:  # a server that is away, most of all: once is enough
                (diagnostics.debug if said else diagnostics.warning)("ticks wait for the log", why=str(error))
                said, wait_s = True, _AGAIN_AFTER_S
        await anyio.sleep(wait_s)


def is_of(shards: frozenset[str], flow: FlowName) -> bool:
    """Whether the owner of these shards looks after the flow."""
    return shard_of(flow) in shards
