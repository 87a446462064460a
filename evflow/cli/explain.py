"""`evflow explain`: what a run or a task waits for, from the state alone."""

from collections.abc import Iterator

import click

from evflow import clock
from evflow.cli import session
from evflow.cli.naming import parse, pathspec, resolve, tasks_of
from evflow.cli.output import count, duration, instant, write_json
from evflow.cli.picture import why
from evflow.core.state import RunState, Split, Task

MOST_TASKS = 20
"""How many tasks are explained one by one; the rest is counted."""


@click.command("explain", help="Say what a run, a step's tasks or a task waits for, and why it is where it is.")
@click.argument("what")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(what: str, as_json: bool) -> None:
    """Say it."""
    reference = parse(what)
    with session.log() as log:
        found, state = session.folded(log, resolve(log, reference))
        owned = log.owner(found.entry.shard) is not None
        now = clock.now_us()
    tasks = tasks_of(state, reference)
    lines = list(of_tasks(state, tasks, now) if reference.step or reference.task is not None else of_run(state, now, owned=owned))
    if as_json:
        write_json({"of": what, "explanation": lines})
        return
    for line in lines:
        click.echo(line)


def of_run(state: RunState, now_us: int, *, owned: bool = True) -> Iterator[str]:
    """Why the run is where it is.

    Args:
        state: The run.
        now_us: The present instant.
        owned: Some process runs it at present.
    """
    run = f"{state.flow}/{state.number}"
    if state.over:
        reason = f": {state.outcome.reason}" if state.outcome else "."
        yield f"{run} {state.status} at {instant(state.finished_us)[:19]}{reason}"
        return
    if not owned:
        yield f"{run} waits for somebody to run it: its process died. `evflow continue {run}` goes on with it."
    if state.cancelling is not None:
        yield f"{run} is being cancelled ({state.cancelling}); it waits for {count(len(state.live), 'running task')} to end."
    elif state.failing is not None:
        yield f"{run} is failing; it waits for {count(len(state.live), 'running task')} to end. {state.failing.reason}"
    open_tasks = [task for task in state.all_tasks() if task.status not in ("succeeded", "failed", "cancelled")]
    yield from of_tasks(state, open_tasks[:MOST_TASKS], now_us)
    if len(open_tasks) > MOST_TASKS:
        yield f"… and {count(len(open_tasks) - MOST_TASKS, 'more open task')}."
    for split in state.splits.values():
        if split.count < split.size and not state.stopping:
            yield of_split(state, split)


def of_tasks(state: RunState, tasks: list[Task], now_us: int) -> Iterator[str]:
    """A sentence for each task."""
    for task in tasks:
        yield f"{pathspec(state, task)} {of_task(state, task, now_us)}"


def of_task(state: RunState, task: Task, now_us: int) -> str:
    """Why the task is where it is: a sentence without its subject."""
    match task.status:
        case "queued":
            return _queued(state, task)
        case "created" | "granted" | "launched":
            since = task.attempt.launched_us or task.attempt.queued_us if task.attempts else task.created_us
            return f"is about to start ({task.status} {duration(now_us - since)} ago)."
        case "running" | "ended":
            return _running(state, task, now_us)
        case "retrying":
            left = task.retry_at_us - now_us
            when = f"in {duration(left)}" if left > 0 else "now"
            return f"waits for its retry: attempt {task.attempt.number + 1} begins {when}, because attempt {task.attempt.number} ended with {why(task.attempt)}."
        case "succeeded":
            return _succeeded(state, task)
        case "failed":
            return f"failed: {task.reason or why(task.attempt)}"
        case "cancelled":
            return "was cancelled."


def _queued(state: RunState, task: Task) -> str:
    ahead = 0
    for number in state.waiting:
        if number == task.id:
            break
        ahead += 1
    slots = state.options.get("max_workers")
    busy = f"{len(state.live)} of {slots} slots are taken" if slots else f"{count(len(state.live), 'task')} run"
    policy = state.graph[task.step].policy
    wants = [
        f"{number:g} {unit}" for number, unit in ((policy.cpu, "cpu"), (policy.memory_mb, "MB of memory"), (policy.gpu, "gpu")) if number
    ]
    asks = f" It asks for {', '.join(wants)}." if wants else ""
    before = f"{count(ahead, 'task')} ahead of it" if ahead else "it is the next"
    return f"waits for a slot of '{task.attempt.executor}': {busy}, {before}.{asks}"


def _running(state: RunState, task: Task, now_us: int) -> str:
    attempt = task.attempt
    since = duration(now_us - attempt.started_us) if attempt.started_us else "just now"
    limit = state.graph[task.step].policy.timeout_us
    until = f"; @timeout ends it after {duration(limit)}" if limit else ""
    asked = f" It was asked to end: {attempt.cancel}." if attempt.cancel else ""
    return f"has been running for {since} on {attempt.host or 'this machine'} (pid {attempt.pid}){until}.{asked}"


def _succeeded(state: RunState, task: Task) -> str:
    said = f"succeeded at {instant(task.ended_us)[:19]}"
    if task.caught:
        said += f" (@catch took {task.caught})"
    targets = [step for step in task.next_steps if step in state.graph and state.graph[step].takes_inputs]
    if targets and task.frame is not None and task.frame.split.count < task.frame.split.size:
        return f"{said}. {of_split(state, task.frame.split)}"
    return f"{said} and went on to {', '.join(task.next_steps)}." if task.next_steps else f"{said}."


def of_split(state: RunState, split: Split) -> str:
    """What a split's join still waits for."""
    missing = [index for index, arrived in enumerate(split.arrived) if not arrived]
    shown = ", ".join(str(index) for index in missing[:5]) + (", …" if len(missing) > 5 else "")
    join = f"The join '{split.join}'" if split.join else "The join"
    return (
        f"{join} of the split at {split.step}/{split.task} in {state.flow}/{state.number} waits for "
        f"{len(missing):,} of {count(split.size, 'member')} (index {shown})."
    )
