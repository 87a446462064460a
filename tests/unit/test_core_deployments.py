"""What the events of a flow's log make of its deployments."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import Deployment, after, changed, fold, name_fault, pack, subject, tick_of, unpacked
from evflow.core.events import Event
from evflow.core.flow_events import (
    FlowDeployed,
    FlowPaused,
    FlowRecord,
    FlowUndeployed,
    FlowUnpaused,
    RunRequested,
    RunTagged,
    ScheduleTicked,
)
from evflow.core.ids import Micros, Seq
from tests.effort import scaled


def deployed(name: str = "default", version: int = 1, **changed: Any) -> FlowDeployed:
    facts: dict[str, Any] = {"manifest": b"m" * 32, "store": "file:///s", "package": b"p" * 32, "file": "flow.py", "namespace": "user:ada"}
    about: dict[str, Any] = {"production": False, "user": "ada", "host": "box", "evflow": "0.1", "python": "3.12.1"}
    fields: dict[str, Any] = {"name": name, "version": version, **facts, **about, **changed}
    return FlowDeployed(**fields)


def records(*events: Event) -> list[FlowRecord]:
    return [FlowRecord(Seq(seq), Micros(1_000 + seq), "user:ada", event) for seq, event in enumerate(events, 1)]


def test_what_was_deployed_last_is_deployed_now() -> None:
    found = fold(records(deployed(), RunRequested(1, "ada"), deployed(version=2, file="other.py")))
    assert found.current["default"].version == 2
    assert found.current["default"].file == "other.py"
    assert found.current["default"].deployed_us == 1_003
    assert found.current["default"].by == "user:ada"
    assert found.versions == {"default": 2}


def test_a_name_that_is_undeployed_keeps_its_versions() -> None:
    found = fold(records(deployed(), deployed(version=2), FlowUndeployed("default")))
    assert found.current == {}
    assert found.versions == {"default": 2}


def test_a_deployment_stays_paused_when_it_is_deployed_anew() -> None:
    found = fold(records(deployed(), FlowPaused("default"), FlowPaused("default"), deployed(version=2))).current["default"]
    assert (found.paused, found.paused_us, found.paused_by, found.version) == (True, 1_002, "user:ada", 2)
    found = fold(records(deployed(), FlowPaused("default"), FlowUnpaused("default"))).current["default"]
    assert (found.paused, found.paused_us, found.paused_by) == (False, 0, "")


def test_a_pause_ends_with_its_deployment() -> None:
    found = fold(records(deployed(), FlowPaused("default"), FlowUndeployed("default"), deployed(version=2)))
    assert not found.current["default"].paused


def test_what_is_not_deployed_cannot_be_paused() -> None:
    assert fold(records(FlowPaused("default"), FlowUnpaused("other"), FlowUndeployed("default"))).current == {}


def ticked_run(name: str = "default", tick_us: int = 1_000) -> RunRequested:
    return RunRequested(3, "ada", deployment=name, trigger={"kind": "schedule", "tick_us": tick_us})


def test_the_ticks_of_a_new_schedule_begin_with_its_deployment() -> None:
    found = fold(records(deployed(schedule=DAILY), ScheduleTicked("default", 5_000, 1, "skip", "missed"), ticked_run(tick_us=6_000)))
    assert (found.current["default"].ticked_us, found.current["default"].asked_seq) == (6_000, 3)
    assert fold(records(deployed(), deployed(schedule=DAILY))).current["default"].ticked_us == 1_002
    assert fold(records(deployed())).current["default"].ticked_us == 0


def test_a_schedule_that_is_deployed_anew_goes_on_and_one_that_is_changed_begins_anew() -> None:
    ticked = ScheduleTicked("default", 1_001, 1, "skip", "missed")
    same = fold(records(deployed(schedule=DAILY), ticked_run(tick_us=900), ticked, RunTagged(1, ()), deployed(version=2, schedule=DAILY)))
    assert (same.current["default"].ticked_us, same.current["default"].asked_seq) == (1_001, 2)
    other = fold(records(deployed(schedule=DAILY), ticked, deployed(version=2, schedule={"cron": "0 1 * * *"})))
    assert other.current["default"].ticked_us == 1_003


def test_deploying_anew_is_the_way_out_where_a_clock_that_was_ahead_decided_the_future() -> None:
    ahead = ScheduleTicked("default", 10**15, 1, "skip", "missed")
    assert fold(records(deployed(schedule=DAILY), ahead, deployed(version=2, schedule=DAILY))).current["default"].ticked_us == 1_003


def test_the_end_of_a_pause_decides_the_ticks_in_it() -> None:
    events: list[Event] = [deployed(schedule=DAILY), FlowPaused("default"), FlowUnpaused("default")]
    assert fold(records(*events)).current["default"].ticked_us == 1_003
    assert fold(records(events[0], events[2])).current["default"].ticked_us == 1_001


def test_only_a_run_that_a_tick_asked_for_decides_one() -> None:
    assert tick_of(ticked_run(tick_us=7)) == 7
    assert tick_of(RunRequested(1, "ada", deployment="default")) is None
    assert tick_of(RunRequested(1, "ada", deployment="default", trigger={"kind": "event", "tick_us": 7})) is None
    assert tick_of(RunRequested(1, "ada", deployment="default", trigger={"kind": "schedule", "tick_us": "soon"})) is None
    assert (subject(ticked_run()), changed(ticked_run())) == (None, "default")


DAILY = {"cron": "0 0 * * *", "timezone": "UTC", "catch_up": "none", "catch_up_most": 10}
SCHEDULES = st.sampled_from((None, DAILY, {"cron": "0 1 * * *"}))
NAMES = st.sampled_from(("default", "nightly"))
EVENTS = st.lists(
    st.one_of(
        st.builds(deployed, NAMES, st.integers(1, 5), production=st.booleans(), package=st.none() | st.just(b"p" * 32), schedule=SCHEDULES),
        st.builds(FlowUndeployed, NAMES),
        st.builds(FlowPaused, NAMES),
        st.builds(FlowUnpaused, NAMES),
        st.builds(RunRequested, st.integers(1, 9), st.just("ada"), deployment=NAMES),
        st.builds(RunTagged, st.integers(1, 9), st.just(("a",))),
        st.builds(ticked_run, NAMES, st.integers(900, 1_100)),
        st.builds(ScheduleTicked, NAMES, st.integers(900, 1_100), st.integers(1, 5), st.just("skip"), st.just("missed")),
    ),
    max_size=30,
)


@settings(max_examples=scaled(500, at_least=50))
@given(events=EVENTS)
def test_any_order_of_events_folds_to_what_the_appends_left_beside_the_log(events: list[Event]) -> None:
    kept: dict[str, bytes] = {}
    for record in records(*events):
        name = changed(record.event)
        if name is None:
            continue
        now = after(unpacked(kept[name]) if name in kept else None, record.event, record.at_us, record.principal, record.seq)
        if now is None:
            kept.pop(name, None)
        else:
            kept[name] = pack(now)
    assert {name: unpacked(packed) for name, packed in kept.items()} == fold(records(*events)).current


def test_a_later_version_s_fields_are_dropped() -> None:
    deployment = fold(records(deployed())).current["default"]
    assert unpacked(msgpack.packb([*msgpack.unpackb(pack(deployment)), "later"])) == deployment


@pytest.mark.parametrize("payload", [b"", b"\x90", b"\x91\x01", b"\xc1", msgpack.packb(["default", "one"])])
def test_bytes_that_are_no_deployment_are_refused(payload: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        unpacked(payload)


@pytest.mark.parametrize("name", ["default", "nightly-2", "A", "a_b", "x" * 64])
def test_a_name_is_letters_digits_and_dashes(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", "3", "-a", "a b", "a:b", "a/b", "ä", "x" * 301, "a\n"])
def test_another_name_is_refused_with_what_may_be_one(name: str) -> None:
    assert "letters, digits" in str(name_fault(name))


def test_a_deployment_is_what_its_event_says() -> None:
    found = after(None, deployed(), Micros(7), "user:bob")
    assert isinstance(found, Deployment)
    assert (found.by, found.user, found.deployed_us, found.paused) == ("user:bob", "ada", 7, False)
