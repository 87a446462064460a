"""A run in the hands of its owner: the state, the end of its log, and the turns not yet appended.

No I/O: `turn` folds and decides, `pending` is what an append takes, `appended` strikes it off.
"""

from collections.abc import Sequence

from evflow.core import events as ev
from evflow.core.apply import apply
from evflow.core.canonical import digest
from evflow.core.chain import extend
from evflow.core.codec import Record, decode, encode
from evflow.core.decide import settle
from evflow.core.ids import Micros, RunId, Seq
from evflow.core.reuse import ReusePlan
from evflow.core.state import RunState
from evflow.log.protocol import AppendCall, Head, StoredEvent

OWNER = "scheduler"


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

    def load(self, events: Sequence[StoredEvent]) -> None:
        """Fold the next events of the log; for a run that another process owned before."""
        for stored in events:
            self._digest = extend(self._digest, stored.payload)
            apply(self.state, decode(stored.seq, stored.payload))
        self.head = Head(self.state.seq, self._digest, "sealed" if self.state.sealed else "active")

    def turn(self, facts: Sequence[tuple[ev.Event, str, int]], now_us: int) -> list[Record]:
        """Fold the facts `(event, principal, cause)` and what follows from them, at one instant.

        Returns:
            The records of the turn; empty if there was neither a fact nor a decision.
        """
        state = self.state
        now = max(now_us, state.at_us)
        number = state.turn + 1
        first = len(self._records)
        for event, principal, cause in facts:
            record = Record(Seq(state.seq + 1), number, Micros(now), principal, cause, event)
            apply(state, record)
            self._records.append(record)
        self._records.extend(settle(state, number, now))
        return self._encoded(first)

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

    def _encoded(self, first: int) -> list[Record]:
        new = self._records[first:]
        for record in new:
            payload = encode(
                record.event, turn=record.turn, at_us=record.at_us,
                principal=record.principal, cause=record.cause,
            )  # fmt: skip
            self._digest = extend(self._digest, payload)
            self._payloads.append(payload)
            self._links.append(self._digest)
        return new

    def pending(self, consumed: Sequence[bytes], dropped: dict[str, int]) -> AppendCall | None:
        """The append of all turns since the last one, or None where there is nothing to write."""
        if not (self._payloads or consumed):
            return None
        return AppendCall(
            self.id, self.head, tuple(self._payloads), tuple(self._links), tuple(consumed),
            "sealed" if self.state.sealed else "active", self.state.next_timer_us(), dropped,
        )  # fmt: skip

    def appended(self) -> list[Record]:
        """The log has them: the records, for whoever acts on them."""
        records = self._records
        self.head = Head(self.state.seq, self._digest, "sealed" if self.state.sealed else "active")
        self._records, self._payloads, self._links = [], [], []
        return records
