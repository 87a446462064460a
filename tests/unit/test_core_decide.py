"""Decisions: what they answer, how many stand in a turn, and what they cost."""

import gc
from collections import Counter
from typing import Any

import pytest

from evflow.core import apply as apply_module, decide as decide_module, events as ev
from evflow.core.chain import LINK_BYTES
from evflow.core.codec import decode
from evflow.core.decide import TURN_DECISIONS, settle
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.protocol import MAX_APPEND_EVENTS, StoredEvent
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from evflow_scheduler.run import LogBroken, OwnedRun
from tests.core_run import CoreRun, fan, kinds, node

RUN = RunId(FlowName("TestFlow"), RunNumber(1))


def cause_of(run: CoreRun, kind: type[ev.Event], which: int = -1) -> ev.Event:
    """The event that the decision of this kind answers."""
    found = [record for record in run.records if isinstance(record.event, kind)]
    return run.records[found[which].cause - 1].event


# --- causes -----------------------------------------------------------------------------------------------


def test_a_decision_names_the_event_that_it_answers_however_many_stand_in_the_turn() -> None:
    """Two results of one turn, each with its own consequence."""
    run = CoreRun(
        node("start", "x", "y"), node("x", "a"), node("y", "b"), node("a", "join"), node("b", "join"), node("join", "end"), node("end"),
    )  # fmt: skip
    run.done(1, "x", "y")
    run.begin(2, 3)
    run.turn(run.success(3, "b"), run.success(2, "a"))
    for record in run.records[-4:]:
        event = record.event
        answered: Any = run.records[record.cause - 1].event
        if isinstance(event, ev.TasksCreated):
            assert (answered.task, answered.next_steps) == (event.parent, (event.step,))
        else:
            assert isinstance(event, ev.TaskQueued)
            assert answered.first == event.task


def test_a_join_answers_the_member_that_came_last() -> None:
    """It was the one that was missing."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=2)
    run.done(3, "join")
    run.done(2, "join")
    cause: Any = cause_of(run, ev.TasksCreated)
    assert (type(cause), cause.task) == (ev.AttemptSucceeded, 2)


def test_the_way_from_an_exit_to_the_next_attempt_is_a_chain_of_causes() -> None:
    """Exit, loss, retry, queue."""
    run = CoreRun(node("start", "end"), node("end"))
    run.exit(1, signal=9)
    assert [type(cause_of(run, kind)) for kind in (ev.TaskQueued, ev.RetryScheduled, ev.AttemptLost)] == [
        ev.RetryScheduled, ev.AttemptLost, ev.AttemptExited,
    ]  # fmt: skip
    run.grant(1)
    assert type(cause_of(run, ev.TaskLaunched)) is ev.SlotGranted


def test_what_ends_a_run_is_named_by_all_that_follows_from_it() -> None:
    """The failure for the requests and for the end, each exit for its own meaning."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=2)
    run.begin(2, 3)
    run.fail(2)
    run.exit(3, signal=15)
    assert type(cause_of(run, ev.AttemptCancelRequested)) is ev.TaskFailed
    assert type(cause_of(run, ev.AttemptCancelled)) is ev.AttemptExited
    assert type(cause_of(run, ev.RunFailed)) is ev.TaskFailed
    run = CoreRun(*fan())
    run.cancel()
    assert type(cause_of(run, ev.RunCancelled)) is ev.RunCancelRequested


def test_a_timeout_answers_the_start_of_its_attempt() -> None:
    """From which its limit counts."""
    run = CoreRun(node("start", "end", timeout_us=1), node("end"))
    run.begin(1)
    run.wait(60_000_000)
    assert type(cause_of(run, ev.AttemptCancelRequested)) is ev.AttemptStarted


def test_every_decision_of_a_run_has_a_cause_before_it() -> None:
    """None answers what comes later, and none nothing."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    for task in (2, 3, 4):
        run.exit(task, signal=9)
        run.done(task, "join")
    run.done(5, "end")
    run.done(6)
    assert run.state.status == "succeeded"
    assert all(0 < record.cause < record.seq for record in run.records if isinstance(record.event, ev.Decision))
    assert run.state.agenda.asked == {}


def test_nobody_goes_on_from_a_log_whose_events_are_not_those_that_were_chained() -> None:
    story = CoreRun(node("start", "end"), node("end"))
    story.begin(1)
    events = story.stored()
    other = events[2]._replace(link=bytes(LINK_BYTES))
    with pytest.raises(LogBroken, match=r"at event 3.*\n.*--verify"):
        OwnedRun(RUN).load([*events[:2], other, *events[3:]])


# --- turns ------------------------------------------------------------------------------------------------


def wide(members: int, branches: int) -> tuple[OwnedRun, list[ev.Event]]:
    """An owned run in which many members of a foreach are about to split."""
    names = [f"b{number}" for number in range(branches)]
    nodes = (
        node("start", "mid", kind="foreach"), node("mid", *names), *(node(name, "join1") for name in names),
        node("join1", "join2"), node("join2", "end"), node("end"),
    )  # fmt: skip
    story = CoreRun(*nodes)
    story.done(1, "mid", splits=members)
    story.begin(*range(2, members + 2))
    run = OwnedRun(RUN)
    run.load(story.stored())
    return run, [story.success(task, *names) for task in range(2, members + 2)]


def test_a_turn_that_would_not_fit_into_an_append_is_continued_by_the_next_ones() -> None:
    """Fifty members that split into twenty branches each: 2,000 decisions."""
    run, facts = wide(50, 20)
    records = run.turn([(fact, "test", 0) for fact in facts], run.state.at_us, [b"1-0"])
    decided = [record for record in records if isinstance(record.event, ev.Decision)]
    assert len(decided) == 2_000
    per_turn = Counter(record.turn for record in records)
    assert max(per_turn.values()) <= MAX_APPEND_EVENTS
    assert max(Counter(record.turn for record in decided).values()) < TURN_DECISIONS + 20
    calls = run.pending((), {})
    assert all(len(call.events) <= MAX_APPEND_EVENTS for call in calls)
    assert [call.consumed for call in calls] == [(b"1-0",), *[()] * (len(calls) - 1)]
    assert sum(len(call.events) for call in calls) == len(records)


def test_a_turn_that_was_continued_is_decided_anew_in_the_same_way() -> None:
    """Also by an owner who takes over between two of its parts."""
    run, facts = wide(50, 20)
    run.turn([(fact, "test", 0) for fact in facts], run.state.at_us)
    calls = run.pending((), {})
    assert len(calls) > 1
    heir, _ = wide(50, 20)
    written = zip(calls[0].events, calls[0].links, strict=True)
    heir.load([StoredEvent(heir.state.seq + n, payload, link[:LINK_BYTES]) for n, (payload, link) in enumerate(written, 1)])
    rest = heir.turn([], heir.state.at_us)
    assert [record.event for record in rest] == [
        decode(1, payload).event for call in calls[1:] for payload in call.events
    ]  # fmt: skip


# --- cost -------------------------------------------------------------------------------------------------


def _play(tasks: int) -> CoreRun:
    run = CoreRun(*fan(node("body", "join", timeout_us=10**12, retry_times=1)))
    run.done(1, "body", splits=tasks)
    for first in range(2, tasks + 2, 100):
        part = range(first, min(first + 100, tasks + 2))
        run.begin(*part)
        run.turn(*(run.success(task, "join") for task in part))
    run.done(tasks + 2, "end")
    run.done(tasks + 3)
    return run


@pytest.mark.parametrize("tasks", [100, 1_000, 10_000])
def test_a_run_costs_a_fixed_number_of_folds_and_decisions_per_task(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of tasks: nothing looks through all of them."""
    counted: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            counted[name] += 1
            return function(*args)

        return wrapped

    monkeypatch.setattr(decide_module, "decide", counting("decide", decide_module.decide))
    monkeypatch.setattr(decide_module, "_is_stale", counting("timer", vars(decide_module)["_is_stale"]))
    monkeypatch.setattr(apply_module, "breach", counting("breach", vars(apply_module)["breach"]))
    run = _play(tasks)
    assert run.state.status == "succeeded"
    assert counted["breach"] == tasks + 3
    assert len(run.records) <= 4 * tasks + 30
    # A decision each, and one look for more in each of the turns.
    assert counted["decide"] <= tasks + 3 * tasks / 100 + 30
    assert counted["timer"] <= 2 * tasks + 3 * tasks / 100 + 30


def test_deciding_looks_at_what_changed_and_not_at_what_exists() -> None:
    """A state whose other tasks cannot even be looked at."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=1_000)
    run.begin(2)

    class Guarded(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("all tasks were looked through")

        def __getitem__(self, number: Any) -> Any:
            assert number in (0, 1, 2, 1_001), f"task {number} was looked at"
            return super().__getitem__(number)

    run.state.tasks = Guarded(run.state.tasks)
    assert run.turn(run.success(2, "join")) == []


def test_a_queued_task_takes_less_than_a_kilobyte() -> None:
    """A foreach over a million items fits into the memory of a laptop."""
    import tracemalloc

    run = CoreRun(*fan())
    run.begin(1)
    count = 20_000
    gc.collect()
    tracemalloc.start()
    try:
        run.turn(run.success(1, "body", splits=count))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.state.next_task == count + 2
    assert used / count < 1_000


def test_a_foreach_of_any_size_is_one_event_and_is_queued_by_one() -> None:
    """Not one per task."""
    run = CoreRun(*fan())
    assert kinds(run.done(1, "body", splits=5_000)) == ["TasksCreated", "TaskQueued"]


# --- nothing left behind ----------------------------------------------------------------------------------


def test_settling_twice_decides_nothing_more() -> None:
    """At one instant there is one answer."""
    run = _play(100)
    assert settle(run.state, run.state.turn + 1, run.now) == []


def test_a_log_decides_itself_again_at_each_of_its_turns() -> None:
    """I13, on a run with all that can happen in it."""
    run = CoreRun(*fan(node("body", "join", retry_times=2, retry_delay_us=1_000, timeout_us=5_000_000, catch=True)))
    run.done(1, "body", splits=4)
    run.fail(2)
    run.wait(2_000)
    run.done(2, "join")
    run.exit(3, signal=9)
    run.done(3, "join")
    run.begin(4)
    run.wait(60_000_000)
    run.exit(4, signal=9)
    run.wait(2_000)
    run.done(4, "join")
    run.turn(ev.RunContinued("box", "owner", 7), ev.LogRegressed(3, 5, 7))
    run.done(5, "join")
    run.done(6, "end")
    run.done(7)
    run.seal()
    assert verify(run.stored(), run.head()).problems == []
    assert refold(run.stored()).status == "succeeded"
