"""One task of a past run again: what is taken over for it.

A spin is a run whose origin finished everything before the task: that is taken over as in a resumed run, the task is given a
slot, and nothing else is. So the task has the place that it had (its parents, its split, its index), and what it may do
(be retried, time out, be caught, choose what comes next) is decided by the rules of every run.

Unlike a resumed run a spin asks for nothing but the inputs: whether the steps before it could still lead here does not matter,
since they are not going to be run. So its graph is the origin's, with the steps of now in place of the task's own and of those
that the origin had not.

A node of a gang is spun by itself: its peers are not there to end with it. So its place is that of a foreach's member here, and what
is decided is decided for it alone; its order says that it is a node (`evflow_scheduler.spin`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from evflow.core.events import TaskReused
from evflow.core.gangs import gang_of
from evflow.core.graph import LOCAL, Graph
from evflow.core.reuse import index_of
from evflow.core.state import RunState, Task

FOLDER: Final = ".evflow_spin"
"""The name of the home of spins that are kept, in the folder in which they were asked for."""


class SpinPlan:
    """What a spin takes over from its origin, and which task it runs.

    Args:
        origin: The state of the run that the task is of.
        task: The task's id there; everything before it has its result.
        instead: Manifests that tasks of the origin are said to have left, by their ids.
    """

    def __init__(self, origin: RunState, task: int, instead: Mapping[int, bytes] | None = None) -> None:
        self.origin = origin
        self.task = task
        self._instead = instead or {}
        self._alone = origin.tasks[task].parent if gang_of(origin.tasks[task]) is not None else 0
        needed = [origin.tasks[number] for number in sorted({*before(origin, task), task}) if number]
        self._children = {(one.parent, one.step, index_of(one)): one for one in needed}
        self._looked_at = 0
        self._found = 0

    def reusable(self, state: RunState) -> list[TaskReused]:
        """The waiting tasks of `state` whose results are taken over, each said once."""
        return list(self._reusable(state))

    def target(self, state: RunState) -> Task | None:
        """The task of `state` that is to be run; None as long as it is not there."""
        return state.task(self._found)

    def _reusable(self, state: RunState) -> Iterator[TaskReused]:
        while self._looked_at + 1 < state.next_task:
            self._looked_at += 1
            task = state.tasks[self._looked_at]
            parent = state.tasks[task.parent]
            if task.parent and not parent.origin:
                continue
            then = self._children.get((parent.origin, task.step, index_of(task)))
            if then is None:
                continue
            if then.id == self.task:
                self._found = task.id
                continue
            manifest = self._instead.get(then.id, then.manifest)
            assert manifest is not None  # else the task after it would not be there
            yield TaskReused(
                task.id, then.reused or f"{self.origin.flow}/{self.origin.number}/{then.step}/{then.id}", manifest,
                "foreach" if then.id == self._alone else then.next_kind, then.next_steps, then.splits, then.items, then.variable, then.id, then.caught, then.artifacts, then.size_bytes,
            )  # fmt: skip


def before(state: RunState, task: int) -> frozenset[int]:
    """The tasks that a task's place in the run depends on: those that led to it, and all that a join on the way had joined."""
    found: set[int] = set()
    stack = list(inputs_of(state, task))
    while stack:
        number = stack.pop()
        if number not in found:
            found.add(number)
            if number:
                stack.extend(inputs_of(state, number))
    return frozenset(found)


def inputs_of(state: RunState, task: int) -> tuple[int, ...]:
    """The tasks that lead to a task: its parent, or for a join the members and the task that split."""
    one = state.tasks[task]
    split = state.splits.get(one.parent)
    if split is not None and split.join == one.step and index_of(one) < 0:
        return (*split.arrived, one.parent)
    return (one.parent,)


def graph_of_spin(then: Graph, now: Graph, step: str) -> Graph:
    """The graph of a spin: the origin's, with what is new, and the step itself as it is now. It runs here, by itself."""
    here = replace(now[step], policy=replace(now[step].policy, executor=LOCAL, reuse=0, limits={}, parallel=False))
    nodes = {**now.nodes, **then.nodes, step: here}
    return Graph(nodes, then.start, then.end, now.doc)
