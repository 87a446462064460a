"""What the rest of evflow asks of an event log; the values that pass are in `evflow.log.values`, and have their names here, too.

Two protocols, because two kinds of callers exist. The **owner** of a shard (the scheduler, in an event
loop) leases, appends, receives and waits: `EventLog`. **Everybody else** (workers, the client, the command
line) reads, reports and asks, in a process that should not have to import an event loop: `LogClient`.

Implementations: `RedisEventLog` and `RedisLogClient` in this package, the simulated log in
`evflow.testing`. One contract suite runs over all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from evflow.core.explain_said import Said
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.line import NO_RANK, Rank, Waiter
from evflow.errors import Conflict
from evflow.log.errors import LogUnavailable as LogUnavailable
from evflow.log.keys import shown_shard
from evflow.log.values import (
    KEEP as KEEP,
    MAX_APPEND_BYTES as MAX_APPEND_BYTES,
    MAX_APPEND_CONSUMED as MAX_APPEND_CONSUMED,
    MAX_APPEND_EVENTS as MAX_APPEND_EVENTS,
    PAGE_EVENTS as PAGE_EVENTS,
    REQUESTED as REQUESTED,
    AppendCall as AppendCall,
    ArchiveChange as ArchiveChange,
    BackfillChange as BackfillChange,
    Deployed as Deployed,
    DeploymentChange as DeploymentChange,
    Durability as Durability,
    EventBounds as EventBounds,
    FlowChange as FlowChange,
    FlowEvent as FlowEvent,
    Grants as Grants,
    Head as Head,
    Holder as Holder,
    Inbound as Inbound,
    Keep as Keep,
    Lease as Lease,
    Placed as Placed,
    PublishedEvent as PublishedEvent,
    RunEntry as RunEntry,
    StoredEvent as StoredEvent,
    TagChange as TagChange,
)


def shown_owner(owner: str) -> str:
    """An owner for people: `process 812 on laptop`, where its name says so."""
    parts = owner.split(":")
    return f"process {parts[1]} on {parts[0]}" if len(parts) > 1 and parts[1].isdecimal() else owner


def _host_of(owner: str) -> str:
    host, separator, _ = owner.partition(":")
    return host if separator else ""


class LeaseHeld(Conflict):
    """Somebody else owns the shard, and lives."""

    code = "lease-held"

    def __init__(self, shard: str, owner: str, expires_in_s: float, epoch: int = 0) -> None:
        run = shown_shard(shard)
        host = _host_of(owner)
        hint = f"It goes on by itself. `evflow cancel {run.strip(chr(39))}` ends it." if run.startswith("'") else ""
        if host:
            hint += f" If {host} is another machine and has died, try again when the lease has run out."
        super().__init__(f"{run} is being run by {shown_owner(owner)}; its lease holds for {expires_in_s:.1f} s more.", hint.strip())
        self.owner = owner
        self.expires_in_s = expires_in_s
        self.epoch = epoch


class LeaseLost(Conflict):
    """The shard has another owner now: its old one stops without another write."""

    code = "lease-lost"

    def __init__(self, shard: str, owner: str, epoch: int = 0) -> None:
        taken = f"has been taken over by {shown_owner(owner)}" if owner else "has no owner any more"
        hint = "The other process goes on with it; nothing is written twice." if owner else ""
        super().__init__(f"{shown_shard(shard)} {taken}: this process stops.", hint)
        self.owner = owner
        self.epoch = epoch


class HeadMoved(Conflict):
    """The log does not end where the writer thought."""

    code = "head-moved"

    def __init__(self, run: RunId, expected: Head, found: Head) -> None:
        if found.status == "sealed":
            text = f"The log of '{run}' is sealed at event {found.seq}: nothing can follow."
        elif found.seq == expected.seq:
            text = f"The log of '{run}' holds other events than its owner wrote, up to event {found.seq}."
        else:
            text = f"The log of '{run}' ends at event {found.seq}, not at {expected.seq} as its owner thought."
        hint = ""
        if expected.seq == 0:
            hint = f"Another run took the name '{run}', as happens when the log was emptied or restored. Start a new run: it gets the next number."
        super().__init__(text, hint)
        self.expected = expected
        self.found = found


class EventLog(Protocol):
    """The log as the owner of a shard uses it.

    Attributes:
        generation: How many connections were made so far. Between two the server may have lost its memory, so
            an owner compares heads when it changes.
    """

    generation: int

    async def take(self, shard: str, owner: str, ttl_s: float, since: int = 0) -> Lease:
        """Become the owner of a shard that has none.

        The epoch is larger than any before it, even if the server lost its memory of them.

        Args:
            shard: The shard.
            owner: Who takes it.
            ttl_s: How long the lease holds, in seconds.
            since: The last epoch in which this owner held it. A lease of an earlier epoch that still holds is one that
                the server forgot the end of: it is nobody's.

        Raises:
            LeaseHeld: It has one.
        """
        ...

    async def renew(self, lease: Lease) -> None:
        """Extend the lease by its time to live.

        Raises:
            LeaseLost: Another owner has taken the shard.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the shard back; nothing happens where it is no longer ours."""
        ...

    async def append(self, lease: Lease, call: AppendCall) -> Head:
        """Append whole turns atomically, or nothing; consuming their reports is part of the act.

        A call that is repeated because its reply was lost answers as the first one did.

        Raises:
            LeaseLost: The shard has another owner.
            HeadMoved: The log ends elsewhere.
            LogUnavailable: The server cannot take the write; nothing was written, or (a lost
                connection) it is not known whether it was: repeating is safe.
        """
        ...

    async def wait_durable(self, level: Durability) -> None:
        """Return when everything appended so far is as durable as the level says."""
        ...

    async def head(self, shard: str, run: RunId) -> Head:
        """The end of a run's log."""
        ...

    async def heads(self, shard: str, runs: Sequence[RunId]) -> list[Head]:
        """The ends of the logs of runs, of one at least, in order."""
        ...

    async def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """Up to `limit` events behind position `after`, in order."""
        ...

    async def receive(self, shard: str, after: bytes, timeout_s: float) -> list[Inbound]:
        """The reports behind entry `after` (b"0" for all), waiting for one up to `timeout_s`.

        Only one call may wait at a time; beside it, any with `timeout_s` 0 may look. At most
        `MAX_APPEND_CONSUMED` are returned at once. An entry that is no report comes with an empty run and payload.
        """
        ...

    async def active(self, shard: str) -> list[RunId]:
        """The shard's runs that are not sealed."""
        ...

    async def now_us(self) -> Micros:
        """The server's clock; connects if need be."""
        ...

    def clock_us(self) -> Micros:
        """The writer's clock set to the server's at the last connection; never backwards."""
        ...

    async def index_run(self, entry: RunEntry) -> None:
        """Write a run's line in the index of runs."""
        ...

    async def acquire(self, name: str, most: int, shard: str, holders: Sequence[str], rank: Rank = NO_RANK) -> Grants:
        """Hold a limited name, as many of the holders as may at once, in their order: see `evflow.log.limits`.

        Whoever holds it already goes on to. Where one is refused, the shard stands in the name's line with that one, at its rank, and
        gets the word to look again when the name is given back. Places are kept, for a second, for shards that come first in the line.
        """
        ...

    async def hold(self, name: str, shard: str, holders: Sequence[str]) -> Grants:
        """As `acquire`, whatever the limit: the holders run."""
        ...

    async def give_back(self, name: str, holders: Sequence[str]) -> None:
        """Hold a limited name no more; the owners of shards that wait for it are woken."""
        ...

    async def limits(self) -> dict[str, int]:
        """The operator's limits: name to how many may hold it."""
        ...

    async def limited(self) -> tuple[dict[str, int], list[str]]:
        """The operator's limits, and all names that were ever held."""
        ...

    async def holders(self, name: str) -> list[Holder]:
        """Who holds a limited name, by slot."""
        ...

    async def owner(self, shard: str) -> tuple[str, float] | None:
        """Who holds a shard's lease and for how many seconds more, or None."""
        ...

    async def report(self, shard: str, run: RunId, payload: bytes) -> bool:
        """Put a report into a shard's inbox; False if the run is sealed."""
        ...

    async def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """As `LogClient.publish`."""
        ...

    async def published(self, after_us: int, timeout_s: float) -> list[PublishedEvent]:
        """What was published after an instant, at most 1,000 events, waiting for one up to `timeout_s`; one call at a time, as for `receive`."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class LogClient(Protocol):
    """The log as everybody but an owner uses it; blocking.

    Attributes:
        url: Where it is.
    """

    url: str

    def report(self, shard: str, run: RunId, payload: bytes, *, patience_s: float = 60.0) -> bool:
        """Put a report into the shard's inbox. Returns when the server has it.

        A server that is away is waited for until `patience_s` is over. After a lost reply the report is sent
        again and may arrive twice.

        Returns:
            False if the run is sealed: the report was counted as late and goes nowhere.

        Raises:
            LogUnavailable: It could not be written.
        """
        ...

    def request_run(
        self,
        flow: FlowName,
        payload: bytes,
        minimum: int | None = 0,
        expected: Seq | None = None,
        change: DeploymentChange | BackfillChange | None = None,
        deployed: Deployed | None = None,
    ) -> RunNumber:
        """Take the flow's next run number and append its request to the flow's log, in one act.

        Args:
            flow: The flow.
            payload: The encoded `evflow.core.flow_events.RunRequested`, with any number: the server puts the
                right one into its place.
            minimum: The number is larger than this (the highest archived run); None where that is not known: then a flow of which the
                server knows no number gets none.
            expected: Where the flow's log must end, for a request that follows from what stands there.
            change: What is deployed, or what a backfill is, after it, changed in the same act.
            deployed: What must be deployed; not together with a backfill's change.

        Raises:
            FlowLogMoved: The log has moved on: read the tail and decide again.
            FlowLogForked: It ends there, but what the change was made of is not what is there: the server lost what was read.
            DeploymentMoved: Something else is deployed, or nothing.
            NumbersUnknown: No number is known, and no minimum was given.
        """
        ...

    def offer_run(self, entry: RunEntry, payload: bytes, *, patience_s: float = 60.0) -> bool:
        """Write the line of a run that is asked for, then put its first event into its shard's inbox, in one exchange.

        A server that is away is waited for as by `report`; what is tried again leaves a line that has come meanwhile as it is.

        Returns:
            False if the run is sealed.

        Raises:
            LogUnavailable: It could not be written.
        """
        ...

    def counter(self, flow: FlowName) -> int:
        """The flow's last run number; 0 where none was ever taken, as far as the server remembers."""
        ...

    def index_run(self, entry: RunEntry) -> None:
        """Write a run's line in the index of runs."""
        ...

    def flows(self) -> list[FlowName]:
        """All flows that ever ran or were deployed, by name."""
        ...

    def runs(self, flow: FlowName, limit: int | None = None) -> list[RunEntry]:
        """The index of a flow's runs, newest first."""
        ...

    def run(self, run: RunId) -> RunEntry | None:
        """One run's line in the index, or None."""
        ...

    def head(self, shard: str, run: RunId) -> Head:
        """The end of a run's log."""
        ...

    def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """Up to `limit` events behind position `after`, in order."""
        ...

    def pages(self, shard: str, run: RunId, after: int = 0, limit: int = PAGE_EVENTS) -> Iterator[list[StoredEvent]]:
        """All events behind position `after`, in order; the server prepares a page while the caller works on the one before.

        Raises:
            LogUnavailable: As `read`, at any page.
        """
        ...

    def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """As `read`, waiting up to `timeout_s` for the first event."""
        ...

    def dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """Reason to number of the run's reports that did not become events."""
        ...

    def owner(self, shard: str) -> tuple[str, float] | None:
        """Who holds the shard's lease and for how many seconds more, or None."""
        ...

    def bury(self, shard: str, owner: str) -> None:
        """End the lease of an owner whose process the caller knows to be gone; another owner's stays."""
        ...

    def append_flow(self, flow: FlowName, expected: Seq, payload: bytes, change: FlowChange | None = None) -> Seq:
        """Append to a flow's log, which has no owner, and change what it leads to beside the log, in one act.

        Raises:
            Conflict: The log has moved on, or is another one by now: read it and decide again.
        """
        ...

    def flow_events(self, flow: FlowName, after: int = 0, limit: int = 5_000) -> list[FlowEvent]:
        """Events of a flow's log behind position `after`."""
        ...

    def flow_marks(self, flow: FlowName) -> tuple[int, ...] | None:
        """The positions of the events about a flow's deployments, in order; None where nobody noted them."""
        ...

    def flow_seq(self, flow: FlowName) -> Seq:
        """The last position of a flow's log, 0 if it is empty."""
        ...

    def flow_seqs(self, flows: Sequence[FlowName]) -> list[Seq]:
        """As `flow_seq`, of several flows in one request, in their order."""
        ...

    def tags(self, run: RunId) -> tuple[str, ...] | None:
        """The run's user tags as later changes left them, or None where none was made."""
        ...

    def all_tags(self, flow: FlowName) -> dict[RunNumber, tuple[str, ...]]:
        """As `tags`, of all runs of a flow in one request; runs whose tags were never changed are left out."""
        ...

    def deployments(self, flow: FlowName) -> dict[str, bytes]:
        """What is deployed of a flow now: name to `evflow.core.deployments.pack`ed deployment, in the names' order."""
        ...

    def backfills(self, flow: FlowName) -> dict[int, bytes]:
        """All backfills of a flow: number to `evflow.core.backfill.pack`ed backfill, in the numbers' order."""
        ...

    def backfilled(self) -> list[FlowName]:
        """All flows that ever had a backfill, by name."""
        ...

    def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """Publish an event, unless one of its id was published before and is still known: repeating is safe.

        Raises:
            LogUnavailable: The server cannot take it; after a lost connection it is not known whether it did.
        """
        ...

    def published(self, after_us: int = 0, limit: int = 1_000, timeout_s: float = 0.0) -> list[PublishedEvent]:
        """Events published after an instant, in their order, waiting for the first one up to `timeout_s`."""
        ...

    def event_bounds(self) -> EventBounds:
        """Where the log of published events begins and ends."""
        ...

    def looked_at(self) -> dict[FlowName, int]:
        """Up to which instant what was published has been looked at for each flow, if anybody said so."""
        ...

    def look_at(self, until_us: dict[FlowName, int]) -> None:
        """Say up to which instant what was published has been looked at for flows, so that nobody looks again."""
        ...

    def installation(self) -> str:
        """The log's identity, made on first use."""
        ...

    def schedulers(self, name: str = "", ttl_s: float = 0.0) -> list[str]:
        """The schedulers that live, by their owner names, in order.

        Args:
            name: Whoever says that it is one of them, or nobody.
            ttl_s: For how long it counts as living, from now; 0: it ends.
        """
        ...

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """How reading of queues and buckets goes: what each scheduler that reads some said last, by its owner name."""
        ...

    def said_waits(self, shards: Sequence[str]) -> Mapping[str, Sequence[Said]]:
        """What the owners of shards said of waits that only their processes see, by the runs' names, in one exchange; it may be old."""
        ...

    def limits(self) -> dict[str, int]:
        """The operator's limits: name to how many may hold it."""
        ...

    def set_limit(self, name: str, most: int | None) -> None:
        """Change an operator's limit, or take it away (None)."""
        ...

    def limited(self) -> list[str]:
        """All names that were ever held."""
        ...

    def holders(self, name: str) -> list[Holder]:
        """Who holds a limited name, by slot."""
        ...

    def line(self, name: str) -> list[Waiter]:
        """Who waits for a limited name, one of each shard, the first one first."""
        ...

    def standings(self, names: Sequence[str]) -> list[tuple[list[Holder], list[Waiter]]]:
        """Holders and line of several limited names in one exchange, in the names' order."""
        ...

    def wake(self, shards: Sequence[str]) -> None:
        """Wake the owners of shards, though nothing is reported."""
        ...

    def now_us(self) -> Micros:
        """The server's clock."""
        ...

    def clock_us(self) -> Micros:
        """The same, for times that are written down: this machine's clock, moved by the difference as it was some seconds ago."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
