"""The page around a card's content: one HTML file that needs nothing else, and that cannot do anything.

Everything in it that comes from data was escaped or sanitised where it became HTML. The content security policy stands behind that: no
address is asked for anything, no form sent, no script run but those whose hashes it names. Elements that it does not govern are no elements here.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from typing import Final

from evflow.cards import vega
from evflow.cards.component import CardComponent, escape, shown
from evflow.core.values import value


@value
class Heading:
    """What stands at the head of a page.

    Attributes:
        title: The page's title.
        trail: What it belongs to, from the largest to the smallest: flow, run, step, task.
        facts: More about it, name and text.
        status: How it went: `succeeded`, `failed`, ...
        again_s: The page is read anew after so many seconds; 0 for one that is final.
    """

    title: str
    trail: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    status: str = ""
    again_s: int = 0


_LEADS_AWAY: Final = re.compile(r"<(?=(?:meta|link|base)[\s/>])", re.IGNORECASE)
"""Elements that no policy keeps from leading the reader to another address, or from asking where it is."""


def page(heading: Heading, content: str) -> str:
    """A whole page.

    Args:
        heading: What stands at its head.
        content: HTML that is safe. Where charts are in it, the scripts that draw them come with it.
    """
    content = _LEADS_AWAY.sub("&lt;", content)
    scripts = vega.scripts() if vega.MARK in content else ()
    allowed = " ".join(f"'{_hash(script)}'" for script in scripts) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src {allowed}"
    rank = "p" if "<h1" in content else "h1"  # a step that gives its page a title of its own: a page has one
    trail = "".join(f"<li>{escape(part)}</li>" for part in heading.trail)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{text}</dd></div>" for name, text in heading.facts)
    again = f'<meta http-equiv="refresh" content="{heading.again_s}">\n' if heading.again_s else ""
    about = f'<dl class="facts">{facts}</dl>' if facts else ""
    status = f'<span class="status {escape(heading.status)}">{escape(heading.status)}</span>' if heading.status else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f'{again}<meta name="generator" content="evflow">\n<title>{escape(heading.title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n'
        f'<header>\n<nav aria-label="Place"><ol>{trail}</ol></nav>\n<div class="headline"><{rank} class="title">{escape(heading.title)}</{rank}>{status}</div>\n'
        f"{about}\n</header>\n<main>\n{content}\n</main>\n"
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body>\n</html>\n"
    )


def drawn(components: Iterable[CardComponent]) -> str:
    """Components one after the other; narrow ones stand beside each other."""
    parts: list[str] = []
    beside: list[str] = []

    def line() -> None:
        if beside:
            parts.append(f'<div class="beside">{"".join(beside)}</div>')
            beside.clear()

    for component in components:
        if component.wide:
            line()
            parts.append(shown(component))
        else:
            beside.append(shown(component))
    line()
    return "\n".join(parts)


def section(title: str, content: str, kind: str = "") -> str:
    """A part of a page with a heading, or nothing where it has no content."""
    looks = f' class="{kind}"' if kind else ""
    return f"<section{looks}><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _hash(script: str) -> str:
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


@cache
def _style() -> str:
    return read_beside("page.css")


def read_beside(name: str) -> str:
    """A file of this package; `importlib.resources` would load 15 modules for it, in a task."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:  # noqa: PTH118, PTH120, PTH123
        return file.read()
