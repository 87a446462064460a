"""A run that no scheduler can carry out is refused once, with its reason, and everybody who asks hears of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from evflow import config
from evflow.core.flow_events import RunRefused
from evflow.core.ids import RunId, RunNumber
from evflow.core.summary import GIVEN_UP, REFUSED
from evflow.deployments.account import around
from evflow.deployments.backfills import status_of
from evflow.deployments.refusals import give_up, mark, refuse
from evflow.log.protocol import LogClient
from evflow.replay.load import RunGone, look
from tests.unit.test_unconfirmed import RUN, ask, later, offers
from tests.unit.ticking_world import TICKING, Mortal, Plain, TickWorld

WHY = "the option max_workers is no count"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TickWorld]:
    config.reset()
    made = TickWorld(tmp_path)
    made.deploy(type(TICKING, (Plain,), {"__module__": __name__}))
    yield made
    config.reset()


def refusals(world: TickWorld) -> list[RunRefused]:
    return [record.event for record in world.records if isinstance(record.event, RunRefused)]


def summary(world: TickWorld, run: RunId = RUN) -> dict[str, object]:
    line = world.log.run(run)
    assert line is not None
    return line.summary


def test_a_refusal_is_an_event_with_its_reason_and_the_index_says_it(world: TickWorld) -> None:
    ask(world)
    assert refuse(world.log, RUN, WHY, "scheduler")
    assert refusals(world) == [RunRefused(1, WHY)]
    told = summary(world)
    assert (told["status"], told["reason"], told["user"]) == (REFUSED, WHY, "bob")
    assert status_of(world.log, RUN) == REFUSED  # else a backfill would wait for it for ever


def test_what_is_refused_is_not_offered_again(world: TickWorld) -> None:
    ask(world, 1)
    book = world.book()
    world.look(book)
    refuse(world.log, RUN, WHY, "scheduler")
    for seen in (book, world.book()):
        for _ in range(5):
            later(world, seen)
    assert offers(world) == []


def test_a_refusal_is_recorded_once(world: TickWorld) -> None:
    ask(world)
    refuse(world.log, RUN, WHY, "scheduler")
    refuse(world.log, RUN, WHY, "scheduler")
    assert len(refusals(world)) == 1


@pytest.mark.parametrize("point", range(4))
def test_wherever_who_refuses_dies_a_second_try_says_it_once(world: TickWorld, point: int) -> None:
    ask(world)
    with pytest.raises(BaseException, match="crash"):
        refuse(cast("LogClient", Mortal(world.log, point)), RUN, WHY, "scheduler")
    refuse(world.log, RUN, WHY, "scheduler")
    assert (len(refusals(world)), summary(world)["status"]) == (1, REFUSED)


def test_a_run_that_nobody_asked_for_is_not_recorded(world: TickWorld) -> None:
    before = world.records
    assert not refuse(world.log, RunId(TICKING, RunNumber(9)), WHY, "scheduler")
    assert world.records == before
    assert world.log.run(RunId(TICKING, RunNumber(9))) is None


def test_who_looks_at_it_is_told_why(world: TickWorld) -> None:
    ask(world)
    refuse(world.log, RUN, WHY, "scheduler")
    with pytest.raises(RunGone, match="was refused and does not begin: the option max_workers is no count"):
        look(world.log, RUN)
    [entry] = [one for one in around(world.log, TICKING, 0, world.now_us + 60_000_000) if one.outcome == "refused"]
    assert (entry.name, entry.reason) == (str(RUN), WHY)


def test_a_request_whose_deployment_is_unknown_is_refused(world: TickWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(world, 1)

    def unknown(*_: object) -> None:
        return None

    monkeypatch.setattr("evflow.deployments.offers.version_of", unknown)
    later(world, world.book())
    [told] = refusals(world)
    assert "version 1 of its deployment 'default' is not in the log" in told.reason


def test_a_run_that_was_given_up_is_shown_as_such(world: TickWorld) -> None:
    ask(world)
    mark(world.log, RUN, "running", "")
    give_up(world.log, RUN, "its request was lost")
    assert summary(world)["status"] == GIVEN_UP
    with pytest.raises(RunGone, match="was given up: its request was lost"):
        look(world.log, RUN)
