"""Why a run began and why none did, read from the logs."""

from collections.abc import Iterator
from math import log2
from pathlib import Path
from typing import Any, cast

import pytest

from evflow import config
from evflow.core import flow_events
from evflow.core.deployments import Deployments
from evflow.core.flow_events import FlowPaused, FlowUnpaused, RunRequested, RunTagged
from evflow.core.ids import FlowName, RunNumber
from evflow.deployments.account import around, chain, deployments_at
from evflow.deployments.catalog import history
from evflow.deployments.finding import records, request_of
from evflow.log.protocol import FlowEvent, LogClient
from evflow.testing.simulated_log import SimulatedLogClient
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
    request = request_of(world.log, LISTENING, RunNumber(1))
    assert request is not None
    trigger = getattr(request.event, "trigger", {})
    found = chain(world.log, LISTENING, trigger)
    assert [(one.id, one.outcome, one.payload) for one in found] == [
        ("a1", "published", {"n": 1}), ("a1", "waits", None), ("b2", "published", {"n": 2}),
    ]  # fmt: skip
    assert request_of(world.log, LISTENING, RunNumber(2)) is None


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


def test_a_flood_of_events_is_told_at_the_cost_of_each(world: ListenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event had folded all decisions anew: three thousand of them took half a minute."""
    world.listen({"event": "a", "throttle": "1h"})
    for _ in range(60):
        world.publish("a")
        world.look()
    folds, apply = 0, Deployments.apply

    def counted(self: Deployments, record: FlowEvent) -> None:
        nonlocal folds
        folds += 1
        apply(self, cast("Any", record))

    monkeypatch.setattr(Deployments, "apply", counted)
    assert sum(line.endswith("skipped throttled") for line in told(world)) == 59
    assert folds < 60 * 10


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
    assert len([one for one in around(world.log, TICKING, NOON_US, NOON_US + 5 * HOUR_US) if one.what == "tick"]) == 3, "others are to come"
    assert around(world.log, TICKING, NOON_US + 24 * HOUR_US, NOON_US + 26 * HOUR_US) == []
    world.now_us += 2 * HOUR_US
    found = around(world.log, TICKING, NOON_US, NOON_US + 5 * HOUR_US)
    ticks = [((one.at_us - NOON_US) // HOUR_US, one.outcome, one.reason, one.run) for one in found if one.what == "tick"]
    assert ticks == [
        (1, "skipped", "not-the-last", ""), (2, "skipped", "not-the-last", ""), (3, "started", "due", "Ticking/1"), (4, "undecided", "paused", ""),
        (5, "undecided", "paused", ""),
    ]  # fmt: skip


class Counting:
    """A log that counts the entries of flows' logs that are read."""

    def __init__(self, log: SimulatedLogClient) -> None:
        self._log = log
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def flow_events(self, flow: FlowName, after: int = 0, limit: int = 5_000) -> list[FlowEvent]:
        found = self._log.flow_events(flow, after, limit)
        self.read += len(found)
        return found


def counting(world: TickWorld) -> tuple[Counting, LogClient]:
    log = Counting(world.log)
    return log, cast("LogClient", log)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> TickWorld:
    """A flow that somebody asks for each ten minutes for months, a paused day in the middle, and a schedule that is changed at the end."""
    config.reset()
    world = TickWorld(tmp_path_factory.mktemp("long"))
    world.schedule()
    for number in range(1_500):
        world.now_us += HOUR_US // 6
        if number % 6 == 5 and not 1_200 <= number < 1_344:
            world.look()
        if number in (1_200, 1_344):
            world.change(FlowPaused("default") if number == 1_200 else FlowUnpaused("default"))
        asked = flow_events.encode(RunRequested(0, "bob"), at_us=world.now_us, principal="user:bob")
        world.log.request_run(TICKING, asked)
        tags = RunTagged(number + 1, ("a",), ("a",), ())
        world.log.append_flow(
            TICKING, world.log.flow_seq(TICKING), flow_events.encode(tags, at_us=world.now_us, principal="user:bob"), None
        )
    world.schedule(cron="30 * * * *")
    config.reset()
    return world


def test_the_request_of_a_run_is_found_without_reading_a_long_log(long: TickWorld) -> None:
    end = long.log.flow_seq(TICKING)
    assert end > 3_000
    requests = [record for record in records(long.log, TICKING) if isinstance(record.event, RunRequested)]
    for request in [requests[0], requests[-1], *requests[7::499]]:
        log, client = counting(long)
        assert isinstance(request.event, RunRequested)
        assert request_of(client, TICKING, RunNumber(request.event.number)) == request
        assert log.read < 20 * log2(end)
    assert request_of(long.log, TICKING, RunNumber(99_999)) is None


@pytest.mark.parametrize("hours", [0.5, 202, 224, 249])
def test_what_became_of_a_time_is_told_without_reading_a_long_log_and_is_what_reading_all_of_it_tells(
    long: TickWorld, hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_us = NOON_US + round(hours * HOUR_US)
    log, client = counting(long)
    found = around(client, TICKING, at_us - HOUR_US, at_us + HOUR_US)
    deployed = deployments_at(list(history(client, TICKING)), at_us)
    assert log.read < 300

    def begin(_log: LogClient, _flow: FlowName, _at_us: int) -> int:
        return 0

    def always(*_: object) -> bool:
        return True

    monkeypatch.setattr("evflow.deployments.account.place_of", begin)
    monkeypatch.setattr("evflow.deployments.account._is_open", always)
    whole = around(long.log, TICKING, at_us - HOUR_US, at_us + HOUR_US)
    assert found == whole
    assert any(one.what in ("tick", "request") for one in found) or any(one.what == "paused" for one in whole)
    then = deployments_at(list(records(long.log, TICKING)), at_us)
    assert {name: (one.version, one.paused, one.schedule) for name, one in deployed.items()} == {
        name: (one.version, one.paused, one.schedule) for name, one in then.items()
    }


def test_what_came_long_before_it_was_decided_is_told_with_its_decision(world: ListenWorld) -> None:
    """Another flow's user asks for runs all the while; a scheduler comes back after weeks."""
    world.listen()
    world.publish("a")
    for _ in range(1_000):
        world.now_us += HOUR_US
        world.log.request_run(LISTENING, flow_events.encode(RunRequested(0, "bob"), at_us=world.now_us, principal="user:bob"))
    assert told(world)[-1] == "event a1 undecided"
    world.look()
    assert told(world)[-1] == "event a1 started event Listening/1001"


def test_a_log_from_before_positions_were_noted_is_read_once_and_noted_then(world: ListenWorld) -> None:
    world.listen()
    world.listen({"event": "b"})
    state = world.server.state.flow(LISTENING)
    noted, state.marks = state.marks, None
    assert noted is not None
    before = list(history(world.log, LISTENING))
    assert [record.seq for record in before] == list(noted)
    world.change(FlowPaused("default"))
    assert state.marks == (*noted, world.log.flow_seq(LISTENING))
    assert [*before, *list(history(world.log, LISTENING))[-1:]] == list(history(world.log, LISTENING))
