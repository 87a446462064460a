"""How schedulers share the shards out among them: pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from evflow.core.versions import Generation, parsed
from evflow.log.keys import SHARED_SHARDS, shared_shards
from evflow.log.shard_sets import generation_of, may_own


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


def assigned(name: str, living: Collection[str]) -> frozenset[str] | None:
    """The shards of a scheduler where some may own certain shards only; None where each may own all, and a number is enough.

    A shard is one of the latest version's among those that may own it: what a later version has written of a run an older one cannot go on with.

    Every scheduler that knows the same of the others comes to the same: each shard that somebody may own is somebody's, those that the fewest
    may own first, each to the one that has the fewest by then.

    Args:
        name: The scheduler's, among those that live.
        living: All of them.
    """
    reach = {one: may_own(one) for one in sorted({*living, name})}
    versions = {one: parsed(generation_of(one)) for one in reach}
    if all(len(shards) == SHARED_SHARDS for shards in reach.values()) and len(set(versions.values())) == 1:
        return None
    owners = {shard: _latest([one for one, shards in reach.items() if shard in shards], versions) for shard in range(SHARED_SHARDS)}
    given = dict.fromkeys(reach, 0)
    mine: set[str] = set()
    for shard in sorted((shard for shard, able in owners.items() if able), key=lambda shard: (len(owners[shard]), shard)):
        heir = min(owners[shard], key=lambda one: (given[one], one))
        given[heir] += 1
        if heir == name:
            mine.add(shared_shards()[shard])
    return frozenset(mine)


def is_superseded(name: str, living: Collection[str]) -> bool:
    """Whether a scheduler of a later version lives: then shards of its are handed over, whatever runs in them."""
    return any(parsed(generation_of(one)) > parsed(generation_of(name)) for one in living)


def _latest(able: list[str], versions: Mapping[str, Generation]) -> list[str]:
    newest = max((versions[one] for one in able), default=None)
    return [one for one in able if versions[one] == newest]


def moves(held: Mapping[str, Holding], beyond: int, *, has_room: bool, strange: Collection[str] = ()) -> Moves:
    """What to do with more shards than the share, or fewer.

    A shard in which something runs is not drained where there are slots: its runs would stand still until that has
    ended. Where all slots are taken they stand still anyway, and another scheduler has slots.

    Args:
        held: The shards, by name.
        beyond: How many more than the share are owned, those included that are being drained.
        has_room: Slots are left.
        strange: Those of them that are another scheduler's by now: they go before others, and never stay.
    """
    beyond = max(beyond, sum(name in strange for name in held))
    leaving = [name for name, shard in held.items() if shard.draining]
    beyond -= len(leaving)
    if beyond < 0:
        return Moves([], sorted((name for name in leaving if name not in strange), key=lambda name: -held[name].live)[:-beyond])
    staying = sorted((name for name, shard in held.items() if not shard.draining), key=lambda name: (name not in strange, held[name].live))
    return Moves([name for name in staying[:beyond] if not (held[name].live and has_room)], [])
