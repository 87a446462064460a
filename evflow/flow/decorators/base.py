"""What every step decorator is: fields with defaults, checks of their values, a part of the policy, hooks.

A decorator is one class below `StepDecorator` plus a line in `evflow.flow.decorators.REGISTRY`. The function
that users write (`@retry`) is typed by hand and calls `apply`. A decorator is applied when the user's file is
imported, so this module imports nothing heavy.

An unknown field is an error at once. A wrong value, a second decorator of the same name or a decorator on
something that is no step is noted, and told by `check` with all other mistakes.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeVar, cast

from evflow.errors import UsageError
from evflow.flow.steps import INFO, NOWHERE, UNPACKED, Where, caller

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

F = TypeVar("F", bound=Callable[..., Any])

MISPLACED: Final = "evflow_misplaced"
"""The attribute of a function that is no step and yet has decorators."""


class DecoratorInvalid(UsageError):
    """A decorator was given a field that it does not have."""

    code = "decorator-invalid"


class StepDecorator:
    """One decorator on one step.

    Attributes:
        name: What stands behind the `@`.
        defaults: Its fields and their defaults.
        where: The line that it stands on; unknown for `--with`.
        given: The fields that the user wrote.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, object]] = MappingProxyType({})
    repeatable: ClassVar[bool] = False

    def __init__(self, given: Mapping[str, object], where: Where = NOWHERE) -> None:
        """Take the user's fields.

        Raises:
            DecoratorInvalid: One of them is not a field of this decorator.
        """
        unknown = [field for field in given if field not in self.defaults and not field.startswith(UNPACKED)]
        if unknown:
            from evflow.errors import did_you_mean

            fields = ", ".join(self.defaults) or "none"
            place = f" ({where})" if where.file else ""
            raise DecoratorInvalid(
                f"@{self.name} has no field '{unknown[0]}'{place}.", f"Its fields are: {fields}.{did_you_mean(unknown[0], self.defaults)}"
            )
        self.given = dict(given)
        self.where = where

    def value(self, field: str) -> Any:
        """A field's value, given or default."""
        return self.given.get(field, self.defaults[field])

    def attributes(self) -> dict[str, Any]:
        """Its fields for whoever looks at the graph."""
        return {field: self.value(field) for field in self.defaults}

    def mistakes(self) -> Iterator[str]:
        """What is wrong with the fields' values, a sentence each."""
        return iter(())

    def policy(self) -> Mapping[str, object]:
        """The fields of `evflow.core.graph.Policy` that it sets. Called only where `mistakes` finds nothing."""
        return {}

    def spec_mistake(self) -> str | None:
        """Why it cannot be given by `--with`, whose text stands in the log; None where it can."""
        return None

    def before(self, flow: "FlowSpec") -> None:
        """Run before the step's body; the decorator closest to the `def` is the last to run."""

    def after(self, flow: "FlowSpec") -> None:
        """Run after a body that came to its end; the decorator closest to the `def` is the first to run."""

    def takes(self, flow: "FlowSpec", error: BaseException) -> bool:
        """Whether the step counts as done though its last attempt raised; asked in the order of `after`."""
        return False

    def __str__(self) -> str:
        fields = ", ".join(f"{field}={value!r}" for field, value in self.given.items())
        return f"@{self.name}({fields})" if fields else f"@{self.name}"

    def __repr__(self) -> str:
        return f"<{self} at {self.where}>"


def apply(kind: type[StepDecorator], function: Callable[..., Any] | None, given: Mapping[str, object]) -> Any:
    """Put a decorator on a step: at once (`@retry`), or when the function comes (`@retry(times=3)`)."""
    place = caller(2)
    if function is not None and (is_delayed(function) or not callable(function)):
        raise_at_import(DecoratorInvalid(f"@{kind.name} takes its fields by name ({place}).", f"Write @{kind.name}(<field>={function!r})."))
    try:
        decorator = kind(given, place)
    except DecoratorInvalid as error:
        raise_at_import(error)

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        _attach(decorator, decorated)
        return decorated

    return decorate if function is None else decorate(function)


def is_delayed(given: object) -> bool:
    """Whether it stands for a configuration's value: it can be called, and is yet a field's value, not what a decorator stands on."""
    return bool(getattr(given, "is_delayed", False))


def misplaced(function: object) -> list[StepDecorator]:
    """The decorators of something that was no step when they were applied."""
    return list(getattr(function, MISPLACED, ()))


def raise_at_import(error: UsageError) -> NoReturn:
    """Raise an error of the user's file while that file is being imported, to be shown without a traceback.

    `python flow.py` imports the file before any code of ours could catch it, so the last word is the hook for
    uncaught exceptions: it prints the error's text, which names file and line, and leaves other errors alone.
    """
    before = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, traceback: Any) -> None:
        if value is error:
            sys.stderr.write(f"Error: {error}\n")
        else:
            before(kind, value, traceback)

    sys.excepthook = show
    raise error


def _attach(decorator: StepDecorator, function: object) -> None:
    info = getattr(function, INFO, None)
    if info is not None:
        info.decorators.append(decorator)
        return
    target = cast("Any", getattr(function, "__func__", function))
    try:
        target.__dict__.setdefault(MISPLACED, []).append(decorator)
    except (AttributeError, TypeError):
        raise_at_import(
            DecoratorInvalid(
                f"@{decorator.name} stands on something that is not a step ({decorator.where}).", "Decorate methods marked with @step."
            )
        )
