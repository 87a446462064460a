"""Whatever goes wrong around a shard, in whatever order: the invariants hold.

Each seed is a scenario: flows, slots, a durability level, attempts that may misbehave, and faults at acts of the owner
(see `tests.simulation.scenario`). A seed that fails is printed with the smallest scenario that fails as well; it belongs
into `test_found.py` then.
"""

from dataclasses import replace

import pytest

from tests.effort import seeds
from tests.simulation.scenario import STEERED, Scenario
from tests.simulation.shrink import demand

BLOCK = 25
OFFERED = 3
"""In one scenario of so many the runs are offers to a shared shard."""
SEEDS = seeds(2_000)


@pytest.mark.parametrize("block", range(0, len(SEEDS), BLOCK))
@pytest.mark.timeout(600)
def test_a_shard_comes_to_its_end_and_every_invariant_holds(block: int) -> None:
    """I1 to I6, I8 to I11, I13, and what a run makes is what an undisturbed one makes."""
    for seed in SEEDS[block : block + BLOCK]:
        scenario = replace(Scenario.of(seed), offered=seed % OFFERED == 0)
        demand(scenario.with_requests() if seed % STEERED == 0 else scenario)
