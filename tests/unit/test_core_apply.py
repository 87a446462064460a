"""Only what can follow is folded: anything else is refused as impossible, and never worse."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack
import pytest

from evflow.core import events as ev
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.codec import Record, UnreadableEvent, decode
from evflow.core.decide import settle_turn
from evflow.core.ids import Micros, Seq
from evflow.core.state import RunState
from evflow.log.protocol import Head, StoredEvent
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from tests.core_run import CoreRun, fan, head_of, node, stored
from tests.core_world import CoreWorld
from tests.effort import rng, scaled, seeds
from tests.random_flows import grow, spoil

START = ev.RunStarted("F", 1, 1, CoreRun(*fan()).state.graph.to_plain(), b"", {}, {}, {}, "ada", "")


def fold(state: RunState, event: ev.Event) -> None:
    """Fold one event at the next position."""
    apply(state, Record(Seq(state.seq + 1), state.turn + 1, Micros(state.at_us), "test", 0, event))


def impossible(state: RunState, event: ev.Event, why: str) -> None:
    """The event is refused, with the reason."""
    with pytest.raises(ImpossibleEvent, match=why):
        fold(state, event)


def two_running() -> CoreRun:
    """Tasks 2 and 3 run, 4 waits."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    run.begin(2, 3)
    return run


def test_a_gap_is_refused() -> None:
    """Positions are dense (I1)."""
    run = two_running()
    with pytest.raises(ImpossibleEvent, match=r"Event 99 \(RunContinued\) cannot stand here: the event before it is 15"):
        apply(run.state, Record(Seq(99), 1, Micros(0), "", 0, ev.RunContinued("h", "o", 1)))


def test_a_log_begins_with_the_run() -> None:
    """And begins once."""
    impossible(RunState(), ev.RunContinued("h", "o", 1), "the first event is RunStarted")
    impossible(two_running().state, START, "the run has started already")


@pytest.mark.parametrize(
    ("options", "graph"),
    [({"max_splits": "3"}, None), ({"task_budget": 1.5}, None), ({"retry_scale": None}, None), ({}, {"steps": 1}), ({}, {"steps": ()})],
)
def test_a_start_that_nothing_can_be_decided_from_is_refused(options: dict[str, Any], graph: Any) -> None:
    """Where it stands, not where somebody stumbles over it."""
    start = ev.RunStarted("F", 1, 1, graph or START.graph, b"", {}, options, {}, "ada", "")
    impossible(RunState(), start, "its values do not fit the state")


def test_nothing_follows_the_seal() -> None:
    """Not even what has no effect."""
    run = CoreRun(node("start"))
    run.done(1)
    run.seal()
    impossible(run.state, ev.RunContinued("h", "o", 1), "the run is sealed")


def test_a_run_that_is_not_over_has_no_seal() -> None:
    """A log that was cut and sealed again."""
    impossible(two_running().state, ev.RunSealed(b"", b"", 1), "the run is not over")


@pytest.mark.parametrize("number", [0, -1, 5, 2**40])
def test_an_event_of_a_task_that_does_not_exist_is_refused(number: int) -> None:
    """Whatever it says of it."""
    for event in (
        ev.TaskQueued(number), ev.SlotGranted(number, 0, 0), ev.TaskLaunched(number, 0), ev.AttemptStarted(number, 0, "h", 1, 1),
        ev.AttemptSucceeded(number, 0, b"", "end", ()), ev.AttemptFailed(number, 0, "k", "e", "m"), ev.AttemptExited(number, 0, 0, None),
        ev.AttemptLost(number, 0, "r"), ev.AttemptCrashed(number, 0, "r"), ev.AttemptTimedOut(number, 0, 1), ev.TaskFailed(number, 0, "r"),
        ev.AttemptCancelled(number, 0, "r"), ev.AttemptCancelRequested(number, 0, "r"), ev.RetryScheduled(number, 1, 1, True, "r"),
        ev.RunSucceeded(number), ev.TaskReused(number, "F/1/s/1", b"", "end", ()),
    ):  # fmt: skip
        impossible(two_running().state, event, f"there is no task {number}")


WRONG: list[tuple[ev.Event, str]] = [
    (ev.TasksCreated("body", 5, 1, 2), "cannot stand here"),
    (ev.TasksCreated("body", 4, 1, 1), "the next task is 5"),
    (ev.TasksCreated("join", 5, 1, 1, "join"), "cannot stand here"),
    (ev.TaskQueued(2), "task 2 is running"),
    (ev.TaskQueued(4, 1, 1), "task 4 is queued"),
    (ev.SlotGranted(2, 0, 0), "does not wait for a slot"),
    (ev.SlotGranted(4, 1, 0), "attempt 1 of task 4 does not wait"),
    (ev.TaskLaunched(4, 0), "nothing asked for this decision"),
    (ev.AttemptLost(2, 0, "r"), "nothing asked for this decision"),
    (ev.AttemptCancelled(2, 0, "r"), "nothing asked for this decision"),
    (ev.AttemptCancelRequested(4, 0, "r"), "is not running"),
    (ev.AttemptCancelRequested(2, 1, "r"), "is not running"),
    (ev.RetryScheduled(2, 1, 1, True, "r"), "nothing asked for this decision"),
    (ev.TaskFailed(2, 0, "r"), "nothing asked for this decision"),
    (ev.TaskReused(2, "F/1/body/2", b"", "linear", ("join",)), "is not waiting"),
    (ev.RunSucceeded(2), "did not end the run"),
    (ev.RunFailed("task-failed", "r", 2), "nothing asked for the run's end"),
    (ev.RunCancelled("r"), "nothing asked for the run's end"),
]


@pytest.mark.parametrize(("event", "why"), WRONG, ids=[type(event).__name__ for event, _ in WRONG])
def test_a_decision_that_nothing_asked_for_is_refused(event: ev.Event, why: str) -> None:
    """With what stands against it."""
    impossible(two_running().state, event, why)


def test_a_run_does_not_end_while_something_runs() -> None:
    """Whatever the log says."""
    run = two_running()
    fold(run.state, ev.RunCancelRequested("Ctrl-C"))
    impossible(run.state, ev.RunCancelled("Ctrl-C"), "task 2 is still running")


def _routed() -> RunState:
    """The state in which a foreach of three was reported and nothing is decided yet."""
    run = CoreRun(*fan())
    run.begin(1)
    fold(run.state, run.success(1, "body", splits=3))
    return run.state


@pytest.mark.parametrize(
    "event",
    [
        ev.TasksCreated("body", 2, 10**12, 1, "foreach", 0, 10**12), ev.TasksCreated("body", 2, 3, 1, "foreach", 0, 4),
        ev.TasksCreated("body", 2, 2, 1, "foreach", 1, 3), ev.TasksCreated("body", 2, 3, 1, "foreach", -1, 3),
        ev.TasksCreated("body", 2, 3, 1, "split", 0, 3), ev.TasksCreated("join", 2, 3, 1, "foreach", 0, 3),
        ev.TasksCreated("body", 2, 1, 1), ev.TasksCreated("body", 2, 0, 1, "foreach", 0, 0), ev.TasksCreated("body", 2, -1, 1),
        ev.TasksCreated("body", 2, 3, 0, "foreach", 0, 3), ev.RunSucceeded(1), ev.TasksCreated("end", 2, 1, 1, "join"),
    ],
)  # fmt: skip
def test_other_tasks_than_the_transition_says_are_refused(event: ev.Event) -> None:
    """Before the first of them is made: a number may be any number."""
    with pytest.raises(ImpossibleEvent):
        fold(_routed(), event)


def test_the_branches_of_a_split_are_created_one_after_the_other() -> None:
    """None twice, none left out."""
    run = CoreRun(node("start", "a", "b"), node("a", "join"), node("b", "join"), node("join", "end"), node("end"))
    run.begin(1)
    state = run.state
    fold(state, run.success(1, "a", "b"))
    with pytest.raises(ImpossibleEvent):
        fold(_copy_of(run), ev.TasksCreated("b", 2, 1, 1, "split", 1, 2))
    fold(state, ev.TasksCreated("a", 2, 1, 1, "split", 0, 2))
    with pytest.raises(ImpossibleEvent):
        fold(state, ev.TasksCreated("a", 3, 1, 1, "split", 0, 2))


def _copy_of(run: CoreRun) -> RunState:
    state = refold(run.stored())
    fold(state, run.success(1, "a", "b"))
    return state


def test_events_of_later_versions_inside_turns_have_no_effect() -> None:
    """They are counted, and what stands behind them folds."""
    run = two_running()
    assert run.turn(ev.Unknown("TaskBlessed", (2,)), run.success(2, "join"), ev.Unknown("X", ())) == []
    assert run.state.unknown == 2
    run.done(3, "join")
    assert run.state.splits[1].count == 2


# --- whatever a log holds ---------------------------------------------------------------------------------


def _log(seed: int) -> list[bytes]:
    random = Random(seed)
    flow = grow(random, depth=2)
    world = CoreWorld(spoil(flow, random) if seed % 3 == 0 else flow, random, lossy=True)
    world.play()
    return [event.payload for event in world.stored]


def _mutate(payloads: Sequence[bytes], random: Random) -> list[bytes]:
    """One to three changes: events moved, doubled, removed, or a value in one of them replaced."""
    log = list(payloads)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(log))
        way = random.choice(["move", "double", "remove", "value", "value", "value", "value", "surplus", "swap"])
        if way == "move":
            log.insert(random.randrange(len(log)), log.pop(at))
        elif way == "double":
            log.insert(random.randrange(len(log)), log[at])
        elif way == "remove" and len(log) > 1:
            del log[at]
        elif way == "swap":
            other = random.randrange(len(log))
            log[at], log[other] = log[other], log[at]
        else:
            values = list(msgpack.unpackb(log[at]))
            if way == "surplus":
                values.append("more")
            else:
                odd = [
                    -1,
                    0,
                    1,
                    2,
                    3,
                    7,
                    2**40,
                    -(2**63),
                    "",
                    "end",
                    "join",
                    "s1",
                    "foreach",
                    "split",
                    "linear",
                    None,
                    True,
                    b"x",
                    (),
                    ("end",),
                    {},
                    1.5,
                ]
                values[random.randrange(len(values))] = random.choice([*odd, *msgpack.unpackb(random.choice(log))[5:]])
            log[at] = msgpack.packb(values)
    return log


@pytest.mark.parametrize("seed", seeds(60))
@pytest.mark.timeout(120)
def test_a_log_that_was_tampered_with_is_folded_or_refused_and_never_worse(seed: int) -> None:
    """Folding, deciding on and verifying whatever stands there ends, with a verdict or one of two errors."""
    payloads = _log(seed)
    random = rng("tamper", seed)
    for _ in range(min(scaled(200, at_least=20), 200)):  # more effort is more seeds: both would be a hundredfold
        log = _mutate(payloads, random)
        forged = stored(log)
        state = RunState()
        try:
            for event in forged:
                apply(state, decode(event.seq, event.payload))
                if random.random() < 0.02:
                    settle_turn(_again(forged, event.seq), state.turn + 1, state.at_us)
        except (ImpossibleEvent, UnreadableEvent):
            pass
        verdict = verify(forged, head_of(log))
        # What was changed so that it says the same is no change.
        same = [decode(n, p) for n, p in enumerate(payloads, 1)] == _decoded(log)
        assert same or not verdict.ok or _only_facts_differ(payloads, log)


def _again(log: list[StoredEvent], until: int) -> RunState:
    return refold(log, until_seq=until)


def _decoded(log: list[bytes]) -> list[Record] | None:
    try:
        return [decode(seq, payload) for seq, payload in enumerate(log, 1)]
    except UnreadableEvent:
        return None


def _only_facts_differ(before: list[bytes], after: list[bytes]) -> bool:
    """A fact may be anything that fits: only the chain protects it, and the forger computed that anew."""
    ours, theirs = _decoded(before), _decoded(after)
    assert ours is not None
    if theirs is None:
        return False
    decisions = [[record.event for record in log if isinstance(record.event, ev.Decision)] for log in (ours, theirs)]
    facts = [[record for record in log if not isinstance(record.event, ev.Decision)] for log in (ours, theirs)]
    return facts[0] != facts[1] or decisions[0] == decisions[1]


def test_the_head_of_an_empty_log_is_its_beginning() -> None:
    """Nothing is a log, too."""
    assert verify([], Head()).ok
