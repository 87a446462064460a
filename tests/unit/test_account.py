"""Why a run began and why none did, read from the logs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import config
from evflow.core.flow_events import FlowPaused
from evflow.core.ids import RunId, RunNumber
from evflow.deployments.account import around, chain, request_of
from tests.unit.listening_world import LISTENING, ListenWorld, S
from tests.unit.ticking_world import HOUR_US, NOON_US, TICKING, TickWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ListenWorld]:
    config.reset()
    yield ListenWorld(tmp_path)
    config.reset()


def told(world: ListenWorld) -> list[str]:
    found = around(world.log, LISTENING, NOON_US, NOON_US + 24 * HOUR_US)
    return [f"{one.what} {one.id} {one.outcome} {one.reason} {one.run}".strip() for one in found]


def test_the_chain_to_a_run_has_its_events_with_what_they_said(world: ListenWorld) -> None:
    world.listen({"events": ["a", "b"]})
    world.publish("a", {"n": 1})
    world.look()
    world.now_us += S
    world.publish("b", {"n": 2})
    world.look()
    request = request_of(world.log, RunId(LISTENING, RunNumber(1)))
    assert request is not None
    trigger = getattr(request.event, "trigger", {})
    found = chain(world.log, LISTENING, trigger)
    assert [(one.id, one.outcome, one.payload) for one in found] == [
        ("a1", "published", {"n": 1}), ("a1", "waits", None), ("b2", "published", {"n": 2}),
    ]  # fmt: skip
    assert request_of(world.log, RunId(LISTENING, RunNumber(2))) is None


def test_each_event_of_a_time_is_told_with_what_became_of_it(world: ListenWorld) -> None:
    world.listen({"event": "a", "filter": {"n": {">": 1}}, "throttle": "1h"})
    world.publish("a", {"n": 1})
    world.publish("b")
    world.publish("a", {"n": 2})
    world.publish("a", {"n": 3})
    world.look()
    world.publish("a", {"n": 4})
    assert told(world) == [
        "deployed", "event a1 not-wanted n is 1, wanted > 1", "event a3 started event Listening/1", "event a4 skipped throttled", "event a5 undecided",
    ]  # fmt: skip


def test_what_nobody_was_there_to_decide_is_told_as_late(world: ListenWorld) -> None:
    world.listen()
    world.publish("a")
    world.now_us += HOUR_US
    world.look()
    (entry,) = [one for one in around(world.log, LISTENING, NOON_US, NOON_US + HOUR_US) if one.run]
    assert entry.was_late


def test_ticks_are_told_also_those_that_nobody_decided(tmp_path: Path) -> None:
    world = TickWorld(tmp_path)
    world.schedule(catch_up="last")
    world.now_us += 3 * HOUR_US
    world.look()
    world.change(FlowPaused("default"))
    found = around(world.log, TICKING, NOON_US, NOON_US + 5 * HOUR_US)
    ticks = [((one.at_us - NOON_US) // HOUR_US, one.outcome, one.reason, one.run) for one in found if one.what == "tick"]
    assert ticks == [
        (1, "skipped", "not-the-last", ""), (2, "skipped", "not-the-last", ""), (3, "started", "due", "Ticking/1"), (4, "undecided", "paused", ""),
        (5, "undecided", "paused", ""),
    ]  # fmt: skip
