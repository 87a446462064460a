"""Decorators from the command line: `--with retry:times=4,minutes_between_retries=0`.

The first `:` ends the name; fields are separated by commas that a `<name>=` follows, so that a value may hold
both (`image=registry:5000/a,b` is one value). A value is JSON where it reads as JSON, else the text itself.
"""

import re
from collections.abc import Iterable

from evflow.errors import did_you_mean
from evflow.flow.decorators import REGISTRY, decorator_class
from evflow.flow.decorators.base import DecoratorInvalid, StepDecorator
from evflow.flow.steps import facts

_PYTHON_WORDS = {"True": True, "False": False, "None": None}
_BETWEEN_FIELDS = re.compile(r",(?=\s*\w+\s*=)")


def from_spec(text: str) -> StepDecorator:
    """The decorator that a text of `--with` names.

    Raises:
        DecoratorInvalid: There is none of this name, or not of these fields or values.
    """
    name, _, rest = text.partition(":")
    kind = decorator_class(name.strip())
    if kind is None:
        raise DecoratorInvalid(
            f"--with {text}: there is no decorator '{name}'.", f"There are: {', '.join(sorted(REGISTRY))}.{did_you_mean(name, REGISTRY)}"
        )
    given: dict[str, object] = {}
    for field in _BETWEEN_FIELDS.split(rest) if rest.strip() else ():
        key, equals, value = field.partition("=")
        if not equals:
            raise DecoratorInvalid(
                f"--with {text}: '{field}' is not of the form <field>=<value>.", f"Fields of {name} are: {', '.join(kind.defaults)}."
            )
        given[key.strip()] = _value(value.strip())
    decorator = kind(given)
    for mistake in decorator.mistakes():
        raise DecoratorInvalid(f"--with {text}: {mistake}")
    if (unfit := decorator.spec_mistake()) is not None:
        raise DecoratorInvalid(f"--with {kind.name}: {unfit}", "Put the decorator on the step.")
    return decorator


def apply_with(cls: type, specs: Iterable[str]) -> None:
    """Add decorators to every step that lacks them; a later spec of a name takes the place of an earlier one.

    The class itself is changed in what `facts` says of it, never its functions, which other flows may share.

    Raises:
        DecoratorInvalid: As for `from_spec`.
    """
    found = facts(cls)
    wanted = {decorator.name: decorator for decorator in map(from_spec, specs)}
    for step, function in found.steps.items():
        own = set[str]() if found.bare else {decorator.name for decorator in function.decorators}
        kept = [decorator for decorator in found.extra.get(step, ()) if decorator.name not in wanted]
        found.extra[step] = [*kept, *(decorator for decorator in wanted.values() if decorator.name not in own)]


def _value(text: str) -> object:
    if text in _PYTHON_WORDS:
        return _PYTHON_WORDS[text]
    import json  # of flows without such a spec nobody needs it

    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
