"""`@pool`: the workers that run a step."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, overload

from evflow.core.graph import DEFAULT_POOL, POOL_PREFIX, is_pool_name
from evflow.flow.decorators.base import F, StepDecorator, apply


class Pool(StepDecorator):
    """See `pool`."""

    name = "pool"
    defaults = MappingProxyType({"name": DEFAULT_POOL})

    def mistakes(self) -> Iterator[str]:
        """A name that can stand in keys of the log."""
        given = self.value("name")
        if not isinstance(given, str) or not is_pool_name(given):
            yield f"{given!r} cannot be the name of a pool: letters, digits, '-', '_' and '.', beginning with a letter or digit."

    def policy(self) -> Mapping[str, object]:
        """The executor."""
        return {"executor": POOL_PREFIX + self.value("name")}


@overload
def pool(function: F, /) -> F: ...
@overload
def pool(name: str, /) -> Callable[[F], F]: ...
@overload
def pool(*, name: str = DEFAULT_POOL) -> Callable[[F], F]: ...
def pool(given: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run the step on a worker of a pool, wherever that is: `evflow worker --pool NAME` is one.

    Args:
        name: The pool.
    """
    if isinstance(given, str):
        return apply(Pool, None, {"name": given})
    return apply(Pool, given, fields)
