"""Events are decided once for each trigger, whoever dies when, and the runs that they start are offered."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from evflow import config
from evflow.client.publishing import EventInvalid, checked_id, publish_event
from evflow.core.deployments import pack
from evflow.core.flow_events import FlowPaused, FlowUndeployed, FlowUnpaused, TriggerSkipped
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.book import Book
from evflow.errors import UsageError
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import DeploymentChange, Keep, LogClient, PublishedEvent
from evflow.store.artifacts import ArtifactView
from evflow.store.protocol import Store, StoreUnusable
from evflow.testing.faults import Crash
from tests.effort import scaled
from tests.unit.listening_world import LISTENING, ListenWorld, S
from tests.unit.test_ledger import Counting
from tests.unit.ticking_world import NO_EVENT, NOON_US, TICKING, Mortal, Overtaken, ticking

SIZED = {"event": "a", "parameters": {"size": "n"}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ListenWorld]:
    config.reset()
    yield ListenWorld(tmp_path)
    config.reset()


def hear(world: ListenWorld, book: Book) -> float:
    """Give a process what was published since it last read."""
    return book.hear(lambda _: True, world.log.published(book.position_us))


def sizes(world: ListenWorld) -> list[Any]:
    """The parameter of the runs that were offered."""
    offers = [world.offers(run)[0] for run in world.requested]
    return [ArtifactView.open(world.store, offer.parameters).load("size") for offer in offers]


# --- an event ---------------------------------------------------------------------------------------------


def test_an_event_asks_for_a_run_with_its_payload_and_offers_it(world: ListenWorld) -> None:
    world.listen(SIZED)
    book = world.book()
    world.look(book)
    world.now_us += 5 * S
    place = world.log.published
    world.publish("a", {"n": 7})
    assert hear(world, book) == 1.0
    (run,) = world.requested
    (offer,) = world.offers(run)
    (event,) = place()
    assert offer.trigger == {
        "kind": "event", "deployment": "default", "version": 1, "trigger": 0, "reason": "event", "at_us": event.at_us,
        "events": ({"id": "a1", "name": "a", "at_us": event.at_us},),
    }  # fmt: skip
    assert sizes(world) == [7]
    assert world.records[-1].principal == "scheduler"
    assert world.outcomes == ["run 1: a1"]
    world.check()


def test_a_repeated_event_starts_nothing(world: ListenWorld) -> None:
    world.listen()
    book = world.book()
    world.look(book)
    for _ in range(3):
        world.publish("a", known="same")
        hear(world, book)
        world.look(book)
    assert world.outcomes == ["run 1: same"]


def test_events_that_nobody_wants_leave_no_trace(world: ListenWorld) -> None:
    world.listen({"event": "a", "filter": {"n": {">": 5}}})
    before = world.log.flow_seq(LISTENING)
    world.publish("b")
    world.publish("a", {"n": 5})
    world.look()
    assert world.log.flow_seq(LISTENING) == before


def test_what_was_published_before_the_flow_listened_is_not_for_it(world: ListenWorld) -> None:
    world.publish("a")
    world.listen()
    world.look()
    assert world.outcomes == []


def test_a_new_process_hears_what_was_published_when_none_was_there(world: ListenWorld) -> None:
    world.listen()
    world.publish("a")
    world.publish("b")
    world.publish("a")
    world.look()
    world.publish("a")
    world.look()
    world.look()
    assert world.outcomes == ["run 1: a1", "run 2: a3", "run 3: a4"]
    world.check()


def test_what_is_published_between_a_deployment_and_its_notice_is_heard(world: ListenWorld) -> None:
    book = world.book()
    world.look(book)
    world.listen()
    world.publish("a")
    hear(world, book)
    assert world.outcomes == []
    world.look(book)
    assert world.outcomes == ["run 1: a1"]


def test_a_flow_may_have_several_triggers_and_each_decides_for_itself(world: ListenWorld) -> None:
    world.listen({"events": ["a", "b"]}, SIZED)
    book = world.book()
    world.look(book)
    world.publish("a", {"n": 1})
    world.publish("b")
    hear(world, book)
    assert sorted(world.outcomes) == ["for-others: a1", "run 1: a1 b2", "run 2: a1"]
    world.check()


def test_events_wait_for_each_other_over_a_restart(world: ListenWorld) -> None:
    world.listen({"events": [{"name": "a", "parameters": {"size": "n"}}, "b"], "within": "1h"})
    world.publish("a", {"n": 9})
    world.look()
    world.now_us += 1800 * S
    world.publish("b")
    world.look()
    assert world.outcomes == ["for-others: a1", "run 1: a1 b2"]
    assert sizes(world) == [9]
    world.check()


def test_a_burst_is_one_run_when_it_is_quiet_and_the_process_wakes_for_it(world: ListenWorld) -> None:
    world.listen({"event": "a", "debounce": 0.5})
    book = world.book()
    world.look(book)
    for _ in range(3):
        world.publish("a")
        assert hear(world, book) == pytest.approx(0.5, abs=0.01)
        world.now_us += 200_000
    world.look(book)
    assert len(world.outcomes) == 3
    world.now_us += 400_000
    world.look(book)
    assert world.outcomes[-1] == "run 1: a1 a2 a3"
    world.check()


def test_a_flood_of_what_is_skipped_is_told_in_few_events(world: ListenWorld) -> None:
    world.listen({"event": "a", "throttle": "1h"})
    for _ in range(101):
        world.publish("a")
    world.look()
    assert len(world.outcomes) == 3
    world.check()


def test_ticks_come_between_parts_of_a_flood(world: ListenWorld) -> None:
    world.listen({"event": "a", "throttle": "1h"})
    world.deploy(ticking())
    book = world.book()
    world.look(book)
    world.now_us += 3_600_000_000
    began_us = world.now_us
    for _ in range(450):
        world.publish("a")
    last_us = world.log.event_bounds().last_us
    assert world.look(book) == 0
    assert world.log.run(RunId(TICKING, RunNumber(1))) is not None
    assert began_us <= book.position_us < last_us
    assert (world.look(book), world.look(book) > 0) == (0, True)
    assert book.position_us == last_us
    world.check()


def test_who_hears_a_flood_takes_a_part_of_it_in(world: ListenWorld) -> None:
    world.listen({"event": "a", "throttle": "1h"})
    book = world.book()
    world.look(book)
    for _ in range(450):
        world.publish("a")
    positions = [hear(world, book) and book.position_us for _ in range(3)]
    assert positions == sorted(set(positions))
    assert positions[-1] == world.log.event_bounds().last_us
    world.check()


def test_of_what_is_not_read_yet_nothing_is_taken_for_silence(world: ListenWorld) -> None:
    world.listen({"event": "a", "debounce": "500ms"})
    book = world.book()
    world.look(book)
    for number in range(250):
        world.publish("b" if number % 4 == 0 else "a")
        world.now_us += 10_000
    world.now_us += 100_000
    while not world.look(book):
        pass
    assert len([one for one in world.outcomes if one.startswith("run")]) == 1  # the first 100, which are as many as one run takes
    world.now_us += 500_000
    world.look(book)
    assert len(world.outcomes[-1].split()) == 2 + 187 - 100
    world.check()


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"n": "many"}, "parameter-invalid: "),
        ({}, "payload-unfit: it has no field 'n' for parameter 'size'"),
        (None, "payload-unfit: it has no field 'n' for parameter 'size'"),
        ({"n": [1]}, "parameter-invalid: "),
    ],
)
def test_a_payload_that_does_not_fit_is_skipped_with_the_reason(world: ListenWorld, payload: object, reason: str) -> None:
    world.listen(SIZED)
    world.publish("a", payload)
    world.publish("a", {"n": 4})
    world.look()
    first, second = world.outcomes
    assert first.startswith(reason)
    assert second == "run 1: a2"
    world.check()


def test_a_field_that_is_null_leaves_the_parameter_to_its_default(world: ListenWorld) -> None:
    world.listen(SIZED)
    world.publish("a", {"n": None})
    world.look()
    assert sizes(world) == [3]


def test_a_start_that_was_skipped_throttles_nothing(world: ListenWorld) -> None:
    world.listen({**SIZED, "throttle": "1h"})
    world.publish("a", {"n": "many"})
    world.publish("a", {"n": 4})
    world.look()
    assert world.outcomes[1] == "run 1: a2"


def test_a_paused_deployment_skips_events_also_those_that_nobody_saw(world: ListenWorld) -> None:
    world.listen()
    book = world.book()
    world.change(FlowPaused("default"))
    world.publish("a")
    world.look(book)
    world.publish("a")
    world.now_us += 1
    world.change(FlowUnpaused("default"))
    world.now_us += 1
    world.publish("a")
    world.look(book)
    assert world.outcomes == ["paused: a1", "run 1: a3"]
    world.check()


def test_a_large_payload_lies_in_the_store_and_is_read_from_there(world: ListenWorld) -> None:
    world.listen({**SIZED, "filter": {"n": 5}})
    world.publish("a", {"n": 5, "text": "x" * 50_000})
    assert len(world.log.published()[0].body) < 300
    world.look()
    assert sizes(world) == [5]


def test_a_payload_whose_object_is_gone_is_a_skip(world: ListenWorld) -> None:
    world.listen()
    world.publish("a", "x" * 50_000)

    class Empty:
        def get(self, digest: bytes) -> bytes:
            from evflow.store.protocol import ObjectMissing

            raise ObjectMissing(digest, "here")

    Book(world.log, "box", lambda _: cast("Store", Empty())).look(lambda _: True)
    assert world.outcomes[0].startswith("payload-unreadable: object-missing: ")


def test_a_store_that_is_away_is_waited_for(world: ListenWorld) -> None:
    world.listen()
    away = True

    def stores(_: str) -> Store:
        if away:
            raise StoreUnusable("away", "for a while")
        return world.store

    book = Book(world.log, "box", stores)
    world.look(book)
    world.publish("a")
    hear(world, book)
    world.publish("a")
    hear(world, book)
    assert world.outcomes == []
    away = False
    world.now_us += 6 * S
    world.look(book)
    assert world.outcomes == ["run 1: a1", "run 2: a2"]
    world.check()


def test_events_that_were_removed_before_anybody_looked_are_told(world: ListenWorld) -> None:
    world.listen()
    for number in range(5):
        world.log.publish(f"x{number}", b"\x91\xa1a", Keep(most=3))
    world.look()
    assert world.outcomes == ["trimmed: ", "run 1: x2", "run 2: x3", "run 3: x4"]
    world.look()
    assert len(world.outcomes) == 4


def test_what_is_no_event_hinders_no_other(world: ListenWorld) -> None:
    world.listen()
    world.log.publish("odd", b"\xc1")
    world.publish("a")
    world.look()
    assert world.outcomes == ["run 1: a1"]


@pytest.mark.parametrize("trigger", [{}, {"wanted": 3}, {"wanted": [{"event": "a"}], "need": "some"}])
def test_a_trigger_that_cannot_be_read_hinders_no_other(world: ListenWorld, trigger: dict[str, Any]) -> None:
    world.listen()
    odd = replace(world.deployment, name="odd", triggers=(trigger,), listening=({},))
    world.log.append_flow(LISTENING, world.log.flow_seq(LISTENING), NO_EVENT, DeploymentChange("odd", pack(odd)))
    world.publish("a")
    world.look()
    assert world.outcomes == ["run 1: a1"]


def test_where_nothing_concerned_a_flow_its_next_process_does_not_read_it_again(world: ListenWorld) -> None:
    world.listen()
    for _ in range(3):
        world.publish("b")
    world.look()
    assert world.log.looked_at() == {LISTENING: world.log.event_bounds().last_us}
    read: list[int] = []

    class Counting(Mortal):
        def __getattr__(self, name: str) -> Any:
            return published if name == "published" else super().__getattr__(name)

    def published(after_us: int, limit: int) -> list[PublishedEvent]:
        read.append(after_us)
        return world.log.published(after_us, limit)

    world.look(world.book(Counting(world.log, 10**9)))
    assert read == [world.log.event_bounds().last_us]


def test_names_of_evflow_s_own_cannot_be_published(world: ListenWorld) -> None:
    with pytest.raises(UsageError, match="published by evflow alone"):
        world.publish("evflow.finished.Flow")


@pytest.mark.parametrize("wrong", [3, None, b"data.ready", ["data.ready"]])
def test_names_and_ids_are_texts(wrong: Any) -> None:
    with pytest.raises(EventInvalid, match=r"An event cannot be called .*: a name is a text"):
        publish_event(wrong)
    if wrong is not None:
        with pytest.raises(EventInvalid, match=r"An event cannot have the id .*: an id is a text"):
            checked_id(wrong)


# --- who comes second, who dies ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crash", "lost"])
def test_wherever_a_process_dies_each_event_is_decided_once_and_each_run_offered(tmp_path: Path, kind: Any) -> None:
    for point in range(100):
        (folder := tmp_path / str(point)).mkdir()
        world = ListenWorld(folder)
        world.listen(SIZED, {"events": ["a", "b"]})
        world.publish("a", {"n": 1})
        world.publish("b")
        world.publish("a", {"n": "x"})
        mortal = Mortal(world.log, point, kind)
        book = world.book(mortal)
        try:
            world.look(book)
        except (Crash, LogUnavailable):
            assert mortal.struck
        world.look(book if kind == "lost" else None)
        world.check()
        assert {one.partition(":")[0] for one in world.outcomes} == {"run 1", "run 2", "for-others", "parameter-invalid"}
        assert 1 in sizes(world)
        if not mortal.struck:
            assert point > 10
            return
    pytest.fail("it never came to its end")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 20)),
        st.tuples(st.just("publish"), st.sampled_from("aab"), st.sampled_from((1, 1, 1, "x"))),
        st.tuples(st.sampled_from(("look", "hear")), st.integers(0, 2), st.integers(0, 8), st.sampled_from(("crash", "lost", "none"))),
        st.tuples(st.sampled_from(("pause", "unpause", "undeploy"))),
        st.tuples(st.just("deploy"), st.integers(0, 3)),
    ),
    max_size=30,
)
KINDS: tuple[tuple[dict[str, Any], ...], ...] = (
    (SIZED,),
    ({"events": ["a", "b"], "within": 15}, SIZED),
    ({**SIZED, "debounce": 5},),
    ({"events": ["a", "b"], "need": "any", "throttle": 10}, {"event": "a", "coalesce": 7}),
)


@settings(max_examples=scaled(300, at_least=30), deadline=None)
@given(steps=STEPS, first=st.integers(0, 3))
def test_any_story_decides_each_event_once_and_offers_each_run(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]], first: int
) -> None:
    world = ListenWorld(tmp_path_factory.mktemp("story"))
    world.listen(*KINDS[first])
    books: dict[int, Book] = {}
    for step in steps:
        if step[0] == "wait":
            world.now_us += step[1] * S
        elif step[0] == "publish":
            world.publish(step[1], {"n": step[2]})
        elif step[0] == "deploy":
            world.listen(*KINDS[step[1]])
        elif step[0] in ("look", "hear"):
            _, number, point, kind = step
            mortal = Mortal(world.log, point, kind)
            book = books.setdefault(number, world.book())
            book._log = book._ledger.log = cast("LogClient", mortal)
            try:
                hear(world, book) if step[0] == "hear" and book._begun else world.look(book)
            except Crash:
                del books[number]
            except LogUnavailable:
                pass
        elif "default" in world.folded.current:
            world.change({"pause": FlowPaused, "unpause": FlowUnpaused, "undeploy": FlowUndeployed}[step[0]]("default"))
    world.look()
    world.look()
    world.check()
    assert all(isinstance(record.event, TriggerSkipped) or record.at_us >= NOON_US for record in world.records)


def test_of_two_processes_one_comes_too_late_and_looks_again(world: ListenWorld) -> None:
    world.listen()
    world.publish("a")
    world.publish("a")
    first = world.book()
    second = world.book(Overtaken(world.log, lambda: world.look(first)))
    assert world.look(second) < 0.1
    world.look(second)
    assert world.outcomes == ["run 1: a1", "run 2: a2"]
    world.check()


def test_an_event_that_is_heard_starts_its_run_in_two_exchanges(world: ListenWorld) -> None:
    world.listen()
    book = world.book()
    world.look(book)
    world.publish("a")
    hear(world, book)  # the first of all runs asks what archives have
    log = Counting(world.log)
    book._log = book._ledger.log = cast("LogClient", log)
    world.publish("a")
    hear(world, book)
    assert world.outcomes == ["run 1: a1", "run 2: a2"]
    del log.calls["clock_us"]  # a look at the clock is none
    assert log.calls == {"request_run": 1, "offer_run": 1}


def test_who_hears_an_event_after_somebody_else_changed_the_flow_decides_it_at_once_and_anew(world: ListenWorld) -> None:
    world.listen()
    book = world.book()
    world.look(book)
    world.publish("a")
    world.change(FlowPaused("default"))
    hear(world, book)
    assert world.outcomes == ["paused: a1"]
    world.change(FlowUnpaused("default"))
    world.publish("a")
    hear(world, book)
    assert world.outcomes == ["paused: a1", "run 1: a2"]
    world.check()


def test_flows_of_others_are_left_to_them(world: ListenWorld) -> None:
    world.listen()
    world.publish("a")
    book = world.book()
    book.look(lambda flow: flow != LISTENING)
    book.hear(lambda flow: flow != LISTENING, [])
    assert world.outcomes == []
    book.look(lambda flow: flow == FlowName("Listening"))
    assert world.outcomes == ["run 1: a1"]
