"""`evflow gc`: remove from the store what no kept run needs."""

import os
from typing import Any

import click

from evflow import config
from evflow.archives.archiving import Archivist
from evflow.archives.collect import DEFAULT_GRACE_S, LEAST_GRACE_S, Collected, collect
from evflow.archives.forget import forget, outdated
from evflow.archives.users import retire, shown, users
from evflow.cli import session
from evflow.cli.complete import of_flows
from evflow.cli.forget import confirmed
from evflow.cli.naming import NoSuchRun
from evflow.cli.output import count, size, write_json
from evflow.core.ids import FlowName, RunId
from evflow.core.retention import Kept
from evflow.log.keeper import RedisLogKeeper
from evflow.store import Store

_DAY_US = 86_400_000_000


def _span(_context: click.Context, parameter: click.Parameter, given: str) -> float:
    try:
        seconds = float(config.SPAN.read(given))
    except (ValueError, TypeError):
        raise click.BadParameter(f"{given!r} is not {config.SPAN.wanted}.", param=parameter) from None
    if seconds < LEAST_GRACE_S:
        raise click.BadParameter(f"{given} is too short: a task may take an hour from its first object to its report.", param=parameter)
    return seconds


def _gc(
    keep_days: float | None, keep_last: int | None, keep_tags: tuple[str, ...], flow: str | None, grace: float, retired: tuple[str, ...],
    yes: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    if (flow is not None or keep_tags) and keep_days is None and keep_last is None:
        raise click.UsageError("--flow and --keep-tag say which runs a rule is for: give --keep-last or --keep-days too.")
    try:
        with session.log() as log:
            kept = Kept(keep_last, None if keep_days is None else int(log.now_us() - keep_days * _DAY_US))
            runs = _outdated(log, kept, flow, frozenset(keep_tags))
            if runs and not dry_run:
                confirmed(f"Forget {count(len(runs), 'run')}, {runs[0]} to {runs[-1]}, for ever?", yes=yes)
                archivist = Archivist(log, config.get("store"), f"user:{config.get('user')}")
                for run in runs:
                    forget(log, archivist, run, f"gc: {_rule(keep_last, keep_days)}", f"user:{config.get('user')}")
            store = session.store()
            present = _present(store, retired)
            here = (shown(log.url), os.uname().nodename)
            found = collect(log, store, grace_s=grace, retired=present, here=here, dry_run=dry_run)
            if not dry_run:
                for installation in present:
                    retire(store, installation)
    except session.NoRunsYet as error:
        error.as_list(as_json=as_json)
        return
    if as_json:
        write_json(_plain(found, runs, dry_run=dry_run))
    else:
        _print(found, runs, dry_run=dry_run)


def _present(store: Store, retired: tuple[str, ...]) -> list[str]:
    """Those that do use the store; what is said of the others is no reason to stop, since a second time is as good as the first."""
    known = [user.installation for user in users(store)]
    for one in retired:
        if one not in known:
            hint = f"It is used by {', '.join(known)}." if known else "No log has left a note there."
            click.echo(f"Note: No log with the id '{one}' uses this store. {hint}", err=True)
    return [one for one in retired if one in known]


def _outdated(log: RedisLogKeeper, kept: Kept, flow: str | None, tags: frozenset[str]) -> list[RunId]:
    known = log.flows()
    if flow is not None and flow not in known:
        raise NoSuchRun(flow, known)
    return [run for name in ([FlowName(flow)] if flow else known) for run in outdated(log, name, kept, tags)]


def _rule(last: int | None, days: float | None) -> str:
    return " and ".join([*([f"keep-last {last}"] if last is not None else []), *([f"keep-days {days:g}"] if days is not None else [])])


def _print(found: Collected, runs: list[RunId], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if runs:
        click.echo(
            f"{count(len(runs), 'run')} {would}forgotten; what {'it' if len(runs) == 1 else 'they'} alone needed goes when the grace is over."
        )
    click.echo(
        f"{count(found.objects, 'object')} ({size(found.objects_bytes)}) {would}removed; {found.kept:,} needed, {found.young:,} too young."
    )
    if found.files:
        click.echo(f"{count(found.files, 'file')} ({size(found.files_bytes)}) of runs that are gone {would}removed.")
    click.echo(f"{count(found.logs, 'log')} read.{' Nothing was changed.' if dry_run else ''}", err=True)


def _plain(found: Collected, runs: list[RunId], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "forgotten": [str(run) for run in runs],
        "objects": {"removed": found.objects, "bytes": found.objects_bytes, "needed": found.kept, "young": found.young},
        "files": {"removed": found.files, "bytes": found.files_bytes},
        "logs_read": found.logs,
    }


command = click.Command(
    "gc",
    callback=_gc,
    params=[
        click.Option(
            ["--keep-last"],
            type=click.IntRange(0),
            metavar="N",
            help="First forget what is not among the N newest runs of its flow that are over.",
        ),
        click.Option(
            ["--keep-days"],
            type=click.FloatRange(0),
            metavar="N",
            help="First forget runs that ended more than N days ago; with --keep-last both must let a run go.",
        ),
        click.Option(
            ["--keep-tag", "keep_tags"], multiple=True, metavar="TAG", help="Runs with this tag are not forgotten; may be repeated."
        ),
        click.Option(["--flow"], metavar="FLOW", shell_complete=of_flows(), help="Forget runs of this flow only."),
        click.Option(
            ["--grace"],
            default=f"{DEFAULT_GRACE_S / 86_400:g}d",
            show_default=True,
            callback=_span,
            metavar="TIME",
            help="What is younger stays, whatever needs it.",
        ),
        click.Option(
            ["--retire", "retired"], multiple=True, metavar="ID", help="A log that used this store and is gone for good; may be repeated."
        ),
        click.Option(["--yes", "-y"], is_flag=True, help="Ask nothing."),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be removed."),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
    ],
    help="Remove from the store what no run, no deployment and no report on its way refers to: artifacts, code, output, archives of forgotten runs. "
    "Runs may go on beside it.",
)
