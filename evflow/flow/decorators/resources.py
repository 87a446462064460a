"""`@resources`: what a step needs of a machine."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, overload

from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.fields import as_number, missed_bound


class Resources(StepDecorator):
    """See `resources`."""

    name = "resources"
    defaults = MappingProxyType({"cpu": 1, "gpu": None, "disk": None, "memory": 4096, "shared_memory": None})

    def mistakes(self) -> Iterator[str]:
        """Numbers, neither negative nor endless, or strings of such."""
        for field in self.defaults:
            value = self.value(field)
            if value is not None and (bound := missed_bound(as_number(value))):
                yield f"@resources takes a number {bound} as {field}, not {value!r}."

    def policy(self) -> Mapping[str, object]:
        """What the local executor counts; the other fields are for remote ones."""
        return {
            "cpu": as_number(self.given.get("cpu")) or 0.0,
            "memory_mb": int(as_number(self.given.get("memory")) or 0),
            "gpu": int(float(self.value("gpu") or 0)),
        }


@overload
def resources(function: F, /) -> F: ...
@overload
def resources(
    *,
    cpu: float | str = 1,
    gpu: int | str | None = None,
    disk: int | str | None = None,
    memory: int | str = 4096,
    shared_memory: int | str | None = None,
) -> Callable[[F], F]: ...
def resources(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Declare what a step needs, so that no more steps run at once than fit the machine.

    Args:
        function: The step, where it is used bare.
        cpu: Cores.
        gpu: Accelerators.
        disk: Disk, in MB; for remote executors.
        memory: Memory, in MB.
        shared_memory: Size of /dev/shm, in MB; for remote executors.
    """
    return apply(Resources, function, fields)
