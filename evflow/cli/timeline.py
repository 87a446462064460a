"""A run as a story: what happened, when and why, with waits, retries and durations. One line for what people care about.

+0.000  run      started by ada on box with --n_folds 24
+0.012  start/1  started after 12 ms (1 of 16 slots), pid 4001
+1.212  start/1  succeeded in 1.2 s, on to 24 tasks of train
"""

import shlex
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from evflow.cli.output import count, duration, iso
from evflow.cli.picture import why
from evflow.cli.steered import asked_of_run, asked_of_task
from evflow.core import events as ev
from evflow.core.apply import apply
from evflow.core.codec import Record, decode
from evflow.core.control import refusal
from evflow.core.gangs import FAILED
from evflow.core.reasons import next_attempt, said
from evflow.core.state import RunState, Task
from evflow.log.protocol import StoredEvent

_COLORS = {"good": "green", "bad": "red", "odd": "yellow", "": None}


class Told(NamedTuple):
    """Something that happened.

    Attributes:
        seq: The event.
        at_us: Its instant.
        since_us: How long after the run's start.
        about: `run`, or the task: `train/7`.
        text: What happened, a sentence without its subject.
        mood: `good`, `bad`, `odd` or nothing special.
    """

    seq: int
    at_us: int
    since_us: int
    about: str
    text: str
    mood: str = ""

    def line(self, width: int = 16) -> str:
        """For people."""
        at = f"+{self.since_us / 1e6:.3f}".rjust(9)
        return f"{click.style(at, dim=True)}  {click.style(self.about.ljust(width), bold=self.about == 'run')}  {click.style(self.text, fg=_COLORS[self.mood])}"


def plain(told: Told) -> dict[str, Any]:
    """For JSON."""
    return {"seq": told.seq, "at": iso(told.at_us), "since_s": told.since_us / 1e6, "about": told.about, "what": told.text}


def told(events: Iterable[StoredEvent]) -> Iterator[Told]:
    """The story of a log."""
    state = RunState()
    for stored in events:
        record = decode(stored.seq, stored.payload)
        late, why_not = state.late, refusal(state, record.event)
        apply(state, record)
        found = (
            _about_late(record, state)
            if state.late > late
            else _about_run(record, state) or _about_request(record, state, why_not) or _about_task(record, state)
        )
        if found is not None:
            about, text, mood = found
            yield Told(record.seq, record.at_us, record.at_us - state.started_us, about, text, mood)


def _about_late(record: Record, state: RunState) -> tuple[str, str, str] | None:
    """A report that was accepted when its attempt had been given up: it must not read as if it had counted."""
    if isinstance(record.event, ev.AttemptStarted):
        return None
    report: Any = record.event
    number, attempt = int(report.task), int(report.attempt)
    what = {"AttemptSucceeded": "success", "AttemptFailed": "failure"}.get(type(record.event).__name__, "end")
    return f"{state.tasks[number].step}/{number}", f"the {what} of attempt {attempt} came too late to count: it had been given up", "odd"


def _about_run(record: Record, state: RunState) -> tuple[str, str, str] | None:
    match record.event:
        case ev.RunStarted() as event:
            given = " ".join(f"--{name} {shlex.quote(text)}" for name, text in event.parameters_shown.items())
            origin = f", resuming {event.origin}" if event.origin else ""
            text = f"started by {event.user}{f' on {event.host}' if event.host else ''}{origin}{f' with {given}' if given else ''}"
            return "run", text, ""
        case ev.RunContinued() as event:
            return "run", f"continued on {event.host}: the process before had died", "odd"
        case ev.EnvironmentResolved() as event:
            how = {"known": "as it was resolved before", "origin": "as in the run that is resumed"}.get(
                event.how, f"in {duration(event.took_us)}"
            )
            return "run", f"{_of_steps(event.steps)} {count(event.packages, 'package')} on Python {event.python}, {how}: {event.asked}", ""
        case ev.EnvironmentReplaced() as event:
            return "run", f"{_of_steps(event.steps)} the environment of the run instead of {event.asked}: {said(event.reason)}", "odd"
        case ev.LogRegressed() as event:
            return "run", f"the log's server had lost events {event.from_seq} to {event.to_seq}; they were written again", "odd"
        case ev.RunCancelRequested() as event:
            return "run", f"{record.principal} asked for its end: {event.reason}{' (forced)' if event.forced else ''}", "odd"
        case ev.RunOverdue() as event:
            return "run", f"its {duration(event.limit_us)} are over: it fails", "bad"
        case ev.RunSucceeded():
            return "run", f"succeeded after {duration(state.finished_us - state.started_us)}", "good"
        case ev.RunFailed() as event:
            return "run", f"failed after {duration(state.finished_us - state.started_us)}: {said(event.reason)}{_undone(state)}", "bad"
        case ev.RunCancelled() as event:
            return "run", f"cancelled after {duration(state.finished_us - state.started_us)}: {event.reason}{_undone(state)}", "bad"
        case ev.ExitHookStarted() as event:
            again = f", for the {event.attempt + 1}. time" if event.attempt else ""
            return "run", f"its exit hooks begin: {', '.join(event.functions)}{again}", ""
        case ev.ExitHookEnded() as event:
            return "run", _hooks_end(event), "good" if event.exit_code == 0 else "odd"
        case ev.RunSealed() as event:
            late = f"; {count(event.late_reports, 'report')} came too late to count" if event.late_reports else ""
            return "run", f"sealed with {count(record.seq, 'event')}{late}", ""
        case ev.Unknown() as event:
            return "run", f"{event.tag}: an event of a later version, without effect here", "odd"
        case _:
            return None


def _hooks_end(event: ev.ExitHookEnded) -> str:
    if event.exit_code == 0:
        return "its exit hooks are done"
    if event.why == "given-up":
        return f"its exit hooks are given up: whoever ran them died, {count(event.attempt + 1, 'time')}"
    how = f"signal {event.signal}" if event.signal else f"exit code {event.exit_code}" if event.exit_code is not None else event.why
    return f"an exit hook failed ({how}); what the run came to stays"


def _about_request(record: Record, state: RunState, why_not: str) -> tuple[str, str, str] | None:
    of_run = asked_of_run(record, state, why_not)
    if of_run is not None:
        return "run", *of_run
    of_task = asked_of_task(record, state, why_not)
    event: Any = record.event
    if of_task is None:
        return None
    task = state.tasks[int(event.task)]
    return f"{task.step}/{task.id}", *of_task


def _about_task(record: Record, state: RunState) -> tuple[str, str, str] | None:
    event = record.event
    number = getattr(event, "task", 0)
    task = state.task(number) if number else None
    if task is None:
        return None
    found = _of_task(event, record, state, task)
    return (f"{task.step}/{task.id}", *found) if found else None


def _of_task(event: ev.Event, record: Record, state: RunState, task: Task) -> tuple[str, str] | None:
    attempt = task.attempt if task.attempts else None
    match event:
        case ev.AttemptStarted() if attempt is not None:
            waited = attempt.launched_us - attempt.queued_us
            again = f" again (attempt {event.attempt})" if event.attempt else ""
            slot = f" after {duration(waited)} in the queue ({attempt.wait})" if waited > 0 else ""
            return f"started{again}{slot} on {event.host}, pid {event.pid}", ""
        case ev.AttemptSucceeded():
            took = f" in {duration(event.ended_us - event.started_us)}" if event.started_us else ""
            onward = _onward(event)
            if len(event.cache) > 1 and event.cache[1]:
                return f"cached from {event.cache[1]}{took}{onward}", "good"
            if event.caught:
                return f"failed{took}, and @catch took it: {event.caught.partition(chr(10))[0].rstrip('.')}{onward}", "odd"
            return f"succeeded{took}{onward}", "good"
        case ev.TaskReused():
            return f"taken over from {event.origin_task}", "good"
        case ev.AttemptFailed() if attempt is not None:
            took = f" in {duration(event.ended_us - event.started_us)}" if event.started_us else ""
            return f"failed{took}: {why(attempt)}{f' ({event.where})' if event.where else ''}", "bad"
        case ev.EnvironmentReady():
            how = "was built in" if event.how == "built" else "was there after"
            return f"its environment {how} {duration(event.took_us)} on {event.host} ({event.name[:12]}, Python {event.python})", ""
        case ev.AttemptLost() | ev.AttemptCrashed():
            kind = "was lost" if isinstance(event, ev.AttemptLost) else "crashed"
            return f"{kind}: {said(event.reason)}", "bad"
        case ev.AttemptTimedOut():
            return f"was killed: it did not end within {event.limit_us / 1e6:g} s", "bad"
        case ev.AttemptCancelRequested():
            return f"was asked to end: {said(event.reason)}", "odd"
        case ev.AttemptCancelled():
            return f"was ended: {said(event.reason)}" if event.reason.startswith(FAILED) else "was cancelled", "odd"
        case ev.RetryScheduled():
            wait = event.at_us - record.at_us
            which = next_attempt(task, state.graph[task.step].policy, event.attempt, counted=event.counted)
            whole = f"with its gang of {event.count} nodes " if event.count > 1 else ""
            return f"{whole}will be tried again {f'in {duration(wait)}' if wait > 0 else 'at once'}: {which}", "odd"
        case ev.TaskFailed():
            if state.cancelling is not None or (state.failing is not None and state.failing.task != task.id):
                return "is not tried again: the run is ending", "bad"
            return "failed for good: no attempt is left", "bad"
        case _:
            return None


def _of_steps(steps: tuple[str, ...]) -> str:
    return f"{', '.join(steps[:5])}{f' and {len(steps) - 5} more steps' if len(steps) > 5 else ''} {'has' if len(steps) == 1 else 'have'}"


def _undone(state: RunState) -> str:
    """What never came to its turn."""
    waiting = len(state.waiting) + sum(task.status == "retrying" for task in state.all_tasks())
    return f" ({count(waiting, 'task')} still waited)" if waiting else ""


def _onward(event: ev.AttemptSucceeded) -> str:
    if not event.next_steps:
        return ""
    if event.next_kind == "foreach":
        return f", on to {count(event.splits, 'task')} of {event.next_steps[0]}"
    if event.next_kind == "parallel":
        return f", on to a gang of {count(event.splits, 'node')} of {event.next_steps[0]}"
    return f", on to {' and '.join(event.next_steps)}"
