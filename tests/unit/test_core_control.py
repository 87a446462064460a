"""Pause, resume, retry, skip, priority: what each does, and where it does nothing and says why."""

from typing import Any

import pytest

from evflow.core import events as ev
from evflow.core.control import refusal
from tests.core_run import SECOND, CoreRun, fan, kinds, node

ADA = "test"
"""The principal of `CoreRun`."""


def holding(*nodes: Any, **policy: Any) -> CoreRun:
    """A run that waits with what fails."""
    return CoreRun(*(nodes or (node("start", "middle"), node("middle", "end", **policy), node("end"))), on_failure="pause")


def failed_in_the_middle(**policy: Any) -> CoreRun:
    """Task 2 of three has failed for good."""
    run = holding(**policy)
    run.done(1, "middle")
    run.fail(2)
    return run


# --- pause and resume -----------------------------------------------------------------------------------------------------


def test_a_paused_run_gives_no_slot_and_lets_what_runs_go_on() -> None:
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    run.begin(2)
    assert run.turn(ev.RunPauseRequested("a look at it")) == []
    assert run.state.paused
    assert not run.state.takes_slots
    assert (run.state.phase, run.state.status) == ("paused", "running")
    assert run.state.pause is not None
    assert (run.state.pause.by, run.state.pause.reason, run.state.pause.since_us) == (ADA, "a look at it", run.now)
    run.done(2, "join")
    assert run.task(2).status == "succeeded"
    assert run.turn(ev.RunResumeRequested()) == []
    assert run.state.takes_slots


def test_what_a_paused_run_leads_to_is_queued_and_waits() -> None:
    """Decisions go on; attempts do not start."""
    run = CoreRun(node("start", "end"), node("end"))
    run.begin(1)
    run.turn(ev.RunPauseRequested(""))
    assert kinds(run.done(1, "end")) == ["TasksCreated", "TaskQueued"]
    assert not run.state.takes_slots


def test_a_retry_that_comes_due_in_a_paused_run_is_queued_and_waits() -> None:
    run = CoreRun(node("start", "end", retry_times=1, retry_delay_us=SECOND), node("end"))
    run.fail(1)
    run.turn(ev.RunPauseRequested(""))
    assert kinds(run.wait(2 * SECOND)) == ["TaskQueued"]
    assert not run.state.takes_slots


def test_a_paused_run_can_be_cancelled() -> None:
    run = CoreRun(*fan())
    run.turn(ev.RunPauseRequested(""))
    assert kinds(run.cancel()) == ["RunCancelled"]
    assert not run.state.paused


@pytest.mark.parametrize(
    ("before", "asked", "why"),
    [
        ([ev.RunPauseRequested("")], ev.RunPauseRequested(""), "it is paused already, by test"),
        ([], ev.RunResumeRequested(), "it is not paused"),
        ([], ev.RunPriorityRequested(0), "its priority is 0 already"),
        ([ev.RunCancelRequested("")], ev.RunPauseRequested(""), "the run is over: it was cancelled"),
        ([], ev.TaskRetryRequested(1), "it waits for its first attempt"),
    ],
)
def test_a_request_without_effect_says_why_and_changes_nothing(before: list[ev.Event], asked: ev.Event, why: str) -> None:
    run = CoreRun(*fan())
    run.turn(*before)
    pause, priority, seq = run.state.pause, run.state.priority, run.state.seq
    assert refusal(run.state, asked) == why
    assert run.turn(asked) == []
    assert (run.state.pause, run.state.priority, run.state.seq) == (pause, priority, seq + 1)


def test_a_priority_is_the_one_of_the_start_until_somebody_gives_another() -> None:
    run = CoreRun(*fan(), priority=4)
    assert run.state.priority == 4
    run.turn(ev.RunPriorityRequested(-1))
    assert run.state.priority == -1


# --- what failed is held --------------------------------------------------------------------------------------------------


def test_a_task_without_an_attempt_left_is_held_and_the_run_waits() -> None:
    run = holding()
    run.done(1, "middle")
    assert run.fail(2) == [
        ev.TaskHeld(2, 0, "ValueError: as told"),
        ev.RunPaused("Step 'middle' (task 2) failed: ValueError: as told.", 2, 1),
    ]
    assert (run.state.phase, run.task(2).status, list(run.state.held)) == ("paused", "failed", [2])
    assert not run.state.stopping


def test_other_branches_go_on_to_their_ends_before_the_run_waits() -> None:
    run = CoreRun(*fan(), on_failure="pause")
    run.done(1, "body", splits=3)
    assert kinds(run.fail(2)) == ["TaskHeld"]
    assert not run.state.paused
    assert run.state.takes_slots
    run.done(3, "join")
    assert kinds(run.done(4, "join")) == ["RunPaused"]


def test_retries_come_before_a_task_is_held() -> None:
    run = holding(retry_times=1)
    run.done(1, "middle")
    assert kinds(run.fail(2)) == ["RetryScheduled", "TaskQueued"]
    assert kinds(run.fail(2)) == ["TaskHeld", "RunPaused"]


def test_without_the_wish_to_wait_the_run_fails_as_ever() -> None:
    run = CoreRun(node("start", "end"), node("end"))
    assert kinds(run.fail(1)) == ["TaskFailed", "RunFailed"]


def test_a_task_that_fails_while_the_run_is_cancelled_is_not_held() -> None:
    run = holding()
    run.begin(1)
    run.cancel()
    assert kinds(run.fail(1)) == ["TaskFailed", "RunCancelled"]


# --- retry ----------------------------------------------------------------------------------------------------------------


def test_a_retry_by_request_starts_at_once_and_counts_anew() -> None:
    run = failed_in_the_middle(retry_times=1)
    run.fail(2)
    assert run.turn(ev.TaskRetryRequested(2)) == [ev.TaskQueued(2, 1, 2, "local", "run")]
    assert not run.state.paused
    assert (run.task(2).failures, run.state.steps["middle"].failed, run.task(2).settled_by) == (0, 0, ADA)
    assert kinds(run.fail(2)) == ["RetryScheduled", "TaskQueued"]
    run.done(2, "end")
    assert kinds(run.done(3)) == ["RunSucceeded"]
    assert [attempt.outcome for attempt in run.task(2).attempts] == ["failed", "failed", "failed", "succeeded"]


def test_a_retry_that_fails_again_is_held_again() -> None:
    run = failed_in_the_middle()
    run.turn(ev.TaskRetryRequested(2))
    assert kinds(run.fail(2)) == ["TaskHeld", "RunPaused"]


def test_a_retry_does_not_wait_for_the_delay_of_the_one_that_was_scheduled() -> None:
    run = holding(retry_times=1, retry_delay_us=600 * SECOND)
    run.done(1, "middle")
    run.fail(2)
    assert kinds(run.turn(ev.TaskRetryRequested(2))) == ["TaskQueued"]
    assert kinds(run.wait(700 * SECOND)) == []


def test_a_retry_by_request_runs_the_body_of_a_step_whose_catch_crashed() -> None:
    run = failed_in_the_middle(catch=True)
    run.state.tasks[2].attempt.mode = "catch"
    run.turn(ev.TaskRetryRequested(2))
    assert run.task(2).attempt.mode == "run"


def test_somebody_may_retry_what_must_not_be_retried_by_itself() -> None:
    """`@retry(times=0)` binds evflow, not people."""
    run = holding(retry_explicit=True, retry_times=0)
    run.done(1, "middle")
    assert kinds(run.exit(2, signal=9)) == ["AttemptLost", "TaskHeld", "RunPaused"]
    assert kinds(run.turn(ev.TaskRetryRequested(2))) == ["TaskQueued"]
    assert run.task(2).attempt.mode == "run"


@pytest.mark.parametrize("kind", [ev.TaskRetryRequested, ev.TaskSkipRequested])
def test_what_runs_and_what_is_done_is_neither_retried_nor_skipped(kind: Any) -> None:
    run = holding()
    run.begin(1)
    assert refusal(run.state, kind(1)) == "it runs"
    run.done(1, "middle")
    assert refusal(run.state, kind(1)) == "it succeeded"


# --- skip -----------------------------------------------------------------------------------------------------------------


def test_a_skipped_task_passes_on_what_it_had_got() -> None:
    run = failed_in_the_middle()
    before = run.task(1).manifest
    assert before is not None
    decided = run.turn(ev.TaskSkipRequested(2))
    assert decided[0] == ev.TaskSkipped(2, before, "linear", ("end",))
    assert kinds(decided[1:]) == ["TasksCreated", "TaskQueued"]
    assert (run.task(2).status, run.task(2).manifest, run.task(2).settled_by) == ("skipped", before, ADA)
    assert kinds(run.done(3)) == ["RunSucceeded"]


def test_a_skipped_member_counts_for_its_join() -> None:
    run = CoreRun(*fan(), on_failure="pause")
    run.done(1, "body", splits=2)
    run.fail(2)
    run.done(3, "join")
    decided = run.turn(ev.TaskSkipRequested(2))
    assert kinds(decided) == ["TaskSkipped", "TasksCreated", "TaskQueued"]
    assert run.steps()[-1] == "join"


def test_a_skipped_join_passes_on_what_was_before_its_split() -> None:
    run = CoreRun(*fan(), on_failure="pause")
    run.done(1, "body", splits=1)
    run.done(2, "join")
    run.fail(3)
    decided = run.turn(ev.TaskSkipRequested(3))
    assert isinstance(decided[0], ev.TaskSkipped)
    assert decided[0].manifest == run.task(1).manifest


def test_a_skipped_end_ends_the_run_well() -> None:
    run = holding()
    run.done(1, "middle")
    run.done(2, "end")
    run.fail(3)
    assert kinds(run.turn(ev.TaskSkipRequested(3))) == ["TaskSkipped", "RunSucceeded"]


def test_all_branches_of_a_skipped_split_begin() -> None:
    run = holding(node("start", "a", "b"), node("a", "join"), node("b", "join"), node("join", "end"), node("end"))
    run.fail(1)
    run.turn(ev.TaskSkipRequested(1))
    assert run.steps() == ["start", "a", "b"]


def test_a_step_that_chooses_is_skipped_to_a_step() -> None:
    run = holding(node("start", "a", "b", kind="switch"), node("a", "end"), node("b", "end"), node("end"))
    run.fail(1)
    assert refusal(run.state, ev.TaskSkipRequested(1)) == "step 'start' leads to one of a, b, and only its body knows to which"
    assert refusal(run.state, ev.TaskSkipRequested(1, "end")) == "step 'start' does not lead to 'end'; it leads to a, b"
    run.turn(ev.TaskSkipRequested(1, "b"))
    assert run.steps() == ["start", "b"]


def test_a_step_that_makes_a_foreach_is_not_skipped() -> None:
    run = CoreRun(*fan(), on_failure="pause")
    run.fail(1)
    assert refusal(run.state, ev.TaskSkipRequested(1)) == "step 'start' makes a foreach, and only its body knows over what"
    assert run.turn(ev.TaskSkipRequested(1)) == []
    assert run.state.paused


def test_a_task_that_waits_for_a_slot_is_skipped_without_ever_starting() -> None:
    run = CoreRun(*fan())
    run.done(1, "body", splits=2)
    run.turn(ev.TaskSkipRequested(2))
    assert list(run.state.waiting) == [3]
    run.done(3, "join")
    assert run.steps()[-1] == "join"


def test_a_late_result_of_a_skipped_task_has_no_effect() -> None:
    run = failed_in_the_middle()
    late = run.success(2, "end")
    run.turn(ev.TaskSkipRequested(2))
    run.turn(late)
    assert (run.task(2).status, run.state.late) == ("skipped", 1)


def test_a_skip_and_a_cancel_in_one_turn_leave_nothing_undecided() -> None:
    run = failed_in_the_middle()
    assert kinds(run.turn(ev.TaskSkipRequested(2), ev.RunCancelRequested("enough"))) == ["TaskSkipped", "RunCancelled"]
    assert run.task(2).status == "skipped"


def test_a_run_of_an_earlier_version_can_be_paused_and_not_repaired() -> None:
    """Its decisions stay those of then."""
    run = failed_in_the_middle()
    run.state.logic = 1
    assert refusal(run.state, ev.TaskRetryRequested(2)) == "the run was begun by an earlier evflow, which cannot do that"
    assert refusal(run.state, ev.RunPauseRequested("")) == ""
