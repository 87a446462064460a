"""`@limit` and `@concurrency`: how many attempts of a step, or runs of a flow, may be at work at once, wherever they are."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar, cast, overload

from evflow.flow.decorators.base import DecoratorInvalid, F, StepDecorator, apply, is_delayed, raise_at_import
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where, caller

C = TypeVar("C", bound=type)

_CONCURRENCY: Final = "_evflow_concurrency"
"""The attribute of a class that has its `@concurrency`s."""
_WHEN_BUSY: Final = ("queue", "skip", "cancel")


class Limit(StepDecorator):
    """See `limit`."""

    name = "limit"
    defaults = MappingProxyType({"key": "", "at_most": 1})
    repeatable: ClassVar[bool] = True

    def mistakes(self) -> Iterator[str]:
        """A name of letters that can be shown, and a whole number."""
        yield from _key_mistakes("limit", self.value("key"), needed=True)
        yield from _most_mistakes("limit", self.value("at_most"))

    def policy(self) -> Mapping[str, object]:
        """The name and its number, beside those of other `@limit`s of the step."""
        return {"limits": {self.value("key"): self.value("at_most")}}


class Concurrency(StepDecorator):
    """See `concurrency`: a decorator of a class, with a step decorator's fields and messages; nothing else of one is asked of it."""

    name = "concurrency"
    defaults = MappingProxyType({"at_most": 1, "when_busy": "queue", "key": None})

    def mistakes(self) -> Iterator[str]:
        """A whole number, a way to go on, and a key that can be one."""
        yield from _most_mistakes("concurrency", self.value("at_most"))
        if self.value("when_busy") not in _WHEN_BUSY:
            yield f"@concurrency: when_busy is {self.value('when_busy')!r}: it is one of {', '.join(_WHEN_BUSY)}."
        yield from _key_mistakes("concurrency", self.value("key"), needed=False)

    def recorded(self) -> dict[str, Any]:
        """As a run's options have it."""
        return {name: self.value(name) for name in self.defaults}


def limit(key: str | None = None, /, *, at_most: int = 1) -> Callable[[F], F]:
    """Let at most so many attempts with this key run at once: of all steps, runs, flows and schedulers that share the log.

    Args:
        key: What is scarce: `warehouse`. A parameter in braces is its value in the run: `customer-{customer}`. Several `@limit`s may stand
            on a step; it waits for all of them.
        at_most: How many. An operator's `evflow limits set key:warehouse N` takes its place.
    """
    if key is None or (
        callable(cast("object", key)) and not is_delayed(key)
    ):  # `@limit` alone would take the step for its key, and leave the flow without the step
        raise_at_import(DecoratorInvalid(f"@limit has no key ({caller(1)}).", 'Write @limit("warehouse", at_most=4).'))
    return cast("Callable[[F], F]", apply(Limit, None, {"key": key, "at_most": at_most}))


@overload
def concurrency(cls: C, /) -> C: ...
@overload
def concurrency(*, at_most: int = 1, when_busy: str = "queue", key: str | None = None) -> Callable[[C], C]: ...
def concurrency(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let at most so many runs of the flow be at work at once: of all that share the log, in the foreground or deployed.

    Args:
        cls: The flow, where it is used bare.
        at_most: How many.
        when_busy: What a run does that is one too many: `queue` waits for another one's end, `skip` is cancelled with that reason,
            `cancel` has the runs cancelled that have been at work for the longest time, and takes their place.
        key: Counts only runs with the same key, in which a parameter in braces is its value: `{customer}`.
    """
    return apply_to_class(Concurrency, _CONCURRENCY, cls, fields, field="at_most")


def mistakes(cls: type) -> Iterator[tuple[Where, str]]:
    """What is wrong with a flow's `@concurrency`, and where."""
    found = _found(cls)
    if len(found) > 1:
        yield found[0].where, f"Flow {cls.__name__} has @concurrency {len(found)} times: keep one of them."
        return
    for decorator in found:
        for mistake in decorator.mistakes():
            yield decorator.where, mistake


def concurrency_of(cls: type) -> dict[str, Any] | None:
    """What a flow without mistakes says of its runs; a subclass that says nothing has its base's."""
    found = _found(cls)
    return found[0].recorded() if found else None


def _found(cls: type) -> list[Concurrency]:
    found: list[Concurrency] = configured(cls, _CONCURRENCY)
    return found


def _most_mistakes(name: str, most: Any) -> Iterator[str]:
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        yield f"@{name}: at_most is {most!r}: it is a whole number, at least 1."


def _key_mistakes(name: str, key: Any, *, needed: bool) -> Iterator[str]:
    if key is None and not needed:
        return
    if not isinstance(key, str) or not key or not key.isprintable() or len(key) > 100:
        yield f"@{name}: the key is {key!r}: it is a text of 1 to 100 printable characters."
        return
    from evflow.imports import framework_view

    with framework_view():
        from evflow.core.limits import placeholders

    try:
        placeholders(key)
    except ValueError as error:
        yield f"@{name}: {error}"
