"""`@environment`: environment variables of a step."""

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, overload

from evflow.flow.decorators.base import F, StepDecorator, apply

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec


class Environment(StepDecorator):
    """See `environment`."""

    name = "environment"
    defaults = MappingProxyType({"vars": {}})

    def mistakes(self) -> Iterator[str]:
        """A dict from names to values that a process can have."""
        given = self.value("vars")
        if not isinstance(given, Mapping):
            yield f"@environment takes a dict of names and values as vars, not {given!r}."
            return
        for name, value in cast("Mapping[object, object]", given).items():
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                yield f"@environment cannot set a variable named {name!r}."
            elif not isinstance(value, str | int | float) or "\0" in str(value):
                yield f"@environment takes a string as the value of {name}, not {value!r}."

    def variables(self) -> dict[str, str]:
        """The variables as a process takes them."""
        return {str(name): str(value) for name, value in self.value("vars").items()}

    def __str__(self) -> str:
        """The names without their values, which may be secrets: this text goes into the log and into pictures."""
        given = self.given.get("vars")
        if not isinstance(given, Mapping):
            return super().__str__()
        return f"@environment(vars={{{', '.join(f'{name!r}: …' for name in cast('Mapping[object, object]', given))}}})"

    def before(self, flow: "FlowSpec") -> None:
        """Set them in the attempt's process."""
        os.environ.update(self.variables())


@overload
def environment(function: F, /) -> F: ...
@overload
def environment(*, vars: Mapping[str, str] = {}) -> Callable[[F], F]: ...
def environment(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Set environment variables for the process that runs the step.

    Args:
        function: The step, where it is used bare.
        vars: Names and values.
    """
    return apply(Environment, function, fields)
