"""What a command says of what came of its requests."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from evflow.cli.deployments import is_run
from evflow.cli.explain_slots import Sharing, said, sharing
from evflow.cli.steer import Asked, Watch, _came_of
from evflow.core import events as ev
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.log.protocol import LogClient, RunEntry, StoredEvent
from tests.core_run import CoreRun, fan, node

ME = "test"
"""The principal of `CoreRun`."""


def watched(run: CoreRun, *asked: ev.Fact, principal: str = ME) -> list[str | None]:
    """What came of requests, from a run's log."""
    requests = [Asked("TestFlow/1", event) for event in asked]
    watch = Watch(RunState(), requests, principal)
    for seq, payload, _ in run.stored():
        watch.see(seq, payload)
    outcomes = watch.outcomes()
    assert run.state.sealed or watch.all == all(outcome.why_not is not None for outcome in outcomes)
    assert [outcome.asked for outcome in outcomes] == requests
    return [outcome.why_not for outcome in outcomes]


def test_a_request_that_had_an_effect_needs_no_word() -> None:
    run = CoreRun(*fan())
    run.turn(ev.RunPauseRequested("a look"))
    assert watched(run, ev.RunPauseRequested("a look")) == [""]


def test_a_request_that_was_overtaken_says_why() -> None:
    """Somebody else was faster: the log has both."""
    run = CoreRun(*fan())
    run.turn(ev.RunPriorityRequested(3), ev.RunPriorityRequested(3))
    assert watched(run, ev.RunPriorityRequested(3), ev.RunPriorityRequested(3)) == ["", "its priority is 3 already"]


def test_a_request_that_the_log_does_not_have_is_open_and_too_late_in_a_sealed_one() -> None:
    run = CoreRun(*fan())
    assert watched(run, ev.RunPauseRequested("")) == [None]
    run.cancel()
    run.seal()
    assert watched(run, ev.RunPauseRequested("")) == ["the run ended before it came"]


def test_the_same_request_of_somebody_else_is_not_ones_own() -> None:
    run = CoreRun(*fan())
    run.turn(ev.RunPauseRequested(""))
    assert watched(run, ev.RunPauseRequested(""), principal="user:grace") == [None]


def test_a_run_that_came_to_its_end_behind_the_look_at_its_requests_is_no_run_that_nobody_runs() -> None:
    run = CoreRun(*fan())
    run.turn(ev.RunPriorityRequested(3))
    entry = RunEntry(RunId(FlowName("TestFlow"), RunNumber(1)), "s0", {})

    def owner(shard: str) -> None:
        """Its owner ends it and leaves."""
        run.cancel()
        run.seal()

    def pages(shard: str, name: RunId, after: int) -> list[list[StoredEvent]]:
        return [[one for one in run.stored() if one.seq > after]]

    log = SimpleNamespace(owner=owner, pages=pages)
    state = RunState()
    outcomes, is_seen_to = _came_of(cast("LogClient", log), entry, state, [Asked("TestFlow/1", ev.RunPriorityRequested(3))], ME)
    assert ([outcome.why_not for outcome in outcomes], is_seen_to, state.over) == ([""], True, True)


@pytest.mark.parametrize(("text", "run"), [("Train/3", True), ("3", True), ("Train", False), ("Train:nightly", False)])
def test_what_has_a_number_is_a_run_and_all_else_a_deployment(text: str, run: bool) -> None:
    assert is_run(text) is run


def test_runs_of_the_same_scheduler_share_its_slots_and_those_of_higher_priority_come_before_a_run_that_waits() -> None:
    """Not those that wait for somebody, that are over, or that another scheduler has; in whichever shard they are."""
    run = CoreRun(*fan(), priority=1)

    def line(number: int, shard: str = "s0", **summary: Any) -> RunEntry:
        return RunEntry(RunId(FlowName("TestFlow"), RunNumber(number)), shard, {"status": "running", **summary})

    lines = [
        line(1, priority=1),
        line(2, priority=2),
        line(3),
        line(4, priority=9, status="paused"),
        line(5, "s1", priority=9),
        line(6, "s2", priority=3),
    ]
    owners = {"s0": "box:7:1:a", "s2": "box:7:2:b", "s1": "other:7:1:c"}

    def runs(flow: str, most: int) -> list[RunEntry]:
        return lines[:most] if flow == "TestFlow" else []

    def owner(shard: str) -> tuple[str, float] | None:
        return (owners[shard], 1.0) if shard in owners else None

    log = cast("LogClient", SimpleNamespace(flows=lambda: ["TestFlow"], runs=runs, owner=owner))
    found = sharing(log, lines[0], run.state)
    assert found is not None
    assert (found.process, [entry.run.number for entry in found.runs], found.before) == ("box:7", [6, 2, 3], 2)
    owners.clear()
    assert sharing(log, lines[0], run.state) is None
    run.turn(ev.RunPauseRequested(""))
    assert sharing(log, lines[0], run.state) is None


def test_a_task_that_waits_for_more_than_is_free_is_named_to_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, large = CoreRun(*fan()), CoreRun(node("start", "end", cpu=64.0), node("end"))
    entry = RunEntry(RunId(FlowName("Large"), RunNumber(1)), "s0", {})
    found = entry, large.state
    monkeypatch.setattr("evflow.cli.session.folded", lambda _log, _run: found)  # pyright: ignore[reportUnknownLambdaType]
    log = cast("LogClient", None)
    sentence = "Large/1/start/1 asks for 64 cpu and waits until that is free: what comes after it gets no slot before it does."
    assert sentence in list(said(log, mine.state, Sharing("box:7", [entry], 0)))
    large.begin(1)
    assert sentence not in list(said(log, mine.state, Sharing("box:7", [entry], 0)))
