"""Flows with gangs, whatever goes wrong around them."""

from dataclasses import replace
from random import Random

import pytest

from evflow.testing.simulation.checks import check
from evflow.testing.simulation.world import World
from tests.effort import SEED, scaled, seeds
from tests.random_flows import grow
from tests.simulation.scenario import STEERED, Scenario
from tests.simulation.shrink import demand

BLOCK = 25
OFFERED = 3
STRIDE = 20
SEEDS = seeds(300)


@pytest.mark.parametrize("block", range(0, len(SEEDS), BLOCK))
@pytest.mark.timeout(600)
def test_a_shard_with_gangs_comes_to_its_end_and_every_invariant_holds(block: int) -> None:
    """A gang has its slots together or not at all, its nodes have one fate, and all else holds that holds without gangs."""
    for seed in SEEDS[block : block + BLOCK]:
        scenario = replace(Scenario.of(seed).with_gangs(), offered=seed % OFFERED == 0)
        demand(scenario.with_requests() if seed % STEERED == 0 else scenario)


@pytest.mark.parametrize("outlives", [False, True], ids=["attempts-die-with-their-owner", "attempts-outlive-their-owner"])
@pytest.mark.parametrize("number", range(scaled(2)))
@pytest.mark.timeout(600)
def test_a_crash_at_every_single_act_of_a_gang_is_survived(number: int, *, outlives: bool) -> None:
    """An owner that dies before or after any act, with a gang half launched, half ended or half reported."""
    flow = grow(Random(1_000 * SEED + number), depth=1, gangs=True)
    scenario = replace(Scenario.of(1_000 * SEED + number), flows=(flow,), faults=(), outlives=outlives, slots=4)
    points = World(scenario).play().points
    for point in range(SEED % STRIDE, points, STRIDE):
        world = World(scenario, crash_at=point, each_turn=point % 7 == 0)
        world.play()
        assert world.crashes == 1, f"nothing passed point {point} of seed {scenario.seed}"
        check(world)
