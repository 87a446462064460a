"""Whatever was done to a log, verification names the first event that is not as its owner wrote it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from evflow.core import canonical, chain, events as ev
from evflow.core.codec import Record, UnreadableEvent, decode
from evflow.core.decide import LOGIC
from evflow.log.commands import stored_events
from evflow.log.protocol import Head, StoredEvent
from evflow.replay.refold import refold
from evflow.replay.verify import Problem, verify, verify_objects
from tests.core_run import SECOND, CoreRun, fan, head_of, node, pack, stored
from tests.effort import rng, scaled


def replace(value: Any, **fields: Any) -> Any:
    """The value with other fields."""
    return dataclasses.replace(value, **fields)


def story() -> CoreRun:
    """A run with a foreach, a retry, a loss, a timeout, a late report and its seal: every kind of decision but failure."""
    policy: dict[str, Any] = {"retry_times": 2, "retry_delay_us": 1_000, "timeout_us": 5 * SECOND}
    run = CoreRun(*fan(node("body", "join", **policy)))
    run.done(1, "body", splits=3)
    run.fail(2)
    run.wait(2_000)
    run.done(2, "join")
    late = run.success(3, "join")
    run.exit(3, signal=9)
    run.turn(late)
    run.done(3, "join")
    run.begin(4)
    run.wait(60 * SECOND)
    run.exit(4, signal=9)
    run.wait(2_000)
    run.done(4, "join")
    run.done(5, "end")
    run.done(6)
    return run.seal()


def failure() -> CoreRun:
    """A run that fails while another attempt runs."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    run.begin(2, 3)
    run.fail(2)
    run.exit(3, signal=15)
    return run.seal()


def cancelled() -> CoreRun:
    """A run that is cancelled while attempts run, one of which crashes, and a slot was just given."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    run.begin(2, 3)
    run.exit(2, code=3)
    return run.seal() if run.state.over else _rest(run)


def _rest(run: CoreRun) -> CoreRun:
    run.exit(3, signal=15)
    return run.seal()


RUNS = {"story": story, "failure": failure, "cancelled": cancelled}


def first_problem(payloads: Sequence[bytes], head: Head | None = None) -> Problem:
    """What is wrong with a log whose chain was computed anew."""
    verdict = verify(stored(list(payloads)), head or head_of(list(payloads)))
    assert not verdict.ok
    assert len(verdict.problems) == 1, "only the first bad event is named"
    return verdict.problems[0]


def resealed(records: Sequence[Record]) -> list[bytes]:
    """The records as a forger would write them: positions, turns, chain and seal computed anew."""
    payloads = [pack(record) for record in records if not isinstance(record.event, ev.RunSealed)]
    seal = records[-1]
    assert isinstance(seal.event, ev.RunSealed)
    digest = chain.links(chain.START, payloads)[-1]
    try:
        state = refold(stored(payloads))
        late, told = state.late, canonical.digest(state)
    except Exception:  # noqa: BLE001 - a forgery that does not even fold has no state to seal
        late, told = 0, bytes(32)
    forged = replace(seal, event=ev.RunSealed(told, digest, len(payloads), late))
    return [*payloads, pack(forged)]


# --- honest logs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_an_honest_log_verifies(name: str) -> None:
    """Every event, every turn, and the seal."""
    run = RUNS[name]()
    verdict = verify(run.stored(), run.head())
    assert verdict.problems == []
    assert (verdict.events, verdict.sealed) == (len(run.records), True)
    assert verdict.turns == run.records[-1].turn - 1
    assert canonical.digest(verdict.state) == canonical.digest(run.state)


def test_a_live_log_verifies_as_far_as_it_is() -> None:
    """At each end of a turn; there is no seal yet."""
    run = story()
    payloads = run.payloads()
    ends = [a.seq for a, b in zip(run.records, run.records[1:], strict=False) if a.turn != b.turn]
    for end in ends:
        verdict = verify(stored(payloads[:end]), head_of(payloads[:end], sealed=False))
        assert verdict.problems == []
        assert (verdict.sealed, verdict.events) == (False, end)


def test_a_live_log_may_have_gone_on_since_its_head_was_read() -> None:
    """Then the head is checked where it was."""
    payloads = story().payloads()
    head = head_of(payloads[:9], sealed=False)
    assert verify(stored(payloads), head).ok
    wrong = Head(9, bytes(32), "active")
    problem = verify(stored(payloads), wrong).problems[0]
    assert (problem.seq, problem.check) == (9, "head")


def test_events_of_a_later_version_among_the_facts_are_no_problem() -> None:
    """They are kept and have no effect."""
    run = CoreRun(node("start"))
    run.turn(ev.Unknown("TaskBlessed", (1,)))
    run.done(1)
    run.seal()
    assert verify(run.stored(), run.head()).problems == []


# --- touched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_flipped_bit_is_found_at_its_event(name: str) -> None:
    """In every event, at its first and last byte and at several between."""
    run = RUNS[name]()
    log, head, random = run.stored(), run.head(), rng("flip", name)
    for index, (seq, payload, link) in enumerate(log):
        inner = [random.randrange(len(payload)) for _ in range(scaled(20, at_least=3))]
        for position in {0, len(payload) - 1, *inner}:
            touched = bytearray(payload)
            touched[position] ^= 1 << random.randrange(8)
            bad = [*log[:index], StoredEvent(seq, bytes(touched), link), *log[index + 1 :]]
            problem = verify(bad, head).problems[0]
            assert (problem.seq, problem.check) == (seq, "chain")
            assert "The event was changed: its digest is " in problem.what


def test_a_changed_link_is_found_at_its_event() -> None:
    """The 16 bytes beside an event."""
    run = story()
    log = run.stored()
    for index in (0, 7, len(log) - 1):
        bad = list(log)
        bad[index] = StoredEvent(index + 1, log[index].payload, bytes(16))
        assert (verify(bad, run.head()).problems[0].seq, verify(bad, run.head()).problems[0].check) == (index + 1, "chain")


def test_bytes_that_are_no_event_are_named_though_their_chain_holds() -> None:
    """`format`."""
    payloads = story().payloads()
    payloads[4] = b"\x91rubbish"
    problem = first_problem(payloads)
    assert (problem.seq, problem.check) == (5, "format")


# --- whole ------------------------------------------------------------------------------------------------


def test_a_missing_event_is_named() -> None:
    """Wherever it is."""
    run = story()
    log = run.stored()
    for missing in (1, 5, len(log) - 1):
        problem = verify([event for event in log if event.seq != missing], run.head()).problems[0]
        assert (problem.seq, problem.check) == (missing + 1, "sequence")
        assert problem.what == f"Event {missing} is missing; event {missing + 1} stands there."


def test_a_log_that_was_cut_is_shorter_than_its_head_says() -> None:
    """Also by its seal alone."""
    run = story()
    log = run.stored()
    for length in (0, 1, len(log) - 1):
        problem = verify(log[:length], run.head()).problems[0]
        assert (problem.seq, problem.check) in ((length + 1, "head"), (length, "decision"))


def test_a_sealed_log_without_its_seal_is_not_whole() -> None:
    """Though its head was moved back."""
    payloads = story().payloads()[:-1]
    problem = first_problem(payloads, head_of(payloads, sealed=True))
    assert (problem.check, problem.what) == ("head", "The log counts as sealed but does not end with a seal.")


def test_a_head_with_another_digest_is_wrong() -> None:
    """Somebody replaced the whole log, but not its head."""
    run = story()
    problem = verify(run.stored(), Head(len(run.records), b"x" * 32, "sealed")).problems[0]
    assert (problem.seq, problem.check) == (len(run.records), "head")


@pytest.mark.parametrize("own_turn", [True, False])
def test_nothing_follows_a_seal(own_turn: bool) -> None:
    """Neither in a turn of its own nor in the seal's."""
    run = story()
    last = run.records[-1]
    extra = replace(last, seq=last.seq + 1, turn=last.turn + own_turn, event=ev.RunContinued("h", "o", 1))
    problem = first_problem([*run.payloads(), pack(extra)])
    assert (problem.seq, problem.check) == (last.seq + 1, "fold")


# --- decided rightly --------------------------------------------------------------------------------------


def forged(run: CoreRun, victim: int, changed: Record) -> list[bytes]:
    """The log with one event changed and everything behind it computed anew."""
    return resealed([changed if record.seq == victim else record for record in run.records])


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else f"{value}x"


def _decisions(run: CoreRun) -> list[Record]:
    return [record for record in run.records if isinstance(record.event, ev.Decision)]


@pytest.mark.parametrize("name", RUNS)
def test_a_decision_with_any_field_changed_is_found_at_its_event(name: str) -> None:
    """The forger knows everything and computes chain and seal anew, but cannot make a wrong decision follow."""
    run = RUNS[name]()
    for record in _decisions(run):
        names = type(record.event).__match_args__  # type: ignore[attr-defined]
        for field in names:
            event: Any = record.event
            changed = replace(record, event=replace(event, **{field: _other(getattr(event, field))}))
            problem = first_problem(forged(run, record.seq, changed))
            assert (problem.seq, problem.check) == (record.seq, "decision")
            assert type(event).__name__ in problem.what


@pytest.mark.parametrize("name", RUNS)
def test_a_decision_by_somebody_else_or_for_another_reason_is_found(name: str) -> None:
    """Principal and cause are decided, too."""
    run = RUNS[name]()
    for record in _decisions(run):
        for changed in (replace(record, principal="user:mallory"), replace(record, cause=record.cause - 1)):
            problem = first_problem(forged(run, record.seq, changed))
            assert (problem.seq, problem.check) == (record.seq, "decision")
            assert "in answer to event" in problem.what


@pytest.mark.parametrize("name", RUNS)
def test_a_removed_decision_is_missed(name: str) -> None:
    """At its place, where another event now stands."""
    run = RUNS[name]()
    for record in _decisions(run):
        alone = sum(other.turn == record.turn for other in run.records) == 1
        kept = [
            replace(other, seq=other.seq - (other.seq > record.seq), turn=other.turn - (alone and other.turn > record.turn))
            for other in run.records
            if other is not record
        ]
        problem = first_problem(resealed(kept))
        # Where a whole turn is gone, the next event has nothing to stand on.
        assert problem.check in (("fold", "decision") if alone else ("decision",))
        assert record.seq - 1 <= problem.seq <= record.seq + alone


@pytest.mark.parametrize("name", RUNS)
def test_an_added_decision_is_found(name: str) -> None:
    """One that stands there twice."""
    run = RUNS[name]()
    for record in _decisions(run):
        doubled = [*run.records[: record.seq], *(replace(other, seq=other.seq + 1) for other in run.records[record.seq - 1 :])]
        problem = first_problem(resealed(doubled))
        assert (problem.seq, problem.check) == (record.seq + 1, "decision")


@pytest.mark.parametrize("name", RUNS)
def test_decisions_in_another_order_are_found(name: str) -> None:
    """Where the first of them stands."""
    run = RUNS[name]()
    pairs = [(a, b) for a, b in zip(run.records, run.records[1:], strict=False) if a.turn == b.turn and not a.event.is_fact]
    assert pairs
    for a, b in pairs:
        swapped = [*run.records[: a.seq - 1], replace(b, seq=a.seq), replace(a, seq=b.seq), *run.records[b.seq :]]
        problem = first_problem(resealed(swapped))
        assert (problem.seq, problem.check) == (a.seq, "decision")


def test_a_decision_before_the_fact_that_it_answers_is_found() -> None:
    """Facts stand first in their turn."""
    run = story()
    fact, decision = next(
        (a, b) for a, b in zip(run.records, run.records[1:], strict=False) if a.turn == b.turn and a.event.is_fact and a.seq > 3
    )
    swapped = [*run.records[: fact.seq - 1], replace(decision, seq=fact.seq), replace(fact, seq=decision.seq), *run.records[decision.seq :]]
    problem = first_problem(resealed(swapped))
    assert problem.check == "decision"
    assert "is a fact and stands behind the decisions of its turn" in problem.what


def test_a_turn_at_another_time_is_found_where_time_decides() -> None:
    """A retry that was queued before its wait was over."""
    run = story()
    (scheduled,) = (record for record in run.records if isinstance(record.event, ev.RetryScheduled) and record.event.task == 2)
    turn = next(record.turn for record in run.records if isinstance(record.event, ev.TaskQueued) and record.event.attempt == 1)
    changed = [replace(record, at_us=scheduled.at_us) if record.turn == turn else record for record in run.records]
    problem = first_problem(resealed(changed))
    assert problem.check == "decision"
    assert "TaskQueued" in problem.what
    assert "nothing leads to it" in problem.what


def test_time_does_not_go_backwards() -> None:
    """Nor does a turn have two times."""
    run = story()
    victim = next(record for record in run.records if record.turn == 5)
    earlier = [replace(record, at_us=victim.at_us - 10**9) if record.turn == 5 else record for record in run.records]
    problem = first_problem(resealed(earlier))
    assert (problem.seq, problem.check) == (victim.seq, "sequence")
    assert "Time goes backwards" in problem.what
    a = next(a for a, b in zip(run.records, run.records[1:], strict=False) if a.turn == b.turn)
    two = [replace(record, at_us=record.at_us + 1) if record.seq == a.seq + 1 else record for record in run.records]
    problem = first_problem(resealed(two))
    assert (problem.seq, problem.what) == (a.seq + 1, "It has another time than its turn.")


def test_turns_are_dense() -> None:
    """A turn that was left out."""
    run = story()
    changed = [replace(record, turn=record.turn + (record.turn > 4)) for record in run.records]
    problem = first_problem(resealed(changed))
    assert (problem.check, problem.what) == ("sequence", "Turn 6 follows turn 4.")


def test_a_turn_that_was_cut_in_two_is_found() -> None:
    """Its decisions follow from its facts, at once."""
    run = story()
    last_fact = next(
        a for a, b in zip(run.records, run.records[1:], strict=False) if a.turn == b.turn and a.event.is_fact and not b.event.is_fact
    )
    changed = [replace(record, turn=record.turn + (record.seq > last_fact.seq)) for record in run.records]
    problem = first_problem(resealed(changed))
    assert (problem.seq, problem.check) == (last_fact.seq, "decision")
    assert "follows from the turn, but the log does not have it" in problem.what


def test_a_later_version_of_the_decisions_is_said_and_not_guessed_at() -> None:
    """At the run's first event."""
    run = story()
    event = run.records[0].event
    assert isinstance(event, ev.RunStarted)
    problem = first_problem(forged(run, 1, replace(run.records[0], event=replace(event, logic=LOGIC + 1))))
    assert (problem.seq, problem.check) == (1, "decision")
    assert problem.what == f"The run used version {LOGIC + 1} of the decisions; this evflow knows {LOGIC}. Use a newer one."


def test_a_decision_of_a_later_version_among_known_ones_is_found() -> None:
    """Under a version of the rules that has no such decision."""
    run = story()
    record = _decisions(run)[3]
    changed = replace(record, event=ev.Unknown("TaskTeleported", (1,)))
    problem = first_problem(forged(run, record.seq, changed))
    assert problem.check == "decision"


# --- facts ------------------------------------------------------------------------------------------------


def test_a_changed_fact_is_found_by_the_chain_alone() -> None:
    """It comes from outside, and nothing in the log says what it must have been."""
    run = story()
    victim = next(record for record in run.records if isinstance(record.event, ev.AttemptStarted))
    assert isinstance(victim.event, ev.AttemptStarted)
    changed = replace(victim, event=replace(victim.event, host="elsewhere"))
    log = run.stored()
    bad = [*log[: victim.seq - 1], StoredEvent(victim.seq, pack(changed), log[victim.seq - 1].link), *log[victim.seq :]]
    assert (verify(bad, run.head()).problems[0].seq, verify(bad, run.head()).problems[0].check) == (victim.seq, "chain")
    payloads = forged(run, victim.seq, changed)
    assert verify(stored(payloads), head_of(payloads)).ok, "with chain, seal and head forged, nothing can tell"
    assert verify(stored(payloads), run.head()).problems[0].check == "head"


def test_a_fact_from_which_another_decision_would_have_followed_is_found() -> None:
    """At the decision."""
    run = story()
    victim = next(record for record in run.records if isinstance(record.event, ev.AttemptSucceeded))
    assert isinstance(victim.event, ev.AttemptSucceeded)
    changed = replace(victim, event=replace(victim.event, splits=2))
    problem = first_problem(forged(run, victim.seq, changed))
    assert (problem.seq, problem.check) == (victim.seq + 1, "decision")


# --- the seal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("state", bytes(32), "The events fold to another state than the one that the live owner sealed."),
        ("chain", bytes(32), "The seal's digest of the chain is not the one of the events before it."),
        ("events", 3, "The seal counts 3 events and 1 late reports; they are"),
        ("late_reports", 9, "and 9 late reports"),
    ],
)
def test_a_seal_that_says_something_else_is_wrong(field: str, value: Any, what: str) -> None:
    """Each of its fields."""
    run = story()
    seal: Any = run.records[-1].event
    payloads = [*run.payloads()[:-1], pack(replace(run.records[-1], event=replace(seal, **{field: value})))]
    problem = first_problem(payloads)
    assert (problem.seq, problem.check) == (len(payloads), "seal")
    assert what in problem.what


def test_a_run_that_is_not_over_cannot_be_sealed() -> None:
    """A log that was cut at a turn and sealed again."""
    run = story()
    cut = next(record.seq for record in run.records if record.turn == 8) - 1
    seal = replace(run.records[-1], turn=8)
    problem = first_problem(resealed([*run.records[:cut], seal]))
    assert problem.what.endswith("the run is not over.")


# --- the store --------------------------------------------------------------------------------------------


def test_every_object_that_the_run_refers_to_is_looked_at_and_named_by_its_task() -> None:
    """Parameters, manifests, items, tracebacks and the code."""
    run = CoreRun(*fan(node("body", "join", retry_times=1)))
    run.done(1, "body", splits=1)
    run.begin(2)
    run.fail(2, detail=b"d" * 32, manifest=b"f" * 32)
    run.done(2, "join")
    run.state.header["code"] = {"package": b"c" * 32}
    verdict = verify([], Head())
    verdict.state = run.state
    seen: list[bytes] = []

    def check(digest: bytes) -> Sequence[str]:
        seen.append(digest)
        return ["It is missing."] if digest in (b"i" * 32, b"d" * 32, b"c" * 32) else []

    verify_objects(verdict, check)
    success = [task.manifest for task in run.state.tasks if task.manifest]
    assert set(seen) == {b"c" * 32, b"p" * 32, b"i" * 32, b"d" * 32, b"f" * 32, *success}
    assert verdict.objects == len(seen)
    assert [(problem.seq, problem.check, problem.what) for problem in verdict.problems] == [
        (0, "artifact", "TestFlow/1 (code package): It is missing."),
        (0, "artifact", "TestFlow/1/start/1: It is missing."),
        (0, "artifact", "TestFlow/1/body/2: It is missing."),
    ]


def test_surplus_values_of_a_later_version_are_no_forgery() -> None:
    """A released event may get more fields."""
    run = CoreRun(node("start"))
    run.done(1)
    payloads = [msgpack.packb([*msgpack.unpackb(payload), "more"]) for payload in run.payloads()]
    assert verify(stored(payloads), head_of(payloads, sealed=False)).problems == []
    assert [decode(n, payload).event for n, payload in enumerate(payloads, 1)][1:] == [record.event for record in run.records][1:]


def test_an_entry_without_an_events_fields_is_the_first_bad_event() -> None:
    run = story()
    entries = [(b"%d-0" % seq, [b"e", payload, b"h", link]) for seq, payload, link in run.stored()]
    entries[3] = (entries[3][0], [b"z", b"1"])
    read = stored_events(entries)
    (problem,) = verify(read, run.head()).problems
    assert (problem.seq, problem.check) == (4, "format")
    with pytest.raises(UnreadableEvent, match="Event 4 cannot be read"):
        refold(read)
