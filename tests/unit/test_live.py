import io
import threading
from dataclasses import replace
from typing import Any

import pytest

from evflow.cli.live import LiveView, PlainView, lifecycle, summary
from evflow.cli.panel import ASCII, UNICODE, panel
from evflow.cli.picture import Photographer, Picture, StepRow
from evflow.cli.screen import MAX_PENDING, Painter, Screen
from evflow.core.apply import apply
from evflow.core.events import AttemptExited, AttemptStarted, AttemptSucceeded
from evflow.core.graph import Node
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.state import RunState
from evflow_executors.protocol import OutputLine
from tests.unit.story import NOON_US, SECOND, Story, cross_validation, graph
from tests.waiting import wait_until

RUN = RunId(FlowName("TrainFlow"), RunNumber(3))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def picture_of(story: Story, after_s: float = 0) -> Picture:
    photographer = Photographer()
    for record in story.records:
        photographer.see(record, story.state)
    return photographer.take(story.state, story.now_us + int(after_s * SECOND))


def text_of(picture: Picture, *, width: int = 80, height: int = 24, ascii_only: bool = False) -> str:
    return "\n".join(line.plain for line in panel(picture, width=width, height=height, glyphs=ASCII if ascii_only else UNICODE))


def spread(tasks: int = 24, *, slots: int = 4, retries: int = 0, delay_s: float = 0) -> Story:
    story = Story(cross_validation(retries=retries, delay_s=delay_s), slots=slots).start()
    return story.succeed(1, "train", kind="foreach", splits=tasks)


def plain_view(story_number: int = 3) -> tuple[PlainView, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    view = PlainView(out, err, quiet=False, colored=False, now_us=lambda: NOON_US + 5 * SECOND)
    view.on_start(RunId(FlowName("TrainFlow"), RunNumber(story_number)))
    return view, out, err


def line(task: int, text: str, pid: int = 0) -> OutputLine:
    return OutputLine(AttemptId(RUN, TaskId(task), 0), "stdout", NOON_US + 123_000, text, pid)


# --- pictures --------------------------------------------------------------------------------------------


def test_a_picture_counts_tasks_by_what_they_do() -> None:
    story = spread().succeed(2, "join").succeed(3, "join")
    train = picture_of(story).steps[1]
    assert train == StepRow("train", total=24, done=2, failed=0, running=4, retrying=0)
    assert train.waiting == 18


def test_steps_that_are_not_reached_are_in_the_picture() -> None:
    assert [step.name for step in picture_of(spread()).steps] == ["start", "train", "join", "end"]


def test_a_retry_waits_in_the_picture_until_its_attempt_begins() -> None:
    story = spread(retries=2, delay_s=60).fail(2)
    assert [(row.task, row.attempt, row.reason) for row in picture_of(story).retries] == [(2, 1, "ValueError: nope")]
    story.wait(61)
    assert picture_of(story).retries == ()


def test_a_task_that_failed_for_good_is_in_the_picture_with_its_place() -> None:
    story = spread().fail(2, where="/flows/cv.py:31")
    [failure] = picture_of(story).failures
    assert (failure.step, failure.task, failure.reason, failure.where) == ("train", 2, "ValueError: nope", "/flows/cv.py:31")


def test_a_picture_of_a_run_that_is_over_does_not_age() -> None:
    story = Story(graph(Node("start", "linear", ("end",)), Node("end", "end"))).start().succeed(1, "end").wait(2).succeed(2)
    assert picture_of(story, after_s=60).elapsed_us == 2 * SECOND


# --- the panel -------------------------------------------------------------------------------------------


def test_the_panel_shows_how_far_a_foreach_is() -> None:
    shown = text_of(picture_of(spread().succeed(2, "join"), after_s=2))
    assert "TrainFlow/3  running  2.0 s   2 of 25 tasks, 4 running, 19 waiting" in shown
    assert "1/24" in shown
    assert "train/3 2.0 s (pid 4003)" in shown


def test_the_panel_counts_down_to_a_retry() -> None:
    story = spread(retries=2, delay_s=60).fail(2)
    assert "retry    train/2 in 20.0 s, attempt 1: ValueError: nope" in text_of(picture_of(story, after_s=40))


def test_the_panel_names_a_failed_task_and_the_users_line() -> None:
    assert "failed   train/2 ValueError: nope (cv.py:31)" in text_of(picture_of(spread().fail(2, where="/flows/cv.py:31")))


@pytest.mark.parametrize("width", [20, 40, 80, 140])
@pytest.mark.parametrize("height", [4, 8, 24])
def test_the_panel_fits_the_terminal(width: int, height: int) -> None:
    story = spread(200, slots=30, retries=1, delay_s=60)
    for task in range(2, 20):
        story.fail(task, message="a reason that is far too long for one line of any terminal " * 3)
    lines = panel(picture_of(story, after_s=3), width=width, height=height)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) < width


def test_the_panel_prefers_steps_where_something_happens() -> None:
    done = [StepRow(f"done_{number}", 1, 1) for number in range(20)]
    busy = StepRow("busy", 10, 2, 0, 3)
    ahead = [StepRow(f"ahead_{number}") for number in range(20)]
    shown = text_of(Picture("F/1", "running", NOON_US, NOON_US, (*done, busy, *ahead)), height=8)
    assert "busy" in shown
    assert "done_0 " not in shown
    assert "more steps" in shown


def test_the_panel_of_a_terminal_without_unicode_is_ascii() -> None:
    story = spread(retries=1, delay_s=9).fail(2).succeed(3, "join")
    assert text_of(picture_of(story), ascii_only=True).isascii()


# --- lines -----------------------------------------------------------------------------------------------


def test_a_line_of_a_task_names_run_step_task_and_process() -> None:
    view, out, _ = plain_view()
    Story(cross_validation(), listener=view.on_event).start()
    view.on_line(line(1, "loading"))
    view.close()
    [shown] = [text for text in out.getvalue().splitlines() if "loading" in text]
    assert shown.endswith(".123 [3/start/1 (pid 4001)] loading")
    assert len(shown.partition(" [")[0]) == len("2026-11-23 12:00:00.123")


def test_plain_lines_tell_starts_ends_and_retries() -> None:
    view, out, _ = plain_view()
    story = Story(cross_validation(retries=2, delay_s=90), listener=view.on_event).start()
    story.succeed(1, "train", kind="foreach", splits=2, took_s=1.5).fail(2, where="/flows/cv.py:31")
    view.close()
    texts = [text.partition("] ")[2] for text in out.getvalue().splitlines()]
    assert texts == [
        "Task has started.",
        "Task has finished in 1.5 s.",
        "Task has started.",
        "Task has started.",
        "Task failed: ValueError: nope (/flows/cv.py:31)",
        "Task will be tried again in 1 m 30 s (attempt 1, retry 1 of 2).",
    ]


def told(out: io.StringIO) -> list[str]:
    """Process and text of what was shown."""
    return [text.partition("] ")[0].rpartition(" (")[2] + " " + text.partition("] ")[2] for text in out.getvalue().splitlines()]


def test_a_line_that_is_faster_than_its_start_tells_it() -> None:
    view, out, _ = plain_view()
    records: list[Any] = []
    Story(cross_validation(), listener=lambda record, _: records.append(record)).start()
    state = RunState()
    for record in records:
        apply(state, record)
        if isinstance(record.event, AttemptStarted):
            view.on_line(line(1, "first", pid=4001))
            wait_until(lambda: "first" in out.getvalue(), "the line is shown before the log has the start")
        view.on_event(record, state)
    view.on_line(line(1, "second", pid=4001))
    view.close()
    assert told(out) == ["pid 4001) Task has started.", "pid 4001) first", "pid 4001) second"]


def test_a_line_of_a_process_that_nobody_knows_is_shown_all_the_same() -> None:
    view, out, _ = plain_view()
    view.on_line(line(1, "hello"))
    view.close()
    assert [text.partition(" [")[2] for text in out.getvalue().splitlines()] == ["3/?/1] Task has started.", "3/?/1] hello"]


def test_an_attempt_whose_end_is_reported_before_its_start_is_told_with_its_process() -> None:
    view, out, _ = plain_view()
    story = Story(cross_validation())
    story.start()
    started = next(record for record in story.records if isinstance(record.event, AttemptStarted))
    story.state.tasks[1].attempt.pid = 0
    story.succeed(1, "train", kind="foreach", splits=1)
    ended = next(record for record in story.records if isinstance(record.event, AttemptSucceeded))
    view.on_event(replace(ended, principal="worker:box:77"), story.state)
    view.on_line(line(1, "late"))
    view.on_event(started, story.state)
    view.close()
    assert told(out) == ["pid 77) Task has started.", "pid 77) Task has finished in 1.0 s.", "pid 77) late"]


def test_quiet_shows_only_what_tasks_print() -> None:
    out, err = io.StringIO(), io.StringIO()
    view = PlainView(out, err, quiet=True, colored=False)
    view.on_start(RUN)
    Story(graph(Node("start", "linear", ("end",)), Node("end", "end")), listener=view.on_event).start().succeed(1, "end").succeed(2)
    view.on_line(line(1, "hello"))
    view.close()
    assert [text.partition("] ")[2] for text in out.getvalue().splitlines()] == ["hello"]
    assert err.getvalue() == ""


def test_a_line_in_a_terminal_cannot_move_the_cursor_but_keeps_its_colors() -> None:
    out = Terminal()
    view = LiveView(out, io.StringIO(), quiet=False, colored=False)
    Story(cross_validation(), listener=view.on_event).start()
    view.on_line(line(1, "10%\r\x1b[2K\x1b[1A\x1b[31m100%\x07"))
    view.close()
    [shown] = [text for text in out.getvalue().splitlines() if "100%" in text]
    assert shown.endswith("start/1 │ \x1b[31m100%\x1b[0m")


def test_a_run_that_is_over_at_once_draws_no_panel() -> None:
    out = Terminal()
    view = LiveView(out, io.StringIO(), quiet=False, colored=False, now_us=lambda: NOON_US)
    Story(cross_validation(), listener=view.on_event).start()
    view.tick()
    view.close()
    assert "\x1b" not in out.getvalue()


def test_an_event_that_people_need_not_read_is_no_line() -> None:
    story = spread()
    silent = {type(record.event).__name__ for record in story.records if lifecycle(record, story.state) is None}
    assert {"RunStarted", "TasksCreated", "TaskQueued", "SlotGranted", "TaskLaunched"} <= silent


# --- the end ---------------------------------------------------------------------------------------------


def unstyled(text: str, **_: object) -> str:
    return text


def test_the_summary_of_a_success_names_the_next_commands() -> None:
    story = Story(graph(Node("start", "linear", ("end",)), Node("end", "end"))).start().succeed(1, "end").wait(2).succeed(2)
    lines = summary(picture_of(story), style=unstyled)
    assert lines[0] == "Run TrainFlow/3 succeeded after 2.0 s: 2 tasks."
    assert any("evflow show TrainFlow/3" in text for text in lines)
    assert any("evflow replay TrainFlow/3" in text for text in lines)


def test_the_summary_of_a_failure_names_the_task_the_place_and_its_output() -> None:
    story = spread(4, slots=4).fail(2, where="/flows/cv.py:31")
    for task in (3, 4, 5):
        story.exit(task, signal=15)
    shown = "\n".join(summary(picture_of(story), style=unstyled))
    assert "failed after" in shown
    assert "train/2  ValueError: nope  (/flows/cv.py:31)" in shown
    assert "evflow logs TrainFlow/3/train/2" in shown
    assert "resume --origin-run-id 3" in shown


def test_the_summary_of_a_run_that_its_process_had_to_give_up_says_how_it_goes_on() -> None:
    lines = summary(picture_of(spread()), style=unstyled)
    assert lines[-1] == "  Go on from here  evflow continue TrainFlow/3"
    assert not any("resume" in text for text in lines)


def test_a_lost_attempt_is_told_in_words() -> None:
    view, out, _ = plain_view()
    story = Story(cross_validation(), listener=view.on_event).start()
    story.turn(AttemptExited(1, 0, None, None, "fork-server-died"))
    view.close()
    texts = [text.partition("] ")[2] for text in out.getvalue().splitlines()]
    assert texts[1:] == [
        "Task was lost: the process that starts attempts died",
        "Task will be tried again now (attempt 1; the lost one does not count).",
        "Task has started again (attempt 1).",
    ]


def test_the_summary_of_an_ill_formed_run_says_why() -> None:
    story = Story(graph(Node("start", "linear", ("end",)), Node("end", "end"))).start().succeed(1, "nowhere")
    assert any("'nowhere', which is not a step" in text for text in summary(picture_of(story), style=unstyled))


# --- the screen ------------------------------------------------------------------------------------------


class StuckTerminal(Terminal):
    """A terminal that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.going = threading.Event()
        self.asked = threading.Event()

    def write(self, text: str) -> int:
        self.asked.set()
        assert self.going.wait(60)
        return super().write(text)


def test_a_terminal_that_does_not_read_stops_nobody_and_lines_are_left_out_in_the_end() -> None:
    stream = StuckTerminal()
    screen = Screen(stream, live=False, colored=False)
    screen.write("first")
    assert stream.asked.wait(60)
    for _ in range(5):
        screen.write("x" * (MAX_PENDING // 2))
    stream.going.set()
    screen.close()
    shown = stream.getvalue().splitlines()
    assert [len(text) for text in shown[:3]] == [len("first"), MAX_PENDING // 2, MAX_PENDING // 2]
    assert shown[3:] == ["(3 lines are not shown here; `evflow logs` has them)"]


class ClosedPipe(Terminal):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_went_away_stops_nobody() -> None:
    screen = Screen(ClosedPipe(), live=False, colored=False)
    screen.write("one")
    screen.close()
    screen = Screen(ClosedPipe(), live=True, colored=False)
    screen.show(picture_of(spread()))
    screen.close()


def test_lines_come_before_the_panel_and_the_panel_is_erased_before_the_next() -> None:
    painter = Painter(Terminal(), colored=False, size=(80, 24))
    picture = picture_of(spread())
    first = painter.frame("one\n", picture)
    rows = first.count("\n") - 1
    assert first.index("one\n") < first.index("TrainFlow/3")
    second = painter.frame("two\n", picture)
    assert second.startswith(f"\x1b[?2026h\x1b[{rows}A\r\x1b[Jtwo\n")


def test_a_panel_that_a_narrower_terminal_has_wrapped_is_erased_whole() -> None:
    painter = Painter(Terminal(), colored=False, size=(80, 24))
    rows = painter.frame("", picture_of(spread())).count("\n")
    painter._size = (40, 24)
    # The rule (79 cells) and the longest lines are two rows now.
    erased = int(painter.frame("", None).partition("\x1b[?2026h\x1b[")[2].partition("A")[0])
    assert erased > rows


def test_the_last_frame_takes_the_panel_away() -> None:
    painter = Painter(Terminal(), colored=False, size=(80, 24))
    painter.frame("", picture_of(spread()))
    assert "TrainFlow" not in painter.frame("last line\n", None, clear=True)
