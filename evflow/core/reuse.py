"""Which finished tasks of another run a resumed run takes over.

A task of the new run corresponds to the task of its origin that has the same step, the same place in its split, and a
corresponding parent. Its result is taken over where the origin's task succeeded and everything before it was taken over
too: then its inputs are the same, but for parameters that were given anew. The steps named by `again`, and so everything
behind them, run anew; so does a step whose transition of then is none that the flow of now could make (a step was renamed, a
foreach was added). A gang's nodes have one parent and come to their end together, so a gang is taken over as a whole or not at all.
"""

from collections.abc import Iterator
from itertools import islice

from evflow.core.events import RunCancelRequested, TaskReused
from evflow.core.graph import Graph
from evflow.core.state import RunState, Task
from evflow.core.values import value


@value
class RunAnew:
    """Why a task of a resumed run is not taken over.

    Attributes:
        code: `named` (its step is the one that was asked for), `behind` (its step comes behind that), `after` (a task that it depends on runs
            anew), `unfinished` (the origin's task did not succeed), `never` (the origin never came to it), `otherwise` (the flow of now
            cannot go on as the origin's task did).
        task: The task that it is due to, `step/id`: for `after` one of this run, else the origin's; empty where there is none.
        status: For `unfinished` what had become of that task.
    """

    code: str
    task: str = ""
    status: str = ""


class ReusePlan:
    """What may be taken over from an origin.

    A task is looked at once, so that a round of a large run does not look through all that wait.

    Args:
        origin: The state of the run that is resumed.
        again: Steps that run anew although they succeeded.
        named: The one of them that was asked for, if any: the others come behind it.
        only: Nothing is to be run: the run ends when everything is taken over that can be.
    """

    def __init__(self, origin: RunState, again: frozenset[str] = frozenset(), named: str = "", *, only: bool = False) -> None:
        self.origin = origin
        self.only = only
        self.again = again
        self.named = named
        self._children = {(task.parent, task.step, index_of(task)): task for task in origin.all_tasks()}
        self._looked_at = 0

    def reusable(self, state: RunState, limit: int) -> list[TaskReused]:
        """The waiting tasks of `state`, at most `limit`, whose results are taken over."""
        return list(islice(self._reusable(state), limit))

    def ending(self) -> list[RunCancelRequested]:
        """What is asked of the run when nothing more can be taken over: its end, where nothing is to be run."""
        return [RunCancelRequested(self._why_it_ends)] if self.only else []

    def has_ended(self, state: RunState) -> bool:
        """Whether the run came to the end that was meant for it."""
        return self.only and state.status == "cancelled" and state.cancelling == self._why_it_ends

    @property
    def _why_it_ends(self) -> str:
        return f"--clone-only: what {self.origin.flow}/{self.origin.number} had finished is taken over, and nothing is run"

    def _reusable(self, state: RunState) -> Iterator[TaskReused]:
        while self._looked_at + 1 < state.next_task:
            task = state.tasks[self._looked_at + 1]
            if task.status == "created":
                return
            self._looked_at += 1
            match = self._match(state, task) if task.id in state.waiting and not task.attempt.number else None
            if isinstance(match, Task) and match.manifest is not None:
                name = match.reused or match.attempt.cached_from or f"{self.origin.flow}/{self.origin.number}/{match.step}/{match.id}"
                yield TaskReused(
                    task.id, name, match.manifest, match.next_kind, match.next_steps, match.splits, match.items, match.variable, match.id,
                    match.caught, match.artifacts, match.size_bytes, match.attempt.cards if match.attempts else (),
                )  # fmt: skip

    def why(self, state: RunState, task: Task) -> RunAnew | None:
        """Why a task of the resumed run is not taken over; None where it is."""
        match = self._match(state, task)
        return match if isinstance(match, RunAnew) else None

    def _match(self, state: RunState, task: Task) -> Task | RunAnew:
        """The task of the origin whose result is taken over, or why there is none."""
        if task.step in self.again:
            return RunAnew("named" if task.step == self.named else "behind")
        parent = state.tasks[task.parent]
        before = [task.parent] if task.parent else []
        if state.graph[task.step].takes_inputs:
            before += state.splits[task.parent].arrived
        anew = next((state.tasks[number] for number in before if state.tasks[number].reused is None), None)
        if anew is not None:
            return RunAnew("after", f"{anew.step}/{anew.id}")
        match = self._children.get((parent.origin, task.step, index_of(task)))
        if match is None:
            return RunAnew("never")
        if match.status != "succeeded":
            return RunAnew("unfinished", f"{match.step}/{match.id}", match.status)
        if not _still_possible(state.graph, match):
            return RunAnew("otherwise", f"{match.step}/{match.id}")
        return match


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


def plan_of(origin: RunState, graph: Graph, step: str | None, *, only: bool = False) -> ReusePlan:
    """What a run of a graph takes over from its origin where `step`, if any, is to run anew; with `only` it then ends."""
    return ReusePlan(origin, behind(graph, step), step, only=only) if step else ReusePlan(origin, only=only)


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
