"""Triggers whose events, flows or parameters are functions: they are called when the flow is deployed, and give what would stand in their place.

The form is Metaflow's: a function gets the context that functions for defaults of parameters get. `run` and `check` call none of them, since
they may ask whatever they like; what they give is checked when it is there.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from evflow.errors import UsageError
from evflow.flow.parameter_values import called

if TYPE_CHECKING:
    from evflow.flow.decorators.trigger import TriggerDecorator


class TriggerInvalid(UsageError):
    """What a trigger's functions gave is none that can be listened for."""

    code = "trigger-invalid"

    def __init__(self, message: str, where: object) -> None:
        super().__init__(f"{message} ({where})", "It is what a function gave that stands there: let it return another value.")


def has_functions(decorator: "TriggerDecorator") -> bool:
    """Whether anything of it is known only when the flow is deployed."""
    return any(_is_deferred(value) for value in decorator.given.values())


def settled(cls: type, decorator: "TriggerDecorator", user: str) -> "TriggerDecorator":
    """The trigger with what its functions give.

    Args:
        cls: The flow.
        decorator: The trigger.
        user: Who deploys the flow.

    Raises:
        ParameterDefaultFailed: A function raised an exception.
    """
    given = {field: _settled(value, cls, decorator, field, user) for field, value in decorator.given.items()}
    return type(decorator)(given, decorator.where)


def _is_deferred(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_deferred, cast("Mapping[object, object]", value).values()))
    if isinstance(value, list | tuple):
        return any(map(_is_deferred, cast("list[object]", value)))
    return callable(value)


def _settled(value: Any, cls: type, decorator: "TriggerDecorator", field: str, user: str) -> Any:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value)
        return {name: _settled(one, cls, decorator, field, user) for name, one in pairs.items()}
    if isinstance(value, list | tuple):
        return [_settled(one, cls, decorator, field, user) for one in cast("list[object]", value)]
    if not callable(value):
        return value
    found = called(cls, f"A function of @{decorator.name}, {field}", field, value, decorator.where, user)
    return None if callable(found) else _settled(found, cls, decorator, field, user)
