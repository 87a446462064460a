"""`Evflow`: where everything begins, as `Metaflow` does there."""

from collections.abc import Iterator

from evflow.client import namespaces
from evflow.client.connection import shared_log
from evflow.client.errors import EvflowNamespaceMismatch, NoSuchChild
from evflow.client.flow import Flow


class Evflow:
    """All flows with a run in the namespace in force: `Evflow().flows`, `for flow in Evflow()`, `Evflow()["Hello"]`."""

    __slots__ = ()

    @property
    def flows(self) -> list[Flow]:
        """The flows, by name."""
        return list(self)

    def __iter__(self) -> Iterator[Flow]:
        log = shared_log()
        ns = namespaces.get_namespace()
        for name in _names():
            flow = Flow.of(name, log, ns)
            if ns is None or flow.latest_run is not None:
                yield flow

    def __getitem__(self, name: str) -> Flow:
        """A flow.

        Raises:
            KeyError: No such flow ever ran.
            EvflowNamespaceMismatch: None of its runs is in the namespace in force.
        """
        names = _names()
        if name not in names:
            raise NoSuchChild(self, "flow", name, names)
        return Flow(name)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except (KeyError, EvflowNamespaceMismatch):
            return False

    def __repr__(self) -> str:
        return "Evflow()"


def _names() -> list[str]:
    log = shared_log()
    return list(log.ask(lambda asked: asked.flows())) if log.exists() else []
