"""The owner's side of the log never blocks the event loop: no mark lets these tests."""

import asyncio
import socket
from collections.abc import Iterator

import anyio
import pytest

from evflow.core.chain import links
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import open_event_log, redis_py_async
from evflow.log.errors import LogTimeout
from evflow.log.event_log import RedisEventLog
from evflow.log.protocol import AppendCall, Head, RunEntry
from evflow.log.redis_py_async import AsyncRedisPyTransport
from evflow.log.transport import AsyncConnector, connect_async
from evflow.log.url import Address, parse
from evflow.log.writer import ShardWriter

SHARD = "run:Flow:1"
RUN = RunId(FlowName("Flow"), RunNumber(1))


CONNECTORS = pytest.mark.parametrize("connector", [connect_async, AsyncRedisPyTransport.connect], ids=["thin", "redis-py"])


@CONNECTORS
async def test_a_shard_s_whole_life_leaves_the_loop_free(redis_url: str, connector: AsyncConnector) -> None:
    log = RedisEventLog(redis_url, connector)
    writer = ShardWriter(log, SHARD, "owner", ttl_s=0.3)
    await writer.take()
    head = Head()
    async with anyio.create_task_group() as group:
        group.start_soon(writer.keep)
        for number in range(5):
            events = [b"event %d" % number]
            status = "sealed" if number == 4 else "active"
            head = await writer.append(AppendCall(RUN, head, events, links(head.digest, events), status=status))
            await writer.wait_durable("everysec")
            await writer.receive(b"0", 0.05)
            await writer.index_run(RunEntry(RUN, SHARD, {"number": number}))
        group.cancel_scope.cancel()
    assert [event.seq for event in await writer.read(RUN)] == [1, 2, 3, 4, 5]
    await writer.release()
    await log.aclose()


async def test_many_at_once_share_one_connection_and_each_gets_its_own_answer(redis_url: str) -> None:
    log = await open_event_log(redis_url)
    lease = await log.take(SHARD, "owner", 60)
    lengths: dict[int, int] = {}

    async def write_and_read(number: int) -> None:
        run = RunId(FlowName("Flow"), RunNumber(number))
        events = [b"%d" % number] * number
        await log.append(lease, AppendCall(run, Head(), events, links(bytes(32), events)))
        found = await log.read(SHARD, run)
        assert {event.payload for event in found} == {b"%d" % number}
        lengths[number] = len(found)

    async with anyio.create_task_group() as group:
        for number in range(1, 40):
            group.start_soon(write_and_read, number)
    assert lengths == {number: number for number in range(1, 40)}
    assert log.generation == 1
    await log.aclose()


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers(redis_url: str) -> None:
    log = await open_event_log(redis_url)
    lease = await log.take(SHARD, "owner", 60)
    events = [b"a"]
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(log.append, lease, AppendCall(RUN, Head(), events, links(bytes(32), events)))
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert (await log.head(SHARD, RUN)).seq in (0, 1)
    assert await log.active(SHARD) in ([], [RUN])
    assert log.generation == 1
    await log.aclose()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Where connections are taken, and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def entered_with_a_password(listener: socket.socket) -> Address:
    return parse(f"redis://somebody:secret@127.0.0.1:{listener.getsockname()[1]}")


async def greeted(listener: socket.socket) -> socket.socket:
    """A connection of which the first words have come."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    connection.setblocking(False)
    assert b"AUTH" in await loop.sock_recv(connection, 4_096)
    return connection


@CONNECTORS
async def test_who_gives_up_before_it_is_let_in_leaves_no_connection(silent: socket.socket, connector: AsyncConnector) -> None:
    entering = asyncio.ensure_future(connector(entered_with_a_password(silent)))
    with await greeted(silent) as connection:
        entering.cancel()
        await asyncio.wait([entering])
        assert connection.recv(1) == b"", "it is closed"


@CONNECTORS
async def test_a_server_that_does_not_answer_who_enters_is_given_up(
    silent: socket.socket, connector: AsyncConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVFLOW_LOG_TIMEOUT", "0.1")
    monkeypatch.setattr(redis_py_async, "CONNECT_TIMEOUT_S", 0.1)
    with pytest.raises(LogTimeout, match="did not answer AUTH within"):
        await connector(entered_with_a_password(silent))
