"""`evflow reindex`: the index of runs, rebuilt from logs and archives."""

from typing import Any

import click

from evflow import config
from evflow.archives.reindex import FlowFindings, reindex
from evflow.cli import session
from evflow.cli.complete import of_flows
from evflow.cli.output import count, write_json
from evflow.core.ids import FlowName


@click.command(
    "reindex",
    help="Rebuild the index of runs, their tags, what is deployed and the notes of archives from logs and archives; nothing that lives is disturbed.",
)
@click.option("--flow", metavar="FLOW", shell_complete=of_flows(), help="Only this flow.")
@click.option("--dry-run", is_flag=True, help="Say what would be changed.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(ctx: click.Context, flow: str | None, dry_run: bool, as_json: bool) -> None:
    """Rebuild it. Exit code 1 where something cannot be read."""
    found: list[FlowFindings] = []
    # An emptied server is what this is for: one that was never used gets an index, too.
    with session.own_log() as log:
        for findings in reindex(log, [session.store()], FlowName(flow) if flow else None, dry_run=dry_run):
            found.append(findings)
            if not as_json:
                for line in _lines(findings, dry_run=dry_run):
                    click.echo(line)
    if as_json:
        write_json([_plain(findings) for findings in found])
    elif not found:
        click.echo(f"Neither this log nor {config.get('store')} has a run.", err=True)
    if any(findings.unreadable for findings in found):
        ctx.exit(1)


def _lines(found: FlowFindings, *, dry_run: bool) -> list[str]:
    runs = [
        *([f"{found.at_server:,} at the server"] if found.at_server else []),
        *([f"{found.archived:,} archived"] if found.archived else []),
        *([f"{found.empty:,} never began"] if found.empty else []),
        *([f"{found.lost:,} whose log is lost"] if found.lost else []),
    ]
    would = "would be " if dry_run else ""
    changes = [
        *([f"{count(found.added, 'line')} {would}added"] if found.added else []),
        *([f"{count(found.corrected, 'line')} {would}corrected"] if found.corrected else []),
        *([f"{count(found.archives, 'archive')} {would}noted"] if found.archives else []),
        *([f"tags of {count(found.tags, 'run')} {would}corrected"] if found.tags else []),
        *([f"deployments {would}corrected: {', '.join(found.deployments)}"] if found.deployments else []),
        *([f"backfills {would}corrected: {', '.join(f'b{number}' for number in found.backfills)}"] if found.backfills else []),
        *([f"the run counter {would}raised"] if found.counter else []),
    ]
    lines = [f"{click.style(found.flow, bold=True)}  {', '.join(runs) or 'no runs'}; {', '.join(changes) or 'nothing to correct'}"]
    return lines + [f"  {click.style('cannot be read', fg='red')}  {text}" for text in found.unreadable]


def _plain(found: FlowFindings) -> dict[str, Any]:
    return {
        "flow": found.flow,
        "runs": {"at_server": found.at_server, "archived": found.archived, "never_began": found.empty, "lost": found.lost},
        "changed": {
            "added": found.added,
            "corrected": found.corrected,
            "archives": found.archives,
            "tags": found.tags,
            "deployments": found.deployments,
            "backfills": found.backfills,
            "counter": found.counter,
        },
        "unreadable": found.unreadable,
    }
