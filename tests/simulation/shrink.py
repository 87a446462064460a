"""Play scenarios that must hold; one that does not is made small enough to be read."""

from evflow.testing.simulation.shrink import failure, shrunk
from evflow.testing.simulation.world import World
from tests.simulation.scenario import Scenario

EACH_TURN_OF = 8
"""The state is compared at each turn for one seed in so many; for the others at the seal."""


def demand(scenario: Scenario) -> World:
    """Play a scenario that must hold.

    Raises:
        AssertionError: It does not; with the seed and the trace of the smallest scenario that fails as well.
    """
    each_turn = scenario.seed % EACH_TURN_OF == 0
    played = failure(scenario, each_turn=each_turn)
    if not played.problem:
        return played.world
    small = shrunk(scenario, each_turn=each_turn)
    again = failure(small, each_turn=each_turn)
    text, world = again if again.problem else played
    faults = "".join(f"Fault({fault.point}, {fault.kind!r}, {fault.amount!r}), " for fault in small.faults)
    trace = "\n  ".join(world.trace[-40:])
    raise AssertionError(
        f"seed {scenario.seed}: {text}\nreplace(Scenario.of({scenario.seed}), wild={small.wild}, offered={small.offered}, "
        f"steered={small.steered}, faults=({faults}))\n  {trace}"
    )
