"""A run in the hands of its owner: the state, the end of its log, and the turns not yet appended.

No I/O: `turn` folds and decides, `pending` is what appends take, `appended` strikes it off.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from evflow.core import events as ev
from evflow.core.apply import apply
from evflow.core.canonical import digest
from evflow.core.chain import extend
from evflow.core.codec import Record, as_read, encode
from evflow.core.decide import settle
from evflow.core.fold import ChainBroken, fold
from evflow.core.ids import Micros, RunId, Seq
from evflow.core.reuse import ReusePlan
from evflow.core.state import RunState
from evflow.errors import EnvironmentProblem
from evflow.log.protocol import MAX_APPEND_BYTES, MAX_APPEND_CONSUMED, MAX_APPEND_EVENTS, AppendCall, Head, StoredEvent

OWNER = "scheduler"


class LogBroken(EnvironmentProblem):
    """The digests beside a log's events are not those of its events: nobody may go on from there."""

    code = "log-broken"

    def __init__(self, run: RunId, seq: int) -> None:
        super().__init__(
            f"The log of '{run}' does not hold together at event {seq}: it was changed, or its server has lost a part of it.",
            f"`evflow replay {run} --verify` says more. To go on with the run, restore the server's data.",
        )


class _Turn(NamedTuple):
    """A turn that is not in the log yet: where its events end, their size, and the reports that became its facts."""

    end: int
    size: int
    consumed: Sequence[bytes]
    over: bool


class OwnedRun:
    """A run that this process owns.

    Attributes:
        id: The run.
        state: What its log folds to, the turns not yet appended included. Discarded when an append is
            refused: the log is the truth.
        head: The end of the log at the server.
        reuse: What a resumed run may take over from its origin, or None.
    """

    def __init__(self, run: RunId, reuse: ReusePlan | None = None) -> None:
        self.id = run
        self.reuse = reuse
        self.state = RunState()
        self.head = Head()
        self._digest = self.head.digest
        self._records: list[Record] = []
        self._payloads: list[bytes] = []
        self._links: list[bytes] = []
        self._turns: list[_Turn] = []

    def load(self, events: Sequence[StoredEvent]) -> None:
        """Fold the next events of the log; for a run that another process owned before.

        Raises:
            LogBroken: They are not what follows the events before.
        """
        try:
            self._digest = fold(self.state, self._digest, events)
        except ChainBroken as error:
            raise LogBroken(self.id, error.seq) from error
        self.head = Head(self.state.seq, self._digest, "sealed" if self.state.sealed else "active")

    def forget(self) -> None:
        """Forget what was loaded, so that it can be loaded again."""
        self.state = RunState()
        self.head = Head()
        self._digest = self.head.digest

    def turn(self, facts: Sequence[tuple[ev.Event, str, int]], now_us: int, consumed: Sequence[bytes] = ()) -> list[Record]:
        """Fold the facts `(event, principal, cause)` and what follows from them, at one instant.

        Args:
            facts: The facts.
            now_us: The instant; never before the last turn's.
            consumed: The inbox entries that these facts were: struck off in the same act as the turn is written.

        Returns:
            The records of the turn, and of those that go on with it where it is too large for one; empty if there was
            neither a fact nor a decision.
        """
        state = self.state
        now = max(now_us, state.at_us)
        number = state.turn + 1
        first = len(self._records)
        for stated, principal, cause in facts:
            event = as_read(stated) if isinstance(stated, ev.RunStarted) else stated  # It has texts from anywhere.
            record = Record(Seq(state.seq + 1), number, Micros(now), principal, cause, event)
            apply(state, record)
            self._records.append(record)
        self._records.extend(settle(state, number, now))
        return self._encoded(first, consumed)

    def seal(self, now_us: int) -> list[Record]:
        """End the log with the digests of the live state and of the chain so far."""
        state = self.state
        event = ev.RunSealed(digest(state), self._digest, state.seq, state.late)
        now = max(now_us, state.at_us)
        record = Record(Seq(state.seq + 1), state.turn + 1, Micros(now), OWNER, state.seq, event)
        apply(state, record)
        first = len(self._records)
        self._records.append(record)
        return self._encoded(first)

    def _encoded(self, first: int, consumed: Sequence[bytes] = ()) -> list[Record]:
        new = self._records[first:]
        for _, turn in groupby(new, key=lambda record: record.turn):
            size = 0
            for record in turn:
                payload = encode(
                    record.event, turn=record.turn, at_us=record.at_us,
                    principal=record.principal, cause=record.cause,
                )  # fmt: skip
                self._digest = extend(self._digest, payload)
                self._payloads.append(payload)
                self._links.append(self._digest)
                size += len(payload)
            self._turns.append(_Turn(len(self._payloads), size, consumed, self.state.sealed))
            consumed = ()
        if consumed:
            self._turns.append(_Turn(len(self._payloads), 0, consumed, self.state.sealed))
        return new

    def pending(self, consumed: Sequence[bytes], dropped: Mapping[str, int]) -> list[AppendCall]:
        """The appends of all turns since the last one: usually one, more where one would be too large.

        Args:
            consumed: Entries that became no events: struck off with the last turn, or by a call of their own.
            dropped: Reason to number of those.
        """
        if consumed:
            self._turns.append(_Turn(len(self._payloads), 0, consumed, self.state.sealed))
        calls: list[AppendCall] = []
        start, head = 0, self.head
        for turns in _parts(self._turns):
            end = turns[-1].end
            ids = tuple(entry for turn in turns for entry in turn.consumed)
            status = "sealed" if turns[-1].over else "active"
            drops = dict(dropped) if turns[-1] is self._turns[-1] else {}
            calls.append(
                AppendCall(
                    self.id, head, tuple(self._payloads[start:end]), tuple(self._links[start:end]), ids,
                    status, self.state.next_timer_us(), drops,
                )
            )  # fmt: skip
            if end > start:
                head = Head(self.head.seq + end, self._links[end - 1], status)
            start = end
        return calls

    def appended(self) -> list[Record]:
        """The log has them all: the records, for whoever acts on them."""
        records = self._records
        self.head = Head(self.state.seq, self._digest, "sealed" if self.state.sealed else "active")
        self._records, self._payloads, self._links, self._turns = [], [], [], []
        return records


def _parts(turns: Sequence[_Turn]) -> Iterator[list[_Turn]]:
    """Turns in groups that one append call takes; a turn is never divided."""
    part: list[_Turn] = []
    start = events = size = consumed = 0
    for turn in turns:
        count = turn.end - start
        start = turn.end
        fits = (
            events + count <= MAX_APPEND_EVENTS
            and size + turn.size <= MAX_APPEND_BYTES
            and consumed + len(turn.consumed) <= MAX_APPEND_CONSUMED
        )
        if part and not fits:
            yield part
            part, events, size, consumed = [], 0, 0, 0
        part.append(turn)
        events, size, consumed = events + count, size + turn.size, consumed + len(turn.consumed)
    if part:
        yield part
