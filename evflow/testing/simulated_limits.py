"""Limited names as the simulated server holds them: `evflow/log/lua/limit.lua`, check by check."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from evflow.core.ids import Micros
from evflow.log.protocol import Grants, Holder


@dataclass(slots=True)
class LimitedName:
    """A name: its holders, and the shards that wait for it."""

    held: dict[str, Holder] = field(default_factory=dict[str, Holder])
    waiting: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class LimitedNames:
    """All names that were ever held, and the operator's limits."""

    names: dict[str, LimitedName] = field(default_factory=dict[str, LimitedName])
    table: dict[str, int] = field(default_factory=dict[str, int])

    def ask(self, name: str, most: int | None, shard: str, holders: Sequence[str], now_us: int) -> Grants:
        """`acquire`, and `hold` where there is no limit."""
        limited = self.names.setdefault(name, LimitedName())
        granted: dict[str, int] = {}
        for holder in holders:
            if holder not in limited.held and most is not None and len(limited.held) >= most:
                limited.waiting.add(shard)
                continue
            if holder not in limited.held:
                used = {one.slot for one in limited.held.values()}
                slot = next(slot for slot in range(len(used) + 1) if slot not in used)
                limited.held[holder] = Holder(holder, slot, Micros(now_us), shard)
            granted[holder] = limited.held[holder].slot
        return Grants(len(limited.held), granted)

    def release(self, name: str, holders: Sequence[str]) -> list[str]:
        """`release`: the shards that waited."""
        limited = self.names.get(name, LimitedName())
        if not [holder for holder in holders if limited.held.pop(holder, None)]:
            return []
        waiting, limited.waiting = limited.waiting, set()
        return sorted(waiting)

    def holders(self, name: str) -> list[Holder]:
        """Who holds a name, by slot."""
        return sorted(self.names.get(name, LimitedName()).held.values(), key=lambda holder: holder.slot)

    def set_most(self, name: str, most: int | None) -> None:
        """Change the operator's limit."""
        if most is None:
            self.table.pop(name, None)
        else:
            self.table[name] = most
