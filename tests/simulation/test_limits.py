"""Names that only so many hold at once, over shards, runs and the deaths of owners."""

from contextlib import AsyncExitStack
from random import Random
from typing import Any

import anyio
import pytest

from evflow.core import events as ev
from evflow.core.admit import Capacity, Slots
from evflow.core.codec import Record
from evflow.core.ids import RunId
from evflow.core.line import Rank
from tests.random_flows import RandomFlow, Step
from tests.simulation.test_shared_shard import FORK, House, named, started

pytestmark = pytest.mark.virtual_time

ALONE = RandomFlow([Step("start", "linear", ("end",)), Step("end", "end")])


def limited(run: RunId, flow: RandomFlow, limits: dict[str, dict[str, int]], **options: Any) -> ev.RunStarted:
    event = started(run, flow, **options)
    for step in event.graph["steps"]:
        if step["name"] in limits:
            step["policy"] = {**step.get("policy", {}), "limits": limits[step["name"]]}
    return event


class Busy(House):
    """A house that watches how many attempts of which step run at once."""

    def ask(self, run: RunId, flow: RandomFlow, limits: dict[str, dict[str, int]] | None = None, shard: str = "s3", **options: Any) -> None:
        self.flows[run] = flow
        self.report(run, limited(run, flow, limits or {}, **options), shard)

    def records(self, run: RunId, shard: str) -> list[Record]:
        return [self.decoded(stored) for stored in self.client.read(shard, run)]

    def at_once(self, *runs: RunId, steps: tuple[str, ...]) -> int:
        """The most attempts of these steps that ran at one instant, by the logs."""
        spans: list[tuple[int, int]] = []
        for run in runs:
            for shard in ("s3", "s4"):
                begun: dict[int, int] = {}
                step_of: dict[int, str] = {}
                for stored in self.client.read(shard, run):
                    record = self.decoded(stored)
                    match record.event:
                        case ev.TasksCreated(step=step, first=first, count=count):
                            step_of.update(dict.fromkeys(range(first, first + count), step))
                        case ev.TaskLaunched(task=task) if step_of[task] in steps:
                            begun[task] = record.at_us
                        case ev.AttemptSucceeded(task=task) | ev.AttemptExited(task=task) if task in begun:
                            spans.append((begun.pop(task), record.at_us))
                        case _:
                            pass
        return max((sum(other[0] <= began < other[1] for other in spans) for began, _ in spans), default=0)


async def test_a_key_is_held_by_no_more_than_may_over_runs_and_shards() -> None:
    house = Busy(slots=16)
    runs = [named(number) for number in (1, 2, 101, 102)]
    for run in runs:
        house.ask(run, FORK, {"one": {"db": 2}, "two": {"db": 2}}, "s4" if run.number > 100 else "s3")
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(120)
    for run in runs:
        assert house.is_sealed(run, "s4" if run.number > 100 else "s3")
    assert house.at_once(*runs, steps=("one", "two")) == 2
    assert house.client.holders("key:db") == []


async def test_what_is_not_limited_overtakes_what_waits_for_a_name() -> None:
    house = Busy(slots=4)
    house.ask(named(1), ALONE, {"start": {"db": 1}})
    house.ask(named(2), ALONE, {"start": {"db": 1}})
    house.ask(named(3), ALONE)
    async with house.owned():
        await anyio.sleep(21)
        assert [house.is_sealed(named(number)) for number in (1, 2, 3)] == [True, False, True]
        await anyio.sleep(30)
        assert house.is_sealed(named(2))


async def test_an_operator_s_limit_holds_at_once_and_takes_the_place_of_the_flow_s() -> None:
    house = Busy(slots=16)
    house.client.set_limit("key:db", 1)
    house.client.set_limit("flow:Nightly", 0)
    house.ask(named(1), FORK, {"one": {"db": 2}, "two": {"db": 2}})
    async with house.owned():
        await anyio.sleep(30)
        assert not [event for event in house.events(named(1)) if isinstance(event, ev.TaskLaunched)]
        house.client.set_limit("flow:Nightly", None)
        house.client.wake(["s3"])
        await anyio.sleep(1)
        assert [event for event in house.events(named(1)) if isinstance(event, ev.TaskLaunched)]
        await anyio.sleep(60)
    assert house.is_sealed(named(1))
    assert house.at_once(named(1), steps=("one", "two")) == 1


async def test_a_dead_owner_s_attempts_hold_their_names_until_they_are_known_to_have_ended() -> None:
    house = Busy(slots=16)
    for number in (1, 2):
        house.ask(named(number), ALONE, {"start": {"db": 1}})
    for _ in range(6):
        async with house.owned():
            await anyio.sleep(4)
        assert len(house.client.holders("key:db")) <= 1
    async with house.owned():
        await anyio.sleep(200)
    assert house.is_sealed(named(1))
    assert house.is_sealed(named(2))
    assert house.at_once(named(1), named(2), steps=("start",)) == 1
    assert house.client.holders("key:db") == []


async def test_a_name_that_a_dead_owner_never_came_to_use_is_given_back() -> None:
    house = Busy()
    async with AsyncExitStack() as stack:
        log = house.log()
        await log.acquire("key:db", 1, "s3", ["Nightly/9/1.0"])
        house.ask(named(1), ALONE, {"start": {"db": 1}})
        await stack.enter_async_context(house.owned())
        await anyio.sleep(30)
    assert house.is_sealed(named(1))


async def test_a_foreground_run_that_nobody_runs_any_more_holds_nothing() -> None:
    house = Busy()
    log = house.log()
    await log.take("run:Other:1", "laptop", 60.0)
    await log.acquire("key:db", 1, "run:Other:1", ["Other/1/1.0"])
    house.ask(named(1), ALONE, {"start": {"db": 1}})
    async with house.owned():
        await anyio.sleep(50)
        assert not house.is_sealed(named(1)), "its owner lives"
        await anyio.sleep(60)
        assert house.is_sealed(named(1))


@pytest.mark.parametrize("key", [None, "ada"])
@pytest.mark.parametrize(("when_busy", "statuses"), [("queue", "ss"), ("skip", "sc"), ("cancel", "cs")])
async def test_one_run_at_a_time(when_busy: str, statuses: str, key: str | None) -> None:
    house = Busy(slots=16)
    runs: dict[str, Any] = {"at_most": 1, "when_busy": when_busy, "key": key}
    house.ask(named(1), FORK, runs=runs)
    house.ask(named(101), ALONE, shard="s4", runs={**runs, "key": "grace"})
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(5)
        house.ask(named(2), FORK, runs=runs)
        await anyio.sleep(200)
    assert [house.status(named(number)) for number in (1, 2)] == [{"s": "succeeded", "c": "cancelled"}[one] for one in statuses]
    assert house.status(named(101)) == "succeeded"
    assert house.at_once(named(1), named(2), steps=("start", "one", "join", "end")) == 1
    assert house.client.holders(f"runs:Nightly{':ada' if key else ''}") == []
    reasons = [event.reason for number in (1, 2) for event in house.events(named(number)) if isinstance(event, ev.RunCancelRequested)]
    assert all("limit runs:Nightly" in reason for reason in reasons)
    assert len(reasons) == statuses.count("c")


@pytest.mark.parametrize(("when_busy", "cancelled"), [("skip", 2), ("cancel", 1)])
async def test_a_run_that_would_not_wait_for_others_needs_no_slot_to_know_of_them(when_busy: str, cancelled: int) -> None:
    """The other one has all slots: with a wide foreach it keeps them until it is over."""
    house = Busy(slots=1)
    runs: dict[str, Any] = {"at_most": 1, "when_busy": when_busy, "key": None}
    house.ask(named(1), ALONE, runs=runs)
    async with house.owned():
        await anyio.sleep(2)
        house.ask(named(2), ALONE, runs=runs)
        await anyio.sleep(3)
        asked = [number for number in (1, 2) if any(isinstance(event, ev.RunCancelRequested) for event in house.events(named(number)))]
        assert asked == [cancelled]
        await anyio.sleep(60)
    assert house.status(named(cancelled)) == "cancelled"
    assert house.status(named(3 - cancelled)) == "succeeded"


async def test_a_run_holds_its_place_over_the_death_of_its_owner() -> None:
    house = Busy(slots=16)
    runs: dict[str, Any] = {"at_most": 1, "when_busy": "queue", "key": None}
    house.ask(named(1), FORK, runs=runs)
    house.ask(named(2), FORK, runs=runs)
    async with house.owned():
        await anyio.sleep(15)
    async with house.owned():
        await anyio.sleep(300)
    assert [house.status(named(number)) for number in (1, 2)] == ["succeeded"] * 2
    assert house.at_once(named(1), named(2), steps=("start", "join", "end")) == 1


async def test_a_freed_place_goes_to_the_most_urgent_run_whatever_its_shard() -> None:
    house = Busy(slots=16)
    house.ask(named(1), ALONE, {"start": {"db": 1}})
    async with house.owned(), house.owned(shard_name="s4"):
        await anyio.sleep(1)
        for number, priority in ((2, 0), (3, 1), (101, 2), (102, 9)):
            house.ask(named(number), ALONE, {"start": {"db": 1}}, "s4" if number > 100 else "s3", priority=priority)
        await anyio.sleep(200)
    began = {
        number: next(record.at_us for record in house.records(named(number), shard) if isinstance(record.event, ev.TaskLaunched))
        for number, shard in ((1, "s3"), (2, "s3"), (3, "s3"), (101, "s4"), (102, "s4"))
    }
    assert sorted(began, key=lambda number: began[number]) == [1, 102, 101, 3, 2]


async def test_between_runs_of_a_priority_the_older_one_gets_the_place() -> None:
    house = Busy(slots=16)
    house.ask(named(101), ALONE, {"start": {"db": 1}}, "s4")
    async with house.owned(), house.owned(shard_name="s4"):
        for number in (1, 102, 2, 103):
            await anyio.sleep(1)
            house.ask(named(number), ALONE, {"start": {"db": 1}}, "s4" if number > 100 else "s3")
        await anyio.sleep(200)
    order = [(101, "s4"), (1, "s3"), (102, "s4"), (2, "s3"), (103, "s4")]
    began = [
        next(record.at_us for record in house.records(named(number), shard) if isinstance(record.event, ev.TaskLaunched))
        for number, shard in order
    ]
    assert began == sorted(began)


async def test_a_place_that_is_kept_for_a_dead_owner_s_shard_is_passed_on() -> None:
    house = Busy(slots=16)
    house.ask(named(101), ALONE, {"start": {"db": 1}}, "s4")
    log = house.log()
    async with house.owned(shard_name="s4"):
        await anyio.sleep(1)
        await log.acquire("key:db", 1, "s5", ["Urgent/1/1.0"], Rank(9))  # its owner dies at once
        house.ask(named(102), ALONE, {"start": {"db": 1}}, "s4")
        await anyio.sleep(60)
    assert house.is_sealed(named(102), "s4")
    assert house.client.line("key:db") == []


async def test_a_run_that_skips_is_not_skipped_because_a_place_is_kept() -> None:
    house = Busy()
    runs: dict[str, Any] = {"at_most": 1, "when_busy": "skip", "key": None}
    log = house.log()
    await log.acquire("runs:Nightly", 1, "s5", ["Nightly/8"], Rank(9))
    await log.acquire("runs:Nightly", 1, "s6", ["Nightly/9"], Rank(9))
    await log.give_back("runs:Nightly", ["Nightly/8"])
    house.ask(named(1), ALONE, runs=runs)
    async with house.owned():
        await anyio.sleep(60)
    assert house.status(named(1)) == "succeeded"


@pytest.mark.parametrize("seed", range(24))
async def test_owners_come_and_go_and_nobody_waits_for_ever_or_has_too_much(seed: int) -> None:
    """I11 over shards: a key and a limit of runs, few slots, priorities, and owners that die and are followed by others."""
    chance = Random(seed)
    house = Busy()
    slots = chance.randint(2, 6)
    most = chance.randint(1, 2)
    runs = [named(number) for number in (1, 2, 3, 101, 102, 103)]
    shard_of = {run: "s4" if run.number > 100 else "s3" for run in runs}
    for run in runs:
        key = {"at_most": 1, "when_busy": "queue", "key": chance.choice(["ada", "bob"])} if chance.random() < 0.5 else None
        house.ask(
            run,
            FORK,
            {"one": {"db": most}, "two": {"db": most}},
            shard_of[run],
            priority=chance.randint(0, 2),
            **({"runs": key} if key else {}),
        )

    async def owners(shard: str) -> None:
        for _ in range(chance.randint(0, 4)):
            house.slots = Slots(Capacity(slots))  # of a process of its own
            async with house.owned(shard_name=shard):
                await anyio.sleep(chance.uniform(0.5, 40))
            await anyio.sleep(chance.uniform(0, 20))
        house.slots = Slots(Capacity(slots))
        async with house.owned(shard_name=shard):
            await anyio.sleep(1_500)

    async with anyio.create_task_group() as group:
        group.start_soon(owners, "s3")
        group.start_soon(owners, "s4")
    assert [run for run in runs if not house.is_sealed(run, shard_of[run])] == []
    assert house.at_once(*runs, steps=("one", "two")) <= most
    assert house.client.holders("key:db") == []
