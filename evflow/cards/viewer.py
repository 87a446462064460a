"""Data that is nested, as JSON or YAML: folded where it is deep, all of it in the page for a search."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow.cards.component import CardComponent, escape, problem

_MOST_LINES: Final = 5_000
_OPEN_LEVELS: Final = 2
_FOLDED_FROM: Final = 8
"""Members from which a deeper container is folded."""


class _Viewer(CardComponent):
    """What both ways to write nested data share."""

    def __init__(
        self,
        data: Any = None,
        collapsible: bool = True,
        max_height: str | None = None,
        show_copy_button: bool = True,
        title: str | None = None,
    ) -> None:
        self._folds, self._title = collapsible, title
        self.update(data)


class JSONViewer(_Viewer):
    """Nested data as a tree.

    Args:
        data: Dicts, lists and plain values, or a text in JSON.
        collapsible: Containers can be folded; else it is one text.
        max_height: Accepted as in Metaflow; a page has no heights of its own.
        show_copy_button: Accepted as in Metaflow; a page runs no scripts.
        title: A line above it.
    """

    def update(self, data: Any) -> None:
        """Show other data."""
        self._why: BaseException | str = ""
        try:
            self._text = _as_json(json.loads(data) if isinstance(data, str) else data)
            self._data = json.loads(self._text)  # a copy, and plain
        except (TypeError, ValueError, RecursionError) as error:
            self._why = error

    def render(self) -> str:
        """See `CardComponent`."""
        if self._why:
            return problem("This is no JSON.", self._why)
        title = f'<p class="about">{escape(self._title)}</p>' if self._title else ""
        if not self._folds or self._text.count("\n") > _MOST_LINES:
            return f"{title}<pre>{escape(self._text)}</pre>"
        return f'{title}<div class="tree">{_node(self._data, 0)}</div>'


class YAMLViewer(_Viewer):
    """Nested data as YAML.

    Args:
        data: Dicts, lists and plain values, or a text in YAML, which is shown as it is.
        collapsible: Long data can be folded.
        max_height: Accepted as in Metaflow.
        show_copy_button: Accepted as in Metaflow.
        title: A line above it.
    """

    def update(self, data: Any) -> None:
        """Show other data."""
        self._why: BaseException | str = ""
        try:
            self._text = data if isinstance(data, str) else "\n".join(_yaml(json.loads(_as_json(data)), 0))
        except (TypeError, ValueError, RecursionError) as error:
            self._text, self._why = "", error

    def render(self) -> str:
        """See `CardComponent`."""
        if self._why:
            return problem("This cannot be written as YAML.", self._why)
        title = f'<p class="about">{escape(self._title)}</p>' if self._title else ""
        shown = f"<pre>{escape(self._text)}</pre>"
        lines = self._text.count("\n") + 1
        return f"{title}<details open><summary>{lines:,} lines</summary>{shown}</details>" if self._folds and lines > 30 else title + shown


def _as_json(data: Any) -> str:
    """The data as JSON; what JSON has no word for (a date, an array of numpy) is its text."""
    return json.dumps(data, indent=2, ensure_ascii=False, default=_other, skipkeys=False)


def _other(value: Any) -> Any:
    for name in ("tolist", "isoformat"):
        if hasattr(value, name):
            return getattr(value, name)()
    return [*value] if isinstance(value, set | frozenset) else str(value)


def _node(value: Any, level: int) -> str:
    """A container as a list of its members, each of which may be folded."""
    members = _members(value)
    if not members:
        return _leaf(value)
    rows = "".join(f"<li>{_member(name, item, level + 1)}</li>" for name, item in members)
    return f"<ul>{rows}</ul>"


def _member(name: Any, value: Any, level: int) -> str:
    shown = f'<span class="key">{escape(name)}</span>'
    members = _members(value)
    if not members:
        return f"{shown} {_leaf(value)}"
    noun = "member" if isinstance(value, dict) else "item"
    count = f"1 {noun}" if len(members) == 1 else f"{len(members):,} {noun}s"
    is_open = " open" if level <= _OPEN_LEVELS and len(members) < _FOLDED_FROM else ""
    return f'<details{is_open}><summary>{shown} <span class="type">{count}</span></summary>{_node(value, level)}</details>'


def _members(value: Any) -> list[tuple[Any, Any]]:
    """Names and values of a container; none of what is no container."""
    whole: Any = value  # The type checkers do not agree on what is known of a narrowed Any.
    if isinstance(value, dict):
        return [*whole.items()]
    return [*enumerate(whole)] if isinstance(value, list) else []


def _leaf(value: Any) -> str:
    kind = "s" if isinstance(value, str) else "m" if isinstance(value, int | float) and not isinstance(value, bool) else "k"
    return f'<code class="leaf {kind}">{escape(json.dumps(value, ensure_ascii=False))}</code>'


def _yaml(value: Any, indent: int) -> list[str]:
    """Lines of YAML of plain data. A text is quoted as in JSON, which YAML reads, where it could be taken for something else."""
    before = "  " * indent
    lines: list[str] = []
    for name, item in _members(value):
        if isinstance(value, dict):
            lines += _entry(f"{before}{_plain(name)}:", item, indent + (not isinstance(item, list)))
        else:
            inner = _yaml(item, indent + 1)
            lines += [f"{before}- {inner[0].lstrip()}", *inner[1:]]
    return lines or [f"{before}{_plain(value)}"]


def _entry(head: str, item: Any, indent: int) -> list[str]:
    if isinstance(item, dict | list) and item:
        return [head, *_yaml(item, indent)]
    return [f"{head} {_plain(item)}"]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        safe = value and value[0].isalpha() and all(one.isalnum() or one in "_-./ " for one in value) and value == value.strip()
        words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
        return value if safe and value.lower() not in words else _quoted(value)
    if isinstance(value, Mapping | Sequence):
        return "{}" if isinstance(value, Mapping) else "[]"
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text  # else YAML 1.1 reads a text


def _quoted(text: str) -> str:
    r"""A text between double quotes; what cannot be printed as `\U0000007f`, which JSON does not know."""
    return '"' + "".join(json.dumps(one, ensure_ascii=False)[1:-1] if one.isprintable() else f"\\U{ord(one):08x}" for one in text) + '"'
