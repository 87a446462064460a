"""How schedulers share the shards out among them: pure."""

from collections.abc import Mapping
from typing import NamedTuple

from evflow.log.keys import shared_shards


class Holding(NamedTuple):
    """A shard that is owned: how many attempts of it run, and whether it is being drained."""

    live: int
    draining: bool


class Moves(NamedTuple):
    """Shards that are to be drained, for somebody else to take them, and those that stay after all."""

    leave: list[str]
    stay: list[str]


def fair_share(living: int) -> int:
    """How many shards each of so many schedulers owns, at most; together they can own all."""
    return -(-len(shared_shards()) // max(1, living))


def moves(held: Mapping[str, Holding], beyond: int, *, has_room: bool) -> Moves:
    """What to do with more shards than the share, or fewer.

    A shard in which something runs is not drained where there are slots: its runs would stand still until that has
    ended. Where all slots are taken they stand still anyway, and another scheduler has slots.

    Args:
        held: The shards, by name.
        beyond: How many more than the share are owned, those included that are being drained.
        has_room: Slots are left.
    """
    leaving = [name for name, shard in held.items() if shard.draining]
    beyond -= len(leaving)
    if beyond < 0:
        return Moves([], sorted(leaving, key=lambda name: -held[name].live)[:-beyond])
    staying = sorted((name for name, shard in held.items() if not shard.draining), key=lambda name: held[name].live)
    return Moves([name for name in staying[:beyond] if not (held[name].live and has_room)], [])
