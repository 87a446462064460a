"""`DataArtifact`, and the two ways to a task's artifacts by attribute: `task.data` (values) and `task.artifacts`."""

# ruff: noqa: SLF001 - tasks and artifacts make each other
# pyright: reportPrivateUsage=false

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from evflow.client.errors import EvflowNotFound, NoSuchArtifact
from evflow.client.history import RunHistory
from evflow.client.objects import ClientObject
from evflow.errors import did_you_mean

if TYPE_CHECKING:
    from evflow.client.task import Task
    from evflow.store.artifacts import Entry


class DataArtifact(ClientObject):
    """An artifact. Its value is loaded, anew, each time that `data` is asked for.

    Args:
        pathspec: `FlowName/RunID/StepName/TaskID/ArtifactName`.
        attempt: That of this attempt, counted from 0, and not that of the one that counts.

    Raises:
        EvflowInvalidPathspec: The pathspec has another form.
        EvflowNotFound: There is no such artifact.
        EvflowNamespaceMismatch: It is not in the namespace in force.
    """

    kind = "DataArtifact"
    depth = 5

    __slots__ = ("_attempt",)

    def __init__(self, pathspec: str, attempt: int | None = None, *, _namespace_check: bool = True) -> None:
        self._attempt = attempt
        super().__init__(pathspec, _namespace_check=_namespace_check)

    @classmethod
    def of_task(cls, task: "Task", name: str) -> Self:
        """An artifact that a task is known to have."""
        made = cls.__new__(cls)
        made.parts = (*task.parts, name)
        made._history = task._history
        made._attempt = task._attempt
        return made

    @classmethod
    def restored(cls, parts: tuple[str, ...], attempt: int | None = None) -> Self:
        """See `ClientObject.restored`."""
        made = cls.of(parts, None)
        made._attempt = attempt
        return made

    def __repr__(self) -> str:
        return super().__repr__() if self._attempt is None else f"DataArtifact('{self.pathspec}', attempt={self._attempt})"

    @property
    def data(self) -> Any:
        """The value, loaded now; an array can be written to.

        Raises:
            ArtifactNotLoadable: A module or class that it needs is missing here, or raises.
            DataElsewhere: It lies on the disk of another machine.
            ObjectMissing: The store has not its bytes.
            ObjectDamaged: They are not those that were written.
        """
        return self._history.data.load(self.id, self._entry)

    @property
    def size(self) -> int:
        """Its size in bytes, serialised."""
        return self._entry.size

    @property
    def sha(self) -> str:
        """SHA-256 of its serialised bytes: equal for equal values."""
        return self._entry.digest.hex()

    @property
    def type(self) -> str:
        """The name of the value's type; nothing is loaded for it."""
        return self._entry.type

    @property
    def created_at(self) -> datetime | None:
        """When the task that left it behind ended."""
        return self.parent.finished_at

    @property
    def finished_at(self) -> datetime | None:
        """As `created_at`."""
        return self.parent.finished_at

    @property
    def parent(self) -> "Task":
        """The task."""
        from evflow.client.task import Task

        return Task.of(self.parts[:4], self._history, self._attempt)

    @property
    def origin_pathspec(self) -> str | None:
        """The same artifact of the task that did the work, where a resumed run took its result over; else None."""
        origin = self.parent.origin_pathspec
        return f"{origin}/{self.id}" if origin else None

    @property
    def _entry(self) -> "Entry":
        manifest = self.parent.manifest()
        assert manifest is not None
        return self._history.data.view(manifest).entry(self.id)

    def _identity(self) -> tuple[Any, ...]:
        return (self.parts, self._attempt)

    def _check(self, history: RunHistory) -> None:
        from evflow.client.task import Task

        task = Task.of(self.parts[:4], history, self._attempt)
        task._check(history)
        names = task.artifact_names()
        if self.id not in names:
            hint = f"The task has: {', '.join(names[:20])}.{did_you_mean(self.id, names)}" if names else absence(task).strip()
            raise EvflowNotFound(self.kind, self.pathspec, hint)


class _ByName:
    """A task's artifacts as attributes."""

    __slots__ = ("_task",)

    def __init__(self, task: "Task") -> None:
        self._task = task

    def _get(self, name: str) -> DataArtifact:
        task = self._task
        if name.startswith("__"):  # what copy, pickle and shells look for
            raise AttributeError(name)
        if name not in task:
            names = [known for known in task.artifact_names() if not known.startswith("_")]
            raise NoSuchArtifact(task.pathspec, name, names, absence(task) if not names else "")
        return task._make(name)

    def _public(self) -> list[str]:
        return [artifact.id for artifact in self._task]

    def __contains__(self, name: object) -> bool:
        return name in self._task

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self._public()]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._task,)


class TaskData(_ByName):
    """The values of a task's artifacts; each access loads one."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return self._get(name).data

    def __repr__(self) -> str:
        return f"<TaskData of {self._task.pathspec}: {', '.join(self._public())}>"


class Artifacts(_ByName):
    """The artifacts of a task, none loaded; iterable, as the task is."""

    __slots__ = ()

    def __getattr__(self, name: str) -> DataArtifact:
        return self._get(name)

    def __iter__(self) -> Iterator[DataArtifact]:
        return iter(self._task)

    def __len__(self) -> int:
        return len(self._public())

    def _asdict(self) -> dict[str, DataArtifact]:
        """The artifacts by name, as a named tuple gives them."""
        return {artifact.id: artifact for artifact in self._task}

    @property
    def _fields(self) -> tuple[str, ...]:
        return tuple(self._public())

    def __repr__(self) -> str:
        return f"Artifacts({', '.join(self._public())})"


def absence(task: "Task") -> str:
    """Why a task has no artifacts at all, or an empty string."""
    if task.manifest() is not None:
        return ""
    status = task.status
    if status == "failed":
        return " It failed, and a task that failed leaves none."
    return " It was cancelled." if status == "cancelled" else f" It has none yet: it is {status}."
