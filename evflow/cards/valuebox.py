"""A number that matters, large."""

from typing import Any, ClassVar, Final

from evflow.cards.component import CardComponent, escape

_KINDS: Final = {"success": "good", "warning": "warn", "danger": "bad"}


class ValueBox(CardComponent):
    """A value with its name, in a box; several stand beside each other.

    Args:
        title: What it is.
        value: It.
        subtitle: A line under it.
        theme: `success`, `warning` or `danger` colour it; others are accepted, and do not.
        change_indicator: How it changed, `+3.2 %`.
    """

    wide: ClassVar[bool] = False

    def __init__(
        self,
        title: str | None = None,
        value: Any = None,
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        self._title, self._value, self._subtitle, self._theme, self._change = title, value, subtitle, theme, change_indicator

    def update(
        self,
        title: str | None = None,
        value: Any = None,
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        """Change what is given."""
        self._title = self._title if title is None else title
        self._value = self._value if value is None else value
        self._subtitle = self._subtitle if subtitle is None else subtitle
        self._theme = self._theme if theme is None else theme
        self._change = self._change if change_indicator is None else change_indicator

    def render(self) -> str:
        """See `CardComponent`."""
        kind = next((found for name, found in _KINDS.items() if name in str(self._theme or "")), "")
        lines = [
            ("name", self._title),
            ("much", _number(self._value)),
            ("change", self._change),
            ("more", self._subtitle),
        ]
        inside = "".join(f'<p class="{name}">{escape(text)}</p>' for name, text in lines if text not in (None, ""))
        return f'<div class="box {kind}" role="group">{inside}</div>'


def _number(value: Any) -> Any:
    """Large numbers in groups of three, and no more digits than a reader takes in."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
