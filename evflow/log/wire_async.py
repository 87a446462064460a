"""The async half of the thin client: one socket, an asyncio protocol, replies in the order of the commands.

Several coroutines may call at once: their commands share the connection, and replies find their callers by
order. A caller that is cancelled leaves its place in the queue, so that the next reply still finds its own
caller; nothing is ever torn out of the middle of a stream.

An asyncio protocol and not anyio's streams: see `docs/decisions/0010-the-thin-client.md` for the figures. There
is no task in here, so there is nothing to be structured; a reply that is overdue breaks the connection.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import hiredis

from evflow.log.errors import LogConnectionLost, LogForeign, LogRefused, LogTimeout, LogUnavailable, LogUnreachable, error_of
from evflow.log.url import Address, parse
from evflow.log.wire import (
    BLOCKING_MARGIN_S,
    CONNECT_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    Argument,
    Command,
    introduction,
    new_reader,
    packed,
    reason_of,
    type_of_reply,
)


class _Waiting:
    """A caller and the replies that it has so far."""

    __slots__ = ("count", "deadline_s", "future", "name", "replies", "timeout_s")

    def __init__(
        self, future: "asyncio.Future[list[type_of_reply]]", count: int, name: Argument, timeout_s: float, deadline_s: float
    ) -> None:
        self.future = future
        self.count = count
        self.name = name
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.replies: list[type_of_reply] = []


class AsyncWire(asyncio.Protocol):
    """A connection to the server for one event loop."""

    def __init__(self, where: str, *, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self.where = where
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = new_reader()
        self._waiting: deque[_Waiting] = deque()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lost: LogUnavailable | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def connect(
        cls, url: str | Address, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, timeout_s: float = REPLY_TIMEOUT_S
    ) -> "AsyncWire":
        """Connect to a `unix://` or `redis://` server and say who we are.

        Raises:
            LogUnavailable: Nobody listens, or the server refuses us.
            LogUrlInvalid: The URL names no server.
        """
        address = parse(url) if isinstance(url, str) else url
        if address.scheme == "rediss":
            raise LogRefused(address.shown, "TLS is not for the thin client.")
        loop = asyncio.get_running_loop()
        wire = cls(address.shown, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(connect_timeout_s):
                if address.scheme == "unix":
                    await loop.create_unix_connection(lambda: wire, address.path)
                else:
                    await loop.create_connection(lambda: wire, address.host, address.port)
        except TimeoutError as error:
            raise LogUnreachable(wire.where, f"no connection within {connect_timeout_s:g} s") from error
        except OSError as error:
            raise LogUnreachable(wire.where, reason_of(error)) from error
        hello = introduction(address)
        if hello:
            for reply in await wire.pipeline(hello):
                if isinstance(reply, Exception):
                    await wire.aclose()
                    raise reply
        return wire

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    async def call(self, *command: Argument) -> type_of_reply:
        """Send one command and return its reply: see `evflow.log.wire.Transport.call`."""
        (reply,) = await self._exchange(packed(command), 1, command[0], self._timeout_s)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """Send commands at once; error replies stand in the result as exceptions."""
        data = b"".join([packed(command) for command in commands])
        return await self._exchange(data, len(commands), commands[0][0], self._timeout_s)

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """Send a command that may wait at the server for `wait_s`; commands after it wait too."""
        (reply,) = await self._exchange(packed(command), 1, command[0], wait_s + BLOCKING_MARGIN_S)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Close the connection; whoever waits for a reply is told. A second time does nothing."""
        self._fail(LogConnectionLost(self.where, "it is closed"))
        # No deadline: the transport was aborted, and its end is the loop's next iteration.
        await asyncio.shield(self._gone)

    def _exchange(self, data: bytes, count: int, name: Argument, timeout_s: float) -> "asyncio.Future[list[type_of_reply]]":
        transport = self._transport
        if self._lost is not None or transport is None:
            raise LogConnectionLost(self.where, "it is closed")
        waiting = _Waiting(self._loop.create_future(), count, name, timeout_s, self._loop.time() + timeout_s)
        self._waiting.append(waiting)
        transport.write(data)
        # One timer for all: setting and cancelling one for each call would cost as much as the call.
        if self._timer is None or waiting.deadline_s < self._timer.when():
            self._look_again(waiting.deadline_s)
        return waiting.future

    def _look_again(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        """Called by the timer: break the connection if a reply is overdue."""
        self._timer = None
        if not self._waiting:
            return
        first = min(self._waiting, key=lambda waiting: waiting.deadline_s)
        if first.deadline_s <= self._loop.time():
            self._fail(LogTimeout(self.where, str(first.name), first.timeout_s))
        else:
            self._look_again(first.deadline_s)

    def _fail(self, why: LogUnavailable) -> None:
        if self._lost is None:
            self._lost = why
            if self._timer is not None:
                self._timer.cancel()
            if self._transport is None:
                self._end()
            else:
                self._transport.abort()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(why)

    def _end(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    # --- asyncio's side ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the connection stands."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport can write

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: hand the replies in `data` to their callers."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                first = waiting[0]
                first.replies.append(error_of(self.where, str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
                if len(first.replies) == first.count:
                    waiting.popleft()
                    if not first.future.done():
                        first.future.set_result(first.replies)
        except hiredis.ProtocolError as error:
            self._fail(LogForeign(self.where, str(error)))
        except IndexError:
            self._fail(LogForeign(self.where, "a reply that nobody asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the connection ended."""
        self._fail(LogConnectionLost(self.where, reason_of(exc)) if isinstance(exc, OSError) else LogConnectionLost(self.where))
        self._end()
