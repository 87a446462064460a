"""The line for a limited name: who of several shards gets a place that is free.

A name's holders are its server's to count (`evflow.core.limits`); a shard's owner sees its own runs only. So the server keeps, beside the holders, who
was refused last of each shard. A free place is kept for whoever comes before the one that asks: for a second from when it was told, since it may
have no slot for it, or be dead. Then it has lost its place in the line, which it gets again by asking. `limit.lua` decides by these rules.
"""

from collections.abc import Iterable
from typing import Final

from evflow.core.values import value

KEPT_US: Final = 1_000_000
"""How long a free place is kept for a shard that comes first and was told: it may have no slot for it, or have died."""


@value
class Rank:
    """Where an asker stands in the line for a name: by priority, then by when its run began, which is the same for whoever owns it."""

    priority: int = 0
    began_us: int = 0


@value
class Waiter:
    """Who waits in the line for a name: the asker of its shard that was refused last.

    Attributes:
        shard: The shard; each stands once in a line.
        holder: The attempt or the run that asked.
        rank: Where it stands.
        since_us: When it was refused first.
        called_us: When its shard was told that a place is free, 0 where it was not; the place is kept for `KEPT_US` from then.
    """

    shard: str
    holder: str
    rank: Rank
    since_us: int
    called_us: int = 0

    @property
    def place(self) -> tuple[int, int, str]:
        """By this a line is sorted."""
        return -self.rank.priority, self.rank.began_us, self.shard


def kept_for(line: Iterable[Waiter], asker: Waiter, now_us: int) -> dict[str, int]:
    """The shards for which places are kept before the asker: those that come first and can still answer, and for how many microseconds.

    Args:
        line: Who waits.
        asker: Who asks.
        now_us: The present instant; whoever was not told yet is told now.
    """
    first = (one for one in line if one.shard != asker.shard and one.place < asker.place)
    left = {one.shard: (one.called_us or now_us) + KEPT_US - now_us for one in first}
    return {shard: us for shard, us in left.items() if 0 < us <= KEPT_US}


NO_RANK: Final = Rank()
