"""Which finished tasks of another run a resumed run takes over.

A task of the new run corresponds to the task of its origin that has the same step, the same place in its split, and a
corresponding parent. Its result is taken over where the origin's task succeeded and everything before it was taken over
too: then its inputs are the same, but for parameters that were given anew. The steps named by `again`, and so everything
behind them, run anew; so does a step whose transition of then is none that the flow of now could make (a step was renamed, a
foreach was added). A gang's nodes have one parent and come to their end together, so a gang is taken over as a whole or not at all.
"""

from collections.abc import Iterator
from itertools import islice

from evflow.core.events import TaskReused
from evflow.core.graph import Graph
from evflow.core.state import RunState, Task


class ReusePlan:
    """What may be taken over from an origin.

    A task is looked at once, so that a round of a large run does not look through all that wait.

    Args:
        origin: The state of the run that is resumed.
        again: Steps that run anew although they succeeded.
    """

    def __init__(self, origin: RunState, again: frozenset[str] = frozenset()) -> None:
        self.origin = origin
        self.again = again
        self._children = {(task.parent, task.step, index_of(task)): task for task in origin.all_tasks()}
        self._looked_at = 0

    def reusable(self, state: RunState, limit: int) -> list[TaskReused]:
        """The waiting tasks of `state`, at most `limit`, whose results are taken over."""
        return list(islice(self._reusable(state), limit))

    def _reusable(self, state: RunState) -> Iterator[TaskReused]:
        while self._looked_at + 1 < state.next_task:
            task = state.tasks[self._looked_at + 1]
            if task.status == "created":
                return
            self._looked_at += 1
            match = self._match(state, task) if task.id in state.waiting else None
            if match is not None and match.manifest is not None:
                name = match.reused or match.attempt.cached_from or f"{self.origin.flow}/{self.origin.number}/{match.step}/{match.id}"
                yield TaskReused(
                    task.id, name, match.manifest, match.next_kind, match.next_steps, match.splits, match.items, match.variable, match.id,
                    match.caught, match.artifacts, match.size_bytes, match.attempt.cards if match.attempts else (),
                )  # fmt: skip

    def _match(self, state: RunState, task: Task) -> Task | None:
        if task.step in self.again or task.attempt.number > 0:
            return None
        if state.graph[task.step].takes_inputs:
            members = state.splits[task.parent].arrived
            if any(state.tasks[member].reused is None for member in members):
                return None
        parent = state.tasks[task.parent]
        if task.parent and parent.reused is None:
            return None
        match = self._children.get((parent.origin, task.step, index_of(task)))
        return match if match is not None and match.status == "succeeded" and _still_possible(state.graph, match) else None


def _still_possible(graph: Graph, task: Task) -> bool:
    """Whether the flow of now can make the transition that the task made then."""
    node = graph[task.step]
    if task.next_kind == "end":
        return task.step == graph.end
    if task.step == graph.end or not set(task.next_steps) <= set(node.out):
        return False
    if node.kind == "conditional":
        return True
    if node.kind == "split":
        return task.next_kind == "split" and task.next_steps == node.out
    if node.kind == "foreach":
        return task.next_kind == "foreach" and task.variable == node.foreach
    return task.next_kind == (node.kind if node.kind in ("switch", "parallel") else "linear")


def behind(graph: Graph, step: str) -> frozenset[str]:
    """The step and every step that may follow it."""
    found: set[str] = set()
    stack = [step]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(graph[name].out)
    return frozenset(found)


def index_of(task: Task) -> int:
    """The task's place among the members of the split that its parent made, or -1."""
    frame = task.frame
    return frame.index if frame is not None and frame.split.task == task.parent else -1
