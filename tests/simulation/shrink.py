"""Play scenarios, and make a failing one small enough to be read."""

import traceback
from dataclasses import replace

from tests.simulation.checks import check
from tests.simulation.scenario import Scenario
from tests.simulation.world import World

EACH_TURN_OF = 8
"""The state is compared at each turn for one seed in so many; for the others at the seal."""


def _each_turn(scenario: Scenario) -> bool:
    return not scenario.offered and scenario.seed % EACH_TURN_OF == 0


def failure(scenario: Scenario) -> tuple[str, World] | None:
    """Play a scenario; what went wrong, or None."""
    world = World(scenario, each_turn=_each_turn(scenario))
    try:
        world.play()
        check(world)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return _text(error), world
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the simulation looks for
        return _text(error), world
    return None


def demand(scenario: Scenario) -> World:
    """Play a scenario that must hold.

    Raises:
        AssertionError: It does not; with the seed and the trace of the smallest scenario that fails as well.
    """
    world = World(scenario, each_turn=_each_turn(scenario))
    try:
        world.play()
        check(world)
    except Exception:  # noqa: BLE001 - raised below, with what is needed to repeat it
        small = shrunk(scenario)
        found = failure(small)
        text, played = found if found is not None else (failure(scenario) or ("it does not fail again", world))
        faults = ", ".join(f"Fault({fault.point}, {fault.kind!r}, {fault.amount!r})" for fault in small.faults)
        trace = "\n  ".join(played.trace[-40:])
        raise AssertionError(
            f"seed {scenario.seed}: {text}\nreplace(Scenario.of({scenario.seed}), wild={small.wild}, offered={small.offered}, faults=({faults},))\n  {trace}"
        ) from None
    return world


def shrunk(scenario: Scenario) -> Scenario:
    """The scenario with as little in it as still fails."""
    for calmer in (replace(scenario, wild=False), scenario):
        if failure(calmer) is not None:
            scenario = calmer
            break
    position = 0
    while position < len(scenario.faults):
        fewer = replace(scenario, faults=scenario.faults[:position] + scenario.faults[position + 1 :])
        if failure(fewer) is not None:
            scenario = fewer
        else:
            position += 1
    return scenario


def _text(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
