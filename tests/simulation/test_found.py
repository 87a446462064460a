"""Scenarios that failed once."""

from dataclasses import replace

import pytest

from tests.simulation.scenario import Fault, Scenario
from tests.simulation.shrink import demand

FOUND: dict[str, Scenario] = {
    "a sealed run's timer that was never due kept its new owner spinning": Scenario.of(10052),
    "a log that the server lost while it was taken over got a first event that none can be": Scenario.of(300547),
    "the same, by another way": Scenario.of(300761),
    "an owner died before the log had the start of an attempt that its successor adopted: no timeout counted": Scenario.of(20261126001464),
    "an owner that was stopped in its take-over read halves of two histories": Scenario.of(20261127000678),
    "an owner that was stopped in its take-over adopted what its successor ran": Scenario.of(20261123001462),
    "a fail-over brought a dead owner's lease back, and the living one stopped": replace(
        Scenario.of(20261126013905), wild=True, faults=(Fault(29, "crash", 0.4505361800656582), Fault(57, "regress", 0.5178187113625358))
    ),
    "an owner that slept while another came, began a run and died took the shard again and knew nothing of it": replace(
        Scenario.of(20261127000846),
        wild=False,
        offered=True,
        faults=(Fault(3, "stall", 0.4905301434159812), Fault(55, "crash", 0.6305830204243095)),
    ),
    "the same, with less between": replace(
        Scenario.of(20261127001914),
        wild=False,
        offered=True,
        faults=(Fault(3, "stall", 0.39969507943157767), Fault(31, "crash", 0.2933106351039849)),
    ),
    "the same, and the server had lost the lease by which it would have noticed": replace(
        Scenario.of(1047),
        wild=False,
        offered=True,
        faults=(
            Fault(5, "lost-request", 0.12580470732141058),
            Fault(7, "stall", 0.9763217469238201),
            Fault(48, "crash", 0.6124430472934413),
            Fault(52, "forget-lease", 0.6502517863304667),
        ),
    ),
    "a run was cancelled while a gang of it was held, and nodes that had finished stayed so": replace(
        Scenario.of(11000948).with_gangs(), wild=True, offered=False, steered=True, faults=(Fault(355, "cancel", 0.6354084567162149),)
    ),
    "a run got a slot in the turn in which its gang was refused, and nobody took it back": replace(
        Scenario.of(11000321).with_gangs(), wild=False, offered=False, faults=()
    ),
    "a wait for durability counted for events that were written again while its answer was under way": replace(
        Scenario.of(20261129002091),
        wild=False,
        offered=False,
        steered=False,
        faults=(
            Fault(2, "crash", 0.909370557916686),
            Fault(35, "regress", 0.48874820187267354),
            Fault(41, "stall", 0.16676935850081331),
            Fault(42, "crash", 0.6984496687342283),
            Fault(43, "delay", 0.832744475806519),
        ),
    ),
}
"""What went wrong to the smallest scenario in which it did."""


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_does_not_come_back(what: str) -> None:
    """Each was shrunk from a seed of `test_random_runs` or `test_gangs`."""
    demand(FOUND[what])
