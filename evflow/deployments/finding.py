"""Events of a flow's log by what is known of them: the number of a run, or an instant. Found by halving, not by reading all.

Run numbers rise along a flow's log. So do the times of its events, but for who took the time first and appended later: no more than
`DISORDER_US`, since an append that follows from what stands there is refused when something else came before it.
"""

from collections.abc import Iterator
from typing import Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent
from evflow.core.flow_events import FlowRecord, RunRequested
from evflow.core.ids import FlowName, RunNumber
from evflow.log.protocol import LogClient

DISORDER_US: Final = 3_600_000_000
"""How much later an event's time may be than that of one behind it: a process can be suspended between the two acts."""
_FEW: Final = 16
MOST: Final = 5_000
"""Events of one request, which begin with few."""


def records(log: LogClient, flow: FlowName, after: int = 0, first: int = MOST) -> Iterator[FlowRecord]:
    """The readable events of a flow's log behind a position, oldest first.

    Args:
        log: The log.
        flow: The flow.
        after: The position.
        first: How many are asked for at first; then twice as many, up to `MOST`.
    """
    at = after
    while chunk := log.flow_events(flow, at, first):
        for stored in chunk:
            try:
                yield flow_events.decode(*stored)
            except UnreadableEvent as error:
                diagnostics.warning("an event of a flow's log cannot be read", flow=flow, seq=stored.seq, why=str(error))
        at, first = chunk[-1].seq, min(2 * first, MOST)


def place_of(log: LogClient, flow: FlowName, at_us: int) -> int:
    """A position behind which all events of an instant and later ones stand; none that are much older do.

    Args:
        log: The log.
        flow: The flow.
        at_us: The instant, in microseconds since 1970.
    """
    wanted_us = at_us - DISORDER_US
    low, high = 0, int(log.flow_seq(flow))  # behind `low` stands what is wanted, and behind `high` nothing that is older
    while low < high:
        middle = (low + high) // 2
        found = next(records(log, flow, middle, 1), None)
        if found is None or found.seq > high or found.at_us >= wanted_us:
            high = middle
        else:
            low = found.seq
    return low


def request_of(log: LogClient, flow: FlowName, number: RunNumber) -> FlowRecord | None:
    """The event that gave a run its number; one that is not where its number says is looked for in the whole log."""
    low, high = 0, int(log.flow_seq(flow))
    while low < high:
        middle = (low + high) // 2
        found = _request_behind(log, flow, middle, high)
        if found is None:
            high = middle
        elif found[1] == number:
            return found[0]
        elif found[1] > number:
            high = middle
        else:
            low = found[0].seq
    return next((one for one, asked in _requests(records(log, flow)) if asked == number), None)


def _request_behind(log: LogClient, flow: FlowName, after: int, until: int) -> tuple[FlowRecord, int] | None:
    """The first request behind a position, up to another one."""
    for record in records(log, flow, after, _FEW):
        if record.seq > until:
            return None
        if isinstance(record.event, RunRequested):
            return record, record.event.number
    return None


def _requests(found: Iterator[FlowRecord]) -> Iterator[tuple[FlowRecord, int]]:
    return ((record, record.event.number) for record in found if isinstance(record.event, RunRequested))
