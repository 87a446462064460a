"""`@cached`: a step that was done before with the same code and inputs is not done again, in whatever run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast, overload

from evflow.flow.decorators.base import F, StepDecorator, apply

ITEM: Final = "input"
INDEX: Final = "index"


class Cached(StepDecorator):
    """See `cached`."""

    name = "cached"
    defaults = MappingProxyType({"key": None, "version": ""})

    def mistakes(self) -> Iterator[str]:
        """A key that names something, and a version that can be told from another."""
        key = self.value("key")
        if not (key is None or callable(key) or self.names()):
            yield f"@cached takes the name of an artifact, a list of names or a function as key, not {key!r}."
        version: object = self.value("version")
        if not isinstance(version, str | int):
            yield f"@cached takes a text or a number as version, not {version!r}."

    def names(self) -> tuple[str, ...] | None:
        """The names that its key consists of; None where it is none of names."""
        key = self.value("key")
        if isinstance(key, str):
            return (key,) if key.isidentifier() else None
        if not isinstance(key, Sequence):
            return None
        names = tuple(cast("Sequence[object]", key))
        return cast("tuple[str, ...]", names) if names and all(isinstance(name, str) and name.isidentifier() for name in names) else None

    def __str__(self) -> str:
        """Without the address of a function: this text stands in the log."""
        shown = {field: getattr(value, "__name__", "…") if callable(value) else repr(value) for field, value in self.given.items()}
        return f"@cached({', '.join(f'{field}={text}' for field, text in shown.items())})" if shown else "@cached"


@overload
def cached(function: F, /) -> F: ...
@overload
def cached(*, key: str | Sequence[str] | Callable[..., object] | None = None, version: str | int = "") -> Callable[[F], F]: ...
def cached(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Take the result of a task that did the same before, in whatever run of the flow, in place of running the step.

    The same is: the code of the step and of what it calls in the flow's folder, its decorators, Python's version, and its inputs, which
    are all artifacts and parameters that it could read and its place in the splits around it. What only `current`, files, the network
    or the clock tell is not looked at.

    Args:
        function: The step, where it is used bare.
        key: What to look at in place of all inputs: names of artifacts and parameters, `"input"` for the item of the foreach and `"index"` for
            its place; or a function that is given what the step is given and returns a value that an artifact could have.
        version: Another one makes everything that was kept worthless.
    """
    return apply(Cached, function, cast("Mapping[str, object]", fields))
