"""Loading and folding a log: its end, any point before it, and what is said of one that is not there."""

import pytest

from evflow.core.apply import ImpossibleEvent
from evflow.core.codec import UnreadableEvent
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.log.protocol import StoredEvent
from evflow.replay.load import RunNotFound, events, load
from evflow.replay.refold import refold
from evflow.testing.simulated_log import SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.core_run import CoreRun, fan, stored
from tests.unit.story import Story, cross_validation


def finished() -> CoreRun:
    """A run that is over, and sealed."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=2)
    run.done(2, "join")
    run.done(3, "join")
    run.done(4, "end")
    run.done(5)
    return run.seal()


def test_a_log_folds_to_the_state_at_its_end() -> None:
    """The one that its owner had."""
    run = finished()
    state = refold(run.stored())
    assert (state.status, state.sealed, state.seq) == ("succeeded", True, len(run.records))


def test_every_position_has_its_state() -> None:
    """Time travel by position; 0 is the state before the run."""
    run = finished()
    for seq in range(len(run.records) + 1):
        assert refold(run.stored(), until_seq=seq).seq == seq
    assert refold(run.stored(), until_seq=10**9).seq == len(run.records)
    assert refold(run.stored(), until_seq=0).status == "new"


def test_an_instant_shows_whole_turns() -> None:
    """The last one that is not later."""
    run = finished()
    by_turn = {record.turn: (record.at_us, record.seq) for record in run.records}
    for turn, (at_us, last) in by_turn.items():
        assert refold(run.stored(), until_us=at_us).seq == last
        if turn > 1:
            assert refold(run.stored(), until_us=at_us - 1).seq == by_turn[turn - 1][1]


def test_each_event_is_handed_over_with_the_state_behind_it() -> None:
    """In order, none left out."""
    run = finished()
    seen: list[tuple[int, int]] = []
    refold(run.stored(), until_seq=9, each=lambda record, state: seen.append((record.seq, state.seq)))
    assert seen == [(seq, seq) for seq in range(1, 10)]


def test_a_log_is_folded_as_it_is_read() -> None:
    """Not gathered before: what stands behind the point that was asked for is not even decoded."""
    run = finished()
    log = [*run.stored()[:5], StoredEvent(6, b"rubbish", b"")]
    assert refold(iter(log), until_seq=5).seq == 5
    with pytest.raises(UnreadableEvent):
        refold(iter(log))


def test_a_log_that_is_none_is_refused() -> None:
    """A position is missing."""
    log = finished().stored()
    with pytest.raises(ImpossibleEvent, match=r"Event 4 .* the event before it is 2"):
        refold([*log[:2], *log[3:]])


def test_an_empty_log_is_a_run_that_has_not_begun() -> None:
    """It folds to nothing."""
    assert refold([]).status == RunState().status == "new"
    assert stored([]) == []


# --- from a server ----------------------------------------------------------------------------------------


def test_a_log_of_any_length_is_read_whole() -> None:
    """In as many chunks as it takes, and behind any position."""
    server = SimulatedServer()
    story = Story(cross_validation()).start().succeed(1, "train", kind="foreach", splits=3)
    story.write_to(server)
    client = SimulatedLogClient(server)
    found = load(client, story.run)
    assert [event.seq for event in found.events] == list(range(1, len(story.records) + 1))
    assert found.head.seq == len(story.records)
    assert [event.seq for event in events(client, found.entry, after=4)] == list(range(5, len(story.records) + 1))


def test_a_run_that_is_not_there_is_named_with_those_that_are() -> None:
    """Of its flow, else the flows, else the hint that the log may be another one."""
    server = SimulatedServer()
    client = SimulatedLogClient(server)
    lost = RunId(FlowName("TrainFlow"), RunNumber(99))
    with pytest.raises(RunNotFound, match=r"There is no run 'TrainFlow/99'\.") as caught:
        load(client, lost)
    assert "no runs at all" in caught.value.hint
    Story(cross_validation()).start().write_to(server)
    with pytest.raises(RunNotFound) as caught:
        load(client, lost)
    assert "TrainFlow/3" in caught.value.hint
    with pytest.raises(RunNotFound) as caught:
        load(client, RunId(FlowName("Other"), RunNumber(1)))
    assert "it has runs of TrainFlow" in caught.value.hint
