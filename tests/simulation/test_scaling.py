"""The simulated installation of `benchmarks.scaling`: its schedulers do all the work, and take the time that it costs."""

import anyio
import pytest

from benchmarks.scaling.costs import Costs
from benchmarks.scaling.installation import Installation, Load, Outcome
from benchmarks.scaling.resources import Core
from evflow.log.keys import SHARED_SHARDS
from evflow.testing.virtual_time import run as run_in_virtual_time


def played(schedulers: int, *, runs: int = 24, costs: Costs | None = None) -> Outcome:
    return Installation(Load(runs, 23, schedulers, costs=costs or Costs())).play()


def test_all_runs_end_whoever_shares_the_shards() -> None:
    for schedulers in (1, 3, SHARED_SHARDS):
        outcome = played(schedulers)
        assert (outcome.runs, outcome.tasks) == (24, 24 * 23)
        assert outcome.verified >= 1
        assert outcome.events >= 4 * outcome.tasks


def test_the_same_load_comes_to_the_same() -> None:
    one, two = played(2), played(2)
    assert (one.took_s, one.events, one.appends) == (two.took_s, two.events, two.appends)


def test_more_schedulers_do_more() -> None:
    assert played(8, runs=48).tasks_per_s > 3 * played(1, runs=48).tasks_per_s


def test_one_scheduler_s_core_is_what_its_events_cost() -> None:
    outcome = played(1)
    assert outcome.scheduler_busy * outcome.took_s == pytest.approx(outcome.events * Costs().event_us / 1e6)


def test_a_server_without_time_left_bounds_all_schedulers() -> None:
    outcome = played(8, runs=48, costs=Costs(server_event_us=4_000.0))
    assert outcome.server_busy > 0.8
    assert outcome.tasks_per_s < 1e6 / 4_000.0


def test_a_core_does_one_thing_after_the_other() -> None:
    core = Core()
    ends: list[float] = []

    async def work(microseconds: float) -> None:
        await core.work(microseconds)
        ends.append(anyio.current_time())

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work, 3e6)
            group.start_soon(work, 2e6)

    run_in_virtual_time(both)
    assert ends == [3.0, 5.0]
    assert core.busy_s == 5.0
