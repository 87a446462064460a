"""Charts: specifications of Vega and Vega-Lite, drawn in the reader's browser by scripts that the page holds.

The scripts are those of the npm packages (`scripts/vega` fetches them, and `tests/unit/test_card_charts.py` knows their digests). They run under
the page's content security policy: named by hash, with Vega's interpreter of expressions in the place of `new Function`, and without
anything to load data or pictures from. So a chart holds its data.
"""

from functools import cache
from typing import Any, Final, Self

from evflow.cards.component import CardComponent, escape, ours, problem

SCRIPTS: Final = ("vega.min.js", "vega-lite.min.js", "vega-interpreter.js", "draw.js")
"""In the order in which they need each other."""
MARK: Final = '<div class="chart" role="figure"'
"""What tells in a page's content that it has charts."""


class VegaChart(CardComponent):
    """A chart.

    Args:
        spec: A specification of Vega or Vega-Lite, with its data in it.
        show_controls: A button saves the chart as an SVG file.
    """

    def __init__(self, spec: dict[str, Any] | None = None, show_controls: bool = False) -> None:
        self._controls = show_controls
        self.update(spec)

    @classmethod
    def from_altair_chart(cls, altair_chart: Any, show_controls: bool = False) -> Self:
        """A chart of Altair.

        Args:
            altair_chart: The chart.
            show_controls: As for a chart.
        """
        made = cls({}, show_controls)
        try:
            made.update(altair_chart.to_dict())
        except Exception as error:  # noqa: BLE001 - of a library of the user's; the card says it
            made._why = error
        return made

    def update(self, spec: dict[str, Any] | None = None) -> None:
        """Show another specification."""
        self._why: BaseException | str = ""
        self._spec = "{}"
        self._said = "Chart"
        if not isinstance(spec, dict):
            self._why = f"{type(spec).__name__} is no dict of a specification."
            return
        try:
            self._said = str(spec.get("description") or _title(spec.get("title")) or "Chart")
            self._spec = _as_json(spec)
        except Exception as error:  # noqa: BLE001 - values of the user's, and what becomes of them as texts
            self._why = error

    def render(self) -> str:
        """See `CardComponent`."""
        if self._why:
            return problem("This chart cannot be drawn.", self._why)
        if self._spec == "{}":
            return ""
        button = '<button type="button">Save as SVG</button>' if self._controls else ""
        return (
            f'{MARK} aria-label="{escape(self._said)}"><div class="drawn"><p class="about">'
            "This chart is drawn by a script of the page, which does not run here: open the card in a browser.</p></div>"
            f'{button}<script type="application/json">{self._spec}</script></div>'
        )


@cache
def scripts() -> tuple[str, ...]:
    """The scripts that draw the charts of a page."""
    from evflow.cards.page import read_beside

    return tuple(read_beside(f"vega_js/{name}") for name in SCRIPTS)


def _as_json(spec: dict[str, Any]) -> str:
    """The specification as it can stand in a page: no text in it can end the element around it."""
    orjson = ours("orjson")

    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    text: str = orjson.dumps(spec, default=str, option=options).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _title(title: Any) -> str:
    """A chart's title: a text, lines, or either with its looks."""
    whole: Any = title  # The type checkers do not agree on what is known of a narrowed Any.
    text: Any = whole.get("text") if isinstance(title, dict) else title
    lines: Any = text
    return " ".join(map(str, lines)) if isinstance(text, list) else str(text or "")
