"""Schedules: when a flow's ticks come, and which of those that are due are run.

A cron expression has five fields and means what Debian's cron makes of it, at clock changes too (the library `cronsim`): a tick
at fixed hours that a change to summer time leaves out comes right after the gap, one in the hour that the change back repeats
comes once; expressions with a star in minute or hour go by the time that passes. Metaflow's form with six fields (AWS) is read as far as it says
the same.

Everything here is a function of its arguments and of the time-zone database, which `zoneinfo` reads. Instants are microseconds
since 1970 in UTC; a tick is a whole minute.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from evflow.core.values import value

CatchUp = Literal["none", "last", "all"]
CATCH_UPS: Final = ("none", "last", "all")
MOST_CATCH_UP: Final = 1_000
"""The largest bound of `catch_up="all"`: each is a run, asked for at once."""
DEFAULT_MOST: Final = 10
ON_TIME_WITHIN_US: Final = 300_000_000
"""A tick that is decided within five minutes was not missed: a scheduler may be started anew, a server may fail over."""
_MOST_CHARS: Final = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOW_US: Final = 3_600_000_000
_AWS_FIELDS: Final = 6
_ONE_US = timedelta(microseconds=1)
_TRIAL_US: Final = 1_704_067_200_000_000
"""2024-01-01: whether a schedule ever comes is tried from there, so that the answer is the same at all times."""


@value
class Schedule:
    """When ticks come, and what becomes of those that were missed.

    Attributes:
        cron: Five fields: minute, hour, day of the month, month, day of the week.
        timezone: An IANA name.
        catch_up: Which ticks are run that were missed while nobody watched: none, the last one, or all.
        catch_up_most: With `all`: no more than the newest so many.
    """

    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "none"
    catch_up_most: int = DEFAULT_MOST


@value
class Due:
    """A tick that is to be decided, or several in a row that are to be skipped for one reason.

    Attributes:
        tick_us: The tick; the last of several.
        since_us: The first of them; as `tick_us` for one.
        run: It is to be run.
        reason: `due`, `caught-up`; for a skip `missed` (`catch_up="none"`), `not-the-last`, `too-many`, `paused`.
    """

    tick_us: int
    since_us: int
    run: bool
    reason: str


def to_plain(schedule: Schedule) -> dict[str, Any]:
    """As events hold it."""
    return {
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "catch_up": schedule.catch_up,
        "catch_up_most": schedule.catch_up_most,
    }


def from_plain(plain: Mapping[str, Any]) -> Schedule:
    """The schedule that `to_plain` wrote; what it does not know, of a later version, is passed over.

    Raises:
        ValueError: It is no schedule.
    """
    known = {name: plain[name] for name in ("cron", "timezone", "catch_up", "catch_up_most") if name in plain}
    if not isinstance(known.get("cron"), str):
        raise ValueError("it has no cron expression")  # noqa: TRY004 - of data, not of an argument
    schedule = Schedule(**known)
    wrong = fault(schedule)
    if wrong is not None:
        raise ValueError(wrong)
    return schedule


def fault(schedule: Schedule) -> str | None:
    """What is wrong with a schedule, as a sentence; None where nothing is."""
    wrong = _of_timezone(schedule.timezone) or _of_cron(schedule.cron)
    if wrong is not None:
        return wrong
    if schedule.catch_up not in CATCH_UPS:
        return f"catch_up is {schedule.catch_up!r}: it is one of {', '.join(map(repr, CATCH_UPS))}."
    most: object = schedule.catch_up_most
    if type(most) is not int or not 0 < most <= MOST_CATCH_UP:
        return f"catch_up_most is {most!r}: it is a whole number from 1 to {MOST_CATCH_UP}."
    if next_tick_us(schedule, _TRIAL_US) is None:
        return f"The cron expression {schedule.cron!r} names no day that ever comes."
    return None


def plain_cron(text: str) -> str | None:
    """A cron expression with five fields, from one that has five, or six as AWS and Metaflow write them; None where there is none.

    AWS's sixth field is the year, and its days of the week count from 1: only names of days mean the same in both.
    """
    fields = text.split()
    if len(fields) == _AWS_FIELDS and fields[-1] == "*" and "?" in (fields[2], fields[4]):
        fields.pop()
        if any(character.isdigit() for character in fields[4]):
            return None
    if len(fields) != _AWS_FIELDS - 1:
        return None
    return " ".join("*" if field == "?" else field for field in fields)


def next_tick_us(schedule: Schedule, after_us: int) -> int | None:
    """The first tick after an instant; None where none comes within fifty years."""
    return next(_ticks(schedule, after_us), None)


def local(schedule: Schedule, tick_us: int) -> str:
    """A tick by the schedule's own clock, with its offset from UTC: `2026-03-29T03:00:00+02:00`."""
    return (_EPOCH + timedelta(microseconds=tick_us)).astimezone(_zone(schedule.timezone)).isoformat()


def due(schedule: Schedule, last_us: int, now_us: int, *, paused: bool = False) -> list[Due]:
    """What is to be decided of the ticks after the last decided one, up to now, in order.

    Every one of these ticks is in exactly one of the answers. There are at most `catch_up_most + 1` of those, however many ticks were missed.
    """
    if next_tick_us(schedule, last_us) is None or now_us <= last_us:
        return []
    wanted = schedule.catch_up_most if schedule.catch_up == "all" and not paused else 1
    first, newest = _newest(schedule, last_us, now_us, wanted + 1)
    if not newest:
        return []
    if paused:
        return [Due(newest[-1], first, run=False, reason="paused")]
    older, taken = (newest[:-wanted], newest[-wanted:])
    on_time = newest[-1] >= now_us - ON_TIME_WITHIN_US
    if schedule.catch_up == "none" and not on_time:
        return [Due(newest[-1], first, run=False, reason="missed")]
    why = {"none": "missed", "last": "not-the-last", "all": "too-many"}[schedule.catch_up]
    skipped = [Due(older[-1], first, run=False, reason=why)] if older else []
    return [*skipped, *(Due(tick, tick, run=True, reason="due" if tick >= now_us - ON_TIME_WITHIN_US else "caught-up") for tick in taken)]


def _newest(schedule: Schedule, last_us: int, now_us: int, most: int) -> tuple[int, list[int]]:
    """The first tick between two instants, and the newest few; years of missed ticks are not walked through."""
    first = next_tick_us(schedule, last_us)
    if first is None or first > now_us:
        return 0, []
    window_us = _WINDOW_US
    while True:
        begin_us = max(last_us, now_us - window_us)
        found: deque[int] = deque(_until(schedule, begin_us, now_us), maxlen=most)
        if len(found) == most or begin_us == last_us:
            return first, list(found)
        window_us *= 4


def _until(schedule: Schedule, after_us: int, now_us: int) -> Iterator[int]:
    for tick in _ticks(schedule, after_us):
        if tick > now_us:
            return
        yield tick


def _ticks(schedule: Schedule, after_us: int) -> Iterator[int]:
    """All ticks after an instant, in order."""
    latest = after_us
    try:
        simulated = CronSim(schedule.cron, (_EPOCH + timedelta(microseconds=after_us)).astimezone(_zone(schedule.timezone)))
        for tick in simulated:
            at_us = (tick.astimezone(UTC) - _EPOCH) // _ONE_US
            # Within an hour that comes twice the library begins anew, and says ticks of its first coming.
            if at_us > latest:
                latest = at_us
                yield at_us
    except (OverflowError, ValueError):  # the calendar is over, or the clock is out of its mind
        return


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    if name == "localtime":  # another one on each machine
        raise LookupError(name)
    return UTC if name == "UTC" else ZoneInfo(name)


def _of_timezone(name: object) -> str | None:
    if not isinstance(name, str):
        return f"timezone is {name!r}: it is a name as 'Europe/Berlin'."
    try:
        _zone(name)
    except (LookupError, OSError, ValueError):  # not there; a folder of zones; no name at all
        return f"There is no time zone {name[:80]!r}: names are those of the IANA database, as 'Europe/Berlin' or 'UTC'."
    return None


def _of_cron(text: object) -> str | None:
    if not isinstance(text, str):
        return f"cron is {text!r}: it is a text of five fields, as '30 2 * * *'."
    shown = repr(text[:80])
    if len(text) > _MOST_CHARS:
        return f"The cron expression {shown}… is longer than {_MOST_CHARS} characters."
    if len(text.split()) != _AWS_FIELDS - 1:
        count = len(text.split())
        return (
            f"The cron expression {shown} has {count} field{'' if count == 1 else 's'}. Five are needed: minute, hour, day of the month, "
            "month, day of the week, as '30 2 * * *'."
        )
    try:
        CronSim(text, _EPOCH)
    except (CronSimError, AssertionError, LookupError, RecursionError, TypeError, ValueError) as error:
        said = str(error) if isinstance(error, CronSimError) else ""
        return f"The cron expression {shown} cannot be read{f': {said[0].lower()}{said[1:]}' if said else ''}."
    return None
