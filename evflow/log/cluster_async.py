"""The asynchronous half of `evflow.log.cluster`; the same rules."""

from collections.abc import Mapping, Sequence

import anyio

from evflow.log.cluster import MAP, as_one, none_answers, parts_of, read_map
from evflow.log.errors import LogConnectionLost, LogUnavailable
from evflow.log.slots import WAITS, Node, Topology, Unwaited, least
from evflow.log.transport import AsyncTransport, connect_async
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, type_of_reply


class AsyncClusterTransport:
    """`evflow.log.transport.AsyncTransport` over the servers of a cluster."""

    def __init__(self, address: Address, topology: Topology) -> None:
        self.where = address.shown
        self._address = address
        self._topology = topology
        self._nodes: dict[Node, AsyncTransport] = {}
        self._connecting = anyio.Lock(fast_acquire=True)
        self._unwaited = Unwaited()
        self._closed = False

    @classmethod
    async def connect(cls, address: Address) -> "AsyncClusterTransport":
        """Ask the first of the named nodes that answers for the map; errors as for `ClusterTransport.connect`."""
        errors: list[LogUnavailable] = []
        for seed in (Node(*place) for place in address.seeds):
            try:
                asked = await connect_async(address.at(*seed))
                try:
                    (reply,) = await asked.pipeline((MAP,))
                    return cls(address, read_map(reply, seed, asked.where))
                finally:
                    await asked.aclose()
            except LogUnavailable as error:
                errors.append(error)
        raise none_answers(address, errors)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone: to all servers, where it is to one."""
        return self._closed or any(node.closed for node in self._nodes.values())

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `AsyncTransport.pipeline`; commands to different servers are sent one server after the other."""
        if self._closed:
            raise LogConnectionLost(self.where, "it is closed")
        replies: list[type_of_reply] = [None] * len(commands)
        try:
            for node, places in parts_of(commands, self._topology, self.where).items():
                part = [commands[place] for place in places]
                connection = await self._node(node)
                self._unwaited.note(node, part)
                for place, reply in zip(places, await connection.pipeline(part), strict=True):
                    replies[place] = reply
        except LogUnavailable:
            await self.aclose()
            raise
        found, ends = as_one(replies, self.where)
        if ends:
            await self.aclose()
        return found

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `AsyncTransport.call_blocking`; WAIT and WAITAOF wait for all servers that were written to."""
        if self._closed:
            raise LogConnectionLost(self.where, "it is closed")
        name = str(command[0]).upper()
        before: Mapping[Node, int] = self._unwaited.now
        replies: list[type_of_reply] = []
        try:
            for node in before if name in WAITS else parts_of((command,), self._topology, self.where):
                connection = await self._node(node)
                self._unwaited.note(node, (command,))
                replies.append(await connection.call_blocking(wait_s, *command))
        except LogUnavailable as error:
            await self.aclose()
            [translated], _ = as_one([error], self.where)
            raise translated from error
        if name not in WAITS:
            return replies[0]
        found = least(replies, name)
        if (found if name == "WAIT" else found[0]) >= 1:
            self._unwaited.waited(before)
        elif name == "WAIT":  # see `ClusterTransport`
            await self.aclose()
        return found

    async def aclose(self) -> None:
        """See `AsyncTransport.aclose`."""
        self._closed = True
        for node in self._nodes.values():
            await node.aclose()

    async def _node(self, node: Node) -> AsyncTransport:
        if node not in self._nodes:
            async with self._connecting:  # several may want it at once
                if node not in self._nodes:
                    self._nodes[node] = await connect_async(self._address.at(*node))
        return self._nodes[node]
