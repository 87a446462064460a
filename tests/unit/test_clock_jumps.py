"""The server's clock jumps by hours, forth and back: no tick and no event is lost or decided twice, whoever dies meanwhile."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st

from evflow.core.flow_events import RunRequested, ScheduleTicked, TriggerSkipped
from evflow.testing.faults import Crash
from tests.effort import scaled
from tests.unit.listening_world import ListenWorld, S
from tests.unit.ticking_world import HOUR_US, NOON_US, Mortal, TickWorld

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["go", "forth", "back", "publish"]),
        st.integers(1, 5 * 3_600),
        st.sampled_from(["same", "new", "crash"]),
        st.integers(0, 11),
    ),
    min_size=1,
    max_size=12,
)


def move(world: TickWorld, how: str, seconds: int) -> None:
    """Let time pass (a minute at most), or let the clock jump. A server's clock may be behind what it has said before."""
    if how == "back":
        world.server._latest_us = 0
        world.now_us = max(NOON_US, world.now_us - seconds * S)
    else:
        world.now_us += (seconds % 60 + 1 if how != "forth" else seconds) * S


def looks(world: TickWorld, book: Any, who: str, point: int) -> Any:
    """A process looks, which may die at any act; answers the one that lives then."""
    if who == "same":
        world.look(book)
        return book
    if who == "crash":
        with suppress(Crash):
            world.look(world.book(Mortal(world.log, point)))
    book = world.book()
    world.look(book)
    return book


def decided(world: TickWorld) -> list[str]:
    """The ids of events that started a run or were skipped."""
    found: list[str] = []
    for record in world.records:
        event = record.event
        about: Any = event.events if isinstance(event, TriggerSkipped) else ()
        if isinstance(event, RunRequested) and event.trigger is not None:
            about = event.trigger["events"]
        found += [one["id"] for one in about]
    return found


@settings(max_examples=scaled(200, at_least=30), deadline=None)
@given(STEPS)
def test_each_tick_up_to_the_latest_instant_is_decided_once(steps: list[tuple[str, int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = TickWorld(Path(folder))
        world.schedule(catch_up="all")
        book, latest_us = world.book(), world.now_us
        for how, seconds, who, point in steps:
            move(world, how, seconds)
            book = looks(world, book, who, point)
            latest_us = max(latest_us, world.now_us)
        ticks: list[int] = []
        for record in world.records:
            event = record.event
            if isinstance(event, RunRequested) and event.trigger is not None:
                ticks.append(int(str(event.trigger["tick_us"])))
            elif isinstance(event, ScheduleTicked):
                ticks.append(event.tick_us)
        assert ticks == list(range(NOON_US + HOUR_US, latest_us + 1, HOUR_US))
        world.check()


@settings(max_examples=scaled(200, at_least=30), deadline=None)
@given(STEPS, st.sampled_from([{"event": "a"}, {"event": "a", "debounce": "10s"}, {"event": "a", "throttle": "10s"}]))
def test_each_event_is_decided_once(steps: list[tuple[str, int, str, int]], trigger: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = ListenWorld(Path(folder))
        world.listen(trigger)
        book = world.book()
        world.look(book)
        published: list[str] = []
        latest_us = world.now_us
        for how, seconds, who, point in steps:
            move(world, how, seconds)
            if how == "publish":
                published.append(world.publish("a"))
            book = looks(world, book, who, point)
            latest_us = max(latest_us, world.now_us)
        if "debounce" in trigger:  # what waits for time to pass waits until the clock has come so far again
            world.now_us = latest_us
        for _ in range(3):
            world.now_us += 10 * S
            world.look(book)
        assert sorted(decided(world)) == sorted(published)
        world.check()
