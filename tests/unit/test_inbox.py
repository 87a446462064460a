"""What workers report of attempts is news, or is struck off without a word; a worker and an attempt report in any order."""

import pytest

from evflow.core import events as ev
from evflow.core.codec import encode_report
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber
from evflow.log.protocol import Inbound
from evflow_scheduler.inbox import Accepted, accept
from evflow_scheduler.run import OwnedRun
from tests.unit.story import Story, cross_validation

RUN = RunId(FlowName("TrainFlow"), RunNumber(3))
STARTED = ev.AttemptStarted(1, 0, "box", 7, 5)
EXITED = ev.AttemptExited(1, 0, None, 9, "")
FAILED = ev.AttemptFailed(1, 0, "exception", "ValueError", "no")


def accepted(story: Story, *events: ev.Event, begun: tuple[AttemptId, ...] = ()) -> Accepted:
    run = OwnedRun(RUN)
    run.state = story.state
    run.state.tasks[1].attempt.started_us = 0  # launched, and no more is known
    entries = [
        Inbound(b"%d-0" % number, str(run.id), encode_report(event, principal="worker:box:1")) for number, event in enumerate(events)
    ]
    return accept(entries, {str(run.id): run}.get, begun)


def facts(found: Accepted) -> list[ev.Event]:
    return [event for told in found.facts.values() for event, _, _ in told]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([STARTED, EXITED], [STARTED, EXITED]),
        ([STARTED, STARTED], [STARTED]),
        ([FAILED, STARTED], [FAILED]),
        ([FAILED, EXITED], [FAILED]),
        ([EXITED, EXITED], [EXITED]),
        ([ev.AttemptStarted(1, 3, "box", 7, 5), STARTED], [STARTED]),
    ],
)
def test_what_is_no_news_is_struck_off_and_not_counted(told: list[ev.Event], kept: list[ev.Event]) -> None:
    found = accepted(Story(cross_validation()).start(), *told)
    assert facts(found) == kept
    assert len(found.useless) == len(told) - len(kept)
    assert found.dropped == {}


def test_a_start_that_was_seen_in_the_same_round_is_no_news() -> None:
    story = Story(cross_validation()).start()
    assert facts(accepted(story, STARTED, begun=(AttemptId.parse(f"{RUN}/1.0"),))) == []


def test_a_success_that_overtook_its_start_says_where_the_attempt_was() -> None:
    succeeded = ev.AttemptSucceeded(1, 0, b"m", "linear", ("train",), started_us=5, ended_us=6)
    found = accepted(Story(cross_validation()).start(), succeeded, STARTED)
    assert facts(found) == [succeeded]  # what the executor saw comes too late
    assert found.starts == {RUN: [(ev.AttemptStarted(1, 0, "box", 1, 5), "worker:box:1", 0)]}
    assert [len(found.consumed[RUN]), len(found.useless)] == [1, 1]


def test_a_success_behind_its_start_tells_no_other_one() -> None:
    succeeded = ev.AttemptSucceeded(1, 0, b"m", "linear", ("train",))
    assert accepted(Story(cross_validation()).start(), STARTED, succeeded, succeeded).starts == {}
    begun = (AttemptId.parse(f"{RUN}/1.0"),)
    assert accepted(Story(cross_validation()).start(), succeeded, begun=begun).starts == {}
