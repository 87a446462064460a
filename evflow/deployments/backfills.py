"""Backfills from outside: what one would do, asking for one, which there are, and ending one. `backfill_book` carries them out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from evflow.core import backfill as core, flow_events
from evflow.core.backfill import (
    DEFAULT_MOST,
    MOST_PARALLEL,
    MOST_TICKS,
    Backfill,
    after,
    count,
    instant_us,
    pack,
    parameters_at,
    ticks,
    unpacked,
)
from evflow.core.codec import UnreadableEvent, decode
from evflow.core.deployments import Deployment
from evflow.core.events import Event, RunCancelled, RunFailed, RunSucceeded
from evflow.core.flow_events import BackfillCancelRequested, BackfillRequested, RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.schedule import Schedule, from_plain
from evflow.core.summary import OVER
from evflow.core.values import field, value
from evflow.deployments.catalog import DeploymentsChangeTooFast, Reference
from evflow.deployments.request import Asked, make_ready
from evflow.errors import Conflict, UsageError
from evflow.log.keys import shared_shard
from evflow.log.protocol import BackfillChange, LogClient
from evflow.store.protocol import Store

_OUTCOMES: Final[dict[type[Event], str]] = {RunSucceeded: "succeeded", RunFailed: "failed", RunCancelled: "cancelled"}
_LAST_EVENTS: Final = 5
_MOST_TRIES: Final = 100
_CHUNK: Final = 5_000


class BackfillSpanInvalid(UsageError):
    """There is nothing to do in a span, or too much."""

    code = "backfill-span-invalid"


class NoSchedule(UsageError):
    """A deployment without a schedule has no ticks."""

    code = "no-schedule"

    def __init__(self, wanted: Reference) -> None:
        super().__init__(f"'{wanted}' has no schedule: there are no ticks to run.", "Give the flow a @schedule and deploy it.")


class BackfillNotFound(UsageError):
    """There is no such backfill."""

    code = "backfill-not-found"

    def __init__(self, name: "Name", has: list[int]) -> None:
        shown_has = ", ".join(str(Name(name.flow, number)) for number in has[-10:])
        super().__init__(f"There is no backfill '{name}'.", f"There are: {shown_has}." if has else f"'{name.flow}' has none.")


class Name(NamedTuple):
    """A backfill as people write it: FLOW/b1."""

    flow: FlowName
    number: int

    def __str__(self) -> str:
        return f"{self.flow}/b{self.number}"


@value
class Wish:
    """What somebody wants to have run.

    Attributes:
        since: The beginning of the span, as `evflow.core.backfill.instant_us` takes it.
        until: Its end.
        max_parallel: Runs at a time.
        again: Run ticks that have a run already, too.
        most: More ticks than that are refused.
        parameters: Texts, as on a command line; `{tick}` and `{date}` stand for a tick.
        tags: User tags of every run.
        user: Who asks.
        host: Where.
    """

    since: str
    until: str
    max_parallel: int = 1
    again: bool = False
    most: int = DEFAULT_MOST
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    tags: tuple[str, ...] = ()
    user: str = ""
    host: str = ""


@value
class Plan:
    """What a backfill would do.

    Attributes:
        event: The event that asks for it, without its number.
        cut: The span ends now instead of in the future.
    """

    event: BackfillRequested
    cut: bool = False

    def as_backfill(self) -> Backfill:
        """The backfill at its beginning."""
        found = after(None, self.event, 0, "", 0)
        assert found is not None
        return found


def parse(text: str) -> Name:
    """Take FLOW/b1 apart.

    Raises:
        UsageError: It is not of this form.
    """
    flow, _, number = text.partition("/b")
    if not flow.isidentifier() or not number.isdecimal():
        raise BackfillSpanInvalid(f"'{text}' is no backfill.", "A backfill is written FLOW/b1; `evflow backfills` lists them.")
    return Name(FlowName(flow), int(number))


# --- what would happen -------------------------------------------------------------------------------------


def plan(wanted: Reference, found: Deployment, wish: Wish, store: Store, now_us: int) -> Plan:
    """See that a backfill can be asked for, and what of.

    Raises:
        NoSchedule, BackfillSpanInvalid: There are no such ticks, or too many.
        EvflowError: A run of it could not be asked for: as `request_run`.
    """
    if found.schedule is None:
        raise NoSchedule(wanted)
    schedule = from_plain(found.schedule)
    from_us, to_us = _instant(wish.since, schedule, end=False), _instant(wish.until, schedule, end=True)
    if from_us > to_us:
        raise BackfillSpanInvalid(f"The span ends before it begins: from {wish.since} to {wish.until}.", "Nothing was asked for.")
    if from_us > now_us:
        raise BackfillSpanInvalid(
            f"The span begins in the future: {wish.since}.", "The schedule itself starts the runs of the ticks to come."
        )
    cut, to_us = to_us > now_us, min(to_us, now_us)
    found_ticks = _counted(wanted, schedule, from_us, to_us, wish)
    if not 0 < wish.max_parallel <= MOST_PARALLEL:
        raise BackfillSpanInvalid(f"{wish.max_parallel} runs in parallel are not possible: 1 to {MOST_PARALLEL} are.", "")
    wrong = core.parameters_fault(wish.parameters)
    if wrong is not None:
        raise BackfillSpanInvalid(wrong, "Put what is long into a file, and give its name.")
    event = BackfillRequested(
        0, found.name, found.version, dict(found.schedule), from_us, to_us, found_ticks, wish.max_parallel, wish.again,
        dict(wish.parameters), wish.tags, wish.user, wish.host,
    )  # fmt: skip
    planned = Plan(event, cut)
    first = next(ticks(schedule, from_us, to_us))
    make_ready(store, found, asked_at(planned.as_backfill(), first))  # what is wrong with parameters and tags is said now
    return planned


def asked_at(backfill: Backfill, tick_us: int) -> Asked:
    """The request for the run of a tick."""
    return Asked(parameters_at(backfill, tick_us), backfill.tags, backfill.user, backfill.host, core.trigger(backfill, tick_us))


def preview(log: LogClient, flow: FlowName, planned: Plan) -> list[tuple[int, str]]:
    """Each tick, and `run` or why it would be skipped, as it is now."""
    backfill = planned.as_backfill()
    known = RunsOfTicks(log, flow)
    known.catch_up()
    schedule = from_plain(backfill.schedule)
    of_ticks = ticks(schedule, backfill.from_us, backfill.to_us)
    return [(tick, "run" if backfill.again else known.held(backfill.name, tick) or "run") for tick in of_ticks]


# --- asking for it -----------------------------------------------------------------------------------------


def request(log: LogClient, flow: FlowName, planned: Plan, *, user: str) -> Backfill:
    """Record a backfill: from now on whoever looks after the flow carries it out.

    Raises:
        DeploymentsChangeTooFast: Somebody else was faster a hundred times.
        LogUnavailable: The server cannot be used.
    """

    def event(known: Mapping[int, bytes]) -> tuple[int, Event]:
        number = 1 + max(known, default=0)
        return number, replace(planned.event, number=number)

    return _append(log, flow, event, user)


def cancel(log: LogClient, name: Name, *, runs: bool, user: str) -> tuple[Backfill, bool]:
    """End a backfill: no more runs are asked for, and with `runs` those that are not over are cancelled.

    Returns:
        The backfill, and False where it was over before, and nothing was done.

    Raises:
        BackfillNotFound: There is none of that name.
    """
    found = find(log, name)
    if found.is_over:
        return found, False

    def event(_: Mapping[int, bytes]) -> tuple[int, Event]:
        return name.number, BackfillCancelRequested(name.number, runs)

    return _append(log, name.flow, event, user), True


def find(log: LogClient, name: Name) -> Backfill:
    """A backfill.

    Raises:
        BackfillNotFound: There is none of that name.
    """
    known = log.backfills(name.flow)
    if name.number not in known:
        raise BackfillNotFound(name, list(known))
    return unpacked(known[name.number])


def listed(log: LogClient, flow: FlowName | None = None) -> list[tuple[Name, Backfill]]:
    """All backfills, of one flow if one is named, newest first within a flow."""
    flows = log.backfilled() if flow is None else [flow]
    return [(Name(name, number), unpacked(packed)) for name in flows for number, packed in reversed(log.backfills(name).items())]


def runs_of(log: LogClient, name: Name) -> list[tuple[int, RunId]]:
    """The ticks that runs were asked for, and these, in order; reads the flow's whole log."""
    found: list[tuple[int, RunId]] = []
    for _, event in _requests(log, name.flow, 0):
        if core.number_of(event) == name.number and event.trigger is not None:
            found.append((event.trigger["tick_us"], RunId(name.flow, RunNumber(event.number))))
    return found


# --- runs of ticks -----------------------------------------------------------------------------------------


class RunsOfTicks:
    """Which runs the ticks of a flow have, from its log; read once, and then what is new.

    Args:
        log: The log.
        flow: The flow.
    """

    def __init__(self, log: LogClient, flow: FlowName) -> None:
        self._log = log
        self._flow = flow
        self._seq = 0
        self._runs: dict[tuple[str, int], list[int]] = {}

    def catch_up(self) -> None:
        """Read what was appended since."""
        for seq, event in _requests(self._log, self._flow, self._seq):
            self._seq = seq
            tick_us = (event.trigger or {}).get("tick_us")
            if isinstance(tick_us, int):
                self._runs.setdefault((event.deployment, tick_us), []).append(event.number)

    def held(self, deployment: str, tick_us: int) -> str | None:
        """Why a tick needs no run: one of it succeeded, or is not over. None where it does."""
        statuses = [status_of(self._log, RunId(self._flow, RunNumber(number))) for number in self._runs.get((deployment, tick_us), ())]
        if "succeeded" in statuses:
            return core.HAS_RUN
        return core.IS_RUNNING if None in statuses else None


def status_of(log: LogClient, run: RunId) -> str | None:
    """How a run of schedulers ended, or None where it is not over. The log is asked: the index may lag behind it."""
    line = log.run(run)
    told = line.summary.get("status") if line is not None else None
    if told in OVER:
        return str(told)
    shard = shared_shard(run)
    head = log.head(shard, run)
    if head.status != "sealed":
        return None
    last = log.read(shard, run, max(0, head.seq - _LAST_EVENTS), _LAST_EVENTS)
    found = [_OUTCOMES[type(record.event)] for record in (decode(*one[:2]) for one in last) if type(record.event) in _OUTCOMES]
    return found[-1] if found else "failed"


# --- parts -------------------------------------------------------------------------------------------------


def _requests(log: LogClient, flow: FlowName, after_seq: int) -> Iterator[tuple[int, RunRequested]]:
    while chunk := log.flow_events(flow, after_seq, _CHUNK):
        for stored in chunk:
            try:
                event = flow_events.decode(*stored).event
            except UnreadableEvent:
                continue  # whoever reads the flow's log for its own sake tells of it
            if isinstance(event, RunRequested):
                yield stored.seq, event
        after_seq = chunk[-1].seq


def _append(log: LogClient, flow: FlowName, event_of: Callable[[Mapping[int, bytes]], tuple[int, Event]], user: str) -> Backfill:
    """Append what somebody wants of a backfill, and change what it is in the same act."""
    principal = f"user:{user}"
    for _ in range(_MOST_TRIES):
        expected = log.flow_seq(flow)  # before what is known: a change between the two is a conflict
        known = log.backfills(flow)
        number, event = event_of(known)
        at_us = log.now_us()
        before = unpacked(known[number]) if number in known else None
        now = after(before, event, at_us, principal, expected + 1)
        assert now is not None  # what is not there cannot be cancelled, and what is asked for is there
        changed = BackfillChange(number, pack(now), known.get(number, b""))
        try:
            log.append_flow(flow, expected, flow_events.encode(event, at_us=at_us, principal=principal), changed)
        except Conflict:
            continue
        return now
    raise DeploymentsChangeTooFast(flow)


def _instant(text: str, schedule: Schedule, *, end: bool) -> int:
    try:
        return instant_us(text, schedule.timezone, end=end)
    except ValueError:
        raise BackfillSpanInvalid(
            f"'{text}' is no instant.",
            f"Write 2026-11-27, 2026-11-27T06:00 (by the clock of {schedule.timezone}) or 2026-11-27T06:00+01:00.",
        ) from None


def _counted(wanted: Reference, schedule: Schedule, from_us: int, to_us: int, wish: Wish) -> int:
    if not 0 < wish.most <= MOST_TICKS:
        raise BackfillSpanInvalid(
            f"--most {wish.most} is not possible: 1 to {MOST_TICKS:,} are.", "Ask for a longer span in several backfills."
        )
    found = count(schedule, from_us, to_us, MOST_TICKS)
    span = f"from {wish.since} to {wish.until}"
    if not found:
        raise BackfillSpanInvalid(
            f"'{wanted}' has no tick {span}: its schedule is {schedule.cron} ({schedule.timezone}).", "Nothing was asked for."
        )
    if found > wish.most:
        many = f"{found:,}" if found <= MOST_TICKS else f"more than {MOST_TICKS:,}"
        what = f"`--most {found}` allows it." if found <= MOST_TICKS else "Ask for it in several backfills."
        raise BackfillSpanInvalid(f"'{wanted}' has {many} ticks {span}, and a backfill of more than {wish.most:,} must be meant.", what)
    return found
