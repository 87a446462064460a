"""Checks that the fields of several decorators share."""

from collections.abc import Iterator

from evflow.flow.decorators.base import StepDecorator


def number_mistake(decorator: StepDecorator, field: str, *, least: float = 0, whole: bool = False) -> Iterator[str]:
    """A sentence where a field is not a number of at least `least`."""
    value = decorator.value(field)
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not (value >= least):
        yield f"@{decorator.name} takes {'a whole number' if whole else 'a number'} of at least {least:g} as {field}, not {value!r}."


def as_number(value: object) -> float | None:
    """A number that may be written as a string (`cpu="2"`), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
