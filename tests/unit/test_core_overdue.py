"""A run that may take only so long."""

from typing import Any

from evflow.core import events as ev
from tests.core_run import SECOND, CoreRun, fan, kinds, node

LIMIT: dict[str, Any] = {"max_run_us": 60 * SECOND}


def test_a_run_that_is_late_has_its_attempts_ended_and_fails_with_the_last_one() -> None:
    run = CoreRun(*fan(), **LIMIT)
    run.done(1, "body", splits=3)
    run.begin(2, 3)
    assert run.state.next_timer_us() == 1_000 * SECOND + 1_000 + 60 * SECOND
    assert run.wait(30 * SECOND) == []
    assert run.wait(30 * SECOND) == [
        ev.RunOverdue(60 * SECOND), ev.AttemptCancelRequested(2, 0, "run-failed"), ev.AttemptCancelRequested(3, 0, "run-failed"),
    ]  # fmt: skip
    assert run.state.next_timer_us() is None
    run.exit(2, signal=15)
    assert kinds(run.exit(3, signal=15)) == ["AttemptCancelled", "RunFailed"]
    assert run.state.outcome is not None
    assert (run.state.outcome.code, run.state.outcome.reason) == ("overdue", "It has not ended within 60 s (--max-run-time).")


def test_a_run_that_only_waits_fails_at_once() -> None:
    run = CoreRun(node("start", "end"), node("end"), **LIMIT)
    assert kinds(run.wait(61 * SECOND)) == ["RunOverdue", "RunFailed"]


def test_a_pause_does_not_stop_the_clock() -> None:
    run = CoreRun(node("start", "end"), node("end"), **LIMIT)
    run.turn(ev.RunPauseRequested("lunch"))
    assert kinds(run.wait(61 * SECOND)) == ["RunOverdue", "RunFailed"]


def test_a_run_that_ends_in_time_has_no_timer_left() -> None:
    run = CoreRun(node("start", "end"), node("end"), **LIMIT)
    run.done(1, "end")
    run.done(2)
    assert run.state.status == "succeeded"
    assert run.wait(100 * SECOND) == []


def test_a_run_without_a_limit_waits_for_ever() -> None:
    assert CoreRun(node("start", "end"), node("end")).wait(10**9 * SECOND) == []
