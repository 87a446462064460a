"""`evflow run`: ask schedulers for a run of a deployed flow."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from evflow import config
from evflow.cli import explain_owner, session
from evflow.cli.complete import of_deployments
from evflow.cli.output import write_json
from evflow.deployments.catalog import DeploymentNotFound, find, parse
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient, shown_owner

if TYPE_CHECKING:
    from evflow.deployments.request import Requested


class _Run(click.Command):
    """Says how parameters are given, to whoever writes them as `python flow.py run` takes them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-")
            raise click.UsageError(f"{error.format_message()} A parameter of the flow is given as: --param {name}=VALUE", ctx) from None


@click.command(
    "run", cls=_Run, help="Ask for a run of DEPLOYMENT: FLOW:NAME, or FLOW for the one called 'default'. A scheduler carries it out."
)
@click.argument("deployment", shell_complete=of_deployments())
@click.option("--param", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the flow; may be repeated.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the run; may be repeated.")
@click.option(
    "--priority",
    type=click.IntRange(-1_000_000, 1_000_000),
    metavar="N",
    help="Whose tasks get slots first: higher ones; the deployment's if not given.",
)
@click.option("--on-failure", type=click.Choice(["fail", "pause"]), help="When a task has no attempt left; the deployment's if not given.")
@click.option("--no-cache", is_flag=True, help="Run steps with @cached although the same was done before.")
@click.option("--follow", "-f", is_flag=True, help="Show the run until it ends; the exit code is the run's.")
@click.option("--quiet", is_flag=True, help="With --follow: show only what tasks print, and errors.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    deployment: str,
    parameters: tuple[str, ...],
    tags: tuple[str, ...],
    priority: int | None,
    on_failure: str | None,
    no_cache: bool,
    follow: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Ask for it, and see it happen."""
    given = dict(pair(text) for text in parameters)
    wished = {"priority": priority, "on_failure": on_failure, "cache": False if no_cache else None}
    options = {name: value for name, value in wished.items() if value is not None}
    with _log_of(deployment) as log:
        requested = _request(log, deployment, given, tags, options)
        owner = seen_owner(log, requested.shard)
        if as_json:
            _write(requested, owner)
        elif not follow:
            _tell(log, requested, owner)
        if not follow:
            return
        from evflow.cli.follow import follow as follow_run

        state = follow_run(log, requested.run, requested.shard, quiet=quiet or as_json)
    ctx.exit(0 if state.status == "succeeded" else 1)


@contextmanager
def _log_of(deployment: str) -> Generator[LogClient]:
    """The log; where there is none yet, nothing is deployed in it.

    Raises:
        DeploymentNotFound: There is none.
    """
    with ExitStack() as opened:
        try:
            log = opened.enter_context(session.log())
        except session.NoRunsYet:
            raise DeploymentNotFound(*parse(deployment), {}) from None
        yield log


def pair(text: str) -> tuple[str, str]:
    """Take NAME=VALUE apart."""
    name, equals, given = text.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"'{text}' is not of the form NAME=VALUE.", param_hint="--param")
    return name.strip(), given


def _request(log: LogClient, text: str, given: dict[str, str], tags: tuple[str, ...], options: dict[str, Any]) -> "Requested":
    from evflow.deployments.request import Asked, request_run

    found = find(log, parse(text))
    return request_run(log, session.store(found.store), found, Asked(given, tags, config.get("user"), os.uname().nodename, None, options))


def _write(requested: "Requested", owner: str | None) -> None:
    deployment = requested.deployment
    write_json({
        "run": str(requested.run),
        "flow": requested.run.flow,
        "number": requested.run.number,
        "deployment": deployment.name,
        "version": deployment.version,
        "paused": deployment.paused,
        "status": "requested",
        "shard": requested.shard,
        "scheduler": owner,
        "parameters": requested.started.parameters_shown,
    })  # fmt: skip


def _tell(log: LogClient, requested: "Requested", owner: str | None) -> None:
    deployment = requested.deployment
    click.echo(str(requested.run))
    if deployment.paused:
        click.echo(f"Note: the deployment is paused, which runs that people ask for do not mind: {requested.run} will run.", err=True)
    if owner is None:
        click.echo(explain_owner.waits("It", log, requested.shard), err=True)
    else:
        click.echo(f"A scheduler takes it: {shown_owner(owner)}. `evflow show {requested.run}` says how far it is.", err=True)
