"""`evflow explain`: the reasons of `evflow.core.explain` in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

from evflow import clock
from evflow.cli import explain_limits, explain_owner, explain_said, session
from evflow.cli.complete import of_what
from evflow.cli.explain_plain import plain
from evflow.cli.explain_slots import amounts, said as said_of_slots, sharing
from evflow.cli.naming import parse, pathspec, resolve, tasks_of
from evflow.cli.output import count, duration, instant, who, write_json
from evflow.cli.picture import why
from evflow.cli.rerun import ran_anew
from evflow.core import explain
from evflow.core.explain_owner import IsCarriedOut, NobodyLives, Whose
from evflow.core.graph import PLATFORMS
from evflow.core.ids import RunId
from evflow.core.reasons import said
from evflow.core.state import RunState, Task
from evflow.core.tags import is_of_scheduler
from evflow.log.owners import is_owned
from evflow.log.protocol import LogClient
from evflow.replay.load import RunGone, RunWaits

if TYPE_CHECKING:
    from evflow.log.pools import PoolPicture

Pools = Mapping[str, "PoolPicture"]
_NO_POOLS: Final[Pools] = MappingProxyType({})
MOST_TASKS = 20
"""How many tasks, and how many joins, are explained one by one; the rest is counted."""


@click.command("explain", help="Say what a run, a step's tasks or a task waits for, and why it is where it is.")
@click.argument("what", shell_complete=of_what())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(what: str, as_json: bool) -> None:
    """Say it."""
    reference = parse(what)
    with session.log() as log:
        run = resolve(log, reference)
        try:
            entry, state = session.folded(log, run)
        except RunWaits as waits:
            _say_of_asked(log, run, waits, what, as_json=as_json)
            return
        except RunGone as gone:
            _say(what, [f"{gone.message} {gone.hint}".strip()], [], as_json=as_json)
            return
        now = clock.now_us()
        name = f"{state.flow}/{state.number}"
        owned = state.over or is_owned(log, entry.shard)
        whose = None if state.over else explain_owner.look(log, entry.shard)
        shared = sharing(log, entry, state)
        slots = [] if shared is None else list(said_of_slots(log, state, shared))
        limited = list(explain_limits.Standing(log).waits(entry.shard, state, explain_limits.MOST_TASKS))
        heard = explain_said.waits(log, entry.shard, state)
        tasks = tasks_of(state, reference)
        anew = [] if not reference.step and reference.task is None else ran_anew(log, state, tasks)
        is_whole = not reference.step and reference.task is None
        pools = _pools(log.url, state, explain.open_tasks(state) if is_whole else tasks)
    # A task of a run that nobody runs waits for that, whatever else it waits for.
    lines = list(
        of_run(state, now, owned=owned, pools=pools, whose=whose)
        if is_whole
        else of_tasks(state, tasks, now, owned=owned, pools=pools, whose=whose)
    )
    lines += [f"{of} ran because {text}." for of, _, text in anew]
    if owned and whose is not None and (drained := explain_owner.said(name, whose, begun=True)):
        lines.append(drained)
    reasons = [plain(name, reason) for reason in ([] if whose is None else [whose])]
    reasons += [plain(name, reason) for reason in (explain.of_run(state, owned=owned) if is_whole else ())]
    for task in explain.open_tasks(state)[:MOST_TASKS] if is_whole else tasks:
        reasons += [plain(pathspec(state, task), reason) for reason in explain.of_task(state, task)]
    reasons += [plain(of, reason) for of, reason, _ in anew]
    reasons += [plain(name, reason) for reason in islice(explain.open_splits(state) if is_whole else (), MOST_TASKS)]
    if not is_whole:
        heard = heard.of({task.id for task in tasks})
    reasons += [plain(name, reason) for reason in (*limited, *heard.store, *heard.platforms)]
    lines += [*slots, *(explain_limits.said(name, reason) for reason in limited), *explain_said.said(name, state, heard)]
    _say(what, lines, reasons, as_json=as_json)


def _say_of_asked(log: LogClient, run: RunId, waits: RunWaits, what: str, *, as_json: bool) -> None:
    """A run that was asked for, and that no scheduler has taken."""
    entry = log.run(run)
    whose = None if entry is None else explain_owner.look(log, entry.shard)
    if isinstance(whose, IsCarriedOut | NobodyLives | None):
        line = f"{waits.message} {waits.hint}".strip()
    else:
        line = explain_owner.said(str(run), whose, begun=False)
    _say(what, [line], [] if whose is None else [plain(str(run), whose)], as_json=as_json)


def _say(what: str, lines: list[str], reasons: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        write_json({"of": what, "explanation": lines, "reasons": reasons})
        return
    for line in lines:
        click.echo(line)


def _pools(url: str, state: RunState, tasks: Sequence[Task]) -> Pools:
    """The pools of which tasks wait for a worker, as they are now."""
    names = {
        reason.pool
        for task in tasks
        if task.status == "launched"
        for reason in explain.of_task(state, task)
        if isinstance(reason, explain.WaitsForWorker)
    }
    if not names:
        return {}
    from evflow.log import pools  # of runs that have none nobody asks

    return {name: pools.ask(url, pools.picture(name)) for name in names}


def of_run(state: RunState, now_us: int, *, owned: bool = True, pools: Pools = _NO_POOLS, whose: Whose | None = None) -> Iterator[str]:
    """Why the run is where it is.

    Args:
        state: The run.
        now_us: The present instant.
        owned: Some process runs it at present.
        pools: The pools of which its tasks wait for workers.
        whose: Which scheduler carries it out, where one is to.
    """
    for reason in explain.of_run(state, owned=owned):
        yield _nobody(state, whose) if isinstance(reason, explain.NobodyOwns) else said_of_run(state, reason)
    if state.over:
        return
    open_tasks = explain.open_tasks(state)
    yield from (_of_task(state, task, now_us, owned=owned, pools=pools) for task in open_tasks[:MOST_TASKS])
    if len(open_tasks) > MOST_TASKS:
        yield f"… and {count(len(open_tasks) - MOST_TASKS, 'more open task')}."
    for number, split in enumerate(explain.open_splits(state)):
        if number == MOST_TASKS:
            yield "… and more joins."
            return
        yield of_members(state, split)


def of_tasks(
    state: RunState, tasks: Sequence[Task], now_us: int, *, owned: bool = True, pools: Pools = _NO_POOLS, whose: Whose | None = None
) -> Iterator[str]:
    """Sentences for each task."""
    for task in tasks:
        waits = not owned and not state.over and task.status not in ("succeeded", "skipped", "failed", "cancelled")
        yield _of_task(state, task, now_us, owned=owned, pools=pools) + (f" {_nobody(state, whose)}" if waits else "")


def _of_task(state: RunState, task: Task, now_us: int, *, owned: bool, pools: Pools) -> str:
    reasons = [
        _worker(state, task, reason, pools.get(reason.pool), now_us)
        if isinstance(reason, explain.WaitsForWorker)
        else of_reason(state, reason, now_us)
        if owned
        else _when_it_died(state, reason, now_us)
        for reason in explain.of_task(state, task)
    ]
    return f"{pathspec(state, task)} {' '.join(reasons)}"


def _worker(state: RunState, task: Task, reason: explain.WaitsForWorker, pool: "PoolPicture | None", now_us: int) -> str:
    waits = f"waits for a worker of pool {reason.pool}, for {duration(now_us - reason.since_us)}"
    if pool is None:
        return f"{waits}."
    claimed = pool.running.get(f"{state.flow}/{state.number}/{task.id}.{reason.attempt}")
    if claimed is not None:
        return f"is about to start on the worker {claimed[0]}, which claimed it {duration(now_us - claimed[1])} ago."
    if not pool.workers:
        return f"{waits}: none is alive. `evflow worker --pool {reason.pool}` starts one."
    taken = f"{len(pool.running)} of {pool.slots} slots of {count(len(pool.workers), 'worker')} are taken"
    return f"{waits}: {taken}, {count(pool.queued, 'task')} in its queue."


def said_of_run(state: RunState, reason: explain.Reason) -> str:
    """A reason of the run itself."""
    run = f"{state.flow}/{state.number}"
    match reason:
        case explain.RunIsOver(status, at_us, why_so):
            return f"{run} {status} at {instant(at_us)[:19]}{f': {said(why_so)}' if why_so else '.'}"
        case explain.NobodyOwns():
            return _nobody(state)
        case explain.IsPaused(by, since_us, why_so, running):
            told = f" ({why_so})" if why_so else ""
            goes_on = f"; {count(running, 'task')} that ran then still run{'s' if running == 1 else ''}" if running else ""
            return f"{run} was paused by {who(by)} at {instant(since_us)[:19]}{told}: nothing of it starts{goes_on}. `evflow resume-run {run}` ends the pause."
        case explain.IsStuck(tasks, number, since_us):
            rest = "what does not depend on them goes on" if not since_us else f"nothing else is left to do since {instant(since_us)[:19]}"
            return (
                f"{run} waits with {count(number, 'task')} that failed{_named(tasks, number)}; {rest}. "
                f"`evflow retry {run}` tries {'it' if number == 1 else 'them'} again, `evflow skip {run}/STEP/TASK` goes on without one, `evflow cancel {run}` ends the run."
            )
        case explain.IsEnding(what, why_so, running, forced):
            doing = "being cancelled" if what == "cancelled" else "failing"
            waits = f"it waits for {count(len(running), 'running task')} to end{_named([(step, task) for step, task, _ in running])}"
            killed = "; they are killed" if forced and running else ""
            return f"{run} is {doing} ({said(why_so)}): {waits}{killed}."
        case explain.EndsWhenOverdue(at_us, limit_us):
            return f"{run} is ended as overdue at {instant(at_us)[:19]}, {duration(limit_us)} after its start (--max-run-time), if it is not over by then."
        case _:
            raise TypeError(reason)


def of_reason(state: RunState, reason: explain.Reason, now_us: int) -> str:
    """A reason of a task: a sentence without its subject."""
    match reason:
        case explain.WaitsForSlot():
            return _slot(reason, now_us, shared=is_of_scheduler(state.header))
        case explain.Starts("launched", since_us, executor) if executor in PLATFORMS:
            return f"was ordered of {PLATFORMS[executor]} {duration(now_us - since_us)} ago, and has not begun."
        case explain.Starts(status, since_us):
            return f"is about to start ({status} {duration(now_us - since_us)} ago)."
        case explain.WaitsForWorker(pool, _, since_us):
            return f"waits for a worker of pool {pool}, for {duration(now_us - since_us)}."
        case explain.Runs(host, pid, since_us, limit_us, asked):
            since = duration(now_us - since_us) if since_us else "just now"
            until = f"; @timeout ends it after {duration(limit_us)}" if limit_us else ""
            ending = f" It was asked to end: {said(asked)}." if asked else ""
            return f"has been running for {since} on {_place(host or 'this machine', pid)}{until}.{ending}"
        case explain.WaitsForRetry():
            return _retry(reason, now_us)
        case explain.WaitsForMembers():
            return of_members(state, reason)
        case explain.WaitsForGang():
            return _gang(reason, now_us)
        case explain.IsHeld(at_us, why_so):
            return f"failed at {instant(at_us)[:19]}, and the run waits with it: {said(why_so)}"
        case explain.Ended():
            return _ended(reason)
        case _:
            raise TypeError(reason)


def _place(host: str, pid: int) -> str:
    """Where an attempt runs; a container whose first lines have not come has no process that is known."""
    return f"{host} (pid {pid})" if pid else host


def _when_it_died(state: RunState, reason: explain.Reason, now_us: int) -> str:
    """A reason of a task whose run's process died: what it was doing then."""
    match reason:
        case explain.Runs(host, pid):
            return f"was running on {_place(host or 'that machine', pid)} when the run's process died."
        case explain.Starts():
            return "was about to start when the run's process died."
        case explain.WaitsForSlot(executor):
            return f"was waiting for a slot of '{executor}' when the run's process died."
        case _:
            return of_reason(state, reason, now_us)


def of_members(state: RunState, reason: explain.WaitsForMembers) -> str:
    """What a split's join still waits for."""
    shown = [_member(member) for member in reason.missing]
    more = ", …" if reason.missing_count > len(shown) else ""
    join = f"The join '{reason.join}'" if reason.join else "The join"
    return (
        f"{join} of the split at {reason.step}/{reason.split} in {state.flow}/{state.number} waits for "
        f"{reason.missing_count:,} of {count(reason.size, 'member')}: {', '.join(shown)}{more}."
    )


def _member(member: explain.Missing) -> str:
    return f"{member.index} ({member.step}/{member.task} {member.status})" if member.task else f"{member.index} ({member.status})"


def _nobody(state: RunState, whose: Whose | None = None) -> str:
    run = f"{state.flow}/{state.number}"
    if whose is not None and (said_so := explain_owner.said(run, whose, begun=True)):
        return said_so
    if is_of_scheduler(state.header):
        return f"{run} waits for a scheduler: the one that ran it is gone. `evflow scheduler` goes on with it."
    return f"{run} waits for somebody to run it: its process died. `evflow continue {run}` goes on with it, `evflow cancel {run}` ends it."


def _slot(reason: explain.WaitsForSlot, now_us: int, *, shared: bool = False) -> str:
    if reason.paused_by:
        return f"waits for the end of the pause: {who(reason.paused_by)} paused the run."
    taken = len(reason.held)
    busy = f"{taken} of {reason.slots} slots are taken" if reason.slots else f"{count(taken, 'task')} run"
    if shared:  # the slots are the scheduler's, and the number bounds what the run may have of them
        busy = f"its run has {taken} of the {reason.slots} that it may have" if reason.slots else f"its run has {taken}"
    holders = [f"{one.slot}: {one.step}/{one.task}" if one.slot >= 0 else f"{one.step}/{one.task}" for one in reason.held]
    holding = f" ({_some(holders, taken)})" if holders else ""
    if reason.nodes > 1:
        left = max(reason.slots - taken, 0)
        free = f", {left} {'is' if left == 1 else 'are'} free" if reason.slots and not shared else ""
        wanted = (
            f"waits for {reason.nodes} slots of '{reason.executor}' at once, with its gang{free}, for {duration(now_us - reason.since_us)}"
        )
    else:
        wanted = f"waits for a slot of '{reason.executor}', for {duration(now_us - reason.since_us)}"
    first = "it comes first in its run" if shared else "it is the next"  # other runs, and limits, are told of after it
    before = f"{count(reason.ahead_count, 'task')} ahead of it{_named(reason.ahead, reason.ahead_count)}" if reason.ahead else first
    asks = (
        f" {'Its gang' if reason.nodes > 1 else 'It'} asks for {amounts(reason.asks)}; running tasks asked for {amounts(reason.taken)}."
        if not reason.asks.nothing
        else ""
    )
    return f"{wanted}: {busy}{holding}, {before}.{asks}"


def _gang(reason: explain.WaitsForGang, now_us: int) -> str:
    since = f"its attempt {reason.outcome} {duration(now_us - reason.since_us)} ago"
    return f"waits for the other nodes of its gang: {since}, and {reason.count} of {reason.nodes} nodes still run{'s' if reason.count == 1 else ''}{_named(reason.running, reason.count)}."


def _retry(reason: explain.WaitsForRetry, now_us: int) -> str:
    left = reason.at_us - now_us
    when = f"in {duration(left)}" if left > 0 else "now"
    lost = f", {reason.lost} lost" if reason.lost else ""
    return (
        f"waits for its retry: attempt {reason.attempt} begins {when}, because attempt {reason.before.number} ended with "
        f"{why(reason.before)} ({reason.counted} of {reason.allowed + 1} counted attempts are used{lost})."
    )


def _ended(reason: explain.Ended) -> str:
    if reason.status == "cancelled":
        return "was cancelled."
    if reason.status == "skipped":
        failed = f", having failed: {said(reason.reason)}" if reason.reason else ""
        return f"was skipped by {who(reason.by)} at {instant(reason.at_us)[:19]}{failed}"
    if reason.status == "failed":
        return f"failed: {said(reason.reason)}"
    caught = f" (@catch took {reason.caught})" if reason.caught else ""
    went_on = f" and went on to {', '.join(reason.next_steps)}" if reason.next_steps else ""
    if reason.reused:
        return f"was taken over from {reason.reused} at {instant(reason.at_us)[:19]}{went_on}."
    if reason.cached:
        return f"was cached from {reason.cached} at {instant(reason.at_us)[:19]}{went_on}."
    missed = f" The step was run (@cached): {reason.not_cached}." if reason.not_cached else ""
    return f"succeeded at {instant(reason.at_us)[:19]}{caught}{went_on}.{missed}"


def _named(tasks: Sequence[tuple[str, int]], of: int | None = None) -> str:
    return f" ({_some([f'{step}/{task}' for step, task in tasks], of or len(tasks))})" if tasks else ""


def _some(names: Sequence[str], of: int) -> str:
    shown = names[: explain.MOST_NAMED]
    return ", ".join(shown) + (", …" if of > len(shown) else "")
