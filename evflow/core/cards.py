"""Cards as a log names them: what was made of an attempt, for people to look at; the pages themselves are in the store."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from evflow.core.state import Task

MOST_CARDS: Final = 32
"""Cards of one step: with their names they stand in one event, which has its limit (`evflow.core.codec`)."""
NAME_CHARS: Final = 100
"""The length of a card's type and of its id."""
TYPES: Final = ("default", "blank", "error", "taskspec_card", "default_json")
"""The types of cards that are evflow's own."""
BARE_TYPES: Final = TYPES[2:]
"""Those of them that take no components."""


class RecordedCard(NamedTuple):
    """A card.

    Attributes:
        type: What kind of card it is: `default`, `blank`, ...
        id: The name that its step gave it, or an empty string.
        page: Digest of its HTML in the store.
        size_bytes: The size of that.
        failed: It could not be rendered; the page says why.
        raw: Digest of the text that the class of its type gave, as it is and not safe to look at; empty where that is not kept.
    """

    type: str
    id: str
    page: bytes
    size_bytes: int = 0
    failed: bool = False
    raw: bytes = b""


_KINDS: Final = (str, str, bytes, int, bool, bytes)


def recorded(plain: Iterable[Sequence[Any]]) -> Iterator[RecordedCard]:
    """The cards that an attempt's event names; what a later version names in a way that is not known here is left out."""
    for values in plain:
        known = values[: len(_KINDS)]
        if len(known) >= 3 and all(type(one) is kind for one, kind in zip(known, _KINDS, strict=False)):
            yield RecordedCard(*known)


def of_task(task: Task, attempt: int | None = None) -> list[RecordedCard]:
    """The cards of an attempt: a certain one; else of the one that counts, or while none does, of the last that has some."""
    attempts = task.attempts
    if attempt is not None:
        return [*recorded(attempts[attempt].cards)] if attempt < len(attempts) else []
    if task.status in ("succeeded", "failed"):
        return [*recorded(attempts[-1].cards)] if attempts else []
    return next(([*recorded(one.cards)] for one in reversed(attempts) if one.cards), list[RecordedCard]())
