"""The parser of a `Config` or an `IncludeFile`: a function, or the dotted name of one; those that evflow brings are in `parsers`.

A name is imported when it is used, in the user's view of imports, so that a flow's file need not import what only a run needs.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from evflow.errors import UsageError
from evflow.flow import dialect

Parser = str | Callable[[Any], Any]

_OURS: Final = "evflow"
"""What a name with a dot in front is relative to; under Metaflow's rules, to its package."""


class ParserNotFound(UsageError):
    """A parser's name leads to no function."""

    code = "parser-not-found"

    def __init__(self, owner: str, name: str, why: str) -> None:
        super().__init__(
            f"{owner} has the parser '{name}', which cannot be imported: {why}.",
            "Name it as package.module.function, or give the function itself.",
        )


class NamedParser:
    """A parser, found by its name where it is given by one.

    Args:
        parser: The function or its name.
        owner: Whose it is, for messages.
    """

    def __init__(self, parser: Parser | None, owner: str) -> None:
        self._parser = parser
        self._owner = owner

    def __call__(self, content: object) -> Any:
        """What the parser makes of the content.

        Raises:
            ParserNotFound: Its name leads to no function.
            Exception: Whatever the parser raises.
        """
        from evflow.imports import user_view

        with user_view():
            return self._function()(content)

    def _function(self) -> Callable[[Any], Any]:
        if not isinstance(self._parser, str):
            return cast("Callable[[Any], Any]", self._parser)
        from importlib import import_module

        full = f"{dialect.METAFLOW if dialect.is_metaflow() else _OURS}{self._parser}" if self._parser.startswith(".") else self._parser
        module, _, attribute = full.rpartition(".")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ParserNotFound(self._owner, self._parser, str(error).rstrip(".")) from None
        if not callable(found):
            raise ParserNotFound(self._owner, self._parser, f"it is a {type(found).__name__}")
        return cast("Callable[[Any], Any]", found)


def parser_mistake(parser: object) -> str:
    """What is wrong with a parser as far as it shows before it is used, or an empty string."""
    if parser is None or callable(parser):
        return ""
    if not isinstance(parser, str):
        return f"is {parser!r}: a parser is a function or the dotted name of one"
    if "." not in parser or not all(part.isidentifier() for part in parser.removeprefix(".").split(".")):
        return f"is called {parser!r}: a name of a parser is package.module.function"
    return ""
