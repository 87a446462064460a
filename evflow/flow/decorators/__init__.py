"""The decorators of steps.

A new one is a module with a class below `StepDecorator`, the typed function that users write, and a line in
`REGISTRY` (docs/decisions/0034-a-decorator-is-one-small-class.md). Modules are imported at first use.
"""

from importlib import import_module

from evflow.flow.decorators.base import StepDecorator

REGISTRY: dict[str, tuple[str, str]] = {
    "batch": ("evflow.flow.decorators.remote", "Batch"),
    "cached": ("evflow.flow.decorators.cached", "Cached"),
    "card": ("evflow.flow.decorators.card", "Card"),
    "catch": ("evflow.flow.decorators.catch", "Catch"),
    "conda": ("evflow.flow.decorators.packages", "Conda"),
    "environment": ("evflow.flow.decorators.environment", "Environment"),
    "kubernetes": ("evflow.flow.decorators.remote", "Kubernetes"),
    "limit": ("evflow.flow.decorators.limit", "Limit"),
    "parallel": ("evflow.flow.decorators.parallel", "Parallel"),
    "pool": ("evflow.flow.decorators.pool", "Pool"),
    "pytorch_parallel": ("evflow.flow.decorators.parallel", "PytorchParallel"),
    "pypi": ("evflow.flow.decorators.packages", "Pypi"),
    "resources": ("evflow.flow.decorators.resources", "Resources"),
    "retry": ("evflow.flow.decorators.retry", "Retry"),
    "secrets": ("evflow.flow.decorators.secrets", "Secrets"),
    "timeout": ("evflow.flow.decorators.timeout", "Timeout"),
}
"""A decorator's name, and the module and name of its class."""


def decorator_class(name: str) -> type[StepDecorator] | None:
    """The class of a decorator, or None where there is none of this name."""
    place = REGISTRY.get(name)
    if place is None:
        return None
    found: type[StepDecorator] = getattr(import_module(place[0]), place[1])
    return found
