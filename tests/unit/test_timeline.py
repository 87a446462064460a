"""The story that `evflow replay` tells: what happened, when and why, and nothing that did not."""

import click
import pytest

from evflow.cli.timeline import told
from tests.core_run import SECOND, CoreRun, fan, node
from tests.histories.history import all_histories, read


def lines(run: CoreRun) -> list[str]:
    """The story, each line as subject and sentence."""
    return [f"{entry.about} {entry.text}" for entry in told(run.stored())]


def test_a_report_that_came_too_late_does_not_read_as_if_it_had_counted() -> None:
    """Nor is it left out."""
    run = CoreRun(node("start", "end"), node("end"))
    run.begin(1)
    late = run.success(1, "end")
    run.exit(1, why="owner-died")
    run.turn(late)
    story = lines(run)
    assert "start/1 the success of attempt 0 came too late to count: it had been given up" in story
    assert not any("succeeded" in line for line in story)


def test_what_never_came_to_its_turn_is_said_at_the_end() -> None:
    """Waiting for a slot or for a retry."""
    run = CoreRun(*fan(node("body", "join", retry_times=1, retry_delay_us=SECOND)))
    run.done(1, "body", splits=4)
    run.begin(2, 3)
    run.fail(2)
    run.cancel()
    run.exit(3, signal=15)
    assert lines(run)[-1].endswith(": Ctrl-C (3 tasks still waited)")


def test_a_failure_while_the_run_is_ending_is_not_blamed_on_missing_retries() -> None:
    """There may be some left."""
    run = CoreRun(*fan(node("body", "join", retry_times=5)))
    run.done(1, "body", splits=2)
    run.begin(2, 3)
    run.cancel()
    run.fail(2)
    assert "body/2 is not tried again: the run is ending" in lines(run)


def test_a_task_without_an_attempt_left_failed_for_good() -> None:
    """And took the run with it."""
    run = CoreRun(node("start", "end"), node("end"))
    run.fail(1, where="flow.py:7")
    story = lines(run)
    assert "start/1 failed: ValueError: as told (flow.py:7)" in story
    assert "start/1 failed for good: no attempt is left" in story
    assert story[-1].startswith("run failed after ")


def test_a_wait_for_a_slot_is_told_with_what_it_waited_for() -> None:
    """Where there was one."""
    run = CoreRun(node("start", "end"), node("end"))
    run.wait(3 * SECOND)
    run.begin(1)
    assert any("started after 3.0 s in the queue (for a test) on box, pid 101" in line for line in lines(run))


@pytest.mark.parametrize("path", all_histories(), ids=lambda path: path.stem)
def test_a_recorded_run_is_told_in_order_from_its_start_to_its_seal(path: object) -> None:
    """Every line is a sentence on one line; times never go back."""
    from pathlib import Path

    assert isinstance(path, Path)
    story = list(told(read(path).events))
    assert story[0].about == story[-1].about == "run"
    assert story[0].text.startswith("started by ada on ")
    assert story[-1].text.startswith("sealed with ")
    assert [entry.since_us for entry in story] == sorted(entry.since_us for entry in story)
    for entry in story:
        text = click.unstyle(entry.line())
        assert "\n" not in text
        assert ".," not in text
        assert "None" not in text
