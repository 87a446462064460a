"""What follows when an attempt did not succeed: retries, losses, @catch, timeouts. All rules as tables."""

from typing import Any

import pytest

from evflow.core import events as ev
from evflow.core.apply import HARD_TIMEOUT_GRACE_US
from evflow.core.graph import Policy
from evflow.core.retry import MAX_DELAY_US, MAX_LOSSES, delay_us
from evflow_scheduler.orders import order_of
from tests.core_run import SECOND, CoreRun, fan, kinds, node


def one(**policy: Any) -> CoreRun:
    """A run whose first step has this policy; its attempt is running."""
    run = CoreRun(node("start", "end", **policy), node("end"))
    run.begin(1)
    return run


def scheduled(decided: list[ev.Event]) -> ev.RetryScheduled:
    """The retry among the decisions."""
    (found,) = (event for event in decided if isinstance(event, ev.RetryScheduled))
    return found


# --- @retry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0, 1, 3, 7])
def test_a_step_has_one_attempt_more_than_it_has_retries(times: int) -> None:
    """Then the task fails, and the run with it. There is no cap of four."""
    run = one(retry_times=times, retry_explicit=True)
    for _ in range(times):
        assert kinds(run.fail(1)) == ["RetryScheduled", "TaskQueued"]
    assert run.fail(1) == [
        ev.TaskFailed(1, times, "ValueError: as told"),
        ev.RunFailed("task-failed", "Step 'start' (task 1) failed: ValueError: as told", 1),
    ]
    assert len(run.task(1).attempts) == times + 1


def test_a_retry_waits_and_is_queued_when_its_time_has_come() -> None:
    """Not a moment before; the wait is a timer in the log."""
    run = one(retry_times=1, retry_delay_us=120 * SECOND)
    retry = scheduled(run.fail(1))
    assert retry.at_us == run.now + 120 * SECOND
    assert run.state.next_timer_us() == retry.at_us
    assert run.task(1).status == "retrying"
    assert run.wait(120 * SECOND - 1) == []
    assert run.wait(1) == [ev.TaskQueued(1, 1, 1, "local", "run")]
    assert run.state.next_timer_us() is None


@pytest.mark.parametrize(("logic", "line"), [(4, [4, 5, 6, 2, 3]), (5, [3, 2, 4, 5, 6])])
def test_what_is_tried_again_comes_before_what_was_never_tried(logic: int, line: list[int]) -> None:
    """A mistake that all items make is seen after a few of them; runs that are older fold as they did."""
    run = CoreRun(*fan(node("body", "join", retry_times=1, retry_explicit=True)), logic=logic)
    run.done(1, "body", splits=5)
    run.begin(2, 3)
    run.fail(2)
    run.fail(3)
    assert list(run.state.waiting) == list(run.state.lines["local"]) == line


@pytest.mark.parametrize(("scale", "waits_s"), [(1.0, [10, 20, 40, 60, 60]), (0.5, [5, 10, 20, 30, 30]), (0, [0] * 5)])
def test_waits_grow_by_the_factor_up_to_the_bound_and_scale_as_a_whole(scale: float, waits_s: list[int]) -> None:
    """`backoff`, `max_minutes`, `EVFLOW_RETRY_SCALE`."""
    policy = Policy(retry_times=5, retry_delay_us=10 * SECOND, retry_backoff=2.0, retry_max_delay_us=60 * SECOND)
    assert [delay_us(policy, failures, scale) for failures in range(1, 6)] == [wait * SECOND for wait in waits_s]


@pytest.mark.parametrize("scale", [1.0, 1e308, float("inf"), float("nan")])
def test_a_wait_that_grows_without_bound_ends_at_ten_years(scale: float) -> None:
    """The 2,000th retry must not bring down the scheduler."""
    policy = Policy(retry_times=5_000, retry_delay_us=SECOND, retry_backoff=10.0)
    assert delay_us(policy, 2_000, scale) == MAX_DELAY_US


def test_a_negative_wait_is_none() -> None:
    """Whatever made it."""
    assert delay_us(Policy(retry_delay_us=SECOND), 1, -1.0) == 0


def test_a_failure_that_says_so_is_not_retried() -> None:
    """`retryable=False`."""
    run = one(retry_times=3)
    assert kinds(run.fail(1, retryable=False)) == ["TaskFailed", "RunFailed"]


def test_the_reason_says_where_in_the_users_code() -> None:
    """`file:line`."""
    run = one()
    (failed, _) = run.fail(1, where="flow.py:12")
    assert failed == ev.TaskFailed(1, 0, "ValueError: as told (flow.py:12)")


# --- lost attempts ----------------------------------------------------------------------------------------

EXITS = [
    # exit code, signal, why -> decision
    (None, 9, "", ev.AttemptLost(1, 0, "killed (signal 9); out of memory?")),
    (None, None, "owner-died", ev.AttemptLost(1, 0, "owner-died")),
    (None, None, "fork-server-died", ev.AttemptLost(1, 0, "fork-server-died")),
    (None, None, "never-started", ev.AttemptLost(1, 0, "never-started")),
    (1, None, "out-of-memory", ev.AttemptLost(1, 0, "out-of-memory")),
    (0, None, "", ev.AttemptLost(1, 0, "ended as if reported, but the log's server has no report; did it lose its tail?")),
    (3, None, "", ev.AttemptCrashed(1, 0, "Its process exited with code 3 and without a report.")),
    (None, 11, "", ev.AttemptCrashed(1, 0, "Its process was ended by signal 11 (segmentation fault).")),
    (None, 6, "", ev.AttemptCrashed(1, 0, "Its process was ended by signal 6 (abort).")),
    (None, 15, "", ev.AttemptCrashed(1, 0, "Its process was ended by signal 15.")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "signal", "why", "meaning"), EXITS)
def test_an_exit_without_a_report_gets_its_meaning(code: int | None, signal: int | None, why: str, meaning: ev.Event) -> None:
    """What nobody's code did is a loss, the rest a crash."""
    assert one(retry_times=1).exit(1, code=code, signal=signal, why=why)[0] == meaning


def test_a_lost_attempt_is_made_again_at_once_and_does_not_count() -> None:
    """Even where no retry is allowed."""
    run = one(retry_delay_us=60 * SECOND)
    decided = run.exit(1, why="owner-died")
    assert kinds(decided) == ["AttemptLost", "RetryScheduled", "TaskQueued"]
    assert not scheduled(decided).counted
    assert (run.task(1).failures, run.task(1).losses) == (0, 1)


def test_a_task_is_made_again_three_times_after_losses_and_then_fails() -> None:
    """With the question that comes to mind."""
    run = one()
    for _ in range(MAX_LOSSES):
        assert kinds(run.exit(1, signal=9)) == ["AttemptLost", "RetryScheduled", "TaskQueued"]
        run.begin(1)
    (_, failed, _) = run.exit(1, signal=9)
    assert isinstance(failed, ev.TaskFailed)
    assert failed.reason.endswith("Its worker died 4 times; does the step need more memory than the machine has?")


def test_a_task_that_killed_its_workers_is_quarantined_and_they_are_named() -> None:
    """Once each, and only those that died."""
    run = one()
    for why in ("worker-lost: gpu1:7:ab", "owner-died", "worker-lost: gpu2:8:cd"):
        assert kinds(run.exit(1, why=why)) == ["AttemptLost", "RetryScheduled", "TaskQueued"]
        run.begin(1)
    (_, failed, _) = run.exit(1, why="worker-lost: gpu1:7:ab")
    assert isinstance(failed, ev.TaskFailed)
    assert failed.reason.endswith("It is quarantined: 3 attempts of it ended with the death of their worker (gpu1:7:ab, gpu2:8:cd).")


def test_losses_and_failures_are_counted_apart() -> None:
    """Three losses between two failures of a step that has two retries."""
    run = one(retry_times=2, retry_explicit=True)
    for lost in (True, False, True, False, True):
        if lost:
            run.exit(1, signal=9)
        else:
            run.fail(1)
        run.begin(1)
    assert (run.task(1).failures, run.task(1).losses) == (2, 3)
    assert kinds(run.fail(1)) == ["TaskFailed", "RunFailed"]


def test_a_step_that_must_not_run_twice_does_not() -> None:
    """An explicit `@retry(times=0)`."""
    run = one(retry_times=0, retry_explicit=True)
    (_, failed, _) = run.exit(1, signal=9)
    assert isinstance(failed, ev.TaskFailed)
    assert "@retry(times=0) forbids another attempt. Resume the run if it is safe to run the step again." in failed.reason


# --- @catch -----------------------------------------------------------------------------------------------


def last(run: CoreRun) -> bool:
    """Whether the worker is told that @catch applies to this attempt."""
    return order_of(run.state, run.task(1)).last


def test_catch_applies_to_the_last_attempt_only() -> None:
    """The worker is told which one it is; losses do not make it come sooner."""
    run = one(retry_times=2, catch=True)
    assert not last(run)
    run.fail(1)
    run.begin(1)
    run.exit(1, signal=9)
    run.begin(1)
    assert not last(run)
    run.fail(1)
    run.begin(1)
    assert last(run)


def test_a_caught_exception_is_a_success_with_a_note() -> None:
    """The run goes on."""
    run = one(catch=True)
    run.turn(run.success(1, "end", caught="builtins.ValueError: nope"))
    assert run.task(1).status == "succeeded"
    assert run.task(1).caught == "builtins.ValueError: nope"
    assert run.steps() == ["start", "end"]


@pytest.mark.parametrize(("code", "signal"), [(3, None), (None, 11)])
def test_a_crash_under_catch_is_recorded_by_one_more_attempt(code: int | None, signal: int | None) -> None:
    """It runs no code of the step."""
    run = one(retry_times=1, catch=True)
    run.exit(1, code=code, signal=signal)
    assert run.task(1).attempt.mode == "run"
    run.begin(1)
    assert kinds(run.exit(1, code=code, signal=signal)) == ["AttemptCrashed", "RetryScheduled", "TaskQueued"]
    assert run.task(1).attempt.mode == "catch"
    order = order_of(run.state, run.task(1))
    assert order.mode == "catch"
    assert "Its process" in order.crash


def test_a_recording_attempt_that_is_lost_is_made_again_as_such() -> None:
    """The step's own code is not run beyond its retries."""
    run = one(catch=True)
    run.exit(1, signal=11)
    run.begin(1)
    run.exit(1, signal=9)
    assert [attempt.mode for attempt in run.task(1).attempts] == ["run", "catch", "catch"]


def test_a_recording_attempt_that_crashes_itself_fails_the_task() -> None:
    """No endless series."""
    run = one(catch=True)
    run.exit(1, signal=11)
    run.begin(1)
    assert kinds(run.exit(1, signal=11)) == ["AttemptCrashed", "TaskFailed", "RunFailed"]


def test_the_last_loss_under_catch_is_recorded_by_one_more_attempt() -> None:
    """What the kernel kills for its memory is the step's end, too: losses run out, then @catch takes it."""
    run = one(retry_times=1, catch=True)
    for _ in range(MAX_LOSSES):
        run.exit(1, signal=9)
        assert run.task(1).attempt.mode == "run"
        run.begin(1)
    decided = run.exit(1, signal=9)
    assert kinds(decided) == ["AttemptLost", "RetryScheduled", "TaskQueued"]
    assert not scheduled(decided).counted
    order = order_of(run.state, run.task(1))
    assert (order.mode, order.crash) == ("catch", "killed (signal 9); out of memory?")
    run.begin(1)
    assert kinds(run.exit(1, signal=9)) == ["AttemptLost", "TaskFailed", "RunFailed"], "no endless series"


def test_the_loss_of_a_step_that_must_not_run_twice_is_recorded_at_once() -> None:
    """An explicit `@retry(times=0)` forbids the body, not the record of its end."""
    run = one(retry_times=0, retry_explicit=True, catch=True)
    assert kinds(run.exit(1, signal=9)) == ["AttemptLost", "RetryScheduled", "TaskQueued"]
    assert run.task(1).attempt.mode == "catch"
    run.begin(1)
    run.turn(run.success(1, "end", caught="killed"))
    assert run.steps() == ["start", "end"]


def test_catch_does_not_hide_that_the_worker_could_not_even_load_the_flow() -> None:
    """What the worker reports as failed although it is the last attempt was not caught there, so it is not caught."""
    assert kinds(one(catch=True).fail(1, kind="load")) == ["TaskFailed", "RunFailed"]


# --- @timeout ---------------------------------------------------------------------------------------------

LIMIT = 5 * SECOND


def test_an_attempt_over_its_limit_is_killed_after_ten_more_seconds() -> None:
    """Its own worker tries first."""
    run = one(timeout_us=LIMIT)
    assert run.state.next_timer_us() == run.now + LIMIT + HARD_TIMEOUT_GRACE_US
    assert run.wait(LIMIT + HARD_TIMEOUT_GRACE_US - 1) == []
    assert run.wait(1) == [ev.AttemptCancelRequested(1, 0, "timeout")]
    assert run.wait(SECOND) == [], "it is asked once"
    assert run.exit(1, signal=9)[0] == ev.AttemptTimedOut(1, 0, LIMIT)
    assert run.task(1).reason == "It did not end within its limit of 5 s and was killed."


def test_a_timeout_counts_as_a_failure_and_is_retried_and_caught() -> None:
    """As any exception."""
    run = one(timeout_us=LIMIT, retry_times=1, catch=True)
    for mode in ("run", "catch"):
        run.wait(LIMIT + HARD_TIMEOUT_GRACE_US)
        assert kinds(run.exit(1, signal=9)) == ["AttemptTimedOut", "RetryScheduled", "TaskQueued"]
        assert run.task(1).attempt.mode == mode
        run.begin(1)


def test_a_result_in_the_turn_in_which_the_limit_passes_counts() -> None:
    """The fact stands before the decision, which then has nothing to decide."""
    run = one(timeout_us=LIMIT)
    decided = run.turn(run.success(1, "end"), later_us=LIMIT + HARD_TIMEOUT_GRACE_US)
    assert kinds(decided) == ["TasksCreated", "TaskQueued"]


def test_a_result_between_the_kill_and_the_death_counts() -> None:
    """It is a result, and there is one."""
    run = one(timeout_us=LIMIT)
    run.wait(LIMIT + HARD_TIMEOUT_GRACE_US)
    run.turn(run.success(1, "end"))
    assert run.task(1).status == "succeeded"


def test_a_timer_of_an_attempt_that_is_over_never_fires() -> None:
    """Nor wakes anybody once it is at the head."""
    run = one(timeout_us=LIMIT, retry_times=1)
    run.fail(1)
    assert run.state.next_timer_us() is None
    run.begin(1)
    run.turn(run.success(1, "end"))
    assert run.wait(LIMIT + HARD_TIMEOUT_GRACE_US) == []


def test_each_attempt_has_the_whole_limit() -> None:
    """It counts from its own start."""
    run = one(timeout_us=LIMIT, retry_times=1)
    run.wait(LIMIT)
    run.fail(1)
    run.begin(1)
    assert run.wait(LIMIT + HARD_TIMEOUT_GRACE_US - 1) == []
    assert kinds(run.wait(1)) == ["AttemptCancelRequested"]


# --- late reports -----------------------------------------------------------------------------------------


def test_a_report_of_an_attempt_that_was_given_up_has_no_effect() -> None:
    """It stands in the log and is counted."""
    run = one()
    late = run.success(1, "end")
    run.exit(1, why="owner-died")
    assert run.turn(late) == []
    run.begin(1)
    assert run.turn(late) == []
    assert (run.task(1).status, run.state.late) == ("running", 2)
    assert kinds(run.done(1, "end")) == ["TasksCreated", "TaskQueued"]


def test_the_second_of_two_reports_has_no_effect() -> None:
    """One accepted result per task, whichever came first."""
    run = one()
    failed = ev.AttemptFailed(1, 0, "exception", "ValueError", "late")
    assert kinds(run.turn(run.success(1, "end"), failed, run.success(1, "nowhere"))) == ["TasksCreated", "TaskQueued"]
    assert run.state.late == 2


@pytest.mark.parametrize("attempt", [-1, 1, 7, 2**40])
def test_a_report_of_an_attempt_that_never_was_has_no_effect(attempt: int) -> None:
    """Whatever number it names."""
    run = one()
    assert run.turn(ev.AttemptFailed(1, attempt, "exception", "E", "m"), ev.AttemptExited(1, attempt, 0, None)) == []
    assert run.state.late == 2


def test_a_report_of_a_task_that_only_waits_has_no_effect() -> None:
    """It cannot have run."""
    run = CoreRun(node("start", "end"), node("end"))
    assert run.turn(run.success(1, "end")) == []
    assert run.task(1).status == "queued"
