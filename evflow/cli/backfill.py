"""`evflow backfill` and `evflow backfills`: runs for past ticks of a schedule, planned, watched and ended."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from evflow import config
from evflow.cli import explain_owner, session
from evflow.cli.complete import of_backfills, of_deployments, of_flows
from evflow.cli.output import count, instant, iso, table, write_json
from evflow.cli.run_deployed import pair
from evflow.core.backfill import DEFAULT_MOST, Backfill
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.schedule import from_plain, local
from evflow.log.keys import shared_shard
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient

if TYPE_CHECKING:
    from evflow.deployments.backfills import Name, Plan

_LOOK_EVERY_S = 0.3
_BAR_CELLS = 30


class _Backfill(click.Group):
    """`backfill cancel …` is a command of its own, everything else is the backfill that is asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] != ["cancel"]:
            args = ["of", *args]
        return super().parse_args(ctx, args)


class _OfGroup(click.Context):
    """Of a command that is called by its group's name."""

    @property
    def command_path(self) -> str:
        """`evflow backfill`, as it is typed."""
        assert self.parent is not None
        return self.parent.command_path


class _Of(click.Command):
    context_class = _OfGroup


command = _Backfill("backfill")


@command.command(
    "of",
    cls=_Of,
    help="Ask for a run at each past tick of DEPLOYMENT's schedule, from --from to --to. DEPLOYMENT is FLOW:NAME, or FLOW for the one called 'default'. "
    "A scheduler asks for the runs in the order of their ticks, each once, and skips a tick that has a successful or a running run. "
    "`evflow backfills` shows how far it is, `evflow backfill cancel FLOW/b1` ends it.",
)
@click.argument("deployment", shell_complete=of_deployments())
@click.option(
    "--from",
    "since",
    required=True,
    metavar="T",
    help="The first instant: 2026-11-01, 2026-11-01T06:00, with an offset or by the schedule's clock.",
)
@click.option("--to", "until", required=True, metavar="T", help="The last one; a date alone is the end of that day.")
@click.option("--max-parallel", type=int, default=1, show_default=True, metavar="N", help="Runs at a time.")
@click.option("--again", is_flag=True, help="Run ticks that have a run already, too.")
@click.option(
    "--param", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter; {tick} and {date} in it are those of the tick."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the runs; may be repeated.")
@click.option("--most", type=int, default=DEFAULT_MOST, show_default=True, metavar="N", help="More ticks than that are refused.")
@click.option("--dry-run", is_flag=True, help="Show what would be run and skipped; ask for nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask whether it is meant.")
@click.option("--follow", "-f", is_flag=True, help="Show how far it is until it is over; the exit code is 1 if a run failed.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def of(ctx: click.Context, /, **given: Any) -> None:
    """Plan it, ask whether it is meant, record it."""
    from evflow.deployments import backfills
    from evflow.deployments.catalog import find, parse

    as_json: bool = given["as_json"]
    wanted = parse(given["deployment"])
    wish = backfills.Wish(
        since=given["since"],
        until=given["until"],
        max_parallel=given["max_parallel"],
        again=given["again"],
        most=given["most"],
        parameters=dict(pair(text) for text in given["parameters"]),
        tags=given["tags"],
        user=config.get("user"),
        host=os.uname().nodename,
    )
    with session.log() as log:
        found = find(log, wanted)
        planned = backfills.plan(wanted, found, wish, session.store(found.store), log.now_us())
        of_ticks = backfills.preview(log, wanted.flow, planned)
        if given["dry_run"]:
            _show_plan(planned, of_ticks, str(wanted), as_json=as_json)
            return
        if not (given["yes"] or as_json):
            _ask(planned, of_ticks, str(wanted))
        asked = backfills.request(log, wanted.flow, planned, user=config.get("user"))
        name = backfills.Name(wanted.flow, asked.number)
        if as_json and not given["follow"]:
            write_json(plain(name, asked))
        elif not as_json:
            _tell(log, name, asked)
        if given["follow"]:
            asked = _follow(log, name, quiet=as_json)
            if as_json:
                write_json(plain(name, asked))
            ctx.exit(_code(asked))


@command.command(
    "cancel", help="End BACKFILL, written FLOW/b1: no more runs are asked for. Those that are there go on, unless --runs is given."
)
@click.argument("backfill", shell_complete=of_backfills())
@click.option("--runs", is_flag=True, help="Cancel its runs, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def cancel(backfill: str, runs: bool, as_json: bool) -> None:
    """End it."""
    from evflow.deployments import backfills

    name = backfills.parse(backfill)
    with session.log() as log:
        found, done = backfills.cancel(log, name, runs=runs, user=config.get("user"))
    if as_json:
        write_json(plain(name, found))
    elif not done:
        click.echo(f"{name} was over before: it is {found.status}. Nothing was done.", err=True)
    else:
        left = len(found.running)
        what = f"{count(left, 'run')} of it {'is' if left == 1 else 'are'} {'cancelled, too' if runs else 'going on'}."
        click.echo(f"{name} is cancelled: no more runs are asked for.{f' {what}' if left else ''}", err=True)


@click.command("backfills", help="List backfills, newest first; of all flows, of FLOW, or the runs of one: FLOW/b1.")
@click.argument("what", required=False, shell_complete=of_flows())
@click.option("--follow", "-f", is_flag=True, help="Show how far FLOW/b1 is until it is over; the exit code is 1 if a run failed.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def list_command(ctx: click.Context, what: str | None, follow: bool, as_json: bool) -> None:
    """List them."""
    from evflow.deployments import backfills

    try:
        with session.log() as log:
            if what is not None and "/" in what:
                name = backfills.parse(what)
                found = _follow(log, name, quiet=as_json) if follow else backfills.find(log, name)
                _show(log, name, found, as_json=as_json)
                if follow:
                    ctx.exit(_code(found))
                return
            if follow:
                raise click.UsageError("--follow wants one backfill: FLOW/b1.")
            all_of = backfills.listed(log, None if what is None else FlowName(what))
    except session.NoRunsYet:
        all_of = []
    if as_json:
        write_json([plain(name, found) for name, found in all_of])
        return
    if not all_of:
        none = f"'{what}' has no backfills." if what else "There are no backfills."
        click.echo(f"{none} `evflow backfill {what or 'FLOW'} --from T --to T` asks for one.", err=True)
        return
    head = ["backfill", "deployment", "version", "status", "from", "to", "done", "succeeded", "failed", "running", "skipped", "by"]
    rows = [_row(name, found) for name, found in all_of]
    for line in table(head, rows, right=["version", "done", "succeeded", "failed", "running", "skipped"]):
        click.echo(line)


# --- what is shown -----------------------------------------------------------------------------------------


def plain(name: "Name", found: Backfill) -> dict[str, Any]:
    """A backfill as JSON holds it."""
    fields = (
        "name",
        "version",
        "status",
        "ticks",
        "asked",
        "skipped",
        "succeeded",
        "failed",
        "max_parallel",
        "again",
        "parameters",
        "tags",
        "user",
    )
    schedule = from_plain(found.schedule)
    return {
        "backfill": str(name),
        "flow": name.flow,
        "number": name.number,
        **{field: getattr(found, field) for field in fields},
        "running": len(found.running),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "from": iso(found.from_us),
        "to": iso(found.to_us),
        "decided_until": iso(max(found.cursor_us, 0)),
        "requested_at": iso(found.requested_us),
        "by": found.by,
        "cancelled_by": found.cancelled_by or None,
        "ended_at": iso(found.ended_us or None),
    }


def _row(name: "Name", found: Backfill) -> list[str]:
    color = {"done": "green" if not found.failed else "red", "active": "cyan"}.get(found.status, "yellow")
    return [
        click.style(str(name), bold=True),
        found.name,
        str(found.version),
        click.style(found.status, fg=color),
        instant(found.from_us)[:16],
        instant(found.to_us)[:16],
        f"{_over(found)}/{found.ticks}",
        str(found.succeeded),
        str(found.failed),
        str(len(found.running)),
        str(found.skipped),
        found.user,
    ]


def _over(found: Backfill) -> int:
    """Ticks of which nothing more will come."""
    return found.skipped + found.succeeded + found.failed


def _code(found: Backfill) -> int:
    return 0 if found.status == "done" and not found.failed else 1


def _show(log: LogClient, name: "Name", found: Backfill, *, as_json: bool) -> None:
    from evflow.deployments.backfills import runs_of, status_of

    schedule = from_plain(found.schedule)
    runs = [(local(schedule, tick), str(run), status_of(log, run) or "not over") for tick, run in runs_of(log, name)]
    if as_json:
        write_json({**plain(name, found), "runs": [{"tick": tick, "run": run, "status": status} for tick, run, status in runs]})
        return
    click.echo(_line(name, found))
    for line in table(["tick", "run", "status"], runs):
        click.echo(line)


def _line(name: "Name", found: Backfill) -> str:
    cells = _BAR_CELLS * _over(found) // max(found.ticks, 1)
    parts = [f"{len(found.running)} running", f"{found.succeeded} succeeded", f"{found.failed} failed", f"{found.skipped} skipped"]
    said = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"{name}  {found.status}  {'━' * cells}{'─' * (_BAR_CELLS - cells)}  {_over(found)}/{found.ticks} ticks{f'  {said}' if said else ''}"


def _show_plan(planned: "Plan", of_ticks: list[tuple[int, str]], wanted: str, *, as_json: bool) -> None:
    schedule = from_plain(planned.event.schedule)
    if as_json:
        write_json({
            "deployment": wanted,
            "version": planned.event.version,
            "ticks": [{"tick": local(schedule, tick), "at": iso(tick), "decision": "run" if what == "run" else "skip", "reason": what} for tick, what in of_ticks],
        })  # fmt: skip
        return
    click.echo(_summary(planned, of_ticks, wanted))
    rows = [[local(schedule, tick), what] for tick, what in of_ticks]
    for line in table(["tick", ""], rows):
        click.echo(line)
    click.echo("Nothing was asked for.", err=True)


def _summary(planned: "Plan", of_ticks: list[tuple[int, str]], wanted: str) -> str:
    schedule = from_plain(planned.event.schedule)
    runs = sum(what == "run" for _, what in of_ticks)
    first, last = local(schedule, of_ticks[0][0]), local(schedule, of_ticks[-1][0])
    skipped = len(of_ticks) - runs
    head = f"{wanted} version {planned.event.version}: {count(runs, 'run')} for {count(len(of_ticks), 'tick')} from {first} to {last}, {planned.event.max_parallel} at a time."
    beside = f" {count(skipped, 'tick')} {'has' if skipped == 1 else 'have'} a run already." if skipped else ""
    return head + beside + (" The span ends now: the ticks to come are the schedule's." if planned.cut else "")


def _ask(planned: "Plan", of_ticks: list[tuple[int, str]], wanted: str) -> None:
    """Ask whether it is meant; where nobody can answer it must have been said.

    Raises:
        click.UsageError: Nobody can.
        click.Abort: It is not.
    """
    click.echo(_summary(planned, of_ticks, wanted), err=True)
    if not sys.stdin.isatty():
        raise click.UsageError("Say --yes if that is meant; --dry-run shows every tick. Nothing was asked for.")
    click.confirm("Ask for them?", abort=True, err=True)


def _tell(log: LogClient, name: "Name", asked: Backfill) -> None:
    click.echo(str(name))
    shard = shared_shard(RunId(name.flow, RunNumber(0)))
    if seen_owner(log, shard) is None:
        click.echo(explain_owner.waits("It", log, shard), err=True)
    else:
        click.echo(
            f"A scheduler carries it out: {count(asked.ticks, 'tick')}. `evflow backfills {name} --follow` says how far it is.", err=True
        )


def _follow(log: LogClient, name: "Name", *, quiet: bool) -> Backfill:
    """Show how far it is until it is over: one line that moves in a terminal, else a line for each change."""
    from evflow.deployments.backfills import find

    live = sys.stderr.isatty() and not quiet
    said = ""
    while True:
        found = find(log, name)
        line = _line(name, found)
        if line != said and not quiet:
            click.echo(f"\r\x1b[2K{line}" if live else line, nl=not live, err=True)
            said = line
        if found.is_over:
            if live:
                click.echo(err=True)
            return found
        try:
            time.sleep(_LOOK_EVERY_S)
        except KeyboardInterrupt:
            click.echo(f"{chr(10) if live else ''}{name} goes on without being watched; `evflow backfill cancel {name}` ends it.", err=True)
            raise
