"""Cancelling: everything ends, nothing starts, and the reason stands."""

from typing import Any

from evflow.core import events as ev
from tests.core_run import SECOND, CoreRun, fan, kinds, node


def running(count: int = 3, **policy: Any) -> CoreRun:
    """A foreach of which two members run and the others wait."""
    run = CoreRun(*fan(node("body", "join", **policy)))
    run.done(1, "body", splits=count)
    run.begin(2, 3)
    return run


def test_a_run_in_which_nothing_runs_is_cancelled_at_once() -> None:
    """What waits never starts."""
    run = CoreRun(*fan())
    assert run.cancel() == [ev.RunCancelled("Ctrl-C")]
    assert run.state.status == "cancelled"


def test_what_runs_is_asked_to_end_and_the_run_ends_with_the_last_one() -> None:
    """In this order."""
    run = running()
    assert run.cancel() == [ev.AttemptCancelRequested(2, 0, "run-cancelled"), ev.AttemptCancelRequested(3, 0, "run-cancelled")]
    assert kinds(run.exit(2, signal=15)) == ["AttemptCancelled"]
    assert kinds(run.exit(3, signal=9)) == ["AttemptCancelled", "RunCancelled"]
    assert [run.task(task).status for task in (2, 3)] == ["cancelled", "cancelled"]


def test_a_cancelled_attempt_is_neither_retried_nor_caught() -> None:
    """Whatever its step asks for."""
    run = running(2, retry_times=3, catch=True)
    run.cancel()
    assert kinds(run.fail(2)) == ["TaskFailed"]
    assert kinds(run.exit(3, code=1)) == ["AttemptCancelled", "RunCancelled"]
    assert run.state.outcome is not None
    assert run.state.outcome.code == "cancelled"


def test_a_result_that_comes_while_the_run_is_being_cancelled_counts_and_leads_nowhere() -> None:
    """So that a resume can take it over."""
    run = running(2)
    run.cancel()
    run.turn(run.success(2, "join"))
    assert kinds(run.turn(run.success(3, "join"))) == ["RunCancelled"]
    assert [run.task(task).status for task in (2, 3)] == ["succeeded", "succeeded"]
    assert "join" not in run.steps()


def test_a_task_that_waits_for_its_retry_is_not_started_any_more() -> None:
    """And its timer wakes nobody."""
    run = CoreRun(node("start", "end", retry_times=1, retry_delay_us=60 * SECOND), node("end"))
    run.fail(1)
    assert run.cancel() == [ev.RunCancelled("Ctrl-C")]
    assert run.state.next_timer_us() is None


def test_a_slot_granted_in_the_turn_of_the_request_is_given_back() -> None:
    """Nothing is launched."""
    run = CoreRun(node("start", "end"), node("end"))
    decided = run.turn(ev.SlotGranted(1, 0, 0), ev.RunCancelRequested("Ctrl-C"))
    assert decided == [ev.AttemptCancelled(1, 0, "run-cancelled"), ev.RunCancelled("Ctrl-C")]
    assert run.state.live == {}


def test_a_forced_request_kills_what_did_not_end() -> None:
    """The second Ctrl-C."""
    run = running(2)
    run.cancel()
    run.exit(2, signal=15)
    assert run.cancel(forced=True) == [ev.AttemptCancelRequested(3, 0, "killed")]
    assert run.cancel() == []


def test_a_first_request_may_be_forced() -> None:
    """`evflow cancel --force`."""
    run = running(2)
    assert run.cancel(forced=True) == [ev.AttemptCancelRequested(2, 0, "killed"), ev.AttemptCancelRequested(3, 0, "killed")]


def test_a_second_request_changes_neither_reason_nor_outcome() -> None:
    """Unless it is forced, it is only recorded."""
    run = running(2)
    run.cancel()
    assert run.turn(ev.RunCancelRequested("somebody else")) == []
    assert run.state.cancelling == "Ctrl-C"


def test_a_run_that_fails_stays_failed_though_somebody_cancels_it_then() -> None:
    """Why it failed is worth more than that somebody gave up waiting; a forced request still hurries it."""
    run = running(2)
    run.fail(2)
    assert run.cancel() == []
    assert run.cancel(forced=True) == [ev.AttemptCancelRequested(3, 0, "killed")]
    assert kinds(run.exit(3, signal=9)) == ["AttemptCancelled", "RunFailed"]
    assert run.state.outcome is not None
    assert run.state.outcome.code == "task-failed"


def test_a_failure_in_the_turn_of_the_request_does_not_change_what_was_asked() -> None:
    """The request stood first."""
    run = running(2)
    run.turn(ev.RunCancelRequested("Ctrl-C"), ev.AttemptFailed(2, 0, "exception", "E", "m"))
    assert kinds(run.exit(3, signal=15)) == ["AttemptCancelled", "RunCancelled"]


def test_a_request_after_the_end_changes_nothing() -> None:
    """Before the seal it stands in the log."""
    run = CoreRun(node("start", "end"), node("end"))
    run.done(1, "end")
    run.done(2)
    assert run.cancel() == []
    assert run.cancel(forced=True) == []
    assert run.state.status == "succeeded"
    assert run.state.cancelling is None


def test_a_late_result_after_the_end_changes_nothing() -> None:
    """Nor does an exit."""
    run = running(2)
    late = run.success(2, "join")
    run.cancel()
    run.exit(2, signal=15)
    run.exit(3, signal=15)
    assert run.turn(late, ev.AttemptExited(3, 0, None, 9)) == []
    assert run.state.late == 2
