"""`evflow archive`: move the logs of runs that are over from the server to the store, as a scheduler does by itself."""

from collections.abc import Iterator
from typing import Any

import click

from evflow import config
from evflow.archives.archiving import Archivist
from evflow.archives.keeping import Counts, Done, move
from evflow.cli import session
from evflow.cli.complete import of_flows, of_runs
from evflow.cli.naming import NoSuchRun, whole
from evflow.cli.output import count, size, write_json
from evflow.cli.setting_option import option_of, setting_option
from evflow.core.ids import FlowName, RunId
from evflow.core.retention import next_move
from evflow.log.archived import LogKeeper

_CHUNK = 1_000


def _archive(runs: tuple[str, ...], every: bool, flow: str | None, hot_for: float | None, dry_run: bool, as_json: bool) -> None:
    if bool(runs) == (every or flow is not None):
        raise click.UsageError("Name the runs, or give --all or --flow FLOW.")
    if hot_for is not None:
        config.set_option("hot_for", hot_for, option_of("hot_for"))
    hot_for_us, counts, found = round(config.get("hot_for") * 1e6), Counts(), list[Done]()
    try:
        with session.log() as log:
            archivist = Archivist(log, config.get("store"), f"user:{config.get('user')}")
            now_us = log.now_us()
            for run in _wanted(log, runs, flow):
                done = _foreseen(log, archivist, run, hot_for_us, now_us) if dry_run else move(log, archivist, run, hot_for_us, now_us)
                counts.add(done)
                if as_json:
                    found.append(done)
                elif runs or done.archived is not None or done.why[0] not in ("", "not-over", "empty"):
                    click.echo(_line(done, dry_run=dry_run), err=bool(done.why[0]))
            if not runs and not dry_run:
                counts.segments = sum(archivist.trim(name) for name in ([FlowName(flow)] if flow else log.flows()))
    except session.NoRunsYet as error:
        if runs:
            raise
        error.as_list(as_json=as_json)
        return
    if as_json:
        write_json({"dry_run": dry_run, "runs": [_plain(done) for done in found], "segments": counts.segments})
    elif not runs:
        _sum_up(counts, dry_run=dry_run)
    if any(reason not in ("not-over", "empty") for reason in counts.refused) or (runs and counts.refused):
        raise click.exceptions.Exit(1)


def _wanted(log: LogKeeper, runs: tuple[str, ...], flow: str | None) -> Iterator[RunId]:
    """The runs that are meant; of whole flows those with a log at the server."""
    if runs:
        for text in runs:
            yield whole(log, text)
        return
    known = log.flows()
    if flow is not None and flow not in known:
        raise NoSuchRun(flow, known)
    for name in [FlowName(flow)] if flow else known:
        (numbers,) = log.hot([name], None, 1_000_000_000)
        yield from (RunId(name, number) for number in sorted(numbers))


def _foreseen(log: LogKeeper, archivist: Archivist, run: RunId, hot_for_us: int, now_us: int) -> Done:
    """What `move` would do."""
    from evflow.archives.archiving import NotArchivable

    archived = log.archived(run)
    try:
        sealed = archivist.sealed(run)
        if sealed is None:
            return Done(run, archived, gone=archived is not None, why=("", "") if archived else ("empty", "it has no events"))
        archived = archived or archivist.planned(sealed)
    except NotArchivable as error:
        return Done(run, why=(error.why, error.message))
    now = next_move(archived=bool(archived.digest), sealed_us=sealed.sealed_us, hot_for_us=hot_for_us, now_us=now_us)
    then = next_move(archived=True, sealed_us=sealed.sealed_us, hot_for_us=hot_for_us, now_us=now_us)
    return Done(run, archived, now == "archive", then == "drop")


def _line(done: Done, *, dry_run: bool) -> str:
    run = click.style(str(done.run), bold=True)
    if done.archived is None:
        return done.why[1]
    if done.gone:
        return f"{run}  archived before; not at the server any more"
    acts = [
        *(["to be archived" if dry_run else f"archived, {count(done.archived.events, 'event')} in {size(done.archived.size_bytes)}"] if done.fresh else []),
        *(["to be removed from the server" if dry_run else "not at the server any more"] if done.dropped else []),
    ]  # fmt: skip
    return f"{run}  {'; '.join(acts) or 'archived before; still at the server'}"


def _sum_up(counts: Counts, *, dry_run: bool) -> None:
    if dry_run:
        click.echo(
            f"{count(counts.archived, 'run')} to archive, {counts.dropped:,} to remove from the server. Nothing was changed.", err=True
        )
        return
    click.echo(
        f"{count(counts.archived, 'run')} archived ({size(counts.archived_bytes)}), {counts.dropped:,} removed from the server.", err=True
    )
    waiting = counts.refused.get("not-over", 0)
    if waiting:
        click.echo(f"{count(waiting, 'run')} {'goes' if waiting == 1 else 'go'} on.", err=True)


def _plain(done: Done) -> dict[str, Any]:
    archived = done.archived
    return {
        "run": str(done.run),
        "archived": archived is not None,
        "archived_now": done.fresh,
        "at_server": not (done.dropped or done.gone) and done.why[0] != "empty",
        "store": archived.store if archived else None,
        "name": archived.name if archived else None,
        "sha256": archived.digest if archived else None,
        "bytes": archived.size_bytes if archived else None,
        "events": archived.events if archived else None,
        "why": done.why[0] or None,
        "said": done.why[1] or None,
    }


command = click.Command(
    "archive",
    callback=_archive,
    params=[
        click.Argument(["runs"], nargs=-1, metavar="[RUN]...", shell_complete=of_runs("succeeded", "failed", "cancelled")),
        click.Option(["--all", "every"], is_flag=True, help="All runs that are over."),
        click.Option(["--flow"], metavar="FLOW", shell_complete=of_flows(), help="All runs of a flow that are over."),
        setting_option("hot_for", "TIME", "How long a log stays at the server after its run's end: 12h, 7d; 0: not at all  [default: 1d]"),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be done."),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
    ],
    help="Move the logs of runs that are over to the store: archive them, read the archives back, and remove from the server those whose time there is "
    "over. Every command finds them as before. A scheduler does it by itself.",
)
