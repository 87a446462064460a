"""What is said of requests to a run, and of what failed and is waited with, while it goes on and in its story."""

from evflow.cli.output import count, who
from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.reasons import said
from evflow.core.state import RunState


def steered(record: Record, state: RunState) -> str:
    """A sentence for a run's view on an event that makes it wait or go on; empty for every other event.

    Args:
        record: The event.
        state: The state behind it, or a little later.
    """
    run = f"{state.flow}/{state.number}"
    match record.event:
        case ev.RunPauseRequested(reason) if state.pause is not None and state.pause.since_us == record.at_us:
            why = f" ({reason})" if reason else ""
            return f"{who(record.principal)} paused the run{why}: nothing more of it starts. `evflow resume-run {run}` ends the pause."
        case ev.RunResumeRequested() if state.pause is None:
            return f"{who(record.principal)} ended the pause."
        case ev.RunPaused(reason, number, held):
            task = f"{run}/{state.tasks[number].step}/{number}"
            what = run if held > 1 else task
            return (
                f"The run waits: {said(reason)} `evflow retry {what}` tries {'them' if held > 1 else 'it'} again, "
                f"`evflow skip {task}` goes on without it, Ctrl-C or `evflow cancel {run}` ends the run."
            )
        case ev.TaskRetryRequested(number) if state.tasks[number].renewed:
            return f"{who(record.principal)} wants {state.tasks[number].step}/{number} to be tried again."
        case _:
            return ""


def asked_of_run(record: Record, state: RunState, why_not: str) -> tuple[str, str] | None:
    """What a run's story says of a request to the run, and of its waiting: the text, and its mood.

    Args:
        record: The event.
        state: The state behind it.
        why_not: Why the request had no effect.
    """
    by = who(record.principal)
    without = f", without effect: {why_not}" if why_not else ""
    match record.event:
        case ev.RunPauseRequested(reason):
            return f"{by} paused it{f': {reason}' if reason else ''}{without}", "odd"
        case ev.RunResumeRequested(reason):
            return f"{by} ended the pause{f': {reason}' if reason else ''}{without}", "odd"
        case ev.RunPriorityRequested(priority):
            return f"{by} gave it the priority {priority}{without}", "odd"
        case ev.RunPaused(_, number, held):
            return (
                f"waits for somebody: {count(held, 'task')} failed ({state.tasks[number].step}/{number}{', …' if held > 1 else ''})",
                "odd",
            )
        case _:
            return None


def asked_of_task(record: Record, state: RunState, why_not: str) -> tuple[str, str] | None:
    """The same of a request for a task, and of its being held or skipped."""
    by = who(record.principal)
    without = f", without effect: {why_not}" if why_not else ""
    match record.event:
        case ev.TaskHeld():
            return "failed for good: the run waits with it", "bad"
        case ev.TaskRetryRequested(_, reason):
            return f"{by} wants it tried again{f' ({reason})' if reason else ''}{without}", "odd"
        case ev.TaskSkipRequested(_, step, reason):
            return f"{by} wants it skipped{f', on to {step}' if step else ''}{f' ({reason})' if reason else ''}{without}", "odd"
        case ev.TaskSkipped(_, _, _, steps):
            return f"was skipped{', on to ' if steps else ''}{' and '.join(steps)}", "odd"
        case _:
            return None
