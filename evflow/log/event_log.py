"""The log for the owner of a shard, in an event loop.

Two connections: one for commands, which any number of coroutines share, and one for the wait for reports, which
blocks at the server. Each is made when it is needed; one that broke is replaced at the next call, but no command
is ever repeated here: `evflow.log.writer` decides what may be.
"""

from collections.abc import Sequence
from typing import TypeVar

import anyio

from evflow import clock
from evflow.core.ids import Micros, RunId
from evflow.core.line import NO_RANK, Rank
from evflow.log import commands, flow_commands, limits
from evflow.log.commands import Operation
from evflow.log.durability import why_not_fsynced
from evflow.log.errors import LogAccessDenied, NotDurable
from evflow.log.keys import BARRIER, shard_keys
from evflow.log.protocol import (
    KEEP,
    AppendCall,
    Durability,
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
from evflow.log.scripts import load_scripts
from evflow.log.transport import AsyncConnector, AsyncTransport, connect_async, perform_async
from evflow.log.url import parse

T = TypeVar("T")
load_scripts()  # Now: the event loop is no place to read files.
DURABLE_TIMEOUT_S = 10.0
"""For a disk or a replica to follow: `appendfsync everysec` alone may take two seconds."""

PUBLISHED_BATCH = 1_000
"""Published events that are read at once."""


class RedisEventLog:
    """`evflow.log.protocol.EventLog` over Redis."""

    def __init__(self, url: str, connector: AsyncConnector = connect_async) -> None:
        self.url = url
        self.generation = 0
        self._address = parse(url)
        self._connector = connector
        self._commands: AsyncTransport | None = None
        self._waiting: AsyncTransport | None = None
        self._offset_us = 0
        self._clock = clock.Onward()
        self._wrote = False
        self._policy = ""
        self._barrier = BARRIER

    async def open(self) -> None:
        """Connect and compare clocks.

        Raises:
            LogUnavailable: The server cannot be used.
        """
        await self._connected()

    async def take(self, shard: str, owner: str, ttl_s: float, since: int = 0) -> Lease:
        """See `EventLog.take`."""
        if self._address.is_cluster:  # a wait is for the server that has the shard
            self._barrier = shard_keys(shard).barrier
        return await self._write(commands.take(shard, owner, ttl_s, since))

    async def renew(self, lease: Lease) -> None:
        """See `EventLog.renew`."""
        await self._write(commands.renew(lease))

    async def release(self, lease: Lease) -> None:
        """See `EventLog.release`."""
        await self._write(commands.release(lease))

    async def append(self, lease: Lease, call: AppendCall) -> Head:
        """See `EventLog.append`."""
        return await self._write(commands.append(lease, call))

    async def wait_durable(self, level: Durability) -> None:
        """See `EventLog.wait_durable`."""
        if level == "everysec":
            return
        connection = await self._connected()
        # The server waits for this connection's writes. What was written before a reconnection is covered by one
        # more write on the new one, since both disk and replicas take writes in order.
        barrier = "" if self._wrote else self._barrier
        if level == "replicated":
            await self._wait(connection, commands.replicated(connection.where, DURABLE_TIMEOUT_S, barrier))
        elif await self._fsync_policy(connection) != "always":
            await self._wait(connection, commands.fsynced(connection.where, DURABLE_TIMEOUT_S, barrier))

    async def head(self, shard: str, run: RunId) -> Head:
        """See `EventLog.head`."""
        return await self._do(commands.head(shard, run))

    async def heads(self, shard: str, runs: Sequence[RunId]) -> list[Head]:
        """See `EventLog.heads`."""
        return await self._do(commands.heads(shard, runs))

    async def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return await self._do(commands.read(shard, run, after, limit))

    async def receive(self, shard: str, after: bytes, timeout_s: float) -> list[Inbound]:
        """See `EventLog.receive`; one wait at a time."""
        return await self._block(commands.receive(shard, after, timeout_s), timeout_s)

    async def active(self, shard: str) -> list[RunId]:
        """See `EventLog.active`."""
        return await self._do(commands.active(shard))

    async def now_us(self) -> Micros:
        """See `EventLog.now_us`."""
        await self._connected()
        return self.clock_us()

    def clock_us(self) -> Micros:
        """The server's clock as of the last connection: this machine's, moved by the difference; never backwards, see `evflow.clock.Onward`."""
        return Micros(self._clock.read(clock.now_us() + self._offset_us, clock.monotonic_us()))

    async def index_run(self, entry: RunEntry) -> None:
        """See `EventLog.index_run`."""
        await self._write(flow_commands.index_run(entry))

    async def acquire(self, name: str, most: int, shard: str, holders: Sequence[str], rank: Rank = NO_RANK) -> Grants:
        """See `EventLog.acquire`."""
        grants, called = await self._write(limits.acquire(name, most, shard, holders, rank))
        if called:
            await self._write(limits.wake(called))
        return grants

    async def hold(self, name: str, shard: str, holders: Sequence[str]) -> Grants:
        """See `EventLog.hold`."""
        grants, _ = await self._write(limits.hold(name, shard, holders))
        return grants

    async def give_back(self, name: str, holders: Sequence[str]) -> None:
        """See `EventLog.give_back`."""
        waiting = await self._write(limits.release(name, holders))
        if waiting:
            await self._write(limits.wake(waiting))

    async def limits(self) -> dict[str, int]:
        """See `EventLog.limits`."""
        return await self._do(limits.table())

    async def limited(self) -> tuple[dict[str, int], list[str]]:
        """See `EventLog.limited`."""
        return await self._do(limits.known())

    async def holders(self, name: str) -> list[Holder]:
        """See `EventLog.holders`."""
        return await self._do(limits.holders(name))

    async def owner(self, shard: str) -> tuple[str, float] | None:
        """See `EventLog.owner`."""
        return await self._do(commands.lease_owner(shard))

    async def report(self, shard: str, run: RunId, payload: bytes) -> bool:
        """See `EventLog.report`."""
        return await self._write(commands.report(shard, run, payload))

    async def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
        """See `EventLog.publish`."""
        return await self._write(commands.publish(event_id, body, keep))

    async def published(self, after_us: int, timeout_s: float) -> list[PublishedEvent]:
        """See `EventLog.published`; one wait at a time."""
        return await self._block(commands.published(after_us, PUBLISHED_BATCH, timeout_s), timeout_s)

    async def aclose(self) -> None:
        """See `EventLog.aclose`."""
        for connection in (self._commands, self._waiting):
            if connection is not None:
                await connection.aclose()

    async def _connected(self) -> AsyncTransport:
        connection = self._commands
        if connection is None or connection.closed:
            connection = await self._connector(self._address)
            before_us = clock.now_us()
            server_us = await perform_async(connection, commands.server_time())
            self._offset_us = server_us - (before_us + clock.now_us()) // 2
            if self._commands is not None and not self._commands.closed:
                # Another coroutine was faster.
                await connection.aclose()
                return self._commands
            was_lost = self._commands is not None
            self._commands, self._wrote, self._policy = connection, False, ""
            self.generation += 1
            if was_lost and self._waiting is not None:  # who hung here hangs there, and would wait on for as long as it asked to
                await self._waiting.aclose()
        return connection

    async def _fsync_policy(self, connection: AsyncTransport) -> str:
        """When the server syncs its file: `always` (before it answers), or a wait for the disk is needed.

        Raises:
            NotDurable: It never does, or cannot be waited for.
        """
        if not self._policy:
            try:
                self._policy = await perform_async(connection, commands.fsync_policy())
            except LogAccessDenied:
                self._policy = "hidden"  # CONFIG is not for us: the wait itself will tell.
            if self._policy == "everysec" and not await perform_async(connection, commands.knows_waitaof()):
                self._policy = "unknown"
        problem = why_not_fsynced(self._policy)
        if problem:
            raise NotDurable(connection.where, "fsync", problem)
        return self._policy

    async def _do(self, operation: Operation[T]) -> T:
        return await perform_async(await self._connected(), operation)

    async def _write(self, operation: Operation[T]) -> T:
        connection = await self._connected()
        result = await perform_async(connection, operation)
        if connection is self._commands:
            self._wrote = True
        return result

    async def _block(self, operation: Operation[T], timeout_s: float) -> T:
        """Carry out an operation that may wait at the server."""
        if timeout_s <= 0:
            return await self._do(operation)
        if self._waiting is None or self._waiting.closed:
            self._waiting = await self._connector(self._address)
        connection = self._waiting
        try:
            reply = await connection.call_blocking(timeout_s, *operation.commands[0])
        except BaseException:
            # Cancelled or broken: a wait that goes on at the server would hold up the next one.
            with anyio.CancelScope(shield=True):
                await connection.aclose()
            raise
        return commands.finished(operation, [reply], connection.where)

    async def _wait(self, connection: AsyncTransport, operation: Operation[None]) -> None:
        replies = [await connection.call_blocking(DURABLE_TIMEOUT_S, *command) for command in operation.commands]
        commands.finished(operation, replies, connection.where)
