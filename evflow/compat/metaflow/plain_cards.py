"""The plain components and types of cards that Metaflow ships for flows that try cards out (`card_modules.test_cards`)."""

from typing import Any, ClassVar

from evflow.cards.component import CardComponent, escape
from evflow.cards.types import CardType


class TestStringComponent(CardComponent):
    """A text."""

    REALTIME_UPDATABLE: ClassVar[bool] = True

    def __init__(self, text: object) -> None:
        self._text = str(text)

    def render(self) -> str:
        """It as HTML."""
        return escape(self._text)


class _Listing(CardType):
    """A card that is its components and nothing else."""

    separator: ClassVar[str] = "$&#!!@*"

    def __init__(self, components: Any = (), **_: Any) -> None:
        self._components = [*components]

    def render(self, task: Any) -> str:
        """Its components, with a mark between them."""
        return escape(self.separator).join(self._components)


class TestEditableCard(_Listing):
    """One that takes components."""

    type = "test_editable_card"
    ALLOW_USER_COMPONENTS = True


class TestEditableCard2(_Listing):
    """Another one."""

    type = "test_editable_card_2"
    ALLOW_USER_COMPONENTS = True


class TestNonEditableCard(_Listing):
    """One that takes none."""

    type = "test_non_editable_card"
