"""`current.card`: what a step puts into its cards.

No use of it raises for what it is given: a card is never worth its task. What cannot be done is said on stderr, where the task's log
has it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from evflow.cards.component import CardComponent
from evflow.core.cards import BARE_TYPES, TYPES


class CardPlan:
    """A card that a step asked for, and what it has put into it.

    Attributes:
        type: Its kind.
        id: Its name, or None.
        customize: It is the one that `current.card` itself means.
        timeout_s: How long its rendering may take.
        save_errors: A page that says why takes its place where it cannot be rendered.
        options: What a card of this type is told.
        refresh_interval_s: How often it is drawn while the task goes on, at most.
        parts: What is in it.
        data: What `refresh` was told last.
        told: It was said that it is drawn at the end alone.
    """

    def __init__(
        self,
        type_: str = "default",
        id_: str | None = None,
        *,
        customize: bool = False,
        timeout_s: float = 45,
        save_errors: bool = True,
        options: dict[str, Any] | None = None,
        refresh_interval_s: float = 5,
    ) -> None:
        self.type = type_
        self.id = id_
        self.customize = customize
        self.timeout_s = timeout_s
        self.save_errors = save_errors
        self.options = options or {}
        self.refresh_interval_s = refresh_interval_s
        self.parts: dict[str | int, CardComponent] = {}  # by the text of an id, or a number where there is none
        self.data: Any = None
        self.told = False
        self._made = 0

    @property
    def is_editable(self) -> bool:
        """Whether it takes components."""
        if self.type in TYPES:
            return self.type not in BARE_TYPES
        from evflow.cards.types import takes_components

        return takes_components(self.type)

    @property
    def components(self) -> list[CardComponent]:
        """What is in it, in order."""
        return [*self.parts.values()]

    def add(self, component: object, name: str | None = None) -> None:
        """Put something behind all others; under a name that is taken, in that one's place."""
        if not isinstance(component, CardComponent):
            if not callable(getattr(component, "render", None)):
                warn(f"{type(component).__name__} is no component of a card, and is left out. The components are in evflow.cards.")
                return
            component = _Foreign(component)
        self._made += 1
        self.parts[self._made if name is None else str(name)] = component


class _Foreign(CardComponent):
    """A component of a class that is not ours, and has `render`."""

    def __init__(self, component: Any) -> None:
        self._component = component

    def render(self) -> str:
        """What it says, sanitised: nobody promised that it is."""
        from evflow.cards.markdown import sanitised

        return sanitised(str(self._component.render()))


class Components:
    """The components of a card by the ids they were given: `current.card.components["bar"].update(3)`."""

    def __init__(self, plan: CardPlan | None) -> None:
        self._plan = plan

    def __getitem__(self, name: str) -> CardComponent:
        parts = self._plan.parts if self._plan is not None else {}
        found = parts.get(str(name))
        if found is None:
            ids = ", ".join(str(one) for one in parts if isinstance(one, str)) or "none"
            warn(f"The card has no component with the id {name!r} (it has: {ids}); a change of it changes nothing.")
            return _Nothing()
        return found

    def __setitem__(self, name: str, component: object) -> None:
        if self._plan is not None:
            self._plan.add(component, name)

    def __contains__(self, name: object) -> bool:
        return self._plan is not None and str(name) in self._plan.parts

    def __iter__(self) -> Iterator[str]:
        return iter([one for one in (self._plan.parts if self._plan is not None else ()) if isinstance(one, str)])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Nothing(CardComponent):
    """Stands in for a component that is not there."""

    def render(self) -> str:
        """Nothing."""
        return ""

    def update(self, *given: Any, **named: Any) -> None:
        """Nothing to change."""


Redraw = Callable[[list[CardPlan], CardPlan, bool], None]
"""Draws one of a step's cards while the task goes on; whether it was told to do so at once."""


_drawing: list[Redraw] = []


def draw_with(redraw: Redraw | None) -> None:
    """Say who draws the cards of this process's next step while it goes on; None where nobody could see it."""
    _drawing[:] = [] if redraw is None else [redraw]


class CardEditor:
    """One card, in the hands of its step.

    Args:
        plan: The card; None for one that is not there, of which that was said.
        every: All cards of the step.
        missing: What is said where something is put into it that has no place.
    """

    def __init__(self, plan: CardPlan | None, every: "Cards | None" = None, missing: str = "") -> None:
        self._plan = plan
        self._every = every
        self._missing = missing

    def append(self, component: object, id: str | None = None) -> None:  # noqa: A002 - as in Metaflow
        """Put a component behind all others.

        Args:
            component: The component.
            id: A name to find it by in `components`.
        """
        if (plan := self._there()) is not None:
            plan.add(component, id)

    def extend(self, components: Iterable[object]) -> None:
        """Put components behind all others."""
        if (plan := self._there()) is not None:
            for component in _several(components):
                plan.add(component)

    def clear(self) -> None:
        """Take all components out."""
        if (plan := self._there()) is not None:
            plan.parts.clear()

    def refresh(self, data: Any = None, force: bool = False) -> None:
        """Draw the card now, while the task goes on, so that who looks at it sees how far it is.

        Args:
            data: What a card of a type of your own is told.
            force: Do not wait until `refresh_interval` is over.
        """
        plan = self._there()
        if plan is not None:
            plan.data = data
            if self._every is not None and self._every.redraw is not None:
                self._every.redraw(self._every.plans, plan, force)

    @property
    def components(self) -> Components:
        """The components that have ids."""
        return Components(self._there())

    def _there(self) -> CardPlan | None:
        if self._plan is None and self._missing:
            warn(self._missing)
            self._missing = ""  # said once
        return self._plan


class Cards(CardEditor):
    """All cards of a step: itself the one that is meant where none is named, others by their ids.

    Args:
        plans: The step's cards.

    Attributes:
        plans: The step's cards.
        redraw: Draws one of them anew while the task goes on; None where nobody could see it.
    """

    def __init__(self, plans: Sequence[CardPlan]) -> None:
        plan, missing = _meant(plans)
        super().__init__(plan, self, missing)
        self.plans = [*plans]
        self._twice: set[str] = set()
        self.redraw = _drawing[-1] if _drawing else None

    def __getitem__(self, name: str) -> CardEditor:
        found = [plan for plan in self.plans if plan.id == name and plan.is_editable]
        if len(found) > 1 and name not in self._twice:
            self._twice.add(name)  # said once
            warn(f"This step has {len(found)} cards with the id {name!r}; the first of them is meant. Give each one an id of its own.")
        if found:
            return CardEditor(found[0], self)
        ids = ", ".join(plan.id for plan in self.plans if plan.id) or "none"
        return CardEditor(None, None, f"This step has no card with the id {name!r} that takes components (its ids: {ids}).")

    def __setitem__(self, name: str, components: Iterable[object]) -> None:
        editor = self[name]
        editor.clear()
        editor.extend(components)

    def __iter__(self) -> Iterator[str]:
        return iter([plan.id for plan in self.plans if plan.id])

    def __contains__(self, name: object) -> bool:
        return any(plan.id == name for plan in self.plans)

    def get(self, type: str | None = None) -> list[list[CardComponent]]:  # noqa: A002 - as in Metaflow
        """The components of the cards of a type, card by card."""
        return [plan.components for plan in self.plans if type is None or plan.type == type]


def warn(text: str) -> None:
    """Say something in the task's log."""
    with suppress(Exception):  # the user's stream may be anything, and a card is never worth its task
        sys.stderr.write(f"[@card] {text}\n")


def _meant(plans: Sequence[CardPlan]) -> tuple[CardPlan | None, str]:
    """The card that `current.card` itself means, or why it means none."""
    editable = [plan for plan in plans if plan.is_editable]
    if len(editable) == 1:
        return editable[0], ""
    for some in ([plan for plan in editable if plan.customize], [plan for plan in editable if not plan.id]):
        if len(some) == 1:
            return some[0], ""
    if not editable:
        return None, "This step has no card that takes components, and what is put into current.card is left out."
    hint = 'Name one: current.card["id"], or say @card(customize=True) of one.'
    return None, f"This step has {len(editable)} cards, and which one current.card means is not said: it is left out. {hint}"


def _several(components: object) -> Iterable[object]:
    if isinstance(components, Iterable) and not isinstance(components, str | bytes | CardComponent):
        return cast("Iterable[object]", components)
    return [components]
