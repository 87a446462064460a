"""Backfills are planned, recorded and carried out: each tick once, whoever dies when."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from evflow import config
from evflow.core.backfill import Backfill, fold, number_of, unpacked
from evflow.core.codec import decode_report, encode
from evflow.core.events import RunCancelRequested, RunStarted
from evflow.core.flow_events import BackfillTicksSkipped, FlowPaused, FlowUndeployed, FlowUnpaused, RunGivenUp, RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.backfill_book import BackfillBook
from evflow.deployments.backfills import (
    BackfillNotFound,
    BackfillSpanInvalid,
    Name,
    NoSchedule,
    Plan,
    Wish,
    cancel,
    find,
    listed,
    parse,
    plan,
    preview,
    request,
    runs_of,
)
from evflow.deployments.catalog import Reference, find as deployment_of
from evflow.deployments.claims import claim_again
from evflow.errors import EvflowError
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient
from evflow.store.protocol import Store, StoreUnusable
from evflow.testing.faults import Crash
from tests.effort import scaled
from tests.unit.story import Story
from tests.unit.test_cli import TWO_STEPS
from tests.unit.ticking_world import HOUR_US, MINUTE_US, NOON_US, TICKING, Mortal, Plain, TickWorld

SINCE, UNTIL = "2025-11-24T12:00", "2025-11-24T16:00"
"""Five full hours before the instant at which the world begins: 16:00 UTC."""
FIRST = Name(TICKING, 1)


class BackfillWorld(TickWorld):
    """The world of ticks, with backfills, and a player of the runs."""

    def plan(self, **wished: Any) -> Plan:
        fields: dict[str, Any] = {"since": SINCE, "until": UNTIL, "user": "bob", "host": "desk", **wished}
        return plan(Reference(TICKING), self.deployment, Wish(**fields), self.store, self.now_us)

    def ask(self, **wished: Any) -> Backfill:
        return request(self.log, TICKING, self.plan(**wished), user="bob")

    def backfills(self, log: "LogClient | Mortal | None" = None) -> BackfillBook:
        return BackfillBook(cast("LogClient", log or self.log), "box")

    def carry_on(self, book: BackfillBook | None = None) -> float:
        return (book or self.backfills()).look(lambda _: True)

    def play(self, run: RunId, status: str = "succeeded") -> None:
        """Carry a run out, as a scheduler does, but for its line in the index."""
        story = Story(TWO_STEPS, flow=run.flow, number=run.number).start().wait(1)
        story = story.succeed(1, "end").wait(1).succeed(2) if status == "succeeded" else story.fail(1)
        call, shard = story.seal().call(), shared_shard(run)
        lease = self.server.write(lambda state: state.take(shard, "box:1", 30.0, self.server.now_us()))
        self.server.write(lambda state: state.append(lease, call))
        self.server.write(lambda state: state.release(lease))

    def play_all(self, book: BackfillBook | None = None, status: str = "succeeded") -> None:
        """Play until nothing more is asked for; what was played before is over."""
        played = {run for run in self.requested if self.log.head(shared_shard(run), run).seq}
        while True:
            self.carry_on(book)
            waiting = [run for run in self.requested if run not in played]
            if not waiting:
                return
            for run in waiting:
                self.play(run, status)
                played.add(run)

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Each tick that a backfill decided, in hours before the world began, and `run` or why it was skipped."""
        found: list[tuple[int, str]] = []
        for record in self.records:
            event = record.event
            if isinstance(event, RunRequested) and number_of(event) is not None and event.trigger is not None:
                found.append(((event.trigger["tick_us"] - NOON_US) // HOUR_US, "run"))
            elif isinstance(event, BackfillTicksSkipped):
                since_us = event.since_us or event.tick_us
                found += [((tick - NOON_US) // HOUR_US, event.reason) for tick in range(since_us, event.tick_us + 1, HOUR_US)]
        return found

    def check(self) -> None:
        """What stands beside the log is what the log says, and every run is offered."""
        beside = {number: unpacked(packed) for number, packed in self.log.backfills(TICKING).items()}
        folded = fold(self.records)
        for number, backfill in beside.items():
            assert backfill == folded[number]
            assert len(backfill.running) <= backfill.max_parallel
        for run in self.requested:
            if not self.log.head(shared_shard(run), run).seq:
                assert self.offers(run), f"{run} was not offered"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BackfillWorld]:
    config.reset()
    made = BackfillWorld(tmp_path)
    made.schedule()
    yield made
    config.reset()


# --- planning ---------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_run_and_asks_for_nothing(world: BackfillWorld) -> None:
    assert [(tick - NOON_US, what) for tick, what in preview(world.log, TICKING, world.plan())] == [
        (-h * HOUR_US, "run") for h in (4, 3, 2, 1, 0)
    ]
    assert len(world.records) == 1


@pytest.mark.parametrize(
    ("wished", "message", "hint"),
    [
        ({"since": "yesterday"}, "'yesterday' is no instant.", "by the clock of UTC"),
        ({"since": UNTIL, "until": SINCE}, "The span ends before it begins", "Nothing was asked for"),
        ({"since": "2030-01-01", "until": "2030-01-02"}, "begins in the future", "The schedule itself"),
        ({"since": "2025-11-24T12:01", "until": "2025-11-24T12:59"}, "has no tick from 2025-11-24T12:01", "Nothing"),
        ({"since": "2025-01-01"}, "has 7,865 ticks from 2025-01-01", "`--most 7865` allows it."),
        ({"since": "1990-01-01", "most": 100_000}, "has more than 100,000 ticks", "several backfills"),
        ({"most": 0}, "--most 0 is not possible", "several"),
        ({"max_parallel": 0}, "0 runs in parallel are not possible", ""),
        ({"max_parallel": 101}, "101 runs in parallel", ""),
        ({"parameters": {"size": "x" * 9_000}}, "9,004 characters", "into a file"),
        ({"parameters": {"size": "many"}}, "'many' is not an integer", ""),
        ({"parameters": {"sise": "1"}}, "has no parameter 'sise'", "Did you mean 'size'"),
        ({"tags": ("\n",)}, "tag", "No run was started"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_recorded(
    world: BackfillWorld, wished: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(EvflowError) as refused:
        world.ask(**wished)
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert len(world.records) == 1


def test_a_flow_without_a_schedule_has_nothing_to_backfill(world: BackfillWorld) -> None:
    world.deploy(Plain)
    wanted = Reference(FlowName("Plain"))
    with pytest.raises(NoSchedule):
        plan(wanted, deployment_of(world.log, wanted), Wish(SINCE, UNTIL), world.store, world.now_us)


def test_a_span_that_ends_in_the_future_ends_now(world: BackfillWorld) -> None:
    planned = world.plan(until="2025-11-24")
    assert (planned.cut, planned.event.to_us, planned.event.ticks) == (True, world.now_us, 5)
    assert not world.plan().cut


def test_names_of_backfills() -> None:
    assert parse("Ticking/b12") == Name(TICKING, 12)
    assert str(Name(TICKING, 12)) == "Ticking/b12"
    for text in ("Ticking", "Ticking/1", "Ticking/b", "/b1", "a b/b1"):
        with pytest.raises(BackfillSpanInvalid):
            parse(text)


# --- carrying it out --------------------------------------------------------------------------------------


def test_each_tick_is_run_in_its_order_one_after_the_other(world: BackfillWorld) -> None:
    asked = world.ask(parameters={"size": "7"}, tags=("mine",))
    assert (asked.number, asked.ticks, asked.by, asked.status) == (1, 5, "user:bob", "active")
    book = world.backfills()
    assert world.carry_on(book) < 0.3
    (run,) = world.requested
    (offer,) = world.offers(run)
    assert offer.trigger == {
        "kind": "backfill", "deployment": "default", "version": 1, "tick_us": NOON_US - 4 * HOUR_US, "tick": "2025-11-24T12:00:00+00:00",
        "cron": "0 * * * *", "timezone": "UTC", "reason": "backfill", "backfill": 1,
    }  # fmt: skip
    assert (offer.user, offer.parameters_shown, offer.tags) == ("bob", {"size": "7"}, ("mine",))
    world.carry_on(book)
    assert len(world.requested) == 1
    world.play_all(book)
    found = find(world.log, FIRST)
    assert (found.status, found.succeeded, found.failed, found.skipped) == ("done", 5, 0, 0)
    assert world.ticks == [(-hour, "run") for hour in (4, 3, 2, 1, 0)]
    assert [run for _, run in runs_of(world.log, FIRST)] == world.requested
    assert world.carry_on(book) == 1.0
    world.check()


def test_runs_that_failed_are_counted_and_hold_up_nothing(world: BackfillWorld) -> None:
    world.ask(max_parallel=3)
    world.play_all(status="failed")
    found = find(world.log, FIRST)
    assert (found.status, found.succeeded, found.failed) == ("done", 0, 5)


def test_ticks_with_a_successful_or_a_running_run_are_skipped_unless_they_are_meant(world: BackfillWorld) -> None:
    world.ask(since=UNTIL)
    world.play_all()
    world.ask(since="2025-11-24T15:00", until="2025-11-24T15:30")
    world.carry_on()
    world.ask()
    assert [what for _, what in preview(world.log, TICKING, world.plan())] == ["run", "run", "run", "is-running", "has-run"]
    world.play_all()
    assert [what for _, what in world.ticks] == ["run", "run", "run", "run", "run", "has-run", "has-run"]
    assert find(world.log, Name(TICKING, 3)).skipped == 2
    world.ask(again=True, max_parallel=5)
    world.play_all()
    assert find(world.log, Name(TICKING, 4)).succeeded == 5
    assert [name.number for name, _ in listed(world.log)] == [4, 3, 2, 1]
    world.check()


def test_a_tick_of_the_schedule_counts_as_a_run_of_the_tick(world: BackfillWorld) -> None:
    world.now_us += HOUR_US
    world.look()
    world.play(world.requested[0])
    world.ask(since="2025-11-24T17:00", until="2025-11-24T17:00")
    world.carry_on()
    assert world.ticks == [(1, "has-run")]


def test_a_backfill_keeps_its_version_and_minds_no_pause(world: BackfillWorld) -> None:
    world.ask(max_parallel=1)
    world.schedule(cron="30 * * * *")
    world.change(FlowPaused("default"))
    world.play_all()
    assert len(world.ticks) == 5
    assert {record.event.version for record in world.records if isinstance(record.event, RunRequested)} == {1}


def test_a_backfill_of_what_is_undeployed_ends(world: BackfillWorld) -> None:
    world.ask()
    world.carry_on()
    world.change(FlowUndeployed("default"))
    world.play_all()
    assert (find(world.log, FIRST).status, len(world.ticks)) == ("undeployed", 1)


def test_a_run_that_was_asked_for_before_the_end_of_its_deployment_is_offered(world: BackfillWorld) -> None:
    """Its process died in between; a run that nobody offers is never over, and its backfill would wait for it for ever."""
    world.ask()
    for point in range(100):
        with suppress(Crash):
            world.carry_on(world.backfills(Mortal(world.log, point, "crash")))
        if world.requested:
            break
    (run,) = world.requested
    assert not world.offers(run)
    world.change(FlowUndeployed("default"))
    world.carry_on()
    assert len(world.offers(run)) == 1
    world.play_all()
    assert (find(world.log, FIRST).status, len(world.ticks)) == ("undeployed", 1)


def test_a_cancelled_backfill_cancels_its_runs_where_that_is_meant(world: BackfillWorld) -> None:
    world.ask(max_parallel=2)
    book = world.backfills()
    world.carry_on(book)
    assert cancel(world.log, FIRST, runs=True, user="eve")[1]
    for _ in range(3):
        world.carry_on(book)
    for run in world.requested:
        reports = [decode_report(payload) for _, payload in world.server.state.shard(shared_shard(run)).inbox.values()]
        ends = [(event, by) for event, by, *_ in reports if isinstance(event, RunCancelRequested)]
        assert [by for _, by in ends][:1] == ["user:eve"]
        assert ends[0][0].reason == "the backfill Ticking/b1 was cancelled"
    world.play_all(book, status="failed")
    assert find(world.log, FIRST).status == "cancelled"
    assert len(world.ticks) == 2
    found, done = cancel(world.log, FIRST, runs=False, user="eve")
    assert (found.status, done) == ("cancelled", False)
    with pytest.raises(BackfillNotFound, match="There are: Ticking/b1"):
        cancel(world.log, Name(TICKING, 9), runs=False, user="eve")


def test_a_store_that_is_away_is_waited_for(world: BackfillWorld) -> None:
    world.ask()
    away = True

    def stores(_: str) -> Store:
        if away:
            raise StoreUnusable("away", "for a while")
        return world.store

    book = BackfillBook(world.log, "box", stores)
    world.carry_on(book)
    away = False
    world.carry_on(book)
    assert world.ticks == []
    world.now_us += 6_000_000
    world.carry_on(book)
    assert world.ticks == [(-4, "run")]


def test_what_cannot_be_asked_for_is_skipped_with_its_reason(world: BackfillWorld) -> None:
    """The store is there, and what was deployed is not in it any more."""
    world.ask()
    digest = world.deployment.manifest.hex()
    for path in [path for path in world.home.rglob("*") if digest in path.name.replace("/", "") or digest[2:] in path.name]:
        path.unlink()
    world.carry_on()
    found = find(world.log, FIRST)
    assert (found.status, found.skipped) == ("done", 5)
    assert all(what.startswith("deployment-is-elsewhere: ") for _, what in world.ticks)


# --- who dies when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crash", "lost"])
def test_wherever_a_process_dies_each_tick_is_decided_once_and_each_run_offered(tmp_path: Path, kind: Any) -> None:
    for point in range(200):
        (folder := tmp_path / str(point)).mkdir()
        world = BackfillWorld(folder)
        world.schedule()
        world.ask(max_parallel=2)
        mortal = Mortal(world.log, point, kind)
        book = world.backfills(mortal)
        try:
            for _ in range(4):
                world.carry_on(book)
                for run in world.requested:
                    if world.offers(run) and not world.log.head(shared_shard(run), run).seq:
                        world.play(run)
        except (Crash, LogUnavailable):
            assert mortal.struck
        world.carry_on(book if kind == "lost" else None)
        world.check()
        for run in world.requested:
            if not world.log.head(shared_shard(run), run).seq:
                world.play(run)
        while not find(world.log, FIRST).is_over:
            world.carry_on()
            for run in world.requested:
                if not world.log.head(shared_shard(run), run).seq:
                    world.play(run)
        assert world.ticks == [(-hour, "run") for hour in (4, 3, 2, 1, 0)]
        assert find(world.log, FIRST).succeeded == 5
        if not mortal.struck:
            assert point > 30
            return
    pytest.fail("it never came to its end")


def claimed(world: BackfillWorld, event: RunStarted) -> str:
    """What an owner hears that writes a run again whose log is lost."""
    return claim_again(world.log, RunId(TICKING, RunNumber(event.number)), encode(event, turn=1, at_us=1, principal="test", cause=0))


def test_a_run_whose_request_was_lost_with_those_of_ticks_before_it_is_asked_for_again_with_them(world: BackfillWorld) -> None:
    """Its owner writes it again before those of the others do: no tick is left out, and none has two runs."""
    world.ask(max_parallel=2)
    world.carry_on()
    one, two = (world.offers(run)[-1] for run in world.requested)
    while world.requested:
        world.server.regress(1)
    assert "those of ticks before it" in claimed(world, two)
    assert claimed(world, one) == ""
    world.play_all()
    assert world.ticks == [(-hour, "run") for hour in (4, 3, 2, 1, 0)]
    assert [record.event.number for record in world.records if isinstance(record.event, RunGivenUp)] == [two.number]
    world.check()


def test_what_was_read_of_a_log_that_its_server_lost_since_decides_nothing(world: BackfillWorld) -> None:
    """The log ends where it did, by events of others: who slept meanwhile, and lost no connection, reads it anew."""
    world.ask(max_parallel=2)
    sleeper = world.backfills()
    world.carry_on(sleeper)
    first, _ = world.requested
    while world.requested:
        world.server.regress(1)
    world.change(FlowPaused("default"))
    world.change(FlowUnpaused("default"))
    world.play(first)
    for _ in range(3):
        world.carry_on(sleeper)
        world.check()
    world.play_all(sleeper)
    assert world.ticks == [(-hour, "run") for hour in (4, 3, 2, 1, 0)]
    assert find(world.log, FIRST).succeeded == 5


def test_an_offer_that_the_server_lost_is_made_again_though_its_request_is_there(world: BackfillWorld) -> None:
    """Who asked lost no connection, and takes the run for one that others carry out."""
    world.ask(max_parallel=1, parameters={"size": "7"})
    slept = world.backfills()
    world.carry_on(slept)
    [run] = world.requested
    while world.offers(run):
        world.server.regress(1)
    assert world.requested == [run]
    book = world.book()
    for _ in range(2):
        world.carry_on(slept)
        world.look(book)
        world.now_us += MINUTE_US
    [offered] = world.offers(run)
    assert offered.parameters_shown == {"size": "7"}
    world.check()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.integers(0, 2), st.integers(0, 8), st.sampled_from(("crash", "lost", "none"))),
        st.tuples(st.just("play"), st.sampled_from(("succeeded", "failed"))),
        st.tuples(st.just("ask"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("tick")),
    ),
    max_size=25,
)


@settings(max_examples=scaled(200, at_least=20), deadline=None)
@given(steps=STEPS)
def test_any_story_decides_each_tick_of_each_backfill_once(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    world = BackfillWorld(tmp_path_factory.mktemp("story"))
    world.schedule()
    books: dict[int, BackfillBook] = {}
    for step in steps:
        if step[0] == "ask":
            world.ask(max_parallel=step[1], again=step[2])
        elif step[0] == "cancel" and step[1] in world.log.backfills(TICKING):
            cancel(world.log, Name(TICKING, step[1]), runs=step[2], user="eve")
        elif step[0] == "tick":
            world.now_us += 60 * MINUTE_US
            world.look()
        elif step[0] == "play":
            for run in world.requested:
                if world.offers(run) and not world.log.head(shared_shard(run), run).seq:
                    world.play(run, step[1])
                    break
        elif step[0] == "look":
            _, number, point, kind = step
            mortal = Mortal(world.log, point, kind)
            book = books.setdefault(number, world.backfills())
            book._log = cast("LogClient", mortal)
            try:
                world.carry_on(book)
            except Crash:
                del books[number]
            except LogUnavailable:
                pass
    world.carry_on()
    world.carry_on()
    world.check()
    world.play_all()
    decided: dict[int, list[int]] = {}
    for record in world.records:
        number = number_of(record.event)
        if isinstance(record.event, RunRequested) and number is not None:
            decided.setdefault(number, []).append((record.event.trigger or {})["tick_us"])
        elif isinstance(record.event, BackfillTicksSkipped):
            since_us = record.event.since_us or record.event.tick_us
            decided.setdefault(record.event.number, []).extend(range(since_us, record.event.tick_us + 1, HOUR_US))
    for name, backfill in listed(world.log):
        assert backfill.is_over
        of_it = decided.get(name.number, [])
        assert of_it == sorted(set(of_it))
        assert backfill.status == "cancelled" or len(of_it) == backfill.ticks
    world.check()
