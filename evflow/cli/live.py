"""How a run is shown while it goes on: a live picture in a terminal, lines everywhere else.

Both views follow the run's events and its tasks' output and hand everything to a `Screen`, which writes from a thread of its
own: nothing here waits for a terminal, or fails because it was closed. Tasks' lines go to stdout, what evflow has to say goes
to stderr.

In a terminal a line is `18:04:05 train/7 │ text` and a panel stands below (`evflow.cli.panel`); elsewhere it is
`2026-11-23 18:04:05.123 [3/train/7 (pid 812)] text`, and starts and ends of tasks are lines too.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import click

from evflow import clock
from evflow.cli.output import count, duration, instant, who
from evflow.cli.picture import Photographer, Picture
from evflow.cli.render import use_color
from evflow.cli.screen import Screen, is_terminal
from evflow.cli.steered import steered
from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.gangs import FAILED
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.reasons import next_attempt, said
from evflow.core.state import RunState
from evflow.flow.dialect import OPTION
from evflow.flow.invocation import program
from evflow_executors.protocol import OutputLine
from evflow_scheduler.request import RunView

PANEL_AFTER_US = 400_000
"""A run that is over before that needs no panel, and does not pay for one."""
PICTURE_EVERY_US = 100_000

_STEP_COLORS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
"""What moves the cursor or rings the bell; colors (`…m`) stay."""


def make_view(
    *, quiet: bool = False, continued: bool = False, followed: bool = False, out: TextIO | None = None, err: TextIO | None = None
) -> RunView:
    """The view that suits the terminal and the setting `view`.

    Args:
        quiet: Show only what tasks print, and errors.
        continued: The run has been going on before.
        followed: Somebody else runs it: what this process does not see of its end is no end.
        out: Where tasks' lines go; stdout if not given.
        err: Where evflow's own words go; stderr if not given.
    """
    from evflow import config, diagnostics

    out = out or cast("TextIO", sys.stdout)
    err = err or cast("TextIO", sys.stderr)
    wanted = config.get("view")
    if wanted == "live" or (wanted == "auto" and is_terminal(out)):
        live = LiveView(out, err, quiet=quiet, continued=continued, followed=followed, colored=use_color(out))
        diagnostics.prepare(live.say)
        return live
    diagnostics.prepare()
    return PlainView(out, err, quiet=quiet, continued=continued, followed=followed, colored=use_color(err))


class _View:
    """What both views share: following the run, and the words at its end."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        quiet: bool = False,
        continued: bool = False,
        followed: bool = False,
        colored: bool = False,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._quiet = quiet
        self._begun = "is asked for" if followed else "goes on" if continued else "has started"
        self._followed = followed
        self._colored = colored
        self._now_us = now_us
        self._run: RunId | None = None
        self._state: RunState | None = None
        self._photographer = Photographer()
        # Processes of attempts by what they printed or reported, which may be known before their start stands in the log.
        self._pids: dict[AttemptId, int] = {}
        self._screen = self._make_screen(out)
        # Two streams on one terminal or one file (`2>&1`): one writer, so that everything stands in its order, and above the panel.
        self._words = self._screen if _are_one(out, err) else Screen(err, live=False, colored=False)

    def _make_screen(self, out: TextIO) -> Screen:
        raise NotImplementedError

    def on_start(self, run: RunId) -> None:
        """The run has its number."""
        self._run = run
        if not self._quiet:
            self.say(f"Run {self._style(str(run), bold=True)} {self._begun}.")

    def on_event(self, record: Record, state: RunState) -> None:
        """An event is durable, and folded into the state."""
        self._state = state
        self._photographer.see(record, state)
        event = record.event
        told = steered(record, state)
        if told:
            self.on_notice(told)
        if not isinstance(event, ev.AttemptStarted | ev.AttemptSucceeded | ev.AttemptFailed | ev.AttemptExited):
            self._event(record, state)
            return
        name = AttemptId(self._name(state), TaskId(event.task), event.attempt)
        if not self._pid(name):
            self._pids[name] = _pid_of(record.principal)
        self._event(record, state)

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line; it is shown at once."""
        if line.pid:
            self._pids.setdefault(line.attempt, line.pid)
        self._output(line)

    def on_notice(self, text: str) -> None:
        """Something that the user should know."""
        self.say(f"{self._style('Note:', fg='yellow')} {text}")

    def tick(self) -> None:
        """Nothing changes with time alone, here."""

    def close(self) -> None:
        """Write what is left, then the summary."""
        if self._words is not self._screen:
            self._screen.close()  # what tasks printed stands before the summary
        if self._state is not None and self._run is not None:
            if self._screen.refused:
                self.on_notice(f"What tasks print could not be written: {self._screen.refused}. `evflow logs {self._run}` has it.")
            picture = self._photographer.take(self._state, self._now_us())
            for text in self._summary(picture) if self._state.over or not self._followed else ():
                self.say(text)
        self._words.close()

    def _event(self, record: Record, state: RunState) -> None:
        raise NotImplementedError

    def _output(self, line: OutputLine) -> None:
        raise NotImplementedError

    def _name(self, state: RunState) -> RunId:
        return self._run or RunId(FlowName(state.flow), RunNumber(state.number))

    def say(self, text: str) -> None:
        """Write a line of evflow's own words."""
        self._words.write(text)

    def _style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colored else text

    def _step(self, task: int) -> str:
        found = self._state.task(task) if self._state is not None else None
        return found.step if found is not None else "?" if task else "exit_hook"

    def _pid(self, name: AttemptId) -> int:
        """The process of an attempt, 0 while it is not known."""
        task = self._state.task(name.task) if self._state is not None else None
        attempts = task.attempts if task is not None else ()
        known = next((attempt.pid for attempt in reversed(attempts) if attempt.number == name.attempt), 0)
        return known or self._pids.get(name, 0)

    def _summary(self, picture: Picture) -> list[str]:
        if self._quiet and picture.status == "succeeded":
            return []
        seen = self._photographer
        return summary(picture, retried=seen.retried, reused=seen.reused, cached=seen.cached, style=self._style)


class PlainView(_View):
    """Lines for pipes, files and CI.

    An attempt's start is told with its first sign of life: its first line, the event, or its report, whichever comes first. (Nothing
    follows from a start, so the log has it some milliseconds later.)
    """

    def __init__(self, out: TextIO, err: TextIO, **options: Any) -> None:
        super().__init__(out, err, **options)
        self._begun_attempts: set[AttemptId] = set()

    def _make_screen(self, out: TextIO) -> Screen:
        return Screen(out, live=False, colored=False)

    def _output(self, line: OutputLine) -> None:
        self._start(line.attempt, line.at_us)
        self._line(line.at_us, line.attempt, line.text)

    def _event(self, record: Record, state: RunState) -> None:
        told = lifecycle(record, state)
        if told is None:
            return
        task, attempt, text = told
        name = AttemptId(self._name(state), TaskId(task), attempt)
        began_us = getattr(record.event, "started_us", 0)
        if began_us:
            self._start(name, began_us)
        if not isinstance(record.event, ev.AttemptStarted):
            self._begun_attempts.add(name)
            if not self._quiet:
                self._line(record.at_us, name, text)

    def _start(self, name: AttemptId, at_us: int) -> None:
        if name not in self._begun_attempts:
            self._begun_attempts.add(name)
            if not self._quiet and name.task:  # exit hooks are no task
                self._line(at_us, name, started(name.attempt))

    def _line(self, at_us: int, name: AttemptId, text: str) -> None:
        pid = self._pid(name)
        process = f" (pid {pid})" if pid else ""
        self._screen.write(f"{instant(at_us)} [{name.run.number}/{self._step(name.task)}/{name.task}{process}] {text}")


class LiveView(_View):
    """Lines above a panel, in a terminal."""

    def __init__(self, out: TextIO, err: TextIO, **options: Any) -> None:
        super().__init__(out, err, **options)
        self._since_us = self._now_us()
        self._pictured_us = 0
        unicode = (getattr(out, "encoding", None) or "").lower().startswith("utf")
        self._separator = "│" if unicode else "|"

    def _make_screen(self, out: TextIO) -> Screen:
        return Screen(out, live=not self._quiet, colored=self._colored)

    def _output(self, line: OutputLine) -> None:
        self._line(line.at_us, line.attempt.task, line.text, wrong=line.stream == "stderr")

    def tick(self) -> None:
        """Show a new picture, if it is time for one."""
        now = self._now_us()
        if self._state is None or now - self._pictured_us < PICTURE_EVERY_US or now - self._since_us < PANEL_AFTER_US:
            return
        self._pictured_us = now
        self._screen.show(self._photographer.take(self._state, now))

    def _event(self, record: Record, state: RunState) -> None:
        if self._quiet or not isinstance(record.event, ev.AttemptFailed | ev.AttemptLost | ev.AttemptCrashed | ev.AttemptTimedOut):
            return
        told = lifecycle(record, state)
        if told is not None:
            self._line(record.at_us, told[0], self._style(told[2], fg="red"))

    def _line(self, at_us: int, task: int, text: str, *, wrong: bool = False) -> None:
        step = self._step(task)
        shown = _CONTROL.sub("", text.rstrip("\r").rpartition("\r")[2]).expandtabs()
        color = _STEP_COLORS[self._place(step) % len(_STEP_COLORS)]
        at = self._style(instant(at_us)[11:19], dim=True)
        separator = self._style(self._separator, fg="red") if wrong else self._style(self._separator, dim=True)
        reset = "\x1b[0m" if "\x1b" in shown else ""
        self._screen.write(f"{at} {self._style(f'{step}/{task}', fg=color)} {separator} {shown}{reset}")

    def _place(self, step: str) -> int:
        if self._state is None:
            return 0
        return next((index for index, name in enumerate(self._state.graph.nodes) if name == step), 0)


def _are_one(out: TextIO, err: TextIO) -> bool:
    """Whether what is written to both appears in one place."""
    if out.isatty() and err.isatty():
        return True
    try:
        return os.path.sameopenfile(out.fileno(), err.fileno())
    except (OSError, ValueError):  # not a file, or a closed one
        return False


def _pid_of(principal: str) -> int:
    """The process of `worker:<host>:<pid>`, 0 of anybody else."""
    kind, _, rest = principal.partition(":")
    pid = rest.rpartition(":")[2]
    return int(pid) if kind == "worker" and pid.isdecimal() else 0


def lifecycle(record: Record, state: RunState) -> tuple[int, int, str] | None:
    """What an event says of an attempt: task, attempt and a sentence; None for events that people need not read."""
    text = _sentence(record, state)
    if text is None:
        return None
    event: Any = record.event
    # A retry is said of the attempt that ended.
    return event.task, getattr(event, "attempt", 0) - isinstance(event, ev.RetryScheduled), text


def _sentence(record: Record, state: RunState) -> str | None:
    match record.event:
        case ev.AttemptStarted() as event:
            return started(event.attempt)
        case ev.AttemptSucceeded() as event:
            took = f" in {duration(event.ended_us - event.started_us)}" if event.started_us else ""
            if from_cache(event):
                return f"Task is cached from {from_cache(event)}{took}."
            return f"Task failed{took}, and @catch took it: {event.caught}" if event.caught else f"Task has finished{took}."
        case ev.AttemptFailed() as event:
            first = event.message.partition("\n")[0]
            text = ": ".join(part for part in (event.error.removeprefix("builtins."), first) if part)
            return f"Task failed: {text}{f' ({event.where})' if event.where else ''}"
        case ev.AttemptCrashed() as event:
            return f"Task failed: {event.reason}"
        case ev.AttemptLost() as event:
            return f"Task was lost: {said(event.reason)}"
        case ev.AttemptTimedOut() as event:
            return f"Task failed: it was killed, no end within {event.limit_us / 1e6:g} s."
        case ev.RetryScheduled() as event:
            wait = event.at_us - record.at_us
            whole = f"Its gang of {event.count} nodes" if event.count > 1 else "Task"
            return f"{whole} will be tried again{f' in {duration(wait)}' if wait > 0 else ' now'} ({_which(state, event)})."
        case ev.AttemptCancelled() as event:
            return f"Task was ended: {said(event.reason)}." if event.reason.startswith(FAILED) else "Task was cancelled."
        case ev.TaskHeld():
            return "Task failed for good; the run waits with it."
        case ev.TaskSkipped():
            return f"Task is skipped by {who(state.tasks[record.event.task].settled_by)}."
        case ev.TaskReused() as event:
            return f"Task is taken over from {event.origin_task}."
        case _:
            return None


def from_cache(event: ev.AttemptSucceeded) -> str:
    """The task whose result `@cached` took; empty where the step was run."""
    return str(event.cache[1]) if len(event.cache) > 1 else ""


def started(attempt: int) -> str:
    """What is said of an attempt that begins."""
    return f"Task has started{f' again (attempt {attempt})' if attempt else ''}."


def _which(state: RunState, event: ev.RetryScheduled) -> str:
    task = state.tasks[event.task]
    return next_attempt(task, state.graph[task.step].policy, event.attempt, counted=event.counted)


_COLORS = {"succeeded": "green", "failed": "red"}


def summary(picture: Picture, *, retried: int = 0, reused: int = 0, cached: int = 0, style: Callable[..., str] = click.style) -> list[str]:
    """The last words of a run: how it ended, why, and what to type next."""
    color = _COLORS.get(picture.status, "yellow")
    done, failed = picture.count("done"), picture.count("failed")
    parts = [count(done, "task")] if not failed else [f"{count(done, 'task')} finished", f"{failed:,} failed"]
    skipped = picture.count("skipped")
    if skipped:
        parts.append(f"{skipped:,} of them skipped")
    if reused:
        parts.append(f"{reused:,} of them taken over")
    if cached:
        parts.append(f"{cached:,} of them cached")
    if retried:
        parts.append("1 retry" if retried == 1 else f"{retried:,} retries")
    head = f"Run {style(picture.run, bold=True)} {style(picture.status, fg=color, bold=True)}"
    lines = [f"{head} after {duration(picture.elapsed_us)}: {', '.join(parts)}."]
    if picture.status == "failed":
        lines.extend(f"  {style(f'{row.step}/{row.task}', bold=True)}  {row.reason}{_in_brackets(row.where)}" for row in picture.failures)
        if not picture.failures:
            lines.append(f"  {picture.reason}")
    return lines + [f"  {style(label.ljust(17), dim=True)}{style(command, fg='cyan')}" for label, command in _next(picture)]


def _in_brackets(text: str) -> str:
    return f"  ({text})" if text else ""


def _next(picture: Picture) -> list[tuple[str, str]]:
    number = picture.run.rpartition("/")[2]
    story = ("What happened", f"evflow replay {picture.run}")
    if picture.status == "succeeded":
        return [("The results", f"evflow show {picture.run}"), story, ("In Python", f"evflow.Run('{picture.run}').data")]
    if picture.status not in ("failed", "cancelled"):  # this process has to give it up
        return [story, ("Go on from here", f"evflow continue {picture.run}")]
    failed = picture.failures[0] if picture.failures else None
    task = f"{picture.run}/{failed.step}/{failed.task}" if failed else picture.run
    return [
        ("What it printed", f"evflow logs {task}"),
        story,
        ("Go on from here", f"{program(picture.file, {OPTION: picture.dialect})} resume --origin-run-id {number}"),
    ]
