"""Why a run does not get what only so many hold: the limits that span runs, as their holders and their line are at an instant."""

from collections.abc import Iterable, Sequence

from evflow.core.limits import Limit
from evflow.core.line import KEPT_US, Waiter
from evflow.core.values import value


@value
class WaitsForLimit:
    """A limited name that cannot be had.

    Attributes:
        name: The name.
        most: How many may hold it.
        held: Who holds it: attempts or runs.
        before: Who comes first in its line, of all shards.
        kept_for: Places are free, and the next one is kept for this one; an empty string where all are held.
    """

    name: str
    most: int
    held: tuple[str, ...]
    before: tuple[Waiter, ...]
    kept_for: str = ""


def of_limit(limit: Limit, held: Sequence[str], line: Iterable[Waiter], asker: Waiter, now_us: int) -> WaitsForLimit | None:
    """What keeps a run from a limited name, or None.

    Args:
        limit: The name, and how many may hold it.
        held: Who does.
        line: Who waits, the first one first.
        asker: The run, as it stands in that line.
        now_us: The present instant, by the server's clock.
    """
    if asker.holder in held:
        return None
    before = tuple(one for one in line if one.place < asker.place and not _is_of(one.holder, asker.holder))
    if len(held) >= limit.most:
        return WaitsForLimit(limit.name, limit.most, tuple(held), before)
    kept = [one for one in before if one.shard != asker.shard and 0 <= now_us - one.called_us < KEPT_US]
    if len(held) + len(kept) < limit.most:
        return None
    return WaitsForLimit(limit.name, limit.most, tuple(held), before, kept[0].holder)


def _is_of(holder: str, run: str) -> bool:
    """Whether a holder is the run, or an attempt of it."""
    return holder == run or holder.startswith(f"{run}/")
