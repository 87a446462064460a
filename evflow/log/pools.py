"""Pools of workers, as exchanges with the server: the message queue, its claims, and who lives.

An **order** is an attempt that somebody is to run. The owner of its shard puts it into the pool's queue; a worker that has a
free slot reads it, and **claims** it in one script, which also says whether the attempt is still wanted. A worker counts as living
until an instant that it moves on each second; what a dead one had read goes back into the queue, and what it had claimed
is found by the owner that looks. What a worker has to say of an attempt it reports to the attempt's shard, as attempts do.

Values, as in `evflow.log.commands`; but for `ask`, nothing here waits or connects.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgpack

from evflow.core.graph import is_pool_name
from evflow.core.ids import AttemptId
from evflow.core.values import value
from evflow.errors import Conflict, UsageError
from evflow.log.commands import Operation
from evflow.log.keys import POOLS, live_key, pool_keys
from evflow.log.scripts import invocation
from evflow.log.transport import connect_blocking, perform
from evflow.log.url import parse
from evflow.log.wire import Command, type_of_reply

GROUP: Final = "workers"
"""The consumer group of a pool's queue; the scripts have the name as well."""
BEAT_EVERY_S: Final = 1.0
MOST_ORDERS: Final = 200
"""Orders of one call, and attempts that are looked at in one."""
MOST_ORDER_BYTES: Final = 4_000_000
MOST_SHOWN: Final = 10_000
SHOWN_FOR_S: Final = 3_600
"""How long what is meant for a live view is kept when that went without a word."""
_MICROS: Final = 1_000_000

T = TypeVar("T")


class PoolInvalid(UsageError):
    """A name of a pool, or of a worker, is none."""

    code = "pool-invalid"

    def __init__(self, name: str, of: str = "a pool") -> None:
        super().__init__(f"'{name}' cannot be the name of {of}.", "Letters, digits, '-', '_' and '.', beginning with a letter or digit.")


class PoolFenced(Conflict):
    """The shard has a newer owner, who has spoken to this pool already.

    Attributes:
        epoch: That owner's.
    """

    code = "pool-fenced"

    def __init__(self, pool: str, shard: str, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(
            f"The pool '{pool}' takes orders of the shard '{shard}' from its newer owner only (epoch {epoch}): this process stops."
        )


class WorkerLost(Conflict):
    """A worker does not count as living any more."""

    code = "worker-lost"

    def __init__(self, pool: str, worker: str) -> None:
        super().__init__(f"The pool '{pool}' has given the worker '{worker}' up.", "What it ran is started again elsewhere.")


class Entry(NamedTuple):
    """An order in a queue: the entry's id, the attempt's name, and the order's bytes."""

    id: bytes
    attempt: str
    order: bytes


class Fate(NamedTuple):
    """What an owner sees of an attempt: `waiting`, `claimed`, `lost` (its worker died) or `gone`; and the worker, if one had it."""

    what: str
    worker: str = ""


class Look(NamedTuple):
    """What an owner sees: how many workers live, and each attempt's fate."""

    workers: int
    fates: dict[AttemptId, Fate]


class Message(NamedTuple):
    """What a worker is told: to end an attempt."""

    id: bytes
    cancel: str
    grace_s: float


@value
class WorkerEntry:
    """A worker that lives.

    Attributes:
        name: Its name, `<host>:<pid>:<chance>`.
        about: What it says of itself: `host`, `pid`, `slots`, `since_us`, `label`, `version`, `draining`.
    """

    name: str
    about: Mapping[str, Any]


@value
class PoolPicture:
    """A pool at an instant.

    Attributes:
        name: Its name.
        queued: Orders that no worker has claimed.
        oldest_us: Since when the first of them waits; 0 if none does.
        workers: The workers that live, by name.
        running: Attempt to its worker, which lives, and the instant of its claim.
    """

    name: str
    queued: int
    oldest_us: int
    workers: tuple[WorkerEntry, ...]
    running: Mapping[str, tuple[str, int]]

    @property
    def slots(self) -> int:
        """What its living workers can run at once."""
        return sum(worker.about.get("slots", 0) for worker in self.workers)


def check_name(name: str, of: str = "a pool") -> str:
    """A name of a pool, or of a worker, as given.

    Raises:
        PoolInvalid: It is none: names stand in keys, and in patterns of keys.
    """
    if not is_pool_name(name):
        raise PoolInvalid(name, of)
    return name


# --- the owner's side ------------------------------------------------------------------------------------


def order(pool: str, shard: str, epoch: int, number: int, orders: Sequence[tuple[str, bytes, int]]) -> Operation[None]:
    """Put orders into the queue; a repeat with the same number changes nothing: raises PoolFenced.

    Args:
        pool: The pool.
        shard: The attempts' shard.
        epoch: The epoch of its owner.
        number: The number of this call, rising within the epoch.
        orders: Attempt, order and priority, at most `MOST_ORDERS`. Those of a higher priority are claimed first.
    """
    arguments = [part for each in orders for part in each]
    command = _order(pool, "order", shard, epoch, number, *arguments)

    def parse(replies: list[type_of_reply]) -> None:
        _check_fence(pool, shard, replies[-1])

    return Operation((("SADD", POOLS, pool), command), parse)


def cancel(pool: str, shard: str, epoch: int, attempt: AttemptId, grace_s: float) -> Operation[Fate]:
    """Take an order back, or tell its worker to end it: `waiting` means that it never begins. Raises PoolFenced."""
    command = _order(pool, "cancel", shard, epoch, str(attempt), round(grace_s * 1_000), pool_keys(pool).to)

    def parse(replies: list[type_of_reply]) -> Fate:
        what, *rest = _check_fence(pool, shard, replies[0])
        worker = rest[0].decode() if rest else ""
        return Fate({b"withdrawn": "waiting", b"told": "claimed", b"lost": "lost", b"unknown": "gone"}[what], worker)

    return Operation((command,), parse)


def look(pool: str, shard: str, attempts: Sequence[AttemptId], epoch: int | None = None) -> Operation[Look]:
    """See what became of attempts; with an epoch, orders of former owners are refused from now on. Raises PoolFenced."""
    command = _life(pool, "look", shard, "" if epoch is None else epoch, *map(str, attempts))
    kinds = {b"": "waiting", b"+": "claimed", b"-": "lost", b"?": "gone"}

    def parse(replies: list[type_of_reply]) -> Look:
        _, workers, *fates = _check_fence(pool, shard, replies[0])
        found = {name: Fate(kinds[fate[:1]], fate[1:].decode()) for name, fate in zip(attempts, fates, strict=True)}
        return Look(workers, found)

    return Operation((command,), parse)


def forget(pool: str, shard: str) -> Operation[None]:
    """The shard's only run is over: nothing of it stays."""
    return Operation((("HDEL", pool_keys(pool).fences, shard),), _nothing)


def live(shard: str, after: bytes, timeout_s: float) -> Operation[tuple[bytes, list[bytes]]]:
    """What workers saw of the shard's attempts, behind an entry: the last entry's id and what was put there."""
    key = live_key(shard)

    def parse(replies: list[type_of_reply]) -> tuple[bytes, list[bytes]]:
        entries = _read(replies[0])
        return (entries[-1][0] if entries else after), [values[1] for _, values in entries]

    return Operation((("XREAD", "COUNT", 1_000, "BLOCK", _millis(timeout_s), "STREAMS", key, after),), parse)


def drop_live(shard: str) -> Operation[None]:
    """Nobody looks any more."""
    return Operation((("DEL", live_key(shard)),), _nothing)


# --- the worker's side -----------------------------------------------------------------------------------


def join(pool: str, worker: str, ttl_s: float, about: Mapping[str, Any]) -> Operation[None]:
    """Be a worker of the pool, for so long as it is not said again."""
    life = _life(pool, "join", worker, round(ttl_s * _MICROS), _packed(about))
    return Operation((("SADD", POOLS, pool), life), _nothing)


def beat(pool: str, worker: str, ttl_s: float, about: Mapping[str, Any], has: Sequence[str] | None = None) -> Operation[None]:
    """Say that a worker lives, as `join`: raises WorkerLost.

    Args:
        pool: The pool.
        worker: The worker.
        ttl_s: For so long.
        about: What it says of itself.
        has: The attempts that it has claimed, while no claim is on its way, where the server may have gone back since it last said so: a fail-over that loses
            a release leaves a claim that nobody else would ever see to.
    """
    said = () if has is None else ("has", *has)

    def parse(replies: list[type_of_reply]) -> None:
        if replies[0][0] != b"ok":
            raise WorkerLost(pool, worker)

    return Operation((_life(pool, "beat", worker, round(ttl_s * _MICROS), _packed(about), *said),), parse)


def give_back(pool: str, worker: str) -> Operation[None]:
    """Put what a worker read and did not claim into the queue again: it may have been read by a wait that ended before its answer came."""
    return Operation((_life(pool, "return", worker),), _nothing)


def leave(pool: str, worker: str) -> Operation[None]:
    """End as a worker: what it had read and not claimed goes back into the queue."""
    return Operation((_life(pool, "leave", worker),), _nothing)


def fetch(pool: str, worker: str, count: int, timeout_s: float) -> Operation[list[Entry]]:
    """The next orders for a worker, waiting for the first one at the server."""
    queue = pool_keys(pool).queue
    command = ("XREADGROUP", "GROUP", GROUP, worker, "COUNT", count, "BLOCK", _millis(timeout_s), "STREAMS", queue, ">")

    def parse(replies: list[type_of_reply]) -> list[Entry]:
        return [_entry(entry, values) for entry, values in _read(replies[0])]

    return Operation((command,), parse)


def claim(pool: str, worker: str, entries: Sequence[Entry]) -> Operation[list[Entry]]:
    """Claim as many orders as were read: those that are this worker's to run, which come first in the queue. It may be repeated. Raises WorkerLost."""
    keys = pool_keys(pool)
    arguments = [part for entry in entries for part in (entry.id, entry.attempt)]
    command = invocation(
        "pool_claim", (keys.queue, keys.waiting, keys.claims, keys.workers, keys.ranks, keys.given, keys.fences), worker, *arguments
    )

    def parse(replies: list[type_of_reply]) -> list[Entry]:
        answer, *mine = replies[0]
        if answer != b"ok":
            raise WorkerLost(pool, worker)
        return [entry if one == 1 else _given(one) for entry, one in zip(entries, mine, strict=True) if one]

    return Operation((command,), parse)


def release(pool: str, attempts: Sequence[AttemptId | str]) -> Operation[None]:
    """Give claims back: the attempts are over, and their shard has been told what it must know."""
    return Operation((("HDEL", pool_keys(pool).claims, *map(str, attempts)),), _nothing)


def messages(pool: str, worker: str, after: bytes, timeout_s: float) -> Operation[list[Message]]:
    """What a worker is told, behind an entry, waiting for the first one at the server."""
    stream = pool_keys(pool).to + worker

    def parse(replies: list[type_of_reply]) -> list[Message]:
        return [Message(entry, values[1].decode(), int(values[3]) / 1_000) for entry, values in _read(replies[0])]

    return Operation((("XREAD", "COUNT", 1_000, "BLOCK", _millis(timeout_s), "STREAMS", stream, after),), parse)


def show(shard: str, packed: bytes) -> Operation[None]:
    """Pass on what was seen of attempts to the live view of their run."""
    key = live_key(shard)
    return Operation((("XADD", key, "MAXLEN", "~", MOST_SHOWN, "*", "l", packed), ("EXPIRE", key, SHOWN_FOR_S)), _nothing)


# --- everybody's side ------------------------------------------------------------------------------------


def names() -> Operation[list[str]]:
    """All pools, by name."""
    return Operation((("SMEMBERS", POOLS),), lambda replies: sorted(name.decode() for name in replies[0]))


def picture(pool: str) -> Operation[PoolPicture]:
    """A pool as it is now."""
    keys = pool_keys(pool)
    commands: tuple[Command, ...] = (
        ("TIME",),
        ("HLEN", keys.waiting),
        ("XRANGE", keys.queue, "-", "+", "COUNT", 1),
        ("ZRANGE", keys.workers, 0, -1, "WITHSCORES"),
        ("HGETALL", keys.about),
        ("HGETALL", keys.claims),
    )

    def parse(replies: list[type_of_reply]) -> PoolPicture:
        time, queued, first, workers, about, claims = replies
        now_us = int(time[0]) * _MICROS + int(time[1])
        known = {name: msgpack.unpackb(said) for name, said in _pairs(about)}
        living = [name for name, until in _pairs(workers) if int(float(until)) > now_us]
        running: dict[str, tuple[str, int]] = {}
        for attempt, claimed in _pairs(claims):
            at_us, _, worker = claimed.decode().partition(" ")
            if worker.encode() in living:  # else it died, and whoever owned the attempt has not looked since
                running[attempt.decode()] = (worker, int(at_us))
        oldest_us = int(first[0][0].partition(b"-")[0]) * 1_000 if first else 0
        return PoolPicture(
            pool, queued, oldest_us, tuple(WorkerEntry(name.decode(), known.get(name, {})) for name in sorted(living)), running
        )

    return Operation(commands, parse)


def ask(url: str, operation: Operation[T]) -> T:
    """Carry an operation out on a connection of its own. Blocking.

    Raises:
        LogUnavailable: The server cannot be used.
    """
    transport = connect_blocking(parse(url))
    try:
        return perform(transport, operation)
    finally:
        transport.close()


# --- parts -----------------------------------------------------------------------------------------------


def _order(pool: str, *arguments: Any) -> Command:
    keys = pool_keys(pool)
    return invocation("pool_order", (keys.queue, keys.waiting, keys.claims, keys.workers, keys.fences, keys.ranks), *arguments)


def _life(pool: str, verb: str, *arguments: Any) -> Command:
    keys = pool_keys(pool)
    return invocation(
        "pool_life", (keys.queue, keys.waiting, keys.claims, keys.workers, keys.about, keys.fences, keys.given), verb, keys.to, *arguments
    )


def _check_fence(pool: str, shard: str, answer: list[Any]) -> list[Any]:
    if answer[0] == b"fenced":
        raise PoolFenced(pool, shard, int(answer[1]))
    return answer


def _given(instead: Any) -> Entry:
    """What is claimed instead of what was read."""
    entry, attempt, order = instead
    return Entry(entry, attempt.decode(), order)


def _read(reply: Any) -> list[tuple[bytes, list[bytes]]]:
    """The entries of the one stream that was read."""
    return reply[0][1] if reply else []


def _entry(entry: bytes, values: list[bytes]) -> Entry:
    """An order. What somebody else put there has no name, so that it is claimed, which nobody can, and gone."""
    return Entry(entry, values[1].decode(errors="replace"), values[3]) if len(values) > 3 else Entry(entry, "", b"")


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = iter(flat)
    return list(zip(found, found, strict=True))


def _packed(about: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(dict(about))
    return packed


def _millis(seconds: float) -> int:
    return max(1, round(seconds * 1_000))  # BLOCK 0 would wait for ever


def _nothing(_: list[type_of_reply]) -> None:
    return None
