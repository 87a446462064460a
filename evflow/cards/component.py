"""What every component of a card is: something that says how it looks as HTML.

A component is made in the middle of a step's body, so making one never raises for what it is given: what cannot be shown
shows why, in its place in the card. It takes what it needs when it is made or updated, so that a list that the body goes on
filling changes nothing that was shown.
"""

from html import escape as _escape
from importlib import import_module
from typing import Any, ClassVar, cast


def escape(text: object) -> str:
    """A text as HTML, in an attribute too."""
    try:
        shown = str(text)
    except Exception as error:  # noqa: BLE001 - a class of the user's, whose failure is what there is to show
        shown = f"<{type(text).__name__}, whose text cannot be had: {type(error).__name__}>"
    return _escape(shown.encode("utf-8", "backslashreplace").decode())


def ours(name: str) -> Any:
    """A module of Python's or of a library that cards need, whatever a user's file of that name lies beside the flow (`evflow.imports`)."""
    from evflow.imports import framework_view

    with framework_view():
        return import_module(name)


class CardComponent:
    """A part of a card.

    Attributes:
        wide: It stands on a line of its own; others may stand beside each other.
    """

    wide: ClassVar[bool] = True

    def render(self) -> str:
        """It as HTML, which the page takes as it is: escape what comes from elsewhere."""
        raise NotImplementedError(f"{type(self).__name__} has no `render`.")

    def plain(self) -> Any:
        """What the class of a card of a type of one's own is told in place of the HTML, which then is not trusted in the page; None for nothing."""
        return None

    def update(self, *given: Any, **named: Any) -> None:
        """Change what it shows; the arguments are those that it is made with."""
        cast("Any", type(self)).__init__(self, *given, **named)


def shown(component: CardComponent) -> str:
    """A component as HTML; one that cannot be drawn is no reason to lose the others: it says so in its place."""
    why: Exception | str
    try:
        html: Any = component.render()
    except Exception as error:  # noqa: BLE001 - a component of the user's
        why = error
    else:
        if isinstance(html, str):
            return html
        why = f"Its `render` gave {type(html).__name__}, not a text of HTML."
    from evflow.cards.error import Error

    return Error(why, f"{type(component).__name__} cannot be shown").render()


def problem(what: str, error: object) -> str:
    """Why something is not shown, as HTML."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return f'<p class="problem"><strong>{escape(what)}</strong> {escape(reason)}</p>'
