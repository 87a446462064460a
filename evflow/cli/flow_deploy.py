"""`python flow.py deploy`: from now on runs of the flow can be asked for without it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from evflow import config
from evflow.cli import session
from evflow.cli.flow_graph import banner, checked
from evflow.cli.flow_main import FlowContext
from evflow.cli.flow_run import failure_and_priority, no_cache_option, take_settings, wishes
from evflow.cli.output import instant, write_json
from evflow.cli.setting_option import setting_option
from evflow.core.deployments import DEFAULT_NAME, Deployment


def deploy_command(_: type) -> click.Command:
    """`deploy`: package, check, record. Nothing is run."""

    @click.pass_obj
    def deploy(context: FlowContext, /, name: str | None, production: bool, tags: tuple[str, ...], as_json: bool, **given: Any) -> None:
        from evflow.deployments.catalog import shown
        from evflow.deployments.deploy import DeployRequest, deploy, prepare

        banner(context)
        checked(context)
        take_settings(given)
        given_wishes = wishes(context, {**given, "project_production": production}, fallback="error")  # a scheduler refuses
        project = given_wishes["options"].project
        deployed_as: str = name or (DEFAULT_NAME if project is None else project.deployment)
        request = DeployRequest(
            flow=context.flow,
            flow_file=context.file,
            name=deployed_as,
            production=production or (project is not None and project.production),
            tags=tags,
            host=os.uname().nodename,
            **given_wishes,
        )
        store = session.store()
        store.sweep()
        prepared = prepare(request, store, Path(config.home()))
        with session.own_log() as log:
            found = deploy(log, request, prepared).deployment
        assert found is not None  # it was deployed just now
        warnings = [*filter(None, [prepared.package.warning]), *far_store(), *own_end(context.flow.__name__, found)]
        for warning in warnings:
            context.say(f"Note: {warning}", fg="yellow")
        _tell(context, found, warnings, as_json=as_json, reference=shown(context.flow.__name__, deployed_as))

    return click.Command(
        "deploy", callback=deploy, params=list(_options()), help="Deploy the flow: a scheduler runs it when it is asked to."
    )


def _options() -> Iterator[click.Parameter]:
    yield click.Option(
        ["--name"], metavar="NAME", help=f"The deployment's name  [default: {DEFAULT_NAME}; of a project's flow PROJECT.BRANCH]"
    )
    yield click.Option(
        ["--branch", "project_branch"], metavar="B", help="Deploy in the branch test.B of the flow's project, with --production in prod.B."
    )
    yield setting_option("namespace", "NS", "Tag runs with NS, and use it inside the steps.")
    yield click.Option(
        ["--production"],
        is_flag=True,
        help="Runs are in the namespace production:FLOW; replaced by --production only. Of a project: its production branch.",
    )
    yield click.Option(["--tag", "tags"], multiple=True, metavar="TAG", help="Tag the runs; may be repeated.")
    yield setting_option("max_workers", "N", "Tasks of a run at once  [default: 16]")
    yield setting_option("max_num_splits", "N", "Tasks that one foreach may make  [default: 100]")
    yield setting_option("max_log_size", "MB", "Output kept of one task  [default: 10]")
    yield setting_option("task_budget", "N", "Tasks of a whole run  [default: 1000000]")
    yield click.Option(["--with", "with_specs"], multiple=True, metavar="SPEC", help="Add a decorator to every step that lacks it.")
    yield no_cache_option()
    yield setting_option("start_method", "auto|fork|spawn", "How a task's process starts.")
    yield setting_option("durability", "everysec|fsync|replicated", "When an event of a run counts as written.")
    yield from failure_and_priority()
    yield click.Option(["--json", "as_json"], is_flag=True, help="As JSON.")


def far_store() -> Iterator[str]:
    """What to say where other machines see the log and not the store."""
    from evflow.log.url import parse

    url, store = config.get("redis_url"), config.get("store")
    if url and not parse(url).is_local and not str(store).startswith("s3://"):
        yield (
            f"The log is on another machine, and the store is the folder {store} of {os.uname().nodename}: only a scheduler that "
            "sees this folder can run the flow. EVFLOW_STORE names another one."
        )


def own_end(flow: str, found: Deployment) -> Iterator[str]:
    """What to say where a deployment's runs start its runs."""
    from evflow.core.published import finished_name

    own = finished_name(flow)
    if any(wanted["event"] == own for trigger in found.triggers for wanted in trigger["wanted"]):
        yield f"{flow} listens for the end of its own runs: each may start the next one, for ever. `evflow pause {flow}` stops that."


def _tell(context: FlowContext, found: Deployment, warnings: list[str], *, as_json: bool, reference: str) -> None:
    from evflow.cli.deployments import listens_for, next_us, plain, schedule_of

    if as_json:
        write_json({**plain(context.flow.__name__, found), "warnings": warnings})
        return
    click.echo(f"{reference} version {found.version} is deployed.")
    context.say(f"`evflow run {reference}` asks for a run; `evflow scheduler` carries runs out.")
    next_at_us = next_us(found)
    if next_at_us is not None:
        context.say(f"A scheduler starts one at each tick of {schedule_of(found)}; the next tick is at {instant(next_at_us)[:19]}.")
    if found.triggers:
        context.say(f"A scheduler starts one on {listens_for(found)}.")
    if (found.schedule is not None or found.triggers) and found.paused:
        context.say(f"Note: the deployment is paused: `evflow unpause {reference}` lets ticks and events start runs.", fg="yellow")
