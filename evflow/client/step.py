"""`Step`: the tasks of a run that ran the same method."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from evflow.client.errors import EvflowNotFound
from evflow.client.history import PARAMETERS, RunHistory, ended_us
from evflow.client.objects import Parent, local_time
from evflow.client.task import Task, environment_of
from evflow.core import state as core
from evflow.core.gangs import gang_of, lead_of
from evflow.errors import did_you_mean

if TYPE_CHECKING:
    from evflow.client.run import Run


class Step(Parent[Task]):
    """A step of a run. Iterating over it gives its tasks, newest first; `step["7"]` is one of them.

    Args:
        pathspec: `FlowName/RunID/StepName`.

    Raises:
        EvflowInvalidPathspec: The pathspec has another form.
        EvflowNotFound: The run has no such step, or has not reached it.
        EvflowNamespaceMismatch: It is not in the namespace in force.
    """

    kind = "Step"
    child = "task"
    depth = 3

    __slots__ = ()

    @property
    def task(self) -> Task | None:
        """The newest task, or None."""
        numbers = self._history.tasks_of(self.id)
        return self._make(str(numbers[-1])) if numbers else None

    def tasks(self, *tags: str) -> Iterator[Task]:
        """The tasks, newest first; with tags, none unless the run has all of them."""
        return self._tagged(tags)

    @property
    def control_task(self) -> Task | None:
        """The task of node 0 of the newest gang, or None; see `control_tasks`."""
        return next(self.control_tasks(), None)

    def control_tasks(self, *tags: str) -> Iterator[Task]:
        """The task of node 0 of each gang of a `@parallel` step, newest first; nothing of any other step. Tags as for `tasks`."""
        tasks = self._history.known().tasks
        return (task for task in self._tagged(tags) if _is_control(tasks[int(task.id)]))

    @property
    def created_at(self) -> datetime:
        """When the first task was created."""
        history = self._history
        return local_time(history.known().tasks[history.tasks_of(self.id)[0]].created_us)

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its tasks ended; None as long as one goes on."""
        history = self._history
        times = [ended_us(history.task(number)) for number in history.tasks_of(self.id)]
        return local_time(max(times)) if times and all(times) else None

    @property
    def environment_info(self) -> dict[str, str]:
        """What its tasks ran with: versions of Python and evflow, the script, the host, the code package, its `@pypi` or `@conda`."""
        return environment_of(self._history, self.id)

    @property
    def parent_steps(self) -> Iterator["Step"]:
        """The steps whose tasks led to this one's."""
        return self._related(number for task in self._history.tasks_of(self.id) for number in self._history.parents(task))

    @property
    def child_steps(self) -> Iterator["Step"]:
        """The steps to which this one's tasks led."""
        return self._related(number for task in self._history.tasks_of(self.id) for number in self._history.children(task))

    def _related(self, numbers: Iterator[int]) -> Iterator["Step"]:
        history = self._history
        state = history.known()
        names = dict.fromkeys(state.tasks[number].step for number in numbers)
        return iter([Step.of((*self.parts[:2], name), history) for name in names])

    @property
    def parent(self) -> "Run":
        """The run."""
        from evflow.client.run import Run

        return Run.of(self.parts[:2], self._history)

    @property
    def origin_pathspec(self) -> str | None:
        """The same step of the run that this one resumes, or None."""
        origin = self.parent.origin_pathspec
        return f"{origin}/{self.id}" if origin else None

    # --- children -------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [str(number) for number in reversed(self._history.tasks_of(self.id))]

    def _has(self, name: str) -> bool:
        return name.isdecimal() and self._history.has_task(self.id, int(name))

    def _make(self, name: str) -> Task:
        return Task.of((*self.parts, name), self._history)

    def _check(self, history: RunHistory) -> None:
        name = self.id
        if name != PARAMETERS and name not in history.steps():
            raise EvflowNotFound(self.kind, self.pathspec, _hint(history, name))


def _is_control(task: core.Task) -> bool:
    return gang_of(task) is not None and lead_of(task) == task.id


def _hint(history: RunHistory, name: str) -> str:
    state = history.known()
    if name in state.graph:
        return "The run has not reached this step." if not state.over else "The run ended before it reached this step."
    return f"{did_you_mean(name, list(state.graph.nodes))} The steps of the flow are: {', '.join(state.graph.nodes)}.".lstrip()
