"""The event log in memory: the same protocol, in virtual time, with every fault that a server can have.

Exact, not similar: one contract suite runs over this and over real servers, and a stateful property test compares
the two act by act. `SimulatedServer` (`evflow.testing.simulated_server`) is what survives; `SimulatedEventLog` and `SimulatedLogClient` are the
connections of two processes to it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import msgpack

from evflow import clock
from evflow.core.explain_said import Said
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.line import NO_RANK, Rank, Waiter
from evflow.log.commands import INBOX_BATCH, check_limits
from evflow.log.errors import LogConnectionLost, LogUnavailable, LogUnreachable, NotDurable
from evflow.log.flow_commands import look_at_us
from evflow.log.limits import LOOK
from evflow.log.protocol import (
    KEEP,
    PAGE_EVENTS,
    AppendCall,
    BackfillChange,
    Deployed,
    DeploymentChange,
    Durability,
    EventBounds,
    FlowChange,
    FlowEvent,
    Grants,
    Head,
    Holder,
    Inbound,
    Keep,
    Lease,
    Placed,
    PublishedEvent,
    RunEntry,
    StoredEvent,
)
from evflow.testing.faults import Faults, NoFaults
from evflow.testing.simulated_server import SimulatedServer, loop_us
from evflow.testing.simulated_state import FlowState, entry_id

T = TypeVar("T")
_WHERE = "simulation"


class SimulatedEventLog:
    """`evflow.log.protocol.EventLog` on a simulated server: the connection of one process."""

    def __init__(self, server: SimulatedServer, faults: Faults | None = None) -> None:
        self.server = server
        self.faults: Faults = faults or NoFaults()
        self.generation = 0
        self._connection = -1
        self._clock = clock.Onward()

    async def take(self, shard: str, owner: str, ttl_s: float, since: int = 0) -> Lease:
        """See `EventLog.take`."""

        def act() -> Lease:
            now_us = self.server.now_us()
            if self.server.state.seems_endless(shard, owner, ttl_s, now_us, since):
                self.server.write(lambda state: state.count_anew(shard, ttl_s, now_us))
            return self.server.write(lambda state: state.take(shard, owner, ttl_s, now_us, since))

        return await self._io("take", act)

    async def renew(self, lease: Lease) -> None:
        """See `EventLog.renew`."""

        def act() -> None:
            now_us = self.server.now_us()
            self.server.write(lambda state: state.renew(lease, now_us))

        await self._io("renew", act)

    async def release(self, lease: Lease) -> None:
        """See `EventLog.release`."""
        await self._io("release", lambda: self.server.write(lambda state: state.release(lease)))

    async def append(self, lease: Lease, call: AppendCall) -> Head:
        """See `EventLog.append`."""
        check_limits(call)
        # The journal keeps it: the caller's lists may change.
        kept = replace(call, events=tuple(call.events), links=tuple(call.links), consumed=tuple(call.consumed), dropped=dict(call.dropped))
        return await self._io("append", lambda: self.server.write(lambda state: state.append(lease, kept)))

    async def wait_durable(self, level: Durability) -> None:
        """See `EventLog.wait_durable`."""
        if level != "everysec":
            await self._io("wait_durable", partial(self._settle, level))

    async def head(self, shard: str, run: RunId) -> Head:
        """See `EventLog.head`."""
        return await self._io("head", partial(_head, self.server, shard, run))

    async def heads(self, shard: str, runs: Sequence[RunId]) -> list[Head]:
        """See `EventLog.heads`."""
        return await self._io("heads", lambda: [_head(self.server, shard, run) for run in runs])

    async def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return await self._io("read", partial(_read, self.server, shard, run, after, limit))

    async def receive(self, shard: str, after: bytes, timeout_s: float) -> list[Inbound]:
        """See `EventLog.receive`."""
        return await self._waited("receive", partial(received, self.server, shard, after), timeout_s)

    async def active(self, shard: str) -> list[RunId]:
        """See `EventLog.active`."""
        return await self._io("active", lambda: sorted(self.server.state.shard(shard).active))

    async def now_us(self) -> Micros:
        """See `EventLog.now_us`."""
        await self._io("now_us", lambda: None)
        return self.clock_us()

    def clock_us(self) -> Micros:
        """See `EventLog.clock_us`."""
        return Micros(self._clock.read(self.server.now_us(), loop_us()))

    async def acquire(self, name: str, most: int, shard: str, holders: Sequence[str], rank: Rank = NO_RANK) -> Grants:
        """See `EventLog.acquire`."""
        return await self._ask("acquire", name, most, shard, holders, rank)

    async def hold(self, name: str, shard: str, holders: Sequence[str]) -> Grants:
        """See `EventLog.hold`."""
        return await self._ask("hold", name, None, shard, holders, NO_RANK)

    async def give_back(self, name: str, holders: Sequence[str]) -> None:
        """See `EventLog.give_back`."""
        now_us = self.server.now_us()
        await self._io("give_back", lambda: self.server.write(lambda state: state.give_back(name, holders, now_us)))

    async def limits(self) -> dict[str, int]:
        """See `EventLog.limits`."""
        return await self._io("limits", lambda: dict(sorted(self.server.state.limited.table.items())))

    async def limited(self) -> tuple[dict[str, int], list[str]]:
        """See `EventLog.limited`."""

        def look() -> tuple[dict[str, int], list[str]]:
            held = self.server.state.limited
            return dict(sorted(held.table.items())), sorted(held.names)

        return await self._io("limited", look)

    async def holders(self, name: str) -> list[Holder]:
        """See `EventLog.holders`."""
        return await self._io("holders", lambda: self.server.state.limited.holders(name))

    async def owner(self, shard: str) -> tuple[str, float] | None:
        """See `EventLog.owner`."""
        return await self._io("owner", lambda: _owner(self.server, shard))

    async def report(self, shard: str, run: RunId, payload: bytes) -> bool:
        """See `EventLog.report`."""
        now_us = self.server.now_us()
        return await self._io("report", lambda: self.server.write(lambda state: state.report(shard, run, payload, now_us)))

    async def _ask(self, verb: str, name: str, most: int | None, shard: str, holders: Sequence[str], rank: Rank) -> Grants:
        now_us = self.server.now_us()
        return await self._io(verb, lambda: self.server.write(lambda state: state.acquire(name, most, shard, holders, rank, now_us)))

    async def index_run(self, entry: RunEntry) -> None:
        """See `EventLog.index_run`."""
        line, look = line_of(entry), look_at_us(entry)
        await self._io("index_run", lambda: self.server.write(lambda state: state.index_run(entry.run, line, look)))

    async def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """See `EventLog.publish`."""

        def act() -> Placed:
            now_us = self.server.now_us()
            return self.server.write(lambda state: state.publish(event_id, body, keep, now_us))

        return await self._io("publish", act)

    async def published(self, after_us: int, timeout_s: float) -> list[PublishedEvent]:
        """See `EventLog.published`."""
        return await self._waited("published", partial(_published, self.server, after_us, 1_000), timeout_s)

    async def aclose(self) -> None:
        """See `EventLog.aclose`."""
        self._connection = -1

    async def _waited(self, name: str, look: Callable[[], list[T]], timeout_s: float) -> list[T]:
        found = await self._io(name, look)  # outside of the time-out: however slow, a look answers what is there
        with anyio.move_on_after(max(0.0, timeout_s)):
            while not found and timeout_s > 0:
                await self.server.changed()
                found = await self._io(name, look)
        return found

    async def _io(self, name: str, act: Callable[[], T]) -> T:
        try:
            await self.faults.before(name)
            self._connect()
            result = act()
            await self.faults.after(name)
        except LogUnavailable as error:
            if error.code in ("log-connection-lost", "log-timeout"):
                self._connection = -1
            raise
        return result

    def _connect(self) -> None:
        server = self.server
        if server.connection != self._connection:
            broken, self._connection = self._connection >= 0, -1
            if broken:
                raise LogConnectionLost(_WHERE)
            if server.down:
                raise LogUnreachable(_WHERE, "the simulated server is down")
            self._connection = server.connection
            self.generation += 1

    def _settle(self, level: str) -> None:
        if level not in self.server.levels:
            raise NotDurable(_WHERE, level, "the simulated server was told so")
        self.server.make_durable()


class SimulatedLogClient:
    """`evflow.log.protocol.LogClient` on a simulated server. `follow` does not wait: time is virtual."""

    def __init__(self, server: SimulatedServer) -> None:
        self.server = server
        self.url = "simulated://"

    def report(self, shard: str, run: RunId, payload: bytes, *, patience_s: float = 60.0) -> bool:
        """See `LogClient.report`; a server that is down is not waited for."""
        now_us = self._live().now_us()
        return self.server.write(lambda state: state.report(shard, run, payload, now_us))

    def request_run(
        self,
        flow: FlowName,
        payload: bytes,
        minimum: int | None = 0,
        expected: Seq | None = None,
        change: DeploymentChange | BackfillChange | None = None,
        deployed: Deployed | None = None,
    ) -> RunNumber:
        """See `LogClient.request_run`."""
        server = self._live()
        server.write(lambda state: state.register(flow))
        return server.write(lambda state: state.request_run(flow, payload, minimum, expected, change, deployed))

    def offer_run(self, entry: RunEntry, payload: bytes, *, patience_s: float = 60.0) -> bool:
        """See `LogClient.offer_run`; a server that is down is not waited for."""
        line = line_of(entry)
        self._live().write(lambda state: state.write_line(entry.run, line))
        return self.report(entry.shard, entry.run, payload)

    def counter(self, flow: FlowName) -> int:
        """See `LogClient.counter`."""
        return self._flow(flow).runs

    def index_run(self, entry: RunEntry) -> None:
        """See `LogClient.index_run`."""
        line, look = line_of(entry), look_at_us(entry)
        self._live().write(lambda state: state.index_run(entry.run, line, look))

    def flows(self) -> list[FlowName]:
        """See `LogClient.flows`."""
        return sorted(self._live().state.names)

    def runs(self, flow: FlowName, limit: int | None = None) -> list[RunEntry]:
        """See `LogClient.runs`."""
        lines = self._flow(flow).lines
        return [_entry(flow, number, lines[number]) for number in sorted(lines, reverse=True)][:limit]

    def run(self, run: RunId) -> RunEntry | None:
        """See `LogClient.run`."""
        line = self._flow(run.flow).lines.get(run.number)
        return None if line is None else _entry(run.flow, run.number, line)

    def head(self, shard: str, run: RunId) -> Head:
        """See `LogClient.head`."""
        return _head(self._live(), shard, run)

    def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogClient.read`."""
        return _read(self._live(), shard, run, after, limit)

    def pages(self, shard: str, run: RunId, after: int = 0, limit: int = PAGE_EVENTS) -> Iterator[list[StoredEvent]]:
        """See `LogClient.pages`."""
        while page := self.read(shard, run, after, limit):
            yield page
            after = page[-1].seq

    def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """See `LogClient.follow`; what is there now."""
        return _read(self._live(), shard, run, after, 5_000)

    def dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """See `LogClient.dropped`."""
        return dict(self._live().state.run(shard, run).dropped)

    def owner(self, shard: str) -> tuple[str, float] | None:
        """See `LogClient.owner`."""
        return _owner(self._live(), shard)

    def bury(self, shard: str, owner: str) -> None:
        """See `LogClient.bury`."""
        self._live().write(lambda state: state.bury(shard, owner))

    def append_flow(self, flow: FlowName, expected: Seq, payload: bytes, change: FlowChange | None = None) -> Seq:
        """See `LogClient.append_flow`."""
        server = self._live()
        if isinstance(change, DeploymentChange):
            server.write(lambda state: state.register(flow))
        elif isinstance(change, BackfillChange):
            server.write(lambda state: state.register_backfilled(flow))
        return server.write(lambda state: state.append_flow(flow, expected, payload, change))

    def flow_events(self, flow: FlowName, after: int = 0, limit: int = 5_000) -> list[FlowEvent]:
        """See `LogClient.flow_events`."""
        log = self._flow(flow)
        begin = max(0, after - log.trimmed)
        return log.events[begin : begin + limit]

    def flow_marks(self, flow: FlowName) -> tuple[int, ...] | None:
        """See `LogClient.flow_marks`."""
        return self._flow(flow).marks

    def flow_seq(self, flow: FlowName) -> Seq:
        """See `LogClient.flow_seq`."""
        return Seq(self._flow(flow).seq)

    def flow_seqs(self, flows: Sequence[FlowName]) -> list[Seq]:
        """See `LogClient.flow_seqs`."""
        return [self.flow_seq(flow) for flow in flows]

    def tags(self, run: RunId) -> tuple[str, ...] | None:
        """See `LogClient.tags`."""
        return self._flow(run.flow).tags.get(run.number)

    def all_tags(self, flow: FlowName) -> dict[RunNumber, tuple[str, ...]]:
        """See `LogClient.all_tags`."""
        return {RunNumber(number): tags for number, tags in self._flow(flow).tags.items()}

    def deployments(self, flow: FlowName) -> dict[str, bytes]:
        """See `LogClient.deployments`."""
        return dict(sorted(self._flow(flow).deployments.items()))

    def backfills(self, flow: FlowName) -> dict[int, bytes]:
        """See `LogClient.backfills`."""
        return dict(sorted(self._flow(flow).backfills.items()))

    def backfilled(self) -> list[FlowName]:
        """See `LogClient.backfilled`."""
        return sorted(self._live().state.backfilled)

    def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """See `LogClient.publish`."""
        server = self._live()
        now_us = server.now_us()
        return server.write(lambda state: state.publish(event_id, body, keep, now_us))

    def published(self, after_us: int = 0, limit: int = 1_000, timeout_s: float = 0.0) -> list[PublishedEvent]:
        """See `LogClient.published`; what is there now."""
        return _published(self._live(), after_us, limit)

    def event_bounds(self) -> EventBounds:
        """See `LogClient.event_bounds`."""
        held = self._live().state.publications
        return EventBounds(held.trimmed_us, held.last_us)

    def looked_at(self) -> dict[FlowName, int]:
        """See `LogClient.looked_at`."""
        return dict(self._live().state.publications.looked)

    def look_at(self, until_us: dict[FlowName, int]) -> None:
        """See `LogClient.look_at`."""
        said = dict(until_us)
        self._live().write(lambda state: state.publications.looked.update(said))

    def installation(self) -> str:
        """See `LogClient.installation`."""
        return self._live().write(lambda state: state.identify("simulation"))

    def schedulers(self, name: str = "", ttl_s: float = 0.0) -> list[str]:
        """See `LogClient.schedulers`."""
        server = self._live()
        now_us = server.now_us()
        return server.write(lambda state: state.announce(name, round(ttl_s * 1e6), now_us))

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """See `LogClient.sources`: nobody here reads any."""
        self._live()
        return {}

    def said_waits(self, shards: Sequence[str]) -> Mapping[str, Sequence[Said]]:
        """See `LogClient.said_waits`: nobody here says any."""
        self._live()
        return {}

    def limits(self) -> dict[str, int]:
        """See `LogClient.limits`."""
        return dict(sorted(self._live().state.limited.table.items()))

    def set_limit(self, name: str, most: int | None) -> None:
        """See `LogClient.set_limit`."""
        self._live().write(lambda state: state.limited.set_most(name, most))

    def limited(self) -> list[str]:
        """See `LogClient.limited`."""
        return sorted(self._live().state.limited.names)

    def holders(self, name: str) -> list[Holder]:
        """See `LogClient.holders`."""
        return self._live().state.limited.holders(name)

    def line(self, name: str) -> list[Waiter]:
        """See `LogClient.line`."""
        return self._live().state.limited.line(name)

    def standings(self, names: Sequence[str]) -> list[tuple[list[Holder], list[Waiter]]]:
        """See `LogClient.standings`."""
        return [(self.holders(name), self.line(name)) for name in names]

    def wake(self, shards: Sequence[str]) -> None:
        """See `LogClient.wake`."""
        now_us = self._live().now_us()
        self._live().write(lambda state: state.wake(shards, now_us))

    def now_us(self) -> Micros:
        """See `LogClient.now_us`."""
        return self._live().now_us()

    clock_us = now_us

    def close(self) -> None:
        """See `LogClient.close`."""

    def _live(self) -> SimulatedServer:
        if self.server.down:
            raise LogUnreachable(_WHERE, "the simulated server is down")
        return self.server

    def _flow(self, flow: FlowName) -> FlowState:
        return self._live().state.flows.get(flow) or FlowState()


def _head(server: SimulatedServer, shard: str, run: RunId) -> Head:
    return server.state.run(shard, run).head


def _owner(server: SimulatedServer, shard: str) -> tuple[str, float] | None:
    held = server.state.shard(shard).held
    left_s = (held.expires_us - server.now_us()) / 1e6
    return (held.owner, left_s) if held.owner and left_s > 0 else None


def _read(server: SimulatedServer, shard: str, run: RunId, after: int, limit: int) -> list[StoredEvent]:
    return server.state.run(shard, run).events[after : after + limit]


def received(server: SimulatedServer, shard: str, after: bytes) -> list[Inbound]:
    """The reports behind an entry, as many as one request gives."""
    behind = entry_id(after)
    entries = [item for item in server.state.shard(shard).inbox.items() if item[0] > behind][:INBOX_BATCH]
    return [Inbound(b"%d-%d" % entry, run, payload if run or payload == LOOK else b"") for entry, (run, payload) in entries]


def line_of(entry: RunEntry) -> tuple[str, bytes]:
    """A run's line as the server holds it."""
    return entry.shard, msgpack.packb(entry.summary)


def _published(server: SimulatedServer, after_us: int, limit: int) -> list[PublishedEvent]:
    return [event for event in server.state.publications.log if event.at_us > after_us][:limit]


def _entry(flow: FlowName, number: int, line: tuple[str, bytes]) -> RunEntry:
    summary: dict[str, Any] = msgpack.unpackb(line[1], strict_map_key=False)
    return RunEntry(RunId(flow, RunNumber(number)), line[0], summary)
