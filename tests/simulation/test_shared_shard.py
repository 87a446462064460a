"""A shard that is served for as long as its scheduler lives: runs come as offers, and go when they are over."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from evflow.core import events as ev, published, versions
from evflow.core.admit import Capacity, Slots
from evflow.core.codec import MAX_REPORT_BYTES, Record, decode, encode_report
from evflow.core.decide import LOGIC
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber
from evflow.log.protocol import KEEP, AppendCall, Head, Keep, Lease, Placed, StoredEvent
from evflow.log.writer import ShardWriter
from evflow.testing.faults import NoFaults
from evflow.testing.simulated_executor import Fate, Report, SimulatedExecutor, SimulatedMachine
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from evflow.worker.spec import AttemptOrder
from evflow_scheduler.newer import RunIsNewer
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Shard
from evflow_scheduler.takeover import TakeOver
from tests.random_flows import RandomFlow, Step

pytestmark = pytest.mark.virtual_time

SHARD = "s3"
CHAIN = RandomFlow([Step("start", "linear", ("middle",)), Step("middle", "linear", ("end",)), Step("end", "end")])
FORK = RandomFlow(
    [
        Step("start", "split", ("one", "two")),
        Step("one", "linear", ("join",)),
        Step("two", "linear", ("join",)),
        Step("join", "linear", ("end",), joins=True),
        Step("end", "end"),
    ]
)
ADA = "user:ada"


def named(number: int) -> RunId:
    return RunId(FlowName("Nightly"), RunNumber(number))


def started(run: RunId, flow: RandomFlow = CHAIN, **options: Any) -> ev.RunStarted:
    options = {"max_workers": 16, **options}
    return ev.RunStarted(run.flow, run.number, LOGIC, flow.graph().to_plain(), b"p" * 32, {}, options, {}, "ada", "", store="sim://")


class Host:
    """Notes what the shard tells it."""

    def __init__(self) -> None:
        self.expected: list[RunId] = []
        self.dismissed: list[RunId] = []
        self.refused: list[RunId] = []

    def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
        return replace(offered, host="box")

    def expect(self, run: RunId) -> None:
        self.expected.append(run)

    def dismiss(self, run: RunId) -> None:
        self.dismissed.append(run)

    async def refuse(self, run: RunId, why: str) -> None:
        self.refused.append(run)


class House:
    """A server, a machine whose bodies take ten seconds, and schedulers that own the shard one after the other."""

    def __init__(self, slots: int = 4) -> None:
        self.server = SimulatedServer()
        self.client = SimulatedLogClient(self.server)
        self.machines: dict[str, SimulatedMachine] = {}  # what runs on one is seen by one executor
        self.slots = Slots(Capacity(slots))
        self.owners = 0
        self.flows: dict[RunId, RandomFlow] = {}

    def offer(self, run: RunId, shard: str = SHARD, flow: RandomFlow = CHAIN, **options: int) -> None:
        self.flows[run] = flow
        self.report(run, started(run, flow, **options), shard)

    def report(self, run: RunId, event: ev.Event, shard: str = SHARD) -> None:
        self.client.report(shard, run, encode_report(event, principal=ADA))

    def inbox(self) -> list[tuple[str, bytes]]:
        return list(self.server.state.shard(SHARD).inbox.values())

    def events(self, run: RunId, shard: str = SHARD) -> list[ev.Event]:
        return [decode(stored.seq, stored.payload).event for stored in self.client.read(shard, run)]

    def log(self) -> SimulatedEventLog:
        return SimulatedEventLog(self.server)

    def decoded(self, stored: StoredEvent) -> Record:
        return decode(stored.seq, stored.payload)

    def status(self, run: RunId) -> str:
        entry = self.client.run(run)
        assert entry is not None
        return str(entry.summary["status"])

    def is_sealed(self, run: RunId, shard: str = SHARD) -> bool:
        return self.client.head(shard, run).status == "sealed"

    def _fate(self, attempt: AttemptId, order: AttemptOrder) -> Fate:
        flow = self.flows[attempt.run]
        return Fate(
            runs_s=10, report=ev.AttemptSucceeded(order.task, order.attempt, b"m" * 32, flow[order.step].kind, flow[order.step].out)
        )

    async def _deliver(self, attempt: AttemptId, report: Report) -> None:
        shard = SHARD if attempt.run.number < 100 else "s4"
        self.report(attempt.run, report, shard)

    @asynccontextmanager
    async def owned(self, host: Host | None = None, shard_name: str = SHARD, log: SimulatedEventLog | None = None) -> AsyncGenerator[Shard]:
        """Own the shard within the block; at its end the owner is gone without a word."""
        self.owners += 1
        writer = ShardWriter(log or SimulatedEventLog(self.server), shard_name, f"owner {self.owners}")
        executor = SimulatedExecutor(self.machines.setdefault(shard_name, SimulatedMachine(self._fate, self._deliver)))
        await writer.take(wait_s=60)
        runs = [OwnedRun(run) for run in await writer.active()]
        aside: list[OwnedRun] = []
        first = await TakeOver("box", "ada").of(runs, writer, executor, lambda run, _: aside.append(run))
        observer = RunObserver(shard_name, writer.index_run, None)
        shard = Shard(writer, {"local": executor}, self.slots, observer, host=host or Host())
        shard.aside.update(str(run.id) for run in aside)
        for run in runs:
            if run not in aside:
                shard.add(run)
        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep)
            group.start_soon(shard.serve, first)
            yield shard
            group.cancel_scope.cancel()


async def test_an_offer_becomes_the_first_event_of_a_run_that_is_carried_out_and_dismissed() -> None:
    house, host = House(), Host()
    house.offer(named(1))
    async with house.owned(host) as shard:
        await anyio.sleep(60)
        assert house.is_sealed(named(1))
        assert (list(shard.runs), host.dismissed, house.inbox(), house.slots.taken) == ([], [named(1)], [], {})
        house.offer(named(2))
        await anyio.sleep(60)
        assert host.dismissed == [named(1), named(2)]
    first = house.events(named(2))[0]
    assert isinstance(first, ev.RunStarted)
    assert first.host == "box"
    entry = house.client.run(named(2))
    assert entry is not None
    assert (entry.shard, entry.summary["status"]) == (SHARD, "succeeded")


async def test_a_run_is_expected_where_its_first_attempt_has_a_slot_here() -> None:
    house, host = House(slots=2), Host()
    async with house.owned(host):
        for number in range(1, 4):
            house.offer(named(number))
            await anyio.sleep(1)
    assert host.expected == [named(1), named(2)]
    assert not house.slots.unused


class Counting(NoFaults):
    """No faults; the names of the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def before(self, act: str) -> None:
        self.calls.append(act)


async def test_whether_the_offered_runs_of_a_round_were_begun_before_is_one_question() -> None:
    house, counting = House(), Counting()
    for number in range(1, 6):
        house.offer(named(number))
    async with house.owned(log=SimulatedEventLog(house.server, counting)) as shard:
        await anyio.sleep(5)
        assert len(shard.runs) == 5
    assert counting.calls.count("heads") == 1


async def test_a_run_that_is_offered_twice_begins_once() -> None:
    house = House()
    house.offer(named(1))
    house.offer(named(1))
    async with house.owned():
        await anyio.sleep(5)
        house.offer(named(1))
        await anyio.sleep(60)
    assert house.is_sealed(named(1))
    assert [type(event) for event in house.events(named(1))].count(ev.RunStarted) == 1
    assert house.inbox() == []


async def test_a_request_to_cancel_right_behind_the_offer_counts() -> None:
    house = House()
    house.offer(named(1))
    house.report(named(1), ev.RunCancelRequested("changed my mind"))
    async with house.owned():
        await anyio.sleep(60)
    assert isinstance(house.events(named(1))[-2], ev.RunCancelled)


async def test_a_drained_shard_ends_what_runs_and_begins_nothing() -> None:
    house = House()
    house.offer(named(1))
    async with house.owned() as shard:
        await anyio.sleep(5)
        shard.drain()
        await anyio.sleep(1)
        house.offer(named(2))
        await anyio.sleep(60)
    launched = [event.task for event in house.events(named(1)) if isinstance(event, ev.TaskLaunched)]
    assert launched == [1]
    assert isinstance(house.events(named(1))[-1], ev.TasksCreated | ev.TaskQueued)
    assert [run for run, _ in house.inbox()] == [str(named(2))]
    async with house.owned():
        await anyio.sleep(100)
    assert house.is_sealed(named(1))
    assert house.is_sealed(named(2))
    assert [event.task for event in house.events(named(1)) if isinstance(event, ev.AttemptLost)] == []


async def test_a_drained_shard_that_stays_after_all_begins_what_came_meanwhile() -> None:
    house = House()
    house.offer(named(1))
    async with house.owned() as shard:
        await anyio.sleep(5)
        assert shard.live == 1
        shard.drain()
        house.offer(named(2))
        await anyio.sleep(1)
        assert (shard.draining, shard.live, len(house.inbox())) == (True, 1, 1)
        shard.stay()
        await anyio.sleep(1)
        assert (shard.draining, shard.live, house.inbox()) == (False, 2, [])
        await anyio.sleep(60)
    assert house.is_sealed(named(1))
    assert house.is_sealed(named(2))


async def test_an_idle_shard_that_is_drained_ends_at_once() -> None:
    house = House()
    writer = ShardWriter(SimulatedEventLog(house.server), SHARD, "owner")
    await writer.take()
    shard = Shard(writer, {}, house.slots, RunObserver(SHARD, writer.index_run, None), host=Host())
    async with anyio.create_task_group() as group:
        group.start_soon(shard.serve)
        await anyio.sleep(100)
        shard.drain()
    assert anyio.current_time() < 101


@pytest.mark.parametrize("payload", [b"\xc1", encode_report(ev.RunCancelRequested("who?"), principal=ADA)], ids=["malformed", "unknown"])
async def test_what_concerns_no_run_is_struck_off_where_there_is_none(payload: bytes) -> None:
    house = House()
    house.client.report(SHARD, named(9), payload)
    async with house.owned():
        await anyio.sleep(1)
        assert house.inbox() == []


@pytest.mark.parametrize(("most", "ends_after_s"), [(1, 50), (2, 40)])
async def test_a_run_has_no_more_attempts_at_once_than_it_was_asked_with(most: int, ends_after_s: float) -> None:
    house = House(slots=4)
    house.offer(named(1), flow=FORK, max_workers=most)
    async with house.owned():
        await anyio.sleep(ends_after_s - 5)
        assert not house.is_sealed(named(1))
        await anyio.sleep(6)
        assert house.is_sealed(named(1))


@pytest.mark.parametrize("graph", [{}, {"steps": 5}, {"nodes": []}, {"start": {"kind": "linear"}}])
async def test_an_offer_that_no_evflow_wrote_is_refused_and_the_next_one_begins(graph: dict[str, object]) -> None:
    house = House()
    house.report(named(1), replace(started(named(1)), graph=graph))
    house.offer(named(2))
    async with house.owned() as shard:
        await anyio.sleep(60)
        assert not shard.aside
    assert (house.events(named(1)), house.is_sealed(named(2)), house.inbox()) == ([], True, [])


async def test_a_run_that_cannot_be_folded_on_is_set_aside_and_hinders_no_other() -> None:
    """Its failure cannot be told in one event: a report as long as can be, of a step whose name is long, which no evflow makes."""
    house, host = House(), Host()
    long = "m" * 400
    flow = RandomFlow([Step("start", "linear", (long,)), Step(long, "linear", ("end",)), Step("end", "end")])
    house.offer(named(1), flow=flow)
    house.offer(named(2))
    async with house.owned(host) as shard:
        await anyio.sleep(5)
        house.report(named(1), ev.AttemptSucceeded(1, 0, b"m" * 32, "linear", (long,)))
        await anyio.sleep(1)
        house.report(named(1), ev.AttemptFailed(2, 0, "exception", "Oops", "", "w" * (MAX_REPORT_BYTES - 100), None, retryable=False))
        await anyio.sleep(60)
        assert (shard.aside, house.slots.taken) == ({str(named(1))}, {})
    assert house.is_sealed(named(2))
    assert not house.is_sealed(named(1))
    assert {run for run, _ in house.inbox()} == {str(named(1))}


@pytest.mark.parametrize("later", ["logic", "kind", "field"])
async def test_a_run_that_a_later_version_has_written_is_left_to_it(later: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one, which knows all of it, finds the log as it left it."""
    house = House()
    house.offer(named(1))
    async with house.owned():
        await anyio.sleep(5)
    written = house.events(named(1))
    house.offer(named(2))
    with monkeypatch.context() as older:
        if later == "logic":
            older.setattr("evflow_scheduler.takeover.LOGIC", LOGIC - 1)
        elif later == "kind":
            older.delitem(versions._FIELDS, "TasksCreated")
        else:
            older.setitem(versions._FIELDS, "TasksCreated", versions._FIELDS["TasksCreated"] - 1)
        async with house.owned() as shard:
            await anyio.sleep(100)
            assert shard.aside == {str(named(1))}
    assert house.events(named(1)) == written
    assert house.is_sealed(named(2)), "other runs of the shard go on"
    async with house.owned():
        await anyio.sleep(100)
    assert house.is_sealed(named(1))


async def test_an_offer_of_a_later_version_waits_for_it_and_hinders_no_other() -> None:
    class Older(Host):
        def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
            if offered.number == named(1).number:
                raise RunIsNewer(named(1), "it is")
            return super().welcome(offered)

    house, host = House(), Older()
    house.offer(named(1))
    house.offer(named(2))
    async with house.owned(host):
        await anyio.sleep(100)
        assert (house.events(named(1)), house.is_sealed(named(2)), host.refused) == ([], True, [])
        assert [run for run, _ in house.inbox()] == [str(named(1))]
    async with house.owned():
        await anyio.sleep(100)
    assert house.is_sealed(named(1))


async def test_an_offer_under_another_run_s_name_is_none() -> None:
    house = House()
    house.client.report(SHARD, named(9), encode_report(started(named(8)), principal=ADA))
    async with house.owned():
        await anyio.sleep(1)
    assert house.inbox() == []
    assert house.events(named(8)) == house.events(named(9)) == []


async def test_what_is_reported_of_a_run_that_was_set_aside_stays() -> None:
    house = House()
    async with house.owned() as shard:
        shard.aside.add(str(named(9)))
        house.report(named(9), ev.RunCancelRequested("please"))
        await anyio.sleep(1)
    assert [run for run, _ in house.inbox()] == [str(named(9))]


async def test_a_killed_owner_s_runs_are_taken_over_with_the_offers_that_came_meanwhile() -> None:
    house = House()
    house.offer(named(1))
    async with house.owned():
        await anyio.sleep(5)
    house.offer(named(2))
    async with house.owned():
        await anyio.sleep(200)
    for run in (named(1), named(2)):
        assert house.is_sealed(run)
    assert len([event for event in house.events(named(1)) if isinstance(event, ev.RunContinued)]) == 1


async def test_slots_that_one_shard_frees_are_another_s() -> None:
    """Two shards of one process, one slot: who waits is told."""
    house = House(slots=1)
    house.offer(named(1))
    house.offer(named(101), "s4")
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(100)
    assert house.is_sealed(named(1))
    assert house.is_sealed(named(101), "s4")
    assert house.slots.taken == {}


async def test_the_end_of_a_run_is_published_before_its_seal() -> None:
    house = House()
    house.offer(named(1))
    seen: list[str] = []

    class Watching(SimulatedEventLog):
        async def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
            seen.append(house.client.head(SHARD, named(1)).status)
            assert isinstance(house.events(named(1))[-1], ev.RunSucceeded)
            return await super().publish(event_id, body, keep)

    async with house.owned(log=Watching(house.server)):
        await anyio.sleep(60)
    assert seen == ["active"]
    assert house.is_sealed(named(1))
    (event,) = house.client.published()
    assert event.id == "finish:Nightly/1"
    assert published.decode(event.body).name == "evflow.finished.Nightly"
    assert published.decode(event.body).payload["status"] == "succeeded"


@pytest.mark.parametrize("before", [True, False])
async def test_an_owner_that_dies_at_the_end_of_a_run_loses_no_end_and_doubles_none(before: bool) -> None:
    house = House()
    house.offer(named(1))

    class Dying(SimulatedEventLog):
        async def publish(self, event_id: str, body: bytes, keep: Keep = KEEP) -> Placed:
            if not before:
                await super().publish(event_id, body, keep)
            await anyio.sleep_forever()  # as good as dead: nothing more comes of it
            raise AssertionError

    async with house.owned(log=Dying(house.server)):
        await anyio.sleep(60)
    assert not house.is_sealed(named(1))
    assert len(house.client.published()) == (0 if before else 1)
    async with house.owned():
        await anyio.sleep(60)
    assert house.is_sealed(named(1))
    assert [event.id for event in house.client.published()] == ["finish:Nightly/1"]


def begun(house: House, *runs: RunId) -> list[RunId]:
    """Whose tasks got slots, in this order."""
    granted: list[tuple[int, RunId]] = []
    for run in runs:
        records = [house.decoded(stored) for stored in house.client.read("s4" if run.number > 100 else SHARD, run)]
        granted += [(record.at_us, run) for record in records if isinstance(record.event, ev.SlotGranted)]
    return [run for _, run in sorted(granted, key=lambda one: one[0])]


async def test_a_higher_priority_comes_first_in_whichever_shard_it_is() -> None:
    """One slot, and in one of two shards always somebody who waits: the urgent run of the other one gets every slot from then on."""
    house = House(slots=1)
    for number in (1, 2, 3, 101):
        house.offer(named(number), "s4" if number > 100 else SHARD, priority=int(number > 100))
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(150)
    order = begun(house, *map(named, (1, 2, 3, 101)))
    first = order.index(named(101))
    assert first <= 1  # whoever is there first gets the first one
    assert order[first : first + 3] == [named(101)] * 3


async def test_older_runs_come_first_over_shards_and_over_the_death_of_an_owner() -> None:
    house = House(slots=1)
    order = [named(number) for number in (1, 101, 2, 102)]
    async with house.owned(), house.owned(shard_name="s4"):
        for run in order:
            house.offer(run, "s4" if run.number > 100 else SHARD)
            await anyio.sleep(1)
    house.slots = Slots(Capacity(1))
    async with house.owned(shard_name="s4"), house.owned():
        await anyio.sleep(500)
    assert all(house.is_sealed(run, "s4" if run.number > 100 else SHARD) for run in order)
    assert list(dict.fromkeys(begun(house, *order))) == order


async def test_a_shard_whose_server_hangs_keeps_slots_from_others_for_a_second_each_and_no_longer() -> None:
    """In a cluster each shard's server is another one."""
    house = House(slots=1)

    class Hanging(SimulatedEventLog):
        async def append(self, lease: Lease, call: AppendCall) -> Head:
            await anyio.sleep_forever()
            raise AssertionError

    house.offer(named(1))
    async with house.owned():
        await anyio.sleep(1)
        house.offer(named(101), "s4", priority=9)
        house.offer(named(2))
        async with house.owned(shard_name="s4", log=Hanging(house.server)):
            await anyio.sleep(70)
            assert house.is_sealed(named(1))
            assert house.is_sealed(named(2))


async def test_namespaces_share_the_slots_of_all_shards() -> None:
    """Two slots and two users, each with runs in a shard of their own: both get one."""
    house = House(slots=2)
    for number in (1, 2, 3, 4, 101):
        run, shard = named(number), "s4" if number > 100 else SHARD
        house.flows[run] = CHAIN
        house.report(run, replace(started(run), namespace="user:bob" if number > 100 else ADA), shard)
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(45)
        assert house.is_sealed(named(101), "s4")  # three tasks of ten seconds: it waited for one of them at most
        await anyio.sleep(200)
    assert all(house.is_sealed(named(number)) for number in (1, 2, 3, 4))
