"""The loop that decides ticks, in virtual time: they come on the dot, also when another scheduler takes over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from evflow import config
from evflow.core.deployments import tick_of
from evflow.core.flow_events import FlowPaused, FlowUnpaused
from evflow.core.ids import FlowName
from evflow.log.keys import shared_shards
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from evflow_scheduler.ticks import keep_book, shard_of
from tests.unit.ticking_world import HOUR_US, TICKING, TickWorld

pytestmark = [pytest.mark.virtual_time, pytest.mark.may_block("the book is looked into on the loop, where there are no threads")]

MINE = frozenset({shard_of(TICKING)})
HOUR_S = 3_600.0
NOBODYS: frozenset[str] = frozenset()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TickWorld]:
    config.reset()
    made = TickWorld(tmp_path)
    made.server = SimulatedServer()  # by the loop's clock
    made.log = SimulatedLogClient(made.server)
    yield made
    config.reset()


async def at_once(look: Callable[[], float]) -> float:
    return look()


def lags_us(world: TickWorld) -> list[int]:
    """How long after its tick each decision stands."""
    return [record.at_us - tick for record in world.records if (tick := tick_of(record.event)) is not None]


async def test_ticks_are_decided_on_the_dot(world: TickWorld) -> None:
    world.schedule()
    async with anyio.create_task_group() as group:
        group.start_soon(keep_book, world.book(), SimulatedEventLog(world.server), lambda: MINE, at_once)
        await anyio.sleep(12 * HOUR_S)
        group.cancel_scope.cancel()
    assert len(world.requested) == 12
    assert max(lags_us(world)) < 100
    world.check()


async def test_what_is_deployed_while_the_loop_sleeps_is_noticed_within_a_second(world: TickWorld) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(keep_book, world.book(), SimulatedEventLog(world.server), lambda: MINE, at_once)
        await anyio.sleep(1.5)
        hour_us = HOUR_US - world.server.now_us() % HOUR_US
        await anyio.sleep(hour_us / 1e6 - 1.1)
        world.schedule()
        await anyio.sleep(1.2)
        group.cancel_scope.cancel()
    assert len(world.requested) == 1
    assert max(lags_us(world)) < 100_000


async def test_the_next_owner_goes_on_where_the_last_one_stopped(world: TickWorld) -> None:
    """Owners come and go every 40 minutes, for some minutes there are two or none."""
    world.schedule(catch_up="all")
    owned = [NOBODYS, NOBODYS]
    async with anyio.create_task_group() as group:
        for number in (0, 1):
            group.start_soon(keep_book, world.book(), SimulatedEventLog(world.server), lambda number=number: owned[number], at_once)
        for turn in range(30):
            owned[turn % 2] = MINE if turn % 3 else NOBODYS
            await anyio.sleep(40 * 60)
        owned[0] = MINE
        await anyio.sleep(2)
        group.cancel_scope.cancel()
    assert len(world.requested) == 20
    assert len(world.decisions) == 20
    world.check()


async def test_a_scheduler_that_owns_nothing_decides_nothing(world: TickWorld) -> None:
    world.schedule()
    async with anyio.create_task_group() as group:
        group.start_soon(keep_book, world.book(), SimulatedEventLog(world.server), lambda: frozenset(shared_shards()) - MINE, at_once)
        await anyio.sleep(3 * HOUR_S)
        group.cancel_scope.cancel()
    assert world.decisions == []


async def test_a_server_that_is_away_for_an_hour_costs_the_tick_that_was_missed_and_no_other(world: TickWorld) -> None:
    world.schedule()
    async with anyio.create_task_group() as group:
        group.start_soon(keep_book, world.book(), SimulatedEventLog(world.server), lambda: MINE, at_once)
        await anyio.sleep(HOUR_S)
        world.server.kill()
        await anyio.sleep(1.5 * HOUR_S)
        world.server.start()
        await anyio.sleep(2)
        world.change(FlowPaused("default"))
        await anyio.sleep(HOUR_S)
        world.change(FlowUnpaused("default"))
        await anyio.sleep(HOUR_S)
        group.cancel_scope.cancel()
    reasons = [reason for _, reason in world.decisions]
    assert reasons[:4] == ["run", "missed", "paused", "run"]
    world.check()


def test_every_flow_has_one_scheduler_that_looks_after_it() -> None:
    assert {shard_of(FlowName(f"Flow{number}")) for number in range(100)} == set(shared_shards())
