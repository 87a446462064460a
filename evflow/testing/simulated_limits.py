"""Limited names as the simulated server holds them: `evflow/log/lua/limit.lua`, check by check."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from evflow.core.ids import Micros
from evflow.core.line import Rank, Waiter, kept_for
from evflow.log.protocol import Grants, Holder


@dataclass(slots=True)
class LimitedName:
    """A name: its holders, and the shards that wait for it."""

    held: dict[str, Holder] = field(default_factory=dict[str, Holder])
    waiting: dict[str, Waiter] = field(default_factory=dict[str, Waiter])


@dataclass(slots=True)
class LimitedNames:
    """All names that were ever held, and the operator's limits."""

    names: dict[str, LimitedName] = field(default_factory=dict[str, LimitedName])
    table: dict[str, int] = field(default_factory=dict[str, int])

    def ask(self, name: str, most: int | None, shard: str, holders: Sequence[str], rank: Rank, now_us: int) -> tuple[Grants, list[str]]:
        """`acquire`, and `hold` where there is no limit: what is granted, and the shards to tell that a place is kept for them."""
        limited = self.names.setdefault(name, LimitedName())
        asker = Waiter(shard, "", rank, now_us)
        kept, called = self._kept(limited, most, asker, now_us)
        granted: dict[str, int] = {}
        denied = ""
        for holder in holders:
            if holder not in limited.held and most is not None and len(limited.held) + len(kept) >= most:
                denied = denied or holder
                continue
            if holder not in limited.held:
                used = {one.slot for one in limited.held.values()}
                slot = next(slot for slot in range(len(used) + 1) if slot not in used)
                limited.held[holder] = Holder(holder, slot, Micros(now_us), shard)
            granted[holder] = limited.held[holder].slot
        if most is not None:
            before = limited.waiting.pop(shard, None)
            if denied:
                since_us = before.since_us if before is not None and before.holder == denied else now_us
                limited.waiting[shard] = replace(asker, holder=denied, since_us=since_us)
        free = most is not None and len(limited.held) < most
        return Grants(len(limited.held), granted, min(kept.values(), default=0) if denied and free else 0), called

    def release(self, name: str, holders: Sequence[str], now_us: int) -> list[str]:
        """`release`: the shards that wait, the first in line first."""
        limited = self.names.get(name, LimitedName())
        if not [holder for holder in holders if limited.held.pop(holder, None)]:
            return []
        self._call(limited, [shard for shard, one in limited.waiting.items() if not one.called_us], now_us)
        return [one.shard for one in self.line(name)]

    def line(self, name: str) -> list[Waiter]:
        """Who waits for a name, the first one first."""
        return sorted(self.names.get(name, LimitedName()).waiting.values(), key=lambda one: one.place)

    def _kept(self, limited: LimitedName, most: int | None, asker: Waiter, now_us: int) -> tuple[dict[str, int], list[str]]:
        """The places that are kept before the asker; whoever did not answer in time has lost its place in the line."""
        if most is None or len(limited.held) >= most:
            return {}, []
        first = sorted(
            (one for one in limited.waiting.values() if one.shard != asker.shard and one.place < asker.place), key=lambda one: one.place
        )
        kept = kept_for(first, asker, now_us)
        called = [one.shard for one in first if not one.called_us]
        self._call(limited, called, now_us)
        for one in first:
            if one.shard not in kept:
                del limited.waiting[one.shard]
        return kept, called

    @staticmethod
    def _call(limited: LimitedName, shards: Sequence[str], now_us: int) -> None:
        for shard in shards:
            limited.waiting[shard] = replace(limited.waiting[shard], called_us=now_us)

    def holders(self, name: str) -> list[Holder]:
        """Who holds a name, by slot."""
        return sorted(self.names.get(name, LimitedName()).held.values(), key=lambda holder: holder.slot)

    def set_most(self, name: str, most: int | None) -> None:
        """Change the operator's limit."""
        if most is None:
            self.table.pop(name, None)
        else:
            self.table[name] = most
