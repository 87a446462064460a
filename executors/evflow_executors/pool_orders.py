"""What a pool's queue carries: one attempt, and all that a worker on another machine needs to run it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from evflow.core.events import AttemptFailed
from evflow.core.ids import AttemptId, RunId
from evflow.core.values import value
from evflow.errors import EnvironmentProblem, EvflowError, InternalError
from evflow.store import open_store
from evflow.store.logs import make_folder
from evflow.store.packages import unpacked
from evflow.worker.run_folder import RunFolder
from evflow.worker.spec import AttemptOrder, RunContext

_TEXT_CHARS = 2_000


class NoPackage(EnvironmentProblem):
    """A run whose attempts are to run elsewhere has no code package."""

    code = "no-package"

    def __init__(self, run: str) -> None:
        super().__init__(f"'{run}' has no code package: a worker of a pool has no other way to its code.", "Run the flow from a file.")


class OrderUnreadable(InternalError):
    """What stands in a pool's queue is no order.

    Attributes:
        shard: Whom to tell of the attempt, or None where not even that can be read, or it names no attempt.
    """

    code = "order-unreadable"

    def __init__(self, attempt: str, why: str, shard: str | None = None) -> None:
        self.shard = shard
        super().__init__(f"The order of '{attempt}' in the pool's queue cannot be read: {why}.")


@value
class PoolOrder:
    """An attempt to be run by whoever claims it.

    Attributes:
        context: What the run's attempts share, as the owner knows it; its places are those of the owner's machine.
        order: The attempt.
        live: Whoever owns the run wants to see what it prints.
    """

    context: RunContext
    order: AttemptOrder
    live: bool = False

    @property
    def run(self) -> str:
        """The run's name."""
        return f"{self.context.flow}/{self.context.run}"

    @staticmethod
    def pack(context: bytes, order: AttemptOrder, *, live: bool) -> bytes:
        """As bytes; all orders of a run share the bytes of its context."""
        packed: bytes = msgpack.packb((context, order.pack(), live))
        return packed

    @staticmethod
    def pack_gang(context: bytes, orders: Sequence[AttemptOrder], *, live: bool) -> bytes:
        """The orders of a gang's nodes, by index, as bytes."""
        packed: bytes = msgpack.packb((context, [order.pack() for order in orders], live))
        return packed

    @classmethod
    def unpack(cls, attempt: str, data: bytes, index: int | None = None) -> "PoolOrder":
        """The inverse of `pack`; fields of later versions are dropped.

        Args:
            attempt: The attempt's name; of a node of a gang that of node 0.
            data: The order; with an index that of a gang.
            index: Which node of a gang's it is, or None.

        Raises:
            OrderUnreadable: The bytes are something else, or another attempt's.
        """
        shard: str | None = None
        try:
            values: list[Any] = msgpack.unpackb(data)
            AttemptId.parse(attempt)
            shard = _shard_in(values[0])
            order = values[1] if index is None else values[1][index]
            found = cls(RunContext.unpack(values[0]), AttemptOrder.unpack(order), bool(values[2]))
            if attempt != f"{found.run}/{found.order.task - (index or 0)}.{found.order.attempt}":
                raise OrderUnreadable(attempt, "it is another attempt's", shard)
        except (ValueError, TypeError, LookupError, msgpack.UnpackException, EvflowError) as error:
            if isinstance(error, OrderUnreadable):
                raise
            raise OrderUnreadable(attempt, f"{type(error).__name__}: {str(error).rstrip('.')}", shard) from error
        return found


def _shard_in(context: bytes) -> str:
    """The shard that a context names, which this version may not be able to read as a whole."""
    values: list[Any] = msgpack.unpackb(context, strict_map_key=False, unicode_errors="surrogateescape")
    shard = values[RunContext.__match_args__.index("shard")]
    if not isinstance(shard, str):
        raise TypeError("no shard is named")
    return shard


def settle(context: RunContext, home: Path, log_url: str) -> RunContext:
    """A run's context for the attempts of this machine: its code is unpacked and its folders are made. Blocking.

    Args:
        context: As the owner knows it.
        home: EVFLOW_HOME of this machine.
        log_url: The log, as it is reached from here.

    Raises:
        NoPackage: It has no code package.
        EvflowError: The store, or the package in it, cannot be used from here.
    """
    run = RunId.parse(f"{context.flow}/{context.run}")
    if context.package is None:
        raise NoPackage(str(run))
    folder = RunFolder.of(home, run)
    folder.make()
    code = unpacked(open_store(context.store_url), context.package, home / "cache")
    return replace(
        context,
        flow_file=str(code / os.path.basename(context.flow_file)),  # noqa: PTH119 - a name from another machine
        log_url=log_url,
        lock_file=str(folder.locks),
        log_folder=make_folder(context.store_url, run),
    )


def unsettled(attempt: AttemptId, error: Exception, host: str) -> AttemptFailed:
    """An attempt that could not begin because its run's code or places could not be had on a worker's machine."""
    name = error.code if isinstance(error, EvflowError) else type(error).__name__
    text = f"{error.message} {error.hint}".strip() if isinstance(error, EvflowError) else str(error)
    return AttemptFailed(attempt.task, attempt.attempt, "load", name, f"On {host}: {text}"[:_TEXT_CHARS])
