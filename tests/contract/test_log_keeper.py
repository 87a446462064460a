"""What those who look after a log's life ask of it, over real servers and the simulated one."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from evflow.core.chain import LINK_BYTES, links
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.errors import Conflict
from evflow.log.archived import SEGMENT_EVENTS, Archived, LogKeeper, Projection, pack
from evflow.log.keeper import RedisLogKeeper
from evflow.log.protocol import ArchiveChange, EventLog, Head, RunEntry, StoredEvent, TagChange
from evflow.testing.simulated_keeper import SimulatedLogKeeper
from tests.contract.log_worlds import (
    RUN,
    SHARD,
    RealWorld,
    SimulatedWorld,
    call_of,
    raw_server,
    real_world,
    request,
    valkey_binary,
)
from tests.redis_server import DebianRedis

pytestmark = pytest.mark.may_block("the blocking client is called from the test's loop")

FLOW = FlowName("Flow")
OTHER = RunId(FLOW, RunNumber(2))
EVENTS = [b"one", b"two", b"three"]
CHAIN = links(bytes(32), EVENTS)
HEAD = Head(3, CHAIN[-1], "sealed")
LOG = [StoredEvent(seq, payload, link[:LINK_BYTES]) for seq, (payload, link) in enumerate(zip(EVENTS, CHAIN, strict=True), 1)]
NOTE = Archived("file:///store", "archives/i/Flow/1", b"d" * 32, 99, 3, CHAIN[-1], 77)


class Shelf:
    """Archives as values."""

    def __init__(self) -> None:
        self.logs: dict[str, list[StoredEvent]] = {NOTE.name: LOG}

    def read(self, what: str, archived: Archived, after: int, limit: int) -> list[StoredEvent]:
        return self.logs[archived.name][after : after + limit]

    def about(self, what: str, archived: Archived) -> Mapping[str, Any]:
        return {"dropped": {"late": 4}}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    valkey = valkey_binary()
    with raw_server(valkey or "valkey-server") as server:
        found = {"valkey": server.unix_url, "valkey-redis-py": server.tcp_url}
        if DebianRedis.why_missing():
            yield found
        else:
            with raw_server("redis-server") as redis:
                yield {**found, "redis7": redis.unix_url}


@pytest.fixture(params=["valkey", "valkey-redis-py", "redis7", "simulated"])
def world(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[RealWorld | SimulatedWorld]:
    if request.param == "simulated":
        yield SimulatedWorld()
        return
    if request.param not in urls:
        pytest.skip(DebianRedis.why_missing() or "")
    real = real_world(request.param, urls[request.param])
    real.call("FLUSHALL")
    yield real
    real.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def keeper(world: RealWorld | SimulatedWorld, shelf: Shelf) -> Iterator[LogKeeper]:
    if isinstance(world, SimulatedWorld):
        yield SimulatedLogKeeper(world.server, shelf)
        return
    real = RedisLogKeeper(world.url, shelf, world.connector)
    yield real
    real.close()


@pytest.fixture
async def log(world: RealWorld | SimulatedWorld) -> Any:
    made = world.log()
    yield made
    await made.aclose()


async def seal(log: EventLog, status: str = "sealed") -> None:
    """Write a log of three events."""
    lease = await log.take(SHARD, "owner", 60.0)
    assert await log.append(lease, call_of(EVENTS, status=status)) == Head(3, CHAIN[-1], status)
    await log.release(lease)


async def test_a_sealed_log_is_dropped_once_its_end_is_the_archived_one(log: EventLog, keeper: LogKeeper) -> None:
    await seal(log)
    assert not keeper.drop_run(SHARD, RUN, Head(3, bytes(32), "sealed"))
    assert keeper.hot_read(SHARD, RUN) == LOG
    assert keeper.drop_run(SHARD, RUN, HEAD)
    assert keeper.hot_read(SHARD, RUN) == []
    assert keeper.drop_run(SHARD, RUN, HEAD)


async def test_a_log_that_goes_on_is_not_dropped(log: EventLog, keeper: LogKeeper) -> None:
    await seal(log, "active")
    assert not keeper.drop_run(SHARD, RUN, HEAD)
    assert keeper.hot_read(SHARD, RUN) == LOG


@pytest.mark.parametrize(("linger_s", "known"), [(60.0, HEAD), (0.0, Head())])
async def test_the_end_of_a_dropped_log_lingers(log: EventLog, keeper: LogKeeper, linger_s: float, known: Head) -> None:
    await seal(log)
    keeper.drop_run(SHARD, RUN, HEAD, linger_s)
    assert keeper.hot_head(SHARD, RUN) == known


async def test_a_dropped_run_cannot_begin_again_while_its_end_lingers(log: EventLog, keeper: LogKeeper) -> None:
    await seal(log)
    keeper.drop_run(SHARD, RUN, HEAD)
    lease = await log.take(SHARD, "owner", 60.0)
    with pytest.raises(Conflict):
        await log.append(lease, call_of([b"again"]))
    await log.release(lease)
    assert not keeper.report(SHARD, RUN, b"late")


async def test_reports_of_a_shard_of_its_own_go_with_the_run(log: EventLog, keeper: LogKeeper) -> None:
    keeper.report(SHARD, RUN, b"left")
    assert [entry.payload for entry in keeper.inbox(SHARD)] == [b"left"]
    await seal(log)
    keeper.drop_run(SHARD, RUN, HEAD)
    assert keeper.inbox(SHARD) == []


async def test_what_is_gone_is_read_from_its_archive(log: EventLog, keeper: LogKeeper) -> None:
    await seal(log)
    keeper.append_flow(FLOW, Seq(0), b"archived", ArchiveChange(RUN, pack(NOTE)))
    assert keeper.archived(RUN) == NOTE
    keeper.drop_run(SHARD, RUN, HEAD, 0.0)
    assert keeper.head(SHARD, RUN) == HEAD
    assert keeper.read(SHARD, RUN) == keeper.follow(SHARD, RUN, 0, 3_600.0) == LOG
    assert keeper.read(SHARD, RUN, 1, 1) == LOG[1:2]
    assert keeper.follow(SHARD, RUN, 2, 0.01) == LOG[2:]
    assert keeper.dropped(SHARD, RUN) == {"late": 4}


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_pages_of_what_is_gone_are_its_archives(log: EventLog, keeper: LogKeeper, limit: int) -> None:
    """Also where the log goes while it is read."""
    await seal(log)
    keeper.append_flow(FLOW, Seq(0), b"archived", ArchiveChange(RUN, pack(NOTE)))
    assert [event for page in keeper.pages(SHARD, RUN, limit=limit) for event in page] == LOG
    begun = keeper.pages(SHARD, RUN, limit=limit)
    read = next(begun)
    keeper.drop_run(SHARD, RUN, HEAD, 0.0)
    assert [*read, *(event for page in begun for event in page)] == LOG
    assert [event for page in keeper.pages(SHARD, RUN, limit=limit) for event in page] == LOG


async def test_an_archive_is_not_opened_while_the_log_is_there(log: EventLog, keeper: LogKeeper, shelf: Shelf) -> None:
    await seal(log)
    keeper.append_flow(FLOW, Seq(0), b"archived", ArchiveChange(RUN, pack(NOTE)))
    shelf.logs.clear()
    assert keeper.read(SHARD, RUN) == LOG
    assert keeper.read(SHARD, RUN, 3) == []


def test_a_note_goes_with_the_event_that_takes_it_away(keeper: LogKeeper) -> None:
    keeper.append_flow(FLOW, Seq(0), b"archived", ArchiveChange(RUN, pack(NOTE)))
    assert keeper.all_archived(FLOW) == {RUN.number: NOTE}
    keeper.append_flow(FLOW, Seq(1), b"forgotten", ArchiveChange(RUN, b""))
    assert keeper.all_archived(FLOW) == {}


def test_an_archive_that_is_found_is_noted_where_none_is(keeper: LogKeeper) -> None:
    other = Archived("file:///store", "archives/j/Flow/1", b"e" * 32, 1, 1, b"c" * 32)
    keeper.note(FLOW, {RUN.number: NOTE})
    keeper.note(FLOW, {RUN.number: other, OTHER.number: other})
    assert keeper.all_archived(FLOW) == {RUN.number: NOTE, OTHER.number: other}
    assert keeper.flows() == [FLOW]


# --- which runs are to be looked at -----------------------------------------------------------------------


def line(run: RunId, **summary: Any) -> RunEntry:
    return RunEntry(run, SHARD, summary)


def test_a_run_that_is_over_is_to_be_looked_at_and_one_that_goes_on_an_hour_later(keeper: LogKeeper) -> None:
    keeper.index_run(line(RUN, status="starting"))
    assert keeper.hot([FLOW], None, 10) == [[]]
    keeper.index_run(line(RUN, status="running", started_us=1_000))
    keeper.index_run(line(OTHER, status="succeeded", started_us=1_000, finished_us=5_000))
    assert keeper.hot([FLOW], 5_000, 10) == [[2]]
    assert keeper.hot([FLOW, FlowName("None")], 1_000 + 3_600_000_000, 10) == [[2, 1], []]
    keeper.index_run(line(RUN, status="running", started_us=9_000))
    keeper.index_run(line(RUN, status="failed", started_us=1_000, finished_us=3_000))
    assert keeper.hot([FLOW], None, 1) == [[1]]


def test_a_run_is_looked_at_when_that_was_said(keeper: LogKeeper) -> None:
    keeper.heat(line(RUN, finished_us=5))
    keeper.heat(line(RUN, finished_us=9))
    assert keeper.hot([FLOW], 5, 10) == [[1]]
    keeper.look_again(RUN, 70)
    assert (keeper.hot([FLOW], 69, 10), keeper.hot([FLOW], 70, 10)) == ([[]], [[1]])
    keeper.look_again(RUN, None)
    assert keeper.hot([FLOW], None, 10) == [[]]


def test_a_line_is_written_where_it_is_missing(keeper: LogKeeper) -> None:
    assert keeper.list_run(line(RUN, status="running"), only_missing=True)
    assert not keeper.list_run(line(RUN, status="failed"), only_missing=True)
    assert keeper.runs(FLOW) == [line(RUN, status="running")]
    assert not keeper.list_run(line(RUN, status="failed"), only_missing=False)
    assert keeper.runs(FLOW) == [line(RUN, status="failed")]


def test_a_run_that_is_unlisted_leaves_nothing_beside_the_log(keeper: LogKeeper) -> None:
    keeper.index_run(line(RUN, finished_us=5))
    keeper.append_flow(FLOW, Seq(0), b"tagged", TagChange(RUN, ("a",)))
    keeper.unlist(RUN)
    assert (keeper.runs(FLOW), keeper.all_tags(FLOW), keeper.hot([FLOW], None, 10)) == ([], {}, [[]])


# --- beside a flow's log ----------------------------------------------------------------------------------


def test_a_projection_is_written_for_the_log_that_was_folded(keeper: LogKeeper) -> None:
    projection = Projection(7, {RUN.number: ("a", "b")}, {"default": b"packed", "gone": b""}, {2: b"plan"})
    keeper.request_run(FLOW, request())
    with pytest.raises(Conflict):
        keeper.project(FLOW, Seq(0), projection)
    assert (keeper.counter(FLOW), keeper.all_tags(FLOW), keeper.deployments(FLOW)) == (1, {}, {})
    keeper.project(FLOW, Seq(1), projection)
    assert (keeper.counter(FLOW), keeper.all_tags(FLOW), keeper.deployments(FLOW)) == (7, {1: ("a", "b")}, {"default": b"packed"})
    assert (keeper.backfills(FLOW), keeper.backfilled()) == ({2: b"plan"}, [FLOW])
    keeper.project(FLOW, Seq(1), Projection(3, {}, {"default": b""}))
    assert (keeper.counter(FLOW), keeper.deployments(FLOW)) == (7, {})
    assert keeper.request_run(FLOW, request()) == 8


def test_the_old_part_of_a_flows_log_is_read_from_its_archive(keeper: LogKeeper, shelf: Shelf) -> None:
    for seq in range(SEGMENT_EVENTS + 2):
        keeper.append_flow(FLOW, Seq(seq), b"%d" % seq)
    segment = Archived("file:///store", "archives/i/Flow/log/0", b"d" * 32, 1, SEGMENT_EVENTS, b"c" * 32)
    shelf.logs[segment.name] = [StoredEvent(seq + 1, b"%d" % seq, b"") for seq in range(SEGMENT_EVENTS)]
    keeper.trim_flow(FLOW, 0, segment)
    assert keeper.segments(FLOW) == {0: segment}
    assert [event.payload for event in keeper.flow_events(FLOW, 997)] == [b"997", b"998", b"999"]
    assert [event.payload for event in keeper.flow_events(FLOW, 1_000)] == [b"1000", b"1001"]
    assert [event.seq for event in keeper.flow_events(FLOW, 0, 2)] == [1, 2]
    assert keeper.flow_seq(FLOW) == SEGMENT_EVENTS + 2
    assert keeper.append_flow(FLOW, Seq(SEGMENT_EVENTS + 2), b"next") == SEGMENT_EVENTS + 3
