"""What all objects of the client share: a pathspec, a run's history, tags, children by name.

An object that a user makes is looked up at once and must be in the namespace; one that another object gives is known to
be there and is not asked again. An unpickled one is looked up when it is used for the first time.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

from evflow.client import namespaces
from evflow.client.connection import SharedLog, shared_log
from evflow.client.errors import EvflowInvalidPathspec, EvflowNamespaceMismatch, EvflowNotFound, NoSuchChild
from evflow.client.history import RunHistory
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.errors import did_you_mean

C = TypeVar("C", bound="ClientObject")

FORMS = ("FlowName", "RunID", "StepName", "TaskID", "ArtifactName")


def local_time(at_us: int) -> datetime:
    """An instant as Metaflow shows it: this machine's time zone, not named in the value."""
    return datetime.fromtimestamp(at_us / 1e6)  # noqa: DTZ006 - see above


def split(kind: str, depth: int, pathspec: object) -> tuple[str, ...]:
    """Take a pathspec apart.

    Raises:
        EvflowInvalidPathspec: It has not `depth` parts.
    """
    parts = tuple(pathspec.split("/")) if isinstance(pathspec, str) else ()
    if len(parts) != depth or not all(parts):
        raise EvflowInvalidPathspec(kind, "/".join(FORMS[:depth]), pathspec)
    return parts


def flow_entry_missing(log: SharedLog, flow: str) -> EvflowNotFound:
    """The error for a flow that never ran here."""
    flows = log.ask(lambda asked: asked.flows()) if log.exists() else []
    if not flows:
        hint = f"There are no runs in {log.where} yet. Is EVFLOW_HOME or EVFLOW_REDIS_URL the one that the run used?"
    else:
        hint = f"{did_you_mean(flow, flows)} There are runs of: {', '.join(flows[:20])}.".lstrip()
    return EvflowNotFound("Flow", flow, hint)


def find_run(flow: str, number: str) -> RunHistory:
    """The history of a run.

    Raises:
        EvflowNotFound: There is no such run.
    """
    log = shared_log()
    entry = None
    if flow.isidentifier() and number.isdecimal() and int(number) > 0 and log.exists():
        run = RunId(FlowName(flow), RunNumber(int(number)))
        entry = log.ask(lambda asked: asked.run(run))
    if entry is not None:
        return log.history(entry)
    newest = log.ask(lambda asked: asked.runs(FlowName(flow), 5)) if flow.isidentifier() and log.exists() else []
    hint = f"Its newest runs are: {', '.join(str(found.run) for found in newest)}." if newest else flow_entry_missing(log, flow).hint
    raise EvflowNotFound("Run", f"{flow}/{number}", hint)


class ClientObject:
    """The base of everything below a flow.

    Attributes:
        parts: The pathspec's parts.
    """

    kind: ClassVar[str]
    depth: ClassVar[int]

    __slots__ = ("__weakref__", "_history", "parts")

    _history: RunHistory

    def __init__(self, pathspec: str, *, _namespace_check: bool = True) -> None:
        self.parts = split(self.kind, self.depth, pathspec)
        history = self._history  # looks the object up: see `__getattr__`
        ns = namespaces.get_namespace()
        if _namespace_check and not history.in_namespace(ns):  # left out by code written for Metaflow that knows what it does
            raise EvflowNamespaceMismatch(self.kind, pathspec, str(ns), history.tags)

    @classmethod
    def of(cls, parts: tuple[str, ...], history: RunHistory | None) -> Self:
        """An object that is known to exist, or (without a history) one that is looked up at its first use."""
        made = cls.__new__(cls)
        made.parts = parts
        if history is not None:
            made._history = history  # noqa: SLF001 - its own class
        return made

    @classmethod
    def restored(cls, parts: tuple[str, ...]) -> Self:
        """An object that was pickled; its namespace was checked when it was made."""
        return cls.of(parts, None)

    def _check(self, history: RunHistory) -> None:
        """See that the object exists.

        Raises:
            EvflowNotFound: It does not.
        """

    def __getattr__(self, name: str) -> Any:
        # The slot is empty until the object was looked up; a slot costs the thousands of accesses of a loop nothing.
        if name != "_history":
            raise AttributeError(f"'{self.kind}' object has no attribute '{name}'", name=name, obj=self)
        history = find_run(*self.parts[:2])
        self._check(history)
        self._history = history
        return history

    # --- names ----------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The last part of the pathspec."""
        return self.parts[-1]

    @property
    def pathspec(self) -> str:
        """The object's name among all: `Flow/run/step/task/artifact`, as far as it goes."""
        return "/".join(self.parts)

    @property
    def path_components(self) -> list[str]:
        """The parts of the pathspec."""
        return list(self.parts)

    def __repr__(self) -> str:
        return f"{self.kind}('{self.pathspec}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientObject) and type(other) is type(self) and other._identity() == self._identity()

    def __hash__(self) -> int:
        return hash((self.kind, self._identity()))

    def _identity(self) -> tuple[Any, ...]:
        """What `restored` takes."""
        return (self.parts,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), *self._identity())

    # --- what belongs to the run ----------------------------------------------------------------------------

    @property
    def tags(self) -> frozenset[str]:
        """The run's tags: the user's and evflow's."""
        return self._history.tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that users gave the run."""
        return self._history.user_tags

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that evflow gave the run, such as `user:ada`."""
        return self._history.system_tags

    def is_in_namespace(self) -> bool:
        """Whether the run is in the namespace in force."""
        return self._history.in_namespace(namespaces.get_namespace())


class Parent(ClientObject, Generic[C]):
    """An object with children: iterable, newest first, and indexed by their ids."""

    child: ClassVar[str]

    __slots__ = ()

    def _names(self) -> Collection[str]:
        """The children's ids, newest first."""
        raise NotImplementedError

    def _has(self, name: str) -> bool:
        """Whether there is such a child, hidden ones included."""
        return name in self._names()

    def _make(self, name: str) -> C:
        """A child that exists."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[C]:
        return map(self._make, self._names())

    def __getitem__(self, name: str | int) -> C:
        """A child.

        Raises:
            KeyError: There is none of that id.
        """
        text = str(name)
        if not self._has(text):
            raise NoSuchChild(self, self.child, text, self._names())
        return self._make(text)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | int) and self._has(str(name))

    def _tagged(self, tags: tuple[str, ...]) -> Iterator[C]:
        """All children, or none: they have their run's tags."""
        return iter(self) if not tags or self.tags.issuperset(tags) else iter(())


def _unpickled(cls: type[ClientObject], *identity: Any) -> ClientObject:
    return cls.restored(*identity)
