"""Cards of types of one's own, from a class below `CardType` to content that may stand in a page.

What `render` gives has usually been put together from texts by hand, so it is not trusted as a component's is: it is sanitised, and only the
components in it, which were made safe one by one, go through it as they are. Styles stay: under the page's policy they load nothing.
"""

# ruff: noqa: SLF001 - what `CardType` keeps for this module
# pyright: reportPrivateUsage=false

import inspect
import json
import re
from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any, Final

from evflow.cards.collector import CardPlan
from evflow.cards.component import ours, shown
from evflow.cards.facts import Around
from evflow.cards.types import RELOAD_MARK, CardType, NoSuchCardType, own_type

_STYLE: Final = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.DOTALL | re.IGNORECASE)
_SHAPES: Final = frozenset(
    {
        "svg", "g", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "defs", "linearGradient",
        "radialGradient", "stop", "clipPath", "symbol", "use",
    }
)  # fmt: skip
"""What a picture in SVG is drawn with. Nothing of it asks for anything, moves or holds HTML."""
_SHAPE_ATTRIBUTES: Final = frozenset(
    {
        "viewBox", "preserveAspectRatio", "xmlns", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "d", "dx",
        "dy", "points", "transform", "fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap",
        "stroke-linejoin", "stroke-opacity", "opacity", "offset", "stop-color", "stop-opacity", "font-size", "font-family", "font-weight",
        "text-anchor", "dominant-baseline", "clip-path", "gradientUnits", "gradientTransform",
    }
)  # fmt: skip
_OF_THE_PAGE: Final = re.compile(r"url\(#[\w-]+\)")
"""A gradient, or a clipping, that is in the picture itself."""
_MORE: Final = frozenset({"section", "main", "header", "footer", "nav", "article", "aside", "figure", "figcaption", "progress", "meter"})


class NothingRendered(TypeError):
    """`render` of a card's class gave no text."""

    def __init__(self, kind: type, method: str, given: object) -> None:
        super().__init__(f"{kind.__name__}.{method} gave {type(given).__name__}, not a text of HTML.")


class OwnCard:
    """A card of a type of one's own, about to be drawn.

    Args:
        plan: The card.
        around: What its class is told.
        builtin: Gives the content of one of evflow's types, for a class below that one's.

    Attributes:
        raw: What the class gave when it was drawn last, as it is; None before that. It is not safe to look at.

    Raises:
        NoSuchCardType: Its type is not known.
    """

    def __init__(self, plan: CardPlan, around: Around, builtin: Callable[[str], str]) -> None:
        kind = own_type(plan.type)
        if kind is None:
            raise NoSuchCardType(plan.type)
        self._kind, self._plan, self._around, self._builtin = kind, plan, around, builtin
        plain = [component.plain() for component in plan.components]
        self._told = [shown(component) if told is None else told for component, told in zip(plan.components, plain, strict=True)]
        self._trusted = [str(html) for html, told in zip(self._told, plain, strict=True) if told is None]
        self.raw: str | None = None

    def final(self) -> str:
        """Its content when the task is done."""
        card = self._made()
        card.runtime_data = data = self.data("final")
        return self._safe(card.render(self._around.task), "render", self._token(card, data))

    def meanwhile(self, number: int, before: str | None) -> tuple[str | None, str]:
        """Its content while the task goes on, and the token of that; None where it is to stay as it was under the token `before`."""
        card, data = self._made(), self.data(number)
        token = self._token(card, data)
        if card.RELOAD_POLICY == CardType.RELOAD_POLICY_ONCHANGE and token == before:
            return None, token
        return self._safe(card.render_runtime(self._around.task, data), "render_runtime", token), token

    def news(self, number: int) -> str | None:
        """What its `refresh` tells programs that follow it, as JSON; None where it has none."""
        if self._kind.refresh is CardType.refresh:
            return None
        card, data = self._made(), self.data(number)
        news = {"data": card.refresh(self._around.task, data), "reload_token": self._token(card, data), "render_seq": number}
        return json.dumps(news, default=str)

    def data(self, number: int | str) -> dict[str, Any]:
        """What `render_runtime` and `refresh` are told."""
        names = [str(name) for name in self._plan.parts]
        mode = "render" if number == "final" else "render_runtime"
        return {"user": self._plan.data, "components": dict(zip(names, self._told, strict=True)), "render_seq": number, "mode": mode}

    def _made(self) -> CardType:
        given: dict[str, Callable[[], Any]] = {
            "components": lambda: [*self._told] if self._kind.ALLOW_USER_COMPONENTS else [],
            "graph": lambda: self._around.graph,
            "flow": lambda: self._around.flow,
        }
        if self._plan.options:
            given["options"] = lambda: dict(self._plan.options)
        parameters = inspect.signature(self._kind).parameters
        all_of_them = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
        made = self._kind(**{name: value() for name, value in given.items() if all_of_them or name in parameters})
        made._content = self._standard
        return made

    def _standard(self) -> str:
        """The content of the type of evflow's that the class is below; it is as safe as a component."""
        html = self._builtin(str(self._kind._builtin))
        self._trusted.append(html)
        return html

    def _token(self, card: CardType, data: Mapping[str, Any]) -> str:
        if data["render_seq"] == "final":
            return "final"
        if card.RELOAD_POLICY == CardType.RELOAD_POLICY_ALWAYS:
            return f"render-seq-{data['render_seq']}"
        if card.RELOAD_POLICY == CardType.RELOAD_POLICY_ONCHANGE:
            return str(card.reload_content_token(self._around.task, data))
        return "never"

    def _safe(self, html: Any, method: str, token: str) -> str:
        if not isinstance(html, str):
            raise NothingRendered(self._kind, method, html)
        self.raw = html.replace(RELOAD_MARK, token)
        return safe(self.raw, self._trusted)


def safe(html: str, trusted: list[str]) -> str:
    """Somebody's document or a part of one, as it may stand in a page.

    Args:
        html: It.
        trusted: Parts of it that are safe as they are, wherever they stand as elements.
    """
    mark = token_hex(8)  # nothing in the text can have guessed it
    for place, part in sorted(enumerate(trusted), key=lambda one: -len(one[1])):
        if part.startswith("<"):  # one that is a word would be found anywhere
            html = html.replace(part, f'<span id="{mark}-{place}"></span>')
    css = "\n".join(_STYLE.findall(html)).replace("</", "<\\/")  # nothing in it can end the element around it
    html = _sanitised(_STYLE.sub("", html))
    # A mark that stood in an attribute has come out with its quotes escaped, so only elements are found here.
    html = re.sub(f'<span id="{mark}-(\\d+)"></span>', lambda found: trusted[int(found[1])], html)
    return (f"<style>{css}</style>\n" if css.strip() else "") + html


def _attribute(tag: str, name: str, value: str) -> str | None:
    from evflow.cards.markdown import attribute

    if tag == "use" and name == "href":
        return value if value.startswith("#") else None
    plain = name in ("fill", "stroke", "clip-path") and _OF_THE_PAGE.fullmatch(value)
    asks = name in ("style", "fill", "stroke", "clip-path") and not plain and ("url" in value.lower() or "\\" in value)
    return None if asks else attribute(tag, name, value)


def _sanitised(html: str) -> str:
    from evflow.cards.markdown import allowed

    nh3 = ours("nh3")
    looks = {"class", "id", "style", "title", "role", "lang", "dir", "tabindex"}
    own: dict[str, set[str]] = {tag: set(_SHAPE_ATTRIBUTES) for tag in _SHAPES}
    own["use"].add("href")
    own |= {tag: {"value", "max", "min", "low", "high", "optimum"} for tag in ("progress", "meter")}
    own |= {"details": {"open"}, "td": {"colspan", "rowspan"}, "th": {"colspan", "rowspan", "scope"}}
    return str(
        nh3.clean(
            html,
            tags={*allowed(), *_SHAPES, *_MORE},
            clean_content_tags={"script", "style", "template", "noscript", "iframe", "object", "math", "title", "foreignObject"},
            attributes={**nh3.ALLOWED_ATTRIBUTES, **own, "*": looks},
            generic_attribute_prefixes={"aria-"},
            url_schemes={"http", "https", "mailto", "data"},
            attribute_filter=_attribute,
            link_rel="noopener noreferrer",
        )
    )  # fmt: skip
