"""Fold a log anew: the state at its end, or at any point before."""

from collections.abc import Callable, Iterable

from evflow.collector import paused
from evflow.core.apply import apply
from evflow.core.codec import Record, decode
from evflow.core.state import RunState
from evflow.log.protocol import StoredEvent


def refold(
    events: Iterable[StoredEvent],
    *,
    until_seq: int | None = None,
    until_us: int | None = None,
    each: Callable[[Record, RunState], None] | None = None,
) -> RunState:
    """The state that the events fold to.

    Args:
        events: A run's events from the first one on.
        until_seq: Stop behind this position.
        until_us: Stop before the first turn that is later than this instant (microseconds since 1970).
        each: Called with every record after it was folded.

    Raises:
        UnreadableEvent: The bytes of an event are not one.
        ImpossibleEvent: An event cannot follow what stands before it.
    """
    state = RunState()
    with paused():
        for seq, payload, _ in events:
            if until_seq is not None and seq > until_seq:
                break
            record = decode(seq, payload)
            if until_us is not None and record.at_us > until_us:
                break
            apply(state, record)
            if each is not None:
                each(record, state)
    return state
