"""The thin client: one socket, hiredis, and the server's replies as they are.

It exists because redis-py takes 0.3 s to import and this takes a few milliseconds, in processes that somebody
waits for: every task, every command. It has no pool and no reconnection: a `Wire` whose connection broke stays
broken, and its holder decides. TLS, Sentinel and Cluster are redis-py's (`evflow.log.redis_py`). Past 300 lines
this module would be the wrong idea.

The protocol is RESP2, fixed: it needs no HELLO and so no extra round trip, it never pushes, and its replies have
one shape on every server (bytes, int, None, lists). The async half is `evflow.log.wire_async`.
"""

import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NoReturn, Protocol, cast

import hiredis

from evflow import config
from evflow.log.errors import LogConnectionLost, LogForeign, LogRefused, LogTimeout, LogUnreachable, error_of
from evflow.log.url import Address, parse

type_of_reply = Any
Argument = str | bytes | int | float
Command = Sequence[Argument]
Following = Callable[[type_of_reply], Command | None]
"""The command that follows from a reply, or None."""

CONNECT_TIMEOUT_S = 5.0
_CHUNK_BYTES = 256 * 1024
_pack: Callable[[tuple[Argument, ...]], bytes] = cast("Any", hiredis).pack_command  # its stub allows one word only


def reply_timeout_s() -> float:
    """How long a command may take, beside the wait that it asks for, before its connection counts as broken.

    A live server answers in milliseconds; one that hangs does not break its connections, and nothing but the time says so.
    Files of settings are read for it once: it is asked for at each command.
    """
    return _set_timeout_s(os.environ.get("EVFLOW_LOG_TIMEOUT"))


@cache
def _set_timeout_s(_variable: str | None) -> float:
    timeout_s: float = config.get("log_timeout")
    return timeout_s


class Transport(Protocol):
    """What a blocking client of the log needs of a connection."""

    where: str

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    @property
    def hung_up(self) -> bool:
        """Whether it is gone, or the server has ended it, as far as this machine knows; asked while no reply is awaited."""
        ...

    def call(self, *command: Argument) -> type_of_reply:
        """Send one command and return its reply.

        Raises:
            LogUnavailable: The server refused it, or the connection broke; one subclass per reason.
            ScriptMissing: EVALSHA named a script that the server does not hold.
        """
        ...

    def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """Send commands at once and return their replies in order; error replies stand in it as exceptions."""
        ...

    def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """As `call`, for a command that may wait at the server for `wait_s`."""
        ...

    def stream(self, first: Command, following: "Following") -> Iterator[type_of_reply]:
        """Send a command and hand on its reply, and so on with the command that follows from a reply, until none does.

        Each command is sent before the reply ahead of it is handed on, so that the server works while the caller does. The
        connection is of no other use until the last reply; who stops before closes it.
        """
        ...

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        ...


def one_after_the_other(transport: Transport, first: Command, following: "Following") -> Iterator[type_of_reply]:
    """`Transport.stream` where commands cannot be sent ahead."""
    command: Command | None = first
    while command is not None:
        reply = transport.call(*command)
        yield reply
        command = following(reply)


def introduction(address: Address) -> list[Command]:
    """The commands that a new connection begins with."""
    commands: list[Command] = []
    if address.username is not None:
        commands.append(("AUTH", address.username, address.password or ""))
    elif address.password is not None:
        commands.append(("AUTH", address.password))
    if address.db:
        commands.append(("SELECT", address.db))
    return commands


def new_reader() -> hiredis.Reader:
    """A parser of replies."""
    return hiredis.Reader()


def packed(command: Command) -> bytes:
    """A command as it goes over the wire."""
    return _pack(tuple(command))


def connect_socket(address: Address, timeout_s: float) -> socket.socket:
    """A connected, blocking socket.

    Raises:
        LogUnreachable: Nobody listens there.
    """
    try:
        if address.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout_s)
                sock.connect(address.path)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection((address.host, address.port), timeout=timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        raise LogUnreachable(address.shown, reason_of(error)) from error
    return sock


def reason_of(error: OSError) -> str:
    """An operating system's error in a few words."""
    # asyncio and getaddrinfo put texts of their own beside the number.
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


class Wire:
    """A blocking connection to the server. Not for two threads at once."""

    __slots__ = ("_reader", "_sock", "_timeout_s", "where")

    def __init__(self, sock: socket.socket, where: str, *, timeout_s: float | None = None) -> None:
        self.where = where
        self._sock: socket.socket | None = sock
        self._reader = new_reader()
        self._timeout_s = reply_timeout_s() if timeout_s is None else timeout_s
        sock.settimeout(self._timeout_s)

    @classmethod
    def connect(cls, url: str | Address, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, timeout_s: float | None = None) -> "Wire":
        """Connect to a `unix://` or `redis://` server and say who we are.

        Raises:
            LogUnavailable: Nobody listens, or the server refuses us.
            LogUrlInvalid: The URL names no server.
        """
        address = parse(url) if isinstance(url, str) else url
        if address.scheme == "rediss":
            raise LogRefused(address.shown, "TLS is not for the thin client.")
        timeout_s = reply_timeout_s() if timeout_s is None else timeout_s  # raises: a socket would be left open
        wire = cls(connect_socket(address, connect_timeout_s), address.shown, timeout_s=timeout_s)
        hello = introduction(address)
        if hello:
            for reply in wire.pipeline(hello):
                if isinstance(reply, Exception):
                    wire.close()
                    raise reply
        return wire

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._sock is None

    @property
    def hung_up(self) -> bool:
        """See `Transport.hung_up`."""
        if self._sock is None:
            return True
        look = select.poll()
        look.register(self._sock, select.POLLIN)
        return bool(look.poll(0))

    def call(self, *command: Argument) -> type_of_reply:
        """Send one command and return its reply: see `Transport.call`."""
        self._send(packed(command))
        return self._checked(self._receive(command[0], self._timeout_s))

    def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """Send commands at once: see `Transport.pipeline`."""
        self._send(b"".join([packed(command) for command in commands]))
        return [self._translated(self._receive(command[0], self._timeout_s)) for command in commands]

    def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """Send a command that waits at the server: see `Transport.call_blocking`."""
        deadline_s = wait_s + self._timeout_s
        self._send(packed(command))
        try:
            self._live().settimeout(deadline_s)
            return self._checked(self._receive(command[0], deadline_s))
        finally:
            if self._sock is not None:
                self._sock.settimeout(self._timeout_s)

    def stream(self, first: Command, following: Following) -> Iterator[type_of_reply]:
        """Send commands one ahead: see `Transport.stream`."""
        command: Command | None = first
        self._send(packed(first))
        while command is not None:
            reply = self._checked(self._receive(command[0], self._timeout_s))
            command = following(reply)
            if command is not None:
                self._send(packed(command))
            yield reply

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def place(self) -> tuple[int, int, int]:
        """Its descriptor, and what that is: no other open file has the same.

        Raises:
            OSError: Somebody closed it.
        """
        number = self._live().fileno()
        file = os.fstat(number)
        return number, file.st_dev, file.st_ino

    def forget(self) -> None:
        """Be closed, and leave the descriptor to whoever has it now."""
        if self._sock is not None:
            self._sock.detach()
            self._sock = None

    def _live(self) -> socket.socket:
        if self._sock is None:
            raise LogConnectionLost(self.where, "it is closed")
        return self._sock

    def _send(self, data: bytes) -> None:
        sock = self._live()
        try:
            sock.sendall(data)
        except TimeoutError as error:
            self.close()
            raise LogTimeout(self.where, "a write", self._timeout_s) from error
        except OSError as error:
            self.close()
            raise LogConnectionLost(self.where, reason_of(error)) from error

    def _receive(self, name: Argument, timeout_s: float) -> type_of_reply:
        reader, sock = self._reader, self._live()
        try:
            # RESP2 has no booleans: False is hiredis's word for "not all there yet".
            while (reply := reader.gets()) is False:
                reader.feed(sock.recv(_CHUNK_BYTES) or self._ended())
        except TimeoutError as error:
            self.close()
            raise LogTimeout(self.where, str(name), timeout_s) from error
        except hiredis.ProtocolError as error:
            self.close()
            raise LogForeign(self.where, str(error)) from error
        except OSError as error:
            self.close()
            raise LogConnectionLost(self.where, reason_of(error)) from error
        except BaseException:
            # An interrupt in the middle of a reply: the next one could not be told from this one's rest.
            self.close()
            raise
        return reply

    def _ended(self) -> NoReturn:
        self.close()
        raise LogConnectionLost(self.where)

    def _translated(self, reply: type_of_reply) -> type_of_reply:
        return error_of(self.where, str(reply)) if isinstance(reply, hiredis.ReplyError) else reply

    def _checked(self, reply: type_of_reply) -> type_of_reply:
        if isinstance(reply, hiredis.ReplyError):
            raise error_of(self.where, str(reply))
        return reply
