"""Jobs on platforms of containers, for the commands that list and end them (`evflow batch`, `evflow kubernetes`)."""

from collections.abc import Sequence
from typing import Any

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.naming import parse, resolve
from evflow.cli.output import count, duration, iso, table, write_json
from evflow.core.codec import encode_report
from evflow.core.events import AttemptFailed
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.state import RunState
from evflow.core.values import field, value
from evflow.errors import UsageError
from evflow.log.protocol import LogClient
from evflow_executors.remote import reports
from evflow_executors.remote.names import LABELS, log_prefix, run_prefix


class KillWhat(UsageError):
    """`kill` was told neither a run nor `--all`."""

    code = "kill-what"

    def __init__(self, platform: str) -> None:
        super().__init__(
            f"`evflow {platform} kill` ends jobs of a run, and none is named.", "Name it, or give --all for those of all runs."
        )


@value
class JobRow:
    """A job that has not ended.

    Attributes:
        id: What the platform calls it.
        name: Its name.
        status: Its state, in the platform's words.
        labels: What it carries (`evflow_executors.remote.names.LABELS`).
        created_us: When it was submitted.
        started_us: When its container began; 0 before.
        message: Why it waits, where that is not as usual.
        nodes: How many nodes the gang has that it is; 1 of an attempt by itself.
    """

    id: str
    name: str
    status: str
    labels: dict[str, str] = field(default_factory=dict[str, str])
    created_us: int = 0
    started_us: int = 0
    message: str = ""
    nodes: int = 1

    @property
    def run(self) -> str:
        """The run, as `Flow/3`; an empty string where the job does not say."""
        flow, number = self.labels.get(LABELS[3], ""), self.labels.get(LABELS[4], "")
        return f"{flow}/{number}" if flow and number else ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        number = self.labels.get(LABELS[4], "")
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "flow": self.labels.get(LABELS[3]),
            "run": int(number) if number.isdecimal() else None,
            "step": self.labels.get(LABELS[5]),
            "task": _number(self.labels.get(LABELS[6], "")),
            "attempt": _number(self.labels.get(LABELS[7], "")),
            "nodes": self.nodes,
            "created_at": iso(self.created_us or None),
            "started_at": iso(self.started_us or None),
            "message": self.message,
        }


def chosen(log: LogClient, run: str | None) -> tuple[RunId | None, str]:
    """The run that was named, if one was, and how the names of the jobs begin that are meant.

    Raises:
        UsageError: There is no such run.
    """
    found = resolve(log, parse(run)) if run is not None else None
    identity = log.installation()
    return found, run_prefix(identity, found) if found is not None else log_prefix(identity)


def of_user(log: LogClient, rows: Sequence[JobRow], user: str | None) -> list[JobRow]:
    """The jobs of the runs of a user; all of them with None."""
    if user is None:
        return list(rows)
    mine: dict[str, bool] = {}
    for name in {row.run for row in rows if row.run}:
        entry = log.run(RunId.parse(name))
        mine[name] = entry is not None and entry.summary.get("user") == user
    return [row for row in rows if mine.get(row.run)]


def user_of(user: str | None, *, my_runs: bool) -> str | None:
    """Whose jobs are meant."""
    return str(config.get("user")) if my_runs else user


def show(rows: Sequence[JobRow], platform: str, *, as_json: bool) -> None:
    """Print them."""
    if as_json:
        write_json([row.plain() for row in rows])
        return
    if not rows:
        click.echo(f"No job of this log is on {platform} now.", err=True)
        return
    now_us = clock.now_us()
    cells = [
        [
            row.run,
            f"{row.labels.get(LABELS[5], '')}/{row.labels.get(LABELS[6], '')}{_last_node(row)}",
            row.labels.get(LABELS[7], ""),
            row.status.lower(),
            duration(now_us - (row.started_us or row.created_us)) if row.started_us or row.created_us else "",
            row.id,
            row.message,
        ]
        for row in rows
    ]
    for line in table(["run", "task", "attempt", "state", "for", "job", "why"], cells, right=["attempt"], flexible="why"):
        click.echo(line)
    click.echo(count(len(rows), "job"), err=True)


def leave_word(log: LogClient, rows: Sequence[JobRow], command: str) -> None:
    """Say in the store how the attempts end whose jobs are about to be ended; their containers see no more than a SIGTERM.

    Raises:
        StoreFull, StoreUnusable: The store of a run does not take it.
    """
    stores: dict[str, str] = {}
    for row in rows:
        task, attempt = _number(row.labels.get(LABELS[6], "")), _number(row.labels.get(LABELS[7], ""))
        if not row.run or task is None or attempt is None:
            continue
        run = RunId.parse(row.run)
        if row.run not in stores:
            state = session.folded_or_new(log, run)[1] if log.run(run) is not None else RunState()
            stores[row.run] = "" if state.sealed else str(state.header.get("store") or "")
        if stores[row.run]:
            for node in range(task, task + row.nodes):
                failed = AttemptFailed(node, attempt, "container", "killed-by-hand", f"Its job was ended by `{command}`.")
                payload = encode_report(failed, principal=f"user:{config.get('user')}")
                reports.leave(stores[row.run], AttemptId(run, TaskId(node), attempt), [payload])


def tell_killed(rows: Sequence[JobRow], *, as_json: bool) -> None:
    """Say what was ended."""
    if as_json:
        write_json([row.plain() for row in rows])
    else:
        click.echo(f"{count(len(rows), 'job')} told to end." if rows else "There is no such job.", err=True)


def _last_node(row: JobRow) -> str:
    """Of a gang: `-5` behind the task of node 0, up to which its nodes' tasks go."""
    first = _number(row.labels.get(LABELS[6], ""))
    return f"-{first + row.nodes - 1}" if first is not None and row.nodes > 1 else ""


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
