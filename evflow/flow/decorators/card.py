"""`@card`: a page about each task of a step, for people to look at."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, overload

from evflow.core.cards import MOST_CARDS, NAME_CHARS
from evflow.flow import current
from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.fields import number_mistake
from evflow.flow.scope import scope_of
from evflow.flow.steps import facts

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Card(StepDecorator):
    """See `card`."""

    name = "card"
    repeatable = True
    # `scope` and `rank` stand in Metaflow's list and have no effect there either.
    defaults = MappingProxyType(
        {
            "type": "default",
            "id": None,
            "options": {},
            "timeout": 45,
            "save_errors": True,
            "customize": False,
            "refresh_interval": 5,
            "scope": "task",
            "rank": None,
        }
    )

    def mistakes(self) -> Iterator[str]:
        """Texts that can be names, times that are positive."""
        yield from number_mistake(self, "timeout")
        yield from number_mistake(self, "refresh_interval")
        kind, name = self.value("type"), self.value("id")
        if not isinstance(kind, str) or not kind or len(kind) > NAME_CHARS:
            yield f"@card takes the name of a kind of card as type, not {kind!r}."
        if name is not None and (not isinstance(name, str) or not name or len(name) > NAME_CHARS or not _CHARS.issuperset(name)):
            yield f"@card takes letters, digits, - and _ as id, up to {NAME_CHARS}, not {name!r}."
        if not isinstance(self.value("options"), Mapping):
            yield f"@card takes a dict as options, not {self.value('options')!r}."

    def policy(self) -> Mapping[str, object]:
        """That there are cards."""
        return {"cards": 1}

    def before(self, flow: "FlowSpec") -> None:
        """Give the step `current.card`, for all of its cards at once."""
        if "card" in current.current:
            return
        from evflow.imports import framework_view

        with framework_view():
            from evflow.cards.collector import CardPlan, Cards, warn
        asked = [one for one in facts(type(flow)).decorators(scope_of(flow).step) if isinstance(one, Card)][::-1]
        if len(asked) > MOST_CARDS:
            warn(f"This step asks for {len(asked)} cards. The first {MOST_CARDS} are made.")
        plans = [
            CardPlan(
                one.value("type"),
                one.value("id"),
                customize=bool(one.value("customize")),
                timeout_s=float(one.value("timeout")),
                save_errors=bool(one.value("save_errors")),
                options=dict(one.value("options")),
                refresh_interval_s=float(one.value("refresh_interval")),
            )
            for one in asked[:MOST_CARDS]
        ]
        current.attach("card", Cards(plans))


@overload
def card(function: F, /) -> F: ...
@overload
def card(
    *,
    type: str = "default",
    id: str | None = None,
    options: Mapping[str, Any] = {},
    timeout: float = 45,
    save_errors: bool = True,
    customize: bool = False,
    refresh_interval: float = 5,
    scope: str = "task",
    rank: int | None = None,
) -> Callable[[F], F]: ...
def card(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Make a page about each task of the step, with what the step puts into `current.card`.

    It may stand on a step more than once. Whatever goes wrong with a card, the task is not touched by it.

    Args:
        function: The step, where it is used bare.
        type: What kind of card: `default`, `blank` (what the step puts into it and nothing else), or a type of your own (`evflow.cards.CardType`).
        id: A name, to tell several cards of a step apart: `current.card["id"]`.
        options: What a card of this type is told.
        timeout: Seconds that rendering it may take, in the task's process, before the task's end is reported.
        save_errors: A page that says what went wrong takes the place of one that cannot be rendered.
        customize: Of several cards, this is the one that `current.card` itself means.
        refresh_interval: Seconds between two drawings of it while the task goes on (`current.card.refresh()`), at least.
        scope: As in Metaflow, without effect.
        rank: As in Metaflow, without effect.
    """
    return apply(Card, function, fields)
