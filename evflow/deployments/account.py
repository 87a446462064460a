"""Why a run began, and why none did: what a flow's log and the log of published events say, put together.

Everything here is read. That no scheduler was alive is read as well: a tick or an event was decided long after it came, or never.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Final

from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import Deployment, Deployments, changed, tick_of
from evflow.core.filters import mismatch
from evflow.core.flow_events import (
    FlowDeployed,
    FlowPaused,
    FlowRecord,
    FlowUndeployed,
    FlowUnpaused,
    RunGivenUp,
    RunRefused,
    RunRequested,
    ScheduleTicked,
    TriggerReceived,
    TriggerSkipped,
)
from evflow.core.ids import FlowName
from evflow.core.listening import decision_of
from evflow.core.published import Publication, decode
from evflow.core.schedule import from_plain as schedule_from_plain, local, next_tick_us
from evflow.core.triggers import Trigger, from_plain, names_of
from evflow.core.values import value
from evflow.deployments.catalog import history
from evflow.deployments.finding import DISORDER_US, place_of, records
from evflow.log.protocol import LogClient, PublishedEvent

LATE_US: Final = 60_000_000
"""A decision that comes so long after its tick or event says that no scheduler was alive meanwhile."""
_FEW: Final = 64
"""Events that are read first; then more and more."""
_MOST_TICKS: Final = 1_000
_DID: Final[Mapping[type, str]] = {FlowDeployed: "deployed", FlowUndeployed: "undeployed", FlowPaused: "paused", FlowUnpaused: "unpaused"}


@value
class Entry:
    """Something that was decided, or should have been.

    Attributes:
        at_us: When it came.
        deployment: The deployment that it is about, or an empty string.
        what: `tick`, `event`, `request`, `deployed`, `undeployed`, `paused`, `unpaused`, `run`.
        name: The tick by its own clock, the event's name, who did it.
        id: The event's id, or an empty string.
        outcome: `started`, `waits`, `skipped`, `not-wanted`, `undecided`, `given-up`, `refused`, or an empty string.
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


def chain(log: LogClient, flow: FlowName, trigger: Mapping[str, Any], until: int | None = None) -> list[Entry]:
    """What happened to the events that started a run, up to the start, in order; with their payloads, as far as they are kept.

    Args:
        log: The log.
        flow: The flow.
        trigger: What started the run, as its request has it.
        until: The position of that request; None: to the log's end.
    """
    events: Sequence[Mapping[str, Any]] = trigger.get("events", ())
    ids = {one["id"] for one in events}
    found = [entry for one in events if (entry := _published(log, one)) is not None]
    begin = place_of(log, flow, min((one["at_us"] for one in events), default=0))
    for record in records(log, flow, begin, _FEW):
        if until is not None and record.seq >= until:
            break
        event = record.event
        if isinstance(event, TriggerReceived) and event.name == trigger["deployment"] and event.trigger == trigger["trigger"]:
            found += [_decided(record, one, "waits", event.reason) for one in event.events if one["id"] in ids]
    return sorted(found, key=lambda one: one.decided_us or one.at_us)


def around(log: LogClient, flow: FlowName, since_us: int, until_us: int) -> list[Entry]:
    """Everything between two instants that started a run of a flow, or could have.

    What was decided then is read, what was deployed, and on from there until all that came then is decided, which may be long after. Ticks that are still to
    come are left out.
    """
    told = {record.seq: record for record in history(log, flow)}
    following = records(log, flow, place_of(log, flow, since_us), _FEW)
    for record in following:
        told[record.seq] = record
        if record.at_us > until_us + DISORDER_US:
            break
    while True:
        found = _found(log, flow, [told[seq] for seq in sorted(told)], since_us, until_us)
        more = list(islice(following, len(told))) if _is_open(log, told.values(), found, since_us, until_us) else []
        if not more:
            return found
        told.update((record.seq, record) for record in more)


def _found(log: LogClient, flow: FlowName, told: list[FlowRecord], since_us: int, until_us: int) -> list[Entry]:
    found = [entry for record in told for entry in _of_record(flow, record) if since_us <= entry.at_us <= until_us]
    come_us = min(until_us, log.now_us())
    if since_us <= come_us:
        found += _undecided_ticks(told, since_us, come_us, {(one.deployment, one.at_us) for one in found if one.what == "tick"})
    found += _unstarted_events(log, told, since_us, until_us, {(one.deployment, one.id) for one in _all_of(flow, told)})
    return sorted(found, key=lambda one: (one.at_us, one.decided_us))


def _is_open(log: LogClient, told: Collection[FlowRecord], found: list[Entry], since_us: int, until_us: int) -> bool:
    """Whether what stands behind these events of the log can say something about what came between two instants."""
    settled = {(one.deployment, one.id) for one in found if one.outcome not in ("waits", "undecided")}
    if any(one.outcome == "waits" and (one.deployment, one.id) not in settled for one in found):
        return True
    if any(one.outcome == "undecided" and one.reason != "paused" for one in found):  # an end of the pause does not decide it either
        return True
    # Of events that are not kept any more only decisions are known. A trigger decides in the order of its events.
    listening = {
        (record.event.name, number)
        for record in told
        if isinstance(record.event, FlowDeployed)
        for number in range(len(record.event.triggers))
    }
    if not listening or log.event_bounds().trimmed_us < since_us:
        return False
    beyond = {
        (changed(record.event), decided[0])
        for record in told
        if (decided := decision_of(record.event)) is not None and decided[1].at_us > until_us
    }
    return not listening <= beyond


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
    elif isinstance(event, RunRefused):
        yield Entry(record.at_us, "", "run", f"{flow}/{event.number}", "", "refused", event.reason, "", record.at_us)
    elif isinstance(event, RunGivenUp):
        deployment = str((event.trigger or {}).get("deployment", ""))
        yield Entry(record.at_us, deployment, "run", f"{flow}/{event.number}", "", "given-up", event.reason, "", record.at_us)
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
    changes = [record for record in told if type(record.event) in _DID]  # each event asks them anew: of a flood no decision is among them
    after_us = since_us - 1
    while chunk := log.published(after_us, 1_000):
        for event in chunk:
            if event.at_us > until_us:
                return
            made = _readable(event)
            if made is not None:
                yield from _unstarted(changes, event, made, decided)
        after_us = chunk[-1].at_us


def _unstarted(changes: list[FlowRecord], event: PublishedEvent, made: Publication, decided: set[tuple[str, str]]) -> Iterator[Entry]:
    for deployment in deployments_at(changes, event.at_us).values():
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
