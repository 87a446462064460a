"""That runs wait for their store: their owner says so in a hash of their shard, for those who ask why nothing begins.

It is no part of the log: nothing is decided by it, it ends with the wait, and a server that loses it loses nothing. What an owner said that is gone, or has said
nothing for long, nobody believes (`evflow.core.explain_store`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgpack

from evflow import clock, diagnostics
from evflow.core.explain_store import WaitsForStore, of_store
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.log.commands import Operation
from evflow.log.errors import LogUnavailable
from evflow.log.keys import store_waits_key
from evflow.log.wire import Command, type_of_reply

if TYPE_CHECKING:  # commands read what is said, without an event loop
    from evflow.log.link import Link

_KEPT_S: Final = 600
"""For longer than anybody believes it."""
LATE_S: Final = 5.0
"""After which time of the first try it is said that there is no answer yet: a store that is busy is asked for a minute and a half before it counts as away."""
NO_ANSWER: Final = "There is no answer yet: the store is slow, busy or away."
_MOST_WHY_CHARS: Final = 500


def say(shard: str, run: RunId, wait: WaitsForStore) -> Operation[None]:
    """Say that a run waits; what was said of it for the same executor is replaced."""
    key = store_waits_key(shard)
    body = msgpack.packb([wait.tasks, wait.why[:_MOST_WHY_CHARS], wait.since_us, wait.heard_us, wait.by])
    commands: tuple[Command, ...] = (("HSET", key, f"{run} {wait.executor}", body), ("EXPIRE", key, _KEPT_S))
    return Operation(commands, lambda _: None)


def unsay(shard: str, run: RunId, executor: str) -> Operation[None]:
    """Take that back."""
    return Operation((("HDEL", store_waits_key(shard), f"{run} {executor}"),), lambda _: None)


def said(shards: Sequence[str]) -> Operation[Mapping[str, Sequence[WaitsForStore]]]:
    """What was said of the runs of shards, by the runs' names."""

    def parse(replies: list[type_of_reply]) -> Mapping[str, Sequence[WaitsForStore]]:
        found: dict[str, list[WaitsForStore]] = {}
        for reply in replies:
            pairs = iter(reply)
            for field, body in zip(pairs, pairs, strict=True):
                run, _, executor = field.decode().rpartition(" ")
                found.setdefault(run, []).append(WaitsForStore(executor, *msgpack.unpackb(body)))
        return found

    return Operation(tuple(("HGETALL", store_waits_key(shard)) for shard in shards), parse)


class Waits(Protocol):
    """Hears which runs wait for their store; see `StoreWaits`."""

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """A try has failed."""
        ...

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nothing of the run waits there for its store."""
        ...


class Unheard:
    """For owners of whom nobody asks."""

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """Nobody is told."""

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nobody was told."""


UNHEARD: Final = Unheard()


class StoreWaits:
    """Says for a shard's owner which runs wait for their store.

    A log that is away is told nothing, and the next try of the store says it again.

    Args:
        link: The log; the caller closes it.
        shard: The owner's shard.
        owner: Its name.

    Attributes:
        owner: The same.
    """

    def __init__(self, link: "Link", shard: str, owner: str) -> None:
        self._link = link
        self._shard = shard
        self.owner = owner
        self._said: dict[RunId, dict[str, WaitsForStore]] = {}

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """A try has failed.

        Args:
            run: The run.
            executor: Where its attempts are to run.
            tasks: How many wait; 0: all of them that have not begun there.
            why: What the store answered.
        """
        now_us, of_run = clock.now_us(), self._said.setdefault(run, {})
        since_us = of_run[executor].since_us if executor in of_run else now_us
        of_run[executor] = WaitsForStore(executor, tasks, why, since_us, now_us, self.owner)
        await self._do(say(self._shard, run, of_run[executor]))

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nothing of the run waits there for its store; nothing is asked of the log where nothing was said."""
        of_run = self._said.get(run, {})
        if of_run.pop(executor, None) is not None:
            if not of_run:
                del self._said[run]
            await self._do(unsay(self._shard, run, executor))

    def tasks(self, run: RunId, state: RunState) -> int:
        """How many tasks of a run wait so, for the owner's own numbers."""
        said = self._said.get(run)
        return sum(wait.tasks for wait in of_store(state, said.values(), self.owner, clock.now_us())) if said else 0

    async def _do(self, operation: Operation[None]) -> None:
        try:
            await self._link.do(operation)
        except LogUnavailable as error:
            diagnostics.debug("nobody is told that a run waits for its store, or no longer does", shard=self._shard, why=str(error))
