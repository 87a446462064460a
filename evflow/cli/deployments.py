"""`evflow deployments`, `history`, `pause`, `unpause`, `undeploy`: what is deployed, what was, and ending it."""

from collections.abc import Callable, Iterator
from typing import Any

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.complete import of_deployments, of_flows, of_pausable
from evflow.cli.output import instant, iso, table, write_json
from evflow.core.deployments import Deployment, subject
from evflow.core.events import Event
from evflow.core.flow_events import FlowDeployed, FlowPaused, FlowRecord, FlowUndeployed, FlowUnpaused
from evflow.core.ids import FlowName
from evflow.deployments.catalog import DeploymentNotFound, Reference, change, deployed, existing, find, history, parse, shown
from evflow.log.protocol import LogClient

_DID = {FlowDeployed: "deployed", FlowUndeployed: "undeployed", FlowPaused: "paused", FlowUnpaused: "unpaused"}
_NOTHING = "Nothing is deployed in this log.\n`python flow.py deploy` deploys a flow."
_WHAT = "DEPLOYMENT is FLOW:NAME, or FLOW for the one called 'default'."


@click.command("deployments", help="List what is deployed: of all flows, or of FLOW.")
@click.argument("flow", required=False, shell_complete=of_flows())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(flow: str | None, as_json: bool) -> None:
    """List it."""
    try:
        with session.log() as log:
            found = list(_deployed(log, flow))
            if flow is not None and not found:
                raise DeploymentNotFound.of(log, Reference(FlowName(flow)))
    except session.NoRunsYet:
        found = []
    if as_json:
        write_json([plain(name, deployment) for name, deployment in found])
        return
    if not found:
        click.echo(_NOTHING, err=True)
        return
    scheduled = any(deployment.schedule is not None for _, deployment in found)
    rows = [
        [
            click.style(shown(name, deployment.name), bold=True),
            str(deployment.version),
            _state(deployment),
            *([schedule_of(deployment), _next(deployment)] if scheduled else []),
            instant(deployment.deployed_us)[:19],
            deployment.user,
            deployment.host,
            deployment.namespace,
            deployment.file,
        ]
        for name, deployment in found
    ]
    ticks = ["schedule", "next tick"] if scheduled else []
    head = ["deployment", "version", "state", *ticks, "deployed", "user", "host", "namespace", "file"]
    for line in table(head, rows, right=["version"]):
        click.echo(line)


def schedule_of(deployment: Deployment) -> str:
    """A deployment's schedule, for people; nothing without one."""
    schedule = deployment.schedule
    return "" if schedule is None else f"{schedule.get('cron')} ({schedule.get('timezone')})"


def listens_for(deployment: Deployment) -> str:
    """The events that start runs of a deployment, for people."""
    each: list[str] = []
    for trigger in deployment.triggers:
        names = [wanted["event"] for wanted in trigger["wanted"]]
        each.append(names[0] if len(names) == 1 else f"{trigger['need']} of {', '.join(names)}")
    return "; ".join(each)


def next_us(deployment: Deployment) -> int | None:
    """When its next tick comes."""
    if deployment.schedule is None:
        return None
    from evflow.deployments.ticks import upcoming_us

    return upcoming_us(deployment, clock.now_us())


def plain(flow: str, deployment: Deployment) -> dict[str, Any]:
    """A deployment as JSON holds it."""
    return {
        "deployment": shown(flow, deployment.name),
        "flow": flow,
        "name": deployment.name,
        "version": deployment.version,
        "deployed_at": iso(deployment.deployed_us),
        "user": deployment.user,
        "host": deployment.host,
        "namespace": deployment.namespace,
        "production": deployment.production,
        "paused": deployment.paused,
        "paused_at": iso(deployment.paused_us or None),
        "paused_by": deployment.paused_by or None,
        "schedule": None if deployment.schedule is None else dict(deployment.schedule),
        "triggers": list(deployment.triggers),
        "next_tick_at": iso(next_us(deployment)),
        "file": deployment.file,
        "package": deployment.package,
        "manifest": deployment.manifest,
        "store": deployment.store,
        "evflow": deployment.evflow,
        "python": deployment.python,
    }


@click.command("history", help=f"Say what was deployed when and by whom, newest first. {_WHAT} FLOW alone: all of its deployments.")
@click.argument("deployment", shell_complete=of_deployments())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def history_command(deployment: str, as_json: bool) -> None:
    """Say it."""
    wanted = parse(deployment)
    with session.log() as log:
        of_all = [record for record in history(log, wanted.flow) if ":" not in deployment or subject(record.event) == wanted.name]
        if not of_all:
            raise DeploymentNotFound.of(log, wanted)
    of_all.reverse()
    if as_json:
        write_json([_plain_record(wanted.flow, record) for record in of_all])
        return
    rows = [_row(wanted.flow, record) for record in of_all]
    for line in table(["at", "deployment", "", "version", "by", "host", "code"], rows, right=["version"]):
        click.echo(line)


@click.command(
    "pause",
    help="Pause a deployment: nothing but people starts runs of it, until it is unpaused. Or pause a run: what runs of it goes on, nothing more starts. "
    f"WHAT is a run like TrainFlow/3, else a deployment. {_WHAT}",
)
@click.argument("what", shell_complete=of_pausable("running", "starting", "requested"))
@click.option("--reason", default="", metavar="TEXT", help="Of a run: what the log says of why.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def pause_command(what: str, reason: str, as_json: bool) -> None:
    """Pause it."""
    if is_run(what):
        from evflow.cli import steer

        steer.pause(what, reason, as_json=as_json)
        return
    wanted = _deployment(what)
    before = _change(wanted, FlowPaused(wanted.name), when=lambda deployment: not deployment.paused)
    if as_json:
        _write(wanted)
    elif before.paused:
        click.echo(f"{wanted} was paused before, by {before.paused_by} at {instant(before.paused_us)[:19]}.")
    else:
        click.echo(f"{wanted} is paused: schedules and triggers will start no run of it. `evflow run {wanted}` still does.")


@click.command(
    "unpause",
    help=f"End the pause of a deployment, or of a run (as `resume-run` does). WHAT is a run like TrainFlow/3, else a deployment. {_WHAT}",
)
@click.argument("what", shell_complete=of_pausable("paused"))
@click.option("--reason", default="", metavar="TEXT", help="Of a run: what the log says of why.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def unpause_command(what: str, reason: str, as_json: bool) -> None:
    """Unpause it."""
    if is_run(what):
        from evflow.cli import steer

        steer.resume(what, reason, as_json=as_json)
        return
    wanted = _deployment(what)
    before = _change(wanted, FlowUnpaused(wanted.name), when=lambda deployment: deployment.paused)
    if as_json:
        _write(wanted)
    else:
        click.echo(f"{wanted} is not paused any more." if before.paused else f"{wanted} was not paused.")


def is_run(what: str) -> bool:
    """Whether a text names a run and no deployment: it has a number. `TrainFlow` is a deployment here, not its newest run."""
    return "/" in what or what.isdecimal()


def _deployment(what: str) -> Reference:
    """The deployment that a text names.

    Raises:
        DeploymentNotFound: There is none; where the flow has runs, with how one of them is named.
    """
    wanted = parse(what)
    with session.log() as log:
        try:
            find(log, wanted)
        except DeploymentNotFound as error:
            newest = log.runs(wanted.flow, 1)
            if newest:
                error.hint += f" A run is named with its number: {newest[0].run}."
            raise
    return wanted


def _write(wanted: Reference) -> None:
    with session.log() as log:
        write_json(plain(wanted.flow, find(log, wanted)))


@click.command("undeploy", help=f"Take DEPLOYMENT away: no more runs of it can be asked for. Its runs go on. {_WHAT}")
@click.argument("deployment", shell_complete=of_deployments())
@click.option("--json", "as_json", is_flag=True, help="What it was, as JSON.")
def undeploy_command(deployment: str, as_json: bool) -> None:
    """Undeploy it."""
    wanted = parse(deployment)
    before = _change(wanted, FlowUndeployed(wanted.name))
    if as_json:
        write_json(plain(wanted.flow, before))
        return
    click.echo(f"{wanted}, version {before.version}, is deployed no more. Its runs go on; `evflow history {wanted}` still tells of it.")


def _next(deployment: Deployment) -> str:
    next_at_us = next_us(deployment)
    return "" if next_at_us is None else instant(next_at_us)[:19]


def _change(wanted: Reference, event: Event, when: Callable[[Deployment], bool] = lambda _: True) -> Deployment:
    """Append an event that is about what is deployed, where it changes something; returns what was deployed before it."""
    with session.log() as log:
        before = find(log, wanted)
        if when(before):
            change(log, wanted, existing(log, wanted, event), user=config.get("user"))
    return before


def _deployed(log: LogClient, flow: str | None) -> Iterator[tuple[str, Deployment]]:
    for name in log.flows() if flow is None else [FlowName(flow)]:
        yield from ((name, deployment) for deployment in deployed(log, name).values())


def _state(deployment: Deployment) -> str:
    state = click.style("paused", fg="yellow") if deployment.paused else "active"
    return f"{state}, production" if deployment.production else state


def _plain_record(flow: str, record: FlowRecord) -> dict[str, Any]:
    event: Any = record.event
    fields = ("version", "host", "namespace", "production", "file", "package", "manifest", "store", "evflow", "python")
    about = {name: getattr(event, name) for name in fields} if isinstance(event, FlowDeployed) else {}
    return {
        "deployment": shown(flow, event.name),
        "seq": record.seq,
        "at": iso(record.at_us),
        "what": _DID[type(event)],
        "principal": record.principal,
        **about,
    }


def _row(flow: str, record: FlowRecord) -> list[str]:
    event: Any = record.event
    is_new = isinstance(event, FlowDeployed)
    return [
        instant(record.at_us)[:19],
        click.style(shown(flow, event.name), bold=True),
        _DID[type(event)],
        str(event.version) if is_new else "",
        record.principal,
        event.host if is_new else "",
        f"{event.file} {event.package.hex()[:12]}" if is_new and event.package else "",
    ]
