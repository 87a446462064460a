"""`Flow`: all runs of a flow."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Self

from evflow.client import namespaces
from evflow.client.connection import SharedLog, shared_log
from evflow.client.errors import EvflowNamespaceMismatch, NoSuchChild
from evflow.client.history import RunHistory
from evflow.client.objects import flow_entry_missing, local_time, split
from evflow.client.run import Run, run_of
from evflow.core import flow_events
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.protocol import RunEntry

_FIRST_LOOK = 20
"""Runs of the index that are read first: the newest one is nearly always among them."""
_SHOWN = 10


class Flow:
    """A flow. Iterating over it gives its runs, newest first; `flow["3"]` and `flow[3]` are one of them.

    It holds the namespace that was in force when it was made.

    Args:
        name: The flow's name.

    Raises:
        EvflowInvalidPathspec: It cannot be the name of a flow.
        EvflowNotFound: No such flow ever ran.
        EvflowNamespaceMismatch: None of its runs is in the namespace in force.
    """

    __slots__ = ("__weakref__", "_log", "_namespace", "id")

    def __init__(self, name: str, *, _namespace_check: bool = True) -> None:
        (self.id,) = split("Flow", 1, name)
        self._namespace = namespaces.get_namespace() if _namespace_check else None
        self._log: SharedLog | None = shared_log()
        if not (self._log.exists() and self.id in self._log.ask(lambda log: log.flows())):
            raise flow_entry_missing(self._log, self.id)
        if self._namespace is not None and self.latest_run is None:
            raise EvflowNamespaceMismatch("Flow", self.id, self._namespace, ())

    @classmethod
    def of(cls, name: str, log: SharedLog | None, *namespace: str | None) -> Self:
        """A flow that is known to exist."""
        made = cls.__new__(cls)
        made.id = name
        made._log = log  # noqa: SLF001 - its own class
        made._namespace = namespace[0] if namespace else namespaces.get_namespace()  # noqa: SLF001
        return made

    # --- runs -----------------------------------------------------------------------------------------------

    @property
    def latest_run(self) -> Run | None:
        """The newest run, whatever became of it, or None."""
        return next(iter(self), None)

    @property
    def latest_successful_run(self) -> Run | None:
        """The newest run that is successful, or None."""
        for history in self._histories(_Tags(self._shared, FlowName(self.id))):
            # The index may lag behind a run that has just ended, never behind one that failed or was cancelled.
            if history.entry.summary.get("status") in ("succeeded", "running", "paused"):
                run = run_of(history)
                if run.successful:
                    return run
        return None

    def runs(self, *tags: str) -> Iterator[Run]:
        """The runs that have all of these tags, newest first."""
        current = _Tags(self._shared, FlowName(self.id))
        return (run_of(history) for history in self._histories(current) if not tags or current.of(history).issuperset(tags))

    def __iter__(self) -> Iterator[Run]:
        return self.runs()

    def __getitem__(self, number: str | int) -> Run:
        """A run.

        Raises:
            KeyError: There is none of that number.
            EvflowNamespaceMismatch: It is not in the namespace.
        """
        history = self._history(str(number))
        if history is None:
            newest = [str(entry.run.number) for entry in self._shared.ask(lambda log: log.runs(FlowName(self.id), _SHOWN))]
            raise NoSuchChild(self, "run", number, newest)
        if not history.in_namespace(self._namespace):
            raise EvflowNamespaceMismatch("Run", str(history.run), str(self._namespace), history.tags)
        return run_of(history)

    def __contains__(self, number: object) -> bool:
        history = self._history(str(number)) if isinstance(number, str | int) else None
        return history is not None and history.in_namespace(self._namespace)

    # --- names ----------------------------------------------------------------------------------------------

    @property
    def pathspec(self) -> str:
        """The flow's name."""
        return self.id

    @property
    def path_components(self) -> list[str]:
        """The flow's name, alone."""
        return [self.id]

    @property
    def parent(self) -> None:
        """Nothing stands above a flow."""
        return

    @property
    def origin_pathspec(self) -> None:
        """A flow resumes nothing."""
        return

    @property
    def tags(self) -> frozenset[str]:
        """None: runs have tags."""
        return frozenset()

    user_tags = tags
    system_tags = tags

    def is_in_namespace(self) -> bool:
        """Whether one of its runs is in the namespace in force."""
        ns = namespaces.get_namespace()
        current = _Tags(self._shared, FlowName(self.id))
        return any(current.hold(ns, history) for history in self._all())

    @property
    def created_at(self) -> datetime:
        """When its first run was asked for."""
        first = self._shared.ask(lambda log: log.flow_events(FlowName(self.id), 0, 1))
        return local_time(flow_events.decode(*first[0]).at_us)

    def __repr__(self) -> str:
        return f"Flow('{self.id}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flow) and other.id == self.id

    def __hash__(self) -> int:
        return hash(("Flow", self.id))

    def __reduce__(self) -> tuple[Any, ...]:
        return Flow.of, (self.id, None, self._namespace)

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _shared(self) -> SharedLog:
        if self._log is None:
            self._log = shared_log()
        return self._log

    def _histories(self, current: "_Tags") -> Iterator[RunHistory]:
        return (history for history in self._all() if current.hold(self._namespace, history))

    def _all(self) -> Iterator[RunHistory]:
        log = self._shared
        return (log.history(entry) for entry in _index(log, FlowName(self.id)))

    def _history(self, number: str) -> RunHistory | None:
        if not number.isdecimal():
            return None
        run = RunId(FlowName(self.id), RunNumber(int(number)))
        entry = self._shared.ask(lambda log: log.run(run))
        return self._shared.history(entry) if entry is not None else None


class _Tags:
    """The tags of a flow's runs while somebody goes through them: one request, made when a run's system tags do not tell."""

    __slots__ = ("_changed", "_flow", "_log")

    def __init__(self, log: SharedLog, flow: FlowName) -> None:
        self._log = log
        self._flow = flow
        self._changed: dict[RunNumber, tuple[str, ...]] | None = None

    def of(self, history: RunHistory) -> frozenset[str]:
        """All tags of a run."""
        if self._changed is None:
            self._changed = self._log.ask(lambda log: log.all_tags(self._flow))
        changed = self._changed.get(history.run.number)
        return history.system_tags.union(history.entry.summary.get("tags", ()) if changed is None else changed)

    def hold(self, ns: str | None, history: RunHistory) -> bool:
        """Whether a run is in a namespace."""
        return ns is None or ns in history.system_tags or ns in self.of(history)


def _index(log: SharedLog, flow: FlowName) -> Iterator[RunEntry]:
    """The lines of the index, newest first; the old ones are read only by who comes so far."""
    newest = log.ask(lambda asked: asked.runs(flow, _FIRST_LOOK))
    yield from newest
    if len(newest) == _FIRST_LOOK:
        last = newest[-1].run.number
        yield from (entry for entry in log.ask(lambda asked: asked.runs(flow)) if entry.run.number < last)
