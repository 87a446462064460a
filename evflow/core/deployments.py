"""The deployments of a flow: what the events of its log make of them.

A deployment has a name, `default` if no other was given, and is deployed again and again: each time it gets the next version.
The flow's log is the truth. What it folds to is kept beside it (`{evflow:flow:<Flow>}:deployments`), changed in the act that
appends the event, so that nobody reads a log of thousands of runs to learn what is deployed now: whoever appends computes
the new value with `after`, which is also the step of the fold.
"""

from collections.abc import Iterable
from typing import Any, Final

from evflow.core.codec import pack_value, unpack_value
from evflow.core.events import Event, Plain
from evflow.core.flow_events import (
    FlowDeployed,
    FlowPaused,
    FlowRecord,
    FlowUndeployed,
    FlowUnpaused,
    RunRequested,
    ScheduleTicked,
    TriggerReceived,
    TriggerSkipped,
)
from evflow.core.listening import EVENT, deaf, decision_of, heard, unheard
from evflow.core.values import declared, entity, field, replaced, value

DEFAULT_NAME: Final = "default"
"""The deployment that a flow alone stands for."""
MOST_NAME_CHARS: Final = 300
"""Enough for a project, a branch and what stands between them."""
_OF_A_NAME: Final = frozenset("-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
SCHEDULE: Final = "schedule"
"""The `kind` of a trigger that is a tick."""


@value
class Deployment:
    """What is deployed under a name now.

    Attributes:
        name: Its name.
        version: How often it was deployed.
        manifest: As for `FlowDeployed`, like all up to `python`.
        deployed_us: When, by the server's clock.
        by: Who: the event's principal.
        paused: Nothing but a person starts runs of it.
        paused_us: Since when; 0 where it is not paused.
        paused_by: Who paused it.
        schedule: As for `FlowDeployed`.
        ticked_us: All ticks of the schedule up to this instant are decided.
        asked_seq: Where in the flow's log the last run stands that a tick or an event asked for; 0 for none. Whoever decides now sees to it that
            this run was offered to schedulers: its predecessor may have died in between.
        triggers: As for `FlowDeployed`.
        listening: For each of them what it has heard and what waits, as `evflow.core.triggers.pending_to_plain` writes it.
    """

    name: str
    version: int
    manifest: bytes
    store: str
    package: bytes | None
    file: str
    namespace: str
    production: bool
    user: str
    host: str
    evflow: str
    python: str
    deployed_us: int = 0
    by: str = ""
    paused: bool = False
    paused_us: int = 0
    paused_by: str = ""
    schedule: dict[str, Plain] | None = None
    ticked_us: int = 0
    asked_seq: int = 0
    triggers: tuple[dict[str, Plain], ...] = ()
    listening: tuple[dict[str, Plain], ...] = ()


_OF_EVENT = tuple(declared(FlowDeployed))
_ABOUT = (FlowDeployed, FlowUndeployed, FlowPaused, FlowUnpaused)


def subject(event: Event) -> str | None:
    """The name of the deployment that was deployed, paused, ..., or None."""
    return event.name if isinstance(event, _ABOUT) else None


def changed(event: Event) -> str | None:
    """The name of the deployment that is another one after the event, be it that a tick or an event is decided; None for no such event."""
    if isinstance(event, ScheduleTicked | TriggerReceived | TriggerSkipped):
        return event.name
    if isinstance(event, RunRequested):
        return event.deployment if began_by_itself(event) else None
    return subject(event)


def began_by_itself(event: Event) -> bool:
    """Whether an event asks for a run that a tick or an event starts."""
    return isinstance(event, RunRequested) and event.trigger is not None and event.trigger.get("kind") in (SCHEDULE, EVENT)


def tick_of(event: Event) -> int | None:
    """The tick that an event decides, or None."""
    if isinstance(event, ScheduleTicked):
        return event.tick_us
    if isinstance(event, RunRequested) and event.trigger is not None and event.trigger.get("kind") == SCHEDULE:
        tick = event.trigger.get("tick_us")
        return tick if isinstance(tick, int) else None
    return None


def after(before: Deployment | None, event: Event, at_us: int, principal: str, seq: int = 0) -> Deployment | None:
    """What is deployed under the event's name after it; None where nothing is.

    A schedule or a trigger that is changed begins with its deployment, and an end of a pause is the decision to skip what came in it.

    Args:
        before: What was deployed under that name, or None.
        event: The event.
        at_us: Its time.
        principal: Who caused it.
        seq: Its position, for a run that a tick asks for.
    """
    if isinstance(event, FlowDeployed):
        fresh: dict[str, Any] = {name: getattr(event, name) for name in _OF_EVENT}
        kept = ("paused", "paused_us", "paused_by", "asked_seq")
        held: dict[str, Any] = {name: getattr(before, name) for name in kept} if before else {}
        goes_on = before is not None and before.schedule == event.schedule and before.ticked_us <= at_us
        ticked_us = before.ticked_us if before is not None and goes_on else at_us
        listening = before.listening if before is not None and before.triggers == event.triggers else deaf(event.triggers, at_us)
        held |= {"ticked_us": ticked_us if event.schedule is not None else 0, "listening": listening}
        return Deployment(**fresh, **held, deployed_us=at_us, by=principal)
    if before is None or isinstance(event, FlowUndeployed):
        return None
    if isinstance(event, FlowPaused) and not before.paused:
        return replaced(before, paused=True, paused_us=at_us, paused_by=principal)
    if isinstance(event, FlowUnpaused):
        ticked_us = max(before.ticked_us, at_us) if before.paused and before.schedule is not None else before.ticked_us
        listening = unheard(before.listening, at_us) if before.paused else before.listening
        return replaced(before, paused=False, paused_us=0, paused_by="", ticked_us=ticked_us, listening=listening)
    asked_seq = seq if began_by_itself(event) else before.asked_seq
    tick_us = tick_of(event)
    if tick_us is not None:
        return replaced(before, ticked_us=max(before.ticked_us, tick_us), asked_seq=asked_seq)
    decided = decision_of(event)
    if decided is None:
        return before
    return replaced(before, listening=heard(before.listening, *decided), asked_seq=asked_seq)


@entity
class Deployments:
    """All deployments of a flow, folded from its log.

    Attributes:
        current: What is deployed now, by name.
        versions: The last version of every name, of those also that are deployed no more.
    """

    current: dict[str, Deployment] = field(default_factory=dict[str, Deployment])
    versions: dict[str, int] = field(default_factory=dict[str, int])

    def apply(self, record: FlowRecord) -> None:
        """Fold an event; those that are about no deployment change nothing."""
        name = changed(record.event)
        if name is None:
            return
        found = after(self.current.get(name), record.event, record.at_us, record.principal, record.seq)
        if found is None:
            self.current.pop(name, None)
        else:
            self.current[name] = found
        if isinstance(record.event, FlowDeployed):
            self.versions[name] = max(self.versions.get(name, 0), record.event.version)


def fold(records: Iterable[FlowRecord]) -> Deployments:
    """What the events of a flow's log make of its deployments."""
    found = Deployments()
    for record in records:
        found.apply(record)
    return found


def pack(deployment: Deployment) -> bytes:
    """The bytes that stand beside the log: an array, fields by position, new ones at the end with a default."""
    return pack_value(deployment)


def unpacked(payload: bytes) -> Deployment:
    """The deployment that `pack` wrote; surplus fields, of a later version, are dropped.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    return unpack_value(Deployment, payload, "a deployment")


def name_fault(name: str) -> str | None:
    """Why no deployment can have this name, as a sentence; None where one can."""
    if 0 < len(name) <= MOST_NAME_CHARS and name.isascii() and name[0].isalpha() and not set(name.replace(".", "-")) - _OF_A_NAME:
        return None
    return (
        f"A deployment cannot be called {name[:80]!r}: a name has 1 to {MOST_NAME_CHARS} letters, digits, '-', '_' and '.', a letter first."
    )
