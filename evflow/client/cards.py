"""Cards of tasks, as they lie in the store: `get_cards`."""

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, overload

from evflow import config
from evflow.client.errors import EvflowInvalidPathspec
from evflow.client.objects import FORMS
from evflow.client.task import Task
from evflow.core.cards import RecordedCard
from evflow.errors import EnvironmentProblem
from evflow.flow import dialect
from evflow.store import Store

_FOLDER = "cards"
_DIGITS = 12
_FRAME_HEIGHT = 600


class CacheUnwritable(EnvironmentProblem):
    """A card's file for a browser cannot be written."""

    code = "cache-unwritable"

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"'{folder}' cannot be written: {why}.", "`card get` writes a card to a file that you name, or prints it.")


class Card:
    """A card of a task.

    Attributes:
        type: Its kind: `default`, `blank`, ...
        id: The name that its step gave it, or None.
        hash: What tells it from all others: SHA-256 of its page, in hexadecimal digits; empty while the task goes on.
        size: The size of its page, in bytes; 0 while the task goes on.
        failed: It could not be rendered, and its page says why.
        from_resumed: The task was taken over from another run, and the card with it.
        origin_pathspec: The task that it was made of.
    """

    def __init__(self, task: Task, card: RecordedCard, live: Path | None = None) -> None:
        self._task = task
        self._live = live
        self._page, self._raw = card.page, card.raw
        self.type = card.type
        self.id = card.id or None
        self.hash = card.page.hex()
        self.size = card.size_bytes
        self.failed = card.failed
        self.origin_pathspec = task.origin_pathspec or task.pathspec
        self.from_resumed = task.origin_pathspec is not None

    def __repr__(self) -> str:
        name = f", id='{self.id}'" if self.id else ""
        return f"<Card of '{self._task.pathspec}': type='{self.type}'{name}, hash='{self.hash[:_DIGITS]}'>"

    @property
    def html(self) -> str:
        """The page; of a task that goes on, as it was drawn last.

        Raises:
            DataElsewhere: It lies on another machine.
            ObjectMissing: It is nowhere.
        """
        return self._live.read_text("utf-8", "replace") if self._live is not None else self._task.text(self._page)

    def get(self) -> str:
        """The page, as `html`. Under Metaflow's rules, of a card that its class made, the text that `render` returned, which is not safe to look at.

        Raises:
            DataElsewhere, ObjectMissing: As for `html`.
        """
        if not dialect.is_metaflow():
            return self.html
        if self._live is not None:
            return drawn_raw(self._live) or self.html
        return self._task.text(self._raw) if self._raw else self.html

    def get_data(self) -> Any:
        """What the card's class had for programs that follow it when it was drawn last while the task went on; None where that is nothing."""
        if self._live is None:
            same = [card for card in self._task.drawn_cards() if (card.type, card.id or None) == (self.type, self.id)]
            beside = Path(same[0].path).with_suffix(".json") if same else None
        else:
            beside = self._live.with_suffix(".json")
        return json.loads(beside.read_text("utf-8", "replace")) if beside is not None and beside.exists() else None

    @property
    def path(self) -> str:
        """A file with the page, which a browser can open; written where it is not there yet.

        Raises:
            CacheUnwritable: It cannot be written.
        """
        if self._live is not None:
            return str(self._live)
        name = "-".join(part for part in (self.type, self.id, self.hash[:_DIGITS]) if part)
        return str(cached(name, lambda: self.html))

    def view(self) -> None:
        """Open the card in a browser."""
        import webbrowser

        webbrowser.open(Path(self.path).as_uri())

    def framed(self) -> str:
        """It as a part of another page, such as a notebook."""
        # An origin of its own, so that nothing in it reaches the notebook; scripts for charts, as the page's policy allows them.
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.html)}" style="width:100%;height:{_FRAME_HEIGHT}px;border:0"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.framed()


class CardContainer(Sequence[Card]):
    """The cards of a task, in the order of their decorators; a notebook shows them."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = [*cards]

    def __len__(self) -> int:
        return len(self._cards)

    @overload
    def __getitem__(self, index: int) -> Card: ...
    @overload
    def __getitem__(self, index: slice) -> "CardContainer": ...
    def __getitem__(self, index: int | slice) -> "Card | CardContainer":
        return CardContainer(self._cards[index]) if isinstance(index, slice) else self._cards[index]

    def __repr__(self) -> str:
        return f"CardContainer({self._cards!r})"

    def _repr_html_(self) -> str:
        return "".join(card.framed() for card in self._cards)


def get_cards(task: "str | Task", id: str | None = None, type: str | None = None, follow_resumed: bool = True) -> CardContainer:  # noqa: A002 - as in Metaflow
    """The cards of a task: those of the attempt that counts; while it goes on, those that it has drawn so far.

    Args:
        task: A task, or its pathspec `Flow/run/step/task`.
        id: Only cards with this id.
        type: Only cards of this type.
        follow_resumed: Of a task that a resumed run took over, the cards that were made of it then.

    Raises:
        EvflowInvalidPathspec: The pathspec names no task.
        EvflowNotFound: There is no such task.
    """
    if isinstance(task, str):
        task = Task(task)
    elif not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EvflowInvalidPathspec("Task", "/".join(FORMS[:4]), task)
    if task.origin_pathspec is not None and not follow_resumed:
        return CardContainer([])
    found = [Card(task, card) for card in task.recorded_cards()]
    if not found or task.finished_at is None:  # it goes on, or was killed
        live = [Card(task, RecordedCard(card.type, card.id, b""), Path(card.path)) for card in task.drawn_cards()]
        found = live or found
    return CardContainer([card for card in found if id in (None, card.id) and type in (None, card.type)])


def page_of(store: Store, card: RecordedCard) -> str:
    """A card's page.

    Raises:
        ObjectMissing: The store has it not.
    """
    return bytes(store.get(card.page)).decode("utf-8", "replace")


def raw_of(store: Store, card: RecordedCard) -> str | None:
    """What a card's class gave; None where that is not kept.

    Raises:
        ObjectMissing: The store has it not.
    """
    return bytes(store.get(card.raw)).decode("utf-8", "replace") if card.raw else None


def drawn_raw(live: Path) -> str | None:
    """What the class of a card gave that was drawn last into this file; None where that is not kept."""
    beside = live.with_suffix(".raw")
    return beside.read_text("utf-8", "replace") if beside.exists() else None


def cached(name: str, page: Callable[[], str]) -> Path:
    """A file of this name in evflow's cache, with a page; `page` gives it where the file is not there yet.

    Raises:
        CacheUnwritable: It cannot be written.
    """
    folder = config.home() / "cache" / _FOLDER
    file = folder / f"{name}.html"
    if not file.exists():
        from os import getpid, replace

        text = page()
        part = folder / f".{name}.{getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(text, "utf-8", "replace")
            replace(part, file)  # noqa: PTH105 - whole or not at all
        except OSError as error:
            raise CacheUnwritable(folder, error.strerror or str(error)) from error
    return file


def named(cards: Sequence[RecordedCard], *, id: str | None = None, type: str | None = None, digest: str = "") -> Iterator[RecordedCard]:  # noqa: A002 - as in Metaflow
    """Those of cards that have an id, a type and a hash that begins so."""
    for card in cards:
        if id in (None, card.id) and type in (None, card.type) and card.page.hex().startswith(digest.lower()):
            yield card
