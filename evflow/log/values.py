"""The values that pass between an event log and those who use it (see `evflow.log.protocol`)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from evflow.core.ids import Micros, RunId
from evflow.core.values import field, value

Durability = Literal["everysec", "fsync", "replicated"]
"""`everysec`: the server has it. `fsync`: it is on disk. `replicated`: a replica has it."""
MAX_APPEND_EVENTS = 1_000
MAX_APPEND_BYTES = 1_000_000
MAX_APPEND_CONSUMED = 1_000
"""Limits of one append call (Lua's `unpack` fails past about 8,000 and leaves half of it written)."""
PAGE_EVENTS = 2_000
"""Read at once of a long log: some milliseconds of work, for the server as for whoever folds them."""


class StoredEvent(NamedTuple):
    """An event as a log holds it: `link` is the first 16 bytes of the chain's digest up to it."""

    seq: int
    payload: bytes
    link: bytes


@value
class Head:
    """Where a run's log ends: the last position, the chain's digest (32 bytes), the status.

    An empty log has seq 0 and the chain's start, 32 zero bytes. Status is `active` or `sealed`.
    """

    seq: int = 0
    digest: bytes = bytes(32)
    status: str = "active"


@value
class Lease:
    """The right to write a shard until it expires or is taken."""

    shard: str
    owner: str
    epoch: int
    ttl_s: float


class Inbound(NamedTuple):
    """A report that waits in a shard's inbox.

    Attributes:
        id: Its stream id, which consuming names.
        run: `Flow/3`.
        payload: A report as `evflow.core.codec.encode_report` writes it.
    """

    id: bytes
    run: str
    payload: bytes


@value
class AppendCall:
    """Whole turns of one run, appended in one atomic act.

    Attributes:
        run: The run.
        expected: The head that the writer built on.
        events: The encoded events, in order.
        links: For each event the 32-byte digest of the chain up to it (16 are stored beside it).
        consumed: Ids of the inbox entries that became events in these turns, or were dropped.
        status: `active`, or `sealed` with the seal.
        wake_at_us: The run's next timer, or None; a hint, the truth is in the log.
        dropped: Reason to number of consumed entries that did not become events.
    """

    run: RunId
    expected: Head
    events: Sequence[bytes]
    links: Sequence[bytes]
    consumed: Sequence[bytes] = ()
    status: str = "active"
    wake_at_us: int | None = None
    dropped: dict[str, int] = field(default_factory=dict[str, int])


REQUESTED = "requested"
"""The status, in the index, of a run that was asked of schedulers and that none has taken yet."""


@value
class RunEntry:
    """A line of the index of runs: a projection, disposable, for lists.

    `summary` is what the owner last wrote: status, started_us, finished_us, user, tags, host, namespace, tasks,
    ... as plain values.
    """

    run: RunId
    shard: str
    summary: dict[str, Any]

    @property
    def is_requested(self) -> bool:
        """Whether it waits for a scheduler, as far as this line says; a run whose log has an event has begun, whatever it says."""
        return self.summary.get("status") == REQUESTED


class Grants(NamedTuple):
    """What came of asking for a limited name.

    Attributes:
        held: How many hold it now.
        slots: Those of the askers that do, and the number of the slot that each has.
        kept_us: Where one is refused and places are free: for how many microseconds the next of them is kept for a shard that comes first.
    """

    held: int
    slots: dict[str, int]
    kept_us: int = 0


class Holder(NamedTuple):
    """Who holds a limited name: an attempt (`Flow/3/17.0`) or a run (`Flow/3`), since when, and in which shard its run is."""

    name: str
    slot: int
    since_us: Micros
    shard: str


class PublishedEvent(NamedTuple):
    """An event as the log of published events holds it.

    Attributes:
        at_us: When it was published, by the server's clock; no two have the same, so it also is its place.
        id: Its id: one of them is published once.
        body: As `evflow.core.published.encode` writes it.
    """

    at_us: int
    id: str
    body: bytes


class Placed(NamedTuple):
    """Where an event stands that was published.

    Attributes:
        at_us: Its place, or that of the one before it with the same id.
        is_new: It was published now.
    """

    at_us: int
    is_new: bool


@value
class Keep:
    """How much of what is published is kept: what is older or more goes, the oldest first.

    Attributes:
        time_us: For how long events and their ids are kept.
        most: How many events.
    """

    time_us: int = 7 * 86_400_000_000
    most: int = 100_000


KEEP = Keep()


class EventBounds(NamedTuple):
    """Where the log of published events begins and ends: the last event that is not kept any more, and the last one; 0 for none."""

    trimmed_us: int
    last_us: int


class FlowEvent(NamedTuple):
    """An event of a flow's log: what happens outside its runs."""

    seq: int
    payload: bytes


@value
class TagChange:
    """A run's user tags after a change: kept beside the flow's log so that nobody folds it from 1."""

    run: RunId
    tags: tuple[str, ...]


@value
class DeploymentChange:
    """A flow's deployment after a change: kept beside the flow's log, as tags are.

    Attributes:
        name: The deployment's name.
        packed: What is deployed under it (`evflow.core.deployments.pack`), or no bytes where nothing is any more.
        marks: For an event about a deployment the positions of all such events, its own the last; none for a tick's or an event's decision.
        before: What was deployed when that was decided, as the log has it (no bytes: nothing); None: it is what it is.
    """

    name: str
    packed: bytes
    marks: tuple[int, ...] = ()
    before: bytes | None = None


class Deployed(NamedTuple):
    """What is deployed under a name, for a request that was made of it.

    Attributes:
        name: The deployment's name.
        packed: What is deployed, as the log has it.
    """

    name: str
    packed: bytes


@value
class ArchiveChange:
    """A note of where a run's archive is (`evflow.log.archived.pack`), or no bytes where there is none any more; kept as tags are."""

    run: RunId
    packed: bytes


@value
class BackfillChange:
    """A flow's backfill after a change: kept beside the flow's log, as deployments are.

    Attributes:
        number: The backfill's number.
        packed: What it is (`evflow.core.backfill.pack`).
        before: What it was when that was decided, as for `DeploymentChange`.
    """

    number: int
    packed: bytes
    before: bytes | None = None


FlowChange = TagChange | DeploymentChange | ArchiveChange | BackfillChange
"""What an event of a flow's log changes beside it."""
