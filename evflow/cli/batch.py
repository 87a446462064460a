"""`evflow batch`: this log's jobs on AWS Batch.

Jobs belong to attempts, whose runs decide what follows: an attempt whose job is ended from here counts as failed, and is tried again where its
step has `@retry`. To end a run is `evflow cancel`.
"""

from collections.abc import Sequence
from functools import partial

import anyio
import anyio.to_thread
import click

from evflow import config
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.jobs import JobRow, KillWhat, chosen, leave_word, of_user, show, tell_killed, user_of
from evflow.core.ids import RunId, RunNumber
from evflow.log.protocol import LogClient
from evflow_executors.remote.names import run_prefix

_QUEUES = click.option(
    "--queue", "queues", multiple=True, help="A queue to look into, besides `batch_job_queue` and those of the run's steps; repeatable."
)
_USER = click.option("--user", help="Jobs of this user's runs alone.")
_MINE = click.option("--my-runs", is_flag=True, help="Jobs of my runs alone.")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("batch", help="This log's jobs on AWS Batch.")
def command() -> None:
    """Group of the two."""


@command.command("list", help="List the jobs that have not ended: of RUN, or of all runs.")
@click.argument("run", required=False, shell_complete=of_runs())
@_MINE
@_USER
@_QUEUES
@_JSON
def list_command(run: str | None, my_runs: bool, user: str | None, queues: tuple[str, ...], as_json: bool) -> None:
    """List them."""
    with session.log() as log:
        rows = _rows(log, run, user_of(user, my_runs=my_runs), queues)
    show(rows, "AWS Batch", as_json=as_json)


@command.command(
    "kill", help="End the jobs of RUN; with --all those of all runs. Each attempt fails, and is tried again where its step has @retry."
)
@click.argument("run", required=False, shell_complete=of_runs("running"))
@click.option("--all", "everything", is_flag=True, help="The jobs of all runs.")
@_MINE
@_USER
@_QUEUES
@_JSON
def kill_command(run: str | None, everything: bool, my_runs: bool, user: str | None, queues: tuple[str, ...], as_json: bool) -> None:
    """End them."""
    if run is None and not (everything or my_runs or user):
        raise KillWhat("batch")
    with session.log() as log:
        rows = _rows(log, run, user_of(user, my_runs=my_runs), queues)
        leave_word(log, rows, "evflow batch kill")
    anyio.run(_kill, rows, f"evflow batch kill, by {config.get('user')}")
    tell_killed(rows, as_json=as_json)


def _rows(log: LogClient, run: str | None, user: str | None, queues: tuple[str, ...]) -> list[JobRow]:
    found, prefix = chosen(log, run)
    return of_user(log, anyio.run(_look, log, prefix, {*queues, *_queues_of(log, found)}), user)


def _queues_of(log: LogClient, run: RunId | None) -> list[str]:
    """The queues that a run's steps name."""
    if run is None:
        return []
    _, state = session.folded_or_new(log, run)
    return [str(queue) for node in state.graph.nodes.values() if (queue := node.policy.asked.get("queue"))]


async def _look(log: LogClient, prefix: str, queues: set[str]) -> list[JobRow]:
    from evflow_executors.batch.reasons import seen_of
    from evflow_executors.batch.start import platform

    batch = platform()
    try:
        jobs = await batch.listed(prefix, queues, partial(anyio.to_thread.run_sync, partial(_members_of_array, log)))
    finally:
        await batch.aclose()
    rows: list[JobRow] = []
    for job in jobs:
        seen = seen_of(job)
        created_us = int(job.get("createdAt") or 0) * 1_000
        rows.append(JobRow(str(job["jobId"]), seen.name, str(job["status"]), dict(seen.labels), created_us, seen.started_us, seen.message))
    return rows


def _members_of_array(log: LogClient, prefix: str, sheet: bytes, size: int) -> Sequence[str] | None:
    """The members of an array of the run whose jobs' names begin so; None where there is no such run, or their list is gone."""
    from evflow_executors.remote.sheets import members_if_there

    identity, number = log.installation(), prefix.split("-")[-2]
    runs = [RunId(flow, RunNumber(int(number))) for flow in log.flows()] if number.isdecimal() else []
    run = next((run for run in runs if run_prefix(identity, run) == prefix and log.run(run) is not None), None)
    store = session.folded_or_new(log, run)[1].header.get("store") if run is not None else None
    return members_if_there(str(store), sheet, size, prefix) if store else None


async def _kill(rows: Sequence[JobRow], why: str) -> None:
    from evflow_executors.batch.start import platform

    batch = platform()
    try:
        # An array's members are of one run, so all of them are meant.
        for job_id in dict.fromkeys(row.id.partition(":")[0] for row in rows):
            await batch.end(job_id, why)
    finally:
        await batch.aclose()
