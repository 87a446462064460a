"""The asynchronous half of `evflow.log.redis_py`; the same rules."""

from collections.abc import Sequence
from typing import Any

import anyio
from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from evflow.log.errors import LogConnectionLost, LogTimeout
from evflow.log.redis_py import RedisPyConnection, broken, is_reply, refused, reply_error, settings_of
from evflow.log.url import Address, parse
from evflow.log.wire import CONNECT_TIMEOUT_S, Argument, Command, packed, reply_timeout_s, type_of_reply

_CLOSE_S = 1.0


class AsyncRedisPyTransport:
    """`evflow.log.transport.AsyncTransport` over redis-py: callers take turns."""

    def __init__(self, connection: RedisPyConnection, where: str) -> None:
        self.where = where
        self._connection: RedisPyConnection | None = connection
        self._turn = anyio.Lock(fast_acquire=True)

    @classmethod
    async def connect(cls, url: str | Address) -> "AsyncRedisPyTransport":
        """Connect and say who we are.

        Raises:
            LogUnavailable: Nobody listens, its certificate is wrong, or the server refuses us.
            LogUrlInvalid: The URL names no server.
        """
        address = parse(url) if isinstance(url, str) else url
        kinds: dict[str, type[Any]] = {"unix": UnixDomainSocketConnection, "redis": Connection, "rediss": SSLConnection}
        # Each exchange has a deadline of its own: see `_exchange`.
        settings = settings_of(address, 0) | {"socket_timeout": None}
        connection: RedisPyConnection = kinds[address.scheme](retry=Retry(NoBackoff(), 0), **settings)
        transport, timeout_s = cls(connection, address.shown), reply_timeout_s()
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S + timeout_s):
                await connection.connect()
        except TimeoutError as error:  # connecting has one of its own: there is a connection, and no answer to who we are
            await transport.aclose()
            raise LogTimeout(address.shown, "AUTH", timeout_s) from error
        except (exceptions.RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            raise refused(address, error) from error
        except BaseException:  # cancelled: a Sentinel that is silent is passed over
            await transport.aclose()
            raise
        return transport

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._connection is None

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `AsyncTransport.pipeline`."""
        return await self._exchange(commands, reply_timeout_s())

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `AsyncTransport.call_blocking`."""
        (reply,) = await self._exchange((command,), wait_s + reply_timeout_s())
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """See `AsyncTransport.aclose`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            writer: Any = getattr(connection, "_writer", None)
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await connection.disconnect(nowait=True)
            if writer is not None:  # TLS would wait for the server's farewell, and outlive its loop
                writer.transport.abort()

    async def _exchange(self, commands: Sequence[Command], timeout_s: float) -> list[type_of_reply]:
        async with self._turn:
            connection = self._connection
            if connection is None:
                raise LogConnectionLost(self.where, "it is closed")
            try:
                with anyio.fail_after(timeout_s):
                    await connection.send_packed_command([packed(command) for command in commands], check_health=False)
                    return [await self._reply(connection) for _ in commands]
            except TimeoutError as error:
                await self.aclose()
                raise broken(self.where, exceptions.TimeoutError(), str(commands[0][0]), timeout_s) from error
            except (exceptions.RedisError, OSError) as error:
                await self.aclose()
                raise broken(self.where, error, str(commands[0][0]), timeout_s) from error
            except BaseException:
                # Cancelled in the middle of a reply: the next one could not be told from this one's rest.
                await self.aclose()
                raise

    async def _reply(self, connection: RedisPyConnection) -> type_of_reply:
        try:
            return await connection.read_response(disable_decoding=True)
        except exceptions.RedisError as error:
            if not is_reply(error):
                raise
            return reply_error(self.where, error)
