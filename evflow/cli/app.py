"""`evflow …`: the commands on runs of all flows, on the log and on this machine."""

import sys
from typing import NoReturn

import click

from evflow.cli.lazy import Lazy, LazyGroup, Sections
from evflow.cli.render import run_command

_SECTIONS: Sections = {
    "Look at runs": {
        "runs": Lazy("evflow.cli.runs", "command", "List runs, newest first."),
        "show": Lazy("evflow.cli.show", "command", "Show a run, a step or a task."),
        "logs": Lazy("evflow.cli.logs", "command", "Show what tasks printed."),
        "dump": Lazy("evflow.cli.dump", "command", "Show the artifacts of tasks."),
        "card": Lazy("evflow.cli.card", "command", "Look at the cards of tasks."),
        "top": Lazy("evflow.cli.top.command", "command", "Show what goes on, live."),
        "explain": Lazy("evflow.cli.explain", "command", "Say what a run or a task waits for."),
    },
    "The event log": {
        "events": Lazy("evflow.cli.events", "command", "Print a run's events, and follow them."),
        "replay": Lazy("evflow.cli.replay", "command", "Rebuild a run from its log; verify it."),
        "lab": Lazy("evflow.cli.lab", "command", "Play a flow with everything going wrong around it, in virtual time."),
    },
    "Write flows": {
        "init": Lazy("evflow.cli.init", "command", "Write a flow to begin with, and its test."),
        "lint": Lazy("evflow.cli.lint", "command", "Warn about what will bite in a flow's file."),
    },
    "Act on runs": {
        "continue": Lazy("evflow.cli.control", "continue_command", "Go on with a run whose process died."),
        "cancel": Lazy("evflow.cli.control", "cancel_command", "End a run."),
        "resume-run": Lazy("evflow.cli.steer", "resume_command", "End the pause of a run (`pause RUN` begins one)."),
        "retry": Lazy("evflow.cli.steer", "retry_command", "Try failed tasks again that a run waits with."),
        "skip": Lazy("evflow.cli.steer", "skip_command", "Let a run go on without a task that failed."),
        "set-priority": Lazy("evflow.cli.steer", "priority_command", "Let a run come before others, or behind them."),
        "tag": Lazy("evflow.cli.tag", "command", "List and change the tags of runs."),
    },
    "Deployed flows": {
        "scheduler": Lazy("evflow.cli.scheduler", "command", "Carry out runs of deployed flows."),
        "limits": Lazy("evflow.cli.limits", "command", "List and set limits that span runs."),
        "deployments": Lazy("evflow.cli.deployments", "command", "List what is deployed."),
        "run": Lazy("evflow.cli.run_deployed", "command", "Ask for a run of a deployed flow."),
        "backfill": Lazy("evflow.cli.backfill", "command", "Ask for runs of past ticks of a schedule."),
        "backfills": Lazy("evflow.cli.backfill", "list_command", "List backfills, and how far they are."),
        "event": Lazy("evflow.cli.event", "command", "Publish events that deployed flows listen for; list them."),
        "why": Lazy("evflow.cli.why", "why_command", "Say what started a run."),
        "why-not": Lazy("evflow.cli.why", "why_not_command", "Say why no run began at some time."),
        "history": Lazy("evflow.cli.deployments", "history_command", "Say what was deployed when, and by whom."),
        "pause": Lazy(
            "evflow.cli.deployments",
            "pause_command",
            "Pause a deployment: nothing but people starts runs of it; or a run: nothing of it starts.",
        ),
        "unpause": Lazy("evflow.cli.deployments", "unpause_command", "End the pause of a deployment, or of a run."),
        "undeploy": Lazy("evflow.cli.deployments", "undeploy_command", "Take a deployment away; its runs go on."),
    },
    "The life of a log": {
        "archive": Lazy("evflow.cli.archive", "command", "Move logs of runs that are over to the store."),
        "forget": Lazy("evflow.cli.forget", "command", "Let runs go for ever."),
        "gc": Lazy("evflow.cli.gc", "command", "Remove from the store what no run needs."),
        "store": Lazy("evflow.cli.store", "command", "See that the store works; copy it."),
        "reindex": Lazy("evflow.cli.reindex", "command", "Rebuild the index of runs from logs and archives."),
    },
    "Pools of workers": {
        "worker": Lazy("evflow.cli.worker", "command", "Run tasks of a pool."),
        "pools": Lazy("evflow.cli.pools", "command", "Show pools: who works, what waits."),
    },
    "Containers": {
        "batch": Lazy("evflow.cli.batch", "command", "The jobs on AWS Batch: list, kill."),
        "kubernetes": Lazy("evflow.cli.kubernetes", "command", "The Jobs on Kubernetes: list, kill."),
    },
    "This machine": {
        "config": Lazy("evflow.cli.config_command", "command", "Show every setting and where it comes from."),
        "doctor": Lazy("evflow.cli.doctor", "command", "Look for what is wrong with log, store and machine."),
        "env": Lazy("evflow.cli.env", "command", "The environments of steps: list, show, prune."),
        "server": Lazy("evflow.cli.server", "command", "The embedded server of the log."),
        "completion": Lazy("evflow.cli.completion", "command", "Completion for bash, zsh and fish."),
        "version": Lazy("evflow.cli.version", "command", "Print evflow's version."),
    },
}

_HELP = """evflow runs flows on an event log.

A flow is run by its own file: `python flow.py run`. These commands look at its runs, act on them and replay them, and ask for runs of
flows that were deployed: `python flow.py deploy`.

RUN is `TrainFlow/3`; `3` where the flow in this folder or a single match decides; `TrainFlow` for its newest run.
A task is `TrainFlow/3/train/7`."""


def app() -> LazyGroup:
    """The group of all commands."""
    return LazyGroup(
        name="evflow",
        sections=_SECTIONS,
        help=_HELP,
        params=[click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")],
        epilog="Settings: option, EVFLOW_*, evflow.toml, ~/.evflow/config.toml, default; `evflow config` shows them.",
    )


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run a command on its arguments (the process's if none are given), and exit."""
    run_command(app(), sys.argv[1:] if arguments is None else arguments, program="evflow")


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from evflow import __version__

        click.echo(f"evflow {__version__}")
        ctx.exit()
