"""`evflow lab`: a flow under everything that can go wrong around it, in virtual time."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evflow import clock
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import parse, resolve
from evflow.cli.output import count, duration, write_json
from evflow.errors import UsageError

if TYPE_CHECKING:
    from evflow.replay.load import RunLog
    from evflow.testing.lab import Lab, Report, Story
    from evflow.testing.recording import Recording

_TOLD_EVERY_S = 0.5
_SHOWN = 12
"""How many reasons, and how many lines of a trace, are shown."""


class NothingToPlay(UsageError):
    """There is no run that could be played."""

    code = "nothing-to-play"

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(f"There is no run to play: {why}.", hint)


@click.command(
    "lab",
    help="Run FLOW_FILE once, then play that run again and again in virtual time: the scheduler killed at each event, replies lost, results late, "
    "workers dead. ARGUMENTS behind `--` are those of its `run`.",
)
@click.argument("flow_file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--run",
    "run",
    metavar="RUN",
    shell_complete=of_runs("succeeded", "failed"),
    help="Play this run that is over, instead of running the flow.",
)
@click.option(
    "--seeds", type=click.IntRange(0), default=200, show_default=True, metavar="N", help="Trials whose faults are drawn from a seed."
)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="The first of these seeds.")
@click.option("--crash-points", is_flag=True, help="Try each point at which the scheduler can die, not a choice of them.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    flow_file: Path | None,
    arguments: tuple[str, ...],
    run: str | None,
    seeds: int,
    first_seed: int,
    crash_points: bool,
    as_json: bool,
) -> None:
    """Rehearse, play, tell."""
    if (flow_file is None) == (run is None):
        raise click.UsageError("Name the flow's file, or with --run a run that is over.")
    found = _recorded(run) if run is not None else _rehearsed(flow_file or Path(), arguments, quiet=as_json)
    from evflow.testing.lab import USUAL_POINTS, Lab
    from evflow.testing.recording import Recording

    recording = Recording.of(found.events)
    if recording.status not in ("succeeded", "failed"):
        raise NothingToPlay(f"{found.entry.run} is {recording.status}", "Only a run that succeeded or failed says what its bodies come to.")
    if not as_json:
        click.echo(_of(recording, str(found.entry.run)))
    begun_s = clock.monotonic_s()
    lab = Lab(recording)
    _play(
        lab, seeds=seeds, first_seed=first_seed, points=None if crash_points else USUAL_POINTS, watched=not as_json and sys.stderr.isatty()
    )
    took_us = int((clock.monotonic_s() - begun_s) * 1e6)
    if as_json:
        write_json(_plain(str(found.entry.run), recording, lab.report, took_us))
    else:
        for line in _lines(recording, lab.report, took_us, seeds=seeds, first_seed=first_seed):
            click.echo(line)
    if not lab.report.ok:
        ctx.exit(1)


def _recorded(text: str) -> "RunLog":
    """The log of a run that there is."""
    from evflow.replay.load import load

    with session.log() as log:
        return load(log, resolve(log, parse(text)))


def _rehearsed(file: Path, arguments: tuple[str, ...], *, quiet: bool) -> "RunLog":
    """Run the flow, in a home of its own that is gone afterwards, and take its log."""
    if any(one.partition("=")[0].replace("_", "-") == "--on-failure" for one in arguments):
        raise click.UsageError("A rehearsal that waits for somebody would wait for ever, so a failure ends it: leave --on-failure out.")
    from evflow.core.ids import FlowName
    from evflow.flow.invocation import command
    from evflow.log import connect
    from evflow.log.embedded import EmbeddedServer
    from evflow.replay.load import load

    with tempfile.TemporaryDirectory(prefix="evflow-lab-") as folder, EmbeddedServer.begin(Path(folder) / "home", linger_s=0) as server:
        environment = {
            **os.environ, "EVFLOW_HOME": f"{folder}/home", "EVFLOW_REDIS_URL": server.ready(), "EVFLOW_STORE": f"{folder}/store",
            "EVFLOW_ON_FAILURE": "fail",  # nobody reaches this log to mend what its run would wait with
        }  # fmt: skip
        start = command(str(file))
        done = subprocess.run([*start, "--quiet", "run", *arguments], env=environment, stdout=sys.stderr if quiet else None, check=False)
        with closing(connect(server.ready())) as log:
            runs = [entry.run for flow in log.flows() for entry in log.runs(FlowName(flow), 1)]
            if not runs:
                typed = " ".join(["python", *start[1:]])
                raise NothingToPlay(
                    f"`{typed} run` ended with exit code {done.returncode} before its first event", _hint(typed, done.returncode)
                )
            return load(log, runs[0])


def _hint(typed: str, code: int) -> str:
    return "What it says stands above." if code else f"A flow's file ends in a call of its class; `{typed} check` says whether it is one."


def _play(lab: "Lab", *, seeds: int, first_seed: int, points: int | None, watched: bool) -> None:
    """Play all trials, or as many as come before Ctrl-C."""
    told_s = clock.monotonic_s()
    try:
        for trial in lab.trials(seeds=seeds, first_seed=first_seed, points=points):
            if watched and clock.monotonic_s() - told_s >= _TOLD_EVERY_S:
                told_s = clock.monotonic_s()
                click.echo(f"\r{lab.report.trials:,} trials, {trial.name}\x1b[K", nl=False, err=True)
    except KeyboardInterrupt:
        click.echo("\nStopped: this is what was tried so far.", err=True)
    if watched:
        click.echo("\r\x1b[K", nl=False, err=True)


def _of(recording: "Recording", run: str) -> str:
    why = f": {recording.reason}" if recording.reason else ""
    return (
        f"{run} {recording.status}, with {count(recording.tasks, 'task')}{why.rstrip('.')}. Its bodies have run; from here on none is run."
    )


def _lines(recording: "Recording", report: "Report", took_us: int, *, seeds: int, first_seed: int) -> Iterator[str]:
    drawn = f", faults drawn from the seeds {first_seed} to {first_seed + seeds - 1}" if seeds else ""
    yield (
        f"{count(report.trials, 'trial')} in {duration(took_us)}: the scheduler killed, its connection cut, a worker killed, at points among the "
        f"{report.points:,} that an undisturbed run passes{drawn}."
    )
    for story in report.stories:
        yield ""
        yield from _told(story)
    if report.stories:
        return
    yield click.style("Every invariant held, at every step of every trial.", fg="green")
    ends = report.ends
    yield f"The run {recording.status} as it had in {count(ends[recording.status], 'trial')}."
    if report.otherwise:
        yield f"It ended otherwise in {sum(ends.values()) - ends[recording.status]:,}:"
    for reason, trials in list(report.otherwise.items())[:_SHOWN]:
        yield f"  {reason}  ({', '.join(trials)})"
    if report.again:
        yield "A body that is lost runs again, unless @retry(times=0) forbids it. Most often in one trial, a task's body began:"
    for step, times in sorted(report.again.items(), key=lambda one: -one[1]):
        yield f"  {click.style(step, bold=True)}  {count(times, 'time')}"


def _told(story: "Story") -> Iterator[str]:
    from evflow.cli.timeline import told

    yield click.style(f"An invariant did not hold, in the trial '{story.name}': {story.problem}", fg="red")
    yield "This is a defect of evflow, not of the flow: please report it, with all of this."
    yield f"What has to go wrong for it: {'; '.join(f'at point {fault}' for fault in story.faults) or 'nothing'}."
    yield from (f"  {line}" for line in story.trace[-_SHOWN:])
    yield from (line.line() for line in told(story.events))


def _plain(run: str, recording: "Recording", report: "Report", took_us: int) -> dict[str, Any]:
    return {
        "run": run,
        "status": recording.status,
        "tasks": recording.tasks,
        "points": report.points,
        "trials": report.trials,
        "ok": report.ok,
        "duration_s": took_us / 1e6,
        "ends": dict(report.ends),
        "otherwise": [{"reason": reason, "trials": trials} for reason, trials in report.otherwise.items()],
        "begun_at_most": report.again,
        "violations": [
            {
                "trial": story.name,
                "problem": story.problem,
                "faults": [{"point": fault.point, "kind": fault.kind, "amount": fault.amount} for fault in story.faults],
                "trace": list(story.trace),
            }
            for story in report.stories
        ],
    }
