"""`IncludeFile`: a parameter whose value is what a file holds.

The file is read where the run is asked for, once, and its content is stored like any artifact: by its digest, so that the
same file is stored once for all runs, and read by the steps that use it only. No task needs the file itself.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, overload

from evflow.errors import UsageError
from evflow.flow.named_parser import NamedParser, Parser, parser_mistake
from evflow.flow.parameters import Parameter
from evflow.flow.steps import Where, caller

if TYPE_CHECKING:
    from evflow.flow.parameter_values import ParameterContext

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ENCODING: Final = "utf-8"


class IncludedFileUnreadable(UsageError):
    """The file of a parameter cannot be read."""

    code = "included-file-unreadable"

    def __init__(self, name: str, path: str, why: str, source: str) -> None:
        place = f" ({source})" if source else ""
        super().__init__(f"The file {path!r} of '--{name}'{place} cannot be read: {why}.", f"Give the path of a file: --{name} PATH.")


class IncludedFileNotText(UsageError):
    """The file of a parameter is no text in the encoding that the flow gives."""

    code = "included-file-not-text"

    def __init__(self, parameter: "IncludeFile[Any]", path: str, error: UnicodeError) -> None:
        at = f": byte {error.start} is not" if isinstance(error, UnicodeDecodeError) else ""
        super().__init__(
            f"The file {path!r} of '--{parameter.name}' is no text in {parameter.encoding}{at}.",
            f"Say in the flow what it is: IncludeFile('{parameter.name}', encoding=…), or is_text=False for bytes ({parameter.where}).",
        )


class IncludeFile(Parameter[T_co]):
    """A parameter that takes the path of a file; in steps it is the file's content.

    Attributes:
        is_text: The content is a string; else bytes.
        encoding: Of the text.
        parser: What the steps get is what this makes of the content, in each task that reads it; or None.
    """

    reads_file = True
    fields = ("name", "default", "is_text", "encoding", "required", "help", "show_default", "parser")

    @overload
    def __init__(
        self: "IncludeFile[T]",
        name: str,
        default: "str | os.PathLike[str] | Callable[[ParameterContext], str] | None" = None,
        is_text: bool | None = None,
        encoding: str | None = None,
        required: bool | None = None,
        help: str | None = None,
        show_default: bool = True,
        *,
        parser: Callable[[str], T],
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "IncludeFile[bytes]",
        name: str,
        default: "str | os.PathLike[str] | Callable[[ParameterContext], str] | None" = None,
        *,
        is_text: Literal[False],
        encoding: str | None = None,
        required: bool | None = None,
        help: str | None = None,
        show_default: bool = True,
        parser: None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "IncludeFile[str]",
        name: str,
        default: "str | os.PathLike[str] | Callable[[ParameterContext], str] | None" = None,
        is_text: Literal[True] | None = None,
        encoding: str | None = None,
        required: bool | None = None,
        help: str | None = None,
        show_default: bool = True,
        parser: None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "IncludeFile[Any]",
        name: str,
        default: Any = None,
        is_text: bool | None = None,
        encoding: str | None = None,
        required: bool | None = None,
        help: str | None = None,
        show_default: bool = True,
        parser: Any = None,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        default: Any = None,
        is_text: bool | None = None,
        encoding: str | None = None,
        required: bool | None = None,
        help: str | None = None,  # noqa: A002 - Metaflow's names
        show_default: bool = True,
        parser: Parser | None = None,
        **options: Any,
    ) -> None:
        r"""Declare a file that a run is given.

        Args:
            name: Its name on the command line: `run --name path`.
            default: A path, or a function that gets a `ParameterContext` and returns one. A relative one is looked for in the
                folder where the run is asked for, then beside the flow's file.
            is_text: The content is a string, lines ending in `\n`; False: it is bytes, as they are.
            encoding: Of the text; UTF-8 if not given.
            required: A run cannot start without it. One that is not, and is not given, is None.
            help: A sentence for `--help`.
            show_default: Show the default in `--help`.
            parser: A function, or its dotted name, that makes of the content what the steps get.
            options: Other fields; see `evflow.flow.parameters.IGNORED`.
        """
        super().__init__(name, default, str, help, required, show_default)
        self.options = options
        self.is_text = is_text is None or bool(is_text)
        self.encoding = ENCODING if encoding is None else encoding
        self.parser = parser
        self.where = caller(1)

    @property
    def made(self) -> Callable[[object], object] | None:
        """The parser's work."""
        return None if self.parser is None else self._parsed

    def _parsed(self, content: object) -> object:
        return None if content is None else NamedParser(self.parser, f"IncludeFile '{self.name}' ({self.where})")(content)


def read(parameter: IncludeFile[Any], given: object, source: str = "") -> str | bytes:
    """What the file holds whose path is given.

    Raises:
        IncludedFileUnreadable: It cannot be read.
        IncludedFileNotText: It is no text in the parameter's encoding.
    """
    if not isinstance(given, str | os.PathLike):
        raise IncludedFileUnreadable(parameter.name, repr(given), "it is no path", source)
    path = os.path.expanduser(cast("str", os.fspath(given)))  # noqa: PTH111 - as for open
    try:
        if parameter.is_text:
            with open(path, encoding=parameter.encoding) as file:  # noqa: PTH123 - pathlib is not worth its time here
                return file.read()
        with open(path, "rb") as binary:  # noqa: PTH123
            return binary.read()
    except OSError as error:
        raise IncludedFileUnreadable(parameter.name, path, error.strerror or str(error), source) from None
    except UnicodeError as error:
        raise IncludedFileNotText(parameter, path, error) from None
    except (ValueError, LookupError) as error:  # a path with a null byte; an encoding that there is not
        raise IncludedFileUnreadable(parameter.name, path, str(error), source) from None


def beside(cls: type, path: object) -> object:
    """A default path as it is found: in the current folder, else beside the file of the flow."""
    if not isinstance(path, str | os.PathLike):
        return path
    text = os.path.expanduser(cast("str", os.fspath(path)))  # noqa: PTH111
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if not file or os.path.isabs(text) or os.path.exists(text):  # noqa: PTH117, PTH110
        return text
    other = os.path.join(os.path.dirname(os.path.abspath(file)), text)  # noqa: PTH100, PTH118, PTH120
    return other if os.path.exists(other) else text  # noqa: PTH110


def content_shown(content: object) -> str:
    """A file's content for people: how much it is."""
    if content is None:
        return "None"
    return f"a file of {len(cast('str', content)):,} {'characters' if isinstance(content, str) else 'bytes'}"


def mistakes(parameter: IncludeFile[Any]) -> Iterator[tuple[str, Where, str, str]]:
    """What is wrong with it, besides what may be wrong with any parameter: code, place, message, hint."""
    import codecs

    try:
        codecs.lookup(parameter.encoding)
    except (LookupError, TypeError):
        yield (
            "parameter-encoding",
            parameter.where,
            f"IncludeFile '{parameter.name}' has the encoding {parameter.encoding!r}, which there is not.",
            "Name one of Python's, such as 'utf-8' or 'latin-1'.",
        )
    wrong = parser_mistake(parameter.parser)
    if wrong:
        yield "parameter-parser", parameter.where, f"IncludeFile '{parameter.name}' has a parser that {wrong}.", ""
