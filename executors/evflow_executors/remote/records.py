"""What the executor of a platform keeps of attempts and gangs, and what it needs of its owner."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import anyio

from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.store import StoreUnusable
from evflow.worker.spec import AttemptOrder
from evflow_executors.remote.platform import Job, JobSeen


class Dispatch(Protocol):
    """What the executor needs of its owner; see `owner.OwnerDispatch`."""

    @property
    def epoch(self) -> int:
        """The epoch of the owner of now."""
        ...

    def log_of(self, attempt: AttemptId) -> str:
        """The identity of the log, for names."""
        ...

    def store_of(self, attempt: AttemptId) -> str:
        """The URL of the store of the attempt's run."""
        ...

    async def jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, "Job | EvflowError"]:
        """What is to be submitted, by name; the error where there cannot be such a job."""
        ...

    async def gang(self, name: str, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> "Job | EvflowError":
        """A gang as it is to be submitted under its name, its nodes by index; the error where there cannot be such jobs."""
        ...

    async def forget_gang(self, control: AttemptId) -> None:
        """Remove what the nodes of a gang told each other; its node 0 is named."""
        ...

    async def is_owner(self) -> bool:
        """Whether the shard is still this process's."""
        ...

    async def keep(self, waiting: Mapping[AttemptId, frozenset[bytes]]) -> bool:
        """Have objects count as written now that containers of these attempts will read, by their digests, and the archive of this evflow.

        Returns:
            False where a store did not answer.
        """
        ...

    async def carry(self, attempt: AttemptId, *, unless: str, tell: Callable[[str], None]) -> None:
        """Bring what the container left in the store into the inbox, but for an exit with this reason; nothing where it reports to the log.

        A store that is away is waited for, of which `tell` hears.
        """
        ...

    def is_ours(self, seen: JobSeen) -> bool:
        """Whether a job is of this owner's shard."""
        ...

    def asked_by(self, attempts: Sequence[AttemptId]) -> Sequence[Mapping[str, Any]]:
        """What the steps of these attempts' runs ask of the platform."""
        ...


class Out:
    """An attempt that was launched or adopted, and has not been observed to end."""

    __slots__ = (
        "asked",
        "attempt",
        "cancelled",
        "carrying",
        "ending",
        "gang",
        "insisted",
        "name",
        "order",
        "reads",
        "started",
        "stored_by_s",
        "submitted",
        "tail",
        "terminating",
        "told",
    )

    def __init__(self, name: str, attempt: AttemptId, order: AttemptOrder | None, gang: "Gang | None") -> None:
        self.name = name
        self.attempt = attempt
        self.order = order
        self.gang = gang
        self.asked = asyncio.Event() if gang is not None else None  # the run asked for the end of this node
        self.reads = frozenset[bytes]()  # see `platform.JobSeen`
        self.stored_by_s: float | None = None  # how long the store may be away that its order goes to, by the loop's clock
        self.submitted = order is None
        self.started = False
        self.ending = False
        self.insisted = False
        self.carrying: anyio.CancelScope | None = None  # while, and after, its report is fetched
        self.terminating: asyncio.Task[None] | None = None
        self.cancelled: float | None = None
        self.tail: asyncio.Task[None] | None = None
        self.told = ""


class Gang:
    """A gang some of whose nodes are out; `left` are those that have not ended, `telling` is held by the one whose end is told."""

    __slots__ = ("control", "left", "name", "nodes", "telling")

    def __init__(self, name: str, control: AttemptId, nodes: Sequence[str]) -> None:
        self.name = name
        self.control = control
        self.nodes = tuple(nodes)
        self.left: set[str] = set()
        self.telling = asyncio.Lock()


def is_away(made: object) -> TypeGuard[StoreUnusable]:
    """Whether what should have been made was not because its store is away, or busy."""
    return isinstance(made, StoreUnusable) and made.is_transient
