"""Sources of secrets as `@secrets` takes them, and the variables that they give.

The forms are Metaflow's: a text, `TYPE.ID` or an id of the default type, or a dictionary of `type`, `id`, `options` and `role`.
A provider is a function from a source to variables; it is imported when a step asks for it, in the attempt's process.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple, cast

from evflow.errors import EnvironmentProblem, UsageError, did_you_mean

PROVIDERS: Final[Mapping[str, tuple[str, str]]] = {
    "inline": ("evflow.flow.secrets.local", "inline"),
    "environment": ("evflow.flow.secrets.local", "environment"),
    "file": ("evflow.flow.secrets.local", "file"),
    "aws-secrets-manager": ("evflow.flow.secrets.aws", "secrets_manager"),
}
"""A source's type, and the module and name of its provider."""
_FIELDS: Final = ("type", "id", "options", "role")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
OURS: Final = ("EVFLOW_", "METAFLOW_")
"""Begin variables that configure evflow, which no secret may."""
MOST_BYTES: Final = 100_000
"""Of one value: Linux lets a process begin with at most 128 KiB in a variable."""


class SecretSourceInvalid(UsageError):
    """A source of `@secrets` cannot be read."""

    code = "secret-source-invalid"


class SecretUnusable(UsageError):
    """A source gives what cannot be a variable, or what another one gives, too. Values are never named."""

    code = "secret-unusable"


class SecretNotThere(EnvironmentProblem):
    """A source cannot be read here and now."""

    code = "secret-not-there"


class Source(NamedTuple):
    """Where variables come from.

    Attributes:
        type: The provider.
        id: Which secret, as the provider names it.
        options: What else is said to the provider.
        role: On whose behalf it is read, or None.
        folder: That of the flow's file, in which relative paths are looked for.
    """

    type: str
    id: str
    options: Mapping[str, Any]
    role: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        """Without options, which may hold values."""
        return f"{self.type}.{self.id}" if self.id else self.type


Provider = Callable[[Source], Mapping[str, str]]


def source_of(given: object, *, default_type: str | None, role: str | None = None, folder: str = "") -> Source:
    """A source from what the user wrote.

    Args:
        given: A text or a dictionary.
        default_type: The type of a text without one.
        role: The decorator's.
        folder: That of the flow's file.

    Raises:
        SecretSourceInvalid: It is neither, or its fields are not these.
    """
    if isinstance(given, str):
        kind, dot, rest = given.partition(".")
        if dot and kind in PROVIDERS:
            return _checked(Source(kind, rest, {}, role, folder))
        if given in PROVIDERS or default_type is None:
            raise SecretSourceInvalid(
                f"@secrets: the source {given[:80]!r} has {'no id' if given in PROVIDERS else 'no type'}.",
                f"Write TYPE.ID; types are {_types()}. EVFLOW_DEFAULT_SECRETS_BACKEND_TYPE is the type of a source without one.",
            )
        return _checked(Source(default_type, given, {}, role, folder))
    if not isinstance(given, Mapping):
        raise SecretSourceInvalid(
            f"@secrets takes texts and dictionaries as sources, not a {type(given).__name__}.", 'Write "TYPE.ID" or {"type": …, "id": …}.'
        )
    said = cast("Mapping[str, Any]", given)
    unknown = [str(field) for field in said if field not in _FIELDS]
    if unknown:
        raise SecretSourceInvalid(
            f"@secrets: a source has the field {unknown[0]!r}.", f"There are {', '.join(_FIELDS)}.{did_you_mean(unknown[0], _FIELDS)}"
        )
    kind, name, options = said.get("type", default_type), said.get("id", ""), said.get("options", {})
    if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(options, Mapping):
        raise SecretSourceInvalid("@secrets: a source's type and id are texts, its options a dictionary.", f"Types are {_types()}.")
    own = said.get("role", role)
    if own is not None and not isinstance(own, str):
        raise SecretSourceInvalid(f"@secrets: the role of {kind}.{name} is no text.", "Give the role's name, as an ARN.")
    return _checked(Source(kind, name, cast("Mapping[str, Any]", options), own, folder))


def fetch(sources: Iterable[Source]) -> dict[str, str]:
    """The variables of all sources.

    Raises:
        SecretNotThere: A source cannot be read.
        SecretUnusable: What it holds cannot be variables, or two of them give the same one.
        SecretSourceInvalid: Its options are not the provider's.
    """
    found: dict[str, str] = {}
    whose: dict[str, Source] = {}
    for source in sources:
        module, name = PROVIDERS[source.type]
        provider: Provider = getattr(import_module(module), name)
        for variable, value in provider(source).items():
            _check_variable(source, variable, value)
            if variable in whose:
                raise SecretUnusable(
                    f"Both {whose[variable]} and {source} give the variable {variable}.", "Leave one of them out of @secrets."
                )
            found[variable], whose[variable] = value, source
    return found


def setting(name: str) -> Any:
    """A setting of evflow, as the machine of the step has it."""
    # By name: settings know of the log, which stands beside the flow language.
    return import_module("evflow.config").get(name)


def options_of(source: Source, **known: Any) -> dict[str, Any]:
    """The options that a provider knows, with their defaults.

    Raises:
        SecretSourceInvalid: There are others.
    """
    unknown = [str(name) for name in source.options if name not in known]
    if unknown:
        raise SecretSourceInvalid(
            f"The secret {source} has the option {unknown[0]!r}.",
            f"Options of {source.type} are: {', '.join(known) or 'none'}.{did_you_mean(unknown[0], known)}",
        )
    return {**known, **source.options}


def variable_of(name: str) -> str:
    """The variable that a secret's name is, where nothing else is said: `db/pass-word` is `db_pass_word`."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{text}" if text[:1].isdigit() else text


def as_value(source: Source, name: str, value: object) -> str:
    """A value as a variable has it: numbers are written out, everything else must be a text.

    Raises:
        SecretUnusable: It is something else.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise SecretUnusable(
        f"The secret {source} has a {type(value).__name__} under {name!r}, and variables are texts.",
        "Give a map of names to texts and numbers.",
    )


def _check_variable(source: Source, name: str, value: str) -> None:
    if not _NAME.match(name):
        raise SecretUnusable(
            f"The secret {source} gives {name[:80]!r}, which can be no variable's name.",
            "Names have letters, digits and _, no digit first.",
        )
    if name.startswith(OURS):
        raise SecretUnusable(f"The secret {source} gives {name}, and variables that begin so configure evflow.", "Rename it.")
    if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise SecretUnusable(
            f"The value of {name}, from {source}, can be no variable's: it holds a NUL, or more than {MOST_BYTES // 1000} KB.",
            "Read it in the step, from where it is.",
        )


def _checked(source: Source) -> Source:
    if source.type not in PROVIDERS:
        raise SecretSourceInvalid(
            f"@secrets: there is no type '{source.type[:80]}' of secrets.", f"Types are {_types()}.{did_you_mean(source.type, PROVIDERS)}"
        )
    if not source.id and source.type != "inline":
        raise SecretSourceInvalid(f"@secrets: a source of type {source.type} has no id.", f"Write {source.type}.ID.")
    return source


def _types() -> str:
    return ", ".join(PROVIDERS)
