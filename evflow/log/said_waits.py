"""What the owner of a shard says of its runs that only its process sees: that they wait for their store, that a platform does not start their jobs.

It stands in a hash of the shard, for those who ask why nothing begins. It is no part of the log: nothing is decided by it, it ends with the wait, and a server
that loses it loses nothing. What an owner said that is gone, or has said nothing for long, nobody believes (`evflow.core.explain_said`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgpack

from evflow import clock, diagnostics
from evflow.core.explain_said import Said, UnstartedJob, WaitsForPlatform, WaitsForStore, of_platform, of_store
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.log.commands import Operation
from evflow.log.errors import LogUnavailable
from evflow.log.keys import said_waits_key
from evflow.log.wire import Command, type_of_reply

if TYPE_CHECKING:  # commands read what is said, without an event loop
    from evflow.log.link import Link

_STORE: Final = "store"
_PLATFORM: Final = "platform"
_KEPT_S: Final = 600
"""For longer than anybody believes it."""
LATE_S: Final = 5.0
"""After which time of tries it is said what is waited for: a store that is busy is asked for a minute and a half before it counts as away, and a platform that
throttles mostly takes a job with the next try."""
NO_ANSWER: Final = "There is no answer yet: the store is slow, busy or away."
_MOST_WHY_CHARS: Final = 500
_MOST_WHYS: Final = 20


def say(shard: str, run: RunId, wait: Said) -> Operation[None]:
    """Say that a run waits; what was said of it for the same executor, and of the same kind, is replaced."""
    key = said_waits_key(shard)
    what = wait.why[:_MOST_WHY_CHARS] if isinstance(wait, WaitsForStore) else _packed(wait.jobs)
    body = msgpack.packb([wait.tasks, what, wait.since_us, wait.heard_us, wait.by])
    commands: tuple[Command, ...] = (("HSET", key, _field(run, wait), body), ("EXPIRE", key, _KEPT_S))
    return Operation(commands, lambda _: None)


def unsay(shard: str, run: RunId, wait: Said) -> Operation[None]:
    """Take that back."""
    return Operation((("HDEL", said_waits_key(shard), _field(run, wait)),), lambda _: None)


def say_only(shard: str, waits: Iterable[tuple[RunId, Said]]) -> Operation[None]:
    """Say this, and take back all else that was said of the shard's runs."""
    forget: Command = ("DEL", said_waits_key(shard))
    return Operation((forget, *(command for run, wait in waits for command in say(shard, run, wait).commands)), lambda _: None)


def said(shards: Sequence[str]) -> Operation[Mapping[str, Sequence[Said]]]:
    """What was said of the runs of shards, by the runs' names."""

    def parse(replies: list[type_of_reply]) -> Mapping[str, Sequence[Said]]:
        found: dict[str, list[Said]] = {}
        for reply in replies:
            pairs = iter(reply)
            for field, body in zip(pairs, pairs, strict=True):
                run, executor, kind = field.decode().rsplit(" ", 2)
                tasks, what, *when = msgpack.unpackb(body)
                if kind == _STORE:
                    found.setdefault(run, []).append(WaitsForStore(executor, tasks, what, *when))
                elif kind == _PLATFORM:  # a later version may know more kinds
                    found.setdefault(run, []).append(WaitsForPlatform(executor, tasks, _unpacked(*what), *when))
        return found

    return Operation(tuple(("HGETALL", said_waits_key(shard)) for shard in shards), parse)


def _packed(jobs: Sequence[UnstartedJob]) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Few reasons, and of many jobs which; what a platform says of many is mostly the same."""
    whys = list(dict.fromkeys(job.why[:_MOST_WHY_CHARS] for job in jobs))[:_MOST_WHYS]
    places = {why: place for place, why in enumerate(whys)}
    named = [(job.task, job.attempt, place) for job in jobs if (place := places.get(job.why[:_MOST_WHY_CHARS])) is not None]
    return whys, named


def _unpacked(whys: Sequence[str], named: Sequence[tuple[int, int, int]]) -> tuple[UnstartedJob, ...]:
    return tuple(UnstartedJob(task, attempt, whys[place]) for task, attempt, place in named)


def _field(run: RunId, wait: Said) -> str:
    return f"{run} {wait.executor} {_STORE if isinstance(wait, WaitsForStore) else _PLATFORM}"


class Counts(NamedTuple):
    """Of how many tasks of a run an owner says that they wait.

    Attributes:
        store: For the run's store.
        platform: For a platform that has their jobs.
    """

    store: int = 0
    platform: int = 0


class Waits(Protocol):
    """Hears which runs wait for what only their owner sees; see `SaidWaits`."""

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """A try of the run's store has failed."""
        ...

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nothing of the run waits there for its store."""
        ...

    async def say_unstarted(self, run: RunId, executor: str, tasks: int, jobs: Sequence[UnstartedJob]) -> None:
        """A platform does not start jobs of the run."""
        ...

    async def unsay_unstarted(self, run: RunId, executor: str) -> None:
        """All jobs of the run have begun there, or are over."""
        ...


class Unheard:
    """For owners of whom nobody asks."""

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """Nobody is told."""

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nobody was told."""

    async def say_unstarted(self, run: RunId, executor: str, tasks: int, jobs: Sequence[UnstartedJob]) -> None:
        """Nobody is told."""

    async def unsay_unstarted(self, run: RunId, executor: str) -> None:
        """Nobody was told."""


UNHEARD: Final = Unheard()


class SaidWaits:
    """Says for a shard's owner what its runs wait for that only its process sees.

    A log that is away is told nothing; what waits on is said again. The first word takes back what former owners have left there, and the first one behind a
    word that was lost what was to be taken back with it: it would stay for as long as anything of the shard waits.

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
        self._said: dict[RunId, dict[tuple[type[Said], str], Said]] = {}
        self._is_all = False  # what this owner says is all that the log has

    async def say(self, run: RunId, executor: str, tasks: int, why: str) -> None:
        """A try of the run's store has failed.

        Args:
            run: The run.
            executor: Where its attempts are to run.
            tasks: How many wait; 0: all of them that have not begun there.
            why: What the store answered.
        """
        await self._say(run, WaitsForStore(executor, tasks, why, *self._times(run, WaitsForStore, executor), self.owner))

    async def unsay(self, run: RunId, executor: str) -> None:
        """Nothing of the run waits there for its store; nothing is asked of the log where nothing was said."""
        await self._unsay(run, WaitsForStore, executor)

    async def say_unstarted(self, run: RunId, executor: str, tasks: int, jobs: Sequence[UnstartedJob]) -> None:
        """A platform does not start jobs of the run, or still does not.

        Args:
            run: The run.
            executor: The platform.
            tasks: How many jobs.
            jobs: Those of which it said why last, the latest one first; at most `MOST_NAMED`.
        """
        await self._say(run, WaitsForPlatform(executor, tasks, tuple(jobs), *self._times(run, WaitsForPlatform, executor), self.owner))

    async def unsay_unstarted(self, run: RunId, executor: str) -> None:
        """All jobs of the run have begun there, or are over; nothing is asked of the log where nothing was said."""
        await self._unsay(run, WaitsForPlatform, executor)

    def counts(self, run: RunId, state: RunState) -> Counts:
        """How many tasks of a run wait so, for the owner's own numbers."""
        said, now_us = self._said.get(run), clock.now_us()
        if not said:
            return Counts()
        found = of_store(state, said.values(), self.owner, now_us), of_platform(state, said.values(), self.owner, now_us)
        return Counts(*(sum(wait.tasks for wait in each) for each in found))

    def _times(self, run: RunId, kind: type[Said], executor: str) -> tuple[int, int]:
        """Since when this is said, and now."""
        now_us, before = clock.now_us(), self._said.get(run, {}).get((kind, executor))
        return (now_us if before is None else before.since_us), now_us

    async def _say(self, run: RunId, wait: Said) -> None:
        self._said.setdefault(run, {})[type(wait), wait.executor] = wait
        await self._do(say(self._shard, run, wait))

    async def _unsay(self, run: RunId, kind: type[Said], executor: str) -> None:
        of_run = self._said.get(run, {})
        wait = of_run.pop((kind, executor), None)
        if wait is not None:
            if not of_run:
                del self._said[run]
            await self._do(unsay(self._shard, run, wait))

    async def _do(self, operation: Operation[None]) -> None:
        if not self._is_all:
            self._is_all = True
            operation = say_only(self._shard, [(run, wait) for run, waits in self._said.items() for wait in waits.values()])
        try:
            await self._link.do(operation)
        except LogUnavailable as error:
            self._is_all = False
            diagnostics.debug("nobody is told what a run waits for, or that it no longer does", shard=self._shard, why=str(error))
        except BaseException:  # cancelled: who knows what the log has heard
            self._is_all = False
            raise
