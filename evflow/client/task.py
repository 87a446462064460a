"""`Task`: one execution of a step, and what it left behind."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from evflow.client.artifact import Artifacts, DataArtifact, TaskData
from evflow.client.data import RunData
from evflow.client.errors import EvflowNotFound, NoSuchAttempt
from evflow.client.history import PARAMETERS, RunHistory, ended_us
from evflow.client.objects import Parent, local_time, split
from evflow.client.output import LogText, drawn, output_of
from evflow.core import state as core
from evflow.core.gangs import PARALLEL
from evflow.flow import dialect

if TYPE_CHECKING:
    from evflow.client.code import RunCode
    from evflow.client.step import Step
    from evflow.core.cards import RecordedCard
    from evflow.exception import ExceptionWrapper
    from evflow.store.live_cards import LiveCard

_RUNTIME = "runtime:"
_FLOW_NAME = "name"

__all__ = ["Metadata", "Task", "TaskData", "environment_of"]


class Metadata(NamedTuple):
    """A fact about a task, as text; `created_at` in milliseconds since 1970."""

    name: str
    value: str
    created_at: int
    type: str
    task: "Task"


class Task(Parent[DataArtifact]):
    """A task. Iterating over it gives its public artifacts; `task["model"]` is one of them, `task.data.model` its value.

    Args:
        pathspec: `FlowName/RunID/StepName/TaskID`.
        attempt: Look at this attempt, counted from 0, and not at the one that counts.

    Raises:
        EvflowInvalidPathspec: The pathspec has another form.
        EvflowNotFound: There is no such task.
        EvflowNamespaceMismatch: It is not in the namespace in force.
        NoSuchAttempt: It has no such attempt.
    """

    kind = "Task"
    child = "artifact"
    depth = 4

    __slots__ = ("_attempt", "_number")

    def __init__(self, pathspec: str, attempt: int | None = None, *, _namespace_check: bool = True) -> None:
        self._attempt = attempt
        number = split(self.kind, self.depth, pathspec)[-1]
        self._number = int(number) if number.isdecimal() else -1
        super().__init__(pathspec, _namespace_check=_namespace_check)

    @classmethod
    def of(cls, parts: tuple[str, ...], history: RunHistory | None, attempt: int | None = None) -> Self:
        """See `ClientObject.of`."""
        made = super().of(parts, history)
        made._attempt = attempt  # noqa: SLF001 - its own class
        made._number = int(parts[3])  # noqa: SLF001
        return made

    @classmethod
    def restored(cls, parts: tuple[str, ...], attempt: int | None = None) -> Self:
        """See `ClientObject.restored`."""
        return cls.of(parts, None, attempt)

    def __repr__(self) -> str:
        return super().__repr__() if self._attempt is None else f"Task('{self.pathspec}', attempt={self._attempt})"

    # --- how it went ----------------------------------------------------------------------------------------

    @property
    def successful(self) -> bool:
        """Whether it succeeded, without an exception that `@catch` took; as it is now."""
        task = self._history.task(self._number)
        if self._attempt is None:
            return task.status == "succeeded" and task.caught is None
        return task.attempts[self._attempt].outcome == "succeeded" and task.caught is None

    @property
    def finished(self) -> bool:
        """Whether it is done, with or without an exception that `@catch` took, or skipped. A task that failed is not: see `status`."""
        task = self._history.task(self._number)
        if self._attempt is None:
            return task.status in ("succeeded", "skipped")
        return task.attempts[self._attempt].outcome == "succeeded"

    @property
    def skipped(self) -> bool:
        """Whether somebody let the run go on without it (`evflow skip`): its artifacts are those that it had got."""
        return self._history.task(self._number).status == "skipped"

    @property
    def status(self) -> str:
        """`created`, `queued`, `granted`, `launched`, `running`, `retrying`, `succeeded`, `skipped`, `failed` or `cancelled`; as it is now."""
        return self._history.task(self._number).status

    @property
    def exception(self) -> "ExceptionWrapper | None":
        """What the attempt failed with: text, class and the traceback's user frames. None for one that `@catch` took."""
        attempt = self._current
        if attempt is None or attempt.outcome in ("", "succeeded"):
            return None
        from evflow.client.failure import exception_of

        return exception_of(self._history, attempt)

    @property
    def created_at(self) -> datetime:
        """When the task came into being; of an attempt, when it was queued."""
        task = self._history.known().tasks[self._number]
        return local_time(task.created_us if self._attempt is None else task.attempts[self._attempt].queued_us)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, however it ended, or None."""
        task = self._history.task(self._number)
        at_us = ended_us(task) if self._attempt is None else task.attempts[self._attempt].ended_us
        return local_time(at_us) if at_us else None

    @property
    def current_attempt(self) -> int:
        """The attempt that this object looks at, counted from 0."""
        attempt = self._current
        return attempt.number if attempt is not None else 0

    def __getitem__(self, name: str | int) -> DataArtifact:
        """An artifact; also one of those that Metaflow keeps beside the user's (`_graph_info`, `_foreach_stack`, ...).

        Raises:
            KeyError: There is none of that name.
        """
        if str(name).startswith("_") and name not in self:
            from evflow.client.recorded import NAMES, RecordedArtifact

            if name in NAMES:
                return RecordedArtifact.of_task(self, str(name))
        return super().__getitem__(name)

    # --- artifacts ------------------------------------------------------------------------------------------

    @property
    def data(self) -> TaskData:
        """The artifacts' values as attributes: `task.data.model`, `"model" in task.data`, `dir(task.data)`."""
        return TaskData(self)

    @property
    def artifacts(self) -> Artifacts:
        """The artifacts themselves as attributes, none loaded: `task.artifacts.model.size`."""
        return Artifacts(self)

    # --- output ---------------------------------------------------------------------------------------------

    @property
    def stdout(self) -> str:
        """What the attempt printed to stdout, so far."""
        return self._output("stdout").text()

    @property
    def stderr(self) -> str:
        """What the attempt printed to stderr, so far."""
        return self._output("stderr").text()

    @property
    def stdout_size(self) -> int:
        """Size of `stdout` in bytes."""
        return len(self.stdout.encode())

    @property
    def stderr_size(self) -> int:
        """Size of `stderr` in bytes."""
        return len(self.stderr.encode())

    def loglines(self, stream: str, as_unicode: bool = True) -> Iterator[tuple[datetime, Any]]:
        """The lines of `stdout` or `stderr` with the time at which each was read, in this machine's time zone.

        Args:
            stream: Which.
            as_unicode: Text; else bytes.
        """
        return ((local_time(at_us), text if as_unicode else text.encode()) for at_us, text in self._output(stream).lines())

    def _output(self, stream: str) -> LogText:
        return output_of(self._history, self._history.task(self._number), self.current_attempt, stream)

    # --- its place ------------------------------------------------------------------------------------------

    @property
    def index(self) -> int | None:
        """Its position in the innermost foreach around it, or None."""
        frames = self._foreach_frames()
        return frames[-1].index if frames else None

    @property
    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """Every foreach around it, outermost first: `(index, number of items, item)`; the items are loaded."""
        data = self._history.data
        return [(frame.index, frame.split.size, _item(data, frame)) for frame in self._foreach_frames()]

    @property
    def parent_tasks(self) -> Iterator["Task"]:
        """The tasks whose artifacts it got; for a join, all that it joined."""
        return self._tasks(self._history.parents(self._number))

    @property
    def child_tasks(self) -> Iterator["Task"]:
        """The tasks that got its artifacts, as far as they exist now."""
        return self._tasks(self._history.children(self._number))

    @property
    def parent_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of `parent_tasks`."""
        return (task.pathspec for task in self.parent_tasks)

    @property
    def child_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of `child_tasks`."""
        return (task.pathspec for task in self.child_tasks)

    @property
    def parent(self) -> "Step":
        """The step."""
        from evflow.client.step import Step

        return Step.of(self.parts[:3], self._history)

    @property
    def origin_pathspec(self) -> str | None:
        """The task that did the work, where a resumed run took its result over; else None."""
        return self._history.task(self._number).reused

    @property
    def cached_from(self) -> str | None:
        """The task whose result `@cached` took in place of running the step; else None."""
        attempts = self._history.task(self._number).attempts
        return (attempts[-1].cached_from or None) if attempts else None

    # --- facts about it -------------------------------------------------------------------------------------

    @property
    def metadata(self) -> list[Metadata]:
        """Facts about the task and its attempts, as texts; of one whose result a resumed run took over, also those of where it ran."""
        from evflow.client.facts import facts_of

        history = self._history
        found = [Metadata(*fact, self) for fact in facts_of(history, history.task(self._number))]
        if self.origin_pathspec is None:
            return found
        from evflow.client.facts import facts_there

        names = {datum.name for datum in found}
        return found + [Metadata(*fact, self) for fact in facts_there(self.origin_pathspec) if fact[0] not in names]

    @property
    def metadata_dict(self) -> dict[str, str]:
        """`metadata` by name; of several with one name, the last."""
        return {datum.name: datum.value for datum in self.metadata}

    @property
    def runtime_name(self) -> str | None:
        """What ran it, from the run's tag `runtime:…`; `dev` for a foreground run."""
        return next((tag.removeprefix(_RUNTIME) for tag in self.system_tags if tag.startswith(_RUNTIME)), None)

    @property
    def code(self) -> "RunCode | None":
        """The code package of the run, or None where none was made."""
        from evflow.client.code import RunCode

        return RunCode.of(self._history)

    @property
    def environment_info(self) -> dict[str, str]:
        """What it ran with: versions of Python and evflow, the script, the host, the code package, its step's `@pypi` or `@conda`."""
        return environment_of(self._history, self.parts[2])

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _current(self) -> core.Attempt | None:
        attempts = self._history.task(self._number).attempts
        if self._attempt is not None:
            return attempts[self._attempt]
        return attempts[-1] if attempts else None

    def manifest(self) -> bytes | None:
        """Digest of the manifest of its artifacts, or None as long as it has none."""
        task = self._history.task(self._number)
        if self._attempt is not None:
            return task.attempts[self._attempt].manifest
        return task.manifest or (task.attempts[-1].manifest if task.attempts else None)

    def recorded_cards(self) -> "list[RecordedCard]":
        """The cards of the attempt that counts, as the log names them; see `evflow.cards.get_cards`."""
        from evflow.core.cards import of_task

        return of_task(self._history.task(self._number), self._attempt)

    def drawn_cards(self) -> "list[LiveCard]":
        """The cards of its attempt as they were drawn last while that went on; see `evflow.cards.get_cards`."""
        return drawn(self._history, self._history.task(self._number), self.current_attempt)

    def text(self, digest: bytes) -> str:
        """A text among the objects of its run's store.

        Raises:
            DataElsewhere: It lies on another machine.
            ObjectMissing: It is nowhere.
        """
        return self._history.data.text(digest)

    def artifact_names(self) -> tuple[str, ...]:
        """The names of its artifacts, sorted, private ones included."""
        manifest = self.manifest()
        return self._with_name(self._history.data.names(manifest)) if manifest is not None else ()

    def _foreach_frames(self) -> list[core.Frame]:
        return [frame for frame in self._history.known().tasks[self._number].frames() if frame.split.kind in ("foreach", "parallel")]

    def _tasks(self, numbers: list[int]) -> Iterator["Task"]:
        history = self._history
        tasks = history.known().tasks
        return iter([Task.of((*self.parts[:2], tasks[number].step, str(number)), history) for number in numbers])

    def _names(self) -> Sequence[str]:
        manifest = self.manifest()
        return self._with_name(self._history.data.public_names(manifest)) if manifest is not None else ()

    def _with_name(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Under Metaflow's rules a task has the flow's name as an artifact, unless it has another one of that name."""
        if not dialect.is_metaflow() or _FLOW_NAME in names:
            return names
        return tuple(sorted((*names, _FLOW_NAME)))

    def _has(self, name: str) -> bool:
        return name in self.artifact_names()

    def _make(self, name: str) -> DataArtifact:
        manifest = self.manifest()
        if name == _FLOW_NAME and dialect.is_metaflow() and manifest is not None and name not in self._history.data.names(manifest):
            from evflow.client.recorded import RecordedArtifact

            return RecordedArtifact.of_task(self, name)
        return DataArtifact.of_task(self, name)

    def _identity(self) -> tuple[Any, ...]:
        return (self.parts, self._attempt)

    def _check(self, history: RunHistory) -> None:
        step = self.parts[2]
        if not history.has_task(step, self._number):
            raise EvflowNotFound(self.kind, self.pathspec, _hint(history, step, self._number))
        attempts = history.now().tasks[self._number].attempts
        if self._attempt is not None and self._attempt not in range(len(attempts)):
            raise NoSuchAttempt(self.pathspec, self._attempt, len(attempts))


def _item(data: RunData, frame: core.Frame) -> Any:
    """The item of a foreach; the place of a gang's node."""
    if frame.split.kind == PARALLEL:
        return frame.index
    return data.item(frame.split.items, frame.index) if frame.split.items else None


def environment_of(history: RunHistory, step: str = "") -> dict[str, str]:
    """What a run ran with, or a step of it."""
    header, code = history.known().header, history.code()
    package: bytes | None = code.get("package")
    found: dict[str, Any] = {
        "script": code.get("file"),
        "python_version": code.get("python"),
        "evflow_version": code.get("evflow"),
        "user": header.get("user"),
        "host": header.get("host"),
        "package": package.hex() if package else "",
    }
    environments: Sequence[Mapping[str, Any]] = header.get("options", {}).get("environments", ())
    for entry in environments:
        if step in entry["steps"] and entry.get("lock"):
            found |= {"environment": entry["asked"], "environment_lock": entry["lock"].hex(), "python_version": entry["python"]}
    return {name: str(value) for name, value in found.items() if value}


def _hint(history: RunHistory, step: str, number: int) -> str:
    state = history.known()
    if 0 <= number < len(state.tasks):
        return f"Task {number} is one of step '{state.tasks[number].step}'."
    numbers = [0] if step == PARAMETERS else history.tasks_of(step)
    if not numbers:
        return f"The steps of the flow are: {', '.join(state.graph.nodes)}."
    shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return f"The tasks of this step are: {shown}."
