"""Backfills: runs for ticks of a schedule that are past, as a plan that stands in the flow's log.

A backfill pins the deployment's version and its schedule, so what its ticks are never changes. Its ticks are decided in their
order: each is either asked for (`RunRequested` with the tick as its trigger) or skipped with a reason (`BackfillTicksSkipped`), and `cursor_us` says up to
where. No more than `max_parallel` of its runs are asked for and not over at a time.

As with deployments, the log is the truth, and what it folds to is kept beside it (`{evflow:flow:<Flow>}:backfills`), changed by the act that appends
the event. `after` is the step of the fold, `decide` says what comes next. Whoever carries a backfill out appends that at the expected end of
the log, so of two who do only one is heard.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from evflow.core.codec import pack_value, unpack_value
from evflow.core.events import Event, Plain
from evflow.core.flow_events import (
    BackfillCancelRequested,
    BackfillEnded,
    BackfillRequested,
    BackfillRunsEnded,
    BackfillTicksSkipped,
    FlowRecord,
    RunRequested,
)
from evflow.core.schedule import Schedule, from_plain, local, next_tick_us
from evflow.core.values import declared, replaced, value

BACKFILL: Final = "backfill"
"""The `kind` of a trigger that is a tick of a backfill."""
DEFAULT_MOST: Final = 500
"""Ticks of a backfill that nobody said more of: a slip of the pen in a date is not ten thousand runs."""
MOST_TICKS: Final = 100_000
MOST_PARALLEL: Final = 100
"""What is kept beside the log names each run that is not over."""
SKIPS_AT_ONCE: Final = 1_000
"""Ticks that one event skips: each is looked at before."""
HAS_RUN: Final = "has-run"
IS_RUNNING: Final = "is-running"
_MOST_PARAMETER_CHARS: Final = 8_000
_DATE_CHARS: Final = len("2026-11-27")


@value
class Backfill:
    """A backfill as it is now.

    Attributes:
        number: Its number, dense from 1 for each flow.
        name: As for `BackfillRequested`, like all up to `host`.
        requested_us: When it was asked for, by the server's clock.
        by: Who asked: the event's principal.
        cursor_us: All ticks up to here are decided.
        running: Where in the flow's log the requests of its runs stand that are not known to be over.
        asked: Runs that were asked for.
        skipped: Ticks that were skipped.
        succeeded: Runs that succeeded.
        failed: Runs that failed or were cancelled.
        status: `active`, `cancelling`, then `done`, `cancelled` or `undeployed`.
        cancelled_by: Who cancelled it.
        cancel_runs: Its runs are cancelled with it.
        ended_us: When it ended, or 0.
    """

    number: int
    name: str
    version: int
    schedule: dict[str, Plain]
    from_us: int
    to_us: int
    ticks: int
    max_parallel: int
    again: bool
    parameters: dict[str, str]
    tags: tuple[str, ...]
    user: str
    host: str
    requested_us: int = 0
    by: str = ""
    cursor_us: int = 0
    running: tuple[int, ...] = ()
    asked: int = 0
    skipped: int = 0
    succeeded: int = 0
    failed: int = 0
    status: str = "active"
    cancelled_by: str = ""
    cancel_runs: bool = False
    ended_us: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.status not in ("active", "cancelling")


@value
class Ask:
    """The next tick is to be run."""

    tick_us: int


_OF_EVENT = tuple(declared(BackfillRequested))
_ABOUT = (BackfillRequested, BackfillTicksSkipped, BackfillRunsEnded, BackfillCancelRequested, BackfillEnded)


# --- the plan ----------------------------------------------------------------------------------------------


def ticks(schedule: Schedule, from_us: int, to_us: int) -> Iterator[int]:
    """The ticks from an instant up to another, both included, in order."""
    tick = next_tick_us(schedule, from_us - 1)
    while tick is not None and tick <= to_us:
        yield tick
        tick = next_tick_us(schedule, tick)


def count(schedule: Schedule, from_us: int, to_us: int, most: int) -> int:
    """How many ticks there are; `most + 1` where there are more than that: years of minutes are not walked through."""
    found = 0
    for _ in ticks(schedule, from_us, to_us):
        found += 1
        if found > most:
            break
    return found


def instant_us(text: str, timezone: str, *, end: bool) -> int:
    """An instant that somebody wrote: a date, or a date and a time, by the schedule's clock unless it has an offset.

    Args:
        text: ISO 8601: `2026-11-27`, `2026-11-27T06:00`, `2026-11-27T06:00+01:00`, `2026-11-27T05:00Z`.
        timezone: The schedule's.
        end: A date alone is the end of that day, not its beginning.

    Raises:
        ValueError: It is none, or one that no calendar has.
    """
    try:
        if len(text) == _DATE_CHARS:
            day = date.fromisoformat(text) + timedelta(days=end)
            moment = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - its zone comes below
        else:
            moment, end = datetime.fromisoformat(text), False
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC if timezone == "UTC" else ZoneInfo(timezone))
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - end
    except OverflowError as error:
        raise ValueError(str(error)) from error


def parameters_fault(parameters: Mapping[str, str]) -> str | None:
    """Why an event cannot hold these parameters, as a sentence; None where it can."""
    size = sum(len(name) + len(text) for name, text in parameters.items())
    return (
        f"The parameters have {size:,} characters, and a backfill holds {_MOST_PARAMETER_CHARS:,}."
        if size > _MOST_PARAMETER_CHARS
        else None
    )


def parameters_at(backfill: Backfill, tick_us: int) -> dict[str, str]:
    """The parameters of a tick's run: `{tick}` and `{date}` in a text are the tick, and its day, by the schedule's clock."""
    if not backfill.parameters:
        return {}
    tick = local(from_plain(backfill.schedule), tick_us)
    return {name: text.replace("{tick}", tick).replace("{date}", tick[:_DATE_CHARS]) for name, text in backfill.parameters.items()}


def trigger(backfill: Backfill, tick_us: int) -> dict[str, Any]:
    """What started the run, as `RunRequested`, `RunStarted` and `current.trigger` have it."""
    schedule = from_plain(backfill.schedule)
    return {
        "kind": BACKFILL,
        "deployment": backfill.name,
        "version": backfill.version,
        "tick_us": tick_us,
        "tick": local(schedule, tick_us),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "reason": "backfill",
        "backfill": backfill.number,
    }


# --- the decision ------------------------------------------------------------------------------------------


def decide(
    backfill: Backfill, over: Mapping[int, tuple[int, str]], held: Callable[[int], str | None], *, deployed: bool
) -> Event | Ask | None:
    """What comes next of a backfill; asked again once that is done. None: nothing, until a run is over.

    Args:
        backfill: The backfill.
        over: Of its running ones those that are over: position of the request to run number and status.
        held: Why a tick needs no run (`has-run`, `is-running`), or None; asked of one tick after the other.
        deployed: Its deployment is there.
    """
    if backfill.is_over:
        return None
    ended = [seq for seq in backfill.running if seq in over]
    if ended:
        return BackfillRunsEnded(backfill.number, tuple(ended), tuple(over[seq][0] for seq in ended), tuple(over[seq][1] for seq in ended))
    outcome = "cancelled" if backfill.status == "cancelling" else "undeployed" if not deployed else ""
    schedule = from_plain(backfill.schedule)
    tick_us = None if outcome else _next(schedule, backfill.cursor_us, backfill.to_us)
    if tick_us is None:
        return None if backfill.running else BackfillEnded(backfill.number, outcome or "done")
    reason = None if backfill.again else held(tick_us)
    if reason is not None:
        return _skip(backfill, schedule, tick_us, reason, held)
    return Ask(tick_us) if len(backfill.running) < backfill.max_parallel else None


def leaves_out(backfill: Backfill, tick_us: int) -> bool:
    """Whether the ticks before this one would never be decided if this one were decided now."""
    next_us = None if backfill.status != "active" else _next(from_plain(backfill.schedule), backfill.cursor_us, backfill.to_us)
    return next_us is not None and next_us < tick_us


def skip(backfill: Backfill, tick_us: int, reason: str) -> BackfillTicksSkipped:
    """The event that skips one tick."""
    return BackfillTicksSkipped(backfill.number, tick_us, reason)


def _skip(backfill: Backfill, schedule: Schedule, first_us: int, reason: str, held: Callable[[int], str | None]) -> Event:
    last_us, found = first_us, 1
    while found < SKIPS_AT_ONCE:
        tick_us = _next(schedule, last_us, backfill.to_us)
        if tick_us is None or held(tick_us) != reason:
            break
        last_us, found = tick_us, found + 1
    return BackfillTicksSkipped(backfill.number, last_us, reason, first_us if found > 1 else 0, found)


def _next(schedule: Schedule, after_us: int, to_us: int) -> int | None:
    tick_us = next_tick_us(schedule, after_us)
    return tick_us if tick_us is not None and tick_us <= to_us else None


# --- the fold ----------------------------------------------------------------------------------------------


def number_of(event: Event) -> int | None:
    """The backfill that is another one after the event, or None."""
    if isinstance(event, _ABOUT):
        return event.number
    if isinstance(event, RunRequested) and event.trigger is not None and event.trigger.get("kind") == BACKFILL:
        number = event.trigger.get("backfill")
        return number if isinstance(number, int) else None
    return None


def after(before: Backfill | None, event: Event, at_us: int, principal: str, seq: int) -> Backfill | None:
    """The backfill after an event about it; None where there is none.

    Args:
        before: What it was.
        event: The event.
        at_us: Its time.
        principal: Who caused it.
        seq: Its position.
    """
    if isinstance(event, BackfillRequested):
        fresh: dict[str, Any] = {name: getattr(event, name) for name in _OF_EVENT}
        return Backfill(**fresh, requested_us=at_us, by=principal, cursor_us=event.from_us - 1)
    if before is None:
        return None
    if isinstance(event, RunRequested):
        tick_us = (event.trigger or {}).get("tick_us", before.cursor_us)
        return replaced(before, cursor_us=max(before.cursor_us, tick_us), running=(*before.running, seq), asked=before.asked + 1)
    if isinstance(event, BackfillTicksSkipped):
        return replaced(before, cursor_us=max(before.cursor_us, event.tick_us), skipped=before.skipped + event.ticks)
    if isinstance(event, BackfillRunsEnded):
        succeeded = sum(status == "succeeded" for status in event.statuses)
        return replaced(
            before,
            running=tuple(one for one in before.running if one not in event.asked),
            succeeded=before.succeeded + succeeded,
            failed=before.failed + len(event.statuses) - succeeded,
        )
    if isinstance(event, BackfillCancelRequested) and not before.is_over:
        return replaced(before, status="cancelling", cancelled_by=principal, cancel_runs=before.cancel_runs or event.runs)
    if isinstance(event, BackfillEnded):
        return replaced(before, status=event.outcome, ended_us=at_us)
    return before


def fold(records: Iterable[FlowRecord]) -> dict[int, Backfill]:
    """All backfills of a flow, by number, from the events of its log."""
    found: dict[int, Backfill] = {}
    for record in records:
        number = number_of(record.event)
        if number is not None:
            now = after(found.get(number), record.event, record.at_us, record.principal, record.seq)
            if now is not None:
                found[number] = now
    return found


def pack(backfill: Backfill) -> bytes:
    """The bytes that stand beside the log: an array, fields by position, new ones at the end with a default."""
    return pack_value(backfill)


def unpacked(payload: bytes) -> Backfill:
    """The backfill that `pack` wrote; surplus fields, of a later version, are dropped.

    Raises:
        UnreadableEvent: The bytes are none.
    """
    return unpack_value(Backfill, payload, "a backfill")
