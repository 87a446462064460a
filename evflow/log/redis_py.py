"""Connections over redis-py: for TLS, and for what it knows besides (Sentinel, Cluster).

Only its connections are used, not its client: no pool, no retry (its default ones would write an event twice), no
parsing by command. What is left is the thin client's behaviour (`evflow.log.wire`), and the same contract suite
runs over both. redis-py takes 0.3 s to import, so nothing imports this module before it is needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from evflow.log.errors import (
    LogAccessDenied,
    LogConnectionLost,
    LogForeign,
    LogTimeout,
    LogUnavailable,
    LogUnreachable,
    error_of,
)
from evflow.log.url import Address, parse
from evflow.log.wire import (
    CONNECT_TIMEOUT_S,
    Argument,
    Command,
    Following,
    one_after_the_other,
    packed,
    reply_timeout_s,
    type_of_reply,
)

_RELEASE = int(redis.__version__.partition(".")[0])
RedisPyConnection = Any
"""A connection of redis-py, whose annotations are too patchy for a strict check."""

# redis-py takes the word that names the condition off the message; it is put back so that one table decides.
_WORDS: Mapping[type[Exception], str] = {
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}


def settings_of(address: Address, socket_timeout_s: float, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> dict[str, Any]:
    """What every connection is told; all that matters, explicitly."""
    settings: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "retry_on_error": [],
        "decode_responses": False,
        "health_check_interval": 0,
        "protocol": 2,
        # Telling the server redis-py's name costs a round trip, and finding out its version reads files.
        **({"driver_info": None} if _RELEASE >= 8 else {"lib_name": None, "lib_version": None}),
    }
    if address.scheme == "unix":
        settings["path"] = address.path
    else:
        settings |= {"host": address.host, "port": address.port, "socket_keepalive": True}
    if address.scheme == "rediss":
        settings |= address.options
        settings["ssl_check_hostname"] = address.options.get("ssl_check_hostname", "true").lower() not in ("0", "no", "false")
    return settings


def reply_error(where: str, error: exceptions.RedisError) -> Exception:
    """The exception for an error reply, in our words."""
    word = next((word for kind, word in _WORDS.items() if isinstance(error, kind)), "")
    text = str(error)
    return error_of(where, text if not word or text.startswith(word) else f"{word} {text}")


def is_reply(error: exceptions.RedisError) -> bool:
    """Whether the server said it (then the connection is sound), as opposed to redis-py."""
    return isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError))


def broken(where: str, error: Exception, command: str, timeout_s: float) -> LogUnavailable:
    """The exception for a connection that broke."""
    if isinstance(error, exceptions.TimeoutError):
        return LogTimeout(where, command, timeout_s)
    if isinstance(error, exceptions.InvalidResponse):
        return LogForeign(where, str(error))
    return LogConnectionLost(where, str(error).rstrip("."))


def refused(address: Address, error: Exception) -> Exception:
    """The exception for a connection that could not be made."""
    where = address.shown
    if isinstance(error, exceptions.AuthenticationError):
        return LogAccessDenied(where, str(error))
    if isinstance(error, exceptions.RedisError) and is_reply(error):
        return reply_error(where, error)
    why = str(error).rstrip(".")
    if isinstance(error, exceptions.TimeoutError) and address.scheme == "rediss":
        why += " (a server that does not speak TLS is silent, too, and is named with redis://)"
    return LogUnreachable(where, why)


class RedisPyTransport:
    """`evflow.log.wire.Transport` over redis-py. Not for two threads at once."""

    def __init__(self, address: Address, timeout_s: float | None = None) -> None:
        self.where = address.shown
        self._address = address
        self._connect_timeout_s = timeout_s or CONNECT_TIMEOUT_S
        self._connection: RedisPyConnection | None = self._connected(timeout_s or reply_timeout_s())
        self._waiting: RedisPyConnection | None = None
        self._waiting_s = 0.0

    @classmethod
    def connect(cls, url: str | Address, *, timeout_s: float | None = None) -> "RedisPyTransport":
        """Connect and say who we are.

        Raises:
            LogUnavailable: Nobody listens, its certificate is wrong, or the server refuses us.
            LogUrlInvalid: The URL names no server.
        """
        return cls(parse(url) if isinstance(url, str) else url, timeout_s)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._connection is None

    @property
    def hung_up(self) -> bool:
        """See `Transport.hung_up`."""
        if self._connection is None:
            return True
        try:
            return bool(self._connection.can_read(timeout=0))
        except (exceptions.RedisError, OSError):
            return True

    def call(self, *command: Argument) -> type_of_reply:
        """See `Transport.call`."""
        (reply,) = self.pipeline((command,))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `Transport.pipeline`."""
        if self._connection is None:
            raise LogConnectionLost(self.where, "it is closed")
        return self._exchange(self._connection, commands, reply_timeout_s())

    def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `Transport.call_blocking`; on a connection of its own, whose time-out is the wait's."""
        if self._waiting is None or self._waiting_s < wait_s:
            if self._waiting is not None:
                self._waiting.disconnect()
            self._waiting = self._connected(wait_s + reply_timeout_s())
            self._waiting_s = wait_s
        (reply,) = self._exchange(self._waiting, (command,), self._waiting_s)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def stream(self, first: Command, following: Following) -> Iterator[type_of_reply]:
        """See `Transport.stream`; one after the other."""
        return one_after_the_other(self, first, following)

    def close(self) -> None:
        """See `Transport.close`."""
        for connection in (self._connection, self._waiting):
            if connection is not None:
                connection.disconnect()
        self._connection = self._waiting = None

    def _connected(self, timeout_s: float) -> RedisPyConnection:
        kinds: dict[str, type[Any]] = {"unix": UnixDomainSocketConnection, "redis": Connection, "rediss": SSLConnection}
        settings = settings_of(self._address, timeout_s, self._connect_timeout_s)
        connection: RedisPyConnection = kinds[self._address.scheme](retry=Retry(NoBackoff(), 0), **settings)
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise refused(self._address, error) from error
        return connection

    def _exchange(self, connection: RedisPyConnection, commands: Sequence[Command], timeout_s: float) -> list[type_of_reply]:
        replies: list[type_of_reply] = []
        try:
            connection.send_packed_command([packed(command) for command in commands], check_health=False)
            for _ in commands:
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except exceptions.RedisError as error:
                    if not is_reply(error):
                        raise
                    replies.append(reply_error(self.where, error))
        except (exceptions.RedisError, OSError) as error:
            self.close()
            raise broken(self.where, error, str(commands[0][0]), timeout_s) from error
        except BaseException:
            # An interrupt in the middle of a reply: the next one could not be told from this one's rest.
            self.close()
            raise
        return replies
