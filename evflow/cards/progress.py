"""How far something is."""

from typing import Any

from evflow.cards.component import CardComponent, escape


class ProgressBar(CardComponent):
    """A bar that fills.

    Args:
        max: The value at its end.
        label: What goes on.
        value: How far it is.
        unit: What is counted.
        metadata: A text behind it.
    """

    def __init__(
        self,
        max: float = 100,  # noqa: A002 - as in Metaflow
        label: str | None = None,
        value: float = 0,
        unit: str | None = None,
        metadata: str | None = None,
    ) -> None:
        self._max, self._label, self._value, self._unit, self._more = max, label, value, unit, metadata

    def update(self, new_value: float, metadata: str | None = None) -> None:
        """Say how far it is.

        Args:
            new_value: How far.
            metadata: A text behind it; that of before stays where none is given.
        """
        self._value = new_value
        self._more = self._more if metadata is None else metadata

    def render(self) -> str:
        """See `CardComponent`."""
        most, value = _amount(self._max), _amount(self._value)
        share = f" ({value / most:.0%})" if most > 0 else ""
        unit = f" {self._unit}" if self._unit else ""
        text = f"{value:,.10g} of {most:,.10g}{unit}{share}"
        label = f'<span class="name">{escape(self._label)}</span>' if self._label else ""
        more = f'<span class="more">{escape(self._more)}</span>' if self._more else ""
        said = escape(self._label or "Progress")
        bar = f'<progress max="{most if most > 0 else 1:g}" value="{min(max(value, 0), most):g}" aria-label="{said}">{escape(text)}</progress>'
        return f'<div class="progress"><p>{label}<span class="amount">{escape(text)}</span>{more}</p>{bar}</div>'


def _amount(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
