"""Limited names at the server: who holds them, and what the operator allows.

The names and who needs them are `evflow.core.limits`'. A name's holders are one hash, changed by one script, so that however many
owners ask at once, no more hold it than may. Whoever is refused is noted with its shard; whoever gives the name back puts a
word into those shards' inboxes (`LOOK`), which is no report and wakes their owners.
"""

from collections.abc import Sequence
from typing import Final

import msgpack

from evflow.core.ids import Micros
from evflow.log.commands import Operation
from evflow.log.keys import LIMIT_NAMES, LIMIT_TABLE, limit_keys, shard_keys
from evflow.log.protocol import Grants, Holder
from evflow.log.scripts import invocation
from evflow.log.wire import Command, type_of_reply

MOST_HOLDERS: Final = 1_000
"""Holders that one call may ask for (Lua's `unpack` fails past about 8,000 values)."""
LOOK: Final = b"look"
"""The payload of an inbox entry, of no run, that says: look again."""


def acquire(name: str, most: int, shard: str, holders: Sequence[str]) -> Operation[Grants]:
    """Hold a name, as many of the holders as may, in their order; the shard is told when it may be had again."""
    return _ask("acquire", name, most, shard, holders)


def hold(name: str, shard: str, holders: Sequence[str]) -> Operation[Grants]:
    """Hold a name whatever the limit: the holders run, and a server that lost its memory has to know it."""
    return _ask("hold", name, 0, shard, holders)


def release(name: str, holders: Sequence[str]) -> Operation[list[str]]:
    """Give a name back; answers the shards that waited for it."""
    keys = limit_keys(name)
    command = invocation("limit", (keys.held, keys.waiting), "release", 0, "", *holders)
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


def waiting(name: str) -> Operation[list[str]]:
    """The shards that wait for a name."""
    return Operation((("SMEMBERS", limit_keys(name).waiting),), lambda replies: sorted(shard.decode() for shard in replies[0]))


def _ask(verb: str, name: str, most: int, shard: str, holders: Sequence[str]) -> Operation[Grants]:
    if len(holders) > MOST_HOLDERS:
        raise ValueError(f"{len(holders)} holders in one call")
    keys = limit_keys(name)
    command = invocation("limit", (keys.held, keys.waiting), verb, most, shard, *holders)

    def parse(replies: list[type_of_reply]) -> Grants:
        held, *granted = replies[-1]
        each = iter(granted)
        return Grants(held, {holder.decode(): slot for holder, slot in zip(each, each, strict=True)})

    return Operation((("SADD", LIMIT_NAMES, name), command), parse)
