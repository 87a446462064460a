"""Secrets of this machine: in the source itself, in the environment, in files."""

import json
import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, cast

from evflow.flow.secrets.sources import (
    MOST_BYTES,
    OURS,
    SecretNotThere,
    SecretSourceInvalid,
    SecretUnusable,
    Source,
    as_value,
    options_of,
    variable_of,
)

_FORMATS: Final = ("dotenv", "json", "value")
_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*)\Z", re.DOTALL)
_QUOTED: Final = re.compile(r"""(?:'([^']*)'|"((?:\\.|[^"\\])*)")\s*(?:#.*)?\Z""", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "'": "'"}
_MOST_FILE_BYTES: Final = 1_000_000


def inline(source: Source) -> Mapping[str, str]:
    """The variables that stand in the flow's source: for trying things out."""
    variables: Any = options_of(source, env_vars={})["env_vars"]
    if not isinstance(variables, dict):
        raise SecretSourceInvalid(f"The secret {source} has env_vars that are no dictionary.", 'Write {"env_vars": {"NAME": "value"}}.')
    return {str(name): as_value(source, str(name), value) for name, value in cast("dict[object, object]", variables).items()}


def environment(source: Source) -> Mapping[str, str]:
    """Variables that the process has already, by a name or a pattern (`DB_*`): they have to be there, and are hidden."""
    name = options_of(source, env_var_name=None)["env_var_name"]
    if any(character in source.id for character in "*?["):
        found = {known: value for known, value in os.environ.items() if fnmatchcase(known, source.id) and not known.startswith(OURS)}
        if name is not None:
            raise SecretSourceInvalid(f"The secret {source} stands for several variables, and env_var_name names one.", "Leave it out.")
    else:
        found = {str(name or source.id): os.environ[source.id]} if source.id in os.environ else {}
    if not found:
        raise SecretNotThere(
            f"The variable {source.id}, which @secrets asks for, is not in the environment of the step.",
            "Set it where the run is started; for a deployed flow, where its scheduler or its worker is.",
        )
    return found


def file(source: Source) -> Mapping[str, str]:
    """A file's content: `NAME=value` lines, a JSON map, or one value."""
    options = options_of(source, format=None, env_var_name=None)
    path = Path(source.folder, source.id).expanduser() if not source.id.startswith("~") else Path(source.id).expanduser()
    form = options["format"] or _format_of(path)
    if form not in _FORMATS:
        raise SecretSourceInvalid(f"The secret {source} has the format {form!r}.", f"Formats are {', '.join(_FORMATS)}.")
    text = _text(source, path)
    if form == "dotenv":
        return dotenv(source, text)
    if form == "json":
        return from_json(source, text, f"Write its format, as in options={{'format': 'value'}}; {path} is read as JSON.")
    return {options["env_var_name"] or variable_of(path.name if path.name.startswith(".") else path.stem).upper(): text.rstrip("\r\n")}


def from_json(source: Source, text: str, hint: str) -> dict[str, str]:
    """A JSON map of names to texts and numbers.

    Raises:
        SecretUnusable: It is none; the text, which is secret, is not told.
    """
    try:
        said: object = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise SecretUnusable(f"The secret {source} is no JSON map of names to values.", hint)
    return {variable_of(name): as_value(source, name, value) for name, value in cast("dict[str, Any]", said).items()}


def dotenv(source: Source, text: str) -> dict[str, str]:
    r"""Lines `NAME=value`, as shells and dotenv tools have them.

    `export` may stand before a name, a value in quotes, in double ones with escapes (`\n`), over several lines. What follows ` #` outside of
    quotes is a comment. Nothing is put in for `$NAME`.

    Raises:
        SecretUnusable: A line is none of this; its number is told.
    """
    found: dict[str, str] = {}
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        begin, line = number + 1, lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise SecretUnusable(f"Line {begin} of the secret {source} is not of the form NAME=value.", "A comment begins with #.")
        name, value = match[1], match[2]
        if value[:1] in ("'", '"'):
            while (quoted := _QUOTED.match(value)) is None:
                if number >= len(lines):
                    raise SecretUnusable(f"Line {begin} of the secret {source} has a quote that is never closed.", "Close it.")
                value += f"\n{lines[number]}"
                number += 1
            found[name] = _unescaped(quoted[2]) if quoted[1] is None else quoted[1]
        else:
            found[name] = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text, flags=re.DOTALL)


def _format_of(path: Path) -> str:
    if path.name.startswith(".env") or path.suffix == ".env":
        return "dotenv"
    return "json" if path.suffix == ".json" else "value"


def _text(source: Source, path: Path) -> str:
    try:
        with path.open("rb") as opened:
            data = opened.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        raise SecretNotThere(
            f"The secret {source} cannot be read: {path}: {error.strerror or error}.",
            "Files of secrets are in no code package: each machine that runs the step needs it. An absolute path, as /run/secrets/NAME, is the same everywhere.",
        ) from None
    if len(data) > _MOST_FILE_BYTES:
        raise SecretUnusable(
            f"The secret {source} is larger than {_MOST_FILE_BYTES // 1_000_000} MB.", f"A variable has {MOST_BYTES // 1000} KB at most."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretUnusable(f"The secret {source} is no text in UTF-8.", "Read it in the step, from where it is.") from None
