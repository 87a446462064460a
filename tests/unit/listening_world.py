"""A flow with triggers, deployed in a simulated log whose clock a test sets, and processes that may die at any act."""

from pathlib import Path
from typing import Any, cast

from evflow import FlowSpec, Parameter, step, trigger
from evflow.client.publishing import made_of, send
from evflow.core.deployments import began_by_itself
from evflow.core.flow_events import RunRequested, TriggerReceived, TriggerSkipped
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.catalog import deployed
from tests.unit.ticking_world import TickWorld

LISTENING = FlowName("Listening")
S = 1_000_000


class Plain(FlowSpec):
    """A flow whose runs events can start."""

    size = Parameter("size", default=3)

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


def listening(*triggers: dict[str, Any]) -> type:
    """The flow with triggers; for event `a` if nothing is said."""
    made: Any = type(LISTENING, (Plain,), {"__module__": __name__})
    said: Any
    for said in reversed(triggers or ({"event": "a"},)):
        made = trigger(**said)(made)
    return cast("type", made)


class ListenWorld(TickWorld):
    """The world of schedules, with a flow that listens."""

    flow = LISTENING

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.count = 0

    def listen(self, *triggers: dict[str, Any]) -> None:
        """Deploy the flow."""
        self.deploy(listening(*triggers))
        self.now_us += 1

    def publish(self, name: str, payload: object = None, known: str = "") -> str:
        """Publish an event; its id is its name and its number."""
        self.count += 1
        event_id = known or f"{name}{self.count}"
        made = made_of(name, payload, source="cli", principal="user:ada", store=lambda: self.store)
        send(self.log, made, event_id)
        return event_id

    @property
    def outcomes(self) -> list[str]:
        """The decisions, as `reason: ids`; `run n` for those that start one."""
        found: list[str] = []
        for record in self.records:
            event: Any = record.event
            if isinstance(event, TriggerReceived | TriggerSkipped):
                found.append(f"{event.reason}: {' '.join(one['id'] for one in event.events)}")
            elif began_by_itself(event):
                found.append(f"run {event.number}: {' '.join(one['id'] for one in event.trigger['events'])}")
        return found

    def check(self) -> None:
        """What is deployed is what the log says, each run is offered, and no event is decided twice for one trigger."""
        assert deployed(self.log, LISTENING) == self.folded.current
        ends: list[tuple[int, str]] = []
        for record in self.records:
            event: Any = record.event
            if isinstance(event, TriggerSkipped):
                ends += [(event.trigger, one["id"]) for one in event.events]
            elif isinstance(event, RunRequested) and event.trigger is not None:
                ends += [(event.trigger["trigger"], one["id"]) for one in event.trigger["events"]]
                run = RunId(LISTENING, RunNumber(event.number))
                offers = self.offers(run)
                assert offers, f"{run} was not offered"
                assert all(offer == offers[0] for offer in offers), run
        assert len(ends) == len(set(ends)), ends
