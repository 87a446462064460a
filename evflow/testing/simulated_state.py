"""What a simulated server holds, and what the scripts do to it.

`State`'s methods are the scripts in `evflow/log/lua`, check by check, as functions of the state alone; `evflow.testing.simulated_server`
keeps them in a journal, and `evflow.testing.simulated_log` plays the connections to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from evflow.core.chain import LINK_BYTES
from evflow.core.flow_events import split_at_number
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.core.line import Rank
from evflow.log.archived import SEGMENT_EVENTS, Projection
from evflow.log.commands import after
from evflow.log.flow_commands import DeploymentMoved, FlowLogForked, FlowLogMoved, NumbersUnknown
from evflow.log.keys import is_own, own_shard
from evflow.log.limits import LOOK
from evflow.log.protocol import (
    AppendCall,
    ArchiveChange,
    BackfillChange,
    Deployed,
    DeploymentChange,
    FlowChange,
    FlowEvent,
    Grants,
    Head,
    HeadMoved,
    Keep,
    Lease,
    LeaseHeld,
    LeaseLost,
    Placed,
    PublishedEvent,
    StoredEvent,
    TagChange,
)
from evflow.testing.simulated_keys import Keys
from evflow.testing.simulated_limits import LimitedNames

_EMPTY = Head()


@dataclass(slots=True)
class RunLog:
    """A run's log and where it ends."""

    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    head: Head = _EMPTY
    dropped: dict[str, int] = field(default_factory=dict[str, int])


class Held(NamedTuple):
    """A shard's lease."""

    owner: str = ""
    epoch: int = 0
    expires_us: int = 0


_NOBODY = Held()


@dataclass(slots=True)
class ShardState:
    """A shard: its lease, its inbox and its runs."""

    held: Held = _NOBODY
    inbox: dict[tuple[int, int], tuple[str, bytes]] = field(default_factory=dict[tuple[int, int], tuple[str, bytes]])
    last_entry: tuple[int, int] = (0, 0)
    runs: dict[RunId, RunLog] = field(default_factory=dict[RunId, RunLog])
    active: set[RunId] = field(default_factory=set[RunId])
    timers: dict[RunId, int] = field(default_factory=dict[RunId, int])


@dataclass(slots=True)
class FlowState:
    """A flow: its log, and what is kept beside it."""

    events: list[FlowEvent] = field(default_factory=list[FlowEvent])
    trimmed: int = 0
    runs: int = 0
    lines: dict[int, tuple[str, bytes]] = field(default_factory=dict[int, tuple[str, bytes]])
    tags: dict[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    deployments: dict[str, bytes] = field(default_factory=dict[str, bytes])
    archives: dict[str, bytes] = field(default_factory=dict[str, bytes])
    hot: dict[int, int] = field(default_factory=dict[int, int])
    marks: tuple[int, ...] | None = None

    backfills: dict[int, bytes] = field(default_factory=dict[int, bytes])

    @property
    def seq(self) -> int:
        """Where its log ends."""
        return self.trimmed + len(self.events)


@dataclass(slots=True)
class Publications:
    """What was published: the log, the ids that are known, and up to where each flow has looked."""

    log: list[PublishedEvent] = field(default_factory=list[PublishedEvent])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    looked: dict[FlowName, int] = field(default_factory=dict[FlowName, int])
    last_us: int = 0
    trimmed_us: int = 0


@dataclass(slots=True)
class State:
    """All that the server holds. Its methods are the scripts in `evflow/log/lua`, check by check."""

    shards: dict[str, ShardState] = field(default_factory=dict[str, ShardState])
    flows: dict[FlowName, FlowState] = field(default_factory=dict[FlowName, FlowState])
    names: set[FlowName] = field(default_factory=set[FlowName])
    backfilled: set[FlowName] = field(default_factory=set[FlowName])
    installation: str = ""
    schedulers: dict[str, int] = field(default_factory=dict[str, int])
    limited: LimitedNames = field(default_factory=LimitedNames)
    publications: Publications = field(default_factory=Publications)
    keys: Keys = field(default_factory=Keys)

    def shard(self, name: str) -> ShardState:
        """A shard, made where there is none."""
        return self.shards.setdefault(name, ShardState())

    def run(self, shard: str, run: RunId) -> RunLog:
        """A run, made where there is none."""
        return self.shard(shard).runs.setdefault(run, RunLog())

    def flow(self, name: FlowName) -> FlowState:
        """A flow, made where there is none."""
        return self.flows.setdefault(name, FlowState())

    def take(self, shard: str, owner: str, ttl_s: float, now_us: int, since: int = 0) -> Lease:
        """`lease.lua`, take."""
        held = self.shard(shard).held
        if held.owner not in ("", owner) and held.expires_us > now_us and held.epoch >= since:
            raise LeaseHeld(shard, held.owner, (held.expires_us - now_us) / 1e6, held.epoch)
        epoch = max(held.epoch + 1, since + 1, now_us)
        self.shard(shard).held = Held(owner, epoch, now_us + round(ttl_s * 1e6))
        return Lease(shard, owner, epoch, ttl_s)

    def count_anew(self, shard: str, ttl_s: float, now_us: int) -> None:
        """`lease.lua`, take, of a lease that another one has: where the clock went back, it seems to last for hours."""
        self.shard(shard).held = self.shard(shard).held._replace(expires_us=now_us + round(ttl_s * 1e6))

    def seems_endless(self, shard: str, owner: str, ttl_s: float, now_us: int, since: int) -> bool:
        """Whether a claimant has another one's lease counted anew."""
        held = self.shard(shard).held
        return held.owner not in ("", owner) and held.epoch >= since and held.expires_us - now_us > _LONGEST_LEASE_US >= ttl_s * 1e6

    def renew(self, lease: Lease, now_us: int) -> None:
        """`lease.lua`, renew."""
        self.fence(lease)
        self.shard(lease.shard).held = Held(lease.owner, lease.epoch, now_us + round(lease.ttl_s * 1e6))

    def release(self, lease: Lease) -> None:
        """`lease.lua`, release."""
        shard = self.shard(lease.shard)
        if (shard.held.owner, shard.held.epoch) != (lease.owner, lease.epoch):
            return
        shard.held = Held("", lease.epoch, 0)
        if not shard.active:
            if is_own(lease.shard):
                shard.held = _NOBODY
            if not shard.inbox:
                shard.last_entry = (0, 0)

    def bury(self, shard: str, owner: str) -> None:
        """`lease.lua`, bury."""
        held = self.shard(shard).held
        if held.owner == owner:
            self.shard(shard).held = Held("", held.epoch, 0)

    def fence(self, lease: Lease) -> None:
        """Whether a lease still is the shard's."""
        held = self.shard(lease.shard).held
        if (held.owner, held.epoch) != (lease.owner, lease.epoch):
            raise LeaseLost(lease.shard, held.owner, held.epoch)

    def append(self, lease: Lease, call: AppendCall) -> Head:
        """`append.lua`."""
        self.fence(lease)
        shard, run, new = self.shard(lease.shard), self.run(lease.shard, call.run), after(call)
        head = run.head
        repeated = bool(call.events) and (head.seq, head.digest) == (new.seq, new.digest)
        moved = (head.seq, head.digest) != (call.expected.seq, call.expected.digest)
        if not repeated and (moved or (head.status == "sealed" and call.events)):
            raise HeadMoved(call.run, call.expected, head)
        if not repeated and call.events:
            for seq, payload, link in zip(range(call.expected.seq + 1, new.seq + 1), call.events, call.links, strict=True):
                run.events.append(StoredEvent(seq, payload, link[:LINK_BYTES]))
            run.head = new
        removed = [shard.inbox.pop(entry_id(entry), None) for entry in call.consumed]
        if any(removed):
            for reason, count in call.dropped.items():
                run.dropped[reason] = run.dropped.get(reason, 0) + count
        if call.status == "sealed":
            shard.active.discard(call.run)
            shard.timers.pop(call.run, None)
        else:
            if run.head.seq:
                shard.active.add(call.run)
            if call.wake_at_us is None:
                shard.timers.pop(call.run, None)
            else:
                shard.timers[call.run] = call.wake_at_us
        return new

    def report(self, shard: str, run: RunId, payload: bytes, now_us: int) -> bool:
        """`report.lua`."""
        known = self.run(shard, run)
        if known.head.status == "sealed":
            known.dropped["late"] = known.dropped.get("late", 0) + 1
            return False
        self.put(shard, str(run), payload, now_us)
        return True

    def put(self, shard: str, run: str, payload: bytes, now_us: int) -> None:
        """XADD to the inbox."""
        inbox = self.shard(shard)
        last_ms, number = inbox.last_entry
        now_ms = now_us // 1_000
        inbox.last_entry = (now_ms, 0) if now_ms > last_ms else (last_ms, number + 1)
        inbox.inbox[inbox.last_entry] = (run, payload)

    def register(self, flow: FlowName) -> None:
        """SADD to the names of all flows."""
        self.names.add(flow)

    def register_backfilled(self, flow: FlowName) -> None:
        """SADD to the names of the flows that ever had a backfill: before the event, which may be refused."""
        self.backfilled.add(flow)

    def request_run(
        self,
        flow: FlowName,
        payload: bytes,
        minimum: int | None,
        expected: int | None,
        change: DeploymentChange | BackfillChange | None,
        deployed: Deployed | None,
    ) -> RunNumber:
        """`request_run.lua`."""
        before, behind = split_at_number(payload)
        log = self.flow(flow)
        if expected is not None and expected != log.seq:
            raise FlowLogMoved(flow, expected, log.seq)
        if deployed is not None and (found := log.deployments.get(deployed.name, b"")) != deployed.packed:
            raise DeploymentMoved(flow, deployed.name, found)
        _check_before(flow, log, change)
        if minimum is None and not log.runs:
            raise NumbersUnknown(flow)
        if isinstance(change, BackfillChange):
            log.backfills[change.number] = change.packed
        elif change is not None:
            log.deployments[change.name] = change.packed
        log.runs = max(log.runs, minimum or 0) + 1
        log.events.append(FlowEvent(log.seq + 1, before + msgpack.packb(log.runs) + behind))
        return RunNumber(log.runs)

    def write_line(self, run: RunId, line: tuple[str, bytes]) -> None:
        """HSET of a run's line in the index."""
        self.flow(run.flow).lines[run.number] = line

    def index_run(self, run: RunId, line: tuple[str, bytes], look: tuple[int, bool] | None = None) -> None:
        """Write a run's line, and when it is to be looked at; sure, or if that is not known yet."""
        self.register(run.flow)
        self.write_line(run, line)
        flow = self.flow(run.flow)
        if look is not None and (look[1] or run.number not in flow.hot):
            flow.hot[run.number] = look[0]

    def drop_run(self, shard: str, run: RunId, head: Head, *, lingers: bool) -> bool:
        """`drop_run.lua`, without an end of what lingers."""
        known = self.run(shard, run)
        if known.head.seq and known.head != Head(head.seq, head.digest, "sealed"):
            return False
        if not known.head.seq and known.events:
            return False
        place = self.shard(shard)
        place.active.discard(run)
        place.timers.pop(run, None)
        known.events.clear()
        if not lingers:
            place.runs.pop(run)
        if shard == own_shard(run):
            place.inbox.clear()
            place.last_entry = (0, 0)
        return True

    def unlist(self, run: RunId) -> None:
        """Remove a run's line and what belongs to it."""
        flow = self.flow(run.flow)
        for kept in (flow.lines, flow.tags, flow.hot):
            kept.pop(run.number, None)

    def note(self, flow: FlowName, packed: dict[str, bytes]) -> None:
        """Note archives where none is noted."""
        self.register(flow)
        for name, note in packed.items():
            self.flow(flow).archives.setdefault(name, note)

    def trim_flow(self, flow: FlowName, segment: int, packed: bytes) -> None:
        """`trim_flow.lua`."""
        log = self.flow(flow)
        log.archives.setdefault(f"log:{segment}", packed)
        gone = min(max((segment + 1) * SEGMENT_EVENTS - log.trimmed, 0), len(log.events))
        del log.events[:gone]
        log.trimmed += gone

    def project(self, flow: FlowName, expected: int, projection: Projection) -> None:
        """`project.lua`."""
        log = self.flow(flow)
        if expected != log.seq:
            raise FlowLogMoved(flow, expected, log.seq)
        log.runs = max(log.runs, projection.counter)
        for number, tags in projection.tags.items():
            log.tags[number] = tags
        for name, packed in projection.deployments.items():
            _put(log.deployments, name, packed)
        log.backfills.update(projection.backfills)

    def append_flow(self, flow: FlowName, expected: int, payload: bytes, change: FlowChange | None) -> Seq:
        """`flow_append.lua`."""
        log = self.flow(flow)
        if expected != log.seq:
            raise FlowLogMoved(flow, expected, log.seq)
        _check_before(flow, log, change)
        log.events.append(FlowEvent(expected + 1, payload))
        if isinstance(change, TagChange):
            log.tags[change.run.number] = change.tags
        elif isinstance(change, ArchiveChange):
            _put(log.archives, str(change.run.number), change.packed)
        elif isinstance(change, BackfillChange):
            log.backfills[change.number] = change.packed
        elif change is not None:
            _put(log.deployments, change.name, change.packed)
            log.marks = change.marks or log.marks
        return Seq(expected + 1)

    def publish(self, event_id: str, body: bytes, keep: Keep, now_us: int) -> Placed:
        """`publish.lua`."""
        held = self.publications
        if held.ids.get(event_id, 0) > now_us - keep.time_us:
            return Placed(held.ids[event_id], False)
        at_us = held.last_us = max(now_us, held.last_us + 1)
        held.log.append(PublishedEvent(at_us, event_id, body))
        held.ids[event_id] = at_us
        for old in sorted((us, known) for known, us in held.ids.items() if us <= at_us - keep.time_us)[:100]:
            del held.ids[old[1]]
        aged = sum(event.at_us <= at_us - keep.time_us for event in held.log[:100])
        gone = max(aged, min(len(held.log) - keep.most, 100))
        if gone > 0:
            held.trimmed_us = held.log[gone - 1].at_us
            del held.log[:gone]
        return Placed(at_us, True)

    def identify(self, candidate: str) -> str:
        """SETNX of the log's identity."""
        self.installation = self.installation or candidate
        return self.installation

    def acquire(self, name: str, most: int | None, shard: str, holders: Sequence[str], rank: Rank, now_us: int) -> Grants:
        """`limit.lua`, acquire and hold, and the word to the shards for which a place is kept."""
        grants, called = self.limited.ask(name, most, shard, holders, rank, now_us)
        self.wake(called, now_us)
        return grants

    def give_back(self, name: str, holders: Sequence[str], now_us: int) -> None:
        """`limit.lua`, release, and the word to the shards that wait."""
        self.wake(self.limited.release(name, holders, now_us), now_us)

    def wake(self, shards: Sequence[str], now_us: int) -> None:
        """XADD to the inboxes of shards."""
        for shard in shards:
            self.put(shard, "", LOOK, now_us)

    def announce(self, name: str, ttl_us: int, now_us: int) -> list[str]:
        """`schedulers.lua`."""
        if name and ttl_us:
            self.schedulers[name] = now_us + ttl_us
        else:
            self.schedulers.pop(name, None)
        self.schedulers = {living: until for living, until in self.schedulers.items() if now_us < until <= now_us + _LONGEST_LEASE_US}
        return sorted(self.schedulers)


_LONGEST_LEASE_US = 300_000_000


def entry_id(entry: bytes) -> tuple[int, int]:
    """A stream's id as what it compares as."""
    time_ms, _, number = entry.partition(b"-")
    return int(time_ms), int(number or 0)


def _check_before(flow: FlowName, log: FlowState, change: FlowChange | None) -> None:
    """That what a change was made of is what is there."""
    if isinstance(change, DeploymentChange | BackfillChange) and change.before is not None:
        found = log.backfills.get(change.number, b"") if isinstance(change, BackfillChange) else log.deployments.get(change.name, b"")
        if found != change.before:
            raise FlowLogForked(flow)


def _put(kept: dict[str, bytes], name: str, packed: bytes) -> None:
    """Set what is kept under a name, or remove it where there are no bytes."""
    if packed:
        kept[name] = packed
    else:
        kept.pop(name, None)
