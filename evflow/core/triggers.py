"""Triggers: what a deployment listens for, and what becomes of each event that it hears.

A trigger wants one event, any of several, or all of several within a window. What matches may start a run at once, or
wait: for the others, for quiet (`debounce`: each further match begins the wait anew), or for company (`coalesce`: all that comes within a
time of the first). A `throttle` lets one run start in so much time: what comes sooner is skipped, or waits on where matches wait anyway.

All of it goes by the instants at which events were published, never by when somebody looked. So whoever looks, in whatever portions, and
after whatever time, decides the same (a property test says so). Each event that matches is decided: it starts a run, or is skipped with a
reason; those that wait are one or the other in the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgpack

from evflow.core.filters import MISSING, fault as filter_fault, look_up, mismatch
from evflow.core.published import name_fault
from evflow.core.values import field, value

Need = Literal["all", "any"]
Kind = Literal["start", "wait", "skip"]
MOST_EVENTS: Final = 10
"""Events that one trigger can want."""
MOST_TRIGGERS: Final = 10
MOST_TOGETHER: Final = 100
"""Matches that start one run together: as many as the run's first event has room for. One more does not wait."""
MOST_PARAMETER_BYTES: Final = 12 * 1024
"""Parameters that wait with their events stand in the flow's log."""
MOST_SKIPPED: Final = 50
"""Events that are skipped for one reason in one record."""
MOST_WAIT_US: Final = 30 * 86_400_000_000
FOR_OTHERS: Final = "for-others"
GATHERING: Final = "gathering"
_SPANS: Final = ("within_us", "debounce_us", "coalesce_us", "throttle_us")
_NO_PARAMETERS: Final[Mapping[str, Any]] = {}


@value
class Wanted:
    """One event that a trigger listens for.

    Attributes:
        event: Its name.
        parameters: Parameter of the flow to field of the payload.
        where: What the payload must be, see `evflow.core.filters`.
    """

    event: str
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    where: dict[str, Any] = field(default_factory=dict[str, Any])


@value
class Trigger:
    """What starts runs of a deployment.

    Attributes:
        wanted: The events.
        need: All of them, or any.
        within_us: Of all: none may be older than this when the last one comes; 0: they wait for ever.
        debounce_us: A run starts when no match has come for so long.
        coalesce_us: A run starts so long after the first match.
        throttle_us: No run starts sooner than so long after the last one.
    """

    wanted: tuple[Wanted, ...]
    need: Need = "all"
    within_us: int = 0
    debounce_us: int = 0
    coalesce_us: int = 0
    throttle_us: int = 0


@value
class Heard:
    """A published event.

    Attributes:
        id: Its id.
        name: Its name.
        at_us: When it was published.
        payload: Its payload.
        unreadable: Why its payload cannot be had, or an empty string.
    """

    id: str
    name: str
    at_us: int
    payload: Any = None
    unreadable: str = ""


@value
class Ref:
    """An event as records of it name it."""

    id: str
    name: str
    at_us: int

    def plain(self) -> dict[str, Any]:
        """As events of a flow's log hold it."""
        return {"id": self.id, "name": self.name, "at_us": self.at_us}


@value
class Part:
    """An event that waits for the others.

    Attributes:
        wanted: Which one of the trigger's it is, from 0.
        ref: The event.
        parameters: What it gives to the run.
    """

    wanted: int
    ref: Ref
    parameters: Mapping[str, Any]


@value
class Pending:
    """What a trigger has heard, and what waits.

    Attributes:
        heard_us: All that was published up to this instant is decided, or waits here.
        parts: Events that wait for the others, one for each that is wanted.
        batch: Events of matches that wait for quiet or for company.
        parameters: Of the newest of those matches.
        due_us: When they start a run; 0 for none.
        started_us: The instant that the last run started from; 0 for none.
    """

    heard_us: int = 0
    parts: tuple[Part, ...] = ()
    batch: tuple[Ref, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    due_us: int = 0
    started_us: int = 0


@value
class Decision:
    """What becomes of some events.

    Attributes:
        kind: They start a run, wait, or are skipped.
        refs: The events.
        reason: For a start `event`, `all-came`, `quiet`, `time-is-over`, `many`. For a wait `for-others`, `gathering`. For a skip `paused`,
            `throttled`, `superseded` (another of the name came), `window-passed`, `trimmed` (gone before anybody looked), `payload-unfit: …`, `payload-unreadable: …`, or why
            no run could be asked for.
        at_us: The instant that decided it.
        wanted: For those that wait for others: which one of the wanted events.
        parameters: For a start and a wait: what they give to the run.
        due_us: For those that gather: when they start a run.
    """

    kind: Kind
    refs: tuple[Ref, ...]
    reason: str
    at_us: int
    wanted: int = -1
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    due_us: int = 0


# --- what is wanted ----------------------------------------------------------------------------------------


def to_plain(trigger: Trigger) -> dict[str, Any]:
    """As events hold it."""
    wanted = tuple({"event": one.event, "parameters": dict(one.parameters), "where": _as_read(one.where)} for one in trigger.wanted)
    return {"wanted": wanted, "need": trigger.need, **{name: getattr(trigger, name) for name in _SPANS if getattr(trigger, name)}}


def from_plain(plain: Mapping[str, Any]) -> Trigger:
    """The trigger that `to_plain` wrote; what it does not know, of a later version, is passed over.

    Raises:
        ValueError: It is no trigger.
    """
    try:
        wanted = tuple(Wanted(one["event"], dict(one.get("parameters", {})), dict(one.get("where", {}))) for one in plain["wanted"])
        found = Trigger(wanted, **{name: plain[name] for name in ("need", *_SPANS) if name in plain})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no trigger: {type(error).__name__}: {error}") from error
    wrong = fault(found)
    if wrong is not None:
        raise ValueError(wrong)
    return found


def fault(trigger: Trigger) -> str | None:
    """What is wrong with a trigger, as a sentence; None where nothing is."""
    if not 0 < len(trigger.wanted) <= MOST_EVENTS:
        return f"It wants {len(trigger.wanted)} events: 1 to {MOST_EVENTS} are possible."
    for one in trigger.wanted:
        wrong = _wanted_fault(one)
        if wrong is not None:
            return wrong
    if trigger.need not in ("all", "any"):
        return f"need is {trigger.need!r}: it is 'all' or 'any'."
    for name in _SPANS:
        span: object = getattr(trigger, name)
        if type(span) is not int or not 0 <= span <= MOST_WAIT_US:
            return f"{name.removesuffix('_us')} is no time from 0 to {MOST_WAIT_US // 86_400_000_000} days."
    if trigger.debounce_us and trigger.coalesce_us:
        return "It has debounce and coalesce: keep one of them."
    if trigger.within_us and (trigger.need == "any" or len(trigger.wanted) == 1):
        return "within is for several events that are all needed."
    return None


def parameters_of(trigger: Trigger) -> list[str]:
    """The parameters that every run that it starts is given."""
    each = [frozenset(one.parameters) for one in trigger.wanted]
    every = frozenset[str]().union(*each)
    return sorted(every if trigger.need == "all" else {name for name in every if all(name in one for one in each)})


def names_of(trigger: Trigger) -> set[str]:
    """The names of the events that it listens for."""
    return {one.event for one in trigger.wanted}


def _wanted_fault(one: Wanted) -> str | None:
    event: Any = one.event
    if not isinstance(event, str):
        return f"event is {event!r}: it is the name of an event."
    wrong = name_fault(event) or filter_fault(one.where)
    if wrong is not None:
        return wrong
    for parameter, path in cast("dict[object, object]", one.parameters).items():
        if not isinstance(parameter, str) or not isinstance(path, str) or not parameter or not path:
            return (
                f"parameters of event {event!r} map {parameter!r} to {path!r}: they map a parameter to a field of the payload, both texts."
            )
    return None


# --- what becomes of events --------------------------------------------------------------------------------


def decide(trigger: Trigger, pending: Pending, events: Sequence[Heard], until_us: int, *, paused: bool = False) -> list[Decision]:
    """What becomes of the events, in order, and of what waits, up to an instant.

    Args:
        trigger: What is wanted.
        pending: What waits; `applied` says what waits after each decision.
        events: What was published since, in order; what was heard before is passed over.
        until_us: Everything that was published up to then is among them.
        paused: Nothing starts: what comes, or would start, is skipped.
    """
    deciding = _Deciding(trigger, pending, paused)
    for event in events:
        if event.at_us > deciding.pending.heard_us:
            deciding.pass_time(event.at_us - 1)
            deciding.hear(event)
    deciding.pass_time(until_us)
    return deciding.decisions


def wakes_us(trigger: Trigger, pending: Pending) -> int | None:
    """When something is to be decided though no event comes; None for never."""
    due = [pending.due_us] if pending.batch else []
    if trigger.within_us:
        due += [part.ref.at_us + trigger.within_us for part in pending.parts]
    return min(due, default=None)


def applied(pending: Pending, decision: Decision) -> Pending:
    """What a trigger has heard and what waits after a decision."""
    refs = {ref.id for ref in decision.refs}
    heard_us = max([pending.heard_us, *(ref.at_us for ref in decision.refs)])
    parts = tuple(part for part in pending.parts if part.ref.id not in refs)
    if decision.kind == "start":
        return Pending(heard_us, parts, (), {}, 0, decision.at_us)
    if decision.kind == "skip":
        batch = tuple(ref for ref in pending.batch if ref.id not in refs)
        at_least_us = decision.at_us if decision.reason == "trimmed" else 0
        kept = (pending.parameters, pending.due_us) if batch else (_NO_PARAMETERS, 0)
        return Pending(max(heard_us, at_least_us), parts, batch, *kept, pending.started_us)
    if decision.reason == FOR_OTHERS:
        parts = (*parts, *(Part(decision.wanted, ref, decision.parameters) for ref in decision.refs))
        return Pending(heard_us, parts, pending.batch, pending.parameters, pending.due_us, pending.started_us)
    return Pending(heard_us, parts, (*pending.batch, *decision.refs), decision.parameters, decision.due_us, pending.started_us)


class _Deciding:
    """Decisions, one after the other, and what waits after the last one."""

    def __init__(self, trigger: Trigger, pending: Pending, paused: bool) -> None:
        self.trigger = trigger
        self.pending = pending
        self.decisions: list[Decision] = []
        self._paused = paused

    def pass_time(self, until_us: int) -> None:
        """Decide what is due by then, in the order of time."""
        while (due_us := wakes_us(self.trigger, self.pending)) is not None and due_us <= until_us:
            late = [part.ref for part in self.pending.parts if self._ends_us(part) == due_us]
            if late:
                self._skip(tuple(late), "window-passed", due_us)
            elif self._paused:
                self._skip(self.pending.batch, "paused", due_us)
            else:
                reason = "quiet" if self.trigger.debounce_us else "time-is-over"
                self._decide(Decision("start", self.pending.batch, reason, due_us, parameters=self.pending.parameters))

    def _ends_us(self, part: Part) -> int:
        """When an event has waited for too long; 0 for never."""
        return part.ref.at_us + self.trigger.within_us if self.trigger.within_us else 0

    def hear(self, event: Heard) -> None:
        """Decide what becomes of an event."""
        found = [number for number, one in enumerate(self.trigger.wanted) if one.event == event.name]
        if not event.unreadable:
            found = [number for number in found if mismatch(self.trigger.wanted[number].where, event.payload) is None]
        if not found:
            return
        filled = {part.wanted for part in self.pending.parts}
        wanted = next((number for number in found if number not in filled), found[0])
        ref = Ref(event.id, event.name, event.at_us)
        if self._paused:
            self._skip((ref,), "paused", event.at_us)
            return
        if event.unreadable:
            self._skip((ref,), f"payload-unreadable: {event.unreadable}", event.at_us)
            return
        parameters, unfit = self._parameters(self.trigger.wanted[wanted], event)
        if unfit:
            self._skip((ref,), f"payload-unfit: {unfit}", event.at_us)
        elif self.trigger.need == "any" or len(self.trigger.wanted) == 1:
            self._match((ref,), parameters, "event")
        else:
            self._add(Part(wanted, ref, parameters))

    def _add(self, part: Part) -> None:
        """One of several that are all needed has come."""
        for old in self.pending.parts:
            if old.wanted == part.wanted:
                self._skip((old.ref,), "superseded", part.ref.at_us)
        parts = sorted((*self.pending.parts, part), key=lambda one: one.wanted)
        if len(parts) == len(self.trigger.wanted):
            merged = {name: given for one in parts for name, given in one.parameters.items()}
            self._match(tuple(one.ref for one in parts), merged, "all-came")
        else:
            self._decide(Decision("wait", (part.ref,), FOR_OTHERS, part.ref.at_us, part.wanted, part.parameters))

    def _match(self, refs: tuple[Ref, ...], parameters: Mapping[str, Any], reason: str) -> None:
        """All that is needed has come."""
        trigger, pending, at_us = self.trigger, self.pending, max(ref.at_us for ref in refs)
        free_us = pending.started_us + trigger.throttle_us if trigger.throttle_us and pending.started_us else 0
        if not (trigger.debounce_us or trigger.coalesce_us):
            if at_us < free_us:
                self._skip(refs, "throttled", at_us)
            else:
                self._decide(Decision("start", refs, reason, at_us, parameters=parameters))
        elif len(pending.batch) + len(refs) > MOST_TOGETHER:
            if at_us < free_us:
                self._skip(pending.batch, "throttled", at_us)
            else:
                self._decide(Decision("start", pending.batch, "many", at_us, parameters=pending.parameters))
            self._match(refs, parameters, reason)
        else:
            due_us = at_us + trigger.debounce_us if trigger.debounce_us else pending.due_us or at_us + trigger.coalesce_us
            self._decide(Decision("wait", refs, GATHERING, at_us, parameters=parameters, due_us=max(due_us, free_us)))

    def _parameters(self, wanted: Wanted, event: Heard) -> tuple[dict[str, Any], str]:
        """What the event gives to the run, or why it cannot."""
        found: dict[str, Any] = {}
        for parameter, path in wanted.parameters.items():
            given = look_up(event.payload, path)
            if given is MISSING:
                return {}, f"it has no field '{path}' for parameter '{parameter}'"
            found[parameter] = given
        most = MOST_PARAMETER_BYTES // len(self.trigger.wanted) if self.trigger.need == "all" else MOST_PARAMETER_BYTES
        size = len(msgpack.packb(found))
        return (found, "") if size <= most else ({}, f"its parameters have {size} bytes; {most} are allowed")

    def _skip(self, refs: tuple[Ref, ...], reason: str, at_us: int) -> None:
        """Skip events, with those that were skipped right before for the same reason."""
        last = self.decisions[-1] if self.decisions else None
        if last and (last.kind, last.reason) == ("skip", reason) and len(last.refs) + len(refs) <= MOST_SKIPPED:
            self.pending = applied(self.pending, Decision("skip", refs, reason, at_us))
            self.decisions[-1] = Decision("skip", (*last.refs, *refs), reason, at_us)
        else:
            self._decide(Decision("skip", refs, reason, at_us))

    def _decide(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.pending = applied(self.pending, decision)


# --- what waits, beside the log ----------------------------------------------------------------------------


def pending_to_plain(pending: Pending) -> dict[str, Any]:
    """As the deployment beside the flow's log holds it; what is as at the beginning is left out."""
    parts = tuple({"wanted": part.wanted, "ref": part.ref.plain(), "parameters": dict(part.parameters)} for part in pending.parts)
    batch = tuple(ref.plain() for ref in pending.batch)
    numbers = {name: getattr(pending, name) for name in ("heard_us", "due_us", "started_us")}
    found = {"parts": parts, "batch": batch, "parameters": dict(pending.parameters), **numbers}
    return {name: held for name, held in found.items() if held}


def pending_from_plain(plain: Mapping[str, Any]) -> Pending:
    """What `pending_to_plain` wrote.

    Raises:
        ValueError: It is no such thing.
    """
    try:
        parts = tuple(Part(one["wanted"], ref_from_plain(one["ref"]), dict(one["parameters"])) for one in plain.get("parts", ()))
        batch = tuple(map(ref_from_plain, plain.get("batch", ())))
        numbers = {name: int(plain.get(name, 0)) for name in ("heard_us", "due_us", "started_us")}
        return Pending(parts=parts, batch=batch, parameters=dict(plain.get("parameters", {})), **numbers)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"nothing that waits: {type(error).__name__}: {error}") from error


def _as_read(held: Any) -> Any:
    """A plain value as it is read back: lists are tuples."""
    if isinstance(held, Mapping):
        return {name: _as_read(one) for name, one in cast("Mapping[str, Any]", held).items()}
    return tuple(map(_as_read, cast("Sequence[Any]", held))) if isinstance(held, list | tuple) else held


def ref_from_plain(plain: Mapping[str, Any]) -> Ref:
    """What `Ref.plain` wrote.

    Raises:
        KeyError: It is no such thing.
    """
    return Ref(plain["id"], plain["name"], plain["at_us"])
