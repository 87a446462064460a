"""`@timeout`: a limit for each attempt of a step."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, overload

from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.fields import number_mistake

MICROS = 1_000_000
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}


class Timeout(StepDecorator):
    """See `timeout`."""

    name = "timeout"
    defaults = MappingProxyType({"seconds": 0, "minutes": 0, "hours": 0})

    def mistakes(self) -> Iterator[str]:
        """Numbers, not negative, not all zero."""
        wrong = [mistake for field in _SECONDS for mistake in number_mistake(self, field)]
        yield from wrong
        if not wrong and not any(self.value(field) for field in _SECONDS):
            yield "Specify a duration for @timeout, as in @timeout(minutes=5)."

    def policy(self) -> Mapping[str, object]:
        """The sum."""
        seconds = sum(float(self.value(field)) * factor for field, factor in _SECONDS.items())
        return {"timeout_us": max(1, round(seconds * MICROS))}


@overload
def timeout(function: F, /) -> F: ...
@overload
def timeout(*, seconds: float = 0, minutes: float = 0, hours: float = 0) -> Callable[[F], F]: ...
def timeout(function: Any = None, /, **fields: Any) -> Any:
    """Give each attempt of a step a limit, the sum of the fields.

    The body gets a `TimeoutException` (an `async` one is cancelled); one that does not end then is killed ten seconds later. A
    time-out is retried and caught as any other failure.
    """
    return apply(Timeout, function, fields)
