"""A recorded run as a subject: what its bodies came to, by their places."""

from dataclasses import replace
from typing import Any

from evflow.core import events as ev
from evflow.core.ids import RunId
from evflow.testing.lab import Lab
from evflow.testing.recording import Recording
from evflow.testing.simulation.watched import Violation
from evflow.worker.spec import AttemptOrder
from evflow_scheduler.orders import order_of
from tests.core_run import SECOND, CoreRun, fan, node


def finished(*, on_failure: str = "fail") -> CoreRun:
    """A foreach of two; the second member fails once and is retried."""
    run = CoreRun(*fan(node("body", "join", retry_times=1)), on_failure=on_failure)
    run.done(1, "body", splits=2)
    run.done(2, "join")
    run.fail(3)
    run.done(3, "join")
    run.done(4, "end")
    run.done(5)
    for task in run.state.all_tasks():
        for attempt in task.attempts:
            attempt.started_us = attempt.ended_us - SECOND
    return run


def orders(run: CoreRun) -> dict[int, AttemptOrder]:
    """The order of each task's last attempt."""
    return {task.id: order_of(run.state, task) for task in run.state.all_tasks()}


def order(run: CoreRun, number: int, attempt: int, **other: Any) -> AttemptOrder:
    """An order of a task for another attempt."""
    found = orders(run)[number]
    return replace(found, **{"attempt": attempt, **other})


def test_an_attempt_comes_to_what_it_came_to_then_and_later_ones_to_what_the_last_one_did() -> None:
    run = finished()
    played = Recording(run.state)
    first, second, third = (played.report(order(run, 3, number)) for number in (0, 1, 2))
    assert isinstance(first, ev.AttemptFailed)
    assert isinstance(second, ev.AttemptSucceeded)
    assert isinstance(third, ev.AttemptSucceeded)
    assert (first.error, second.manifest, third.manifest) == ("ValueError", run.task(3).manifest, run.task(3).manifest)


def test_a_task_is_known_by_its_place_and_not_by_its_number() -> None:
    """Members may be created, and end, in another order."""
    run = finished()
    found = Recording(run.state).report(order(run, 2, 0, task=17))
    assert isinstance(found, ev.AttemptSucceeded)
    assert (found.task, found.manifest) == (17, run.task(2).manifest)


def test_an_attempt_for_catch_goes_the_one_way_that_the_step_has() -> None:
    run = finished()
    found = Recording(run.state).report(order(run, 2, 1, mode="catch", crash="killed"))
    assert isinstance(found, ev.AttemptSucceeded)
    assert (found.next_steps, found.caught) == (("join",), "killed")


def test_a_place_that_the_run_did_not_come_to_goes_the_way_of_the_source_or_fails() -> None:
    run = CoreRun(node("start", "a", "b", kind="switch"), node("a", "end"), node("b", "end"), node("end"))
    run.done(1, "a")
    played = Recording(run.state)
    beyond = played.report(AttemptOrder("b", 2, 0, parents=(("start", 1, b"m" * 32),)))
    assert isinstance(beyond, ev.AttemptSucceeded)
    assert (beyond.next_steps, beyond.manifest) == (("end",), b"m" * 32)
    chooses = Recording(CoreRun(*run.state.graph.nodes.values()).state).report(AttemptOrder("start", 1, 0, parents=(("", 0, b"p" * 32),)))
    assert isinstance(chooses, ev.AttemptFailed)
    assert chooses.error == "evflow.testing.NotRecorded"


def test_what_somebody_had_to_see_to_counts_from_then_on() -> None:
    """The run that is played needs nobody."""
    run = CoreRun(*fan(), on_failure="pause")
    run.done(1, "body", splits=2)
    run.fail(2)
    run.fail(3)
    run.turn(ev.TaskRetryRequested(2))
    run.done(2, "join")
    run.turn(ev.TaskSkipRequested(3))
    run.done(4, "end")
    run.done(5)
    played = Recording(run.state)
    assert all(isinstance(played.report(order(run, task, 0)), ev.AttemptSucceeded) for task in (2, 3))
    assert Lab(played).report.points > 0


def test_a_step_of_a_pool_and_one_with_a_limit_are_played_on_the_one_machine_that_there_is() -> None:
    run = CoreRun(node("start", "end", executor="pool:gpu", limits={"licences": 1}), node("end"))
    run.done(1, "end")
    run.done(2)
    played = Recording(run.state)
    assert [(step.policy.executor, dict(step.policy.limits)) for step in played.graph().nodes.values()] == [("local", {}), ("local", {})]
    assert list(Lab(played).trials(seeds=1, points=2))


def test_a_lab_kills_the_owner_at_points_and_says_how_often_a_body_began() -> None:
    lab = Lab(Recording(finished().state))
    trials = list(lab.trials(seeds=3, points=6))
    assert lab.report.ok
    assert len(trials) == lab.report.trials
    assert {trial.name.partition(" ")[0] for trial in trials} == {"crash", "lost-reply", "kill-attempt", "seed"}
    assert lab.report.ends["succeeded"] > len(trials) // 2
    assert len(trials) <= 3 * 6 + 3
    assert lab.report.again["start"] == 2
    assert sum(lab.report.ends.values()) == len(trials)


def test_a_lab_tells_the_least_that_has_to_go_wrong(monkeypatch: Any) -> None:
    """Whatever does not hold, here that no owner ever died."""
    lab = Lab(Recording(finished().state))

    def check(world: Any) -> None:
        if world.crashes:
            raise Violation("an owner died")

    monkeypatch.setattr("evflow.testing.simulation.shrink.check", check)
    for trial in lab.trials(seeds=40, points=0):
        if trial.problem and trial.name.startswith("seed"):
            break
    story = lab.report.stories[-1]
    assert not lab.report.ok
    assert "an owner died" in story.problem
    assert [fault.kind for fault in story.faults] == ["crash"]
    assert any("ends: Crash" in line for line in story.trace)
    assert story.events
    assert RunId.parse("TestFlow/1").flow == lab.recording.name
