"""Which finished tasks of another run a resumed run takes over.

A task of the new run corresponds to the task of its origin that has the same step, the same place in its split, and a
corresponding parent. Its result is taken over where the origin's task succeeded and everything before it was taken over
too: then its inputs are the same. The steps named by `again`, and so everything behind them, run anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from evflow.core.events import TaskReused
from evflow.core.graph import Graph
from evflow.core.state import RunState, Task


@dataclass(slots=True)
class ReusePlan:
    """What may be taken over from an origin.

    Attributes:
        origin: The state of the run that is resumed.
        again: Steps that run anew although they succeeded.
    """

    origin: RunState
    again: frozenset[str] = frozenset()
    _children: dict[tuple[int, str, int], Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task in self.origin.all_tasks():
            self._children[task.parent, task.step, _index(task)] = task

    def reusable(self, state: RunState, limit: int) -> list[TaskReused]:
        """The waiting tasks of `state`, at most `limit`, whose results are taken over."""
        return list(islice(self._reusable(state), limit))

    def _reusable(self, state: RunState) -> Iterator[TaskReused]:
        for number in state.waiting:
            task = state.tasks[number]
            match = self._match(state, task)
            if match is not None and match.manifest is not None:
                name = match.reused or f"{self.origin.flow}/{self.origin.number}/{match.step}/{match.id}"
                yield TaskReused(
                    number, name, match.manifest, match.next_kind, match.next_steps, match.splits, match.items, match.variable, match.id
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
        match = self._children.get((parent.origin, task.step, _index(task)))
        return match if match is not None and match.status == "succeeded" else None


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


def _index(task: Task) -> int:
    """The task's place among the members of the split that its parent made, or -1."""
    frame = task.frame
    return frame.index if frame is not None and frame.split.task == task.parent else -1
