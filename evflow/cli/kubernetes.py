"""`evflow kubernetes`: this log's Jobs on Kubernetes.

Jobs belong to attempts, whose runs decide what follows: an attempt whose Job is removed from here counts as failed, and is tried again where its
step has `@retry`. To end a run is `evflow cancel`. Jobs that have ended stay for a day, for people to look at, unless the server is older than 1.21: it
never removes them, and `kill --ended` does.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import click

from evflow import config
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.jobs import JobRow, KillWhat, chosen, leave_word, of_user, show, tell_killed, user_of
from evflow.core.ids import RunId
from evflow.log.protocol import LogClient

if TYPE_CHECKING:  # it imports an HTTP client
    from evflow_executors.kubernetes.api import KubernetesApi
    from evflow_executors.kubernetes.jobs import JobThere

_NAMESPACES = click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    help="A namespace to look into, besides `kubernetes_namespace` and those of the run's steps; repeatable.",
)
_USER = click.option("--user", help="Jobs of this user's runs alone.")
_MINE = click.option("--my-runs", is_flag=True, help="Jobs of my runs alone.")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("kubernetes", help="This log's Jobs on Kubernetes.")
def command() -> None:
    """Group of the two."""


@command.command("list", help="List the Jobs that have not ended: of RUN, or of all runs.")
@click.argument("run", required=False, shell_complete=of_runs())
@click.option("--ended", is_flag=True, help="And those that have ended and are still there.")
@_MINE
@_USER
@_NAMESPACES
@_JSON
def list_command(run: str | None, ended: bool, my_runs: bool, user: str | None, namespaces: tuple[str, ...], as_json: bool) -> None:
    """List them."""
    with session.log() as log:
        rows = _rows(log, run, user_of(user, my_runs=my_runs), namespaces, lambda job: ended or not job.has_ended)
    show(rows, "Kubernetes", as_json=as_json)


@command.command(
    "kill", help="Remove the Jobs of RUN; with --all those of all runs. Each attempt fails, and is tried again where its step has @retry."
)
@click.argument("run", required=False, shell_complete=of_runs())
@click.option("--all", "everything", is_flag=True, help="The Jobs of all runs.")
@click.option("--ended", is_flag=True, help="Those that have ended, in place of those that have not; without RUN of all runs.")
@_MINE
@_USER
@_NAMESPACES
@_JSON
def kill_command(
    run: str | None, everything: bool, ended: bool, my_runs: bool, user: str | None, namespaces: tuple[str, ...], as_json: bool
) -> None:
    """Remove them."""
    if run is None and not (everything or ended or my_runs or user):
        raise KillWhat("kubernetes")
    with session.log() as log:
        rows = _rows(log, run, user_of(user, my_runs=my_runs), namespaces, lambda job: job.has_ended == ended)
        if not ended:
            leave_word(log, rows, "evflow kubernetes kill")
    anyio.run(_kill, rows)
    tell_killed(rows, as_json=as_json)


def _rows(
    log: LogClient, run: str | None, user: str | None, namespaces: tuple[str, ...], wanted: "Callable[[JobThere], bool]"
) -> list[JobRow]:
    found, prefix = chosen(log, run)
    jobs = anyio.run(_look, prefix, {*namespaces, *_namespaces_of(log, found)})
    rows = [
        JobRow(f"{job.namespace}/{job.name}", job.name, job.status, job.labels, job.created_us, job.started_us, job.why, job.nodes)
        for job in jobs
        if wanted(job)
    ]
    return of_user(log, rows, user)


def _namespaces_of(log: LogClient, run: RunId | None) -> list[str]:
    """The namespaces that a run's steps name."""
    if run is None:
        return []
    _, state = session.folded_or_new(log, run)
    return [str(name) for node in state.graph.nodes.values() if (name := node.policy.asked.get("namespace"))]


async def _look(prefix: str, namespaces: set[str]) -> "list[JobThere]":
    from evflow_executors.kubernetes.jobs import jobs_there

    api = await _connected()
    try:
        everywhere = sorted({config.get("kubernetes_namespace") or api.namespace, *namespaces})
        return [job for namespace in everywhere for job in await jobs_there(api, prefix, namespace)]
    finally:
        await api.aclose()


async def _kill(rows: Sequence[JobRow]) -> None:
    from evflow_executors.kubernetes.jobs import remove

    api = await _connected()
    try:
        for row in rows:
            await remove(api, row.id.partition("/")[0], row.name)
    finally:
        await api.aclose()


async def _connected() -> "KubernetesApi":
    from evflow_executors.kubernetes.api import KubernetesApi
    from evflow_executors.kubernetes.start import cluster, installed, rate

    installed()
    return await KubernetesApi.connect(cluster(), rate(config.get("kubernetes_rate")))
