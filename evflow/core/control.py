"""What people may ask of a run that goes on, and what the state makes of it.

A request is a fact: it stands in the log with its principal, whatever comes of it. `refusal` says what keeps it from
having an effect. The fold asks it, and so does a command before it reports anything, so that both give the same answer; a
request that was overtaken on its way (the run ended, the task was started) changes nothing, and its story says why.

| Request | What it does | Not where |
|---|---|---|
| `RunPauseRequested` | no waiting task gets a slot | the run is paused, ending or over |
| `RunResumeRequested` | they get slots again | nobody paused it |
| `RunPriorityRequested` | the run's place among those that wait for slots | it is over |
| `TaskRetryRequested` | another attempt at once, `@retry` counted anew | the task runs, waits for a slot, or is done |
| `TaskSkipRequested` | the run goes on as if the task had only passed on what it got | as above; or the way on is not known |
"""

from heapq import heappush

from evflow.core import events as ev, gangs
from evflow.core.graph import Node
from evflow.core.state import Pause, RunState, Task

CONTROLS = (ev.RunPauseRequested, ev.RunResumeRequested, ev.RunPriorityRequested, ev.TaskRetryRequested, ev.TaskSkipRequested)
"""The events that `refusal` knows."""

REPAIRS_SINCE = 2
"""The version of the decisions that knows how to go on with a task by request."""

_DONE = ("succeeded", "skipped", "cancelled")


def refusal(state: RunState, event: ev.Event) -> str:
    """Why a request has no effect on the run as it is: a clause (`it is over`); empty where it has one, or is no request."""
    if not isinstance(event, CONTROLS):
        return ""
    if state.over:
        return f"the run is over: it {_became(state.status)}"
    match event:
        case ev.RunPriorityRequested(priority):
            return f"its priority is {priority} already" if priority == state.priority else ""
        case _ if state.stopping:
            return f"the run is {'being cancelled' if state.cancelling is not None else 'failing'}"
        case ev.RunPauseRequested():
            return f"it is paused already, by {state.pause.by.removeprefix('user:')}" if state.pause is not None else ""
        case ev.RunResumeRequested():
            return _not_resumed(state)
        case ev.TaskRetryRequested(number) | ev.TaskSkipRequested(number):
            task = state.task(number)
            assert task is not None  # the inbox lets no report of an unknown task pass, and `apply` none
            if state.logic < REPAIRS_SINCE:
                return "the run was begun by an earlier evflow, which cannot do that"
            task = _that_speaks(state, task)
            return _not_retried(task) if isinstance(event, ev.TaskRetryRequested) else _not_skipped(state, task, event.step)


def way_on(node: Node, chosen: str) -> tuple[str, tuple[str, ...]] | None:
    """The transition of a task that is skipped: its kind and steps; None where the source leaves more than one."""
    if not node.out:
        return None if chosen else ("end", ())
    if node.kind == "split" and not chosen:
        return "split", node.out
    if node.kind in ("foreach", "split", gangs.PARALLEL) or node.foreach is not None:
        return None
    if chosen:
        return ("switch" if node.kind == "switch" else "linear", (chosen,)) if chosen in node.out else None
    return ("linear", node.out) if len(node.out) == 1 else None


def pause(state: RunState, event: ev.RunPauseRequested) -> None:
    """Fold a request to pause."""
    if not refusal(state, event):
        state.pause = Pause(state.by, state.at_us, event.reason)


def resume(state: RunState, event: ev.RunResumeRequested) -> None:
    """Fold a request to end a pause."""
    if not refusal(state, event):
        state.pause = None


def prioritise(state: RunState, event: ev.RunPriorityRequested) -> None:
    """Fold a request for another priority."""
    if not refusal(state, event):
        state.priority = event.priority


def retry(state: RunState, event: ev.TaskRetryRequested) -> None:
    """Fold a request for another attempt, of a gang as a whole: it is due now, and counts begin anew with it."""
    if refusal(state, event):
        return
    nodes = gangs.nodes_of(state, state.tasks[event.task])
    number = nodes[0].attempt.number + 1
    for task in nodes:
        _release(state, task)
        gangs.undo(task, event.reason)
        task.status, task.reason, task.ended_us = "retrying", "", 0
        task.failures = task.losses = 0
        task.renewed, task.settled_by = number, state.by
        task.retry_at_us = state.at_us
    heappush(state.agenda.timers, (state.at_us, nodes[0].id, number, "retry"))
    state.agenda.asked[nodes[0].id] = state.seq


def skip(state: RunState, event: ev.TaskSkipRequested) -> None:
    """Fold a request to go on without the task, or without its gang."""
    if refusal(state, event):
        return
    for task in gangs.nodes_of(state, state.tasks[event.task]):
        _release(state, task)
        gangs.undo(task, event.reason)
        if task.id in state.waiting:
            state.wait_no_more(task)
            task.attempt.outcome = "cancelled"
        task.status, task.retry_at_us, task.settled_by = "ended", 0, state.by
        state.agenda.skips.append((task.id, event.step))
        state.agenda.asked[task.id] = state.seq


def _that_speaks(state: RunState, task: Task) -> Task:
    """The node of a gang by whose standing a request for any of them is judged: the one that is held, where one is."""
    return next((node for node in gangs.nodes_of(state, task) if node.id in state.held), task) if task.status == "finished" else task


def _release(state: RunState, task: Task) -> None:
    """The task is seen to: the run is not held by it any more."""
    state.stuck = None
    if task.id in state.held:
        del state.held[task.id]
        state.steps[task.step].failed -= 1


def _not_resumed(state: RunState) -> str:
    if state.pause is not None:
        return ""
    if not state.held:
        return "it is not paused"
    first = state.tasks[next(iter(state.held))]
    return f"nobody paused it: it waits for what failed, {first.step}/{first.id}{' and others' if len(state.held) > 1 else ''}"


def _not_retried(task: Task) -> str:
    if task.status in ("failed", "retrying"):
        return ""
    return _as_it_is(
        task, "it waits for its first attempt" if not task.attempts or task.attempt.number == 0 else "it waits for a slot already"
    )


def _not_skipped(state: RunState, task: Task, chosen: str) -> str:
    if task.status not in ("failed", "retrying", "queued"):
        return _as_it_is(task, "it is about to start")
    node = state.graph[task.step]
    if way_on(node, chosen) is not None:
        return ""
    ways = ", ".join(node.out)
    if node.foreach is not None:
        return f"step '{task.step}' makes a foreach, and only its body knows over what"
    if node.kind == "split":
        return f"step '{task.step}' splits into {ways}, and all of them follow it"
    if chosen:
        return f"step '{task.step}' does not lead to '{chosen}'" + (f"; it leads to {ways}" if ways else ": it is the last one")
    return f"step '{task.step}' leads to one of {ways}, and only its body knows to which"


def _as_it_is(task: Task, waiting: str) -> str:
    if task.status in _DONE:
        return f"it {_became(task.status)}"
    if task.status == "finished":
        return "its attempt is over, and others of its gang still run"
    return "it runs" if task.status == "running" else waiting


def _became(status: str) -> str:
    return f"was {status}" if status in ("skipped", "cancelled") else status
