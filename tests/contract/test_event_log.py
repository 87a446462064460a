"""What every event log promises of connections, leases, runs and reports, over each server and each way to reach it, and over the simulated one."""

import anyio
import pytest

from evflow.core.chain import links
from evflow.core.ids import FlowName, Micros, RunId, RunNumber
from evflow.log.client import RedisLogClient
from evflow.log.errors import AppendTooLarge
from evflow.log.protocol import (
    MAX_APPEND_BYTES,
    MAX_APPEND_CONSUMED,
    MAX_APPEND_EVENTS,
    EventLog,
    Head,
    HeadMoved,
    Lease,
    LeaseHeld,
    LeaseLost,
    LogClient,
)
from tests.contract.log_worlds import RUN, SHARD, TTL_S, RealWorld, World, call_of, request
from tests.waiting import wait_until

pytestmark = pytest.mark.may_block("the blocking client is called from the test's loop")

OTHER = RunId(FlowName("Flow"), RunNumber(2))


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
