"""Tracebacks as a user wants them: their own frames and those of the libraries they called, none of ours."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from evflow.errors import EvflowError
from evflow.masking import masked

if TYPE_CHECKING:
    from traceback import FrameSummary, TracebackException

_OURS = tuple({str(place.parents[1]) + os.sep for place in (Path(__file__), Path(__file__).resolve())})
"""Where evflow lies, and the link to it by which an environment imports it."""
_SIBLINGS = {"evflow_scheduler", "evflow_executors"}
_MACHINERY = {"asyncio", "anyio", "importlib"}
_MOST_FRAMES = 60
"""A recursion without an end would fill the log; its first and last frames say enough."""


def user_traceback(error: BaseException) -> str:
    """The exception's traceback without the frames of evflow, of importlib and of the event loop.

    Causes and contexts are shown as Python does. A deep recursion is cut in its middle.
    """
    import traceback

    shown = traceback.TracebackException.from_exception(error, compact=True)
    for part in _parts(shown):
        frames = [frame for frame in part.stack if not _is_framework(frame.filename)]
        part.stack = traceback.StackSummary.from_list(_cut(frames))
    return masked("".join(shown.format()))


def show(text: str) -> None:
    """Write text to stderr, whatever the user's code has put in the place of `sys.stderr`."""
    try:
        sys.stderr.write(text)
    except Exception:  # noqa: BLE001 - it may be anything, None included
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))


def where(error: BaseException) -> str:
    """`file:line` of the innermost frame of the user's own code, else of a library's, else an empty string."""
    own = other = ""
    for file, line in _places(error.__traceback__):
        if _is_framework(file):
            continue
        other = f"{file}:{line}"
        own = own if _is_installed(file) else other
    # What evflow itself says in the middle of its own work (a full store) is no library's line.
    return own if isinstance(error, EvflowError) else own or other


def _places(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _parts(shown: "TracebackException") -> "Iterator[TracebackException]":
    """The exception, its causes, contexts and the members of its groups, each once."""
    pending, seen = [shown], set[int]()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        linked = (part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ()))
        pending += [other for other in linked if other is not None]


def _cut(frames: "Sequence[FrameSummary]") -> "list[FrameSummary]":
    half = _MOST_FRAMES // 2
    return [*frames] if len(frames) <= _MOST_FRAMES else [*frames[:half], *frames[-half:]]


def _is_framework(file: str) -> bool:
    if file.startswith(("<frozen importlib", *_OURS)):
        return True
    folders = set(Path(file).parts)
    return bool(folders & _SIBLINGS) or (bool(folders & _MACHINERY) and _is_installed(file))


def _is_installed(file: str) -> bool:
    """Whether the file is the standard library's or an installed package's."""
    return file.startswith(("<frozen", *_installed_folders()))


@cache
def _installed_folders() -> tuple[str, ...]:
    import sysconfig

    paths = sysconfig.get_paths()
    beside = os.environ.get("EVFLOW_SUPPORT")  # what evflow needs of others, in the interpreter of an environment
    return tuple({paths[key] + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")} | ({beside + os.sep} if beside else set()))
