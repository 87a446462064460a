"""Ticks are decided once, whoever dies when, and the runs that they ask for are offered."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from evflow import config
from evflow.core.deployments import pack
from evflow.core.flow_events import FlowPaused, FlowUndeployed, FlowUnpaused, RunRequested, ScheduleTicked
from evflow.core.ids import FlowName
from evflow.deployments.book import Book
from evflow.deployments.ticks import upcoming_us
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shard
from evflow.log.protocol import DeploymentChange, Head, LogClient
from evflow.store.protocol import Store, StoreUnusable
from evflow.testing.faults import Crash
from tests.effort import scaled
from tests.unit.deploy_world import found
from tests.unit.ticking_world import HOUR_US, MINUTE_US, NO_EVENT, NOON_US, TICKING, Mortal, Overtaken, TickWorld, ticking


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TickWorld]:
    config.reset()
    yield TickWorld(tmp_path)
    config.reset()


def put(world: TickWorld, packed: bytes, name: str = "default") -> None:
    """Set what is deployed, beside the log."""
    world.log.append_flow(TICKING, world.log.flow_seq(TICKING), NO_EVENT, DeploymentChange(name, packed))


# --- a tick -----------------------------------------------------------------------------------------------


def test_a_tick_asks_for_a_run_and_offers_it(world: TickWorld) -> None:
    world.schedule(timezone="Europe/Berlin")
    book = world.book()
    assert world.look(book) == 1.0
    world.now_us += HOUR_US - 400_000
    assert world.look(book) == pytest.approx(0.4, abs=0.01)
    world.now_us += 400_000
    world.look(book)
    assert world.decisions == [(1, "run")]
    (run,) = world.requested
    (offer,) = world.offers(run)
    trigger = {
        "kind": "schedule",
        "deployment": "default",
        "version": 1,
        "tick_us": NOON_US + HOUR_US,
        "tick": "2025-11-24T18:00:00+01:00",
        "cron": "0 * * * *",
        "timezone": "Europe/Berlin",
        "reason": "due",
    }
    assert offer.trigger == trigger
    assert (offer.user, offer.parameters_shown, offer.namespace) == ("ada", {"size": "3"}, "user:ada")
    record = world.records[-1]
    assert isinstance(record.event, RunRequested)
    assert (record.event.trigger, record.event.host, record.principal) == (trigger, "box", "scheduler")
    line = world.log.run(run)
    assert line is not None
    assert line.is_requested
    world.check()


def test_it_is_told_how_long_after_its_tick_a_run_was_offered(world: TickWorld) -> None:
    world.schedule()
    lags: list[float] = []
    book = Book(world.log, "box", on_offer=lambda kind, lag_s: lags.append(lag_s) if kind == "schedule" else None)
    world.now_us += HOUR_US + 250_000
    world.look(book)
    world.look(book)
    assert lags == [pytest.approx(0.25, abs=0.01)]


def test_a_tick_is_decided_once_by_one_process(world: TickWorld) -> None:
    world.schedule()
    book = world.book()
    world.now_us += HOUR_US
    for _ in range(3):
        world.look(book)
    assert world.decisions == [(1, "run")]
    assert len(world.offers(world.requested[0])) == 1


def test_nothing_is_due_before_the_flow_was_deployed(world: TickWorld) -> None:
    world.now_us += 10 * HOUR_US + MINUTE_US
    world.schedule(catch_up="all")
    world.look()
    assert world.decisions == []


def test_what_is_deployed_later_is_noticed_at_the_next_look(world: TickWorld) -> None:
    book = world.book()
    world.look(book)
    world.schedule()
    world.now_us += HOUR_US
    world.look(book)
    assert world.decisions == [(1, "run")]


def test_flows_of_others_are_left_to_them(world: TickWorld) -> None:
    world.schedule()
    world.now_us += HOUR_US
    book = world.book()
    book.look(lambda flow: flow != TICKING)
    assert world.decisions == []
    book.look(lambda flow: flow == TICKING)
    assert world.decisions == [(1, "run")]


def test_a_flow_without_a_schedule_has_no_ticks(world: TickWorld) -> None:
    world.deploy(ticking().__base__ or object)
    world.now_us += 100 * HOUR_US
    assert world.look() == 1.0
    assert len(world.log.flow_events(FlowName("Plain"))) == 1


# --- which are run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "decisions"),
    [
        ("none", [(4, "missed")]),
        ("last", [(3, "not-the-last"), (4, "run")]),
        ("all", [(2, "too-many"), (3, "run"), (4, "run")]),
    ],
)
def test_ticks_that_no_scheduler_saw_are_caught_up_as_the_flow_says(world: TickWorld, catch_up: str, decisions: list[Any]) -> None:
    world.schedule(catch_up=catch_up, catch_up_most=2)
    world.now_us += 4 * HOUR_US + 30 * MINUTE_US
    world.look()
    assert world.decisions == decisions
    world.check()
    first = world.records[1].event
    assert isinstance(first, ScheduleTicked)
    assert first.since_us == NOON_US + HOUR_US


def test_ticks_of_a_pause_are_skipped(world: TickWorld) -> None:
    world.schedule(catch_up="all")
    book = world.book()
    world.change(FlowPaused("default"))
    world.now_us += HOUR_US
    world.look(book)
    world.change(FlowUnpaused("default"))
    world.now_us += HOUR_US
    world.look(book)
    assert world.decisions == [(1, "paused"), (2, "run")]
    world.check()


def test_ticks_of_a_pause_that_no_scheduler_saw_are_not_caught_up(world: TickWorld) -> None:
    world.schedule(catch_up="all")
    world.change(FlowPaused("default"))
    world.now_us += 3 * HOUR_US + MINUTE_US
    world.change(FlowUnpaused("default"))
    world.look()
    assert world.decisions == []


def test_an_undeployed_flow_has_no_ticks(world: TickWorld) -> None:
    world.schedule()
    book = world.book()
    world.look(book)
    world.change(FlowUndeployed("default"))
    world.now_us += HOUR_US
    world.look(book)
    assert world.decisions == []


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_deployment_whose_manifest_is_gone_skips_its_ticks_and_says_why(world: TickWorld) -> None:
    world.schedule()
    put(world, pack(replace(world.deployment, manifest=b"x" * 32)))
    world.now_us += HOUR_US
    world.look()
    ((tick, reason),) = world.decisions
    assert tick == 1
    assert reason.startswith("deployment-is-elsewhere: 'default', version 1, was deployed on box")
    assert world.requested == []


def test_a_store_that_is_away_is_waited_for(world: TickWorld) -> None:
    world.schedule()
    away = True

    def stores(_: str) -> Store:
        if away:
            raise StoreUnusable("away", "for a while")
        return world.store

    book = Book(world.log, "box", stores)
    world.now_us += HOUR_US
    world.look(book)
    assert world.decisions == []
    away = False
    world.now_us += 6_000_000
    world.look(book)
    assert world.decisions == [(1, "run")]
    world.check()


@pytest.mark.parametrize(
    "schedule",
    [{}, {"cron": 3}, {"cron": "x"}, {"cron": "0 0 * * *", "timezone": "Mars/Base"}, {"cron": "0 0 * * *", "catch_up": ["x"]}],
)
def test_a_schedule_that_cannot_be_read_hinders_no_other(world: TickWorld, schedule: dict[str, Any]) -> None:
    world.schedule()
    put(world, pack(replace(world.deployment, name="odd", schedule=schedule)), "odd")
    world.now_us += HOUR_US
    world.look()
    assert world.decisions == [(1, "run")]


@pytest.mark.parametrize("packed", [b"\xc1", b"\x90", msgpack.packb(["default", "one"])])
def test_a_deployment_that_cannot_be_read_hinders_no_other(world: TickWorld, packed: bytes) -> None:
    world.schedule()
    put(world, packed, "odd")
    world.now_us += HOUR_US
    world.look()
    assert world.decisions == [(1, "run")]


def test_whatever_goes_wrong_with_a_flow_other_flows_ticks_come(world: TickWorld) -> None:
    world.schedule()
    other = type("Another", (ticking(),), {"__module__": __name__})
    world.deploy(other)
    world.now_us += HOUR_US

    def readable(flow: FlowName) -> dict[str, bytes]:
        if flow != TICKING:
            raise RuntimeError("nobody thought of this")
        return world.log.deployments(flow)

    class Odd(Mortal):
        def __getattr__(self, name: str) -> Any:
            if name == "deployments":
                return readable
            return super().__getattr__(name)

    book = world.book(Odd(world.log, 10**9))
    assert world.log.flows() == ["Another", TICKING]
    assert world.look(book) == 1.0
    assert world.decisions == [(1, "run")]
    world.now_us += 6_000_000
    assert world.look(book) == 1.0


def test_a_log_that_is_away_is_told_and_the_tick_comes_afterwards(world: TickWorld) -> None:
    world.schedule()
    book = world.book()
    world.look(book)
    world.now_us += HOUR_US
    world.server.kill()
    with pytest.raises(LogUnavailable):
        world.look(book)
    world.server.start()
    world.look(book)
    assert world.decisions == [(1, "run")]


def test_a_clock_that_goes_back_repeats_no_tick(world: TickWorld) -> None:
    world.schedule(catch_up="all")
    book = world.book()
    world.now_us += HOUR_US
    world.look(book)
    server = world.server
    server._latest_us = 0
    world.now_us -= HOUR_US
    world.look(world.book())
    world.now_us += HOUR_US
    world.look(book)
    assert world.decisions == [(1, "run")]


def test_a_clock_that_jumped_ahead_is_undone_by_deploying_anew(world: TickWorld) -> None:
    world.schedule()
    world.now_us += 24 * 365 * HOUR_US
    world.look()
    world.server._latest_us = 0
    world.now_us = NOON_US
    world.look()
    world.schedule()
    world.now_us += HOUR_US
    world.look()
    assert world.decisions[-1] == (1, "run")


# --- who comes second, who dies ---------------------------------------------------------------------------


def test_of_two_processes_one_comes_too_late_and_looks_again(world: TickWorld) -> None:
    world.schedule(catch_up="all")
    world.now_us += 3 * HOUR_US
    first = world.book()
    second = world.book(Overtaken(world.log, lambda: world.look(first)))
    assert world.look(second) < 0.1
    world.look(second)
    assert world.decisions == [(1, "run"), (2, "run"), (3, "run")]
    world.check()


AFTERWARDS: dict[str, Callable[[TickWorld], None]] = {
    "nothing": lambda _: None,
    "undeployed": lambda world: world.change(FlowUndeployed("default")),
    "deployed": lambda world: world.schedule(catch_up="all"),
    "deployed with another schedule": lambda world: world.schedule(cron="30 * * * *"),
    "paused": lambda world: world.change(FlowPaused("default")),
}


@pytest.mark.parametrize("afterwards", sorted(AFTERWARDS))
@pytest.mark.parametrize("kind", ["crash", "lost"])
def test_wherever_a_process_dies_each_tick_is_decided_once_and_each_run_offered(tmp_path: Path, kind: Any, afterwards: str) -> None:
    for point in range(100):
        (folder := tmp_path / str(point)).mkdir()
        world = TickWorld(folder)
        world.schedule(catch_up="all", catch_up_most=2)
        world.now_us += 3 * HOUR_US
        mortal = Mortal(world.log, point, kind)
        book = world.book(mortal)
        try:
            world.look(book)
        except (Crash, LogUnavailable):
            assert mortal.struck
        AFTERWARDS[afterwards](world)
        world.look(book if kind == "lost" else None)
        world.check()
        if afterwards == "nothing":
            assert world.decisions == [(1, "too-many"), (2, "run"), (3, "run")]
        if not mortal.struck:
            assert point == 14
            return
    pytest.fail("it never came to its end")


def test_what_was_read_of_a_log_that_its_server_lost_since_decides_no_tick(world: TickWorld) -> None:
    """The log ends where it did, by an event of another: who slept meanwhile, and lost no connection, reads it anew."""
    world.schedule()
    world.now_us += HOUR_US
    sleeper = world.book()
    world.look(sleeper)
    end = world.log.flow_seq(TICKING)
    while world.requested:
        world.server.regress(1)
    world.change(FlowPaused("default"))
    assert world.log.flow_seq(TICKING) == end
    world.now_us += HOUR_US
    for _ in range(3):
        world.look(sleeper)
        world.check()
    assert (world.requested, world.deployment.paused) == ([], True)


def test_a_run_that_can_never_be_offered_does_not_hold_up_the_ticks_after_it(world: TickWorld) -> None:
    """Its version is not deployed any more, and the log that would tell of it has something else in it."""
    world.schedule()
    put(world, pack(replace(world.deployment, version=7)))
    world.now_us += HOUR_US
    with pytest.raises(Crash):
        world.look(world.book(Mortal(world.log, 2)))
    (run,) = world.requested
    put(world, pack(replace(world.deployment, version=8)))
    world.now_us += HOUR_US
    world.look()  # refuses the run, by an event of the flow's log, behind which the tick is decided
    world.look()
    assert world.decisions == [(1, "run"), (2, "run")]
    assert world.offers(run) == []


def test_a_run_that_began_is_not_offered_again(world: TickWorld) -> None:
    world.schedule()
    world.now_us += HOUR_US
    world.look()
    (run,) = world.requested
    world.server.state.run(shared_shard(run), run).head = Head(1, b"d" * 32)
    world.look()
    assert len(world.offers(run)) == 1


def test_a_run_whose_log_was_lost_is_offered_again_though_its_line_says_that_it_runs(world: TickWorld) -> None:
    """The line may be of another run of its number, which the server has lost and whose owner went on for a moment."""
    world.schedule()
    world.now_us += HOUR_US
    world.look()
    (run,) = world.requested
    line = world.log.run(run)
    assert line is not None
    world.log.index_run(replace(line, summary={**line.summary, "status": "running"}))
    world.look()
    assert len(world.offers(run)) == 2
    line = world.log.run(run)
    assert line is not None
    assert line.is_requested


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 300)),
        st.tuples(st.just("look"), st.integers(0, 2), st.integers(0, 8), st.sampled_from(("crash", "lost", "none"))),
        st.tuples(st.sampled_from(("pause", "unpause", "undeploy"))),
        st.tuples(st.just("deploy"), st.sampled_from(("0 * * * *", "*/30 * * * *")), st.sampled_from(("none", "last", "all"))),
    ),
    max_size=25,
)


@settings(max_examples=scaled(300, at_least=30), deadline=None)
@given(steps=STEPS)
def test_any_story_decides_each_tick_once_and_offers_each_run(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    world = TickWorld(tmp_path_factory.mktemp("story"))
    world.schedule(catch_up="all")
    books: dict[int, Book] = {}
    for step in steps:
        if step[0] == "wait":
            world.now_us += step[1] * MINUTE_US
        elif step[0] == "deploy":
            world.schedule(cron=step[1], catch_up=step[2])
        elif step[0] == "look":
            _, number, point, kind = step
            mortal = Mortal(world.log, point, kind)
            book = books.setdefault(number, world.book())
            book._log = book._ledger.log = cast("LogClient", mortal)
            try:
                world.look(book)
            except Crash:
                del books[number]
            except LogUnavailable:
                pass
        elif "default" in world.folded.current:
            world.change({"pause": FlowPaused, "unpause": FlowUnpaused, "undeploy": FlowUndeployed}[step[0]]("default"))
    world.look()
    world.look()
    world.check()


def test_the_next_tick_of_a_deployment_is_known(world: TickWorld) -> None:
    deployment = found(world.deploy(ticking()))
    assert upcoming_us(deployment, NOON_US) == NOON_US + HOUR_US
    assert upcoming_us(deployment, NOON_US + 5 * HOUR_US) == NOON_US + 6 * HOUR_US
    assert upcoming_us(replace(deployment, schedule={"cron": "x"}), NOON_US) is None
    assert upcoming_us(replace(deployment, schedule=None), NOON_US) is None
