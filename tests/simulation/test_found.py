"""Scenarios that failed once."""

import pytest

from tests.simulation.scenario import Scenario
from tests.simulation.shrink import demand

FOUND: dict[str, Scenario] = {
    "a sealed run's timer that was never due kept its new owner spinning": Scenario.of(10052),
    "a log that the server lost while it was taken over got a first event that none can be": Scenario.of(300547),
    "the same, by another way": Scenario.of(300761),
    "an owner died before the log had the start of an attempt that its successor adopted: no timeout counted": Scenario.of(20261126001464),
    "an owner that was stopped in its take-over read halves of two histories": Scenario.of(20261127000678),
    "an owner that was stopped in its take-over adopted what its successor ran": Scenario.of(20261123001462),
}
"""What went wrong to the smallest scenario in which it did."""


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_does_not_come_back(what: str) -> None:
    """Each was shrunk from a seed of `test_random_runs`."""
    demand(FOUND[what])
