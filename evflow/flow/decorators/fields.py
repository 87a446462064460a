"""Checks that the fields of several decorators share."""

from collections.abc import Iterator
from typing import Final

from evflow.flow.decorators.base import StepDecorator

MOST: Final = 1_000_000_000
"""No number is larger: as hours, in microseconds, it still fits into the 64 bits that an event has for it."""


def number_mistake(decorator: StepDecorator, field: str, *, least: float = 0, whole: bool = False) -> Iterator[str]:
    """A sentence where a field is not a number from `least` to `MOST`."""
    value = decorator.value(field)
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if bound := missed_bound(value if is_number else None, least):
        yield f"@{decorator.name} takes {'a whole number' if whole else 'a number'} {bound} as {field}, not {value!r}."


def missed_bound(number: float | None, least: float = 0) -> str:
    """The bound that a number misses (`of at least 0`), or an empty string. What is no number misses the lower one."""
    if number is None or not number >= least:
        return f"of at least {least:g}"
    return f"of at most {MOST:,}" if number > MOST else ""


def as_number(value: object) -> float | None:
    """A number that may be written as a string (`cpu="2"`), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
