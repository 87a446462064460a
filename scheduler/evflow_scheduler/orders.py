"""From the state of a run to what an attempt is told: pure."""

from evflow.core.gangs import gang_of, nodes_of
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.retry import is_last
from evflow.core.state import RunState, Split, Task
from evflow.worker.spec import AttemptOrder


def order_of(state: RunState, task: Task) -> AttemptOrder:
    """The order for the task's current attempt."""
    node = state.graph[task.step]
    attempt = task.attempt
    return AttemptOrder(
        step=task.step,
        task=task.id,
        attempt=attempt.number,
        mode=attempt.mode,
        last=is_last(task, node.policy),
        crash=_crash(state, task) if attempt.mode == "catch" else "",
        parents=_parents(state, task, takes_inputs=node.takes_inputs),
        takes_inputs=node.takes_inputs,
        frames=tuple(_frame(frame.split, frame.index) for frame in task.frames()),
        iteration=task.iteration,
        timeout_s=node.policy.timeout_us / 1e6,
        joined=_frame(state.splits[task.parent], 0) if node.takes_inputs else None,
        priority=state.priority,
        reuse=node.policy.reuse,
        times_us=(state.started_us, task.created_us, attempt.queued_us, attempt.granted_us, attempt.launched_us)
        if node.policy.cards
        else (),
    )


def _crash(state: RunState, task: Task) -> str:
    """What happened to the attempt before; of a node that was ended with its gang, to the node that was the reason."""
    if len(task.attempts) < 2:
        return ""
    before = task.attempts[-2]
    if gang_of(task) is None or before.outcome != "cancelled":
        return before.message
    for place, node in enumerate(nodes_of(state, task)):
        if node.attempts[-2].outcome != "cancelled":
            return f"Node {place} of its gang (task {node.id}): {node.attempts[-2].message}"
    return before.message


def name_of(run: RunId, task: Task) -> AttemptId:
    """The name of the task's current attempt, for its executor."""
    return AttemptId(run, TaskId(task.id), task.attempt.number)


def _frame(split: Split, index: int) -> tuple[str, int, str, int, int, bytes | None, str | None]:
    """A member's place in a split, as an order has it."""
    return split.step, split.task, split.kind, index, split.size, split.items, split.variable


def _parents(state: RunState, task: Task, *, takes_inputs: bool) -> tuple[tuple[str, int, bytes], ...]:
    """Whose artifacts the task starts from: its parent's, or those of the members of its split, by index."""
    numbers = state.splits[task.parent].arrived if takes_inputs else [task.parent]
    parents: list[tuple[str, int, bytes]] = []
    for number in numbers:
        parent = state.tasks[number]
        assert parent.manifest is not None
        parents.append((parent.step, parent.id, parent.manifest))
    return tuple(parents)
