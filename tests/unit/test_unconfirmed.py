"""Who asks for a run and dies between its number and its offer has asked all the same: schedulers make the offer again."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from evflow import config
from evflow.core import flow_events
from evflow.core.codec import decode_report
from evflow.core.events import RunStarted
from evflow.core.flow_events import RunForgotten, RunRequested
from evflow.core.ids import RunId, RunNumber
from evflow.deployments.book import Book
from evflow.deployments.catalog import Reference, find
from evflow.deployments.request import Asked, request_run
from evflow.deployments.unconfirmed import PATIENCE_US, TAIL
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient
from evflow.testing.faults import Crash
from tests.unit.ticking_world import TICKING, Mortal, Plain, TickWorld

RUN = RunId(TICKING, RunNumber(1))
CALLS_US = 10_000
"""More than all calls of a test take: the simulated clock moves on with each."""
ACTS = 6
"""A number, a line and an offer, each with a point before and after it."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TickWorld]:
    config.reset()
    made = TickWorld(tmp_path)
    made.deploy(type(TICKING, (Plain,), {"__module__": __name__}))
    yield made
    config.reset()


def ask(world: TickWorld, point: int = ACTS) -> bool:
    """Somebody asks, and dies at a point; answers whether they did."""
    mortal = Mortal(world.log, point)
    asked = Asked({"size": "7"}, ("mine",), "bob", "desk", None, {"priority": 5})
    with suppress(Crash):
        request_run(cast("LogClient", mortal), world.store, find(world.log, Reference(TICKING)), asked)
    return mortal.struck


def offers(world: TickWorld, number: int = 1) -> list[RunStarted]:
    run = RunId(TICKING, RunNumber(number))
    found = [decode_report(payload)[0] for name, payload in world.server.state.shard(shared_shard(run)).inbox.values() if name == str(run)]
    return [event for event in found if isinstance(event, RunStarted)]


def later(world: TickWorld, book: Book, by_us: int = PATIENCE_US + CALLS_US) -> None:
    world.now_us += by_us
    world.look(book)


@pytest.mark.parametrize("point", range(ACTS + 1))
def test_wherever_who_asks_dies_the_run_that_has_a_number_is_offered_as_it_was_asked_for(world: TickWorld, point: int) -> None:
    died, book = ask(world, point), world.book()
    assert died == (point < ACTS)
    later(world, book)
    requests = [record.event for record in world.records if isinstance(record.event, RunRequested)]
    assert len(requests) == (point > 0)
    if not requests:
        assert offers(world) == []
        return
    ask(world)  # for comparison: another one, of somebody who lives
    for made in offers(world):
        [told] = offers(world, 2)
        assert (made.parameters, made.parameters_shown, made.tags, made.system_tags, made.options, made.user, made.graph) == (
            told.parameters, told.parameters_shown, told.tags, told.system_tags, told.options, told.user, told.graph,
        )  # fmt: skip
    assert offers(world)
    line = world.log.run(RUN)
    assert line is not None
    assert line.is_requested


def test_who_asks_has_time_to_make_the_offer(world: TickWorld) -> None:
    ask(world, 1)
    book = world.book()
    world.look(book)
    later(world, book, PATIENCE_US - CALLS_US)
    assert offers(world) == []
    later(world, book, 2 * CALLS_US)
    assert len(offers(world)) == 1


def test_what_nobody_takes_up_is_offered_less_and_less_often(world: TickWorld) -> None:
    ask(world, 1)
    book = world.book()
    for _ in range(60):
        later(world, book)
    assert 3 <= len(offers(world)) <= 6


def test_a_scheduler_that_was_there_before_notices_a_request_too(world: TickWorld) -> None:
    book = world.book()
    world.look(book)
    ask(world, 1)
    world.look(book)
    later(world, book)
    assert len(offers(world)) == 1


def test_a_run_that_is_over_is_not_offered_again(world: TickWorld) -> None:
    for _ in range(6):
        ask(world)
    for number in range(1, 7):
        run = RunId(TICKING, RunNumber(number))
        line = world.log.run(run)
        assert line is not None
        world.log.index_run(replace(line, summary={**line.summary, "status": "succeeded", "started_us": world.now_us}))
    later(world, world.book())
    assert [len(offers(world, number)) for number in range(1, 7)] == [1] * 6


def test_a_run_that_was_forgotten_is_not_offered_again(world: TickWorld) -> None:
    ask(world, 1)
    forgotten = flow_events.encode(RunForgotten(1, "test"), at_us=world.now_us, principal="user:ada")
    world.log.append_flow(TICKING, world.log.flow_seq(TICKING), forgotten)
    later(world, world.book())
    assert offers(world) == []


def test_many_requests_are_all_offered(world: TickWorld) -> None:
    book = world.book()
    world.look(book)
    many = 30
    for _ in range(many):
        ask(world, 1)
    world.look(book)
    later(world, book)
    assert [len(offers(world, number)) for number in range(1, many + 1)] == [1] * many
    assert many < TAIL
