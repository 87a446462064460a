"""Values: immutable to the type checkers, cheap to define and to build.

A frozen dataclass sets each field through `object.__setattr__`, which makes building one four to ten times as dear as
building a plain one (1.3 against 0.2 microseconds for six fields), and a replay builds two for each event. Defining one
takes half a millisecond, most of it for compiling methods that all classes could share, and every command that somebody
waits for defines some seventy. So the promise not to change is kept where it costs nothing: assigning to a field is an
error of mypy and pyright, which the build runs; and comparison, hash and text are the same functions for all.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """Make a slotted dataclass whose fields nobody sets; equal and hashable by its fields."""
    shared: Any = cls
    shared.__eq__ = _equal
    shared.__hash__ = _hash
    if "__repr__" not in cls.__dict__:
        shared.__repr__ = _text
    made: type[_T] = dataclass(slots=True, eq=False, repr=False)(cls)
    return made


def _equal(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    names: tuple[str, ...] = type(self).__match_args__
    return all(getattr(self, name) == getattr(other, name) for name in names)


def _hash(self: Any) -> int:
    return hash(tuple(getattr(self, name) for name in self.__match_args__))


def _text(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__name__}({fields})"
