"""The asynchronous half of `evflow.log.sentinel`; the same rules."""

from collections.abc import Sequence
from contextlib import suppress

import anyio

from evflow.log.errors import LogUnavailable
from evflow.log.sentinel import (
    LEAVES,
    OTHERS_S,
    View,
    check_is_latest,
    check_role,
    none_answers,
    questions,
    sentinels,
    view_of,
    was_in_vain,
)
from evflow.log.transport import AsyncTransport, connect_async
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, type_of_reply


class AsyncSentinelTransport:
    """`evflow.log.transport.AsyncTransport` to the primary of a service."""

    def __init__(self, transport: AsyncTransport, where: str) -> None:
        self.where = where
        self._transport = transport

    @classmethod
    async def connect(cls, address: Address) -> "AsyncSentinelTransport":
        """Ask the Sentinels, and connect to whom they name; errors as for `SentinelTransport.connect`."""
        errors: list[LogUnavailable] = []
        for sentinel in sentinels(address):
            try:
                return await cls._by(address, sentinel)
            except LogUnavailable as error:
                errors.append(error)
        raise none_answers(address, errors)

    @classmethod
    async def _by(cls, address: Address, sentinel: Address) -> "AsyncSentinelTransport":
        view = await _asked(address, sentinel)
        transport = await connect_async(view.server)
        where = f"{view.server.shown} ('{address.service}')"
        try:
            check_role(where, await _call(transport, ("ROLE",)))
            check_is_latest(where, view, await _views(address))
        except BaseException:
            await transport.aclose()
            raise
        return cls(transport, where)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._transport.closed

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `AsyncTransport.pipeline`."""
        replies = await self._transport.pipeline(commands)
        if any(isinstance(reply, LEAVES) for reply in replies):
            await self.aclose()
        return replies

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `AsyncTransport.call_blocking`."""
        try:
            reply = await self._transport.call_blocking(wait_s, *command)
        except LEAVES:
            await self.aclose()
            raise
        if was_in_vain(command, reply):
            await self.aclose()
        return reply

    async def aclose(self) -> None:
        """See `AsyncTransport.aclose`."""
        await self._transport.aclose()


async def _call(transport: AsyncTransport, command: Command) -> type_of_reply:
    (reply,) = await transport.pipeline((command,))
    if isinstance(reply, Exception):
        raise reply
    return reply


async def _asked(address: Address, sentinel: Address) -> View:
    transport = await connect_async(sentinel)
    try:
        return view_of(address, await transport.pipeline(questions(address)))
    finally:
        await transport.aclose()


async def _views(address: Address) -> list[View]:
    found: list[View] = []

    async def ask(sentinel: Address) -> None:
        with suppress(LogUnavailable), anyio.move_on_after(OTHERS_S):
            found.append(await _asked(address, sentinel))

    async with anyio.create_task_group() as group:
        for sentinel in sentinels(address):
            group.start_soon(ask, sentinel)
    return found
