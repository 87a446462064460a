"""Sets of shared shards as people write them, and the ones that a scheduler may own, as its name among those that live says it."""

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from evflow.log.keys import SHARED_SHARDS


def parsed(text: str) -> tuple[int, ...]:
    """Read `0-3,6`: numbers and ranges, in any order.

    Raises:
        ValueError: It is none, or names a shard that there is not.
    """
    found = sorted({number for part in text.split(",") for number in _range(part.strip())})
    if not found or found[-1] >= SHARED_SHARDS:
        raise ValueError(text)
    return tuple(found)


def _range(part: str) -> Iterable[int]:
    first, dash, last = part.partition("-")
    if not all(number.isascii() and number.isdecimal() and len(number) < 4 for number in ((first, last) if dash else (first,))):
        raise ValueError(part)
    low, high = int(first), int(last or first)
    if low > high:
        raise ValueError(part)
    return range(low, high + 1)


def shown(numbers: Collection[int]) -> str:
    """The inverse of `parsed`, as short as can be."""
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in _spans(sorted(numbers)))


def _spans(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The first and last numbers of what follows each other."""
    low = numbers[0] if numbers else 0
    for number, following in pairwise([*numbers, -1]):
        if following != number + 1:
            yield low, number
            low = following


def announced(owner: str, numbers: Collection[int], generation: str = "") -> str:
    """A scheduler's name among those that live.

    Behind its owner's name stand the shards that it may own, unless it may own all, and what it can go on with (`evflow.core.versions`).
    """
    may = shown(numbers) if 0 < len(set(numbers)) < SHARED_SHARDS else ""
    return ":".join((owner, may, generation)).rstrip(":")


def generation_of(name: str) -> str:
    """What a scheduler says that it can go on with; empty where it says nothing."""
    return (name.split(":") + [""] * 6)[5]


def may_own(name: str) -> tuple[int, ...]:
    """The shards that a scheduler may own, by its name among those that live; all where it says nothing that is known here."""
    parts = name.split(":")
    try:
        return parsed(parts[4])
    except (IndexError, ValueError):
        return tuple(range(SHARED_SHARDS))
