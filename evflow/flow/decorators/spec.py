"""Decorators from the command line: `--with retry:times=4,minutes_between_retries=0`.

The first `:` ends the name; fields are separated by commas that a `<name>=` follows, so that a value may hold
both (`image=registry:5000/a,b` is one value). A value is JSON where it reads as JSON, else the text itself.
"""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from evflow.errors import did_you_mean
from evflow.flow.decorators import REGISTRY, decorator_class
from evflow.flow.decorators.base import DecoratorInvalid, StepDecorator
from evflow.flow.steps import INFO, facts, is_mutated

_PYTHON_WORDS = {"True": True, "False": False, "None": None}
_BETWEEN_FIELDS = re.compile(r",(?=\s*\w+\s*=)")


class SpecInvalid(DecoratorInvalid):
    """`--with` names no decorator, or not with such fields or values."""

    exit_code = 2


def from_spec(text: str) -> Any:
    """The decorator that a text of `--with` names.

    Raises:
        DecoratorInvalid: There is none of this name, or not of these fields or values.
    """
    name = text.partition(":")[0]
    kind = decorator_class(name.strip())
    if kind is None and (written := _written(text, name.strip())) is not None:
        return written(**fields_of(text))
    if kind is None:
        raise DecoratorInvalid(
            f"--with {text}: there is no decorator '{name}'.",
            f"There are: {', '.join(sorted(REGISTRY))}.{did_you_mean(name, REGISTRY)} One of your own is MODULE.NAME.",
        )
    given = fields_of(text, f"Fields of {name} are: {', '.join(kind.defaults)}.")
    decorator = kind(given)
    for mistake in decorator.mistakes():
        raise DecoratorInvalid(f"--with {text}: {mistake}")
    if (unfit := decorator.spec_mistake()) is not None:
        raise DecoratorInvalid(f"--with {kind.name}: {unfit}", "Put the decorator on the step.")
    return decorator


def _written(text: str, name: str) -> Any:
    """The class of a decorator or step mutator that a user wrote: one that is loaded, else by its module; None where there is no module."""
    from evflow.flow.user_decorators import UserDecorator, named
    from evflow.imports import user_view

    if (loaded := named(name, of_class=False)) is not None or "." not in name:
        return loaded
    module, _, attribute = name.rpartition(".")
    try:
        with user_view():
            found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise DecoratorInvalid(
            f"--with {text}: there is no decorator '{name}': {error}.", "Write MODULE.NAME, as the flow's file would import it."
        ) from None
    if not (isinstance(found, type) and issubclass(found, UserDecorator) and not found.of_class):
        raise DecoratorInvalid(
            f"--with {text}: '{name}' is no decorator of steps.", "It is made by @user_step_decorator, or a StepMutator."
        )
    return found


def fields_of(text: str, hint: str = "Fields are written NAME=VALUE.") -> dict[str, Any]:
    """The fields behind the name in a text of `--with`.

    Args:
        text: The whole text.
        hint: What to do where it is none.

    Raises:
        DecoratorInvalid: One of them has no value.
    """
    rest = text.partition(":")[2]
    given: dict[str, Any] = {}
    for field in _BETWEEN_FIELDS.split(rest) if rest.strip() else ():
        key, equals, value = field.partition("=")
        if not equals:
            raise DecoratorInvalid(f"--with {text}: '{field}' is not of the form <field>=<value>.", hint)
        given[key.strip()] = _value(value.strip())
    return given


def apply_with(cls: type, specs: Iterable[str]) -> None:
    """Add decorators to every step that lacks them; a later spec of a name takes the place of an earlier one.

    The class itself is changed in what `facts` says of it, never its functions, which other flows may share.

    Raises:
        SpecInvalid: As for `from_spec`.
    """
    found = facts(cls)
    try:
        made: list[Any] = list(map(from_spec, specs))
    except DecoratorInvalid as error:
        raise SpecInvalid(error.message, error.hint) from None
    users: dict[Any, Any] = {type(decorator): decorator for decorator in made if not isinstance(decorator, StepDecorator)}
    wanted = {decorator.name: decorator for decorator in made if isinstance(decorator, StepDecorator)}
    for step, function in found.steps.items():
        own = set[str]() if found.bare else {decorator.name for decorator in function.decorators}
        kept = [decorator for decorator in found.extra.get(step, ()) if decorator.name not in wanted]
        found.extra[step] = [*kept, *(decorator for decorator in wanted.values() if decorator.name not in own)]
        info = getattr(function, INFO)
        there: set[Any] = {type(decorator) for decorator in (*info.wrappers, *info.mutators)}
        others = [decorator for decorator in found.extra_users.get(step, ()) if type(decorator) not in users]
        found.extra_users[step] = [*others, *(decorator for kind, decorator in users.items() if kind not in there)]
    if is_mutated(cls, found):
        from evflow.flow.config_values import mutate_again

        mutate_again(cls)


def _value(text: str) -> object:
    if text in _PYTHON_WORDS:
        return _PYTHON_WORDS[text]
    import json  # of flows without such a spec nobody needs it

    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
