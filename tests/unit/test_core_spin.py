"""A spin: the place in the run that a task had, and nothing but the task."""

from random import Random

import pytest

from evflow.core import events as ev
from evflow.core.decide import LOGIC
from evflow.core.graph import Graph
from evflow.core.spin import SpinPlan, before, graph_of_spin, inputs_of
from evflow.core.state import RunState, Task
from evflow.replay.verify import verify
from evflow_scheduler.orders import order_of
from evflow_scheduler.run import OwnedRun
from tests.core_run import CoreRun, fan, head_of, node, stored
from tests.core_world import RUN, CoreWorld
from tests.effort import seeds
from tests.random_flows import grow

NOW = 5_000_000_000


def spun(origin: RunState, task: int, instead: dict[int, bytes] | None = None) -> tuple[OwnedRun, Task]:
    """The spin of a task, up to where it waits for a slot."""
    graph = graph_of_spin(origin.graph, origin.graph, origin.tasks[task].step)
    run, plan = OwnedRun(RUN), SpinPlan(origin, task, instead)
    started = ev.RunStarted("RandomFlow", 9, LOGIC, graph.to_plain(), b"q" * 32, {}, dict(origin.options), {}, "ada", "", origin=str(RUN))
    run.turn([(started, "test", 0)], NOW)
    while reused := plan.reusable(run.state):
        run.turn([(event, "test", 0) for event in reused], NOW)
    found = plan.target(run.state)
    assert found is not None
    return run, found


def ended(run: OwnedRun, task: Task, *facts: ev.Event) -> list[bytes]:
    """The events of the spin once its task has its outcome."""
    for fact in (ev.SlotGranted(task.id, task.attempt.number, 0), *facts):
        run.turn([(fact, "test", 0)], NOW)
    if not run.state.over:
        run.turn([(ev.RunCancelRequested("done"), "test", 0)], NOW)
    run.seal(NOW)
    return [payload for call in run.pending((), {}) for payload in call.events]


@pytest.mark.parametrize("seed", seeds(150))
def test_every_task_of_whatever_run_finds_its_place_again(seed: int) -> None:
    """Its splits, its place in each of them, and what it starts from; nothing but what led to it was taken over."""
    random = Random(seed)
    world = CoreWorld(grow(random), random, controlled=random.random() < 0.3)
    world.play()
    origin = world.run.state
    then = origin.tasks[random.randint(1, len(origin.tasks) - 1)]
    run, task = spun(origin, then.id)
    assert task.step == then.step
    assert list(run.state.waiting).count(task.id) == 1
    places = [(frame.split.step, frame.split.kind, frame.index, frame.split.size, frame.split.items) for frame in task.frames()]
    assert places == [(f.split.step, f.split.kind, f.index, f.split.size, f.split.items) for f in then.frames()]
    if then.parent or origin.graph[then.step].takes_inputs:
        now = [(step, manifest) for step, _, manifest in order_of(run.state, task).parents]
        assert now == [(step, manifest) for step, _, manifest in order_of(origin, then).parents]
    taken = {one.origin for one in run.state.all_tasks() if one.reused}
    assert taken == before(origin, then.id) - {0}


@pytest.mark.parametrize("seed", seeds(50))
def test_its_log_is_that_of_a_run_and_verifies(seed: int) -> None:
    """Whatever the task does; nothing else is ever launched."""
    random = Random(seed)
    world = CoreWorld(grow(random), random)
    world.play()
    origin = world.run.state
    then = random.choice([task for task in origin.all_tasks() if task.status == "succeeded"])
    run, task = spun(origin, then.id)
    success = ev.AttemptSucceeded(task.id, 0, b"m" * 32, then.next_kind, then.next_steps, then.splits, then.items, then.variable)
    log = ended(run, task, success)
    assert task.status == "succeeded"
    assert [one.id for one in run.state.all_tasks() if any(attempt.launched_us for attempt in one.attempts)] == [task.id]
    assert verify(stored(log), head_of(log)).ok


def test_a_retried_task_is_retried_and_then_fails_for_good() -> None:
    """The rules are those of every run."""
    origin = CoreRun(node("start", "a"), node("a", "end", retry_times=1), node("end"))
    origin.done(1, "a")
    run, task = spun(origin.state, 2)
    failed = ev.AttemptFailed(task.id, 0, "exception", "builtins.ValueError", "no")
    run.turn([(ev.SlotGranted(task.id, 0, 0), "test", 0)], NOW)
    run.turn([(failed, "test", 0)], NOW)
    assert (task.status, task.attempt.number) == ("queued", 1)
    run.turn([(ev.SlotGranted(task.id, 1, 0), "test", 0)], NOW)
    run.turn([(ev.AttemptFailed(task.id, 1, "exception", "builtins.ValueError", "no"), "test", 0)], NOW)
    assert (task.status, run.state.status) == ("failed", "failed")


def test_what_the_tasks_before_left_can_be_replaced() -> None:
    """By another manifest, for this spin."""
    origin = CoreRun(node("start", "a"), node("a", "end"), node("end"))
    origin.done(1, "a")
    run, task = spun(origin.state, 2, {1: b"x" * 32})
    assert order_of(run.state, task).parents == (("start", 1, b"x" * 32),)


def test_a_join_begins_with_all_its_members() -> None:
    """In their order."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=3)
    for member in (4, 2, 3):
        origin.done(member, "join")
    assert inputs_of(origin.state, 5) == (2, 3, 4, 1)
    run, task = spun(origin.state, 5)
    assert [manifest for _, _, manifest in order_of(run.state, task).parents] == [origin.task(n).manifest for n in (2, 3, 4)]


def test_the_steps_before_may_have_changed_and_the_step_is_the_one_of_now() -> None:
    """The step before was renamed since, and the step has another policy, a pool's and a limit's left out: it runs here."""
    then = CoreRun(node("start", "a"), node("a", "end"), node("end")).state.graph
    new = (node("begin", "a"), node("a", "b", retry_times=4, executor="pool:gpu", limits={"x": 1}), node("b", "end"), node("end"))
    graph = graph_of_spin(then, Graph({step.name: step for step in new}, start="begin"), "a")
    assert (graph.start, graph.end) == ("start", "end")
    assert set(graph.nodes) == {"start", "begin", "a", "b", "end"}
    assert (graph["a"].policy.retry_times, graph["a"].policy.executor, graph["a"].policy.limits) == (4, "local", {})
    assert graph["a"].out == ("b",)


def test_a_node_of_a_gang_is_spun_without_its_peers() -> None:
    """It has its place, is tried again and comes to its end by itself, and the log verifies."""
    steps = (node("start", "train", kind="parallel"), node("train", "join", parallel=True, retry_times=1), node("join", "end"), node("end"))
    origin = CoreRun(*steps)
    origin.done(1, "train", kind="parallel", splits=3)
    run, task = spun(origin.state, 3)
    assert (task.frame is not None and task.frame.index, task.frame is not None and task.frame.split.size) == (1, 3)
    run.turn([(ev.SlotGranted(task.id, 0, 0), "test", 0)], NOW)
    run.turn([(ev.AttemptFailed(task.id, 0, "exception", "builtins.ValueError", "no"), "test", 0)], NOW)
    assert (task.status, task.attempt.number) == ("queued", 1)
    run.turn([(ev.SlotGranted(task.id, 1, 0), "test", 0)], NOW)
    run.turn([(ev.AttemptSucceeded(task.id, 1, b"m" * 32, "linear", ("join",)), "test", 0)], NOW)
    assert task.status == "succeeded"
    run.turn([(ev.RunCancelRequested("done"), "test", 0)], NOW)
    run.seal(NOW)
    log = [payload for call in run.pending((), {}) for payload in call.events]
    assert verify(stored(log), head_of(log)).ok
