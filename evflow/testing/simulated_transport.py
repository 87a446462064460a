"""A connection to the simulated server that speaks Redis: what the message queue of pools, and whatever is written over `Link`, runs on.

`evflow.log.link.Link`, `evflow.log.pools`, the executor of a pool and its workers are the real ones; only behind the commands the simulation
begins. A wait at the server is the server's: it reads for whom it waits also while that process is suspended, or cut off, as a real one
does. Commands are kept in the server's journal, so that a fail-over loses them like any other write.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio

from evflow.core.ids import RunId
from evflow.log.errors import LogConnectionLost, LogUnavailable, LogUnreachable, error_of
from evflow.log.scripts import NAMES, script
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, type_of_reply
from evflow.testing.faults import Faults, NoFaults
from evflow.testing.simulated_keys import RefusedByServer
from evflow.testing.simulated_pools import PoolScripts
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulated_state import State

URL: Final = "redis://simulation:6379/0"
_WHERE: Final = "simulation"
_READS: Final = frozenset({"TIME", "EXISTS", "SMEMBERS", "HGET", "HLEN", "HGETALL", "ZRANGE", "XRANGE", "XLEN", "XREAD", "XPENDING"})
_FREES: Final = frozenset({"XREADGROUP", "HDEL", "DEL", "EXPIRE", "XDEL", "XACK", "ZREM"})
"""What a full server carries out all the same: the commands without the flag `denyoom`."""
_POOL_SCRIPTS: Final[dict[str, Callable[..., Any]]] = {
    "pool_claim": PoolScripts.claim,
    "pool_order": PoolScripts.order,
    "pool_life": PoolScripts.life,
}


class SimulatedTransport:
    """`evflow.log.transport.AsyncTransport` to a simulated server: a connection of one process.

    Args:
        server: The server, which is not down.
        faults: What goes wrong around each exchange.
    """

    def __init__(self, server: SimulatedServer, faults: Faults | None = None) -> None:
        self.where = _WHERE
        self._server = server
        self._faults: Faults = faults or NoFaults()
        self._connection: int | None = server.connection

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._connection is None

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `AsyncTransport.pipeline`."""
        name = _name(commands[-1])
        try:
            await self._faults.before(name)
            self._check()
            replies = [self._reply(command) for command in commands]
            await self._faults.after(name)
            self._check()
        except LogUnavailable:
            self._connection = None
            raise
        return replies

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `AsyncTransport.call_blocking`."""
        name = _name(command)
        try:
            await self._faults.before(name)
            self._check()
            reply = self._reply(command)
            with anyio.move_on_after(wait_s):
                while reply is None:
                    await self._server.changed()
                    self._check()
                    reply = self._reply(command)
            await self._faults.after(name)
            self._check()
        except LogUnavailable:
            self._connection = None
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """See `AsyncTransport.aclose`."""
        self._connection = None

    def _check(self) -> None:
        if self._connection != self._server.connection:
            raise LogConnectionLost(_WHERE)

    def _reply(self, command: Command) -> type_of_reply:
        try:
            return run(self._server, command)
        except (LogUnavailable, RefusedByServer) as error:
            return error_of(_WHERE, str(error)) if isinstance(error, RefusedByServer) else error


def connector(server: SimulatedServer, faults: Faults | None = None) -> Callable[[Address], Any]:
    """A connector for `Link`.

    Args:
        server: The server.
        faults: What goes wrong around each exchange of the connections that it makes.
    """

    async def connect(_address: Address) -> SimulatedTransport:
        if server.down:
            raise LogUnreachable(_WHERE, "the simulated server is down")
        return SimulatedTransport(server, faults)

    return connect


def run(server: SimulatedServer, command: Command) -> type_of_reply:
    """Carry a command out, and keep it in the journal if it changes anything.

    Raises:
        RefusedByServer: It is answered by an error.
        LogUnavailable: The server takes no writes.
    """
    name = str(command[0])
    words = [_bytes(word) for word in command[1:]]
    now_us = server.now_us()
    if name == "EVALSHA":
        return server.write(_script(next(known for known in NAMES if script(known).sha == command[1]), words, now_us))
    if name in _READS:
        return server.state.keys.call(now_us, name, *words)
    if name == "XREADGROUP" and not _has_news(server, words):
        return None  # else each wait would wake all others
    return server.write(lambda state: state.keys.call(now_us, name, *words), frees=name in _FREES)


def _script(name: str, words: list[bytes], now_us: int) -> Callable[[State], Any]:
    count = int(words[1])
    keys, arguments = words[2 : 2 + count], words[2 + count :]
    if name == "report":
        shard = keys[0].decode().partition("{evflow:")[2].partition("}")[0]
        run_id = RunId.parse(arguments[0].decode())
        return lambda state: state.report(shard, run_id, arguments[1], now_us)
    return lambda state: _POOL_SCRIPTS[name](PoolScripts(state.keys, now_us, keys), *arguments)


def _has_news(server: SimulatedServer, words: list[bytes]) -> bool:
    stream = server.state.keys.streams.get(words[-2])
    group = stream.groups.get(words[1]) if stream is not None else None
    return stream is None or group is None or any(entry > group.delivered for entry in reversed(stream.entries))


def _name(command: Command) -> str:
    if command[0] == "EVALSHA":
        return next(known for known in NAMES if script(known).sha == command[1])
    return str(command[0]).lower()


def _bytes(word: Argument) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
