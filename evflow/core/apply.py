"""Fold one event into the state: the only place that writes a `RunState`.

Each event costs O(1), but for `TasksCreated`, which costs one step for each task that it creates. The
state is changed in place: copying it per event would make a run's cost quadratic in its length.

Events arrive in two ways, and both go through here: live, in the turn that is about to be appended, and
from a log. What a released version folds, every later version folds in the same way.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappush
from sys import intern
from typing import Any, TypeVar

from evflow.core import control, creation, events as ev, gangs
from evflow.core.codec import Record, fields_of
from evflow.core.frames import arrive, breach, tasks_of
from evflow.core.graph import Graph
from evflow.core.state import Attempt, Ending, Pause, RunState, Task
from evflow.errors import InternalError

_Item = TypeVar("_Item")

RETRIES_FIRST_SINCE = 5
"""From this version of the decisions on what is tried again waits before what was never tried."""

HARD_TIMEOUT_GRACE_US = 10_000_000
"""How long after the limit an attempt may still end by itself before its group is killed."""


class ImpossibleEvent(InternalError):
    """The event cannot follow what stands before it: the log was not written by evflow, or by a later version."""

    code = "impossible-event"

    def __init__(self, seq: int, event: ev.Event, why: str) -> None:
        super().__init__(f"Event {seq} ({type(event).__name__}) cannot stand here: {why}.")
        self.seq = seq


def apply(state: RunState, record: Record) -> None:
    """Fold the next event of the run's log.

    Raises:
        ImpossibleEvent: It cannot follow: a gap, an unknown task, anything behind the seal.
    """
    event, seq = record.event, record.seq
    if seq != state.seq + 1:
        raise ImpossibleEvent(seq, event, f"the event before it is {state.seq}")
    if state.sealed:
        raise ImpossibleEvent(seq, event, "the run is sealed")
    if seq == 1 and not isinstance(event, ev.RunStarted):
        raise ImpossibleEvent(seq, event, "the first event is RunStarted")
    state.seq = seq
    state.turn = record.turn
    state.at_us = record.at_us
    state.by = record.principal
    try:
        _FOLDS[type(event)](state, event)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        why = f"its values do not fit the state ({type(error).__name__}: {error})"
        raise ImpossibleEvent(record.seq, event, why) from error


def _run_started(state: RunState, event: ev.RunStarted) -> None:
    if state.status != "new":
        raise ImpossibleEvent(state.seq, event, "the run has started already")
    state.header = fields_of(event)
    state.flow, state.number, state.logic = event.flow, event.number, event.logic
    state.options = _options(event)
    state.budget = state.options.get("task_budget", state.budget)
    state.priority = state.options.get("priority", 0)
    state.graph = Graph.from_plain(event.graph)
    state.status = "running"
    state.started_us = state.at_us
    state.tasks.append(Task(0, "_parameters", 0, None, {}, state.at_us, "succeeded"))
    state.tasks[0].manifest = event.parameters
    state.tasks[0].next_kind, state.tasks[0].next_steps = "linear", (state.graph.start,)
    state.agenda.routes.append(0)
    state.agenda.asked[0] = state.seq
    state.agenda.promised = 1
    if state.options.get("max_run_us"):
        heappush(state.agenda.timers, (state.at_us + state.options["max_run_us"], 0, 0, "run"))


def _options(event: ev.RunStarted) -> dict[str, Any]:
    """The options, of which those that decisions depend on are of the right type."""
    for name, kinds in (
        ("max_splits", (int,)),
        ("task_budget", (int,)),
        ("retry_scale", (int, float)),
        ("priority", (int,)),
        ("max_run_us", (int,)),
    ):
        if name in event.options and type(event.options[name]) not in kinds:
            raise ValueError(f"the option {name} is {event.options[name]!r}")
    return event.options


def _run_continued(state: RunState, event: ev.RunContinued) -> None:
    del event
    state.owners += 1


def _log_regressed(state: RunState, event: ev.LogRegressed) -> None:
    del event
    state.regressions += 1


def _run_cancel_requested(state: RunState, event: ev.RunCancelRequested) -> None:
    if state.over:
        return
    if event.forced and state.stopping:
        state.forced = True
        state.agenda.cancels.update(state.live)
        state.agenda.stopped = state.seq
    elif state.failing is not None:
        return  # It is ending already, and why stands: what failed is worth more than that somebody then gave up.
    elif state.cancelling is None:
        state.cancelling = event.reason
        state.forced = event.forced
        _stop(state)


def _run_paused(state: RunState, event: ev.RunPaused) -> None:
    if not state.held or state.live or state.waiting or state.stuck is not None:
        raise ImpossibleEvent(state.seq, event, "nothing keeps the run from going on")
    state.stuck = Pause(state.by, state.at_us, event.reason)


def _run_succeeded(state: RunState, event: ev.RunSucceeded) -> None:
    if state.stopping or _task(state, event, event.task).next_kind != "end":
        raise ImpossibleEvent(state.seq, event, f"task {event.task} did not end the run")
    _take(state, event, state.agenda.routes, event.task)
    state.agenda.asked.pop(event.task, None)
    _finish(state, "succeeded")


def _run_overdue(state: RunState, event: ev.RunOverdue) -> None:
    _fail(state, Ending("overdue", f"It has not ended within {event.limit_us / 1e6:g} s (--max-run-time)."))


def _run_failed(state: RunState, event: ev.RunFailed) -> None:
    _ends(state, event, state.failing is not None)
    state.outcome = Ending(event.code, event.reason, event.task)
    _finish(state, "failed")


def _run_cancelled(state: RunState, event: ev.RunCancelled) -> None:
    _ends(state, event, state.cancelling is not None)
    state.outcome = Ending("cancelled", event.reason)
    _finish(state, "cancelled")


def _ends(state: RunState, event: ev.Event, asked: bool) -> None:
    if state.over or not asked:
        raise ImpossibleEvent(state.seq, event, "nothing asked for the run's end")
    if state.live:
        raise ImpossibleEvent(state.seq, event, f"task {next(iter(state.live))} is still running")


def _run_sealed(state: RunState, event: ev.RunSealed) -> None:
    if not state.over:
        raise ImpossibleEvent(state.seq, event, "the run is not over")
    state.sealed = True


def _tasks_created(state: RunState, event: ev.TasksCreated) -> None:
    if event.first != state.next_task:
        raise ImpossibleEvent(state.seq, event, f"the next task is {state.next_task}")
    parent = _task(state, event, event.parent, parameters=True)
    if not creation.is_asked_for(state, parent, event):
        raise ImpossibleEvent(state.seq, event, "no transition leads to these tasks")
    creation.create(state, parent, event)


def _task_queued(state: RunState, event: ev.TaskQueued) -> None:
    first = _task(state, event, event.task)
    if first.status == "created":
        _take(state, event, state.agenda.created, (event.task, event.count))
    elif first.status != "retrying" or event.count != len(gangs.nodes_of(state, first)) or event.attempt != first.attempt.number + 1:
        raise ImpossibleEvent(state.seq, event, f"task {first.id} is {first.status}")
    state.agenda.asked.pop(event.task, None)
    tasks, at_us = state.tasks, state.at_us
    numbers = range(event.task, event.task + event.count)
    for number in numbers:
        task = tasks[number]
        task.status = "queued"
        task.retry_at_us = 0
        task.attempts += (Attempt(event.attempt, event.mode, event.executor, at_us),)
    gangs.begin(first)
    state.line_up(numbers, event.executor, first=event.attempt > 0 and state.logic >= RETRIES_FIRST_SINCE)


def _slot_granted(state: RunState, event: ev.SlotGranted) -> None:
    task = _task(state, event, event.task)
    attempt = task.attempts[-1] if task.attempts else None
    if task.status != "queued" or attempt is None or attempt.number != event.attempt:
        raise ImpossibleEvent(state.seq, event, f"attempt {event.attempt} of task {task.id} does not wait for a slot")
    number, agenda = task.id, state.agenda
    state.wait_no_more(task)
    state.live[number] = None
    task.status = "granted"
    attempt.granted_us = state.at_us
    if event.executor:
        attempt.executor = intern(event.executor)
    attempt.slot, attempt.wait = event.slot, intern(event.reason)  # A few texts, in each of a million attempts.
    agenda.granted.append(number)
    agenda.asked[number] = state.seq


def _task_launched(state: RunState, event: ev.TaskLaunched) -> None:
    task = _task(state, event, event.task)
    agenda = state.agenda
    _take(state, event, agenda.granted, task.id)
    del agenda.asked[task.id]
    task.status = "launched"
    task.attempts[-1].launched_us = state.at_us


def _attempt_started(state: RunState, event: ev.AttemptStarted) -> None:
    task = _current(state, event)
    if task is None:
        return
    attempt = task.attempt
    task.status = "running"
    attempt.host, attempt.pid, attempt.started_us = intern(event.host), event.pid, event.started_us
    limit_us = state.graph.nodes[task.step].policy.timeout_us
    if limit_us:
        due = state.at_us + limit_us + HARD_TIMEOUT_GRACE_US
        heappush(state.agenda.timers, (due, task.id, attempt.number, "timeout"))
        state.agenda.asked[task.id] = state.seq


def _attempt_succeeded(state: RunState, event: ev.AttemptSucceeded) -> None:
    task = _current(state, event)
    if task is None:
        return
    attempt = task.attempts[-1]
    _end_attempt(state, task, "succeeded")
    attempt.manifest, attempt.cards, attempt.cache = event.manifest, event.cards, event.cache
    if event.started_us:
        attempt.started_us = event.started_us
    attempt.ended_us = event.ended_us or state.at_us
    _note(state, task, event)
    if gangs.gang_of(task) is None:
        _accept(state, task)
    else:
        _gather(state, task)


def _task_reused(state: RunState, event: ev.TaskReused) -> None:
    task = _task(state, event, event.task)
    if task.status != "queued":
        raise ImpossibleEvent(state.seq, event, f"task {task.id} is not waiting")
    state.wait_no_more(task)
    task.attempt.outcome = "succeeded"
    task.attempt.manifest, task.attempt.cards = event.manifest, event.cards
    task.reused, task.origin = event.origin_task, event.origin_id
    _note(state, task, event)
    _accept(state, task)


def _note(state: RunState, task: Task, event: ev.AttemptSucceeded | ev.TaskReused) -> None:
    """Note what an attempt came to."""
    usual = state.graph.nodes[task.step].out
    task.next_kind, task.next_steps = event.next_kind, usual if event.next_steps == usual else event.next_steps
    task.splits, task.items, task.variable = event.splits, event.items, event.variable
    task.caught, task.artifacts, task.size_bytes = event.caught, event.artifacts, event.size_bytes


def _accept(state: RunState, task: Task) -> None:
    """Take the task's one result, and follow its transition as far as the state goes."""
    task.status = "succeeded"
    task.ended_us = state.at_us
    task.manifest = task.attempts[-1].manifest
    state.steps[task.step].succeeded += 1
    _follow(state, task)


def _gather(state: RunState, task: Task) -> None:
    """A node's attempt is over: results count, and what follows is asked, when all are."""
    for node in gangs.gather(state, task):
        _accept(state, node)


def _task_skipped(state: RunState, event: ev.TaskSkipped) -> None:
    task = _task(state, event, event.task)
    skips = state.agenda.skips
    if not skips or skips[0][0] != task.id:
        raise ImpossibleEvent(state.seq, event, "nothing asked for this decision")
    skips.popleft()
    task.status = "skipped"
    task.ended_us = state.at_us
    task.manifest = event.manifest
    task.next_kind, task.next_steps = event.next_kind, event.next_steps
    before = state.tasks[task.parent]
    task.artifacts, task.size_bytes = before.artifacts, before.size_bytes
    state.steps[task.step].skipped += 1
    _follow(state, task)


def _follow(state: RunState, task: Task) -> None:
    agenda = state.agenda
    wrong = breach(state, task)
    if wrong is not None:
        _fail(state, wrong)
    elif task.next_kind in ("linear", "switch") and state.graph.nodes[task.next_steps[0]].takes_inputs:
        split = arrive(state, task)
        if split is not None:
            agenda.joins.append(split.task)
            agenda.asked[split.task] = state.seq
            agenda.promised += 1
    else:
        agenda.routes.append(task.id)
        agenda.asked[task.id] = state.seq
        agenda.promised += tasks_of(task)


def _attempt_failed(state: RunState, event: ev.AttemptFailed) -> None:
    task = _current(state, event)
    if task is None:
        return
    attempt = task.attempt
    _end_attempt(state, task, "failed")
    attempt.kind, attempt.error, attempt.message = event.kind, event.error, event.message
    attempt.where, attempt.detail, attempt.retryable = event.where, event.detail, event.retryable
    attempt.manifest, attempt.cards = event.manifest, event.cards
    if event.started_us:
        attempt.started_us = event.started_us
    attempt.ended_us = event.ended_us or state.at_us
    task.failures += 1
    _ask_what_follows(state, task)


def _exit_hook_started(state: RunState, event: ev.ExitHookStarted) -> None:
    state.hook_starts = event.attempt + 1


def _exit_hook_ended(state: RunState, event: ev.ExitHookEnded) -> None:
    del event
    state.hooks_over = True


def _attempt_exited(state: RunState, event: ev.AttemptExited) -> None:
    task = _current(state, event)
    if task is None:
        return
    attempt = task.attempt
    _end_attempt(state, task, "exited")
    attempt.exit_code, attempt.signal, attempt.kind = event.exit_code, event.signal, event.why
    state.agenda.exited.append(task.id)
    state.agenda.asked[task.id] = state.seq


def _attempt_lost(state: RunState, event: ev.AttemptLost) -> None:
    task = _explained(state, event, "lost", event.reason)
    task.losses += 1
    _ask_what_follows(state, task)


def _attempt_crashed(state: RunState, event: ev.AttemptCrashed) -> None:
    task = _explained(state, event, "crashed", event.reason)
    task.failures += 1
    _ask_what_follows(state, task)


def _attempt_timed_out(state: RunState, event: ev.AttemptTimedOut) -> None:
    text = f"It did not end within its limit of {event.limit_us / 1e6:g} s and was killed."
    task = _explained(state, event, "timed-out", text)
    task.failures += 1
    _ask_what_follows(state, task)


def _attempt_cancelled(state: RunState, event: ev.AttemptCancelled) -> None:
    task = _task(state, event, event.task)
    if task.status == "granted":
        _take(state, event, state.agenda.granted, task.id)
        _end_attempt(state, task, "cancelled")
    else:
        _explained(state, event, "cancelled", event.reason)
        state.agenda.asked.pop(task.id, None)
    if gangs.gang_of(task) is not None:
        _gather(state, task)
    else:
        task.status = "cancelled"
        task.ended_us = state.at_us


def _attempt_cancel_requested(state: RunState, event: ev.AttemptCancelRequested) -> None:
    task = _task(state, event, event.task)
    if task.id not in state.live or task.attempt.number != event.attempt:
        raise ImpossibleEvent(state.seq, event, f"attempt {event.attempt} of task {task.id} is not running")
    state.agenda.cancels.pop(task.id, None)
    task.attempt.cancel = event.reason


def _retry_scheduled(state: RunState, event: ev.RetryScheduled) -> None:
    task = _task(state, event, event.task)
    _take(state, event, state.agenda.ended, task.id)
    for node in gangs.nodes_of(state, task):
        gangs.undo(node, event.reason)
        node.status = "retrying"
        node.retry_at_us = event.at_us
    heappush(state.agenda.timers, (event.at_us, task.id, event.attempt, "retry"))
    state.agenda.asked[task.id] = state.seq


def _task_failed(state: RunState, event: ev.TaskFailed) -> None:
    task = _failed(state, event)
    gangs.close(state, task, event.reason)
    reason = f"Step '{task.step}' (task {task.id}) failed: {event.reason}"
    _fail(state, Ending("task-failed", reason, task.id))


def _task_held(state: RunState, event: ev.TaskHeld) -> None:
    task = _failed(state, event)
    state.agenda.held = state.seq
    state.held[task.id] = None


def _failed(state: RunState, event: ev.TaskFailed | ev.TaskHeld) -> Task:
    """No attempt of the task is left."""
    task = _task(state, event, event.task)
    lead = gangs.lead_of(task)
    _take(state, event, state.agenda.ended, lead)
    state.agenda.asked.pop(lead, None)
    task.status = "failed"
    task.reason = event.reason
    task.ended_us = state.at_us
    state.steps[task.step].failed += 1
    return task


def _gang_refused(state: RunState, event: ev.GangRefused) -> None:
    _fail(state, gangs.refuse(state, _task(state, event, event.task), event.reason))


def _unknown(state: RunState, event: ev.Unknown) -> None:
    del event
    state.unknown += 1


def _noted(state: RunState, event: ev.EnvironmentResolved | ev.EnvironmentReplaced | ev.EnvironmentReady) -> None:
    """Stands in the log for people and for whoever starts attempts; no decision looks at it."""
    del state, event


def _fail(state: RunState, ending: Ending) -> None:
    """Let the run fail; the first reason stands."""
    if state.failing is None:
        state.failing = ending
        if state.cancelling is None:  # Else all were asked to end.
            _stop(state)


def _stop(state: RunState) -> None:
    state.agenda.stopped = state.seq
    for number in state.held:  # nobody sees to its gang any more
        gangs.close(state, state.tasks[number], "")
    for number in state.live:
        if state.tasks[number].status != "granted":
            state.agenda.cancels[number] = None


def _finish(state: RunState, status: Any) -> None:
    state.status = status
    state.finished_us = state.at_us


def _end_attempt(state: RunState, task: Task, outcome: Any) -> None:
    number, attempt, agenda = task.id, task.attempts[-1], state.agenda
    attempt.outcome = outcome
    attempt.ended_us = state.at_us
    task.status = "ended"
    del state.live[number]
    agenda.cancels.pop(number, None)
    agenda.asked.pop(number, None)


def _ask_what_follows(state: RunState, task: Task) -> None:
    if gangs.gang_of(task) is not None:
        _gather(state, task)
        return
    state.agenda.ended.append(task.id)
    state.agenda.asked[task.id] = state.seq


def _explained(state: RunState, event: Any, outcome: Any, message: str) -> Task:
    """Give an unexplained exit its meaning."""
    task = _task(state, event, event.task)
    _take(state, event, state.agenda.exited, task.id)
    task.attempt.outcome = outcome
    task.attempt.message = message
    return task


def _take(state: RunState, event: ev.Event, queue: deque[_Item], expected: _Item) -> None:
    """Strike what this decision answers off the agenda."""
    if not queue or queue[0] != expected:
        raise ImpossibleEvent(state.seq, event, "nothing asked for this decision")
    queue.popleft()


def _task(state: RunState, event: ev.Event, number: int, *, parameters: bool = False) -> Task:
    if not (0 if parameters else 1) <= number < len(state.tasks):
        raise ImpossibleEvent(state.seq, event, f"there is no task {number}")
    return state.tasks[number]


def _current(state: RunState, event: Any) -> Task | None:
    """The event's task, if the event is about its current attempt and that one still lives.

    Anything else is a report that came after its attempt was given up: it stands in the log and has no
    effect, so that a task has one accepted result.
    """
    task = _task(state, event, event.task)
    status = task.status
    if (status == "launched" or status == "running") and task.attempts[-1].number == event.attempt:
        return task
    state.late += 1
    return None


_FOLDS: dict[type[ev.Event], Callable[[RunState, Any], None]] = {
    ev.RunStarted: _run_started,
    ev.RunContinued: _run_continued,
    ev.LogRegressed: _log_regressed,
    ev.RunCancelRequested: _run_cancel_requested,
    ev.RunSucceeded: _run_succeeded,
    ev.RunFailed: _run_failed,
    ev.RunOverdue: _run_overdue,
    ev.RunCancelled: _run_cancelled,
    ev.RunSealed: _run_sealed,
    ev.TasksCreated: _tasks_created,
    ev.TaskReused: _task_reused,
    ev.TaskQueued: _task_queued,
    ev.SlotGranted: _slot_granted,
    ev.TaskLaunched: _task_launched,
    ev.AttemptStarted: _attempt_started,
    ev.AttemptSucceeded: _attempt_succeeded,
    ev.AttemptFailed: _attempt_failed,
    ev.AttemptExited: _attempt_exited,
    ev.AttemptLost: _attempt_lost,
    ev.AttemptCrashed: _attempt_crashed,
    ev.AttemptTimedOut: _attempt_timed_out,
    ev.AttemptCancelled: _attempt_cancelled,
    ev.AttemptCancelRequested: _attempt_cancel_requested,
    ev.RetryScheduled: _retry_scheduled,
    ev.TaskFailed: _task_failed,
    ev.RunPauseRequested: control.pause,
    ev.RunResumeRequested: control.resume,
    ev.RunPriorityRequested: control.prioritise,
    ev.RunPaused: _run_paused,
    ev.TaskHeld: _task_held,
    ev.TaskRetryRequested: control.retry,
    ev.TaskSkipRequested: control.skip,
    ev.TaskSkipped: _task_skipped,
    ev.GangRefused: _gang_refused,
    ev.EnvironmentResolved: _noted,
    ev.EnvironmentReplaced: _noted,
    ev.EnvironmentReady: _noted,
    ev.ExitHookStarted: _exit_hook_started,
    ev.ExitHookEnded: _exit_hook_ended,
    ev.Unknown: _unknown,
}
