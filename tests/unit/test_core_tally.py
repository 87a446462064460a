"""What a tally counts is what `explain` says of the tasks one by one, at every moment of any run."""

from collections import Counter
from random import Random

from hypothesis import given, strategies as st

from evflow.core import events as ev, explain
from evflow.core.state import RunState
from evflow.core.tally import HELD, JOIN, LIMIT, PAUSE, RESOURCES, RETRY, SLOT, STORE, WORKER, Tally, tally, total
from tests.core_run import CoreRun, fan, node
from tests.core_world import CoreWorld
from tests.random_flows import grow


def one_by_one(state: RunState) -> Tally:
    """The slow way."""
    if state.over:
        return Tally(0, 0, {})
    running = starting = 0
    waiting: Counter[str] = Counter()
    for task in explain.open_tasks(state):
        reason = next(explain.of_task(state, task))
        if isinstance(reason, explain.WaitsForWorker):
            waiting[WORKER] += 1
        elif isinstance(reason, explain.IsHeld):
            waiting[HELD] += 1
        elif task.id in state.live:
            running, starting = running + (task.attempt.started_us > 0), starting + (task.attempt.started_us == 0)
        elif isinstance(reason, explain.WaitsForSlot):
            first = state.tasks[next(iter(state.waiting))]
            declares = not explain.Resources.of(state.graph[first.step].policy).nothing
            waiting[PAUSE if reason.paused_by else RESOURCES if declares else SLOT] += 1
        elif isinstance(reason, explain.WaitsForRetry):
            waiting[RETRY] += 1
    waiting[JOIN] += len(list(explain.open_splits(state)))
    return Tally(running, starting, {reason: number for reason, number in waiting.items() if number})


@given(seed=st.integers(0, 2**32))
def test_a_tally_is_what_explain_says_of_each_task(seed: int) -> None:
    random = Random(seed)
    world = CoreWorld(grow(random), random, lossy=True)
    world.start()
    for _ in range(200):
        assert tally(world.run.state) == one_by_one(world.run.state)
        if world.run.state.over:
            break
        world.step()


def test_tasks_behind_one_that_declares_resources_wait_for_resources() -> None:
    run = CoreRun(*fan(node("work", "join", cpu=4.0)))
    run.turn()
    run.done(1, "work", splits=3)
    assert tally(run.state) == Tally(0, 0, {RESOURCES: 3, JOIN: 1})


def test_what_no_worker_has_begun_waits_for_one_and_does_not_start() -> None:
    run = CoreRun(node("start", "end", executor="pool:gpu"), node("end"))
    run.grant(1)
    assert tally(run.state) == one_by_one(run.state) == Tally(0, 0, {WORKER: 1})
    run.turn(ev.AttemptStarted(1, run.number(1), "box", 101, run.now))
    assert tally(run.state) == one_by_one(run.state) == Tally(1, 0, {})


def test_a_pause_and_a_failed_task_are_waits_of_their_own() -> None:
    run = CoreRun(*fan(node("work", "join")), on_failure="pause")
    run.done(1, "work", splits=3)
    run.fail(2)
    assert tally(run.state) == one_by_one(run.state) == Tally(0, 0, {SLOT: 2, HELD: 1, JOIN: 1})
    run.turn(ev.RunPauseRequested("a look"))
    assert tally(run.state) == one_by_one(run.state) == Tally(0, 0, {PAUSE: 2, HELD: 1, JOIN: 1})


def test_what_waits_for_a_limited_name_is_told_by_whoever_asks_for_it_and_a_pause_comes_first() -> None:
    run = CoreRun(*fan(node("work", "join", cpu=4.0, limits={"db": 1})))
    run.done(1, "work", splits=3)
    assert tally(run.state, lambda: True) == Tally(0, 0, {LIMIT: 3, JOIN: 1})
    assert tally(run.state, lambda: False) == Tally(0, 0, {RESOURCES: 3, JOIN: 1})
    run.turn(ev.RunPauseRequested("a look"))
    assert tally(run.state, lambda: True) == Tally(0, 0, {PAUSE: 3, JOIN: 1})


def test_what_has_a_slot_and_waits_for_its_store_does_not_start() -> None:
    run = CoreRun(*fan(node("work", "join")))
    run.done(1, "work", splits=3)
    run.begin(2)
    run.grant(3, 4)
    assert tally(run.state) == Tally(1, 2, {JOIN: 1})
    assert tally(run.state, storeless=1) == Tally(1, 1, {STORE: 1, JOIN: 1})
    assert tally(run.state, storeless=7) == Tally(1, 0, {STORE: 2, JOIN: 1})


def test_tallies_add_up() -> None:
    assert total([Tally(1, 2, {SLOT: 3}), Tally(1, 0, {SLOT: 1, RETRY: 1})]) == Tally(2, 2, {SLOT: 4, RETRY: 1})
