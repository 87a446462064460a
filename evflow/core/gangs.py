"""Gangs: the nodes of a `@parallel` step, which run all at the same time, and whose attempts are one.

`self.next(self.train, num_parallel=4)` makes a split of the kind `parallel`; its members are the nodes, and node 0 is the control
task. The rules:

1. The nodes get their slots in one turn, or none of them does (`evflow.core.admit`).
2. What a node did counts when all nodes have come to their end: until then it is `finished`, and its result is kept aside.
3. The first node that fails, crashes, runs into its limit or is lost ends the others. When none runs any more, the gang is tried again
   as a whole, or it has failed as a whole: attempt numbers, and what `@retry` counts, are the same of all nodes.
4. A node that was lost outranks one that failed: that its peers then fail follows from it, and a loss does not count against `@retry`.
5. What people ask for one node, another attempt or to go on without it, they ask for the gang.

A node leads to the join and nowhere else (`evflow.core.frames`), so a task whose innermost split is a gang is one of its nodes.
"""

from typing import Final

from evflow.core.state import Ending, RunState, Split, Task

PARALLEL: Final = "parallel"
"""The kind of a transition, and of its split, whose members are a gang."""

MAX_NODES: Final = 200
"""The nodes of one gang: their grants and their launches stand in one turn, which one append call has to take."""

FAILED: Final = "gang-failed"
"""How the reason begins for which a node is ended: another one failed."""

KILL_GRACE_US: Final = 5_000_000
"""Within this time of a request to end it, a node that SIGKILL ended was not killed by us: that comes after the grace."""


def gang_of(task: Task) -> Split | None:
    """The gang that the task is a node of, or None."""
    frame = task.frame
    return frame.split if frame is not None and frame.split.kind == PARALLEL else None


def lead_of(task: Task) -> int:
    """The id of the control task of the task's gang; of a task without one its own."""
    frame = task.frame
    return task.id - frame.index if frame is not None and frame.split.kind == PARALLEL else task.id


def nodes_of(state: RunState, task: Task) -> list[Task]:
    """The nodes of the task's gang, in order; of a task without one the task alone."""
    gang = gang_of(task)
    if gang is None:
        return [task]
    first = lead_of(task)
    return state.tasks[first : first + gang.size]


def culprit_of(state: RunState, task: Task) -> Task:
    """The node by whose end it is decided what becomes of the gang: the first one that was lost, else the first one that failed."""
    gang = gang_of(task)
    if gang is None:
        return task
    lost = next((node for node in nodes_of(state, task) if node.attempts and node.attempt.outcome == "lost"), None)
    return lost or state.tasks[gang.first_failure or task.id]


def why_ended(state: RunState, task: Task) -> str:
    """The reason for which a node is asked to end: which other one failed."""
    gang = gang_of(task)
    assert gang is not None  # nothing else is ended in a run that goes on
    failed = state.tasks[gang.first_failure]
    assert failed.frame is not None
    return f"{FAILED}: node {failed.frame.index} (task {failed.id})"


def begin(task: Task) -> None:
    """Fold that the nodes of a gang were queued: attempts of all of them are out."""
    gang = gang_of(task)
    if gang is not None:
        gang.out, gang.first_failure, gang.failed_us = gang.size, 0, 0


def gather(state: RunState, task: Task) -> list[Task]:
    """Fold the end of a node's attempt, whose outcome is known.

    Returns:
        All nodes, where this was the last one and all came to their end well: their results count now.
    """
    gang = gang_of(task)
    assert gang is not None
    task.status = "finished"
    gang.out -= 1
    if task.attempt.outcome not in ("succeeded", "cancelled") and not gang.first_failure:
        gang.first_failure, gang.failed_us = task.id, state.at_us
        if not state.stopping:
            _end_the_others(state, task)
    if gang.out:
        return []
    nodes = nodes_of(state, task)
    if all(node.attempt.outcome == "succeeded" for node in nodes):
        return nodes
    if not gang.first_failure:  # the run is ending
        close(state, task, "")
        return []
    failures, losses = max(node.failures for node in nodes), max(node.losses for node in nodes)
    for node in nodes:
        node.failures, node.losses = failures, losses
    state.agenda.ended.append(nodes[0].id)
    state.agenda.asked[nodes[0].id] = state.seq
    return []


def close(state: RunState, task: Task, reason: str) -> None:
    """Fold that there is no further attempt of the gang: nodes that did not fail themselves are cancelled."""
    for node in nodes_of(state, task):
        if node.status == "finished":
            undo(node, reason)
            node.status = "cancelled"
            node.ended_us = state.at_us


def refuse(state: RunState, task: Task, reason: str) -> Ending:
    """Fold that the gang's nodes cannot run at the same time; what the run fails of.

    Raises:
        ValueError: The task is no node of a gang that waits.
    """
    if task.status != "queued" or gang_of(task) is None:
        raise ValueError(f"task {task.id} is no node of a gang that waits")
    for node in nodes_of(state, task):
        state.wait_no_more(node)
        node.status, node.ended_us, node.attempt.outcome = "cancelled", state.at_us, "cancelled"
    task.status, task.reason = "failed", reason
    state.steps[task.step].failed += 1
    return Ending("gang-refused", f"Step '{task.step}' (task {task.id}) cannot run: {reason}", task.id)


def undo(node: Task, reason: str) -> None:
    """Fold that the result of a node's attempt does not count: another node failed."""
    if not node.attempts or node.attempt.outcome != "succeeded":
        return
    node.attempt.outcome, node.attempt.message = "cancelled", reason
    node.next_kind, node.next_steps, node.splits, node.items, node.variable = "", (), 0, None, None
    node.caught, node.artifacts, node.size_bytes = None, 0, 0


def _end_the_others(state: RunState, task: Task) -> None:
    for node in nodes_of(state, task):
        if node.id in state.live and not node.attempt.cancel:  # else it is being killed at its limit
            state.agenda.cancels[node.id] = None
            state.agenda.asked[node.id] = state.seq
