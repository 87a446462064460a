"""What a decorator of a flow's class is: a step decorator's fields and messages, kept on the class."""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from evflow.flow.decorators.base import DecoratorInvalid, StepDecorator, is_delayed, raise_at_import
from evflow.flow.steps import MUTATORS, Where, caller, facts


def apply_to_class(kind: type[StepDecorator], attribute: str, decorated: object, given: Mapping[str, object], *, field: str) -> Any:
    """Put a decorator on a flow's class: at once (`@schedule`), or when the class comes (`@schedule(hourly=True)`).

    Args:
        kind: The decorator's.
        attribute: Of the class: it has its decorators, the first one in the source first.
        decorated: The class, or None where it comes later.
        given: The fields that the user wrote.
        field: The one that somebody means who gives a value without a name.
    """
    place = caller(2)
    if decorated is not None and (is_delayed(decorated) or not callable(decorated)):
        raise_at_import(
            DecoratorInvalid(f"@{kind.name} takes its fields by name ({place}).", f"Write @{kind.name}({field}={decorated!r}).")
        )
    try:
        decorator = kind(given, place)
    except DecoratorInvalid as error:
        raise_at_import(error)

    def decorate(cls: Any) -> Any:
        if not isinstance(cls, type):
            _not_a_flow(kind, place)
        # The one above is applied last: the first in the source comes first.
        setattr(cls, attribute, [decorator, *cls.__dict__.get(attribute, ())])
        return cls

    return decorate if decorated is None else decorate(decorated)


def configured(cls: type, attribute: str) -> list[Any]:
    """The decorators that a class has in an attribute, with what configurations give them."""
    found: list[Any] = getattr(cls, attribute, [])
    if hasattr(cls, MUTATORS):
        found = facts(cls).classwide.get(attribute, found)
    settled = facts(cls).configured if found else {}
    return [settled.get(one, one) for one in found] if settled else found


def decorators_of(cls: type) -> list[StepDecorator]:
    """All decorators of a flow's class, of whatever kind, in the order of the source; those of mutators come first."""
    places = {name for name in dir(cls) if name.startswith("_evflow_") and isinstance(getattr(cls, name), list)} | facts(
        cls
    ).classwide.keys()
    found = [one for place in sorted(places) for one in configured(cls, place) if isinstance(one, StepDecorator)]
    return sorted(found, key=lambda one: (one.where.file, one.where.line))


def written(decorator: StepDecorator) -> str:
    """A decorator as the source has it, or nearly: functions by their names, since what Python says of one differs in each process."""
    fields = ", ".join(f"{field}={_literal(value)}" for field, value in decorator.given.items())
    return f"@{decorator.name}({fields})" if fields else f"@{decorator.name}"


def _literal(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, cast('list[object]', value)))}]"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return f"{{{', '.join(f'{_literal(key)}: {_literal(one)}' for key, one in pairs)}}}"
    return str(getattr(value, "__qualname__", type(value).__name__)) if callable(value) else repr(value)


def _not_a_flow(kind: type[StepDecorator], place: Where) -> NoReturn:
    raise_at_import(DecoratorInvalid(f"@{kind.name} stands on something that is not a flow's class ({place}).", "Put it above the class."))
