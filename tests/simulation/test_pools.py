"""A pool of workers in virtual time: whatever dies, sleeps or is cut off, each invariant holds, and the pool is empty afterwards.

Owners, the pool's executor and the workers are the real ones; the queue is the simulated one, which is compared with real servers act by
act (`tests/contract/test_pool_queue_model.py`). A seed that fails is printed with the smallest scenario that fails as well.
"""

from dataclasses import replace

import pytest

from tests.effort import seeds
from tests.simulation.scenario import STEERED, Fault, Scenario
from tests.simulation.shrink import demand

BLOCK = 25
OFFERED = 2
"""In one scenario of so many the runs are offers to a shared shard."""
SEEDS = seeds(400)


@pytest.mark.parametrize("block", range(0, len(SEEDS), BLOCK))
@pytest.mark.timeout(600)
def test_a_pool_loses_no_order_and_leaks_no_slot_whatever_happens_to_owners_and_workers(block: int) -> None:
    """I1 to I6, I8 to I11, I13, and what a run makes is what an undisturbed one makes."""
    for seed in SEEDS[block : block + BLOCK]:
        demand(_scenario(seed))


def _scenario(seed: int) -> Scenario:
    scenario = replace(Scenario.of(seed).with_crew(), outlives=False, offered=seed % OFFERED == 0)
    return scenario.with_requests() if seed % STEERED == 0 else scenario


FOUND = {
    "a fail-over brought a claim back, of which its living worker knew nothing, and the run waited for ever": 1013,
    "a dead worker's claim stayed, since its attempt had reported and its owner had ended": 1017,
    "a fail-over lost a claim and its report, and the worker that had run the attempt was given it again": 82,
    "a worker that was suspended before it launched began when others had begun": 607,
    "a worker that drained waited for ever for a claim that was refused": 289,
    "a worker was to end an attempt that its executor was just being told of, and it ran on": 20261127000586,
    "the clock went back under an owner, stood still a moment before a timer, and the owner looked again and again": 20261129003734,
    "the server forgot a lease, its clock went back, and the pool refused each further owner for a former one": 20261130000419,
    "an owner that slept ordered an old launch under a lease that it had just taken anew, of a run that was over": 210,
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_in_pools_does_not_come_back(what: str) -> None:
    """Seeds of the test above."""
    demand(_scenario(FOUND[what]))


FOUND_WITH = {
    "the server's clock jumped forth, a new owner looked, and what a living worker was about to begin was ordered again": (
        20261128002359,
        False,
        (Fault(28, "clock", 0.749352336271598), Fault(45, "stall", 0.05051479593563968)),
    ),
    "the clock had jumped forth, a fail-over brought a claim back, and when the clock went back its dead worker lived on": (
        20261128003970,
        True,
        (Fault(18, "clock", 0.9067568481665024), Fault(87, "regress", 0.43584753671616616), Fault(94, "clock", 0.1542130605890526)),
    ),
    "the same without the first jump": (20261128000375, False, (Fault(161, "regress", 0.878), Fault(166, "clock", 0.01))),
    "the clock went back behind a shard that an owner had given up, with nothing left to do, and its epoch was given again": (
        20261201515580,
        True,
        (Fault(10, "clock", 0.32454758696804964), Fault(106, "stall", 0.31607804537496975), Fault(111, "clock", 0.12004134759218255)),
    ),
}
"""What else went wrong: a seed of the test above, whether its runs are offers, and the faults of the smallest scenario in which it did."""


@pytest.mark.parametrize("what", FOUND_WITH)
def test_what_was_found_in_pools_with_fewer_faults_does_not_come_back(what: str) -> None:
    """Shrunk from seeds of the test above."""
    seed, offered, faults = FOUND_WITH[what]
    demand(replace(_scenario(seed), wild=False, offered=offered, steered=False, faults=faults))
