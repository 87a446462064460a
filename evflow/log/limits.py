"""Limited names at the server: who holds them, and what the operator allows.

The names and who needs them are `evflow.core.limits`'. A name's holders are one hash, changed by one script, so that however many
owners ask at once, no more hold it than may. Whoever is refused stands in the name's line with its shard, by rank; whoever gives the name
back puts a word into those shards' inboxes (`LOOK`), which is no report and wakes their owners. Of free places one each is kept for
the shards that come before the asker, for a second.
"""

from collections.abc import Sequence
from typing import Final

import msgpack

from evflow.core.ids import Micros
from evflow.core.line import KEPT_US, NO_RANK, Rank, Waiter
from evflow.log.commands import Operation
from evflow.log.keys import LIMIT_NAMES, LIMIT_TABLE, limit_keys, shard_keys
from evflow.log.protocol import Grants, Holder
from evflow.log.scripts import invocation
from evflow.log.wire import Command, type_of_reply

MOST_HOLDERS: Final = 1_000
"""Holders that one call may ask for (Lua's `unpack` fails past about 8,000 values)."""
LOOK: Final = b"look"
"""The payload of an inbox entry, of no run, that says: look again."""


def acquire(name: str, most: int, shard: str, holders: Sequence[str], rank: Rank) -> Operation[tuple[Grants, list[str]]]:
    """Hold a name, as many of the holders as may, in their order; the shard is told when it may be had again.

    Answers the shards, too, for which a place is kept and which nobody has told yet.
    """
    return _ask("acquire", name, most, shard, holders, rank)


def hold(name: str, shard: str, holders: Sequence[str]) -> Operation[tuple[Grants, list[str]]]:
    """Hold a name whatever the limit: the holders run, and a server that lost its memory has to know it."""
    return _ask("hold", name, 0, shard, holders, NO_RANK)


def release(name: str, holders: Sequence[str]) -> Operation[list[str]]:
    """Give a name back; answers the shards that wait for it, the first in line first."""
    command = invocation("limit", limit_keys(name), "release", 0, "", 0, 0, KEPT_US, *holders)
    return Operation((command,), lambda replies: [shard.decode() for shard in replies[0]])


def wake(shards: Sequence[str]) -> Operation[None]:
    """Wake the owners of shards."""
    words: list[Command] = [("XADD", shard_keys(shard).inbox, "*", "r", "", "p", LOOK) for shard in shards]
    return Operation(tuple(words), lambda _: None)


def holders(name: str) -> Operation[list[Holder]]:
    """Who holds a name, by slot."""

    def parse(replies: list[type_of_reply]) -> list[Holder]:
        pairs = iter(replies[0])
        found = [(holder.decode(), msgpack.unpackb(value)) for holder, value in zip(pairs, pairs, strict=True)]
        return sorted((Holder(holder, slot, Micros(int(since)), shard) for holder, (slot, since, shard) in found), key=lambda one: one.slot)

    return Operation((("HGETALL", limit_keys(name).held),), parse)


def names() -> Operation[list[str]]:
    """All names that were ever held, and are not forgotten."""
    return Operation((("SMEMBERS", LIMIT_NAMES),), lambda replies: sorted(name.decode() for name in replies[0]))


def table() -> Operation[dict[str, int]]:
    """The operator's limits."""

    def parse(replies: list[type_of_reply]) -> dict[str, int]:
        pairs = iter(replies[0])
        return {name.decode(): int(most) for name, most in sorted(zip(pairs, pairs, strict=True))}

    return Operation((("HGETALL", LIMIT_TABLE),), parse)


def known() -> Operation[tuple[dict[str, int], list[str]]]:
    """The operator's limits, and all names that were ever held: what an owner asks when it begins, in one exchange."""
    limits, held = table(), names()
    return Operation((*limits.commands, *held.commands), lambda replies: (limits.parse(replies[:1]), held.parse(replies[1:])))


def set_most(name: str, most: int | None) -> Operation[None]:
    """Let an operator's limit hold from now on; None takes it away."""
    command: Command = ("HDEL", LIMIT_TABLE, name) if most is None else ("HSET", LIMIT_TABLE, name, most)
    return Operation((command,), lambda _: None)


def line(name: str) -> Operation[list[Waiter]]:
    """Who waits for a name, the first one first."""

    def parse(replies: list[type_of_reply]) -> list[Waiter]:
        pairs = iter(replies[0])
        found = [(shard.decode(), msgpack.unpackb(value)) for shard, value in zip(pairs, pairs, strict=True)]
        waiters = [
            Waiter(shard, holder, Rank(int(priority), int(began)), int(since), int(called))
            for shard, (priority, began, since, called, holder) in found
        ]
        return sorted(waiters, key=lambda one: one.place)

    return Operation((("HGETALL", limit_keys(name).line),), parse)


def standings(names: Sequence[str]) -> Operation[list[tuple[list[Holder], list[Waiter]]]]:
    """The holders and the line of several names in one exchange, in the names' order."""
    each = [(holders(name), line(name)) for name in names]
    commands = tuple(command for held, waiting in each for command in (*held.commands, *waiting.commands))

    def parse(replies: list[type_of_reply]) -> list[tuple[list[Holder], list[Waiter]]]:
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [(held.parse([first]), waiting.parse([second])) for (held, waiting), (first, second) in zip(each, pairs, strict=True)]

    return Operation(commands, parse)


def _ask(verb: str, name: str, most: int, shard: str, holders: Sequence[str], rank: Rank) -> Operation[tuple[Grants, list[str]]]:
    if len(holders) > MOST_HOLDERS:
        raise ValueError(f"{len(holders)} holders in one call")
    command = invocation("limit", limit_keys(name), verb, most, shard, rank.priority, rank.began_us, KEPT_US, *holders)

    def parse(replies: list[type_of_reply]) -> tuple[Grants, list[str]]:
        held, kept_us, called, *granted = replies[-1]
        each = iter(granted)
        slots = {holder.decode(): slot for holder, slot in zip(each, each, strict=True)}
        return Grants(held, slots, kept_us), [one.decode() for one in called]

    return Operation((("SADD", LIMIT_NAMES, name), command), parse)
