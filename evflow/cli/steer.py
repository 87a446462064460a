"""`evflow pause RUN`, `resume-run`, `retry`, `skip`, `set-priority`: ask something of a run that goes on.

Each is a report into the run's inbox, as `cancel` is. What can be known to have no effect is an error here, before anything
is reported; what was overtaken on its way is told when the log has it. Where nobody owns the run, the command is its owner
for one round (`evflow_scheduler.ownerless`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.complete import of_runs, of_what
from evflow.cli.naming import Reference, parse, pathspec, resolve, tasks_of
from evflow.cli.output import count, write_json
from evflow.core import control, events as ev
from evflow.core.codec import encode_report, tag_of
from evflow.core.state import RunState, Task
from evflow.core.tags import is_of_scheduler
from evflow.errors import UsageError
from evflow.flow.invocation import program
from evflow.log.keys import shared_shards
from evflow.log.owners import living_owner
from evflow.log.protocol import LeaseHeld, LogClient, RunEntry

MOST_REASON = 1_000
_WAIT_S = 15.0
_LOOK_EVERY_S = 1.0

_DONE: dict[type[ev.Event], str] = {
    ev.RunPauseRequested: "paused",
    ev.RunResumeRequested: "resumed",
    ev.RunPriorityRequested: "given another priority",
    ev.TaskRetryRequested: "tried again",
    ev.TaskSkipRequested: "skipped",
}


class RequestRefused(UsageError):
    """The run, or the task, is in no state in which what was asked for can be done."""

    code = "request-refused"

    def __init__(self, what: str, event: ev.Event, why: str, hint: str) -> None:
        super().__init__(f"'{what}' cannot be {_DONE[type(event)]}: {why}.", hint)


class NothingFailed(UsageError):
    """No task of the run failed and is waited with."""

    code = "nothing-failed"

    def __init__(self, what: str) -> None:
        super().__init__(f"No task of '{what}' has failed and is waited with.", f"`evflow explain {what}` says what it waits for.")


class Asked(NamedTuple):
    """A request: what it is about, and the event that says it."""

    about: str
    event: ev.Fact


class Outcome(NamedTuple):
    """What came of a request: nothing yet (None), no effect and why, or an effect (an empty text)."""

    asked: Asked
    why_not: str | None


Choose = Callable[[RunState, Reference], Sequence[Asked]]

_run = click.argument("run", shell_complete=of_runs("running", "paused", "starting"))
_reason = click.option("--reason", default="", metavar="TEXT", help="What the log says of why.")
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command("resume-run", help="End the pause of RUN.")
@_run
@_reason
@_json
def resume_command(run: str, reason: str, as_json: bool) -> None:
    """Ask for it."""
    resume(run, reason, as_json=as_json)


@click.command(
    "set-priority",
    context_settings={"ignore_unknown_options": True},  # -5 is a priority
    help="Give RUN another priority: among runs that wait for the same slots, higher ones come first.",
)
@_run
@click.argument("priority", type=click.IntRange(-1_000_000, 1_000_000), metavar="N")
@_json
def priority_command(run: str, priority: int, as_json: bool) -> None:
    """Ask for it."""
    _ask(run, lambda state, _: [Asked(_name(state), ev.RunPriorityRequested(priority))], as_json=as_json)


@click.command("retry", help="Try a task again that failed and that its run waits with; for a run or a step: all such tasks of it.")
@click.argument("what", shell_complete=of_what())
@_reason
@_json
def retry_command(what: str, reason: str, as_json: bool) -> None:
    """Ask for it."""
    _ask(
        what,
        lambda state, reference: _of_tasks(state, reference, lambda task: ev.TaskRetryRequested(task.id, _fit(reason))),
        as_json=as_json,
    )


@click.command(
    "skip", help="Let a run go on without a result of a task that failed; for a step: all tasks of it that failed and are waited with."
)
@click.argument("task", shell_complete=of_what())
@click.option("--to", "step", default="", metavar="STEP", help="Where to go on, for a step that chooses among several.")
@_reason
@_json
def skip_command(task: str, step: str, reason: str, as_json: bool) -> None:
    """Ask for it."""
    reference = parse(task)
    if not reference.step and reference.task is None:
        raise click.UsageError(f"Name the task, or a step: {task}/STEP/TASK. What is skipped has no result.")
    _ask(task, lambda state, found: _of_tasks(state, found, lambda one: ev.TaskSkipRequested(one.id, step, _fit(reason))), as_json=as_json)


def pause(run: str, reason: str, *, as_json: bool) -> None:
    """Ask for a pause; `evflow pause` comes here with a run."""
    _ask(run, lambda state, _: [Asked(_name(state), ev.RunPauseRequested(_fit(reason)))], as_json=as_json)


def resume(run: str, reason: str, *, as_json: bool) -> None:
    """Ask for the end of a pause; `evflow unpause` comes here with a run."""
    _ask(run, lambda state, _: [Asked(_name(state), ev.RunResumeRequested(_fit(reason)))], as_json=as_json)


def _fit(reason: str) -> str:
    if len(reason) > MOST_REASON:
        raise click.BadParameter(f"it has {len(reason):,} characters, and the log takes {MOST_REASON:,}.", param_hint="--reason")
    return reason


def _of_tasks(state: RunState, reference: Reference, event: Callable[[Task], ev.Fact]) -> Sequence[Asked]:
    tasks = tasks_of(state, reference)
    if reference.task is None:
        found = [task for task in tasks if task.id in state.held]
        if not found and not state.over:
            raise NothingFailed(reference.text)
        # Of a run that is over, one task is enough to say why not.
        tasks = found or [task for task in tasks if task.status != "succeeded"][:1] or tasks[:1]
        if not tasks:
            raise NothingFailed(reference.text)
    return [Asked(pathspec(state, task), event(task)) for task in tasks]


def _ask(what: str, choose: Choose, *, as_json: bool) -> None:
    """Look at the run, report the requests that it makes sense to make, and see what came of them."""
    reference = parse(what)
    with session.log() as log:
        entry, state = session.folded_or_new(log, resolve(log, reference))
        if state.status == "new":
            asked = _of_unbegun(entry, choose, reference)
        else:
            asked = choose(state, reference)
            _refuse(state, asked)
        principal = f"user:{config.get('user')}"
        for one in asked:
            log.report(entry.shard, entry.run, encode_report(one.event, principal=principal))
        before = state.priority
        outcomes, owned = _came_of(log, entry, state, asked, principal)
    if any(outcome.why_not is None for outcome in outcomes) and not owned and entry.shard not in shared_shards():
        outcomes, state = _settle(entry, state, asked, principal)
    _tell(state, entry, outcomes, before, owned=owned, as_json=as_json)
    if any(outcome.why_not for outcome in outcomes):
        click.get_current_context().exit(1)


def _of_unbegun(entry: RunEntry, choose: Choose, reference: Reference) -> Sequence[Asked]:
    """Requests to a run that no scheduler has begun: of the run itself, not of its tasks, which are not there."""
    nothing = RunState()
    nothing.flow, nothing.number = entry.run.flow, entry.run.number
    return choose(nothing, reference)


def _refuse(state: RunState, asked: Sequence[Asked]) -> None:
    """Raise why a request would have no effect, if the state says so."""
    for one in asked:
        why = control.refusal(state, one.event)
        if why:
            raise RequestRefused(one.about, one.event, why, _hint(state, one))


def _hint(state: RunState, asked: Asked) -> str:
    run, event = _name(state), asked.event
    if state.over:
        file = str(state.header.get("code", {}).get("file") or "")
        flow = program(file, state.header.get("options"))
        resume_it = f"`{flow} resume --origin-run-id {state.number}` makes a new run that reuses what this one finished."
        return resume_it if isinstance(event, ev.TaskRetryRequested | ev.TaskSkipRequested) else f"`evflow show {run}` shows it."
    if isinstance(event, ev.RunResumeRequested) and state.held:
        return f"`evflow retry {run}` tries what failed again, `evflow skip {run}/STEP/TASK` goes on without it."
    if isinstance(event, ev.TaskSkipRequested):
        task = state.tasks[event.task]
        node = state.graph[task.step]
        if task.status in ("failed", "retrying", "queued") and node.foreach is None and node.kind != "split" and len(node.out) > 1:
            return f"Choose: {' or '.join(f'--to {step}' for step in node.out)}."
    return f"`evflow explain {asked.about}` says more."


def _came_of(log: LogClient, entry: RunEntry, state: RunState, asked: Sequence[Asked], principal: str) -> tuple[list[Outcome], bool]:
    """Follow the log, folding it into the state, until it has the requests, their owner is gone, or patience ends.

    Returns:
        What came of them, and whether somebody goes on with the run, or it is over.
    """
    from evflow.replay.load import events

    found = Watch(state, asked, principal)

    def read_on() -> None:
        for stored in events(log, entry, state.seq):
            found.see(stored.seq, stored.payload)

    read_on()
    deadline_s = clock.monotonic_s() + _WAIT_S
    while not found.all and not state.sealed and clock.monotonic_s() < deadline_s and living_owner(log, entry.shard) is not None:
        for stored in log.follow(entry.shard, entry.run, state.seq, _LOOK_EVERY_S):
            found.see(stored.seq, stored.payload)
    owned = living_owner(log, entry.shard) is not None
    if not owned:
        read_on()  # whoever owned it may have brought it to its end, and left, since the last look
    return found.outcomes(), owned or state.over


class Watch:
    """Folds a run's log, and notes what came of requests as their facts come by."""

    def __init__(self, state: RunState, asked: Sequence[Asked], principal: str) -> None:
        self.state = state
        self._asked = asked
        self._principal = principal
        self._came: dict[int, str] = {}

    def see(self, seq: int, payload: bytes) -> None:
        """Fold the next event."""
        from evflow.core.apply import apply
        from evflow.core.codec import decode

        record = decode(seq, payload)
        if record.principal == self._principal:
            for index, one in enumerate(self._asked):
                if index not in self._came and record.event == one.event:
                    self._came[index] = control.refusal(self.state, record.event)
                    break
        apply(self.state, record)

    @property
    def all(self) -> bool:
        """The log has all of the requests."""
        return len(self._came) == len(self._asked)

    def outcomes(self) -> list[Outcome]:
        """Requests that a sealed log does not have came too late."""
        late = "the run ended before it came" if self.state.sealed else None
        return [Outcome(one, self._came.get(index, late)) for index, one in enumerate(self._asked)]


def _settle(entry: RunEntry, state: RunState, asked: Sequence[Asked], principal: str) -> tuple[list[Outcome], RunState]:
    """Be the run's owner for one round."""
    from evflow_scheduler.ownerless import settle_ownerless
    from evflow_scheduler.recovery import RunIsElsewhere

    try:
        settle_ownerless(entry, state.header["host"])
    except RunIsElsewhere:
        return [Outcome(one, None) for one in asked], state  # It lies in the inbox, for whoever goes on with the run there.
    except LeaseHeld:
        pass  # Somebody was faster (`evflow continue`), and finds the requests in the inbox.
    with session.log() as log:
        return _came_of(log, entry, state, asked, principal)[0], state


def _tell(state: RunState, entry: RunEntry, outcomes: Sequence[Outcome], before: int, *, owned: bool, as_json: bool) -> None:
    if as_json:
        status = "requested" if state.status == "new" else state.phase
        write_json({"run": str(entry.run), "status": status, "priority": state.priority, "requests": [_plain(one) for one in outcomes]})
        return
    for outcome in outcomes:
        click.echo(_said(state, outcome, before, str(entry.run)), err=True)
    if owned or state.over:
        return
    if entry.shard in shared_shards() or is_of_scheduler(state.header):
        click.echo("No scheduler is there to act on it: `evflow scheduler` starts one.", err=True)
    else:
        click.echo(f"Nobody runs {entry.run} at present: `evflow continue {entry.run}` goes on with it.", err=True)


def _plain(outcome: Outcome) -> dict[str, Any]:
    asked, why_not = outcome
    return {"of": asked.about, "event": tag_of(asked.event), "effect": None if why_not is None else not why_not, "why": why_not or None}


def _said(state: RunState, outcome: Outcome, before: int, run: str) -> str:
    about, event = outcome.asked
    if outcome.why_not is None:
        return f"{about or run} is asked to be {_DONE[type(event)]}; its log does not have it yet."
    if outcome.why_not:
        return f"{about} was not {_DONE[type(event)]}: {outcome.why_not}."
    match event:
        case ev.RunPauseRequested():
            goes_on = (
                f"; {count(len(state.live), 'task')} that run{'s' if len(state.live) == 1 else ''} go{'es' if len(state.live) == 1 else ''} on"
                if state.live
                else ""
            )
            return f"{about} is paused: nothing more of it starts{goes_on}. `evflow resume-run {about}` ends the pause."
        case ev.RunResumeRequested():
            held = f" It still waits for {count(len(state.held), 'task')} that failed: `evflow explain {about}`." if state.held else ""
            return f"{about} is not paused any more.{held}"
        case ev.RunPriorityRequested(priority):
            alone = "" if is_of_scheduler(state.header) else " Nobody else waits for the slots of a run in the foreground."
            return f"{about} has the priority {priority}, and had {before}.{alone}"
        case ev.TaskRetryRequested(number):
            waits = f" when the run is resumed: `evflow resume-run {run}`" if state.pause is not None else ""
            return f"{about} is tried again{waits} (attempt {state.tasks[number].attempt.number})."
        case ev.TaskSkipRequested(number):
            steps = state.tasks[number].next_steps
            return f"{about} is skipped: the run goes on to {', '.join(steps)}." if steps else f"{about} is skipped."
        case _:
            raise TypeError(event)


def _name(state: RunState) -> str:
    return f"{state.flow}/{state.number}"
