"""Text in Markdown, and what of HTML may stand in a card.

Both come from data as often as from the author of a flow, and a card is opened by somebody else, in a session that matters to
them. So markdown-it reads the text (CommonMark, with tables and struck-out words), and nh3 lets through what has no effect but its
looks: no scripts, no handlers, no styles, no frames, no forms. Pictures are shown if they are in the text itself (`data:`); a page that
asks a server for one would tell that server who reads it, and would not work offline.
"""

from functools import cache
from typing import Any, Final

from evflow.cards.component import CardComponent, ours, problem

_EMBEDDED: Final = "data:image/"


class Markdown(CardComponent):
    """A text in Markdown; HTML in it is shown as far as it has no effect but its looks.

    Args:
        text: The text. Lines may be indented as the code around them is.
    """

    def __init__(self, text: object = "") -> None:
        self._text = text

    def update(self, text: object = "") -> None:
        """Show another text."""
        self._text = text

    def render(self) -> str:
        """See `CardComponent`."""
        text = self._text
        if not isinstance(text, str):
            return problem("Markdown takes a text.", f"This is {type(text).__name__}.")
        return f'<div class="prose">{as_html(_dedented(text))}</div>'


def as_html(text: str) -> str:
    """A text in Markdown as HTML that may stand in a card."""
    return sanitised(_parser().render(text.encode("utf-8", "backslashreplace").decode()))


def sanitised(html: str) -> str:
    """The part of somebody's HTML that may stand in a card."""
    nh3 = ours("nh3")

    cell = {"align", "colspan", "rowspan", "style"}
    return str(
        nh3.clean(
            html,
            tags=allowed(),
            clean_content_tags={"script", "style", "template", "noscript", "iframe", "object", "math", "svg"},
            attributes={**nh3.ALLOWED_ATTRIBUTES, "code": {"class"}, "td": cell, "th": {*cell, "scope"}},
            filter_style_properties={"text-align"},
            url_schemes={"http", "https", "mailto", "data"},
            attribute_filter=attribute,
            link_rel="noopener noreferrer",
        )
    )  # fmt: skip


def allowed() -> set[str]:
    """The elements that may stand in a card."""
    nh3 = ours("nh3")

    return {*nh3.ALLOWED_TAGS} - {"map", "area"}


def attribute(tag: str, attribute: str, value: str) -> str | None:
    """The value that an attribute may have; None for none."""
    address = value.strip().lower()
    if tag == "img" and attribute == "src":
        return value if address.startswith(_EMBEDDED) else None
    if address.startswith("data:"):
        return None
    if tag == "code" and attribute == "class":
        return value if value.startswith("language-") else None
    return value


@cache
def _parser() -> Any:
    parser = ours("markdown_it").MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.validateLink = _is_link
    return parser


def _is_link(address: str) -> bool:
    """Markdown-it refuses some of what nh3 decides on; what it refuses it shows as it was written."""
    plain = address.strip().lower()
    return not plain.startswith(("javascript:", "vbscript:", "file:")) and (not plain.startswith("data:") or plain.startswith(_EMBEDDED))


def _dedented(text: str) -> str:
    """The text without the indentation that all its lines share; the first one may stand behind the quotes."""
    if "\n" not in text:
        return text
    dedent = ours("textwrap").dedent

    first, _, rest = text.partition("\n")
    return dedent(text) if not first.strip() or first[0] in " \t" else f"{first}\n{dedent(rest)}"
