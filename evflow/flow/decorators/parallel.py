"""`@parallel` and `@pytorch_parallel`: the nodes of a gang, which run at the same time."""

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, overload

from evflow.flow.current import current
from evflow.flow.decorators.base import F, StepDecorator, apply

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

_FIRST_PORT: Final = 20_000
_PORTS: Final = 10_000
"""All below the ports that Linux gives to outgoing connections, one of which may be in use, or connect to itself."""
_MOST_PORT: Final = 65_535


class Parallel(StepDecorator):
    """See `parallel`."""

    name = "parallel"

    def policy(self) -> Mapping[str, object]:
        """The scheduler starts all tasks of the step together."""
        return {"parallel": True}

    def before(self, flow: "FlowSpec") -> None:
        """Tell the node's place to libraries that look for it in the environment, by Metaflow's names."""
        if not current.is_parallel:
            return
        place = current.parallel
        os.environ.update(
            MF_PARALLEL_MAIN_IP=place.main_ip,
            MF_PARALLEL_NUM_NODES=str(place.num_nodes),
            MF_PARALLEL_NODE_INDEX=str(place.node_index),
            MF_PARALLEL_CONTROL_TASK_ID=str(place.control_task_id),
        )


class PytorchParallel(Parallel):
    """See `pytorch_parallel`."""

    name = "pytorch_parallel"
    defaults = MappingProxyType({"master_port": None})

    def mistakes(self) -> Iterator[str]:
        """A port."""
        port = self.value("master_port")
        if port is not None and not (isinstance(port, int) and not isinstance(port, bool) and 0 < port <= _MOST_PORT):
            yield f"@pytorch_parallel takes a port from 1 to {_MOST_PORT} as master_port, not {port!r}."

    def before(self, flow: "FlowSpec") -> None:
        """Set what `torch.distributed.init_process_group` reads by default."""
        super().before(flow)
        if not current.is_parallel:
            return
        place = current.parallel
        port = self.value("master_port") or _port(f"{current.flow_name}/{current.run_id}/{place.control_task_id}.{current.retry_count}")
        os.environ.update(
            MASTER_ADDR=place.main_ip,
            MASTER_PORT=str(port),
            RANK=str(place.node_index),
            NODE_RANK=str(place.node_index),
            WORLD_SIZE=str(place.num_nodes),
            NUM_NODES=str(place.num_nodes),
        )


def _port(gang: str) -> int:
    """A port that follows from the gang's name, so that all of its nodes know it, and others beside it hardly ever have it."""
    from zlib import crc32

    return _FIRST_PORT + crc32(gang.encode()) % _PORTS


@overload
def parallel(function: F, /) -> F: ...
@overload
def parallel() -> Callable[[F], F]: ...
def parallel(function: Any = None, /, **fields: Any) -> Any:
    """Run the tasks of a step, which `self.next(self.<step>, num_parallel=N)` leads to, all at the same time, as one gang.

    `current.parallel` tells each node its place. The step behind it is a join, which gets the nodes in their order.
    """
    return apply(Parallel, function, fields)


@overload
def pytorch_parallel(function: F, /) -> F: ...
@overload
def pytorch_parallel(*, master_port: int | None = None) -> Callable[[F], F]: ...
def pytorch_parallel(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """`@parallel`, and the environment variables by which `torch.distributed` finds the other nodes.

    These are MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, NODE_RANK and NUM_NODES; nothing of torch is imported.

    Args:
        function: The step, where it is used bare.
        master_port: The port of node 0; by default one that follows from the gang's name.
    """
    return apply(PytorchParallel, function, fields)
