"""What a real server can refuse or lose, and what the log makes of it."""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from evflow.core.chain import links
from evflow.core.events import LogRegressed
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import connect, open_event_log
from evflow.log.embedded import binaries
from evflow.log.errors import (
    LogAccessDenied,
    LogDiskFailed,
    LogForeign,
    LogOutOfMemory,
    LogPrimaryDown,
    LogReadOnly,
    LogUnreachable,
    NotDurable,
)
from evflow.log.event_log import RedisEventLog
from evflow.log.protocol import AppendCall, Head
from evflow.log.redis_py import RedisPyTransport
from evflow.log.redis_py_async import AsyncRedisPyTransport
from evflow.log.wire import Wire
from evflow.log.writer import ShardWriter
from tests.contract.log_worlds import RawServer, raw_server
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.may_block("servers are started and asked from the test's loop")

SHARD = "run:Flow:1"
RUN = RunId(FlowName("Flow"), RunNumber(1))


def call_of(*events: bytes, at: Head | None = None) -> AppendCall:
    head = at or Head()
    return AppendCall(RUN, head, events, tuple(links(head.digest, events)))


def every_server() -> list[str]:
    """Answer the server programs of this machine; one of each name."""
    return list(binaries.found())


@pytest.fixture(params=["redis-server", "valkey-server"])
def binary(request: pytest.FixtureRequest) -> str:
    for path in every_server():
        if Path(path).name == request.param:
            return path
    missing = DebianRedis.why_missing() if request.param == "redis-server" else None
    pytest.skip(missing or f"no {request.param} on this machine")


def restarting(server: RawServer) -> Callable[[], Awaitable[None]]:
    """Answer what brings the server back."""

    async def restart() -> None:
        await anyio.to_thread.run_sync(server.start)

    return restart


def setting(server: RawServer, name: str, value: str) -> None:
    wire = Wire.connect(server.unix_url)
    wire.call("CONFIG", "SET", name, value)
    wire.close()


# --- refusals --------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(binary: str) -> Iterator[RawServer]:
    users = ("--user default on nopass ~* &* +@all", "--user ada on >secret ~* &* +@all -xadd")
    with raw_server(binary, *" ".join(users).split()) as server:
        yield server


@pytest.mark.parametrize("transport", [Wire, RedisPyTransport])
def test_a_wrong_password_is_told_from_a_right_one(guarded: RawServer, transport: type[Wire] | type[RedisPyTransport]) -> None:
    place = f"127.0.0.1:{guarded.port}"
    with pytest.raises(LogAccessDenied) as refusal:
        transport.connect(f"redis://ada:wrong@{place}/0")
    assert "wrong" not in str(refusal.value)
    assert place in str(refusal.value)
    assert "EVFLOW_REDIS_URL" in refusal.value.hint
    connected = transport.connect(f"redis://ada:secret@{place}/3")
    assert connected.call("PING") == b"PONG"
    connected.close()


def test_a_user_that_may_not_write_is_told_so(guarded: RawServer) -> None:
    client = connect(f"redis://ada:secret@127.0.0.1:{guarded.port}")
    with pytest.raises(LogAccessDenied):
        client.report(SHARD, RUN, b"report")
    client.close()


async def test_a_server_without_memory_takes_no_turn_and_loses_none(binary: str) -> None:
    with raw_server(binary, "--maxmemory-policy", "noeviction") as server:
        log = await open_event_log(server.unix_url)
        lease = await log.take(SHARD, "owner", 60)
        head = await log.append(lease, call_of(b"a"))
        setting(server, "maxmemory", "1")
        for act in (log.append(lease, call_of(b"b", at=head)), log.take(SHARD, "owner", 60)):
            with pytest.raises(LogOutOfMemory, match="memory"):
                await act
        assert await log.head(SHARD, RUN) == head
        setting(server, "maxmemory", "0")
        assert (await log.append(lease, call_of(b"b", at=head))).seq == 2
        await log.aclose()


async def test_a_replica_is_named_as_one(binary: str) -> None:
    with raw_server(binary) as primary, raw_server(binary, "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        log = await open_event_log(replica.unix_url)
        with pytest.raises((LogReadOnly, LogPrimaryDown)):
            await log.take(SHARD, "owner", 60)
        await log.aclose()


def test_a_server_that_cannot_write_its_files_is_named(binary: str) -> None:
    with raw_server(binary, "--save", "1 1", "--stop-writes-on-bgsave-error", "yes", "--dbfilename", "dump") as server:
        wire = Wire.connect(server.unix_url)
        (server.folder / "dump").mkdir()
        wire.call("SET", "{evflow:x}:x", "1")
        wire.pipeline([("BGSAVE",)])
        client = connect(server.unix_url)

        def refusal() -> LogDiskFailed | None:
            try:
                client.report(SHARD, RUN, b"report", patience_s=0)
            except LogDiskFailed as error:
                return error
            return None

        found = wait_until(refusal, "the server notices that it cannot save")
        assert found is not None
        assert "disk" in found.message
        client.close()
        wire.close()


def test_nobody_listening_is_said_with_the_address(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path / 'none'}", "redis://127.0.0.1:1"):
        client = connect(url)
        with pytest.raises(LogUnreachable) as refusal:
            client.flows()
        assert refusal.value.hint
        client.close()


async def test_nobody_listening_is_said_in_the_loop_too(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path / 'none'}", "redis://127.0.0.1:1"):
        with pytest.raises(LogUnreachable):
            await open_event_log(url)
        with pytest.raises(LogUnreachable):
            await RedisEventLog(url, AsyncRedisPyTransport.connect).open()
    with pytest.raises(LogUnreachable):
        RedisPyTransport.connect("redis://127.0.0.1:1")


# --- durability ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gives"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), True),
        (("--appendonly", "no"), False),
        (("--appendonly", "yes", "--appendfsync", "no"), False),
    ],
    ids=["always", "no file", "never synced"],
)
async def test_fsync_is_given_or_refused_but_never_pretended(binary: str, options: tuple[str, ...], gives: bool) -> None:
    with raw_server(binary, *options) as server:
        log = await open_event_log(server.unix_url)
        await log.append(await log.take(SHARD, "owner", 60), call_of(b"a"))
        if gives:
            await log.wait_durable("fsync")
        else:
            with pytest.raises(NotDurable, match="fsync"):
                await log.wait_durable("fsync")
        await log.aclose()


async def test_fsync_waits_for_the_disk_where_the_server_syncs_each_second(binary: str) -> None:
    with raw_server(binary, "--appendonly", "yes", "--appendfsync", "everysec") as server:
        log = await open_event_log(server.unix_url)
        await log.append(await log.take(SHARD, "owner", 60), call_of(b"a"))
        if Path(binary).name == "redis-server":  # 7.0 has no WAITAOF; a newer one does
            wire = Wire.connect(server.unix_url)
            knows = bool(wire.call("COMMAND", "INFO", "WAITAOF")[0])
            wire.close()
            if not knows:
                with pytest.raises(NotDurable, match="WAITAOF"):
                    await log.wait_durable("fsync")
                await log.aclose()
                return
        await log.wait_durable("fsync")
        await log.aclose()


async def test_replicated_waits_for_a_replica(binary: str) -> None:
    with raw_server(binary) as primary, raw_server(binary, "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        log = await open_event_log(primary.unix_url)
        await log.append(await log.take(SHARD, "owner", 60), call_of(b"a"))
        await log.wait_durable("replicated")
        second = await open_event_log(replica.unix_url)
        assert (await second.head(SHARD, RUN)).seq == 1
        await second.aclose()
        await log.aclose()


# --- a server that dies, and one that goes back ----------------------------------------------------------


async def test_a_writer_outlives_its_server_s_death_and_nothing_is_written_twice(binary: str) -> None:
    with raw_server(binary, "--appendonly", "yes", "--appendfsync", "no") as server:
        log = await open_event_log(server.unix_url)
        writer = ShardWriter(log, SHARD, "owner", restart=restarting(server))
        await writer.take()
        head = Head()
        for number in range(30):
            if number % 10 == 5:
                await anyio.to_thread.run_sync(server.kill)
            head = await writer.append(call_of(b"%d" % number, at=head))
        assert [event.payload for event in await writer.read(RUN)] == [b"%d" % number for number in range(30)]
        assert writer.take_incidents() == []
        await log.aclose()


async def test_what_a_server_forgot_is_written_again_and_said(binary: str) -> None:
    with raw_server(binary) as server:
        log = await open_event_log(server.unix_url)
        writer = ShardWriter(log, SHARD, "owner", restart=restarting(server))
        await writer.take()
        head = await writer.append(call_of(b"a", b"b"))
        await anyio.to_thread.run_sync(server.kill)  # without a file: it forgets everything
        await writer.append(call_of(b"c", at=head))
        assert [event.payload for event in await writer.read(RUN)] == [b"a", b"b", b"c"]
        assert [incident.event for incident in writer.take_incidents()] == [LogRegressed(1, 2, writer.lease.epoch)]
        await log.aclose()


async def test_a_wait_for_reports_outlives_its_server_s_death(binary: str) -> None:
    with raw_server(binary, "--appendonly", "yes") as server:
        log = await open_event_log(server.unix_url)
        writer = ShardWriter(log, SHARD, "owner", restart=restarting(server))
        await writer.take()
        client = connect(server.unix_url)
        async with anyio.create_task_group() as group:

            async def receive() -> None:
                (report,) = await writer.receive(b"0", 100)
                assert report.payload == b"after"

            group.start_soon(receive)
            await anyio.sleep(0.05)
            await anyio.to_thread.run_sync(server.kill)
            await anyio.to_thread.run_sync(lambda: client.report(SHARD, RUN, b"after"))
        client.close()
        await log.aclose()


# --- what is no Redis ------------------------------------------------------------------------------------


async def test_what_is_no_redis_is_named(tmp_path: Path) -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_unix_listener(tmp_path / "s")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        with pytest.raises(LogForeign):
            await open_event_log(f"unix://{tmp_path / 's'}")
        client = connect(f"unix://{tmp_path / 's'}")
        with pytest.raises(LogForeign):
            await anyio.to_thread.run_sync(client.flows)
        client.close()
        group.cancel_scope.cancel()


async def test_what_is_no_redis_is_named_by_a_wait_too(tmp_path: Path) -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream):
                while commands := re.findall(rb"(?m)^\*[0-9]+\r\n\$[0-9]+\r\n([A-Z]+)", await stream.receive()):
                    now = b"*2\r\n$1\r\n7\r\n$1\r\n0\r\n"
                    await stream.send(b"".join(now if command == b"TIME" else b"+OK\r\n" for command in commands))

    listener = await anyio.create_unix_listener(tmp_path / "s")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        log = await open_event_log(f"unix://{tmp_path / 's'}")
        with pytest.raises(LogForeign):
            await log.receive(SHARD, b"0", 5)
        await log.aclose()
        client = connect(f"unix://{tmp_path / 's'}")
        with pytest.raises(LogForeign):
            await anyio.to_thread.run_sync(client.follow, SHARD, RUN, 0, 5)
        client.close()
        group.cancel_scope.cancel()
