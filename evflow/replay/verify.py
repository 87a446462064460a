"""Prove that a log is what its owner wrote, and that what was decided follows from it.

Four questions, asked of every event in order, so that the answer names the first bad one:

1. Is it untouched? Its digest in the chain is the one that stands beside it (I9), positions are dense (I1).
2. Can it stand here? It folds.
3. Was it decided rightly? At the end of each turn's facts, `decide` at the turn's instant gives exactly the
   decisions that the log has (I13). A log whose chain and seal were computed anew after a change fails here.
4. Did the live owner see the same? The state before the seal has the digest that the seal recorded (I8).

What the log refers to is looked at last: every manifest and object in the store has the digest that is its name.

What cannot be proved: a fact that was changed together with the whole chain behind it, the seal and the log's head. Facts
come from outside; who holds a copy of the seal's digest can tell.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from evflow.collector import paused
from evflow.core import canonical, chain
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.codec import Record, UnreadableEvent, decode, fields_of, tag_of
from evflow.core.decide import LOGIC, settle_turn
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
    problems: list[Problem] = field(default_factory=list[Problem])
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
    """Check a whole log.

    Args:
        events: The log, from its first event.
        head: What the server says of its end, read before the events: a live log may go on behind it.
    """
    verdict = Verdict()
    digests = _Digests()
    try:
        with paused():
            for turn in _turns(_untouched(events, digests, head)):
                _check_turn(verdict, turn, digests)
        _check_end(verdict, digests, head)
    except _Bad as bad:
        verdict.problems.append(bad.problem)
    return verdict


def verify_objects(verdict: Verdict, check: Callable[[bytes], Sequence[str]]) -> None:
    """Check every object that the run refers to: its code, the results of its tasks, the tracebacks of its failures.

    Args:
        verdict: Where to add what is found.
        check: Gives what is wrong with the object of this digest and, if it is a manifest, with all that it names.
    """
    for place, digest in _references(verdict.state):
        verdict.objects += 1
        for what in check(digest):
            verdict.problems.append(Problem(0, "artifact", f"{place}: {what}"))


def _references(state: RunState) -> Iterator[tuple[str, bytes]]:
    run = f"{state.flow}/{state.number}"
    code = state.header.get("code", {}).get("package")
    for place, digest in ((f"{run} (code package)", code), (f"{run} (parameters)", state.header.get("parameters_values"))):
        if digest is not None:
            yield place, digest
    for task in state.tasks:
        place = f"{run}/{task.step}/{task.id}"
        details = (digest for attempt in task.attempts for digest in (attempt.manifest, attempt.detail))
        for digest in dict.fromkeys((task.manifest, task.items, *details)):
            if digest is not None:
                yield place, digest


class _Digests:
    """The chain as it is computed: its digest behind each of the last two events, since a turn is read one event too far."""

    __slots__ = ("before", "here", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.here = self.before = chain.START

    def extend(self, payload: bytes) -> bytes:
        self.seq += 1
        self.before = self.here
        self.here = chain.extend(self.here, payload)
        return self.here


def _untouched(events: Iterable[StoredEvent], digests: _Digests, head: Head) -> Iterator[Record]:
    """The records of a log whose positions are dense and whose chain holds."""
    for seq, payload, link in events:
        if seq != digests.seq + 1:
            raise _Bad(seq, "sequence", f"Event {digests.seq + 1} is missing; event {seq} stands there.")
        if not payload:
            raise _Bad(seq, "format", "It has none of an event's fields: something else wrote it.")
        digest = digests.extend(payload)
        if digest[: chain.LINK_BYTES] != link:
            found, recorded = digest[:4].hex(), link[:4].hex()
            raise _Bad(seq, "chain", f"The event was changed: its digest is {found}…, the chain has {recorded}….")
        if seq == head.seq and digest != head.digest:
            raise _Bad(seq, "head", "The chain's digest here is not the one of the log's head.")
        try:
            yield decode(seq, payload)
        except UnreadableEvent as error:
            raise _Bad(seq, "format", error.message) from error


def _turns(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records by turn. A seal ends its turn at once: it is checked before anything behind it is read."""
    turn: list[Record] = []
    for record in records:
        if turn and record.turn != turn[0].turn:
            yield turn
            turn = []
        turn.append(record)
        if type(record.event) is RunSealed:
            yield turn
            turn = []
    if turn:
        yield turn


def _check_turn(verdict: Verdict, turn: list[Record], digests: _Digests) -> None:
    state = verdict.state
    first = turn[0]
    if state.sealed:
        raise _Bad(first.seq, "fold", "The run was sealed before; nothing follows a seal.")
    if first.turn != state.turn + 1:
        raise _Bad(first.seq, "sequence", f"Turn {first.turn} follows turn {state.turn}.")
    if first.at_us < state.at_us:
        raise _Bad(first.seq, "sequence", f"Time goes backwards: its turn is {state.at_us - first.at_us} µs before the one before it.")
    for record in turn:
        if record.at_us != first.at_us:
            raise _Bad(record.seq, "sequence", "It has another time than its turn.")
    if type(first.event) is RunSealed:
        _check_seal(verdict, first, digests)
        return
    count = _fold_facts(verdict, turn)
    if state.logic > LOGIC:
        what = f"The run used version {state.logic} of the decisions; this evflow knows {LOGIC}. Use a newer one."
        raise _Bad(first.seq, "decision", what)
    _compare(turn[count:], _redecide(state, first), turn[-1].seq)
    verdict.events += len(turn) - count
    verdict.turns += 1


def _fold_facts(verdict: Verdict, turn: list[Record]) -> int:
    """Fold the facts, which stand before the decisions; how many they are."""
    count = 0
    for record in turn:
        if not (record.event.is_fact or isinstance(record.event, Unknown)):
            break
        _fold(verdict, record)
        count += 1
    for record in turn[count:]:
        if record.event.is_fact:
            raise _Bad(record.seq, "decision", f"{_text(record)} is a fact and stands behind the decisions of its turn.")
    return count


def _redecide(state: RunState, first: Record) -> list[Record]:
    try:
        return settle_turn(state, first.turn, first.at_us)
    except ImpossibleEvent as error:
        raise _Bad(first.seq, "fold", error.message) from error


def _compare(recorded: list[Record], decided: list[Record], last: int) -> None:
    if recorded == decided:
        return
    for was, should in zip(recorded, decided, strict=False):
        if was != should:
            raise _Bad(was.seq, "decision", _difference(was, should))
    if len(recorded) > len(decided):
        extra = recorded[len(decided)]
        raise _Bad(extra.seq, "decision", f"The log has {_text(extra)}; nothing leads to it.")
    what = f"{_text(decided[len(recorded)])} follows from the turn, but the log does not have it."
    raise _Bad(last, "decision", what)


def _difference(was: Record, should: Record) -> str:
    if was.event == should.event:
        return (
            f"The log says that {was.principal} caused {tag_of(was.event)} in answer to event {was.cause}; "
            f"it was {should.principal}, in answer to event {should.cause}."
        )
    return f"The log has {_text(was)}; what was decided before leads to {_text(should)}."


def _fold(verdict: Verdict, record: Record) -> None:
    try:
        apply(verdict.state, record)
    except ImpossibleEvent as error:
        raise _Bad(record.seq, "fold", error.message) from error
    verdict.events += 1


def _check_seal(verdict: Verdict, record: Record, digests: _Digests) -> None:
    seal, state = record.event, verdict.state
    assert isinstance(seal, RunSealed)
    if seal.chain != digests.before:
        raise _Bad(record.seq, "seal", "The seal's digest of the chain is not the one of the events before it.")
    if (seal.events, seal.late_reports) != (state.seq, state.late):
        what = f"The seal counts {seal.events} events and {seal.late_reports} late reports; they are {state.seq} and {state.late}."
        raise _Bad(record.seq, "seal", what)
    if seal.state != canonical.digest(state):
        raise _Bad(record.seq, "seal", "The events fold to another state than the one that the live owner sealed.")
    _fold(verdict, record)
    verdict.sealed = True


def _check_end(verdict: Verdict, digests: _Digests, head: Head) -> None:
    if digests.seq < head.seq:
        raise _Bad(digests.seq + 1, "head", f"The log should have {head.seq} events and has {digests.seq}.")
    if head.status == "sealed" and not verdict.sealed:
        raise _Bad(head.seq, "head", "The log counts as sealed but does not end with a seal.")


def _text(record: Record) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in fields_of(record.event).items())
    return f"{tag_of(record.event)}({values})"
