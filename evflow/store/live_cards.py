"""Cards of attempts that go on, as they were drawn last: files beside what the attempts print (`evflow.store.logs`).

    <task>.<attempt>.<place>.<type>.<id>.html       the place among the step's cards, from 0; `~` for no id; beside it
        `.json`: what is new of it; `.raw`: what the class of its type gave, in flows for Metaflow

They are for whoever looks while a task runs, and what is left of one that was killed. The cards that count are objects of the store, which the
attempt's report names. So these are replaced, not synced, and go when the run's output goes.
"""

import hashlib
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from evflow.store.remote_output import fetch_cards, is_remote

_NONE = "~"
"""No card has it for an id (`@card`)."""
_PARTS = 6


class LiveCard(NamedTuple):
    """A card as it was drawn last.

    Attributes:
        task: The task.
        attempt: Its attempt.
        place: The card's place among those of its step, from 0.
        type: Its kind.
        id: Its name, or an empty string.
        path: Where it is.
    """

    task: int
    attempt: int
    place: int
    type: str
    id: str
    path: str


def write_live(folder: str, task: int, attempt: int, place: int, type_: str, id_: str, page: bytes, kind: str = "html") -> None:
    """Write a card, whole or not at all; or, for programs, what is new of it (`json`) or what its class gave (`raw`).

    Raises:
        OSError: It cannot be written.
    """
    name = f"{task}.{attempt}.{place}.{_quoted(type_)}.{_quoted(id_)}.{kind}"
    part = f"{folder}/.{name}.part"
    with open(part, "wb") as file:  # noqa: PTH123 - pathlib is a heavy import in an attempt
        file.write(page)
    os.replace(part, f"{folder}/{name}")  # noqa: PTH105 - as above


def live_cards(folder: str | None) -> Iterator[LiveCard]:
    """The cards at the place of a run's output, by task, attempt and place; those in a store elsewhere are fetched to this machine."""
    if folder is not None and is_remote(folder):
        fetched = _beside(folder)
        fetch_cards(folder, fetched)
        folder = fetched
    found: list[LiveCard] = []
    try:
        names = os.listdir(folder) if folder else []  # noqa: PTH208 - as above
    except OSError:
        names = []
    for name in names:
        parts = name.split(".")
        if len(parts) == _PARTS and parts[-1] == "html" and all(part.isdecimal() for part in parts[:3]):
            task, attempt, place = map(int, parts[:3])
            found.append(
                LiveCard(task, attempt, place, unquote(parts[3]), "" if parts[4] == _NONE else unquote(parts[4]), f"{folder}/{name}")
            )
    return iter(sorted(found))


def _beside(place: str) -> str:
    config: Any = import_module("evflow.config")  # by name: settings know of the log, which stands beside the store
    return f"{config.get('home')}/cache/live/{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def _quoted(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E") or _NONE
