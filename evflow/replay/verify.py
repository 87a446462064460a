"""Prove that a log is what its owner wrote, and that what was decided follows from it.

Four questions, asked of every event in order, so that the answer names the first bad one:

1. Is it untouched? Its digest in the chain is the one that stands beside it (I9), positions are dense (I1).
2. Can it stand here? It folds.
3. Was it decided rightly? At the end of each turn's facts, `decide` at the turn's instant gives exactly the
   decisions that the log has (I13). A log whose chain and seal were computed anew after a change fails here.
4. Did the live owner see the same? The state before the seal has the digest that the seal recorded (I8).

What the log refers to is looked at last: every manifest and object in the store has the digest that is its name.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from evflow.core import canonical, chain
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.codec import Record, UnreadableEvent, decode, fields_of, tag_of
from evflow.core.decide import LOGIC, settle
from evflow.core.events import RunSealed, Unknown
from evflow.core.state import RunState
from evflow.core.values import value
from evflow.log.protocol import Head, StoredEvent


@value
class Problem:
    """Something that is not as it must be.

    Attributes:
        seq: The event at fault; 0 where it is not one of the log's events.
        check: `chain`, `sequence`, `format`, `fold`, `decision`, `seal`, `head` or `artifact`.
        what: What was found and what should be there.
    """

    seq: int
    check: str
    what: str


@dataclass(slots=True)
class Verdict:
    """What verification found.

    Attributes:
        events: Events that were checked.
        turns: Turns that were decided anew.
        objects: Objects of the store whose digest was checked.
        sealed: The log ends with its seal.
        problems: What is wrong, the first one first; of the log's events only the first bad one is named.
        state: The state as far as it could be folded.
    """

    events: int = 0
    turns: int = 0
    objects: int = 0
    sealed: bool = False
    problems: list[Problem] = field(default_factory=list)
    state: RunState = field(default_factory=RunState)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


class _Bad(Exception):
    """The first bad event ends the pass: what follows it means nothing."""

    def __init__(self, seq: int, check: str, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(seq, check, what)


def verify(events: Iterable[StoredEvent], head: Head) -> Verdict:
    """Check a whole log; `head` is what the server says of its end (read before the events)."""
    verdict = Verdict()
    digests = _Digests()
    try:
        for number, turn in groupby(_untouched(events, digests), key=lambda record: record.turn):
            _check_turn(verdict, number, list(turn), digests)
        _check_head(verdict, digests, head)
    except _Bad as bad:
        verdict.problems.append(bad.problem)
    return verdict


def verify_objects(verdict: Verdict, check: Callable[[bytes], Sequence[str]]) -> None:
    """Check every object that the run's accepted results refer to.

    Args:
        verdict: Where to add what is found.
        check: Gives what is wrong with the manifest of this digest and all that it names.
    """
    for task in verdict.state.tasks:
        for digest in (task.manifest, task.items):
            if digest is None:
                continue
            verdict.objects += 1
            for what in check(digest):
                place = f"{verdict.state.flow}/{verdict.state.number}/{task.step}/{task.id}"
                verdict.problems.append(Problem(0, "artifact", f"{place}: {what}"))


class _Digests:
    """The chain as it is computed: the digests behind the last three events (a turn is read one event too far)."""

    def __init__(self) -> None:
        self.seq = 0
        self.at_seq: dict[int, bytes] = {0: chain.START}

    def extend(self, payload: bytes) -> bytes:
        before = self.at_seq[self.seq]
        self.at_seq.pop(self.seq - 2, None)
        self.seq += 1
        self.at_seq[self.seq] = chain.extend(before, payload)
        return self.at_seq[self.seq]


def _untouched(events: Iterable[StoredEvent], digests: _Digests) -> Iterator[Record]:
    """The records of a log whose positions are dense and whose chain holds."""
    for seq, payload, link in events:
        if seq != digests.seq + 1:
            raise _Bad(seq, "sequence", f"Event {digests.seq + 1} is missing; event {seq} stands there.")
        digest = digests.extend(payload)
        if digest[: chain.LINK_BYTES] != link:
            found, recorded = digest[:4].hex(), link[:4].hex()
            raise _Bad(seq, "chain", f"The event was changed: its digest is {found}…, the chain has {recorded}….")
        try:
            yield decode(seq, payload)
        except UnreadableEvent as error:
            raise _Bad(seq, "format", error.message) from error


def _check_turn(verdict: Verdict, number: int, turn: list[Record], digests: _Digests) -> None:
    state = verdict.state
    first = turn[0]
    if number != state.turn + 1:
        raise _Bad(first.seq, "sequence", f"Turn {number} follows turn {state.turn}.")
    if first.at_us < state.at_us or any(record.at_us != first.at_us for record in turn):
        raise _Bad(first.seq, "sequence", "Time goes backwards, or one turn has two instants.")
    if isinstance(first.event, RunSealed):
        _check_seal(verdict, first, digests)
        _fold(verdict, first)
        verdict.sealed = True
        return
    facts = [record for record in turn if record.event.is_fact or isinstance(record.event, Unknown)]
    for record in facts:
        _fold(verdict, record)
    if state.logic > LOGIC:
        what = f"The run used version {state.logic} of the decisions; this evflow knows {LOGIC}. Use a newer one."
        raise _Bad(first.seq, "decision", what)
    _compare(turn[len(facts) :], _redecide(state, number, first), turn[-1].seq)
    verdict.events += len(turn) - len(facts)
    verdict.turns += 1


def _redecide(state: RunState, number: int, first: Record) -> list[Record]:
    try:
        return settle(state, number, first.at_us)
    except ImpossibleEvent as error:
        raise _Bad(first.seq, "fold", error.message) from error


def _compare(recorded: list[Record], decided: list[Record], last: int) -> None:
    for was, should in zip(recorded, decided, strict=False):
        if was != should:
            what = f"The log has {_text(was)}; what was decided before leads to {_text(should)}."
            raise _Bad(was.seq, "decision", what)
    if len(recorded) > len(decided):
        extra = recorded[len(decided)]
        raise _Bad(extra.seq, "decision", f"The log has {_text(extra)}; nothing leads to it.")
    if len(decided) > len(recorded):
        what = f"{_text(decided[len(recorded)])} follows from the turn, but the log does not have it."
        raise _Bad(last, "decision", what)


def _fold(verdict: Verdict, record: Record) -> None:
    try:
        apply(verdict.state, record)
    except ImpossibleEvent as error:
        raise _Bad(record.seq, "fold", error.message) from error
    verdict.events += 1


def _check_seal(verdict: Verdict, record: Record, digests: _Digests) -> None:
    seal = record.event
    assert isinstance(seal, RunSealed)
    before = digests.at_seq[record.seq - 1]
    if seal.chain != before:
        raise _Bad(record.seq, "seal", "The seal's digest of the chain is not the one of the events before it.")
    if seal.state != canonical.digest(verdict.state):
        raise _Bad(record.seq, "seal", "The events fold to another state than the one that the live owner sealed.")


def _check_head(verdict: Verdict, digests: _Digests, head: Head) -> None:
    if digests.seq < head.seq:
        raise _Bad(digests.seq + 1, "head", f"The log should have {head.seq} events and has {digests.seq}.")
    if digests.seq == head.seq and digests.at_seq[digests.seq] != head.digest:
        raise _Bad(head.seq, "head", "The chain's last digest is not the one of the log's head.")
    if head.status == "sealed" and not verdict.sealed:
        raise _Bad(head.seq, "head", "The log counts as sealed but does not end with a seal.")


def _text(record: Record) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in fields_of(record.event).items())
    return f"{tag_of(record.event)}({values})"
