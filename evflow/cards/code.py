"""Code, coloured."""

from collections.abc import Callable
from functools import cache
from textwrap import dedent
from typing import Any, Final

from evflow.cards.component import CardComponent, escape, ours, problem

_MOST_CHARS: Final = 200_000


class PythonCode(CardComponent):
    """Code in Python.

    Args:
        code_func: A function or a class, whose source is shown.
        code_string: The code itself.
    """

    def __init__(self, code_func: Callable[..., Any] | type | None = None, code_string: str | None = None) -> None:
        self._why: BaseException | str = ""
        self._code = code_string or ""
        if code_func is None:
            return
        getsource = ours("inspect").getsource

        try:
            self._code = dedent(getsource(code_func))
        except (OSError, TypeError) as error:
            self._why = error

    def render(self) -> str:
        """See `CardComponent`."""
        return problem("Its source cannot be had.", self._why) if self._why else python(self._code)


@cache
def _colours() -> tuple[Any, Any]:
    """What reads Python and what writes HTML: they take longer to make than to use, and keep nothing of a text."""
    return ours("pygments.lexers.python").PythonLexer(stripnl=False), ours("pygments.formatters.html").HtmlFormatter(nowrap=True)


def python(code: str) -> str:
    """Code in Python as HTML: pygments' classes, whose colours the page has."""
    from evflow.imports import framework_view

    if len(code) > _MOST_CHARS:
        return f"<pre>{escape(code)}</pre>"
    with framework_view():  # pygments imports more of itself as it goes
        coloured: str = ours("pygments").highlight(code.encode("utf-8", "backslashreplace").decode(), *_colours())
    return f'<pre class="code" tabindex="0" aria-label="Python code"><code>{coloured}</code></pre>'
