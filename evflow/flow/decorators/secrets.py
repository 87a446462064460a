"""`@secrets`: environment variables of a step whose values nobody sees."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, overload

from evflow.errors import EvflowError, UsageError
from evflow.flow.decorators.base import F, StepDecorator, apply

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec
    from evflow.flow.secrets.sources import Source


class SecretClashes(UsageError):
    """A secret would replace a variable that the step has already."""

    code = "secret-clashes"

    def __init__(self, names: Sequence[str]) -> None:
        what = f"The variable {names[0]} is" if len(names) == 1 else f"The variables {', '.join(names)} are"
        super().__init__(
            f"{what} in the environment of the step already, and @secrets gives another value.",
            "@secrets(…, allow_override=True) replaces what is there.",
        )


class Secrets(StepDecorator):
    """See `secrets`."""

    name = "secrets"
    defaults = MappingProxyType({"sources": [], "role": None, "allow_override": False})

    def mistakes(self) -> Iterator[str]:
        """Sources that can be read."""
        sources = self.value("sources")
        if not isinstance(sources, list | tuple):
            yield f"@secrets takes a list of sources, not a {type(sources).__name__}."
            return
        for source in cast("Sequence[object]", sources):
            try:
                self._source(source, default_type="file")  # which one it is, the machine of the step says
            except EvflowError as error:
                yield f"{error.message} {error.hint}".rstrip()
        if self.value("role") is not None and not isinstance(self.value("role"), str):
            yield f"@secrets takes a role's name as role, not {self.value('role')!r}."
        if not isinstance(self.value("allow_override"), bool):
            yield f"@secrets takes True or False as allow_override, not {self.value('allow_override')!r}."

    def sources(self, folder: str = "") -> "list[Source]":
        """The sources.

        Args:
            folder: In which relative paths are looked for.

        Raises:
            SecretSourceInvalid: One has no type, and the machine names none.
        """
        from evflow.imports import framework_view

        with framework_view():
            from evflow.flow.secrets.sources import setting

        default_type = setting("default_secrets_backend_type") or None
        return [self._source(source, default_type=default_type, folder=folder) for source in self.value("sources")]

    def _source(self, given: object, *, default_type: str | None, folder: str = "") -> "Source":
        from evflow.imports import framework_view

        with framework_view():
            from evflow.flow.secrets.sources import source_of
        role = self.value("role")
        return source_of(given, default_type=default_type, role=role if isinstance(role, str) else None, folder=folder)

    def __str__(self) -> str:
        """The sources without their options, which may hold values: this text goes into the log and into pictures."""
        sources = self.given.get("sources")
        if not isinstance(sources, list | tuple):
            return "@secrets"
        others = [f"{field}={value!r}" for field, value in self.given.items() if field != "sources"]
        shown = ", ".join(repr(_name(source)) for source in cast("Sequence[object]", sources))
        return f"@secrets({', '.join([f'sources=[{shown}]', *others])})"

    def attributes(self) -> dict[str, Any]:
        """The sources by their names alone: a graph is shown, and kept."""
        sources = self.value("sources")
        names = [_name(source) for source in cast("Sequence[object]", sources)] if isinstance(sources, list | tuple) else []
        return {**super().attributes(), "sources": names}

    def spec_mistake(self) -> str | None:
        """No value on a command line."""
        if any(source.type == "inline" for source in (self._source(one, default_type="file") for one in self.value("sources"))):
            return "a value of a secret on the command line would stand in the run's log."
        return None

    def before(self, flow: "FlowSpec") -> None:
        """Fetch them, have them hidden, and set them in the attempt's process."""
        from evflow import masking
        from evflow.imports import framework_view

        with framework_view():
            from evflow.flow.secrets.sources import fetch
        module = sys.modules.get(type(flow).__module__)
        found = fetch(self.sources(os.path.dirname(os.path.abspath(getattr(module, "__file__", None) or ""))))  # noqa: PTH100, PTH120
        masking.hide(found.values())
        clash = [name for name, value in found.items() if os.environ.get(name, value) != value]
        if clash and not self.value("allow_override"):
            raise SecretClashes(clash)
        short = [name for name, value in found.items() if value and not masking.is_hidden(value)]
        if short:
            sys.stderr.write(
                f"Note: {', '.join(short)}: the value has fewer than {masking.SHORTEST_CHARS} characters and is not hidden in what is printed.\n"
            )
        os.environ.update(found)


def _name(source: object) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        said = cast("Mapping[str, Any]", source)
        return f"{said.get('type', '')}.{said['id']}" if said.get("id") else str(said.get("type", ""))
    return "…"


@overload
def secrets(function: F, /) -> F: ...
@overload
def secrets(
    *, sources: Sequence[str | Mapping[str, Any]] = (), role: str | None = None, allow_override: bool = False
) -> Callable[[F], F]: ...
def secrets(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Give the step environment variables whose values are nowhere but in its process.

    They are fetched by each attempt right before its body, and `***` stands for them in what it prints, in tracebacks and in cards.

    Args:
        function: The step, where it is used bare.
        sources: `"TYPE.ID"`, or dictionaries of `type`, `id`, `options` and `role`. Types are `inline`, `environment`, `file` and
            `aws-secrets-manager`.
        role: On whose behalf they are read, for sources that say none.
        allow_override: They may replace variables that are there.
    """
    return apply(Secrets, function, fields)
