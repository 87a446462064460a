"""Read what runs left behind, or are doing now: `Flow`, `Run`, `Step`, `Task`, `DataArtifact` and the root, `Evflow`.

A run is read by folding its log: one request, however many tasks it has, and only what is new after that. So an
object is never a snapshot: what can still change is asked for again. Artifacts are loaded when their value is.

Everything is loaded at its first use, in the framework's view of imports: a flow may import this package beside its own
`msgpack.py`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evflow.client.artifact import DataArtifact as DataArtifact
    from evflow.client.connection import disconnect as disconnect
    from evflow.client.errors import (
        EvflowInvalidPathspec as EvflowInvalidPathspec,
        EvflowNamespaceMismatch as EvflowNamespaceMismatch,
        EvflowNotFound as EvflowNotFound,
        EvflowTaggingError as EvflowTaggingError,
    )
    from evflow.client.flow import Flow as Flow
    from evflow.client.namespaces import (
        default_namespace as default_namespace,
        get_namespace as get_namespace,
        namespace as namespace,
    )
    from evflow.client.root import Evflow as Evflow
    from evflow.client.run import Run as Run
    from evflow.client.spins import inspect_spin as inspect_spin
    from evflow.client.step import Step as Step
    from evflow.client.task import Task as Task

_HOMES = {
    "DataArtifact": "evflow.client.artifact",
    "Evflow": "evflow.client.root",
    "EvflowInvalidPathspec": "evflow.client.errors",
    "EvflowNamespaceMismatch": "evflow.client.errors",
    "EvflowNotFound": "evflow.client.errors",
    "EvflowTaggingError": "evflow.client.errors",
    "Flow": "evflow.client.flow",
    "Run": "evflow.client.run",
    "Step": "evflow.client.step",
    "Task": "evflow.client.task",
    "default_namespace": "evflow.client.namespaces",
    "disconnect": "evflow.client.connection",
    "get_namespace": "evflow.client.namespaces",
    "inspect_spin": "evflow.client.spins",
    "namespace": "evflow.client.namespaces",
}
"""Public name to the module that defines it."""


def __getattr__(name: str) -> Any:
    from evflow.imports import public

    return public(globals(), _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
