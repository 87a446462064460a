"""Event-sourced runtime for machine-learning flows.

The public names are loaded at their first use, so that `import evflow` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evflow.exception import EvflowException as EvflowException, ExceptionWrapper as ExceptionWrapper
    from evflow.flow.current import current as current
    from evflow.flow.decorators.catch import catch as catch
    from evflow.flow.decorators.environment import environment as environment
    from evflow.flow.decorators.resources import resources as resources
    from evflow.flow.decorators.retry import retry as retry
    from evflow.flow.decorators.timeout import timeout as timeout
    from evflow.flow.flowspec import FlowSpec as FlowSpec
    from evflow.flow.inputs import Inputs as Inputs
    from evflow.flow.parameters import JSONType as JSONType, Parameter as Parameter
    from evflow.flow.steps import step as step

__version__ = "0.1.0"

_HOMES = {
    "EvflowException": "evflow.exception",
    "ExceptionWrapper": "evflow.exception",
    "FlowSpec": "evflow.flow.flowspec",
    "Inputs": "evflow.flow.inputs",
    "JSONType": "evflow.flow.parameters",
    "Parameter": "evflow.flow.parameters",
    "catch": "evflow.flow.decorators.catch",
    "current": "evflow.flow.current",
    "environment": "evflow.flow.decorators.environment",
    "resources": "evflow.flow.decorators.resources",
    "retry": "evflow.flow.decorators.retry",
    "step": "evflow.flow.steps",
    "timeout": "evflow.flow.decorators.timeout",
}
"""Public name to the module that defines it."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'evflow' has no attribute '{name}'")
    from evflow.imports import framework_view

    with framework_view():
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
