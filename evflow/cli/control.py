"""`evflow continue` and `evflow cancel`: act on a run from outside."""

from collections.abc import Callable
from typing import Final

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import parse, resolve
from evflow.cli.output import became, instant, write_json
from evflow.cli.setting_option import setting_option
from evflow.core.codec import encode_report
from evflow.core.events import RunCancelRequested
from evflow.core.hooks import are_due
from evflow.core.state import RunState
from evflow.log.keys import shared_shards
from evflow.log.owners import living_owner
from evflow.log.protocol import LeaseHeld, LogClient, RunEntry

_MOST_REASON = 1_000
_WAIT_S = 60.0
_OF_HOOKS: Final = {
    "ended": "Its exit hooks went on, and have ended.",
    "running": "Its exit hooks go on, and are asked to end: `evflow events {run}` says when they have.",
    "left": "Its exit hooks did not come to their end, since whoever ran them died: {who} runs them again.",
}
"""What is said of the exit hooks of a run that was over before."""
_WHO: Final = {False: "`evflow continue {run}`", True: "the next scheduler (`evflow scheduler`)"}
_LOOK_EVERY_S = 1.0
"""How often an owner that says nothing is looked at: it may have died."""


@click.command("cancel", help="End RUN: its running tasks are ended, then the run is cancelled.")
@click.argument("run", shell_complete=of_runs("running", "paused", "starting"))
@click.option("--reason", default="evflow cancel", show_default=True, help="What the log says.")
@click.option("--force", is_flag=True, help="Kill what runs, instead of asking it to end.")
@click.option("--wait/--no-wait", default=True, help=f"Wait until it is over, for {_WAIT_S:g} s at most  [default: --wait]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def cancel_command(ctx: click.Context, run: str, reason: str, force: bool, wait: bool, as_json: bool) -> None:
    """Ask for it, and see it happen; where nobody is left to do it, do it."""
    if len(reason) > _MOST_REASON:
        raise click.BadParameter(f"it has {len(reason):,} characters, and the log takes {_MOST_REASON:,}.", param_hint="--reason")
    with session.log() as log:
        entry, state = session.folded_or_new(log, resolve(log, parse(run)))
        was_over = state.over
        hooks = _hooks(log, entry, state)
        if not was_over or hooks == "running":
            _request(log, entry, RunCancelRequested(reason, forced=force))
        if hooks == "running":
            _await_end(log, entry, state, _WAIT_S if wait else 0.0, is_over=_hooks_ended)
            hooks = "ended" if _hooks_ended(state) else hooks
    if not was_over:
        state = _see_to_its_end(entry, state, _WAIT_S if wait else 0.0)
    _tell(entry, state, as_json=as_json, was_over=was_over, hooks=hooks)
    if state.over and state.status != "cancelled":
        ctx.exit(1)


def _request(log: LogClient, entry: RunEntry, event: RunCancelRequested) -> None:
    """Put the request into the run's inbox."""
    log.report(entry.shard, entry.run, encode_report(event, principal=f"user:{config.get('user')}"))


def _hooks(log: LogClient, entry: RunEntry, state: RunState) -> str:
    """What of a run that is over goes on: its exit hooks are `running`, or `left` by an owner that died; else nothing."""
    if not are_due(state) or state.sealed:
        return ""
    return "left" if living_owner(log, entry.shard) is None else "running"


def _hooks_ended(state: RunState) -> bool:
    return state.hooks_over or state.sealed


def _see_to_its_end(entry: RunEntry, state: RunState, patience_s: float) -> RunState:
    """Wait for the run's owner to end it, or end it where nobody owns it. A scheduler's run waits for one."""
    while True:
        with session.log() as log:
            _await_end(log, entry, state, patience_s)
            if state.over or entry.shard in shared_shards() or living_owner(log, entry.shard) is not None:
                return state
        try:
            return _end(entry, state)
        except LeaseHeld:
            pass  # Somebody was faster (`evflow continue`, a second cancel), and finds the request in the inbox.


def _await_end(
    log: LogClient, entry: RunEntry, state: RunState, patience_s: float, is_over: Callable[[RunState], bool] = lambda state: state.over
) -> None:
    """Follow the log, folding it into the state, until the run (or what else is awaited) is over, its owner is gone, or patience ends."""
    from evflow.core.apply import apply
    from evflow.core.codec import decode
    from evflow.replay.load import events

    deadline_s = clock.monotonic_s() + patience_s
    for stored in events(log, entry, state.seq):
        apply(state, decode(stored.seq, stored.payload))
    while not is_over(state) and clock.monotonic_s() < deadline_s and living_owner(log, entry.shard) is not None:
        for stored in log.follow(entry.shard, entry.run, state.seq, _LOOK_EVERY_S):
            apply(state, decode(stored.seq, stored.payload))


def _end(entry: RunEntry, state: RunState) -> RunState:
    """Be the owner for as long as it takes to end the run."""
    from evflow_scheduler.cancel import end_ownerless

    return end_ownerless(entry, state.header["host"])


def _tell(entry: RunEntry, state: RunState, *, as_json: bool, was_over: bool, hooks: str) -> None:
    run = str(entry.run)
    if as_json:
        status = "requested" if state.status == "new" else state.status
        write_json({
            "run": run, "status": status, "over": state.over, "was_over": was_over, **({"exit_hooks": hooks} if hooks else {}),
        })  # fmt: skip
    elif was_over:
        done = _OF_HOOKS.get(hooks, "Nothing was done.").format(run=run, who=_WHO[entry.shard in shared_shards()].format(run=run))
        click.echo(f"{run} was over before: it {became(state.status)} at {instant(state.finished_us)[:19]}. {done}", err=True)
    elif state.over:
        click.echo(f"{run} {state.status} at {instant(state.finished_us)[:19]}.", err=True)
    elif state.status == "new":
        click.echo(f"{run} is asked to end. It has not begun: the next scheduler (`evflow scheduler`) ends it.", err=True)
    else:
        click.echo(f"{run} is asked to end. `evflow explain {run}` says what it waits for.", err=True)


@click.pass_context
def _continue(ctx: click.Context, run: str, quiet: bool, max_workers: int | None, view: str | None) -> None:
    from evflow.cli.live import make_view

    if view is not None:
        config.set_option("view", view, "--view")
    with session.log() as log:
        name = resolve(log, parse(run))
    from evflow_scheduler.recovery import continue_run

    ctx.exit(continue_run(name, view=make_view(quiet=quiet, continued=True), max_workers=max_workers))


continue_command = click.Command(
    "continue",
    callback=_continue,
    params=[
        click.Argument(["run"], shell_complete=of_runs("running", "paused", "starting")),
        click.Option(["--quiet"], is_flag=True, help="Show only what tasks print, and errors."),
        setting_option("max_workers", "N", "Tasks at once."),
        setting_option("view", "auto|live|plain", "A live picture, or lines."),
    ],
    help="Go on with RUN, whose process died: finished tasks stay, the rest runs in this terminal.",
)
