"""`evflow show`: a run, a step or a task, from the run's own log."""

from collections.abc import Iterator
from typing import Any

import click

from evflow import clock
from evflow.cli import explain_said, session
from evflow.cli.complete import of_what
from evflow.cli.naming import Reference, meant, pathspec, tasks_of
from evflow.cli.output import count, duration, instant, iso, size, table, who, write_json
from evflow.cli.picture import why
from evflow.cli.rerun import Why, reasons
from evflow.cli.runs import plain, styled_status
from evflow.core.deployments import SCHEDULE
from evflow.core.explain_said import WaitsForPlatform
from evflow.core.ids import RunId
from evflow.core.reasons import said
from evflow.core.state import Attempt, Pause, RunState, Task
from evflow.core.tags import is_of_scheduler
from evflow.core.values import value
from evflow.log.owners import is_owned
from evflow.log.protocol import LogClient
from evflow.replay.load import RunGone, RunWaits

FEW_TASKS = 20
"""A run of so few tasks is shown with all of them."""


@value
class Shown:
    """What is asked for, and what is known of it.

    Attributes:
        state: The run.
        reference: Whether all of it is meant, a step or a task.
        tasks: The tasks that are meant.
        tags: The run's tags by users, as they are now.
        anew: Why tasks of a run that resumes another were run.
        heard: What the run's owner says that it waits for.
        interrupted: Nobody carries the run out, and its log is open.
    """

    state: RunState
    reference: Reference
    tasks: list[Task]
    tags: list[str]
    anew: Why
    heard: explain_said.Waits
    interrupted: bool


@click.command("show", help="Show a run (TrainFlow/3), a step of it (…/train) or a task (…/train/7).")
@click.argument("what", shell_complete=of_what())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(what: str, as_json: bool) -> None:
    """Show it."""
    show(what, as_json=as_json)


def show(what: str, *, as_json: bool, flow: type | None = None) -> None:
    """Print a run, a step or a task; `flow` is the one on whose own command line it is asked for."""
    with session.log() as log:
        reference, run = meant(log, what, flow)
        try:
            entry, state = session.folded(log, run)
        except (RunWaits, RunGone) as error:
            _requested(log, run, error, as_json=as_json)
            return
        interrupted = not state.sealed and not is_owned(log, entry.shard)
        heard = explain_said.waits(log, entry.shard, state)
        tags = log.tags(run)
        anew = reasons(log, state)
    shown_tags = list(state.header.get("tags", ()) if tags is None else tags)
    shown = Shown(state, reference, tasks_of(state, reference), shown_tags, anew, heard, interrupted=interrupted)
    if as_json:
        write_json(_plain(shown))
        return
    for line in _lines(shown):
        click.echo(line)


def _requested(log: LogClient, run: RunId, error: RunWaits | RunGone, *, as_json: bool) -> None:
    """A run that no scheduler has taken, or never takes: what its line in the index says."""
    entry = log.run(run)
    assert entry is not None  # whoever raised the error had it
    if as_json:
        write_json(plain(entry))
        return
    click.echo(f"{click.style(str(run), bold=True)}  {styled_status(str(entry.summary.get('status')))}")
    click.echo(f"{error.message} {error.hint}".strip())


def _tick(trigger: dict[str, Any] | None) -> str:
    """The tick that started a run, for people; nothing where none did."""
    if trigger is None or trigger.get("kind") != SCHEDULE:
        return ""
    late = ", caught up" if trigger.get("reason") == "caught-up" else ""
    return f"{trigger.get('cron')} ({trigger.get('timezone')}), the tick of {trigger.get('tick')}{late}"


def status_of(state: RunState, *, interrupted: bool) -> str:
    """The run's status for people: `interrupted` where nobody runs it any more."""
    return "interrupted" if interrupted and not state.over else state.phase


# --- JSON -------------------------------------------------------------------------------------------------


def _plain(shown: Shown) -> Any:
    tasks = [plain_task(shown.state, task, shown.anew) for task in shown.tasks]
    if shown.reference.task is not None:
        return tasks[0]
    if shown.reference.step:
        return tasks
    return {
        **plain_run(shown.state, shown.tags, interrupted=shown.interrupted),
        "waits_for_store": [
            {"executor": wait.executor, "tasks": wait.tasks, "why": wait.why, "since": iso(wait.since_us)} for wait in shown.heard.store
        ],
        "waits_for_platform": [_plain_unstarted(wait) for wait in shown.heard.platforms],
        "tasks": tasks,
    }


def _plain_unstarted(wait: WaitsForPlatform) -> dict[str, Any]:
    jobs = [{"task": job.task, "attempt": job.attempt, "why": job.why} for job in wait.jobs]
    return {"executor": wait.executor, "tasks": wait.tasks, "since": iso(wait.since_us), "jobs": jobs}


def _plain_pause(pause: Pause | None) -> dict[str, Any] | None:
    return None if pause is None else {"by": pause.by, "since": iso(pause.since_us), "reason": pause.reason}


def plain_run(state: RunState, tags: list[str], *, interrupted: bool = False) -> dict[str, Any]:
    """A run as JSON holds it, without its tasks."""
    header = state.header
    ending = state.outcome or state.failing
    return {
        "run": f"{state.flow}/{state.number}",
        "flow": state.flow,
        "number": state.number,
        "status": status_of(state, interrupted=interrupted),
        "sealed": state.sealed,
        "started_at": iso(state.started_us or None),
        "finished_at": iso(state.finished_us or None),
        "duration_s": (state.finished_us - state.started_us) / 1e6 if state.finished_us else None,
        "reason": ending.reason if ending else state.cancelling,
        "reason_code": ending.code if ending else None,
        "priority": state.priority,
        "paused": _plain_pause(state.pause),
        "waits_with": [f"{state.flow}/{state.number}/{state.tasks[number].step}/{number}" for number in state.held],
        "user": header.get("user"),
        "namespace": header.get("namespace"),
        "tags": tags,
        "system_tags": list(header.get("system_tags", ())),
        "host": header.get("host"),
        "origin": header.get("origin"),
        "trigger": header.get("trigger"),
        "parameters": header.get("parameters_shown", {}),
        "code": header.get("code", {}),
        "store": header.get("store"),
        "events": state.seq,
        "steps": {
            name: {"tasks": counts.created, "succeeded": counts.succeeded, "failed": counts.failed, "skipped": counts.skipped}
            for name, counts in state.steps.items()
        },
    }  # fmt: skip


def plain_task(state: RunState, task: Task, anew: Why = lambda _: None) -> dict[str, Any]:
    """A task as JSON holds it."""
    ran = anew(task)
    return {
        "task": pathspec(state, task),
        "id": task.id,
        "step": task.step,
        "status": task.status,
        "created_at": iso(task.created_us),
        "ended_at": iso(task.ended_us or None),
        "parent": task.parent or None,
        "index": task.frame.index if task.frame else None,
        "split_size": task.frame.split.size if task.frame else None,
        "next": list(task.next_steps),
        "artifacts": task.artifacts,
        "size_bytes": task.size_bytes,
        "manifest": task.manifest,
        "caught": task.caught,
        "reused": task.reused,
        "ran_anew": None if ran is None else {"code": ran[0].code, "because": ran[1]},
        "cached": plain_cache(task),
        "skipped_by": task.settled_by if task.status == "skipped" else None,
        "reason": task.reason or None,
        "attempts": [_plain_attempt(attempt) for attempt in task.attempts],
    }


def _plain_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome or None,
        "queued_at": iso(attempt.queued_us or None),
        "started_at": iso(attempt.started_us or None),
        "ended_at": iso(attempt.ended_us or None),
        "host": attempt.host or None,
        "pid": attempt.pid or None,
        "error": attempt.error or None,
        "message": attempt.message or None,
        "where": attempt.where or None,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
    }


# --- text -------------------------------------------------------------------------------------------------


def _lines(shown: Shown) -> Iterator[str]:
    state = shown.state
    if shown.reference.task is not None:
        yield from _task(state, shown.tasks[0], shown.anew)
        return
    if shown.reference.step:
        yield from task_lines(shown.tasks, shown.anew)
        return
    end_us = state.finished_us or (state.at_us if shown.interrupted else clock.now_us())
    yield from run_lines(state, shown.tags, end_us=end_us, interrupted=shown.interrupted, heard=shown.heard)
    yield ""
    if len(shown.tasks) <= FEW_TASKS:
        yield from task_lines(shown.tasks, shown.anew)
    else:
        yield from _steps(state)
    yield from _failures(state)
    yield from _next(state, interrupted=shown.interrupted)


def run_lines(
    state: RunState, tags: list[str], *, end_us: int, interrupted: bool = False, heard: explain_said.Waits = explain_said.NOTHING
) -> Iterator[str]:
    """A run in lines for people, without its tasks; it took until `end_us`."""
    header = state.header
    yield (
        f"{click.style(f'{state.flow}/{state.number}', bold=True)}  {styled_status(status_of(state, interrupted=interrupted))}"
        f"  {duration(end_us - state.started_us)}"
    )
    by = " on ".join(part for part in (header.get("user", ""), header.get("host", "")) if part)
    facts = [
        ("started", f"{instant(state.started_us)[:19]}{f'  by {by}' if by else ''}"),
        ("namespace", str(header.get("namespace", ""))),
        ("tags", ", ".join(tags)),
        ("resumed", str(header.get("origin") or "")),
        ("schedule", _tick(header.get("trigger"))),
        ("code", str(header.get("code", {}).get("file", ""))),
        *((f"--{name}", str(value) or "''") for name, value in header.get("parameters_shown", {}).items()),
    ]
    if state.priority:
        facts.append(("priority", f"{state.priority}"))
    if state.pause is not None and not state.over:
        why_so = f": {state.pause.reason}" if state.pause.reason else ""
        facts.append(("paused", f"by {who(state.pause.by)} at {instant(state.pause.since_us)[:19]}{why_so}"))
    if state.stuck is not None and not state.over:
        facts.append(("waits", f"since {instant(state.stuck.since_us)[:19]}: {said(state.stuck.reason)}"))
    facts += [("store", f"waited for {explain_said.shortly(wait)}") for wait in heard.store]
    facts += [(wait.executor, f"waited for {explain_said.unstarted(state, wait)}") for wait in heard.platforms]
    ending = state.outcome or state.failing
    if ending:
        facts.append(("because", said(ending.reason)))
    shown = [(name, text) for name, text in facts if text]
    width = max(len(name) for name, _ in shown)
    for name, text in shown:
        yield f"  {click.style(name.ljust(width), dim=True)}  {text}"


def _steps(state: RunState) -> Iterator[str]:
    by_step: dict[str, list[Task]] = {}
    for task in state.all_tasks():
        by_step.setdefault(task.step, []).append(task)
    any_skipped = any(counts.skipped for counts in state.steps.values())
    rows: list[list[str]] = []
    for name, tasks in by_step.items():
        counts = state.steps[name]
        times = sorted(attempt.ended_us - attempt.started_us for task in tasks for attempt in task.attempts if _ran(attempt))
        retries = sum(len(task.attempts) - 1 for task in tasks if len(task.attempts) > 1)
        rows.append([
            click.style(name, bold=True),
            f"{counts.created:,}",
            f"{counts.succeeded:,}",
            click.style(f"{counts.failed:,}", fg="red") if counts.failed else "",
            *([click.style(f"{counts.skipped:,}", fg="yellow") if counts.skipped else ""] if any_skipped else []),
            f"{retries:,}" if retries else "",
            duration(times[len(times) // 2]) if times else "",
            duration(times[-1]) if times else "",
        ])  # fmt: skip
    head = ["step", "tasks", "done", "failed", *(["skipped"] if any_skipped else []), "retries", "median", "longest"]
    yield from table(head, rows, right=head[1:])


def _ran(attempt: Attempt) -> bool:
    return bool(attempt.started_us and attempt.ended_us)


def task_lines(tasks: list[Task], anew: Why = lambda _: None) -> Iterator[str]:
    """A table of tasks."""
    rows: list[list[str]] = []
    for task in tasks:
        last = task.attempts[-1] if task.attempts else None
        rows.append([
            click.style(f"{task.step}/{task.id}", bold=True),
            task_status(task),
            instant(last.started_us)[11:19] if last and last.started_us else "",
            duration(last.ended_us - last.started_us) if last and _ran(last) else "",
            str(len(task.attempts)) if len(task.attempts) > 1 else "",
            f"{task.frame.index}" if task.frame else "",
            _note(task, anew),
        ])  # fmt: skip
    yield from table(["task", "status", "started", "took", "attempts", "index", "note"], rows, right=["took", "attempts", "index"])


def task_status(task: Task) -> str:
    """A task's status in its color."""
    colors = {"succeeded": "green", "failed": "red", "skipped": "yellow", "cancelled": "yellow", "retrying": "yellow", "running": "cyan"}
    return click.style(task.status, fg=colors.get(task.status))


def plain_cache(task: Task) -> dict[str, Any] | None:
    """What `@cached` made of a task, as JSON has it; None of a step without it."""
    if not task.attempts or len(task.attempt.cache) < 3:
        return None
    key, origin, why_not = task.attempt.cache[:3]
    return {"key": key, "from": origin or None, "because": why_not or None}


def _note(task: Task, anew: Why) -> str:
    if task.status == "skipped":
        return f"skipped by {who(task.settled_by)}" + (f", having failed: {said(task.reason)}" if task.reason else "")
    if task.reused:
        return f"taken over from {task.reused}"
    if task.attempts and task.attempt.cached_from:
        return f"cached from {task.attempt.cached_from}"
    if task.caught:
        return f"@catch took {task.caught.partition(chr(10))[0]}"
    if task.status in ("failed", "retrying") and task.attempts:
        return why(task.attempt) or said(task.reason)
    ran = anew(task)
    return f"ran because {ran[1]}" if ran is not None else ""


def _failures(state: RunState) -> Iterator[str]:
    failed = [task for task in state.all_tasks() if task.status == "failed"] if any(c.failed for c in state.steps.values()) else []
    if failed:
        yield ""
    for task in failed[:10]:
        place = f"  ({task.attempt.where})" if task.attempts and task.attempt.where else ""
        yield f"{click.style(f'{task.step}/{task.id}', fg='red', bold=True)}  {why(task.attempt) or said(task.reason)}{place}"
    if len(failed) > 10:
        yield f"and {count(len(failed) - 10, 'more failed task')}"


def _next(state: RunState, *, interrupted: bool) -> Iterator[str]:
    run = f"{state.flow}/{state.number}"
    if interrupted and not state.over and is_of_scheduler(state.header):
        yield ""
        yield "The scheduler that ran it is gone: `evflow scheduler` goes on with it."
    elif interrupted and not state.over:
        yield ""
        yield f"The process of this run died: `evflow continue {run}` goes on with it."
    elif state.paused:
        yield ""
        retry = f"`evflow retry {run}` tries again what failed, `evflow skip {run}/STEP/TASK` goes on without it."
        yield retry if state.pause is None else f"`evflow resume-run {run}` ends the pause."
    elif len(state.tasks) - 1 > FEW_TASKS:
        yield ""
        yield click.style(f"`evflow show {run}/STEP` lists the tasks of a step.", dim=True)


def _task(state: RunState, task: Task, anew: Why) -> Iterator[str]:
    yield f"{click.style(pathspec(state, task), bold=True)}  {task_status(task)}"
    places = "/".join(f"{frame.index} of {frame.split.size}" for frame in task.frames())
    facts = [
        ("after", f"{state.tasks[task.parent].step}/{task.parent}" if task.parent else ""),
        ("index", places),
        ("next", ", ".join(task.next_steps) + (f" ({count(task.splits, 'task')})" if task.splits else "")),
        ("artifacts", f"{task.artifacts:,}, {size(task.size_bytes)}" if task.artifacts else ""),
        ("note", _note(task, anew)),
        ("again", f"asked for by {who(task.settled_by)}, with attempt {task.renewed}" if task.renewed else ""),
        ("because", said(task.reason) if task.status != "skipped" else ""),
    ]
    for name, text in facts:
        if text:
            yield f"  {click.style(name.ljust(9), dim=True)}  {text}"
    for attempt in task.attempts:
        yield ""
        yield from _attempt(attempt)


def _attempt(attempt: Attempt) -> Iterator[str]:
    yield f"  {click.style(f'attempt {attempt.number}', bold=True)}  {attempt.outcome or 'not over'}"
    waited = (attempt.launched_us or 0) - attempt.queued_us
    facts = [
        ("queued", instant(attempt.queued_us) + (f", waited {duration(waited)}" if waited > 0 else "")),
        ("slot", f"{attempt.slot} ({attempt.wait})" if attempt.slot >= 0 else ""),
        ("started", f"{instant(attempt.started_us)} on {attempt.host or '?'}, pid {attempt.pid}" if attempt.started_us else ""),
        ("took", duration(attempt.ended_us - attempt.started_us) if _ran(attempt) else ""),
        ("error", why(attempt)),
        ("where", attempt.where),
        ("exit", f"code {attempt.exit_code}" if attempt.exit_code is not None else ""),
        ("signal", str(attempt.signal) if attempt.signal is not None else ""),
    ]
    for name, text in facts:
        if text:
            yield f"    {click.style(name.ljust(7), dim=True)}  {text}"
