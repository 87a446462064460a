"""Who carries out a run of schedulers, or why nobody does: from its shard's lease and the schedulers that say that they live."""

from collections.abc import Collection, Mapping

from evflow.core.values import value


@value
class IsCarriedOut:
    """A scheduler has the run."""

    by: str


@value
class IsDrained:
    """The scheduler that has the run begins nothing any more and gives it to another one when its tasks have ended."""

    by: str
    others: tuple[str, ...]


@value
class IsToBeTaken:
    """Nobody has the run at present; these schedulers may, and one does within seconds."""

    by: tuple[str, ...]


@value
class NobodyMayOwn:
    """Schedulers live, and none may own the run's shard (`--shards`)."""

    shard: str
    living: tuple[str, ...]


@value
class NobodyLives:
    """No scheduler lives."""


Whose = IsCarriedOut | IsDrained | IsToBeTaken | NobodyMayOwn | NobodyLives


def whose(number: int, owner: str, living: Mapping[str, Collection[int]]) -> Whose:
    """Who carries out the runs of a shared shard.

    Args:
        number: The shard's.
        owner: The process whose lease it is, and that lives; an empty string where there is none.
        living: The processes of the schedulers that say that they live, and the numbers of the shards that each may own. One that drains says it no more.
    """
    able = tuple(sorted(name for name, may in living.items() if number in may and name != owner))
    if owner:
        return IsCarriedOut(owner) if owner in living else IsDrained(owner, able)
    if able:
        return IsToBeTaken(able)
    return NobodyMayOwn(f"s{number}", tuple(sorted(living))) if living else NobodyLives()
