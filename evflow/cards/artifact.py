"""A Python value, as a reader can take it in: its type and a short text, or what it is a picture or a table of.

Secrets are hidden before a text is cut: a half of one would not be found in the page.
"""

from reprlib import Repr
from typing import Any, Final

from evflow.cards.component import CardComponent, escape, ours
from evflow.masking import masked

_MOST_ITEMS: Final = 30
_MOST_CHARS: Final = 2_000
_LEVELS: Final = 4


class _Short(Repr):
    """Python's text of a value, cut where a value is large; classes of the user's may fail to give one."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = _LEVELS
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = _MOST_ITEMS
        self.maxstring = self.maxother = _MOST_CHARS
        self.maxlong = 200

    def repr_str(self, x: str, level: int) -> str:
        """As `Repr`, of a text without secrets."""
        return super().repr_str(masked(x), level)

    def repr_instance(self, x: Any, level: int) -> str:
        """As `Repr`, which takes an error for a text; the error's name is worth more."""
        try:
            text = masked(repr(x))
        except Exception as error:  # noqa: BLE001 - a class of the user's
            return _mute(x, error)
        return text if len(text) <= self.maxother else f"{text[: self.maxother]}…"


def short(value: object) -> str:
    """A value's text, bounded."""
    try:
        text = masked(_Short().repr(value))
    except Exception as error:  # noqa: BLE001 - a number of too many digits, or a class of the user's
        text = _mute(value, error)
    return text if len(text) <= 2 * _MOST_CHARS else f"{text[: 2 * _MOST_CHARS]}…"


def type_name(value: object) -> str:
    """A type's name as people write it: `int`, `pandas.DataFrame`."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


class Artifact(CardComponent):
    """A Python value.

    Args:
        artifact: The value.
        name: Its name, or None.
        compressed: Cut its text where it is long.
    """

    def __init__(self, artifact: object = None, name: str | None = None, compressed: bool = True) -> None:
        self._name = name
        self._type = type_name(artifact)
        self._looks = looks(artifact)
        self._text = "" if self._looks else short(artifact) if compressed else _whole(artifact)

    def update(self, artifact: object = None, name: str | None = None, compressed: bool = True) -> None:
        """Show another value; its name stays."""
        self.__init__(artifact, name or self._name, compressed)  # type: ignore[misc]

    def render(self) -> str:
        """See `CardComponent`."""
        name = f"<code>{escape(self._name)}</code> " if self._name else ""
        shown = self._looks.render() if self._looks is not None else f"<pre>{escape(self._text)}</pre>"
        return f'<div class="value"><p class="about">{name}<span class="type">{escape(self._type)}</span></p>{shown}</div>'


def looks(value: object) -> CardComponent | None:
    """The component that a value is better looked at as: a table, a picture; or None."""
    module = type(value).__module__.partition(".")[0]
    if module in ("pandas", "polars") and type(value).__name__ == "DataFrame":
        from evflow.cards.table import Table

        return Table.from_dataframe(value)
    from evflow.cards.image import Image

    if module == "matplotlib" and hasattr(value, "savefig"):
        return Image.from_matplotlib(value)
    if module == "PIL" and hasattr(value, "save"):
        return Image.from_pil_image(value)
    return None


def _whole(value: object) -> str:
    pformat = ours("pprint").pformat

    try:
        return str(pformat(value, width=100))
    except Exception as error:  # noqa: BLE001 - as in `short`
        return _mute(value, error)


def _mute(value: object, error: Exception) -> str:
    return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
