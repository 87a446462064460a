"""`evflow kubernetes`: the Jobs that evflow has made on Kubernetes, listed and removed."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evflow import clock, config
from evflow.cli import naming, session
from evflow.cli.output import count, duration, iso, table, write_json
from evflow.core.ids import RunId
from evflow.errors import UsageError

if TYPE_CHECKING:  # it imports an HTTP client
    from evflow_executors.kubernetes.api import KubernetesApi
    from evflow_executors.kubernetes.jobs import JobRow

T = TypeVar("T")
_HEAD = ("JOB", "NAMESPACE", "ATTEMPT", "STEP", "STATUS", "AGE", "NODE", "WHY")


class NothingToKill(UsageError):
    """`kill` was not told what."""

    code = "nothing-to-kill"

    def __init__(self) -> None:
        super().__init__(
            "`evflow kubernetes kill` was not told whose Jobs.", "Name a run (`kill Train/3`), or say --ended for those that are over."
        )


@click.group("kubernetes", help="List and remove the Jobs that evflow has made on Kubernetes.")
def command() -> None:
    """Take a command."""


def _where(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="As JSON."),
        click.option("--all-logs", is_flag=True, help="Those of other logs as well, such as other people's."),
        click.option(
            "--namespace",
            "namespaces",
            multiple=True,
            metavar="NAME",
            help="Look there in place of the namespace of the settings; repeatable.",
        ),
    ):
        function = option(function)
    return function


@command.command("list", help="List Jobs, those of a run or all: what they run, how they are, and why they wait.")
@click.argument("run", required=False)
@_where
def list_command(run: str | None, namespaces: tuple[str, ...], all_logs: bool, as_json: bool) -> None:
    """List them."""
    found = _found(run, namespaces, all_logs=all_logs)
    if as_json:
        write_json([_plain(row) for row in found])
    elif not found:
        click.echo("There are no Jobs of evflow.", err=True)
    else:
        now_us = clock.now_us()
        cells = [
            (row.name, row.namespace, row.attempt, row.step, row.status, duration(now_us - row.made_us), row.node, row.why) for row in found
        ]
        for line in table(_HEAD, cells, flexible="WHY"):
            click.echo(line)


@command.command(
    "kill",
    help="Remove the Jobs of a run, and end their pods; or those that are over. A run that lives on sees that they are gone: `evflow cancel` ends a run.",
)
@click.argument("run", required=False)
@click.option("--ended", is_flag=True, help="Only those that are over; without RUN: of all runs.")
@_where
def kill_command(run: str | None, ended: bool, namespaces: tuple[str, ...], all_logs: bool, as_json: bool) -> None:
    """Remove them."""
    if run is None and not ended:
        raise NothingToKill
    found = _found(run, namespaces, all_logs=all_logs, kill=lambda row: row.has_ended or not ended)
    if as_json:
        write_json([_plain(row) for row in found])
    else:
        click.echo(f"{count(len(found), 'Job')} removed.")


def _found(
    run: str | None, namespaces: tuple[str, ...], *, all_logs: bool, kill: "Callable[[JobRow], bool] | None" = None
) -> "list[JobRow]":
    """The Jobs; where some are to be killed, those that were."""
    from evflow_executors.kubernetes import jobs, start

    log, of = _log_and_run(run, all_logs=all_logs)
    operator = start.operator()

    async def ask(api: "KubernetesApi") -> "list[JobRow]":
        found = await jobs.jobs_of(api, log, of, jobs.namespaces_of(operator, api, namespaces))
        if kill is None:
            return found
        killed = [row for row in found if kill(row)]
        for row in killed:
            await jobs.remove(api, row)
        return killed

    return _asked(ask)


def _log_and_run(run: str | None, *, all_logs: bool) -> tuple[str | None, RunId | None]:
    """The log's identity, and the run that is meant; a machine without runs has no Jobs but those of others."""
    try:
        with session.log() as log:
            of = naming.whole(log, run) if run is not None else None
            return None if all_logs else log.installation(), of
    except session.NoRunsYet:
        if run is not None or not all_logs:
            raise
        return None, None


def _asked(ask: "Callable[[KubernetesApi], Awaitable[T]]") -> T:
    import anyio

    from evflow_executors.kubernetes import start
    from evflow_executors.kubernetes.api import KubernetesApi

    async def asked() -> T:
        start.installed()
        api = await KubernetesApi.connect(start.cluster(), start.rate(config.get("kubernetes_rate")))
        try:
            return await ask(api)
        finally:
            await api.aclose()

    return anyio.run(asked)


def _plain(row: "JobRow") -> dict[str, Any]:
    attempt = row.attempt.rpartition("/")
    flow, _, number = attempt[0].rpartition("/")
    task, _, again = attempt[2].partition(".")
    return {
        "job": row.name,
        "namespace": row.namespace,
        "flow": flow or None,
        "run": int(number) if number.isdecimal() else None,
        "step": row.step,
        "task": int(task) if task.isdecimal() else None,
        "attempt": int(again) if again.isdecimal() else None,
        "status": row.status,
        "why": row.why or None,
        "pod": row.pod or None,
        "node": row.node or None,
        "created": iso(row.made_us),
    }
