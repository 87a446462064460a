"""Backfills, as decisions and as what a log makes of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from evflow.core import backfill as core
from evflow.core.backfill import Ask, Backfill, after, count, decide, fold, instant_us, number_of, pack, parameters_at, ticks, unpacked
from evflow.core.codec import UnreadableEvent
from evflow.core.events import Event
from evflow.core.flow_events import (
    BackfillCancelRequested,
    BackfillEnded,
    BackfillRequested,
    BackfillRunsEnded,
    BackfillTicksSkipped,
    FlowRecord,
    RunRequested,
)
from evflow.core.ids import Micros, Seq
from evflow.core.schedule import Schedule, to_plain
from tests.effort import scaled

HOUR_US = 3_600_000_000
NOON_US = 1_764_072_000_000_000
BERLIN = Schedule("30 2 * * *", "Europe/Berlin")
HOURLY = Schedule("0 * * * *")


def us(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


def requested(schedule: Schedule = HOURLY, hours: int = 5, **changed: Any) -> BackfillRequested:
    fields: dict[str, Any] = {
        "number": 1, "name": "default", "version": 2, "schedule": to_plain(schedule), "from_us": NOON_US, "to_us": NOON_US + (hours - 1) * HOUR_US,
        "ticks": hours, "max_parallel": 2, "again": False, "parameters": {}, "tags": (), "user": "ada", "host": "box", **changed,
    }  # fmt: skip
    return BackfillRequested(**fields)


def begun(**changed: Any) -> Backfill:
    found = after(None, requested(**changed), 7, "user:ada", 1)
    assert found is not None
    return found


# --- the span ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("2026-11-27", False, us("2026-11-27T00:00", "Europe/Berlin")),
        ("2026-11-27", True, us("2026-11-28T00:00", "Europe/Berlin") - 1),
        ("2026-11-27T06:30", True, us("2026-11-27T06:30", "Europe/Berlin")),
        ("2026-11-27T06:30Z", False, us("2026-11-27T06:30")),
        ("2026-11-27 06:30:05+05:30", False, us("2026-11-27T01:00:05")),
        ("2026-10-25", True, us("2026-10-26T00:00", "Europe/Berlin") - 1),
    ],
)
def test_an_instant_is_by_the_schedule_s_clock_unless_it_has_an_offset(text: str, end: bool, expected: int) -> None:
    assert instant_us(text, "Europe/Berlin", end=end) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-30", "27.11.2026", "2026-11-27T25:00", "9999-12-31"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        instant_us(text, "UTC", end=True)


def test_the_ticks_of_a_span_are_those_of_the_schedule_at_clock_changes_too() -> None:
    spring = list(ticks(BERLIN, us("2026-03-28T00:00", "Europe/Berlin"), us("2026-03-30T12:00", "Europe/Berlin")))
    assert [datetime.fromtimestamp(tick / 1e6, UTC).isoformat()[:16] for tick in spring] == [
        "2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30",
    ]  # fmt: skip
    assert list(ticks(HOURLY, NOON_US, NOON_US)) == [NOON_US]
    assert list(ticks(HOURLY, NOON_US + 1, NOON_US + HOUR_US - 1)) == []


def test_a_span_of_years_of_minutes_is_not_walked_through() -> None:
    assert count(Schedule("* * * * *"), 0, NOON_US, 50) == 51
    assert count(HOURLY, NOON_US, NOON_US + 3 * HOUR_US, 50) == 4


def test_parameters_know_their_tick() -> None:
    backfill = begun(schedule=BERLIN, parameters={"day": "{date}", "at": "<{tick}>", "plain": "{}"})
    assert parameters_at(backfill, us("2026-07-01T02:30", "Europe/Berlin")) == {
        "day": "2026-07-01", "at": "<2026-07-01T02:30:00+02:00>", "plain": "{}",
    }  # fmt: skip
    assert core.parameters_fault({"a": "x" * 9_000}) is not None
    assert core.parameters_fault({"a": "x"}) is None


# --- the decision -----------------------------------------------------------------------------------------


class World:
    """A flow's log with one backfill, whose decisions are carried out at once."""

    def __init__(self, **changed: Any) -> None:
        self.records: list[FlowRecord] = []
        self.runs = 0
        self.now: Backfill | None = None
        self.held: dict[int, str] = {}
        self.over: dict[int, tuple[int, str]] = {}
        self.deployed = True
        self.append(requested(**changed))

    @property
    def backfill(self) -> Backfill:
        assert self.now is not None
        return self.now

    def append(self, event: Event) -> None:
        seq = len(self.records) + 1
        self.now = after(self.now, event, 100 + seq, "scheduler", seq)
        self.records.append(FlowRecord(Seq(seq), Micros(100 + seq), "scheduler", event))

    def decide(self) -> Event | Ask | None:
        over: Mapping[int, tuple[int, str]] = {seq: self.over[seq] for seq in self.backfill.running if seq in self.over}
        return decide(self.backfill, over, self.held.get, deployed=self.deployed)

    def carry_on(self) -> None:
        while (step := self.decide()) is not None:
            if isinstance(step, Ask):
                self.runs += 1
                self.append(RunRequested(self.runs, "ada", trigger=core.trigger(self.backfill, step.tick_us)))
            else:
                self.append(step)
            self.check()

    def end(self, seq: int, status: str = "succeeded") -> None:
        self.over[seq] = (seq, status)

    def check(self) -> None:
        backfill = self.backfill
        assert len(backfill.running) <= backfill.max_parallel
        assert fold(self.records) == {1: backfill}
        assert unpacked(pack(backfill)) == backfill
        assert backfill.asked == len(backfill.running) + backfill.succeeded + backfill.failed

    @property
    def decided(self) -> list[tuple[int, str]]:
        """Each tick, in hours, and `run` or the reason of its skip."""
        found: list[tuple[int, str]] = []
        for record in self.records:
            event = record.event
            if isinstance(event, RunRequested):
                assert event.trigger is not None
                found.append(((event.trigger["tick_us"] - NOON_US) // HOUR_US, "run"))
            elif isinstance(event, BackfillTicksSkipped):
                skipped = list(ticks(HOURLY, event.since_us or event.tick_us, event.tick_us))
                assert len(skipped) == event.ticks
                found += [((tick - NOON_US) // HOUR_US, event.reason) for tick in skipped]
        return found


def test_no_more_than_so_many_runs_are_asked_for_at_a_time() -> None:
    world = World(max_parallel=2)
    world.carry_on()
    assert world.decided == [(0, "run"), (1, "run")]
    assert world.decide() is None
    world.end(3)
    world.carry_on()
    assert world.decided == [(0, "run"), (1, "run"), (2, "run")]
    assert (world.backfill.running, world.backfill.succeeded) == ((2, 5), 1)


def test_ticks_that_have_a_run_are_skipped_in_a_row() -> None:
    world = World(hours=6, max_parallel=5)
    world.held = {NOON_US + hour * HOUR_US: reason for hour, reason in ((1, "has-run"), (2, "has-run"), (3, "is-running"), (5, "has-run"))}
    world.carry_on()
    assert world.decided == [(0, "run"), (1, "has-run"), (2, "has-run"), (3, "is-running"), (4, "run"), (5, "has-run")]
    assert sum(isinstance(record.event, BackfillTicksSkipped) for record in world.records) == 3
    assert world.backfill.status == "active"
    for seq in world.backfill.running:
        world.end(seq, "failed")
    world.carry_on()
    assert (world.backfill.status, world.backfill.failed, world.backfill.skipped) == ("done", 2, 4)


def test_ticks_that_have_a_run_are_run_again_where_that_is_meant() -> None:
    world = World(hours=2, again=True)
    world.held = {NOON_US: "has-run", NOON_US + HOUR_US: "has-run"}
    world.carry_on()
    assert world.decided == [(0, "run"), (1, "run")]


@pytest.mark.parametrize("runs", [False, True])
def test_a_cancelled_backfill_asks_for_nothing_more_and_ends_with_its_runs(runs: bool) -> None:
    world = World()
    world.carry_on()
    world.append(BackfillCancelRequested(1, runs))
    assert world.decide() is None
    assert (world.backfill.status, world.backfill.cancel_runs, world.backfill.is_over) == ("cancelling", runs, False)
    for seq in world.backfill.running:
        world.end(seq, "cancelled")
    world.carry_on()
    assert isinstance(world.records[-1].event, BackfillEnded)
    assert (world.backfill.status, world.backfill.failed, len(world.decided)) == ("cancelled", 2, 2)
    world.append(BackfillCancelRequested(1))
    assert world.backfill.status == "cancelled", "what is over stays so"


def test_a_backfill_ends_with_its_deployment() -> None:
    world = World(max_parallel=1)
    world.carry_on()
    world.deployed = False
    assert world.decide() is None
    world.end(2)
    world.carry_on()
    assert (world.backfill.status, world.decided) == ("undeployed", [(0, "run")])


@settings(max_examples=scaled(300, at_least=30), deadline=None)
@given(
    hours=st.integers(1, 12),
    parallel=st.integers(1, 4),
    held=st.dictionaries(st.integers(0, 12), st.sampled_from(("has-run", "is-running"))),
    story=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(("succeeded", "failed", "cancelled", "cancel", "forget"))), max_size=40),
)
def test_each_tick_is_decided_once_in_order_whatever_happens(
    hours: int, parallel: int, held: dict[int, str], story: list[tuple[int, str]]
) -> None:
    world = World(hours=hours, max_parallel=parallel)
    world.held = {NOON_US + hour * HOUR_US: reason for hour, reason in held.items()}
    world.carry_on()
    cancelled = False
    for which, what in story:
        if what == "cancel":
            cancelled = cancelled or not world.backfill.is_over
            world.append(BackfillCancelRequested(1))
        elif what == "forget":  # a tick gets a run from elsewhere, or loses it
            tick = NOON_US + which * HOUR_US
            if world.held.pop(tick, None) is None:
                world.held[tick] = "has-run"
        elif world.backfill.running:
            world.end(world.backfill.running[which % len(world.backfill.running)], what)
        world.carry_on()
    assert [tick for tick, _ in world.decided] == list(range(len(world.decided)))
    while world.backfill.running:
        world.end(world.backfill.running[0])
        world.carry_on()
    assert world.backfill.is_over
    assert world.backfill.status == ("cancelled" if cancelled else "done")
    if not cancelled:
        assert len(world.decided) == hours == world.backfill.skipped + world.backfill.succeeded + world.backfill.failed


# --- the fold ---------------------------------------------------------------------------------------------


def test_what_is_about_no_backfill_changes_none() -> None:
    assert number_of(RunRequested(1, "ada", trigger={"kind": "schedule", "tick_us": 1})) is None
    assert number_of(RunRequested(1, "ada", trigger={"kind": "backfill", "backfill": "x"})) is None
    events = [BackfillRunsEnded(4, (1,), (1,), ("failed",)), BackfillCancelRequested(4), RunRequested(1, "ada")]
    assert fold(FlowRecord(Seq(1), Micros(1), "x", event) for event in events) == {}


@pytest.mark.parametrize("payload", [b"\xc1", b"\x90", msgpack.packb([1, "default", "two"]), msgpack.packb([1, "default"])])
def test_what_is_no_backfill_is_told(payload: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        unpacked(payload)


def test_a_backfill_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    values = msgpack.unpackb(pack(begun()))
    assert unpacked(msgpack.packb([*values, "new"])) == begun()
