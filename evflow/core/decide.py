"""What follows from the state: the decisions between steps.

`decide` looks at the head of the agenda and returns what follows from it; `settle` alternates it with `apply`
until nothing is left to decide at `now`. Neither looks at anything but its arguments, so a log can be
re-decided years later, turn by turn (I13).

A change of a rule here changes what old logs would be re-decided to. So a released rule stays, under the
version of the logic that `RunStarted` recorded, and a new one gets the next version. The words of a reason are part of the
decision: they change with a version, too, and what only shows them says them in other words without one.
"""

from collections.abc import Sequence
from heapq import heappop
from typing import Any, cast

from evflow.core import events as ev
from evflow.core.apply import apply
from evflow.core.codec import Record
from evflow.core.control import way_on
from evflow.core.frames import tasks_of
from evflow.core.gangs import FAILED, KILL_GRACE_US, culprit_of, gang_of, lead_of, why_ended
from evflow.core.ids import Micros, Seq
from evflow.core.retry import after_failure, next_mode
from evflow.core.state import RunState, Task

LOGIC = 5
"""The version of the rules that new runs record. 2: tasks can be held, retried and skipped (`evflow.core.control`). 3 decides as 2 does;
the state that is sealed has the attempts' cards. 4: gangs (`evflow.core.gangs`); the state that is sealed says what was cached. 5 decides as 4 does; what is tried
again waits before what was never tried."""

SCHEDULER = "scheduler"
"""The principal of a decision."""

_SIGKILL = 9
_DEATHS = frozenset(("owner-died", "fork-server-died", "out-of-memory", "host-lost", "preempted", "evicted", "spot-interruption"))
"""What an executor says of ends that are nobody's request; platforms add a sentence behind a colon."""


TURN_DECISIONS = 500
"""When a turn ends although more is to be decided: a turn has to fit into one append call. The next one goes on."""


def settle(state: RunState, turn: int, now: int) -> list[Record]:
    """Decide until nothing is left to decide at `now`, folding each decision.

    Returns:
        The decisions as records, positions following the state's last one: of this turn and, where they are too many
        for one, of further turns without facts.
    """
    records: list[Record] = []
    while True:
        decided = settle_turn(state, turn, now)
        records += decided
        if len(decided) < TURN_DECISIONS:
            return records
        turn += 1


def settle_turn(state: RunState, turn: int, now: int) -> list[Record]:
    """Decide until nothing is left to decide at `now`, or the turn is full, folding each decision."""
    records: list[Record] = []
    while len(records) < TURN_DECISIONS:
        _drop_stale_timers(state)
        decisions = decide(state, now)
        if not decisions:
            break
        for decision in decisions:
            record = Record(Seq(state.seq + 1), turn, Micros(now), SCHEDULER, _cause(state, decision), decision)
            apply(state, record)
            records.append(record)
    return records


def _cause(state: RunState, decision: Any) -> int:
    """The event that a decision answers."""
    kind = cast("Any", type(decision))
    if kind is ev.TasksCreated:
        return state.agenda.asked[decision.parent]
    if kind in (ev.RunFailed, ev.RunCancelled) or (kind is ev.AttemptCancelRequested and decision.reason != "timeout" and state.stopping):
        return state.agenda.stopped
    if kind in (ev.TaskFailed, ev.TaskHeld):
        task: int = decision.task
        return state.agenda.asked[lead_of(state.tasks[task])]
    if kind is ev.RunPaused:
        return state.agenda.held
    if kind is ev.RunOverdue:
        return 1
    return state.agenda.asked[decision.task]


def decide(state: RunState, now: int) -> Sequence[ev.Decision]:
    """The decisions on the first thing of the agenda, or nothing.

    Order: what became of attempts, before what follows from it, before what starts next; the end of the run
    when nothing else is left.
    """
    agenda = state.agenda
    if state.status != "running":
        return ()
    if agenda.exited:
        return (_explain_exit(state, state.tasks[agenda.exited[0]]),)
    if agenda.ended:
        task = state.tasks[agenda.ended[0]]
        return (after_failure(state, task, now),)
    if agenda.cancels and not state.stopping:
        return (_end_node(state, state.tasks[next(iter(agenda.cancels))]),)
    if agenda.skips:
        return (_skip(state, *agenda.skips[0]),)
    if agenda.created:
        return (_queue(state, *agenda.created[0]),)
    if agenda.granted:
        return (_launch(state, state.tasks[agenda.granted[0]]),)
    if state.stopping:
        return _stop(state)
    if agenda.routes:
        return _route(state, state.tasks[agenda.routes[0]])
    if agenda.joins:
        return _join(state, agenda.joins[0])
    if agenda.timers and agenda.timers[0][0] <= now:
        return (_wake(state),)
    if state.held and state.stuck is None and not (state.live or state.waiting or agenda.timers):
        return (_pause(state),)
    return ()


def _skip(state: RunState, number: int, chosen: str) -> ev.Decision:
    """Go on behind a task with what it had inherited; a join, which chooses among what it gets, with what was before its split."""
    task = state.tasks[number]
    way = way_on(state.graph[task.step], chosen)
    manifest = state.tasks[task.parent].manifest
    assert way is not None  # else the request has no effect
    assert manifest is not None  # what led here has its result
    return ev.TaskSkipped(number, manifest, *way)


def _pause(state: RunState) -> ev.Decision:
    first = state.tasks[next(iter(state.held))]
    others = len(state.held) - 1
    more = f" So did {others} more task{'s' if others > 1 else ''}." if others else ""
    return ev.RunPaused(f"Step '{first.step}' (task {first.id}) failed: {first.reason.rstrip('.')}.{more}", first.id, len(state.held))


def _queue(state: RunState, first: int, count: int) -> ev.Decision:
    policy = state.graph[state.tasks[first].step].policy
    return ev.TaskQueued(first, count, 0, policy.executor)


def _launch(state: RunState, task: Task) -> ev.Decision:
    if state.stopping:
        return ev.AttemptCancelled(task.id, task.attempt.number, _why_stopping(state))
    return ev.TaskLaunched(task.id, task.attempt.number, task.attempt.executor, task.attempt.mode)


def _route(state: RunState, task: Task) -> Sequence[ev.Decision]:
    """The tasks that the transition of a finished task creates."""
    if task.next_kind == "end":
        return (ev.RunSucceeded(task.id),)
    first = state.next_task
    count = tasks_of(task)
    if task.next_kind == "split":
        return [ev.TasksCreated(step, first + index, 1, task.id, "split", index, count) for index, step in enumerate(task.next_steps)]
    if task.next_kind in ("foreach", "parallel"):
        return (ev.TasksCreated(task.next_steps[0], first, count, task.id, task.next_kind, 0, count),)
    return (ev.TasksCreated(task.next_steps[0], first, 1, task.id),)


def _join(state: RunState, split_task: int) -> Sequence[ev.Decision]:
    step = state.splits[split_task].join
    assert step is not None
    return (ev.TasksCreated(step, state.next_task, 1, split_task, "join"),)


def _explain_exit(state: RunState, task: Task) -> ev.Decision:
    """Give a process that ended without a report its meaning.

    An end that we asked for is that; SIGKILL and a death together with its owner, its host or its fork server
    are nobody's fault in the task. Neither is exit code 0, with which an attempt ends only when the log has its
    report: the server lost it. Everything else is the task's own crash.
    """
    attempt = task.attempt
    if attempt.cancel == "timeout":
        limit_us = state.graph[task.step].policy.timeout_us
        return ev.AttemptTimedOut(task.id, attempt.number, limit_us)
    if attempt.cancel and not _was_killed_meanwhile(state, task):
        return ev.AttemptCancelled(task.id, attempt.number, attempt.cancel)
    if attempt.kind:
        return ev.AttemptLost(task.id, attempt.number, attempt.kind)
    if attempt.signal == _SIGKILL:
        return ev.AttemptLost(task.id, attempt.number, "killed (signal 9); out of memory?")
    if attempt.exit_code == 0:
        return ev.AttemptLost(task.id, attempt.number, "ended as if reported, but the log's server has no report; did it lose its tail?")
    if attempt.signal is not None:
        reason = f"Its process was ended by signal {attempt.signal}{_SIGNALS.get(attempt.signal, '')}."
        return ev.AttemptCrashed(task.id, attempt.number, reason)
    reason = f"Its process exited with code {attempt.exit_code} and without a report."
    return ev.AttemptCrashed(task.id, attempt.number, reason)


def _was_killed_meanwhile(state: RunState, task: Task) -> bool:
    """Whether a node that was to end died otherwise: its death is what the others failed of, not the other way round.

    It did with its owner, its host or its fork server; or SIGKILL came before we could have sent it.
    """
    gang, attempt = gang_of(task), task.attempt
    if gang is None or not attempt.cancel.startswith(FAILED):
        return False
    return attempt.kind.partition(":")[0] in _DEATHS or (attempt.signal == _SIGKILL and state.at_us - gang.failed_us < KILL_GRACE_US)


_SIGNALS = {4: " (illegal instruction)", 6: " (abort)", 7: " (bus error)", 8: " (arithmetic)", 11: " (segmentation fault)"}


def _end_node(state: RunState, task: Task) -> ev.Decision:
    return ev.AttemptCancelRequested(task.id, task.attempt.number, why_ended(state, task))


def _stop(state: RunState) -> Sequence[ev.Decision]:
    """End what runs; when nothing does, the run."""
    agenda = state.agenda
    if agenda.cancels:
        reason = "killed" if state.forced else _why_stopping(state)
        task = state.tasks[next(iter(agenda.cancels))]
        return (ev.AttemptCancelRequested(task.id, task.attempt.number, reason),)
    if state.live:
        return ()
    if state.cancelling is not None:
        return (ev.RunCancelled(state.cancelling),)
    assert state.failing is not None
    return (ev.RunFailed(state.failing.code, state.failing.reason, state.failing.task),)


def _why_stopping(state: RunState) -> str:
    return "run-cancelled" if state.cancelling is not None else "run-failed"


def _wake(state: RunState) -> ev.Decision:
    _, number, attempt, kind = state.agenda.timers[0]
    if kind == "run":
        return ev.RunOverdue(state.options["max_run_us"])
    task = state.tasks[number]
    if kind == "timeout":
        return ev.AttemptCancelRequested(number, attempt, "timeout")
    gang = gang_of(task)
    mode = next_mode(culprit_of(state, task), state.graph[task.step].policy)
    return ev.TaskQueued(number, 1 if gang is None else gang.size, attempt, task.attempt.executor, mode)


def _drop_stale_timers(state: RunState) -> None:
    """Drop timers whose task has moved on; which ones these are follows from the state."""
    timers = state.agenda.timers
    while timers and _is_stale(state, *timers[0][1:]):
        heappop(timers)


def _is_stale(state: RunState, number: int, attempt: int, kind: str) -> bool:
    if kind == "run":
        return state.stopping
    task = state.tasks[number]
    if kind == "retry":
        return state.stopping or task.status != "retrying" or task.attempt.number + 1 != attempt
    return number not in state.live or task.attempt.number != attempt or bool(task.attempt.cancel)
