"""From Python's arguments to what a flow's process is given: words of its command line, and a call.

What stands before the command becomes words. What belongs to the command goes as a call, one line of JSON that the process reads
itself, because only the flow's own process knows the flow: which names are parameters, and how each is written. So a value may be
as long as it likes, and stands in no list of processes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from evflow.runner.errors import ArgumentUnfit

_AS_WITH: Final = frozenset({"decospecs", "with", "with_specs"})
_PAIRS: Final = frozenset({"config", "config_value"})
_OFF: Final = {"quiet": "--not-quiet"}
"""What is turned off by another word than `--no-` and its name."""


def top_words(options: Mapping[str, Any]) -> Iterator[str]:
    """The options before the command, which go by their names in Python: `pylint=False`, `decospecs=["retry"]`, `config={"c": "c.json"}`.

    Raises:
        ArgumentUnfit: A value is none that a word can say.
    """
    for name, value in options.items():
        option = "--with" if name in _AS_WITH else f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name in _PAIRS:
            for key, one in _pairs(name, value):
                yield from (option, key, one if isinstance(one, str) else _path_or_json(f"{name} {key}", one))
        elif isinstance(value, bool):
            yield option if value else _OFF.get(name, f"--no-{name.replace('_', '-')}")
        elif isinstance(value, list | tuple | set | frozenset):
            yield from (f"{option}={_text(name, one)}" for one in cast("Iterable[object]", value))
        else:
            yield f"{option}={_text(name, value)}"


def call(arguments: Sequence[object], options: Mapping[str, Any]) -> bytes:
    """The call of a command, a line of JSON.

    Raises:
        ArgumentUnfit: A value is none that JSON can hold.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        _json(name, value)  # so that the message names it
    return _json("call", {"arguments": [_text("argument", one) for one in arguments], "options": given}).encode() + b"\n"


def _json(name: str, value: object) -> str:
    def plain(one: object) -> object:
        if isinstance(one, os.PathLike):
            return os.fspath(cast("os.PathLike[str]", one))
        scalar = getattr(one, "item", None)
        if callable(scalar) and getattr(one, "ndim", None) == 0:  # a number of numpy's
            return scalar()
        raise ArgumentUnfit(name, one)

    try:
        return json.dumps(value, default=plain)
    except ArgumentUnfit:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentUnfit(name, value, str(error)) from None


def _path_or_json(name: str, value: object) -> str:
    return os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else _json(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    raise ArgumentUnfit(name, value)


def _pairs(name: str, value: object) -> list[tuple[str, Any]]:
    """A mapping, or pairs of a name and a value."""
    try:
        return list(dict(cast("Any", value)).items())
    except (TypeError, ValueError):
        raise ArgumentUnfit(name, value, "it is a mapping of names to values, or a list of pairs") from None
