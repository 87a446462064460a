"""`@exit_hook`: functions that run once when a run has ended."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, overload

from evflow.flow.decorators.base import StepDecorator
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where

C = TypeVar("C", bound=type)
Hook = Callable[..., Any]

_HOOKS: Final = "_evflow_exit_hooks"
"""The attribute of a class that has its hooks; `evflow.flow.config_values` knows it too."""
DEFAULT_TIMEOUT_S: Final = 600
"""A hook that never ends would keep its run from being sealed."""


class ExitHookDecorator(StepDecorator):
    """See `exit_hook`: a decorator of a class; nothing else of a step's decorator is asked of it."""

    name = "exit_hook"
    defaults = MappingProxyType({"on_success": [], "on_error": [], "options": {}})

    def mistakes(self) -> Iterator[str]:
        """Lists of functions, or of their names."""
        for field in ("on_success", "on_error"):
            given = self.value(field)
            if not isinstance(given, list | tuple):
                yield f"@exit_hook takes a list of functions as {field}, not {given!r:.200}."
                continue
            for one in cast("Sequence[object]", given):
                if not callable(one) and not (isinstance(one, str) and one.isidentifier()):
                    yield f"@exit_hook: {one!r:.200} in {field} is neither a function nor the name of one."
        if not self.value("on_success") and not self.value("on_error"):
            yield "@exit_hook has no function: give on_success=[…] or on_error=[…]."
        options = self.value("options")
        timeout_s = cast("Mapping[str, object]", options).get("timeout_s", 1) if isinstance(options, Mapping) else 0
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 86_400:
            yield f"@exit_hook takes {{'timeout_s': seconds}} as options, at most a day, not {options!r:.200}."

    def __str__(self) -> str:
        """With the names of functions: nobody wants to read where in memory they are."""
        fields = [f"{field}=[{', '.join(map(name_of, self.value(field)))}]" for field in ("on_success", "on_error") if self.value(field)]
        return f"@exit_hook({', '.join(fields)})"


@overload
def exit_hook(cls: C, /) -> C: ...
@overload
def exit_hook(
    *, on_success: "Sequence[Hook | str]" = (), on_error: "Sequence[Hook | str]" = (), options: Mapping[str, Any] = {}
) -> Callable[[C], C]: ...
def exit_hook(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run functions when a run of the flow has ended, in a process of their own. What they do never changes the run's result.

    A function gets the run (`evflow.Run`) if it has a parameter `run`. Several decorators are possible.

    Args:
        cls: The flow, where it is used bare: `check` says that functions are missing.
        on_success: Functions, or names of functions of the flow's file, for a run that succeeded.
        on_error: For one that failed or was cancelled.
        options: `timeout_s`: how long each function may take, 600 s if nothing is said.
    """
    return apply_to_class(ExitHookDecorator, _HOOKS, cls, fields, field="on_success")


def mistakes(cls: type) -> Iterator[tuple[Where, str]]:
    """What is wrong with a flow's hooks, and where."""
    for decorator in _found(cls):
        wrong = list(decorator.mistakes())
        yield from ((decorator.where, mistake) for mistake in wrong)
        for one in () if wrong else (*decorator.value("on_success"), *decorator.value("on_error")):
            if isinstance(one, str) and not callable(_named(cls, one)):
                yield decorator.where, f"@exit_hook: there is no function '{one}' in the flow's file."


def recorded(cls: type) -> dict[str, Any] | None:
    """The names of a flow's hooks, for the options of its runs; None where it has none."""
    found = _found(cls)
    if not found:
        return None
    return {field: [name_of(one) for decorator in found for one in decorator.value(field)] for field in ("on_success", "on_error")}


def functions_of(cls: type, *, succeeded: bool) -> Iterator[tuple[str, Hook | None, float]]:
    """Name, function and time limit in seconds of each hook; None as the function where the file has none of that name."""
    for decorator in _found(cls):
        for one in decorator.value("on_success" if succeeded else "on_error"):
            function = _named(cls, one) if isinstance(one, str) else one
            yield name_of(one), function, float(decorator.value("options").get("timeout_s", DEFAULT_TIMEOUT_S))


def name_of(hook: object) -> str:
    """A hook's name for people."""
    return hook if isinstance(hook, str) else str(getattr(hook, "__name__", type(hook).__name__))


def _named(cls: type, name: str) -> Any:
    return getattr(sys.modules.get(cls.__module__), name, None)


def _found(cls: type) -> list[ExitHookDecorator]:
    found: list[ExitHookDecorator] = configured(cls, _HOOKS)
    return found
