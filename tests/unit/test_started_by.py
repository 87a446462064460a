"""What started a run, as a step and the client see it."""

import pickle

import pytest

from evflow.flow.started_by import StartedBy, TriggerEvent

EVENTS = StartedBy({
    "kind": "event",
    "events": (
        {"id": "finish:Train/3", "name": "evflow.finished.Train", "at_us": 2_000_000},
        {"id": "x1", "name": "data", "at_us": 1_000_000},
    ),
})  # fmt: skip


def test_the_events_are_there_by_name_and_the_newest_is_the_event() -> None:
    assert EVENTS.event == EVENTS.events[0]
    assert [(one.name, one.id, one.type) for one in EVENTS.events] == [("Train", "Train/3", "run"), ("data", "x1", "event")]
    assert EVENTS["data"].timestamp.isoformat() == "1970-01-01T00:00:01+00:00"
    assert "data" in EVENTS
    assert "Train" in EVENTS
    assert "other" not in EVENTS
    with pytest.raises(KeyError):
        EVENTS["other"]


def test_it_is_a_mapping_of_what_is_recorded() -> None:
    tick = StartedBy({"kind": "schedule", "tick": "2026-01-01T00:00:00+00:00"})
    assert dict(tick) == {"kind": "schedule", "tick": "2026-01-01T00:00:00+00:00"}
    assert tick == {"kind": "schedule", "tick": "2026-01-01T00:00:00+00:00"}
    assert (tick.event, tick.events, tick.run, tick.runs) == (None, [], None, [])
    assert pickle.loads(pickle.dumps(EVENTS)) == EVENTS


def test_events_compare_by_what_they_are() -> None:
    one = {"id": "x1", "name": "data", "at_us": 1}
    assert len({TriggerEvent(one), TriggerEvent(one), TriggerEvent({**one, "id": "x2"})}) == 2
