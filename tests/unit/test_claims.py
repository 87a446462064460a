"""A run whose log and request a fail-over lost is written again under its number, or given up where the flow's log says so: never doubled."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import config
from evflow.core.codec import encode
from evflow.core.events import RunStarted
from evflow.core.flow_events import RunGivenUp, RunRequested
from evflow.core.ids import RunId, RunNumber
from evflow.deployments.catalog import Reference, find
from evflow.deployments.claims import claim_again
from evflow.deployments.offers import offer_again
from evflow.deployments.request import Asked, Requested, request_run
from tests.unit.ticking_world import HOUR_US, TICKING, TickWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TickWorld]:
    config.reset()
    made = TickWorld(tmp_path)
    made.schedule()
    yield made
    config.reset()


def ask(world: TickWorld, user: str = "bob") -> Requested:
    return request_run(world.log, world.store, find(world.log, Reference(TICKING)), Asked({}, (), user, "desk"))


def tick(world: TickWorld) -> RunStarted:
    """A tick's run begins."""
    world.now_us += HOUR_US
    world.look()
    return world.offers(world.requested[-1])[-1]


def lose(world: TickWorld, *numbers: int) -> None:
    """A fail-over loses what was written last, up to these requests."""
    while any(number in requests(world) for number in numbers):
        world.server.regress(1)


def first(event: RunStarted) -> bytes:
    return encode(event, turn=1, at_us=1, principal="test", cause=0)


def again(world: TickWorld, event: RunStarted) -> str:
    return claim_again(world.log, RunId(TICKING, RunNumber(event.number)), first(event))


def requests(world: TickWorld) -> list[int]:
    return [record.event.number for record in world.records if isinstance(record.event, RunRequested)]


def given_up(world: TickWorld) -> list[int]:
    return [record.event.number for record in world.records if isinstance(record.event, RunGivenUp)]


def test_a_run_whose_request_stands_is_written_again(world: TickWorld) -> None:
    asked = ask(world).started
    assert again(world, asked) == ""
    assert (requests(world), given_up(world)) == ([1], [])


@pytest.mark.parametrize("by_tick", [True, False])
def test_a_number_that_was_lost_and_that_nobody_has_is_claimed_once(world: TickWorld, by_tick: bool) -> None:
    started = tick(world) if by_tick else ask(world).started
    lose(world, 1)
    assert [again(world, started) for _ in range(3)] == ["", "", ""]
    assert (requests(world), given_up(world)) == ([1], [])
    world.look()
    assert requests(world) == [1], "its tick is not decided again"
    assert world.folded.current["default"] == world.deployment
    assert ask(world).run.number == 2


def test_of_a_number_that_was_claimed_the_same_offer_can_be_made_again(world: TickWorld) -> None:
    """Whoever claimed it may have died before it wrote the run."""
    asked = Asked({}, ("urgent",), "bob", "desk", None, {"priority": 7})
    made = request_run(world.log, world.store, find(world.log, Reference(TICKING)), asked)
    [offered] = world.offers(made.run)
    lose(world, 1)
    assert again(world, made.started) == ""
    [requested] = [record.event for record in world.records if isinstance(record.event, RunRequested)]
    before = len(world.offers(made.run))
    assert not offer_again(world.log, lambda _: world.store, TICKING, requested)
    assert world.offers(made.run)[before:] == [offered]


def test_a_run_whose_number_another_one_got_is_given_up_and_the_log_says_so(world: TickWorld) -> None:
    """The other one asks for the very same."""
    started = ask(world).started
    lose(world, 1)
    assert ask(world).run.number == 1
    assert "its number given to another run" in again(world, started)
    assert (requests(world), given_up(world)) == ([1], [1])


def test_a_tick_that_was_decided_again_has_one_run(world: TickWorld) -> None:
    ask(world)
    started = tick(world)
    assert started.number == 2
    lose(world, 1, 2)
    world.look()
    assert requests(world) == [1]
    assert "decided again as Ticking/1" in again(world, started)
    assert (requests(world), given_up(world)) == ([1], [2])


def test_a_tick_whose_run_was_given_up_is_decided_again(world: TickWorld) -> None:
    started = tick(world)
    lose(world, 1)
    assert ask(world).run.number == 1
    assert again(world, started)
    world.look()
    assert requests(world) == [1, 2]
    assert [hour for hour, decided in world.decisions if decided == "run"] == [1]


def test_numbers_are_claimed_in_any_order(world: TickWorld) -> None:
    one, two = ask(world).started, ask(world, "eve").started
    lose(world, 1, 2)
    assert [again(world, two), again(world, one)] == ["", ""]
    assert sorted(requests(world)) == [1, 2]
    assert ask(world).run.number == 3
