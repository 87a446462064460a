"""Connections to the log for whoever is no owner and lives in an event loop: pools, their workers.

Commands share one connection, and each kind of wait has one of its own, because a command behind a wait waits too. A
connection that broke is replaced at the next call. `repeated` sends a command again until it is answered: only for those whose repeat
changes nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from evflow.log.commands import Operation, finished
from evflow.log.errors import LogUnavailable
from evflow.log.scripts import load_scripts
from evflow.log.transport import AsyncConnector, AsyncTransport, connect_async, perform_async
from evflow.log.url import parse

T = TypeVar("T")
load_scripts()  # Now: the event loop is no place to read files.
_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


class Link:
    """A connection for commands, which any number of coroutines share.

    Args:
        url: Where the log is.
        restart: Brings the server back, where the caller can (the embedded one). Called when it does not answer.

    Attributes:
        connections: How many there have been for commands: with each the server may be another one, which has lost something.
    """

    def __init__(self, url: str, restart: Callable[[], Awaitable[None]] | None = None, connector: AsyncConnector = connect_async) -> None:
        self.url = url
        self._address = parse(url)
        self._restart = restart
        self._connector = connector
        self._transport: AsyncTransport | None = None
        self._connecting = anyio.Lock()
        self.connections = 0

    async def do(self, operation: Operation[T]) -> T:
        """Carry an operation out.

        Raises:
            LogUnavailable: The server cannot be used; it is not known then whether it did its part.
        """
        return await perform_async(await self._connected(), operation)

    async def repeated(self, operation: Operation[T], patience_s: float) -> T:
        """Carry an operation out that may be repeated, however often it takes.

        Raises:
            LogUnavailable: The server was away for longer than `patience_s`, or refuses for good.
        """
        deadline_s = anyio.current_time() + patience_s
        tries = 0
        while True:
            try:
                return await self.do(operation)
            except LogUnavailable as error:
                if not error.transient or anyio.current_time() >= deadline_s:
                    raise
            await anyio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1
            if self._restart is not None:
                await self._restart()

    def wait(self) -> "Wait":
        """A further connection, for waits at the server, one at a time."""
        return Wait(self._connect)

    async def aclose(self) -> None:
        """Close the connection for commands; whoever made a wait closes it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _connect(self) -> AsyncTransport:
        return await self._connector(self._address)

    async def _connected(self) -> AsyncTransport:
        if self._transport is not None and not self._transport.closed:
            return self._transport
        async with self._connecting:
            if self._transport is None or self._transport.closed:
                self._transport = await self._connect()
                self.connections += 1
            return self._transport


class Wait:
    """A connection for waits at the server."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncTransport]]) -> None:
        self._connect = connect
        self._transport: AsyncTransport | None = None

    async def do(self, operation: Operation[T], wait_s: float) -> T:
        """Carry out an operation of one command that waits at the server for up to `wait_s`.

        Cancelled, it closes the connection: a wait that went on there would hold up the next one.

        Raises:
            LogUnavailable: The server cannot be used.
        """
        if self._transport is None or self._transport.closed:
            self._transport = await self._connect()
        transport = self._transport
        try:
            reply = await transport.call_blocking(wait_s, *operation.commands[0])
        except BaseException:
            with anyio.CancelScope(shield=True):  # within a second
                await self.aclose()
            raise
        return finished(operation, [reply], transport.where)

    async def aclose(self) -> None:
        """Close the connection, and end its wait."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()
