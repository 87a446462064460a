"""Where a log is that was moved from the server to the store, and what that asks of a log.

A sealed run's log is archived, and so is the old part of a flow's log, in segments of `SEGMENT_EVENTS`. A note of each stands beside
the flow's log (`{evflow:flow:<Flow>}:archives`): whoever finds nothing where events were looks there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from evflow.core.codec import pack_value, unpack_value
from evflow.core.flow_events import RunArchived
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.core.values import field, value
from evflow.log.protocol import Head, Inbound, LogClient, RunEntry, StoredEvent

SEGMENT_EVENTS: Final = 1_000
"""Segment n of a flow's log holds the events behind position n times this."""
LINGER_S: Final = 600.0
"""For so long the server knows where a run ended whose log it gave away: what comes late is refused, and the run cannot begin again."""


@value
class Archived:
    """A note of an archive; the attributes as for `evflow.core.flow_events.RunArchived`."""

    store: str
    name: str
    digest: bytes
    size_bytes: int
    events: int
    chain: bytes
    sealed_us: int = 0

    @property
    def head(self) -> Head:
        """Where the archived log ends."""
        return Head(self.events, self.chain, "sealed")

    def of_run(self, number: int) -> RunArchived:
        """The event that says it."""
        return RunArchived(number, self.store, self.name, self.digest, self.size_bytes, self.events, self.chain, self.sealed_us)


def pack(archived: Archived) -> bytes:
    """The note as it stands beside a flow's log: an array, fields by position, new ones at the end with a default."""
    return pack_value(archived)


def unpacked(payload: bytes) -> Archived:
    """The note that `pack` wrote; surplus fields, of a later version, are dropped.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    return unpack_value(Archived, payload, "an archive")


class Archives(Protocol):
    """Reads archives."""

    def read(self, what: str, archived: Archived, after: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` events behind a position.

        Raises:
            ArchiveMissing, ArchiveDamaged: It is not there, or not what was written.
        """
        ...

    def about(self, what: str, archived: Archived) -> Mapping[str, Any]:
        """What stands in it beside the events; errors as for `read`."""
        ...


class LogKeeper(LogClient, Protocol):
    """The log as those use it who look after its life: archiving, rebuilding the index, collecting garbage. Blocking.

    Attributes:
        archives: Reads what is not at the server any more.
    """

    archives: Archives

    def archived(self, run: RunId) -> Archived | None:
        """Where a run's archive is, or None."""
        ...

    def all_archived(self, flow: FlowName) -> dict[RunNumber, Archived]:
        """As `archived`, of all runs of a flow."""
        ...

    def segments(self, flow: FlowName) -> dict[int, Archived]:
        """The archived segments of a flow's own log, by number."""
        ...

    def hot(self, flows: Sequence[FlowName], until_us: int | None, limit: int) -> list[list[RunNumber]]:
        """For each flow the runs with a log at the server that somebody should look at, those that wait longest first.

        Args:
            flows: The flows; one request asks for all.
            until_us: Only those that are due by then; None: all.
            limit: How many of a flow at most.
        """
        ...

    def look_again(self, run: RunId, at_us: int | None) -> None:
        """Have a run with a log at the server looked at from then on; None: it has none any more."""
        ...

    def hot_head(self, shard: str, run: RunId) -> Head:
        """The end of a run's log at the server, wherever else the run is."""
        ...

    def hot_read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """As `read`, at the server alone."""
        ...

    def drop_run(self, shard: str, run: RunId, head: Head, linger_s: float = LINGER_S) -> bool:
        """Remove a sealed run's log from the server, if it still ends there; for `linger_s` the end is remembered.

        Returns:
            Whether nothing of it is there any more; False where it ends elsewhere.
        """
        ...

    def trim_flow(self, flow: FlowName, segment: int, archived: Archived) -> None:
        """Note where a segment of a flow's log is, and remove it from the server with everything before it."""
        ...

    def inbox(self, shard: str, after: bytes = b"0") -> list[Inbound]:
        """Reports of a shard that nobody took yet, behind an entry; at most as many as one request gives."""
        ...

    def list_run(self, entry: RunEntry, *, only_missing: bool) -> bool:
        """Write a run's line in the index; answers whether it was missing. With `only_missing` one that is there stays."""
        ...

    def heat(self, entry: RunEntry) -> None:
        """Have a run with a log at the server looked at as `index_run` does, if that is not noted already."""
        ...

    def unlist(self, run: RunId) -> None:
        """Remove a run's line, its tags and the note that its log is to be looked at."""
        ...

    def note(self, flow: FlowName, found: Mapping[RunNumber, Archived]) -> None:
        """Note archives that were found, where none is noted for the run; the flow is known then."""
        ...

    def project(self, flow: FlowName, expected: Seq, projection: "Projection") -> None:
        """Write what is kept beside a flow's log, for a log that ends at `expected`.

        Raises:
            Conflict: The log has moved on: fold it again.
        """
        ...


@value
class Projection:
    """What is to be written beside a flow's log.

    Attributes:
        counter: The run counter is at least this.
        tags: The user tags of runs, by number.
        deployments: Packed deployments by name; no bytes remove one.
        backfills: Packed backfills by number.
    """

    counter: int = 0
    tags: Mapping[RunNumber, tuple[str, ...]] = field(default_factory=dict[RunNumber, tuple[str, ...]])
    deployments: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    backfills: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
