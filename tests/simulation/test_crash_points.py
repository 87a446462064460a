"""An owner that dies before or after any one of its acts: the next one goes on, and nothing is lost or done twice."""

from dataclasses import replace
from random import Random

import pytest

from evflow.testing.simulation.checks import check
from evflow.testing.simulation.world import World
from tests.effort import SEED, scaled
from tests.random_flows import RandomFlow, Step, grow
from tests.simulation.scenario import Scenario

STRIDE = 10


def small(seed: int, *, outlives: bool) -> Scenario:
    """A scenario in which nothing else goes wrong."""
    return replace(Scenario.of(seed), flows=(grow(Random(seed), depth=1),), faults=(), outlives=outlives)


def test_what_a_dead_owner_was_to_end_is_ended() -> None:
    """It died between the append of `AttemptCancelRequested` and the act; the attempt had gone on for ever."""
    world = World(small(20261126004, outlives=True), crash_at=176)
    world.play()
    check(world)


@pytest.mark.parametrize("outlives", [False, True], ids=["attempts-die-with-their-owner", "attempts-outlive-their-owner"])
@pytest.mark.parametrize("number", range(scaled(4)))
@pytest.mark.timeout(600)
def test_a_crash_at_every_single_act_is_survived(number: int, *, outlives: bool) -> None:
    """I4, I8, I10 at each of the two points of each act (at a tenth of them in a quick run; another tenth each day)."""
    scenario = small(1_000 * SEED + number, outlives=outlives)
    points = World(scenario).play().points
    for point in range(SEED % STRIDE, points, STRIDE):
        world = World(scenario, crash_at=point, each_turn=point % 7 == 0)
        world.play()
        assert world.crashes == 1, f"nothing passed point {point} of seed {scenario.seed}"
        check(world)


FIXED = RandomFlow(
    [
        Step("start", "foreach", ("work",), items=2),
        Step("work", "linear", ("join",), fails=1, retries=1),
        Step("join", "linear", ("end",), joins=True),
        Step("end", "end"),
    ]
)


@pytest.mark.parametrize("outlives", [False, True], ids=["attempts-die-with-their-owner", "attempts-outlive-their-owner"])
@pytest.mark.timeout(600)
def test_every_crash_point_of_a_fixed_flow_is_survived(*, outlives: bool) -> None:
    """A foreach whose bodies fail once, and its join: both points of each act, each day, at whatever scale."""
    scenario = Scenario(0, (FIXED,), 2, "everysec", outlives, wild=False)
    points = World(scenario).play().points
    assert points > 100
    for point in range(points):
        world = World(scenario, crash_at=point, each_turn=point % 7 == 0)
        world.play()
        assert world.crashes == 1, f"nothing passed point {point}"
        check(world)
