"""Which connection speaks to which URL, and the one way an operation is carried out over it.

`unix://` and `redis://` use the thin client, `rediss://` redis-py, which brings TLS. Where several servers stand behind a URL
(`+sentinel`, `+cluster`), `evflow.log.sentinel` and `evflow.log.cluster` choose among connections of these kinds. All are behind the
same two small interfaces, so that nothing above knows the difference.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from evflow.log.commands import Operation, finished, repaired
from evflow.log.url import Address
from evflow.log.wire import CONNECT_TIMEOUT_S, Argument, Command, Transport, Wire, type_of_reply

T = TypeVar("T")


class AsyncTransport(Protocol):
    """What an asynchronous log needs of a connection; errors as for `evflow.log.wire.Transport`."""

    where: str

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    async def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """Send commands at once; error replies stand in the result as exceptions."""
        ...

    async def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """Send a command that may wait at the server for `wait_s`."""
        ...

    async def aclose(self) -> None:
        """Close the connection, within a second; whoever waits for a reply is told. A second time does nothing."""
        ...


Connector = Callable[[Address], Transport]
AsyncConnector = Callable[[Address], Awaitable[AsyncTransport]]


def connect_blocking(address: Address, *, timeout_s: float | None = None) -> Transport:
    """A blocking connection.

    Args:
        address: Where to.
        timeout_s: How long connecting to a single server, and each of its replies, may take; None: as is set for all.

    Raises:
        LogUnavailable: The server cannot be reached or refuses us.
    """
    if address.is_sentinel:
        from evflow.log.sentinel import SentinelTransport

        return SentinelTransport.connect(address)
    if address.is_cluster:
        from evflow.log.cluster import ClusterTransport

        return ClusterTransport.connect(address)
    if address.scheme == "rediss":
        from evflow.log.redis_py import RedisPyTransport  # redis-py takes 0.3 s to import

        return RedisPyTransport.connect(address, timeout_s=timeout_s)
    return Wire.connect(address, connect_timeout_s=timeout_s or CONNECT_TIMEOUT_S, timeout_s=timeout_s)


def servers_of(transport: Transport) -> Sequence[Transport]:
    """The servers that a connection stands for: all primaries of a cluster, else the one. They end with it."""
    primaries = getattr(transport, "primaries", None)
    return (transport,) if primaries is None else primaries()


async def connect_async(address: Address) -> AsyncTransport:
    """A connection for the running event loop; errors as for `connect_blocking`."""
    if address.is_sentinel:
        from evflow.log.sentinel_async import AsyncSentinelTransport

        return await AsyncSentinelTransport.connect(address)
    if address.is_cluster:
        from evflow.log.cluster_async import AsyncClusterTransport

        return await AsyncClusterTransport.connect(address)
    if address.scheme == "rediss":
        from evflow.log.redis_py_async import AsyncRedisPyTransport  # redis-py takes 0.3 s to import

        return await AsyncRedisPyTransport.connect(address)
    from evflow.log.wire_async import AsyncWire  # asyncio is not for every process

    return await AsyncWire.connect(address)


def perform(transport: Transport, operation: Operation[T]) -> T:
    """Carry an operation out; raises what the operation says, and LogUnavailable."""
    replies = transport.pipeline(operation.commands)
    for at, again in repaired(operation, replies).items():
        replies[at] = transport.call(*again)
    return finished(operation, replies, transport.where)


async def perform_async(transport: AsyncTransport, operation: Operation[T]) -> T:
    """Carry an operation out; raises what the operation says, and LogUnavailable."""
    replies = await transport.pipeline(operation.commands)
    for at, again in repaired(operation, replies).items():
        (replies[at],) = await transport.pipeline([again])
    return finished(operation, replies, transport.where)
