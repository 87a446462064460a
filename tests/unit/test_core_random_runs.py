"""Whatever happens to a run of whatever flow, in whatever order: the invariants hold."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from evflow.core import canonical, events as ev
from evflow.core.apply import apply
from evflow.core.chain import extend
from evflow.core.codec import decode, encode
from evflow.core.state import RunState
from evflow.log.protocol import Head
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from tests.core_world import CoreWorld, stored
from tests.effort import rng, seeds
from tests.random_flows import grow, spoil

SEEDS = seeds(300)


def played(seed: int, *, spoilt: bool = False, lossy: bool = False) -> CoreWorld:
    random = Random(seed)
    flow = grow(random)
    if spoilt:
        flow = spoil(flow, random)
    world = CoreWorld(flow, random, lossy=lossy)
    world.play()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_a_well_formed_flow_ends_as_its_steps_do(seed: int) -> None:
    """A run fails if and only if one of its steps may fail for good."""
    world = played(seed)
    doomed = {step.name for step in world.flow.steps if step.fails > (step.retries or 0) and not step.caught}
    ran = {task.step for task in world.run.state.all_tasks() if task.status == "failed"}
    assert world.run.state.status == ("failed" if ran or world.outgrown else "succeeded")
    assert ran <= doomed
    if world.run.state.failing is not None and not world.outgrown:
        assert world.run.state.failing.code == "task-failed"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_join_runs_once_and_after_all_its_branches(seed: int) -> None:
    """I5."""
    world = played(seed, lossy=True)
    finished: set[int] = set()
    joined: set[int] = set()
    for seq, payload, _ in world.stored:
        event = decode(seq, payload).event
        if isinstance(event, ev.AttemptSucceeded):
            finished.add(event.task)
        if isinstance(event, ev.TasksCreated) and event.op == "join":
            members = world.run.state.splits[event.parent].arrived
            assert all(members)
            assert set(members) <= finished
            assert event.parent not in joined
            joined.add(event.parent)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_task_has_one_accepted_result_whatever_is_lost_or_doubled(seed: int) -> None:
    """I3: the manifest is the one of the current attempt, and late reports change nothing."""
    world = played(seed, lossy=True)
    for task in world.run.state.all_tasks():
        succeeded = [attempt for attempt in task.attempts if attempt.outcome == "succeeded"]
        assert len(succeeded) == (task.status == "succeeded")
        if succeeded:
            assert task.manifest == succeeded[0].manifest


@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_alone_gives_the_state_that_was_sealed_and_every_decision(seed: int) -> None:
    """I1, I8, I9, I13."""
    world = played(seed, spoilt=seed % 2 == 0, lossy=True)
    verdict = verify(world.stored, world.run.head)
    assert verdict.problems == []
    assert verdict.sealed
    assert canonical.digest(refold(world.stored)) == canonical.digest(world.run.state)


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_pauses_retries_and_skips_whenever_the_log_alone_gives_state_and_decisions(seed: int) -> None:
    """I8, I10, I13; and nothing is half done: who fails is held until somebody sees to it, and no run fails by a task."""
    random = Random(seed)
    flow = grow(random)
    world = CoreWorld(spoil(flow, random) if seed % 4 == 0 else flow, random, lossy=True, controlled=True)
    world.play()
    verdict = verify(world.stored, world.run.head)
    assert verdict.problems == []
    state = world.run.state
    assert canonical.digest(refold(world.stored)) == canonical.digest(state)
    assert state.outcome is None or state.outcome.code != "task-failed"
    for name, counts in state.steps.items():
        statuses = Counter(task.status for task in state.all_tasks() if task.step == name)
        assert (counts.succeeded, counts.failed, counts.skipped) == (statuses["succeeded"], statuses["failed"], statuses["skipped"])
    assert world.holds_what_failed


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ill_formed_transition_fails_the_run_and_names_both_places(seed: int) -> None:
    """A spoilt flow ends; if its shape is what failed it, the reason names the step that went wrong and the other one."""
    world = played(seed, spoilt=True)
    ending = world.run.state.outcome
    if ending is None or ending.code == "task-failed":
        return
    task = world.run.state.task(ending.task)
    assert task is not None
    assert f"'{task.step}'" in ending.reason or task.step in ending.reason
    assert ending.code in {
        "different-joins", "join-without-split", "end-inside-split", "loop-out-of-split", "split-into-join", "task-budget",
    }  # fmt: skip


def test_a_flipped_byte_is_found_at_its_event() -> None:
    """I9: every event of a log, one byte of it changed."""
    world = played(7, lossy=True)
    random = rng("flip")
    for index, (seq, payload, link) in enumerate(world.stored):
        position = random.randrange(len(payload))
        flipped = bytearray(payload)
        flipped[position] ^= 1 << random.randrange(8)
        log = [*world.stored[:index], world.stored[index]._replace(payload=bytes(flipped), link=link), *world.stored[index + 1 :]]
        problem = verify(log, world.run.head).problems[0]
        assert (problem.seq, problem.check) == (seq, "chain")


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_a_changed_decision_is_found_though_chain_and_seal_were_computed_anew(seed: int) -> None:
    """I13: the forger knows everything but cannot make a wrong decision follow."""
    world = played(seed)
    decisions = [seq for seq, payload, _ in world.stored if isinstance(decode(seq, payload).event, ev.TaskQueued)]
    victim = rng("forge", seed).choice(decisions)
    payloads = [event.payload for event in world.stored]
    record = decode(victim, payloads[victim - 1])
    assert isinstance(record.event, ev.TaskQueued)
    forged = replace(record.event, executor="elsewhere")
    payloads[victim - 1] = encode(forged, turn=record.turn, at_us=record.at_us, principal=record.principal, cause=record.cause)
    log = stored(payloads[:-1])
    state, digest = refold(log), Head().digest
    for event in log:
        digest = extend(digest, event.payload)
    seal = ev.RunSealed(canonical.digest(state), digest, state.seq, state.late)
    last = decode(len(payloads), payloads[-1])
    payload = encode(seal, turn=last.turn, at_us=last.at_us, principal=last.principal, cause=last.cause)
    log = stored([*payloads[:-1], payload])
    problem = verify(log, Head(len(log), extend(digest, payload), "sealed")).problems[0]
    assert (problem.seq, problem.check) == (victim, "decision")


def test_an_event_that_is_missing_is_named() -> None:
    """I1."""
    world = played(3)
    log = [event for event in world.stored if event.seq != 5]
    problem = verify(log, world.run.head).problems[0]
    assert problem.check == "sequence"
    assert "5" in problem.what


def test_a_log_whose_end_is_missing_is_not_whole() -> None:
    """The head knows how long the log was."""
    world = played(3)
    problem = verify(world.stored[:-1], world.run.head).problems[0]
    assert problem.check == "head"


@pytest.mark.parametrize("seed", SEEDS[::10])
def test_those_that_wait_for_one_executor_are_those_that_wait_in_the_same_order(seed: int) -> None:
    """After each event, elsewhere and here."""
    world = played(seed, lossy=True)
    state = RunState()
    for seq, payload, _ in world.stored:
        apply(state, decode(seq, payload))
        grouped: dict[str, list[int]] = {}
        for number in state.waiting:
            grouped.setdefault(state.tasks[number].attempt.executor, []).append(number)
        assert {executor: list(line) for executor, line in state.lines.items()} == grouped
