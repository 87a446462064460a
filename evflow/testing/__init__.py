"""Tools for testing flows, and code that runs on evflow.

`run_flow` and `run_step` run a flow in a unit test. Beside them: virtual time, simulated logs and executors, fault injection.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evflow.testing.flows import (
        FlowFailed as FlowFailed,
        FlowResult as FlowResult,
        StepResult as StepResult,
        run_flow as run_flow,
        run_step as run_step,
    )

__all__ = ["FlowFailed", "FlowResult", "StepResult", "run_flow", "run_step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evflow.testing' has no attribute '{name}'")
    from evflow.imports import framework_view

    with framework_view():  # a module of the test's folder may have a name that one of ours has
        from evflow.testing import flows
    return getattr(flows, name)
