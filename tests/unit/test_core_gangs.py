"""Gangs: nodes that run at the same time, whose attempts are one."""

from random import Random

import pytest

from evflow.core import canonical, events as ev
from evflow.core.codec import decode
from evflow.core.gangs import gang_of, nodes_of
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from tests.core_world import CoreWorld
from tests.effort import seeds
from tests.random_flows import grow, spoil

SEEDS = seeds(200)


def played(seed: int, *, spoilt: bool = False, lossy: bool = False, controlled: bool = False) -> CoreWorld:
    random = Random(seed)
    flow = grow(random, gangs=True)
    world = CoreWorld(spoil(flow, random) if spoilt else flow, random, lossy=lossy, controlled=controlled)
    world.play()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flow_with_gangs_ends_as_its_steps_do(seed: int) -> None:
    """A run fails if and only if one of its steps may fail for good; one node is enough."""
    world = played(seed)
    state = world.run.state
    doomed = {step.name for step in world.flow.steps if step.fails > (step.retries or 0) and not step.caught}
    failed = {task.step for task in state.all_tasks() if task.status == "failed"}
    assert state.status == ("failed" if failed else "succeeded")
    assert failed <= doomed


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_lost_or_doubled_the_nodes_of_a_gang_have_one_fate(seed: int) -> None:
    """They are at the same attempt, have their results together, and the log alone gives the state and every decision."""
    world = played(seed, lossy=True, spoilt=seed % 3 == 0)
    verdict = verify(world.stored, world.run.head)
    assert verdict.problems == []
    state = world.run.state
    assert canonical.digest(refold(world.stored)) == canonical.digest(state)
    for task in state.all_tasks():
        won = [attempt for attempt in task.attempts if attempt.outcome == "succeeded"]
        assert len(won) == (task.status == "succeeded")
        if gang_of(task) is not None:
            nodes = nodes_of(state, task)
            assert len({len(node.attempts) for node in nodes}) == 1
            assert len({node.status == "succeeded" for node in nodes}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_retries_and_skips_a_node_asks_it_for_the_gang(seed: int) -> None:
    """No gang is left half done, whoever pauses, retries and skips whatever node whenever."""
    world = played(seed, lossy=True, controlled=True)
    assert verify(world.stored, world.run.head).problems == []
    state = world.run.state
    for task in state.all_tasks():
        if gang_of(task) is not None:
            assert len({node.status in ("succeeded", "skipped") for node in nodes_of(state, task)}) == 1
    assert state.held.keys() == {task.id for task in state.all_tasks() if task.status == "failed"}


@pytest.mark.parametrize("seed", SEEDS)
def test_all_nodes_get_their_slots_in_one_turn(seed: int) -> None:
    """Never a part of a gang that holds slots and waits."""
    world = played(seed, lossy=True)
    turns: dict[tuple[int, int], set[int]] = {}
    for seq, payload, _ in world.stored:
        record = decode(seq, payload)
        if isinstance(record.event, ev.SlotGranted):
            task = world.run.state.tasks[record.event.task]
            if gang_of(task) is not None:
                turns.setdefault((nodes_of(world.run.state, task)[0].id, record.event.attempt), set()).add(record.turn)
    assert all(len(each) == 1 for each in turns.values())
