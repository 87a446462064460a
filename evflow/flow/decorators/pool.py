"""`@pool`: the workers that run a step."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, overload

from evflow.core.graph import DEFAULT_POOL, POOL_PREFIX, is_pool_name
from evflow.flow.decorators.base import F, StepDecorator, apply, is_delayed

REUSE: Final = 1_000
"""Attempts of a process where `reuse` is True: often enough that a process costs nothing, seldom enough that what leaks goes away."""
MOST_REUSE: Final = 1_000_000


class Pool(StepDecorator):
    """See `pool`."""

    name = "pool"
    defaults = MappingProxyType({"name": DEFAULT_POOL, "reuse": False})

    def mistakes(self) -> Iterator[str]:
        """A name that can stand in keys of the log, and a number of attempts."""
        given = self.value("name")
        if not isinstance(given, str) or not is_pool_name(given):
            yield f"{given!r} cannot be the name of a pool: letters, digits, '-', '_' and '.', beginning with a letter or digit."
        reuse = self.value("reuse")
        if not isinstance(reuse, int) or not 0 <= reuse <= MOST_REUSE:
            yield f"reuse={reuse!r}: it is True, False, or how many attempts a process may serve, at most {MOST_REUSE:,}."

    def policy(self) -> Mapping[str, object]:
        """The executor, and how many attempts a process may serve."""
        reuse = self.value("reuse")
        return {"executor": POOL_PREFIX + self.value("name"), "reuse": REUSE if reuse is True else int(reuse)}


@overload
def pool(function: F, /) -> F: ...
@overload
def pool(name: str, /, *, reuse: bool | int = False) -> Callable[[F], F]: ...
@overload
def pool(*, name: str = DEFAULT_POOL, reuse: bool | int = False) -> Callable[[F], F]: ...
def pool(given: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run the step on a worker of a pool, wherever that is: `evflow worker --pool NAME` is one.

    Args:
        name: The pool.
        reuse: The process that has run an attempt may run the next one of such a step of this flow: True, or how many of them. A new
            process for each is the default. See `docs/pools.md` for what is then as in a new process, and what is not.
    """
    if isinstance(given, str) or is_delayed(given):
        return apply(Pool, None, {"name": given, **fields})
    return apply(Pool, given, fields)
