"""`evflow runs`: the index of runs."""

from typing import Any

import click

from evflow.cli import session
from evflow.cli.complete import of_flows
from evflow.cli.output import duration, instant, iso, table, write_json
from evflow.core.ids import FlowName
from evflow.core.summary import GONE
from evflow.core.tags import is_of_scheduler
from evflow.log.owners import is_owned
from evflow.log.protocol import LogClient, RunEntry

STATUS_COLORS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "paused": "yellow",
    "interrupted": "magenta",
    "requested": "blue",
    "refused": "red",
    "given-up": "red",
}


@click.command("runs", help="List runs, newest first: of all flows, or of FLOW.")
@click.argument("flow", required=False, shell_complete=of_flows())
@click.option("--limit", "-n", type=click.IntRange(1), default=20, show_default=True, help="How many to list.")
@click.option("--status", type=click.Choice(list(STATUS_COLORS)), help="Only runs with this status.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag, the user's or a system one; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(flow: str | None, limit: int, status: str | None, tags: tuple[str, ...], as_json: bool) -> None:
    """List them."""
    try:
        with session.log() as log:
            runs = _runs(log, flow, limit, status, set(tags))
    except session.NoRunsYet as error:
        error.as_list(as_json=as_json)
        return
    if as_json:
        write_json([plain(run) for run in runs])
    else:
        _print(runs, all_of_them=not (flow or status or tags))


def _runs(log: LogClient, flow: str | None, limit: int, status: str | None, tags: set[str]) -> list[RunEntry]:
    from evflow.cli.naming import NoSuchRun

    flows = log.flows()
    if flow is not None and flow not in flows:
        raise NoSuchRun(flow, flows)
    # A filter must see all runs; without one the newest of each flow are enough.
    entries = [entry for name in ([FlowName(flow)] if flow else flows) for entry in log.runs(name, None if status or tags else limit)]
    entries.sort(key=lambda entry: (_since_us(entry), entry.run.number), reverse=True)
    # Tags are changed after the index was written.
    changed = {entry_flow: log.all_tags(entry_flow) for entry_flow in {entry.run.flow for entry in entries}}
    found: list[RunEntry] = []
    for entry in entries:
        seen = as_it_is(log, entry, changed[entry.run.flow].get(entry.run.number))
        if (status is None or seen.summary.get("status") == status) and tags <= _tags(seen):
            found.append(seen)
        if len(found) == limit:
            break
    return found


def as_it_is(log: LogClient, entry: RunEntry, changed: tuple[str, ...] | None) -> RunEntry:
    """The entry with what its owner did not write: tags that changed later, and `interrupted` where nobody runs it.

    Without what it wrote when the run began, or went on, and may not be so any more: how many tasks there are.
    """
    summary = dict(entry.summary)
    if summary.get("status") == "running":
        summary.pop("tasks", None)
    if changed is not None:
        summary["tags"] = list(changed)
    if summary.get("status") in ("running", "paused") and not is_owned(log, entry.shard):
        summary["status"] = "interrupted"
    return RunEntry(entry.run, entry.shard, summary)


def _since_us(entry: RunEntry) -> int:
    return int(entry.summary.get("started_us") or entry.summary.get("requested_us") or 0)


def _tags(entry: RunEntry) -> set[str]:
    return {*entry.summary.get("tags", ()), *entry.summary.get("system_tags", ())}


def plain(entry: RunEntry) -> dict[str, Any]:
    """A run's line as JSON holds it."""
    summary = entry.summary
    started, finished = summary.get("started_us") or None, summary.get("finished_us") or None
    return {
        "run": str(entry.run),
        "flow": entry.run.flow,
        "number": entry.run.number,
        "status": summary.get("status"),
        "started_at": iso(started),
        "finished_at": iso(finished),
        "duration_s": (finished - started) / 1e6 if started and finished else None,
        "user": summary.get("user"),
        "namespace": summary.get("namespace"),
        "tags": list(summary.get("tags", ())),
        "system_tags": list(summary.get("system_tags", ())),
        "host": summary.get("host"),
        "tasks": summary.get("tasks"),
        "origin": summary.get("origin"),
        "reason": summary.get("reason") or None,
        "priority": summary.get("priority", 0),
    }


def styled_status(status: str) -> str:
    """The status in its color."""
    return click.style(status, fg=STATUS_COLORS.get(status))


def _print(runs: list[RunEntry], *, all_of_them: bool) -> None:
    if not runs:
        click.echo("There are no runs in this log yet.\nStart one with `python flow.py run`." if all_of_them else "No run fits.", err=True)
        return
    rows: list[list[str]] = []
    for entry in runs:
        summary = entry.summary
        started, finished = summary.get("started_us"), summary.get("finished_us")
        rows.append([
            click.style(str(entry.run), bold=True),
            styled_status(str(summary.get("status", "?"))),
            instant(started)[:19] if started else "",
            duration(finished - started) if started and finished else "",
            str(summary.get("tasks", "")),
            str(summary.get("user", "")),
            ", ".join(summary.get("tags", ())),
        ])  # fmt: skip
    for line in table(["run", "status", "started", "took", "tasks", "user", "tags"], rows, right=["took", "tasks"]):
        click.echo(line)
    interrupted = [entry for entry in runs if entry.summary.get("status") == "interrupted"]
    dead = next((entry.run for entry in interrupted if not is_of_scheduler(entry.summary)), None)
    left = next((entry.run for entry in interrupted if is_of_scheduler(entry.summary)), None)
    waiting = next((entry.run for entry in runs if entry.is_requested), None)
    gone = next((entry for entry in runs if entry.summary.get("status") in GONE), None)
    if gone is not None:
        click.echo(f"{gone.run} has no log: `evflow show {gone.run}` says why.", err=True)
    if waiting is not None:
        click.echo(f"A requested run waits for a scheduler: `evflow explain {waiting}` says whether there is one.", err=True)
    if left is not None:
        click.echo(f"The scheduler of {left} is gone: `evflow scheduler` goes on with it.", err=True)
    if dead is not None:
        click.echo(f"The process of an interrupted run died: `evflow continue {dead}` goes on with it.", err=True)
