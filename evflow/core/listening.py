"""What is decided about events, as events of a flow's log; and what a deployment's triggers have heard, as the fold of those."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow.core.events import Event
from evflow.core.flow_events import RunRequested, TriggerReceived, TriggerSkipped
from evflow.core.triggers import Decision, Pending, applied, pending_from_plain, pending_to_plain, ref_from_plain

EVENT: Final = "event"
"""The `kind` of a trigger that is an event."""
_REASON_CHARS: Final = 500

Listening = tuple[dict[str, Any], ...]


def trigger_of(decision: Decision, deployment: str, version: int, trigger: int) -> dict[str, Any]:
    """What starts a run, as `RunRequested`, `RunStarted` and `current.trigger` have it."""
    return {
        "kind": EVENT,
        "deployment": deployment,
        "version": version,
        "trigger": trigger,
        "events": tuple(ref.plain() for ref in decision.refs),
        "reason": decision.reason,
        "at_us": decision.at_us,
    }


def record_of(decision: Decision, deployment: str, version: int, trigger: int) -> Event:
    """The event that records a wait or a skip."""
    events = tuple(ref.plain() for ref in decision.refs)
    if decision.kind == "skip":
        return TriggerSkipped(deployment, version, trigger, events, decision.reason[:_REASON_CHARS], decision.at_us)
    given = dict(decision.parameters) or None
    return TriggerReceived(deployment, version, trigger, events, decision.reason, decision.at_us, decision.wanted, given, decision.due_us)


def decision_of(event: Event) -> tuple[int, Decision] | None:
    """Which trigger an event of a flow's log is about, and what it decides; None for one that is about none."""
    try:
        if isinstance(event, TriggerReceived | TriggerSkipped):
            return event.trigger, _recorded(event)
        if isinstance(event, RunRequested) and event.trigger is not None and event.trigger.get("kind") == EVENT:
            said = event.trigger
            refs = tuple(map(ref_from_plain, said["events"]))
            return int(said["trigger"]), Decision("start", refs, str(said["reason"]), int(said["at_us"]))
    except (KeyError, TypeError, ValueError):  # nothing that this version has written: it changes nothing that is heard
        return None
    return None


def deaf(triggers: Sequence[Any], until_us: int) -> Listening:
    """Triggers that hear what is published after an instant."""
    return tuple(pending_to_plain(Pending(until_us)) for _ in triggers)


def heard(listening: Listening, trigger: int, decision: Decision) -> Listening:
    """What the triggers have heard after a decision about one of them."""
    if not 0 <= trigger < len(listening):
        return listening
    now = pending_to_plain(applied(pending_of(listening[trigger]), decision))
    return (*listening[:trigger], now, *listening[trigger + 1 :])


def unheard(listening: Listening, until_us: int) -> Listening:
    """Triggers that hear nothing of what was published up to an instant."""
    return tuple({**one, "heard_us": max(pending_of(one).heard_us, until_us)} for one in listening)


def pending_of(plain: Mapping[str, Any]) -> Pending:
    """What a trigger has heard; nothing where it cannot be read."""
    try:
        return pending_from_plain(plain)
    except ValueError:
        return Pending()


def _recorded(event: TriggerReceived | TriggerSkipped) -> Decision:
    refs = tuple(map(ref_from_plain, event.events))
    if isinstance(event, TriggerSkipped):
        return Decision("skip", refs, event.reason, event.at_us)
    return Decision("wait", refs, event.reason, event.at_us, event.wanted, event.parameters or {}, event.due_us)
