"""The async half of the thin client: one socket in the event loop, replies in the order of the commands.

Several coroutines may call at once: their commands share the connection, and replies find their callers by
order. A caller that is cancelled leaves its place in the queue, so that the next reply still finds its own
caller; nothing is ever torn out of the middle of a stream.

The socket is read once right after each write: a local server has often answered by then, and the call costs no
turn of the loop at all, half of what asyncio's transports or anyio's streams cost
(`docs/decisions/0010-the-thin-client.md` has the figures). There is no task in here, so there is nothing to be
structured; a reply that is overdue breaks the connection.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis

from evflow.log.errors import LogConnectionLost, LogForeign, LogRefused, LogTimeout, LogUnavailable, LogUnreachable, error_of
from evflow.log.url import Address, parse
from evflow.log.wire import (
    CONNECT_TIMEOUT_S,
    Argument,
    Command,
    introduction,
    new_reader,
    packed,
    reason_of,
    reply_timeout_s,
    type_of_reply,
)

_CHUNK_BYTES = 256 * 1024
_LONGEST_SPRINT = 32
"""Calls answered at once, one after the other, before the loop's other tasks get their turn."""


class _Waiting:
    """A caller and the replies that it has so far."""

    __slots__ = ("count", "deadline_s", "future", "lost", "name", "replies", "timeout_s")

    def __init__(self, count: int, name: Argument, timeout_s: float) -> None:
        self.count = count
        self.name = name
        self.timeout_s = timeout_s
        self.deadline_s = 0.0
        self.replies: list[type_of_reply] = []
        self.future: asyncio.Future[None] | None = None
        self.lost: LogUnavailable | None = None

    def wake(self) -> None:
        """All replies are there, or never will be."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class AsyncWire:
    """A connection to the server for one event loop."""

    def __init__(self, sock: socket.socket, where: str, *, timeout_s: float | None = None) -> None:
        self.where = where
        self._sock = sock
        self._fd = sock.fileno()
        self._timeout_s = reply_timeout_s() if timeout_s is None else timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = new_reader()
        self._waiting: deque[_Waiting] = deque()
        self._unsent = bytearray()
        self._at_once = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lost: LogUnavailable | None = None
        self._loop.add_reader(self._fd, self._read)

    @classmethod
    async def connect(
        cls, url: str | Address, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, timeout_s: float | None = None
    ) -> "AsyncWire":
        """Connect to a `unix://` or `redis://` server and say who we are.

        Raises:
            LogUnavailable: Nobody listens, or the server refuses us.
            LogUrlInvalid: The URL names no server.
        """
        address = parse(url) if isinstance(url, str) else url
        if address.scheme == "rediss":
            raise LogRefused(address.shown, "TLS is not for the thin client.")
        timeout_s = reply_timeout_s() if timeout_s is None else timeout_s  # raises: a socket would be left open
        try:
            async with asyncio.timeout(connect_timeout_s):
                sock = await _connected_socket(address)
        except TimeoutError as error:
            raise LogUnreachable(address.shown, f"no connection within {connect_timeout_s:g} s") from error
        except OSError as error:
            raise LogUnreachable(address.shown, reason_of(error)) from error
        wire = cls(sock, address.shown, timeout_s=timeout_s)
        hello = introduction(address)
        if hello:
            try:
                replies = await wire.pipeline(hello)
            except BaseException:  # cancelled: a Sentinel that is silent is passed over
                await wire.aclose()
                raise
            for reply in replies:
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
        (reply,) = await self._exchange(packed(command), 1, command[0], wait_s + self._timeout_s)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Close the connection; whoever waits for a reply is told. A second time does nothing."""
        self._fail(LogConnectionLost(self.where, "it is closed"))

    async def _exchange(self, data: bytes, count: int, name: Argument, timeout_s: float) -> list[type_of_reply]:
        if self._lost is not None:
            raise LogConnectionLost(self.where, "it is closed")
        waiting = _Waiting(count, name, timeout_s)
        self._waiting.append(waiting)
        self._write(data)
        self._read()
        if len(waiting.replies) < count and waiting.lost is None:
            waiting.deadline_s = self._loop.time() + timeout_s
            waiting.future = self._loop.create_future()
            # One timer for all: setting and cancelling one for each call would cost as much as the call.
            if self._timer is None or waiting.deadline_s < self._timer.when():
                self._look_again(waiting.deadline_s)
            await waiting.future
            self._at_once = 0
        elif (at_once := self._at_once + 1) < _LONGEST_SPRINT:
            self._at_once = at_once
        else:
            self._at_once = 0
            await asyncio.sleep(0)
        if waiting.lost is not None:
            raise waiting.lost
        return waiting.replies

    def _write(self, data: bytes) -> None:
        try:
            sent = 0 if self._unsent else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(LogConnectionLost(self.where, reason_of(error)))
            return
        if sent < len(data):
            if not self._unsent:
                self._loop.add_writer(self._fd, self._write_rest)
            self._unsent += data[sent:]

    def _write_rest(self) -> None:
        """Called by the loop: the socket takes more."""
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(LogConnectionLost(self.where, reason_of(error)))
            return
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _read(self) -> None:
        """Called by the loop, and after each write: hand the replies that are there to their callers."""
        if self._lost is not None:
            return
        reader, waiting = self._reader, self._waiting
        try:
            data = self._sock.recv(_CHUNK_BYTES)
            if not data:
                self._fail(LogConnectionLost(self.where))
                return
            reader.feed(data)
            # RESP2 has no booleans: False is hiredis's word for "not all there yet".
            while (reply := reader.gets()) is not False:
                first = waiting[0]
                first.replies.append(error_of(self.where, str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
                if len(first.replies) == first.count:
                    waiting.popleft()
                    first.wake()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(LogConnectionLost(self.where, reason_of(error)))
        except hiredis.ProtocolError as error:
            self._fail(LogForeign(self.where, str(error)))
        except IndexError:
            self._fail(LogForeign(self.where, "a reply that nobody asked for"))

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
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._sock.close()
        while self._waiting:
            waiting = self._waiting.popleft()
            waiting.lost = why
            waiting.wake()


async def _connected_socket(address: Address) -> socket.socket:
    """A connected, non-blocking socket; raises OSError."""
    loop = asyncio.get_running_loop()
    if address.scheme == "unix":
        return await _connect(socket.AF_UNIX, address.path)
    problem = OSError(f"{address.host} has no address")
    for family, _, _, _, place in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        try:
            sock = await _connect(family, place)
        except OSError as error:
            problem = error
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
    raise problem


async def _connect(family: int, place: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock
