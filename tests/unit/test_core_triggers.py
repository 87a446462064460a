"""What becomes of each event that a trigger hears: decided once, by the instants of the events alone."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from evflow.core import triggers
from evflow.core.triggers import (
    MOST_SKIPPED,
    MOST_TOGETHER,
    Decision,
    Heard,
    Pending,
    Trigger,
    Wanted,
    applied,
    decide,
    fault,
    from_plain,
    parameters_of,
    pending_from_plain,
    pending_to_plain,
    to_plain,
    wakes_us,
)
from tests.effort import scaled

S = 1_000_000
LATE = 10**9


def events(*said: str) -> list[Heard]:
    """`a1` is event a, one second after the beginning; ids are its text."""
    return [Heard(text, text[0], int(float(text[1:]) * S), {"n": float(text[1:])}) for text in said]


def story(trigger: Trigger, *said: str, until_s: float = LATE, paused: bool = False) -> list[str]:
    """The decisions, as `kind reason: ids`."""
    found = decide(trigger, Pending(), events(*said), round(until_s * S), paused=paused)
    return [f"{one.kind} {one.reason}: {' '.join(ref.id for ref in one.refs)}" for one in found]


def wanting(*names: str, **fields: Any) -> Trigger:
    return Trigger(tuple(map(Wanted, names)), **fields)


def test_an_event_that_is_wanted_starts_a_run_and_others_leave_no_trace() -> None:
    assert story(wanting("a"), "b1", "a2", "c3", "a4") == ["start event: a2", "start event: a4"]


def test_any_of_several_starts_a_run() -> None:
    assert story(wanting("a", "b", need="any"), "b1", "a2") == ["start event: b1", "start event: a2"]


def test_all_of_several_start_one_run_in_whatever_order_they_come() -> None:
    trigger = wanting("a", "b", "c")
    assert story(trigger, "c1", "a2", "b3", "b4") == [
        "wait for-others: c1", "wait for-others: a2", "start all-came: a2 b3 c1", "wait for-others: b4",
    ]  # fmt: skip


def test_a_newer_event_of_the_same_name_takes_the_place_of_one_that_waits() -> None:
    assert story(wanting("a", "b"), "a1", "a2", "b3") == [
        "wait for-others: a1", "skip superseded: a1", "wait for-others: a2", "start all-came: a2 b3",
    ]  # fmt: skip


def test_one_name_that_is_wanted_twice_takes_two_events() -> None:
    assert story(wanting("a", "a"), "a1", "a2") == ["wait for-others: a1", "start all-came: a1 a2"]


def test_what_waits_for_longer_than_the_window_is_skipped() -> None:
    trigger = wanting("a", "b", within_us=10 * S)
    assert story(trigger, "a1", "b10.9", "a20", "b31") == [
        "wait for-others: a1", "start all-came: a1 b10.9", "wait for-others: a20", "skip window-passed: a20", "wait for-others: b31",
        "skip window-passed: b31",
    ]  # fmt: skip


def test_a_burst_starts_one_run_when_it_is_quiet() -> None:
    trigger = wanting("a", debounce_us=5 * S)
    assert story(trigger, "a1", "a3", "a7", "a20", until_s=22) == [
        "wait gathering: a1", "wait gathering: a3", "wait gathering: a7", "start quiet: a1 a3 a7", "wait gathering: a20",
    ]  # fmt: skip


def test_what_comes_within_a_time_of_the_first_starts_one_run() -> None:
    trigger = wanting("a", coalesce_us=5 * S)
    assert story(trigger, "a1", "a5", "a6.5") == [
        "wait gathering: a1", "wait gathering: a5", "start time-is-over: a1 a5", "wait gathering: a6.5", "start time-is-over: a6.5",
    ]  # fmt: skip


def test_a_throttle_skips_what_comes_too_soon() -> None:
    assert story(wanting("a", throttle_us=10 * S), "a1", "a2", "a10.9", "a11") == [
        "start event: a1",
        "skip throttled: a2 a10.9",
        "start event: a11",
    ]


def test_a_throttle_loses_nothing_where_matches_wait() -> None:
    trigger = wanting("a", coalesce_us=2 * S, throttle_us=10 * S)
    found = decide(trigger, Pending(), events("a1", "a4", "a9"), LATE * S)
    starts = [(one.at_us // S, [ref.id for ref in one.refs]) for one in found if one.kind == "start"]
    assert starts == [(3, ["a1"]), (13, ["a4", "a9"])]


def test_a_pause_skips_what_comes_and_what_would_start() -> None:
    assert story(wanting("a"), "a1", paused=True) == ["skip paused: a1"]
    trigger = wanting("a", debounce_us=S)
    waiting = applied(Pending(), decide(trigger, Pending(), events("a1"), S)[0])
    assert [one.reason for one in decide(trigger, waiting, [], 3 * S, paused=True)] == ["paused"]


def test_a_filter_lets_only_what_it_describes_pass() -> None:
    trigger = Trigger((Wanted("a", where={"n": {">": 2}}),))
    assert story(trigger, "a1", "a3") == ["start event: a3"]


def test_fields_of_the_payload_become_parameters() -> None:
    trigger = Trigger((Wanted("a", {"size": "n"}), Wanted("b", {"other": "n"})))
    found = decide(trigger, Pending(), events("a1", "b2"), LATE)
    assert found[-1].parameters == {"size": 1.0, "other": 2.0}
    assert parameters_of(trigger) == ["other", "size"]


def test_of_a_burst_the_newest_event_gives_the_parameters() -> None:
    trigger = Trigger((Wanted("a", {"size": "n"}),), debounce_us=S)
    assert decide(trigger, Pending(), events("a1", "a1.5"), LATE * S)[-1].parameters == {"size": 1.5}


def test_a_payload_without_a_field_that_is_needed_is_skipped_and_says_so() -> None:
    trigger = Trigger((Wanted("a", {"size": "n.deep"}),))
    assert story(trigger, "a1") == ["skip payload-unfit: it has no field 'n.deep' for parameter 'size': a1"]


def test_parameters_that_are_too_large_to_wait_are_skipped() -> None:
    trigger = Trigger((Wanted("a", {"size": "n"}),))
    (found,) = decide(trigger, Pending(), [Heard("x", "a", 1, {"n": "y" * 20_000})], 1)
    assert found.reason == "payload-unfit: its parameters have 20009 bytes; 12288 are allowed"


def test_a_long_burst_starts_runs_of_as_many_as_fit() -> None:
    trigger = wanting("a", debounce_us=S)
    many = [Heard(str(number), "a", 1 + number) for number in range(2 * MOST_TOGETHER + 1)]
    starts = [one for one in decide(trigger, Pending(), many, LATE * S) if one.kind == "start"]
    assert [(one.reason, len(one.refs)) for one in starts] == [("many", MOST_TOGETHER), ("many", MOST_TOGETHER), ("quiet", 1)]


def test_a_flood_that_is_skipped_is_told_in_few_records() -> None:
    many = [Heard(str(number), "a", 1 + number) for number in range(10 * MOST_SKIPPED + 1)]
    found = decide(wanting("a", throttle_us=LATE), Pending(), many, LATE)
    assert [(one.kind, len(one.refs)) for one in found] == [("start", 1), *[("skip", MOST_SKIPPED)] * 10]


def test_when_to_wake_is_known() -> None:
    trigger = wanting("a", "b", within_us=10 * S)
    assert wakes_us(trigger, Pending()) is None
    (wait,) = decide(trigger, Pending(), events("a1"), 2 * S)
    assert wakes_us(trigger, applied(Pending(), wait)) == 11 * S
    trigger = wanting("a", debounce_us=3 * S)
    (wait,) = decide(trigger, Pending(), events("a1"), 2 * S)
    assert wakes_us(trigger, applied(Pending(), wait)) == 4 * S


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        (Trigger(()), "It wants 0 events"),
        (wanting(*"abcdefghijk"), "It wants 11 events"),
        (wanting("a b"), "An event cannot be called 'a b'"),
        (Trigger((Wanted(3),)), "event is 3"),  # type: ignore[arg-type]
        (wanting("a", need="some"), "need is 'some'"),
        (wanting("a", debounce_us=-1), "debounce is no time"),
        (wanting("a", debounce_us=1, coalesce_us=1), "It has debounce and coalesce"),
        (wanting("a", within_us=1), "within is for several events"),
        (Trigger((Wanted("a", {"x": ""}),)), "parameters of event 'a' map 'x' to ''"),
        (Trigger((Wanted("a", where={"x": {"~": 1}}),)), "filter of 'x' has '~'"),
    ],
)
def test_what_is_wrong_with_a_trigger_is_said(trigger: Trigger, says: str) -> None:
    assert (fault(trigger) or "").startswith(says)


@pytest.mark.parametrize("plain", [{}, {"wanted": 3}, {"wanted": [{}]}, {"wanted": [{"event": "a"}], "need": 3}, {"wanted": ["a"]}])
def test_what_is_no_trigger_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(plain)


SPANS = st.sampled_from((0, 1, 3, 10))
TRIGGERS = st.builds(
    Trigger,
    wanted=st.lists(st.sampled_from("ab").map(lambda name: Wanted(name, {"size": "n"})), min_size=1, max_size=3).map(tuple),
    need=st.sampled_from(("all", "any")),
    within_us=SPANS,
    debounce_us=SPANS,
    coalesce_us=SPANS,
    throttle_us=SPANS,
).filter(lambda trigger: fault(trigger) is None)
TIMES = st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc"), st.booleans()), max_size=30)


def heard(times: list[tuple[int, str, bool]]) -> list[Heard]:
    found: list[Heard] = []
    at_us = 0
    for number, (gap, name, fits) in enumerate(times):
        at_us += gap
        found.append(Heard(f"e{number}", name, at_us, {"n": number} if fits else {}))
    return found


def folded(decisions: list[Decision]) -> Pending:
    pending = Pending()
    for decision in decisions:
        pending = applied(pending, decision)
    return pending


@settings(max_examples=scaled(1_000, at_least=200), deadline=None)
@given(trigger=TRIGGERS, times=TIMES)
def test_each_event_that_is_wanted_is_decided_once_and_for_all(trigger: Trigger, times: list[tuple[int, str, bool]]) -> None:
    all_of_them = heard(times)
    decisions = decide(trigger, Pending(), all_of_them, LATE)
    ends = [ref.id for one in decisions if one.kind != "wait" for ref in one.refs]
    assert len(ends) == len(set(ends))
    waiting = {part.ref.id for part in folded(decisions).parts}
    assert not folded(decisions).batch
    wanted = {event.id for event in all_of_them if event.name in triggers.names_of(trigger)}
    assert {*ends, *waiting} == wanted
    assert not waiting & set(ends)


@settings(max_examples=scaled(1_000, at_least=200), deadline=None)
@given(trigger=TRIGGERS, times=TIMES, looks=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=20))
def test_whoever_looks_in_whatever_portions_decides_the_same(
    trigger: Trigger, times: list[tuple[int, str, bool]], looks: list[tuple[int, int]]
) -> None:
    """Also where events are heard twice, and where only the first of the decisions of a look become durable."""
    all_of_them = heard(times)
    at_once = decide(trigger, Pending(), all_of_them, LATE)
    pending, found, now_us = Pending(), list[Decision](), 0
    for gap, durable in [*looks, (LATE, 10**6)]:
        now_us += gap
        seen = [event for event in all_of_them if event.at_us <= now_us]
        for decision in decide(trigger, pending, seen, now_us)[:durable]:
            pending = applied(pending, decision)
            assert pending_from_plain(pending_to_plain(pending)) == pending
            found.append(decision)

    def told(decisions: list[Decision]) -> list[tuple[Any, ...]]:
        # Skips are told together or apart, by portions.
        return [(one.kind, one.reason, ref.id, one.kind == "start" and one.at_us) for one in decisions for ref in one.refs]

    assert told(found) == told(at_once)


@settings(max_examples=scaled(1_000, at_least=200), deadline=None)
@given(trigger=TRIGGERS, times=TIMES)
def test_windows_waits_and_throttles_hold(trigger: Trigger, times: list[tuple[int, str, bool]]) -> None:
    starts = [one for one in decide(trigger, Pending(), heard(times), LATE) if one.kind == "start"]
    for start in starts:
        newest = max(ref.at_us for ref in start.refs)
        if trigger.debounce_us and not trigger.throttle_us:
            assert start.at_us == newest + trigger.debounce_us
        if trigger.within_us and not (trigger.debounce_us or trigger.coalesce_us):
            assert newest - min(ref.at_us for ref in start.refs) <= trigger.within_us
    for before, behind in pairwise(starts):
        assert behind.at_us - before.at_us >= trigger.throttle_us


@given(trigger=TRIGGERS)
def test_a_trigger_survives_its_plain_form(trigger: Trigger) -> None:
    assert from_plain(to_plain(trigger)) == trigger
