"""Gangs: nodes that run at the same time, whose attempts are one."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from evflow.core import canonical, events as ev, explain
from evflow.core.apply import HARD_TIMEOUT_GRACE_US, ImpossibleEvent
from evflow.core.codec import decode
from evflow.core.control import refusal
from evflow.core.gangs import gang_of, nodes_of
from evflow.core.graph import Node
from evflow.core.reasons import said
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from evflow_scheduler.orders import order_of
from tests.core_run import SECOND, CoreRun, node
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
    assert state.status == ("failed" if failed or world.outgrown else "succeeded")
    if state.outcome is not None and not world.outgrown:  # a gang that was about to be tried again then fails with the run
        assert state.tasks[state.outcome.task].step in doomed


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
    assert world.holds_what_failed


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


# --- one by one ------------------------------------------------------------------------------------------


def gang(size: int = 3, **policy: Any) -> CoreRun:
    """start -num_parallel-> train -> join -> end; tasks 2 to 2 + size - 1 wait for slots."""
    options = policy.pop("options", {})
    steps = (node("start", "train", kind="parallel"), node("train", "join", parallel=True, **policy), node("join", "end"), node("end"))
    run = CoreRun(*steps, **options)
    run.done(1, "train", kind="parallel", splits=size)
    return run


def statuses(run: CoreRun) -> list[str]:
    return [task.status for task in run.state.all_tasks() if task.step == "train"]


def kinds(events: Sequence[ev.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_result_counts_when_all_nodes_have_one() -> None:
    """Until then the node is finished, and nothing of it can be read as the task's."""
    run = gang()
    run.begin(2, 3, 4)
    assert run.done(3, "join") == []
    assert run.done(2, "join") == []
    assert statuses(run) == ["finished", "finished", "running"]
    assert [run.task(number).manifest for number in (2, 3)] == [None, None]
    assert kinds(run.done(4, "join")) == ["TasksCreated", "TaskQueued"]
    assert statuses(run) == ["succeeded"] * 3
    assert run.state.splits[1].arrived == [2, 3, 4]


def test_the_first_node_that_fails_ends_the_others_and_says_so() -> None:
    """The one that had finished has nothing to end."""
    run = gang(retry_times=1)
    run.begin(2, 3, 4)
    run.done(2, "join")
    asked = run.fail(3)
    assert asked == [ev.AttemptCancelRequested(4, 0, "gang-failed: node 1 (task 3)")]
    assert said("gang-failed: node 1 (task 3)") == "another node of its gang failed: node 1 (task 3)"
    cancelled, retry, *_ = run.exit(4, signal=15)
    assert isinstance(cancelled, ev.AttemptCancelled)
    assert isinstance(retry, ev.RetryScheduled)
    assert (retry.task, retry.attempt, retry.counted, retry.count) == (2, 1, True, 3)
    assert retry.reason == "node 1 (task 3): ValueError: as told"
    assert [run.task(number).attempts[0].outcome for number in (2, 3, 4)] == ["cancelled", "failed", "cancelled"]
    assert [run.number(number) for number in (2, 3, 4)] == [1, 1, 1]
    assert statuses(run) == ["queued"] * 3


def test_the_next_attempt_is_queued_and_counted_as_one() -> None:
    """Nodes that did not fail themselves have used up a retry as well."""
    run = gang(retry_times=1)
    run.begin(2, 3, 4)
    run.fail(2)
    for number in (3, 4):
        run.exit(number, signal=15)
    assert [run.task(number).failures for number in (2, 3, 4)] == [1, 1, 1]
    run.begin(2, 3, 4)
    run.fail(4)
    run.exit(2, signal=15)
    assert [type(event) for event in run.exit(3, signal=15)][1:] == [ev.TaskFailed, ev.RunFailed]
    assert statuses(run) == ["cancelled", "cancelled", "failed"]
    assert run.state.outcome is not None
    assert run.state.outcome.task == 4


@pytest.mark.parametrize("late", [False, True])
def test_a_node_that_was_killed_while_it_was_to_end_is_lost_unless_we_may_have_done_it(late: bool) -> None:
    """Its peers fail of its death, and are often heard of first."""
    run = gang()
    run.begin(2, 3)
    run.begin(4)
    run.fail(2)
    run.exit(3, signal=15)
    run.now += 6 * SECOND if late else 0
    decided = run.exit(4, signal=9)
    assert kinds(decided)[:2] == (["AttemptCancelled", "TaskFailed"] if late else ["AttemptLost", "RetryScheduled"])
    assert run.state.status == ("failed" if late else "running")


def test_nodes_that_died_with_their_owner_are_lost_though_one_could_still_report_that_its_peers_were_gone() -> None:
    """The next owner reads that report first."""
    run = gang()
    run.begin(2, 3, 4)
    run.fail(3)
    run.exit(2, why="owner-died")
    decided = run.exit(4, why="owner-died")
    assert kinds(decided)[:2] == ["AttemptLost", "RetryScheduled"]
    assert [run.task(number).losses for number in (2, 3, 4)] == [1, 1, 1]
    assert run.state.status == "running"


@pytest.mark.parametrize(("why", "counted"), [("host-lost: The pod's node does not answer.", 0), ("job-gone", 1)])
def test_a_node_whose_host_was_lost_is_what_its_peers_failed_of_though_that_is_seen_later(why: str, counted: int) -> None:
    """A platform notices after minutes what peers notice at once. That a job is gone whose end was asked for says nothing."""
    run = gang()
    run.begin(2, 3, 4)
    run.fail(3)
    run.exit(2, signal=15)
    run.exit(4, why=why)
    assert [(run.task(number).losses, run.task(number).failures) for number in (2, 3, 4)] == [(1 - counted, 1)] * 3
    assert run.state.status == ("failed" if counted else "running")


def test_a_lost_node_has_the_gang_begin_again_whole_without_counting() -> None:
    """At most `MAX_LOSSES` times."""
    run = gang()
    for losses in range(1, 4):
        run.begin(2, 3, 4)
        run.exit(3, signal=9)
        run.exit(2, signal=15)
        run.exit(4, signal=15)
        assert statuses(run) == ["queued"] * 3
        assert [run.task(number).losses for number in (2, 3, 4)] == [losses] * 3
        assert [run.task(number).failures for number in (2, 3, 4)] == [0] * 3
    run.begin(2, 3, 4)
    run.exit(3, signal=9)
    run.exit(2, signal=15)
    run.exit(4, signal=15)
    assert run.state.status == "failed"


def test_a_node_that_has_to_be_killed_at_its_limit_ends_the_others() -> None:
    """Each node has its limit from its own start; the gang's attempt counts as timed out."""
    run = gang(timeout_us=SECOND, retry_times=1)
    run.begin(2, 3, 4)
    asked = run.wait(SECOND + HARD_TIMEOUT_GRACE_US)
    assert asked == [ev.AttemptCancelRequested(number, 0, "timeout") for number in (2, 3, 4)]
    run.exit(2, signal=9)
    run.exit(3, signal=9)
    decided = run.exit(4, signal=9)
    assert kinds(decided)[:2] == ["AttemptTimedOut", "RetryScheduled"]
    assert [run.task(number).failures for number in (2, 3, 4)] == [1, 1, 1]


def test_a_crash_under_catch_is_recorded_by_all_nodes() -> None:
    """In attempts that do not run the body."""
    run = gang(catch=True)
    run.begin(2, 3, 4)
    run.exit(3, signal=11)
    run.exit(2, signal=15)
    queued = run.exit(4, signal=15)[-1]
    assert queued == ev.TaskQueued(2, 3, 1, "local", "catch")
    crash = [order_of(run.state, run.task(number)).crash for number in (2, 3, 4)]
    assert crash[1] == "Its process was ended by signal 11 (segmentation fault)."
    assert crash[0] == crash[2] == f"Node 1 of its gang (task 3): {crash[1]}"


def test_what_ends_a_run_ends_its_gangs_and_what_had_finished_is_cancelled() -> None:
    run = gang()
    run.begin(2, 3, 4)
    run.done(2, "join")
    assert kinds(run.cancel()) == ["AttemptCancelRequested"] * 2
    run.exit(3, signal=15)
    run.exit(4, signal=15)
    assert run.state.status == "cancelled"
    assert statuses(run) == ["cancelled"] * 3


def test_a_gang_that_is_held_is_tried_again_whichever_node_is_named() -> None:
    """And skipped as well."""
    for asked in (2, 3, 4):
        run = gang(options={"on_failure": "pause"})
        run.begin(2, 3, 4)
        run.done(2, "join")
        run.fail(3)
        run.exit(4, signal=15)
        assert list(run.state.held) == [3]
        assert statuses(run) == ["finished", "failed", "finished"]
        run.turn(ev.TaskRetryRequested(asked))
        assert statuses(run) == ["queued"] * 3
        run.begin(2, 3, 4)
        run.fail(4)
        run.exit(2, signal=15)
        run.exit(3, signal=15)
        run.turn(ev.TaskSkipRequested(asked))
        assert statuses(run) == ["skipped"] * 3
        assert run.state.splits[1].join == "join"


def test_a_gang_that_is_held_ends_with_its_run() -> None:
    """What its nodes had finished is cancelled."""
    run = gang(options={"on_failure": "pause"})
    run.begin(2, 3, 4)
    run.done(2, "join")
    run.fail(3)
    run.exit(4, signal=15)
    run.cancel()
    assert run.state.status == "cancelled"
    assert statuses(run) == ["cancelled", "failed", "cancelled"]
    assert run.task(2).attempts[0].outcome == "cancelled"


def test_a_node_cannot_be_skipped_while_others_run() -> None:
    run = gang()
    run.begin(2, 3, 4)
    run.done(2, "join")
    assert refusal(run.state, ev.TaskSkipRequested(2)) == "its attempt is over, and others of its gang still run"


def test_a_gang_that_is_refused_fails_the_run_of_what_was_said() -> None:
    run = gang()
    run.turn(ev.GangRefused(2, "its gang has 3 nodes, and there are 2 slots."))
    assert run.state.outcome is not None
    assert (run.state.outcome.code, run.state.outcome.task) == ("gang-refused", 2)
    assert run.state.outcome.reason == "Step 'train' (task 2) cannot run: its gang has 3 nodes, and there are 2 slots."
    assert not run.state.waiting
    with pytest.raises(ImpossibleEvent):
        run.turn(ev.GangRefused(2, "again"))


@pytest.mark.parametrize(
    ("nodes", "said_by", "code", "told"),
    [
        (
            (node("start", "train", kind="parallel"), node("train", "join", parallel=True)),
            (1, "train", 0),
            "gang-size",
            "a gang of 0 nodes",
        ),
        (
            (node("start", "train", kind="parallel"), node("train", "join", parallel=True)),
            (1, "train", 201),
            "gang-size",
            "it has 1 to 200",
        ),
        (
            (node("start", "train", kind="parallel"), node("train", "join")),
            (1, "train", 2),
            "gang-not-parallel",
            "'train' has no @parallel",
        ),
        ((node("start", "train"), node("train", "join", parallel=True)), (1, "train", -1), "parallel-without-gang", "without num_parallel"),
    ],
)
def test_a_transition_that_is_no_gang_fails_the_run_and_says_why(
    nodes: tuple[Node, ...], said_by: tuple[int, str, int], code: str, told: str
) -> None:
    run = CoreRun(*nodes, node("join", "end"), node("end"))
    task, step, size = said_by
    run.begin(task)
    run.turn(run.success(task, step, kind="linear" if size < 0 else "parallel", splits=max(size, 0)))
    assert run.state.outcome is not None
    assert run.state.outcome.code == code
    assert told in run.state.outcome.reason


def test_a_node_leads_to_the_join_and_nowhere_else() -> None:
    """What the source did not show: the node chose at run time."""
    steps = (
        node("start", "train", kind="parallel"),
        node("train", "join", "more", kind="conditional", parallel=True),
        node("more", "join"),
    )
    run = CoreRun(*steps, node("join", "end"), node("end"))
    run.done(1, "train", kind="parallel", splits=1)
    run.done(2, "more")
    assert run.state.outcome is not None
    assert run.state.outcome.code == "gang-not-joined"


def test_a_log_of_before_knows_no_gangs() -> None:
    """What no worker of then sent is not taken for one now."""
    run = CoreRun(node("start", "train", kind="parallel"), node("train", "join", parallel=True), node("join", "end"), node("end"))
    run.state.logic = 3
    run.done(1, "train", kind="parallel", splits=2)
    assert run.state.outcome is not None
    assert run.state.outcome.code == "unknown-transition"


def test_what_a_node_waits_for_is_said() -> None:
    run = gang(cpu=2)
    [slot] = explain.of_task(run.state, run.task(3))
    assert isinstance(slot, explain.WaitsForSlot)
    assert (slot.nodes, slot.ahead_count, slot.asks.cpu) == (3, 0, 6)
    run.begin(2, 3, 4)
    run.done(2, "join")
    [waits] = explain.of_task(run.state, run.task(2))
    assert isinstance(waits, explain.WaitsForGang)
    assert (waits.outcome, waits.nodes, waits.running, waits.count) == ("succeeded", 3, (("train", 3), ("train", 4)), 2)
