"""When ticks come, at clock changes too, and what becomes of those that are due."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from evflow.core.schedule import (
    ON_TIME_WITHIN_US,
    CatchUp,
    Due,
    Schedule,
    due,
    fault,
    from_plain,
    next_tick_us,
    plain_cron,
    to_plain,
)
from tests.effort import scaled

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.timestamp()) * 1_000_000


def ticks(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    """All ticks behind an instant up to another, one step after the other."""
    found: list[int] = []
    tick = next_tick_us(schedule, after_us)
    while tick is not None and tick <= until_us:
        found.append(tick)
        tick = next_tick_us(schedule, tick)
    return found


def said(found: list[int]) -> list[str]:
    return [datetime.fromtimestamp(tick / 1e6, UTC).strftime("%d %H:%M") for tick in found]


def test_a_tick_comes_after_the_instant_and_not_at_it() -> None:
    daily = Schedule("0 6 * * *")
    assert next_tick_us(daily, at("2026-03-01 05:59")) == at("2026-03-01 06:00")
    assert next_tick_us(daily, at("2026-03-01 06:00")) == at("2026-03-02 06:00")
    assert next_tick_us(daily, at("2026-03-01 06:00") - 1) == at("2026-03-01 06:00")


def test_ticks_are_meant_in_the_schedule_s_time_zone() -> None:
    assert next_tick_us(Schedule("0 6 * * *", BERLIN), at("2026-01-10 00:00")) == at("2026-01-10 05:00")
    assert next_tick_us(Schedule("0 6 * * *", BERLIN), at("2026-07-10 00:00")) == at("2026-07-10 04:00")
    assert next_tick_us(Schedule("0 0 * * *", "Asia/Kolkata"), at("2026-07-10 00:00")) == at("2026-07-10 18:30")


@pytest.mark.parametrize(("zone", "day", "gap_ends"), [(BERLIN, "2026-03-29", "01:00"), (NEW_YORK, "2026-03-08", "07:00")])
def test_a_tick_that_the_change_to_summer_time_leaves_out_comes_right_after_the_gap(zone: str, day: str, gap_ends: str) -> None:
    schedule = Schedule("30 2 * * *", zone)
    (tick,) = ticks(schedule, at(f"{day} 00:00", zone), at(f"{day} 23:59", zone))
    assert tick == at(f"{day} {gap_ends}")


@pytest.mark.parametrize(("zone", "day", "hour"), [(BERLIN, "2026-10-25", "02"), (NEW_YORK, "2026-11-01", "01")])
def test_a_tick_in_the_hour_that_comes_twice_comes_once(zone: str, day: str, hour: str) -> None:
    schedule = Schedule(f"30 {int(hour)} * * *", zone)
    assert ticks(schedule, at(f"{day} 00:00", zone), at(f"{day} 23:59", zone)) == [at(f"{day} {hour}:30", zone)]
    again = at(f"{day} {hour}:10", zone, fold=1)  # whoever looks in the second coming sees none of the first
    assert ticks(schedule, again, at(f"{day} 23:59", zone)) == []


def test_schedules_by_the_hour_go_by_the_time_that_passes() -> None:
    hourly = Schedule("0 * * * *", BERLIN)
    spring = ticks(hourly, at("2026-03-28 23:30"), at("2026-03-29 03:30"))
    assert said(spring) == ["29 00:00", "29 01:00", "29 02:00", "29 03:00"]
    autumn = ticks(hourly, at("2026-10-24 23:30"), at("2026-10-25 03:30"))
    assert said(autumn) == ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]


def test_a_leap_day_is_waited_for() -> None:
    leap = Schedule("0 12 29 2 *", BERLIN)
    assert ticks(leap, at("2026-01-01"), at("2033-01-01")) == [at("2028-02-29 12:00", BERLIN), at("2032-02-29 12:00", BERLIN)]


def test_the_last_day_of_a_month_and_the_nth_weekday_are_known() -> None:
    assert next_tick_us(Schedule("0 0 L * *"), at("2026-02-10")) == at("2026-02-28")
    assert next_tick_us(Schedule("0 0 * * MON#2"), at("2026-11-01")) == at("2026-11-09")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"cron": "0 0 30 2 *"}, "day-of-month"),
        ({"cron": "0 0 */29 * MON#2"}, "names no day that ever comes"),
        ({"cron": "0 0 * *"}, "has 4 fields"),
        ({"cron": ""}, "has 0 fields"),
        ({"cron": "0 0 0 * * *"}, "has 6 fields"),
        ({"cron": "61 0 * * *"}, "bad minute"),
        ({"cron": "0 0 * * MOON"}, "bad day-of-week"),
        ({"cron": "@daily"}, "has 1 field."),
        ({"cron": "* " * 200}, "longer than 200"),
        ({"cron": 5}, "is 5"),
        ({"cron": ["0"]}, "is ['0']"),
        ({"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"timezone": "America"}, "no time zone 'America'"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"timezone": "localtime"}, "no time zone"),
        ({"timezone": ""}, "no time zone"),
        ({"timezone": 3}, "timezone is 3"),
        ({"catch_up": "some"}, "catch_up is 'some'"),
        ({"catch_up_most": 0}, "catch_up_most is 0"),
        ({"catch_up_most": 1_001}, "catch_up_most is 1001"),
        ({"catch_up_most": True}, "catch_up_most is True"),
    ],
)
def test_what_is_no_schedule_is_told(changed: dict[str, Any], text: str) -> None:
    fields: dict[str, Any] = {"cron": "0 0 * * *", **changed}
    wrong = fault(Schedule(**fields))
    assert wrong is not None
    assert text in wrong
    assert wrong.endswith(".")


@given(
    st.text(max_size=30) | st.lists(st.sampled_from(["*", "0", "1-5", "L", "LW", "5L", "*/7", "1#2", "MON", "59", "?", "1,2", "9/", "²"]))
)
@settings(max_examples=scaled(500), deadline=None)
def test_every_text_is_a_schedule_or_is_told_to_be_none(text: str | list[str]) -> None:
    cron = text if isinstance(text, str) else " ".join(text)
    schedule = Schedule(cron, BERLIN)
    wrong = fault(schedule)
    assert wrong is None or wrong.endswith(".")
    if wrong is None:
        assert next_tick_us(schedule, at("2026-05-05")) is not None


def test_the_form_of_aws_is_read_where_it_says_the_same() -> None:
    assert plain_cron("0 10 * * ? *") == "0 10 * * *"
    assert plain_cron("0 0 ? * SUN *") == "0 0 * * SUN"
    assert plain_cron("*/5 * * * *") == "*/5 * * * *"
    assert plain_cron("0 0 ? * 1 *") is None  # Sunday there, Monday here
    assert plain_cron("0 0 ? * SUN 2030") is None
    assert plain_cron("0 0 0 * * *") is None


def test_a_schedule_is_read_back() -> None:
    schedule = Schedule("0 6 * * *", BERLIN, "all", 3)
    assert from_plain(to_plain(schedule)) == schedule
    assert from_plain({"cron": "0 6 * * *", "of_a_later_version": 1}) == Schedule("0 6 * * *")


@pytest.mark.parametrize("plain", [{}, {"cron": 1}, {"cron": "x"}, {"cron": "0 0 * * *", "timezone": "Mars/Base"}])
def test_what_is_no_schedule_is_not_read(plain: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(plain)


# --- what is due ------------------------------------------------------------------------------------------

NOON = at("2026-06-10 12:00")


def hourly(catch_up: CatchUp, most: int = 10) -> Schedule:
    return Schedule("0 * * * *", catch_up=catch_up, catch_up_most=most)


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_a_tick_that_comes_is_run(catch_up: CatchUp) -> None:
    assert due(hourly(catch_up), NOON - HOUR_US, NOON - 1) == []
    assert due(hourly(catch_up), NOON - HOUR_US, NOON) == [Due(NOON, NOON, run=True, reason="due")]
    assert due(hourly(catch_up), NOON, NOON + MINUTE_US) == []


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_a_tick_that_is_a_little_late_was_not_missed(catch_up: CatchUp) -> None:
    late = due(hourly(catch_up), NOON - HOUR_US, NOON + ON_TIME_WITHIN_US)
    assert late == [Due(NOON, NOON, run=True, reason="due")]


def test_missed_ticks_are_skipped_as_one_where_nothing_is_caught_up() -> None:
    found = due(hourly("none"), NOON - 5 * HOUR_US, NOON + 30 * MINUTE_US)
    assert found == [Due(NOON, NOON - 4 * HOUR_US, run=False, reason="missed")]


def test_the_tick_that_is_on_time_is_run_beside_missed_ones() -> None:
    found = due(hourly("none"), NOON - 5 * HOUR_US, NOON)
    assert found == [Due(NOON - HOUR_US, NOON - 4 * HOUR_US, run=False, reason="missed"), Due(NOON, NOON, run=True, reason="due")]


def test_the_last_missed_tick_is_run() -> None:
    found = due(hourly("last"), NOON - 5 * HOUR_US, NOON + 30 * MINUTE_US)
    skipped = Due(NOON - HOUR_US, NOON - 4 * HOUR_US, run=False, reason="not-the-last")
    assert found == [skipped, Due(NOON, NOON, run=True, reason="caught-up")]


def test_all_missed_ticks_are_run_up_to_a_bound() -> None:
    found = due(hourly("all", 3), NOON - 5 * HOUR_US, NOON)
    skipped = Due(NOON - 3 * HOUR_US, NOON - 4 * HOUR_US, run=False, reason="too-many")
    runs = [(NOON - 2 * HOUR_US, "caught-up"), (NOON - HOUR_US, "caught-up"), (NOON, "due")]
    assert found == [skipped, *(Due(tick, tick, run=True, reason=reason) for tick, reason in runs)]


def test_ticks_of_a_pause_are_skipped_whatever_is_caught_up() -> None:
    assert due(hourly("all"), NOON - 2 * HOUR_US, NOON, paused=True) == [Due(NOON, NOON - HOUR_US, run=False, reason="paused")]


def test_a_clock_that_goes_back_makes_nothing_due() -> None:
    assert due(hourly("all"), NOON, NOON - 5 * HOUR_US) == []


@pytest.mark.parametrize("now_us", [2**62, 253_402_300_799_000_000 + HOUR_US])
def test_a_clock_out_of_its_mind_makes_nothing_due(now_us: int) -> None:
    assert due(hourly("last"), now_us, now_us + HOUR_US) == []


def test_years_of_missed_minutes_are_few_decisions() -> None:
    minutely = Schedule("* * * * *", BERLIN, "all", 5)
    found = due(minutely, at("2020-01-01"), NOON)
    assert [one.tick_us for one in found[1:]] == [NOON - MINUTE_US * back for back in range(4, -1, -1)]
    assert (found[0].since_us, found[0].tick_us) == (at("2020-01-01 00:01"), NOON - 5 * MINUTE_US)


CRONS = st.sampled_from([
    "0 * * * *", "*/20 * * * *", "30 2 * * *", "0 2,3 * * *", "15,45 1-3 * * *", "0 0 * * *", "*/30 1-3 * * SUN", "0 3 L * *", "45 */6 * * *", "7 1 * * 0",
])  # fmt: skip
CHANGES = st.sampled_from(
    [(BERLIN, "2026-03-28"), (BERLIN, "2026-10-24"), (NEW_YORK, "2026-03-07"), (NEW_YORK, "2026-10-31"), ("UTC", "2028-02-28")]
)


@given(
    cron=CRONS,
    place=CHANGES,
    catch_up=st.sampled_from(["none", "last", "all"]),
    most=st.integers(1, 4),
    looks=st.lists(st.tuples(st.integers(0, 12 * 60), st.booleans()), max_size=12),
)
@settings(max_examples=scaled(300), deadline=None)
def test_every_tick_is_decided_once_whoever_looks_when(
    cron: str, place: tuple[str, str], catch_up: CatchUp, most: int, looks: list[tuple[int, bool]]
) -> None:
    schedule = Schedule(cron, place[0], catch_up, most)
    begin_us = now_us = last_us = at(f"{place[1]} 12:00", place[0])
    decided: list[int] = []
    for minutes, paused in [*looks, (0, False)]:
        now_us += minutes * MINUTE_US
        found = due(schedule, last_us, now_us, paused=paused)
        assert len(found) <= most + 1
        for one in found:
            covered = ticks(schedule, one.since_us - 1, one.tick_us)
            assert (covered[0], covered[-1]) == (one.since_us, one.tick_us)
            assert not one.run or len(covered) == 1
            decided += covered
            last_us = one.tick_us
    assert decided == ticks(schedule, begin_us, now_us)
    assert all(before < later for before, later in pairwise(decided))


@given(cron=CRONS, place=CHANGES, minutes=st.integers(0, 48 * 60))
@settings(max_examples=scaled(300), deadline=None)
def test_when_the_next_tick_comes_does_not_depend_on_who_asks_from_where(cron: str, place: tuple[str, str], minutes: int) -> None:
    schedule = Schedule(cron, place[0])
    begin_us = at(f"{place[1]} 00:00", place[0])
    asked_us = begin_us + minutes * MINUTE_US
    following = [tick for tick in ticks(schedule, begin_us, asked_us + HOUR_US * 24 * (32 if " L " in cron else 8)) if tick > asked_us]
    assert next_tick_us(schedule, asked_us) == following[0]
