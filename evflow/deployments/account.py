"""Why a run began, and why none did: what a flow's log and the log of published events say, put together.

Everything here is read. That no scheduler was alive is read as well: a tick or an event was decided long after it came, or never.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import Deployment, Deployments, tick_of
from evflow.core.filters import mismatch
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
from evflow.core.ids import FlowName, RunId
from evflow.core.listening import decision_of
from evflow.core.published import Publication, decode
from evflow.core.schedule import from_plain as schedule_from_plain, local, next_tick_us
from evflow.core.triggers import Trigger, from_plain, names_of
from evflow.core.values import value
from evflow.log.protocol import LogClient, PublishedEvent

LATE_US: Final = 60_000_000
"""A decision that comes so long after its tick or event says that no scheduler was alive meanwhile."""
_CHUNK: Final = 5_000
_MOST_TICKS: Final = 1_000
_DID: Final[Mapping[type, str]] = {FlowDeployed: "deployed", FlowUndeployed: "undeployed", FlowPaused: "paused", FlowUnpaused: "unpaused"}


@value
class Entry:
    """Something that was decided, or should have been.

    Attributes:
        at_us: When it came.
        deployment: The deployment that it is about, or an empty string.
        what: `tick`, `event`, `request`, `deployed`, `undeployed`, `paused`, `unpaused`.
        name: The tick by its own clock, the event's name, who did it.
        id: The event's id, or an empty string.
        outcome: `started`, `waits`, `skipped`, `not-wanted`, `undecided`, or an empty string.
        reason: Why, as a stable name or in words.
        run: The run that it started, or an empty string.
        decided_us: When it was decided; 0 where it was not.
        payload: The event's payload.
    """

    at_us: int
    deployment: str
    what: str
    name: str
    id: str = ""
    outcome: str = ""
    reason: str = ""
    run: str = ""
    decided_us: int = 0
    payload: Any = None

    @property
    def was_late(self) -> bool:
        """Nobody was there to decide it when it came."""
        return self.decided_us - self.at_us > LATE_US


def records(log: LogClient, flow: FlowName) -> Iterator[FlowRecord]:
    """All readable events of a flow's log, oldest first."""
    at = 0
    while chunk := log.flow_events(flow, at, _CHUNK):
        for stored in chunk:
            try:
                yield flow_events.decode(*stored)
            except UnreadableEvent as error:
                diagnostics.warning("an event of a flow's log cannot be read", flow=flow, seq=stored.seq, why=str(error))
        at = chunk[-1].seq


def request_of(log: LogClient, run: RunId) -> FlowRecord | None:
    """The event that gave a run its number."""
    for record in records(log, run.flow):
        if isinstance(record.event, RunRequested) and record.event.number == run.number:
            return record
    return None


def chain(log: LogClient, flow: FlowName, trigger: Mapping[str, Any]) -> list[Entry]:
    """What happened to the events that started a run, up to the start, in order; with their payloads, as far as they are kept."""
    ids = {one["id"] for one in trigger.get("events", ())}
    found = [entry for one in trigger.get("events", ()) if (entry := _published(log, one)) is not None]
    for record in records(log, flow):
        event = record.event
        if isinstance(event, TriggerReceived) and event.name == trigger["deployment"] and event.trigger == trigger["trigger"]:
            found += [_decided(record, one, "waits", event.reason) for one in event.events if one["id"] in ids]
    return sorted(found, key=lambda one: one.decided_us or one.at_us)


def around(log: LogClient, flow: FlowName, since_us: int, until_us: int) -> list[Entry]:
    """Everything between two instants that started a run of a flow, or could have."""
    told = list(records(log, flow))
    found = [entry for record in told for entry in _of_record(flow, record) if since_us <= entry.at_us <= until_us]
    found += _undecided_ticks(told, since_us, until_us, {(one.deployment, one.at_us) for one in found if one.what == "tick"})
    found += _unstarted_events(log, told, since_us, until_us, {(one.deployment, one.id) for one in _all_of(flow, told)})
    return sorted(found, key=lambda one: (one.at_us, one.decided_us))


def deployments_at(told: list[FlowRecord], at_us: int) -> Mapping[str, Deployment]:
    """What was deployed at an instant."""
    found = Deployments()
    for record in told:
        if record.at_us <= at_us:
            found.apply(record)
    return found.current


def _all_of(flow: FlowName, told: list[FlowRecord]) -> Iterator[Entry]:
    return (entry for record in told for entry in _of_record(flow, record))


def _of_record(flow: FlowName, record: FlowRecord) -> Iterator[Entry]:
    """What an event of the flow's log says about ticks, events and deployments."""
    event = record.event
    tick_us = tick_of(event)
    if isinstance(event, ScheduleTicked):
        yield Entry(event.tick_us, event.name, "tick", "", "", "skipped", event.reason, "", record.at_us)
    elif isinstance(event, TriggerReceived | TriggerSkipped):
        outcome = "waits" if isinstance(event, TriggerReceived) else "skipped"
        yield from (_decided(record, one, outcome, event.reason) for one in event.events)
        if not event.events:
            yield Entry(event.at_us, event.name, "event", "", "", outcome, event.reason, "", record.at_us)
    elif isinstance(event, RunRequested) and event.deployment:
        run = f"{flow}/{event.number}"
        if tick_us is not None and event.trigger is not None:
            name, reason = str(event.trigger.get("tick", "")), str(event.trigger.get("reason", ""))
            yield Entry(tick_us, event.deployment, "tick", name, "", "started", reason, run, record.at_us)
        elif decision_of(event) is not None and event.trigger is not None:
            reason = str(event.trigger["reason"])
            yield from (_decided(record, one, "started", reason, run) for one in event.trigger["events"])
        else:
            yield Entry(record.at_us, event.deployment, "request", record.principal, "", "started", "", run, record.at_us)
    elif type(event) in _DID:
        named: Any = event
        yield Entry(record.at_us, named.name, _DID[type(event)], record.principal, decided_us=record.at_us)


def _decided(record: FlowRecord, ref: Mapping[str, Any], outcome: str, reason: str, run: str = "") -> Entry:
    about: Any = record.event
    name = about.deployment if isinstance(about, RunRequested) else about.name
    return Entry(ref["at_us"], name, "event", ref["name"], ref["id"], outcome, reason, run, record.at_us)


def _published(log: LogClient, ref: Mapping[str, Any]) -> Entry | None:
    found = log.published(ref["at_us"] - 1, 1)
    if not found or found[0].at_us != ref["at_us"]:
        return None  # it is not kept any more
    made = _readable(found[0])
    if made is None:
        return None
    return Entry(ref["at_us"], "", "event", made.name, ref["id"], "published", f"{made.source}, {made.principal}", payload=made.payload)


def _undecided_ticks(told: list[FlowRecord], since_us: int, until_us: int, decided: set[tuple[str, int]]) -> Iterator[Entry]:
    """Ticks of the schedules in force that nobody decided, or that were skipped together with later ones."""
    together = [record.event for record in told if isinstance(record.event, ScheduleTicked) and record.event.since_us]
    # A schedule holds from its deployment on: those that were replaced meanwhile had their ticks before.
    bounds = sorted(
        {since_us, *(record.at_us for record in told if since_us < record.at_us < until_us and type(record.event) in _DID), until_us}
    )
    for begin_us, end_us in pairwise(bounds):
        for deployment in deployments_at(told, begin_us).values():
            if deployment.schedule is None:
                continue
            try:
                schedule = schedule_from_plain(deployment.schedule)
            except (TypeError, ValueError):
                continue
            tick_us, count = next_tick_us(schedule, max(begin_us - 1, deployment.deployed_us)), 0
            while tick_us is not None and tick_us <= end_us and count < _MOST_TICKS:
                with_others = next(
                    (one for one in together if one.name == deployment.name and one.since_us <= tick_us <= one.tick_us), None
                )
                if (deployment.name, tick_us) not in decided:
                    outcome, reason = (
                        ("skipped", with_others.reason) if with_others else ("undecided", "paused" if deployment.paused else "")
                    )
                    yield Entry(tick_us, deployment.name, "tick", local(schedule, tick_us), "", outcome, reason)
                tick_us, count = next_tick_us(schedule, tick_us), count + 1


def _unstarted_events(
    log: LogClient, told: list[FlowRecord], since_us: int, until_us: int, decided: set[tuple[str, str]]
) -> Iterator[Entry]:
    """Published events that a trigger in force names, and that its deployment has no decision about."""
    after_us = since_us - 1
    while chunk := log.published(after_us, 1_000):
        for event in chunk:
            if event.at_us > until_us:
                return
            made = _readable(event)
            if made is not None:
                yield from _unstarted(told, event, made, decided)
        after_us = chunk[-1].at_us


def _unstarted(told: list[FlowRecord], event: PublishedEvent, made: Publication, decided: set[tuple[str, str]]) -> Iterator[Entry]:
    for deployment in deployments_at(told, event.at_us).values():
        if (deployment.name, event.id) in decided:
            continue
        for trigger in _triggers(deployment):
            if made.name not in names_of(trigger):
                continue
            why = [mismatch(one.where, made.payload) for one in trigger.wanted if one.event == made.name] if made.stored is None else []
            outcome, reason = ("not-wanted", why[0] or "") if why and all(why) else ("undecided", "")
            yield Entry(event.at_us, deployment.name, "event", made.name, event.id, outcome, reason, payload=made.payload)


def _triggers(deployment: Deployment) -> Iterator[Trigger]:
    for plain in deployment.triggers:
        try:
            yield from_plain(plain)
        except ValueError:
            continue


def _readable(event: PublishedEvent) -> Publication | None:
    try:
        return decode(event.body)
    except UnreadableEvent:
        return None
