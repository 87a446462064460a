"""Codes of reasons in words, and which attempt is the next."""

from dataclasses import replace

import pytest

from evflow.cli.timeline import told
from evflow.core.events import RunStarted
from evflow.core.graph import Policy
from evflow.core.reasons import CLAUSES, next_attempt, said
from evflow.core.state import Task
from tests.core_run import CoreRun, fan, pack, stored

UNREPORTED = "ended as if reported, but the log's server has no report; did it lose its tail?"


@pytest.mark.parametrize("code", CLAUSES)
def test_a_code_is_said_in_words(code: str) -> None:
    assert said(code) == CLAUSES[code] != code


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Step 'fit' (task 3) failed: owner-died", "Step 'fit' (task 3) failed: the run's own process died"),
        (
            "owner-died @retry(times=0) forbids another attempt.",
            "the run's own process died. @retry(times=0) forbids another attempt.",
        ),
        ("never-started: Cannot allocate memory", "its process could not be started: Cannot allocate memory"),
        ("killed (signal 9); out of memory?", "killed (signal 9); out of memory?"),
        (
            f"{UNREPORTED} Its worker died 4 times.",
            f"{UNREPORTED} Or did the body end its process itself, by os._exit? Its worker died 4 times.",
        ),
        ("ValueError: owner-died", "ValueError: owner-died"),
        ("owner-dies-never", "owner-dies-never"),
    ],
)
def test_only_what_is_a_code_is_said_in_words(reason: str, words: str) -> None:
    assert said(reason) == words


def test_the_next_attempt_is_counted_from_0_and_the_retries_by_what_counts() -> None:
    policy = Policy(retry_times=2, catch=True)
    task = Task(1, "train", 0, None, {}, 0)
    task.failures = 1
    assert next_attempt(task, policy, 1, counted=True) == "attempt 1, retry 1 of 2"
    assert next_attempt(task, policy, 2, counted=False) == "attempt 2; the lost one does not count"
    task.failures = 3
    assert next_attempt(task, policy, 4, counted=True) == "attempt 4, in which @catch takes the failure"


def test_a_replay_says_reasons_in_words_and_numbers_attempts_as_everything_else() -> None:
    run = CoreRun(*fan())
    run.exit(1, why="owner-died")
    run.begin(1)
    texts = [entry.text for entry in told(run.stored())]
    assert "was lost: the run's own process died" in texts
    assert "will be tried again at once: attempt 1; the lost one does not count" in texts
    assert any(text.startswith("started again (attempt 1)") for text in texts)


def test_a_replay_shows_parameters_as_they_can_be_typed_again() -> None:
    run = CoreRun(*fan())
    started = run.records[0].event
    assert isinstance(started, RunStarted)
    shown = replace(started, parameters_shown={"windows": "7,14,30", "source": "", "note": "two words"})
    [entry] = told(stored([pack(replace(run.records[0], event=shown))]))
    assert entry.text == "started by ada with --windows 7,14,30 --source '' --note 'two words'"


def test_a_replay_counts_the_seal_among_the_events() -> None:
    run = CoreRun(*fan())
    run.cancel()
    sealed = run.seal().records[-1]
    assert [entry.text for entry in told(run.stored())][-1] == f"sealed with {sealed.seq} events"


def test_a_replay_says_why_an_attempt_was_asked_to_end() -> None:
    run = CoreRun(*fan())
    run.begin(1)
    run.cancel()
    assert "was asked to end: the run was cancelled" in [entry.text for entry in told(run.stored())]
