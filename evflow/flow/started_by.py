"""What started a run, as `current.trigger` and `Run.trigger` show it: a mapping of what is recorded, and Metaflow's members on it."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

_FINISH = "finish:"
"""What the id of the event begins with that tells of a run's end (`evflow.core.published`); the run's name follows."""


class TriggerEvent:
    """An event that started a run.

    Attributes:
        name: The event's name; for the end of a run its flow.
        id: The event's id; for the end of a run the run: `Flow/3`.
        type: `event`, or `run` for the end of a run.
    """

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self._at_us: int = recorded["at_us"]
        event_id: str = recorded["id"]
        is_run = event_id.startswith(_FINISH) and recorded["name"].startswith("evflow.")
        self.type = "run" if is_run else "event"
        self.id = event_id.removeprefix(_FINISH) if is_run else event_id
        self.name: str = self.id.partition("/")[0] if is_run else recorded["name"]

    @property
    def timestamp(self) -> "datetime":
        """When it was published, in UTC."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._at_us / 1e6, UTC)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and (self.id, self.name, self._at_us) == (other.id, other.name, other._at_us)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"TriggerEvent(name={self.name!r}, id={self.id!r}, type={self.type!r})"


class StartedBy(Mapping[str, Any]):
    """What started a run: `kind` (`schedule`, `event`) and what belongs to it, as a mapping; and the events.

    `trigger["NAME"]` also is the event of that name, or the run of the flow of that name.
    """

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self._recorded = dict(recorded)

    @property
    def events(self) -> list[TriggerEvent]:
        """The events that started the run, the ends of runs among them; none for a schedule."""
        return [TriggerEvent(one) for one in self._recorded.get("events", ())]

    @property
    def event(self) -> TriggerEvent | None:
        """The newest of them."""
        found = self.events
        return max(found, key=lambda one: one.timestamp) if found else None

    @property
    def runs(self) -> list[Any]:
        """The runs whose ends started this one, as the client sees them."""
        return [_run(one) for one in self.events if one.type == "run"]

    @property
    def run(self) -> Any:
        """The newest of them, or None."""
        found = [one for one in self.events if one.type == "run"]
        return _run(max(found, key=lambda one: one.timestamp)) if found else None

    def __getitem__(self, name: str) -> Any:
        if name in self._recorded:
            return self._recorded[name]
        for one in reversed(self.events):
            if one.name == name:
                return _run(one) if one.type == "run" else one
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._recorded or any(one.name == name for one in self.events)

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)

    def __repr__(self) -> str:
        return f"StartedBy({self._recorded!r})"


def _run(event: TriggerEvent) -> Any:
    # By name: the client stands above the flow language in the layers.
    return import_module("evflow.client").Run(event.id)
