"""`evflow continue` and `evflow cancel`: act on a run from outside."""

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.naming import parse, resolve
from evflow.cli.output import instant, write_json
from evflow.cli.setting_option import setting_option
from evflow.core.codec import encode_report
from evflow.core.events import RunCancelRequested
from evflow.core.state import RunState
from evflow.errors import Conflict
from evflow.log.protocol import LogClient, RunEntry

_WAIT_S = 60.0


class NobodyRuns(Conflict):
    """A request was left in the inbox of a run that no process works on."""

    code = "nobody-runs"

    def __init__(self, run: str) -> None:
        super().__init__(
            f"'{run}' is asked to end, but its process died, so nobody does it.",
            f"`evflow continue {run}` takes the run over; the request to cancel is what it finds first.",
        )


@click.command("cancel", help="End RUN: its running tasks are ended, then the run is cancelled.")
@click.argument("run")
@click.option("--reason", default="evflow cancel", show_default=True, help="What the log says.")
@click.option("--force", is_flag=True, help="Kill what runs, instead of asking it to end.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is over  [default: --wait]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def cancel_command(ctx: click.Context, run: str, reason: str, force: bool, wait: bool, as_json: bool) -> None:
    """Ask for it, and see it happen."""
    with session.log() as log:
        name = resolve(log, parse(run))
        found, state = session.folded(log, name)
        if not state.over:
            event = RunCancelRequested(reason, forced=force)
            log.report(found.entry.shard, name, encode_report(event, principal=f"user:{config.get('user')}"))
            if force and state.cancelling is None:  # the first request asks, a second one insists
                log.report(found.entry.shard, name, encode_report(event, principal=f"user:{config.get('user')}"))
            if log.owner(found.entry.shard) is None:
                raise NobodyRuns(str(name))
            if wait:
                state = _await_end(log, found.entry)
    _tell(state, as_json=as_json)
    if state.over and state.status != "cancelled":
        ctx.exit(1)


def _await_end(log: LogClient, entry: RunEntry) -> RunState:
    """Follow the log until the run is over, or for as long as patience lasts."""
    from evflow.core.apply import apply
    from evflow.core.codec import decode

    state = RunState()
    deadline_s = clock.monotonic_s() + _WAIT_S
    while not state.over and clock.monotonic_s() < deadline_s:
        for stored in log.follow(entry.shard, entry.run, state.seq, 1.0):
            apply(state, decode(stored.seq, stored.payload))
    return state


def _tell(state: RunState, *, as_json: bool) -> None:
    run = f"{state.flow}/{state.number}"
    if as_json:
        write_json({"run": run, "status": state.status, "over": state.over})
    elif state.over:
        click.echo(f"{run} {state.status} at {instant(state.finished_us)[:19]}.", err=True)
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
        click.Argument(["run"]),
        click.Option(["--quiet"], is_flag=True, help="Show only what tasks print, and errors."),
        setting_option("max_workers", "N", "Tasks at once."),
        setting_option("view", "auto|live|plain", "A live picture, or lines."),
    ],
    help="Go on with RUN, whose process died: finished tasks stay, the rest runs in this terminal.",
)
