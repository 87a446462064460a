"""A primary dies under its owner: the writer goes on with the one that takes its place, and nothing that was promised is lost."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from evflow.core import chain, flow_events
from evflow.core.codec import encode
from evflow.core.events import RunStarted
from evflow.core.flow_events import RunGivenUp, RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.claims import claim_again
from evflow.log import sentinel as sentinels, sentinel_async as sentinels_async
from evflow.log.client import RedisLogClient
from evflow.log.durability import check
from evflow.log.errors import DurabilityLate, LogPrimaryDown, LogUnavailable, NotDurable
from evflow.log.event_log import RedisEventLog
from evflow.log.feeds import Feeds
from evflow.log.keys import shared_shard, shared_shards
from evflow.log.protocol import AppendCall, Head, Inbound
from evflow.log.slots import slot_of
from evflow.log.transport import connect_async, connect_blocking
from evflow.log.url import parse
from evflow.log.writer import RunNumberTaken, ShardWriter
from tests.fakes.sentinel import sentinel
from tests.ports import free_port
from tests.redis_groups import SERVICE, Cluster, Server, Watched, cluster, server, watched
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing())),
    pytest.mark.may_block("servers are started, killed and asked from the test's loop"),
]
RUN = RunId(FlowName("Flow"), RunNumber(1))
SHARD = shared_shard(RUN)
WITHIN_S = 100.0


@pytest.fixture
def group() -> Iterator[Watched]:
    with watched() as servers:
        yield servers


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster(replicas=True) as servers:
        yield servers


class Owner:
    """Appends an event at a time."""

    def __init__(self, url: str) -> None:
        self.log = RedisEventLog(url)
        self.writer = ShardWriter(self.log, SHARD, "owner", patience_s=WITHIN_S)
        self.head = Head()
        self.written: list[bytes] = []

    async def append(self, *, durable: bool = True) -> None:
        payload = b"event %d" % (self.head.seq + 1)
        [link] = chain.links(self.head.digest, [payload])
        self.head = await self.writer.append(AppendCall(RUN, self.head, (payload,), (link,)))
        self.written.append(payload)
        if durable:
            await self.writer.wait_durable("replicated")


@pytest.fixture
async def owner(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Owner]]:
    made: list[Owner] = []

    def make(url: str) -> Owner:
        made.append(Owner(url))
        return made[-1]

    yield make
    for one in made:
        await one.log.aclose()


def holder_of(servers: Cluster, key: str) -> Server:
    """The primary that has a key's slot."""
    slot = slot_of(key)
    for first, last, primary, *_ in servers.servers[0].call("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(one for one in servers.servers if one.port == primary[1])
    raise AssertionError(f"nobody has slot {slot}")


async def test_a_writer_goes_on_with_the_server_that_sentinels_promote(group: Watched, owner: Callable[[str], Owner]) -> None:
    check(group.url, "replicated")
    mine = owner(group.url)
    await mine.writer.take()
    for _ in range(3):
        await mine.append()
    old = group.primary
    old.kill()
    await mine.append(durable=False)  # waits for the fail-over
    wait_until(lambda: group.primary is not old, "the Sentinels say so", WITHIN_S)  # clients hear of it first
    with pytest.raises(NotDurable, match="no replica is connected"):
        check(group.url, "replicated")
    old.start()
    group.settle()
    await mine.append()
    client = RedisLogClient(group.url)
    assert [one.payload for one in client.read(SHARD, RUN)] == mine.written
    client.close()


@pytest.mark.parametrize(
    ("views", "goes_to"),
    [
        ([("old", 1), ("new", 2), ("old", 1)], "new"),  # two have not heard of the fail-over
        ([("new", 2), ("old", 1)], "new"),
        ([("old", 1), ("old", 1)], "old"),
        ([("old", 1), ("silent", 0)], "old"),
        ([("silent", 0), ("old", 1), ("new", 2)], "new"),
    ],
)
async def test_of_two_servers_that_take_themselves_for_the_primary_the_later_one_is_it(
    views: list[tuple[str, int]], goes_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_one_silent := "silent" in dict(views):
        monkeypatch.setenv("EVFLOW_LOG_TIMEOUT", "1")
    for module in (sentinels, sentinels_async):
        monkeypatch.setattr(module, "OTHERS_S", 2.0 if is_one_silent else WITHIN_S)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server()) for name in ("old", "new")} | {"silent": Server(Path(), 1, ())}
        ports = [stack.enter_context(sentinel(servers[name].port, epoch, silent=name == "silent")) for name, epoch in views]
        address = parse(f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{SERVICE}")
        blocking = await anyio.to_thread.run_sync(connect_blocking, address)
        waiting = await connect_async(address)
        expected = f"127.0.0.1:{servers[goes_to].port} ('{SERVICE}')"
        assert (blocking.where, waiting.where) == (expected, expected)
        blocking.close()
        await waiting.aclose()


async def test_nobody_goes_to_an_old_primary_while_the_new_one_is_out_of_reach() -> None:
    with server() as old, sentinel(old.port, 1) as late, sentinel(free_port(), 2) as first:
        address = parse(f"redis+sentinel://127.0.0.1:{late},127.0.0.1:{first}/{SERVICE}")
        with pytest.raises(LogPrimaryDown, match=r"it was replaced by 127\.0\.0\.1:\d+, of which not all Sentinels have heard"):
            await anyio.to_thread.run_sync(connect_blocking, address)
        with pytest.raises(LogPrimaryDown, match="it was replaced by"):
            await connect_async(address)


async def test_what_a_fail_over_lost_is_written_again(group: Watched, owner: Callable[[str], Owner]) -> None:
    """The replica is cut off while an event is written that nobody waits for; then it is promoted."""
    mine = owner(group.url)
    await mine.writer.take()
    await mine.append()
    old, replica = group.primary, group.replica
    assert replica.process is not None
    replica.process.send_signal(signal.SIGSTOP)
    old.call("CLIENT", "KILL", "TYPE", "REPLICA")  # or what is sent to it now lies in its socket when it goes on
    await mine.append(durable=False)
    old.kill()
    replica.process.send_signal(signal.SIGCONT)
    wait_until(lambda: replica.info.get("role") == "master", "the replica is promoted", WITHIN_S)
    assert b"event 2" not in str(replica.call("XRANGE", f"{{evflow:{SHARD}}}:run:{RUN}", "-", "+")).encode()
    await mine.append(durable=False)
    [incident] = mine.writer.take_incidents()
    assert (incident.run, incident.event.from_seq, incident.event.to_seq) == (RUN, 2, 2)
    client = RedisLogClient(group.url)
    assert [one.payload for one in client.read(SHARD, RUN)] == mine.written
    client.close()


async def test_replicated_is_not_said_of_what_no_replica_has(group: Watched) -> None:
    log = RedisEventLog(group.url)
    lease = await log.take(SHARD, "owner", 60.0)
    replica = group.replica
    assert replica.process is not None
    replica.process.send_signal(signal.SIGSTOP)
    [link] = chain.links(chain.START, [b"x"])
    await log.append(lease, AppendCall(RUN, Head(), (b"x",), (link,)))
    with pytest.raises(DurabilityLate):
        await log.wait_durable("replicated")
    replica.process.send_signal(signal.SIGCONT)
    with anyio.fail_after(WITHIN_S):
        while True:
            try:
                await log.wait_durable("replicated")
                break
            except LogUnavailable:
                await anyio.sleep(0.1)
    assert replica.call("XLEN", f"{{evflow:{SHARD}}}:run:{RUN}") == 1
    await log.aclose()


async def test_a_writer_goes_on_when_its_shard_s_primary_dies(nodes: Cluster, owner: Callable[[str], Owner]) -> None:
    check(nodes.url, "replicated")
    mine = owner(nodes.url)
    await mine.writer.take()
    for _ in range(3):
        await mine.append()
    old = holder_of(nodes, f"{{evflow:{SHARD}}}:lease")
    old.kill()
    await mine.append(durable=False)
    old.start()
    with anyio.fail_after(WITHIN_S):
        await mine.append()
    client = RedisLogClient(nodes.url)
    assert [one.payload for one in client.read(SHARD, RUN)] == mine.written
    client.close()


async def test_the_feeds_of_all_shards_are_followed_wherever_they_lie(nodes: Cluster, owner: Callable[[str], Owner]) -> None:
    mine = owner(nodes.url)
    await mine.writer.take()
    await mine.append()
    feeds = Feeds(nodes.url)
    feeds.follow(shared_shards())
    assert feeds.wait(0.01) == set()
    await mine.append()
    assert feeds.wait(WITHIN_S) == {(SHARD, str(RUN))}
    feeds.close()


async def test_a_primary_that_hangs_is_left_for_the_one_that_takes_its_place(
    group: Watched, owner: Callable[[str], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped, so its connections stay open and say nothing; the wait for reports hangs as the appends do."""
    monkeypatch.setenv("EVFLOW_LOG_TIMEOUT", "1")
    mine = owner(group.url)
    await mine.writer.take()
    await mine.append()
    old, received, arrived = group.primary, list[Inbound](), anyio.Event()
    assert old.process is not None

    async def receive() -> None:
        received.extend(await mine.writer.receive(b"0", 3_600.0))
        arrived.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.sleep(0.1)  # it waits at the old primary
            old.process.send_signal(signal.SIGSTOP)
            with anyio.fail_after(WITHIN_S):
                await mine.append(durable=False)
            # The Sentinel that leads a fail-over names the promoted one to clients before it says itself that this is the primary.
            await anyio.to_thread.run_sync(wait_until, lambda: group.primary is not old, "the fail-over is over", WITHIN_S)
            client = RedisLogClient(group.url)
            assert client.report(SHARD, RUN, b"a report")
            assert [one.payload for one in client.read(SHARD, RUN)] == mine.written
            client.close()
            with anyio.fail_after(WITHIN_S):
                await arrived.wait()
    finally:
        old.process.send_signal(signal.SIGCONT)
    assert [one.payload for one in received] == [b"a report"]


async def test_a_run_whose_number_a_fail_over_gave_to_another_one_is_given_up(group: Watched) -> None:
    """Request and run are written while the replica is cut off; then it is promoted, and somebody else asks for a run."""

    def request(name: str) -> bytes:
        asked = RunRequested(0, "ada", None, "shared", "box", "default", 1, offer={"id": name})
        return flow_events.encode(asked, at_us=1, principal="user:ada")

    async def claim(run: RunId, first: bytes) -> str:
        client = RedisLogClient(group.url)
        try:
            return claim_again(client, run, first)
        finally:
            client.close()

    log = RedisEventLog(group.url)
    writer = ShardWriter(log, SHARD, "owner", patience_s=WITHIN_S, claim=claim)
    await writer.take()
    old, replica, client = group.primary, group.replica, RedisLogClient(group.url)
    assert replica.process is not None
    replica.process.send_signal(signal.SIGSTOP)
    old.call("CLIENT", "KILL", "TYPE", "REPLICA")  # or what is sent to it now lies in its socket when it goes on
    assert client.request_run(RUN.flow, request("first")) == RUN.number
    client.close()
    started = RunStarted(
        RUN.flow, RUN.number, 2, {}, b"p" * 32, {}, {}, {}, "ada", "", trigger={"kind": "request", "deployment": "default", "version": 1, "id": "first"}
    )  # fmt: skip
    events = (encode(started, turn=1, at_us=1, principal="user:ada", cause=0),)
    head = await writer.append(AppendCall(RUN, Head(), events, tuple(chain.links(Head().digest, events))))
    old.kill()
    replica.process.send_signal(signal.SIGCONT)
    wait_until(lambda: replica.info.get("role") == "master", "the replica is promoted", WITHIN_S)
    wait_until(lambda: group.primary is replica, "the Sentinels say so", WITHIN_S)
    client = RedisLogClient(group.url)
    assert client.request_run(RUN.flow, request("second")) == RUN.number
    with pytest.raises(RunNumberTaken):
        await writer.append(AppendCall(RUN, head, (b"more",), tuple(chain.links(head.digest, [b"more"]))))
    told = [flow_events.decode(*stored).event for stored in client.flow_events(RUN.flow)]
    assert [type(event) for event in told] == [RunRequested, RunGivenUp]
    assert client.head(SHARD, RUN).seq == 0, "the other run begins there"
    client.close()
    await log.aclose()
