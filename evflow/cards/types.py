"""Types of cards: the class behind each, evflow's and those of a flow's own.

A class below `CardType` with a `type` is known from its definition on, wherever the flow's file has it from. Card packages that were
written for Metaflow (`metaflow_extensions.<name>.plugins.cards`, with a list `CARDS`) are looked at when a type is asked for that nobody
has defined. The names and arguments are Metaflow's.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, ClassVar, Final, cast

from evflow.core.cards import BARE_TYPES, TYPES
from evflow.errors import UsageError, did_you_mean

RELOAD_MARK: Final = "[METAFLOW_RELOAD_TOKEN]"

_EXTENSIONS: Final = "metaflow_extensions"
_RULES: Final = "evflow.compat.metaflow.rules"
"""Loaded where Metaflow's rules are in force."""
_PLAIN_CARDS: Final = "evflow.compat.metaflow.plain_cards"
"""The types that Metaflow has for trials: known there without an import. By name, as that package stands above."""


class NoSuchCardType(UsageError):
    """No kind of card has this name."""

    code = "no-such-card-type"

    def __init__(self, name: str) -> None:
        there = known()
        super().__init__(
            f"There is no type of card called '{name}'.",
            f"The types are: {', '.join(there)}.{did_you_mean(name, there)} One of your own is a class below evflow.cards.CardType in a module that "
            "the flow imports.",
        )


class CardType:
    """What a type of card of one's own is made of: a class with a `type` and a method `render`.

    `@card(type="mine", options={…})` on a step makes an object of the class whose `type` is `mine` when the task is done, and its `render`
    gives the page's content.

    Attributes:
        type: The name of the type.
        ALLOW_USER_COMPONENTS: The card takes components, and is told them as `components`: each as its HTML.
        RUNTIME_UPDATABLE: `current.card.refresh()` draws it while the task goes on, by `render_runtime`.
        RELOAD_POLICY: When a page that is open is read anew meanwhile: `never`; `always`; `onchange`, when `reload_content_token` gives another text.
        RELOAD_POLICY_TOKEN: A text that the page may hold; a name of what it shows is put in its place.
        runtime_data: In `render`: as `data` of `render_runtime`, as it was at the end.

    Args:
        options: What the step's `@card` says as `options`; left out where it says none.
        components: The card's components as HTML, in order.
        graph: The steps of the flow by name, as `current.graph["steps"]`.
        flow: The flow, without artifacts.
    """

    RELOAD_POLICY_NEVER: ClassVar[str] = "never"
    RELOAD_POLICY_ALWAYS: ClassVar[str] = "always"
    RELOAD_POLICY_ONCHANGE: ClassVar[str] = "onchange"
    RELOAD_POLICY_TOKEN: ClassVar[str] = RELOAD_MARK

    type: ClassVar[str | None] = None
    ALLOW_USER_COMPONENTS: ClassVar[bool] = False
    RUNTIME_UPDATABLE: ClassVar[bool] = False
    RELOAD_POLICY: ClassVar[str] = RELOAD_POLICY_NEVER
    scope: ClassVar[str] = "task"
    runtime_data: Mapping[str, Any] | None = None

    _builtin: str | None = None
    """The type of evflow's whose content `render` gives, where a class below it has none of its own."""
    _content: Any = None
    """Gives that content; set where the card is made of a task that ends here."""

    def __init_subclass__(cls, **given: Any) -> None:
        """Take note of the type."""
        super().__init_subclass__(**given)
        name = cls.__dict__.get("type")
        if isinstance(name, str) and name and name not in TYPES:
            _own[name] = cls

    def __init__(
        self,
        options: Mapping[str, Any] = {},
        components: Sequence[str] = (),
        graph: Mapping[str, Any] | None = None,
        flow: Any = None,
        **_: Any,
    ) -> None:
        """Take nothing: a class that needs some of these takes them in an `__init__` of its own."""

    def render(self, task: Any) -> str:
        """The content of the page: HTML, a whole document or a part of one.

        Args:
            task: The task that ended, as the client sees it: `task.data.model`, `task.pathspec`.
        """
        if self._builtin is None:
            raise NotImplementedError(f"{type(self).__name__} has no `render`.")
        if self._content is None:
            raise NotImplementedError("A card of this type is made by the task itself, at its end: put @card on the step.")
        return cast("str", self._content())

    def render_runtime(self, task: Any, data: Mapping[str, Any]) -> str:
        """As `render`, while the task goes on.

        Args:
            task: The task.
            data: `user`: what `current.card.refresh(data)` was told last; `components`: the components as HTML, by their ids; `render_seq`: the
                number of the drawing, from 1; `mode`.
        """
        if self._builtin is None:
            raise NotImplementedError(f"{type(self).__name__} has no `render_runtime`.")
        return self.render(task)

    def refresh(self, task: Any, data: Mapping[str, Any]) -> Any:
        """What is new since the last drawing, as plain data for programs that follow the card; `data` as in `render_runtime`."""
        raise NotImplementedError(f"{type(self).__name__} has no `refresh`.")

    def reload_content_token(self, task: Any, data: Mapping[str, Any]) -> str:
        """A text that is another one whenever an open page should be read anew, under the policy `onchange`."""
        return "content-token"


class DefaultCard(CardType):
    """The type `default`: what the step put into the card, and what evflow knows of the task."""

    type = "default"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ONCHANGE
    _builtin = "default"


class BlankCard(CardType):
    """The type `blank`: what the step put into the card."""

    type = "blank"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ONCHANGE
    _builtin = "blank"


class ErrorCard(CardType):
    """The type `error`: what the attempt failed with."""

    type = "error"
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ONCHANGE
    _builtin = "error"


_own: dict[str, type[CardType]] = {}


def known() -> list[str]:
    """The names of all types."""
    return [*TYPES, *_own]


def own_type(name: str) -> type[CardType] | None:
    """The class of a type that is not evflow's own; None where there is none."""
    if name not in _own and name not in TYPES and _RULES in sys.modules:
        import_module(_PLAIN_CARDS)
    if name not in _own and name not in TYPES:
        for kind in _installed():
            _own.setdefault(str(kind.type), kind)
    return _own.get(name)


def takes_components(name: str) -> bool:
    """Whether cards of a type take components; of one that is not known, so that nothing more is said than that."""
    if name in TYPES:
        return name not in BARE_TYPES
    kind = own_type(name)
    return kind is None or bool(kind.ALLOW_USER_COMPONENTS)


def _installed() -> Iterator[type[CardType]]:
    """The types of packages for Metaflow that are installed; one that cannot be loaded has none."""
    from evflow.imports import user_view

    with user_view(), suppress(Exception):
        for folder in import_module(_EXTENSIONS).__path__:
            for name in sorted(filter(str.isidentifier, os.listdir(folder))):  # noqa: PTH208 - pathlib is a heavy import in an attempt
                yield from _of_package(f"{_EXTENSIONS}.{name}.plugins.cards")


def _of_package(name: str) -> Iterator[type[CardType]]:
    try:
        package = import_module(name)
    except Exception:  # noqa: BLE001 - somebody's package, which may have no cards or need what is not here
        return
    if hasattr(package, "CARDS") or getattr(package, "__file__", None):
        listed: object = getattr(package, "CARDS", None)
        for kind in cast("list[object]", listed) if isinstance(listed, list) else []:
            if isinstance(kind, type) and issubclass(kind, CardType) and isinstance(kind.type, str):
                yield kind
        return
    import pkgutil

    for found in pkgutil.iter_modules(package.__path__, f"{name}."):  # a namespace, with a package of cards each
        if found.ispkg:
            yield from _of_package(found.name)
