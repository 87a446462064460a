"""Play scenarios, and make a failing one small enough to be read."""

import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from evflow.testing.simulation.checks import check
from evflow.testing.simulation.pooled import PoolWorld
from evflow.testing.simulation.scenario import Scenario
from evflow.testing.simulation.world import LIMITS, World, first_of

_S = TypeVar("_S", bound=Scenario)


class Played(NamedTuple):
    """A scenario that was played: what went wrong, or an empty text; and its world."""

    problem: str
    world: World


def failure(scenario: Scenario, *, limits: Mapping[str, int] = LIMITS, each_turn: bool = False) -> Played:
    """Play a scenario and check it.

    Args:
        scenario: The scenario.
        limits: Options of its runs.
        each_turn: Compare the state at each turn, not at the seal only; not of runs that are offered.
    """
    world = (PoolWorld if scenario.crew else World)(scenario, each_turn=each_turn and not scenario.offered, limits=dict(limits))
    try:
        world.play()
        check(world)
    except BaseExceptionGroup as group:
        error = first_of(group.subgroup(Exception) or group)
        if not isinstance(error, Exception):
            raise
        return Played(_text(error), world)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the simulation looks for
        return Played(_text(error), world)
    return Played("", world)


def shrunk(scenario: _S, *, limits: Mapping[str, int] = LIMITS, each_turn: bool = False) -> _S:
    """The scenario with as little in it as still fails."""

    def fails(candidate: Scenario) -> bool:
        return bool(failure(candidate, limits=limits, each_turn=each_turn).problem)

    for calmer in (replace(scenario, wild=False), scenario):
        if fails(calmer):
            scenario = calmer
            break
    position = 0
    while position < len(scenario.faults):
        fewer = replace(scenario, faults=scenario.faults[:position] + scenario.faults[position + 1 :])
        if fails(fewer):
            scenario = fewer
        else:
            position += 1
    return scenario


def _text(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
