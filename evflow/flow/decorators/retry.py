"""`@retry`: more attempts of a step that fails."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, overload

from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.fields import number_mistake

MICROS = 1_000_000
MINUTE_S = 60


class Retry(StepDecorator):
    """See `retry`."""

    name = "retry"
    defaults = MappingProxyType({"times": 3, "minutes_between_retries": 2, "seconds_between_retries": None, "backoff": 1, "max_minutes": 0})

    def mistakes(self) -> Iterator[str]:
        """Numbers, not negative; `times` a whole one, `backoff` at least 1."""
        for field in ("minutes_between_retries", "max_minutes"):
            yield from number_mistake(self, field)
        yield from number_mistake(self, "times", whole=True)
        yield from number_mistake(self, "backoff", least=1)
        if self.value("seconds_between_retries") is not None:
            yield from number_mistake(self, "seconds_between_retries")

    def policy(self) -> Mapping[str, object]:
        """Attempts and waits. Seconds alone take the place of the default's minutes."""
        seconds = self.value("seconds_between_retries")
        minutes = self.value("minutes_between_retries")
        if seconds is not None and "minutes_between_retries" not in self.given:
            minutes = 0
        return {
            "retry_times": int(self.value("times")),
            "retry_explicit": True,
            "retry_delay_us": round((float(minutes) * MINUTE_S + float(seconds or 0)) * MICROS),
            "retry_backoff": float(self.value("backoff")),
            "retry_max_delay_us": round(float(self.value("max_minutes")) * MINUTE_S * MICROS),
        }


@overload
def retry(function: F, /) -> F: ...
@overload
def retry(
    *,
    times: int = 3,
    minutes_between_retries: float = 2,
    seconds_between_retries: float | None = None,
    backoff: float = 1,
    max_minutes: float = 0,
) -> Callable[[F], F]: ...
def retry(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run a step again that failed, up to `times` times.

    Args:
        function: The step, where it is used bare.
        times: Attempts after the first one. 0 says that the step must never run twice.
        minutes_between_retries: The wait before the first retry.
        seconds_between_retries: The same in seconds; added to minutes that are given as well.
        backoff: The factor by which the wait grows from one retry to the next.
        max_minutes: The longest wait; 0 for no bound.
    """
    return apply(Retry, function, fields)
