"""What follows when an attempt did not succeed: another one, or the task's failure.

Three rules meet here. `@retry` allows a number of further attempts after failures of the task itself.
An attempt that was lost (its worker, host or owner died) is made again without counting, at most
`MAX_LOSSES` times, unless the flow's author wrote `@retry(times=0)`: then the task must not run twice, and
fails. `@catch` applies when the body is not run again: to an exception inside the worker, which then
reports a success; to a crash or a loss by one more attempt that only records it.
"""

from typing import Literal

from evflow.core import events as ev
from evflow.core.gangs import culprit_of, gang_of, lead_of
from evflow.core.graph import Policy
from evflow.core.state import RunState, Task

MAX_LOSSES = 3
"""How often a task is started again after lost attempts."""

WORKER_LOST = "worker-lost: "
"""How the reason begins of an attempt whose worker died; the worker's name follows."""

MAX_DELAY_US = 10 * 365 * 86_400 * 1_000_000
"""The longest wait, ten years: `backoff` grows without a bound of its own."""

_NOT_CAUGHT_BY_THE_WORKER = ("crashed", "timed-out")


def after_failure(state: RunState, task: Task, now: int) -> ev.Decision:
    """Decide on a task whose current attempt ended without a result; on a gang, of which it is the first node, by the node that ended it."""
    culprit = culprit_of(state, task)
    decision = _another_or_failure(state, culprit, now)
    gang = gang_of(task)
    if gang is not None and isinstance(decision, ev.RetryScheduled):
        assert culprit.frame is not None
        reason = f"node {culprit.frame.index} (task {culprit.id}): {decision.reason}"
        return ev.RetryScheduled(lead_of(task), decision.attempt, decision.at_us, decision.counted, reason, gang.size)
    if isinstance(decision, ev.TaskFailed) and state.holds:
        return ev.TaskHeld(decision.task, decision.attempt, decision.reason)
    return decision


def _another_or_failure(state: RunState, task: Task, now: int) -> ev.Decision:
    attempt = task.attempt
    policy = state.graph[task.step].policy
    lost = attempt.outcome == "lost"
    if state.stopping or not attempt.retryable:
        return _fail(task)
    if lost and next_mode(task, policy) == "catch" and attempt.mode == "run":
        return ev.RetryScheduled(task.id, attempt.number + 1, now, False, _reason(task))
    if lost and _must_not_run_twice(policy):
        hint = "@retry(times=0) forbids another attempt. Resume the run if it is safe to run the step again."
        return _fail(task, hint)
    if lost and task.losses > MAX_LOSSES:
        hint = _quarantined(task) or f"Its worker died {task.losses} times; does the step need more memory than the machine has?"
        return _fail(task, hint)
    if lost:
        return ev.RetryScheduled(task.id, attempt.number + 1, now, False, _reason(task))
    if task.failures <= policy.retry_times:
        at_us = now + delay_us(policy, task.failures, float(state.options.get("retry_scale", 1)))
        return ev.RetryScheduled(task.id, attempt.number + 1, at_us, True, _reason(task))
    if policy.catch and attempt.mode == "run" and _crashed(task):
        return ev.RetryScheduled(task.id, attempt.number + 1, now, True, _reason(task))
    return _fail(task)


def delay_us(policy: Policy, failures: int, scale: float) -> int:
    """The wait before the attempt after the `failures`-th failure, from 1; exponential with a bound.

    Multiplied step by step, since a power may differ in its last bit from one machine's library to another's.
    """
    delay = float(policy.retry_delay_us)
    for _ in range(failures - 1):
        if policy.retry_backoff == 1 or not 0 < delay < MAX_DELAY_US:
            break
        delay *= policy.retry_backoff
    if policy.retry_max_delay_us:
        delay = min(delay, policy.retry_max_delay_us)
    delay *= scale
    return int(max(delay, 0)) if delay < MAX_DELAY_US else MAX_DELAY_US


def next_mode(task: Task, policy: Policy) -> Literal["run", "catch"]:
    """What the attempt after the current one is for, if there is one: to run the body, or to record its end for `@catch`.

    It follows from the state alone: it is asked when the attempt is scheduled, and again when its time has come.
    """
    if not policy.catch or (task.renewed and task.renewed == task.attempt.number + 1):
        return "run"  # The second: somebody asked for it.
    if task.attempt.mode == "catch" or task.failures > policy.retry_times:
        return "catch"
    given_up = task.losses > MAX_LOSSES or _must_not_run_twice(policy)
    return "catch" if task.attempt.outcome == "lost" and given_up else "run"


def _quarantined(task: Task) -> str:
    """What is said of a task that is kept from killing worker after worker of its pool; nothing where no worker died with it."""
    workers = [attempt.kind.removeprefix(WORKER_LOST) for attempt in task.attempts if attempt.kind.startswith(WORKER_LOST)]
    if not workers:
        return ""
    named = ", ".join(dict.fromkeys(workers))
    return f"It is quarantined: {len(workers)} attempts of it ended with the death of their worker ({named})."


def _must_not_run_twice(policy: Policy) -> bool:
    return policy.retry_explicit and policy.retry_times == 0


def is_last(task: Task, policy: Policy) -> bool:
    """Whether the task's current attempt is the last that `@retry` allows, so that `@catch` applies to it."""
    return task.failures >= policy.retry_times


def _crashed(task: Task) -> bool:
    return task.attempt.outcome in _NOT_CAUGHT_BY_THE_WORKER or task.attempt.kind == "exit"


def _reason(task: Task) -> str:
    attempt = task.attempt
    if attempt.error:
        return f"{attempt.error}: {attempt.message}"[:300] if attempt.message else attempt.error
    return attempt.message[:300]


def _fail(task: Task, hint: str = "") -> ev.TaskFailed:
    where = f" ({task.attempt.where})" if task.attempt.where else ""
    reason = f"{_reason(task)}{where}"
    return ev.TaskFailed(task.id, task.attempt.number, f"{reason} {hint}".strip())
