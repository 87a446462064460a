"""The log for everybody but a shard's owner: workers, commands, the client. Blocking.

One connection, made on first use. One that broke is replaced at the next call, but no command is ever sent twice
behind the caller's back, with one exception: a report. Its process is about to end, so `report` tries until its
patience is over; a report that arrives twice counts once, because a task has one accepted result.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from evflow import clock
from evflow.core.explain_said import Said
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.line import Waiter
from evflow.log import commands, flow_commands, limits
from evflow.log.commands import Operation
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import (
    KEEP,
    PAGE_EVENTS,
    BackfillChange,
    Deployed,
    DeploymentChange,
    EventBounds,
    FlowChange,
    FlowEvent,
    Head,
    Holder,
    Keep,
    Placed,
    PublishedEvent,
    RunEntry,
    StoredEvent,
)
from evflow.log.transport import Connector, connect_blocking, perform
from evflow.log.url import parse
from evflow.log.wire import Transport, Wire

T = TypeVar("T")
REPORT_PATIENCE_S = 60.0
"""How long a worker tries to report: longer than an owner takes to bring a killed server back."""
REST_S = 10.0
"""A connection that nobody used for longer is not trusted: what stands between, a router, may have forgotten it."""
_INDEX_BATCH = 500
_COMPARE_EVERY_S = 10.0
"""How long a comparison of this machine's clock with the server's counts: a clock may be set."""
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)


class RedisLogClient:
    """`evflow.log.protocol.LogClient` over Redis."""

    def __init__(self, url: str, connector: Connector = connect_blocking) -> None:
        self.url = url
        self._address = parse(url)
        self._connector = connector
        self._transport: Transport | None = None
        self._resting: tuple[float, tuple[int, int, int]] | None = None
        self._offset_us = 0
        self._compared_s: float | None = None

    def report(self, shard: str, run: RunId, payload: bytes, *, patience_s: float = REPORT_PATIENCE_S) -> bool:
        """See `LogClient.report`."""
        operation = commands.report(shard, run, payload)
        return self._repeated(operation, operation, patience_s)

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
        return self._do(flow_commands.request_run(flow, payload, minimum, expected, change, deployed))

    def offer_run(self, entry: RunEntry, payload: bytes, *, patience_s: float = REPORT_PATIENCE_S) -> bool:
        """See `LogClient.offer_run`."""
        first = flow_commands.offer_run(entry, payload, only_missing=False)
        return self._repeated(first, flow_commands.offer_run(entry, payload, only_missing=True), patience_s)

    def counter(self, flow: FlowName) -> int:
        """See `LogClient.counter`."""
        return self._do(flow_commands.run_counter(flow))[0]

    def index_run(self, entry: RunEntry) -> None:
        """See `LogClient.index_run`."""
        self._do(flow_commands.index_run(entry))

    def flows(self) -> list[FlowName]:
        """See `LogClient.flows`."""
        return self._do(flow_commands.flows())

    def runs(self, flow: FlowName, limit: int | None = None) -> list[RunEntry]:
        """See `LogClient.runs`."""
        if limit is None:
            return self._do(flow_commands.all_index_lines(flow))
        highest, lines = self._do(flow_commands.run_counter(flow))
        if lines <= max(limit, _INDEX_BATCH):
            return self._do(flow_commands.all_index_lines(flow))[:limit]
        # Numbers are dense but for what archives and gaps took: the newest lie just below the counter.
        found: list[RunEntry] = []
        while highest > 0 and len(found) < min(limit, lines):
            numbers = range(highest, max(0, highest - _INDEX_BATCH), -1)
            lines_found = self._do(flow_commands.index_lines(flow, numbers))
            found.extend(lines_found)
            highest -= _INDEX_BATCH
        return found[:limit]

    def run(self, run: RunId) -> RunEntry | None:
        """See `LogClient.run`."""
        lines = self._do(flow_commands.index_lines(run.flow, (run.number,)))
        return lines[0] if lines else None

    def head(self, shard: str, run: RunId) -> Head:
        """See `LogClient.head`."""
        return self._do(commands.head(shard, run))

    def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogClient.read`."""
        return self._do(commands.read(shard, run, after, limit))

    def pages(self, shard: str, run: RunId, after: int = 0, limit: int = PAGE_EVENTS) -> Iterator[list[StoredEvent]]:
        """See `LogClient.pages`. Most logs are one page; what is longer is read over a connection of its own."""
        page = self.read(shard, run, after, limit)
        if page:
            yield page
        if len(page) < limit:
            return
        connection = self._connector(self._address)
        try:
            operation = commands.read(shard, run, page[-1].seq, limit)
            for reply in connection.stream(operation.commands[0], commands.following_page(shard, run, limit)):
                found = commands.finished(operation, [reply], connection.where)
                if found:
                    yield found
                    page = found
        finally:
            connection.close()
        # Behind a full page there is nothing, or what is there is not at this server: `read` knows where else to look.
        while len(page) == limit and (page := self.read(shard, run, page[-1].seq, limit)):
            yield page

    def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """See `LogClient.follow`."""
        return self._wait(commands.follow(shard, run, after, timeout_s, 5_000), timeout_s)

    def dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """See `LogClient.dropped`."""
        return self._do(commands.dropped(shard, run))

    def owner(self, shard: str) -> tuple[str, float] | None:
        """See `LogClient.owner`."""
        return self._do(commands.lease_owner(shard))

    def bury(self, shard: str, owner: str) -> None:
        """See `LogClient.bury`."""
        self._do(commands.bury(shard, owner))

    def append_flow(self, flow: FlowName, expected: Seq, payload: bytes, change: FlowChange | None = None) -> Seq:
        """See `LogClient.append_flow`."""
        return self._do(flow_commands.append_flow(flow, expected, payload, change))

    def flow_events(self, flow: FlowName, after: int = 0, limit: int = 5_000) -> list[FlowEvent]:
        """See `LogClient.flow_events`."""
        return self._do(flow_commands.flow_events(flow, after, limit))

    def flow_marks(self, flow: FlowName) -> tuple[int, ...] | None:
        """See `LogClient.flow_marks`."""
        return self._do(flow_commands.flow_marks(flow))

    def flow_seq(self, flow: FlowName) -> Seq:
        """See `LogClient.flow_seq`."""
        return self._do(flow_commands.flow_seq(flow))

    def flow_seqs(self, flows: Sequence[FlowName]) -> list[Seq]:
        """See `LogClient.flow_seqs`."""
        return self._do(flow_commands.flow_seqs(flows)) if flows else []

    def tags(self, run: RunId) -> tuple[str, ...] | None:
        """See `LogClient.tags`."""
        return self._do(flow_commands.tags(run))

    def all_tags(self, flow: FlowName) -> dict[RunNumber, tuple[str, ...]]:
        """See `LogClient.all_tags`."""
        return self._do(flow_commands.all_tags(flow))

    def deployments(self, flow: FlowName) -> dict[str, bytes]:
        """See `LogClient.deployments`."""
        return self._do(flow_commands.deployments(flow))

    def backfills(self, flow: FlowName) -> dict[int, bytes]:
        """See `LogClient.backfills`."""
        return self._do(flow_commands.backfills(flow))

    def backfilled(self) -> list[FlowName]:
        """See `LogClient.backfilled`."""
        return self._do(flow_commands.backfilled())

    def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """See `LogClient.publish`."""
        return self._do(commands.publish(event_id, body, keep))

    def published(self, after_us: int = 0, limit: int = 1_000, timeout_s: float = 0.0) -> list[PublishedEvent]:
        """See `LogClient.published`."""
        operation = commands.published(after_us, limit, timeout_s)
        return self._do(operation) if timeout_s <= 0 else self._wait(operation, timeout_s)

    def event_bounds(self) -> EventBounds:
        """See `LogClient.event_bounds`."""
        return self._do(commands.event_bounds())

    def looked_at(self) -> dict[FlowName, int]:
        """See `LogClient.looked_at`."""
        return self._do(commands.looked_at())

    def look_at(self, until_us: dict[FlowName, int]) -> None:
        """See `LogClient.look_at`."""
        if until_us:
            self._do(commands.look_at(until_us))

    def installation(self) -> str:
        """See `LogClient.installation`."""
        return self._do(commands.installation(os.urandom(8).hex()))

    def schedulers(self, name: str = "", ttl_s: float = 0.0) -> list[str]:
        """See `LogClient.schedulers`."""
        return self._do(commands.schedulers(name, ttl_s))

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """See `LogClient.sources`."""
        from evflow.log import sources  # one command asks for it

        return self._do(sources.said())

    def said_waits(self, shards: Sequence[str]) -> Mapping[str, Sequence[Said]]:
        """See `LogClient.said_waits`."""
        from evflow.log import said_waits  # few commands ask for it

        return self._do(said_waits.said(shards)) if shards else {}

    def limits(self) -> dict[str, int]:
        """See `LogClient.limits`."""
        return self._do(limits.table())

    def set_limit(self, name: str, most: int | None) -> None:
        """See `LogClient.set_limit`."""
        self._do(limits.set_most(name, most))

    def limited(self) -> list[str]:
        """See `LogClient.limited`."""
        return self._do(limits.names())

    def holders(self, name: str) -> list[Holder]:
        """See `LogClient.holders`."""
        return self._do(limits.holders(name))

    def line(self, name: str) -> list[Waiter]:
        """See `LogClient.line`."""
        return self._do(limits.line(name))

    def standings(self, names: Sequence[str]) -> list[tuple[list[Holder], list[Waiter]]]:
        """See `LogClient.standings`."""
        return self._do(limits.standings(names)) if names else []

    def wake(self, shards: Sequence[str]) -> None:
        """See `LogClient.wake`."""
        if shards:
            self._do(limits.wake(shards))

    def now_us(self) -> Micros:
        """See `LogClient.now_us`."""
        before_us = clock.now_us()
        server_us = self._do(commands.server_time())
        self._offset_us = server_us - (before_us + clock.now_us()) // 2
        self._compared_s = clock.monotonic_s()
        return server_us

    def clock_us(self) -> Micros:
        """See `LogClient.clock_us`."""
        if self._compared_s is None or clock.monotonic_s() - self._compared_s > _COMPARE_EVERY_S:
            return self.now_us()
        return Micros(clock.now_us() + self._offset_us)

    def is_connected(self) -> bool:
        """Whether there is a connection that has not been seen to end; one that has is closed: what comes next makes another one."""
        transport = self._transport
        if transport is not None and transport.hung_up:
            transport.close()
        return transport is not None and not transport.closed

    def close(self) -> None:
        """See `LogClient.close`."""
        if self._resting is not None:
            self._wake()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def rest(self) -> None:
        """Keep the connection while code of others runs, which may close its descriptor and open another file by that number.

        The next call sees whether it is the same one still. Only the thin client's can be told; any other is closed.
        """
        if not isinstance(self._transport, Wire) or self._transport.closed:
            self.close()
            return
        try:
            self._resting = clock.monotonic_s(), self._transport.place()
        except OSError:  # somebody closed its descriptor
            self._transport.forget()

    def _wake(self) -> None:
        (since_s, place), self._resting = self._resting or (0.0, None), None
        if isinstance(self._transport, Wire) and not self._transport.closed:
            with suppress(OSError):
                if self._transport.place() == place:
                    if clock.monotonic_s() - since_s > REST_S:
                        self._transport.close()
                    return
            self._transport.forget()

    def _connected(self) -> Transport:
        if self._resting is not None:
            self._wake()
        if self._transport is None or self._transport.closed:
            self._transport = self._connector(self._address)
        return self._transport

    def _repeated(self, first: Operation[T], again: Operation[T], patience_s: float) -> T:
        """Carry `first` out; while the server is away and the patience lasts, `again` in its place."""
        operation = first
        for pause_s in _pauses(patience_s):
            try:
                return self._do(operation)
            except LogUnavailable as error:
                if not error.transient:
                    raise
            operation = again
            time.sleep(pause_s)
        return self._do(operation)

    def _do(self, operation: Operation[T]) -> T:
        return perform(self._connected(), operation)

    def _wait(self, operation: Operation[T], timeout_s: float) -> T:
        connection = self._connected()
        reply = connection.call_blocking(timeout_s, *operation.commands[0])
        return commands.finished(operation, [reply], connection.where)


def _pauses(patience_s: float) -> Iterator[float]:
    """Waits between tries, growing, until the patience is over; the try after the last one is the last."""
    deadline_s = clock.monotonic_s() + patience_s
    number = 0
    while clock.monotonic_s() < deadline_s:
        yield _PAUSES_S[min(number, len(_PAUSES_S) - 1)]
        number += 1
