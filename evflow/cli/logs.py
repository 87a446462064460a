"""`evflow logs` and `python flow.py logs`: what tasks printed."""

import os
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import click

from evflow import clock, config
from evflow.cli import session
from evflow.cli.complete import of_what
from evflow.cli.naming import WHAT, WHAT_OF_FLOW, Reference, meant, pathspec, tasks_of
from evflow.cli.output import instant, iso, write_json
from evflow.client.errors import NoSuchAttempt
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState, Task
from evflow.flow import dialect
from evflow.store.logs import LogLine, Stream, find_folder, read_log, scrub

_NAMED = 20


class Printed(NamedTuple):
    """A line that an attempt printed."""

    task: Task
    attempt: int
    line: LogLine


def _options() -> list[click.Parameter]:
    return [
        click.Option(["--stdout", "stream"], flag_value="stdout", help="Only stdout."),
        click.Option(["--stderr", "stream"], flag_value="stderr", help="Only stderr."),
        click.Option(["--both", "stream"], flag_value="both", default=True, help="Both  [default]"),
        click.Option(["--timestamps/--no-timestamps"], default=False, help="Begin each line with its time."),
        click.Option(["--attempt"], type=click.IntRange(0), metavar="N", help="That attempt; the last one if not given."),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
    ]


def _show(what: str, stream: str, timestamps: bool, attempt: int | None, as_json: bool, *, flow: type | None = None) -> None:
    with session.log() as log:
        reference, run = meant(log, what, flow)
        _, state = session.folded(log, run)
    only: Stream | None = "stdout" if stream == "stdout" else "stderr" if stream == "stderr" else None
    lines = printed(state, reference, attempt, only)
    if not reference.step and reference.task is None:
        lines = chain(lines, hooks_printed(state, attempt, only))
    if as_json:
        write_json([_plain(state, line) for line in lines])
        return
    tasks = tasks_of(state, reference)
    for host, names in (hosts_elsewhere(tasks) if log_folder(state) is None else {}).items():
        click.echo(f"What {_listed(names)} printed is on the disk of {host}, where they ran: ask there.", err=True)
    for origin, names in origins(tasks).items():
        click.echo(f"What {_listed(names)} printed is in {origin}, from where they were taken over: evflow logs {origin}", err=True)
    # Under Metaflow's rules what a step printed is itself, however many tasks it had.
    alone = reference.task is not None or (bool(reference.step) and dialect.is_metaflow())
    for line in lines:
        before = f"{instant(line.line.at_us)} " if timestamps else ""
        before += "" if alone else click.style(f"[{line.task.step}/{line.task.id}] ", dim=True)
        click.echo(f"{before}{line.line.text}", nl=line.line.ends or not alone)


def printed(state: RunState, reference: Reference, attempt: int | None, stream: Stream | None) -> Iterator[Printed]:
    """What the tasks printed, task by task in their order.

    Raises:
        NoSuchStep, NoSuchTask, NoSuchAttempt: There is none.
    """
    folder = log_folder(state)
    tasks = tasks_of(state, reference)
    most = max(tasks, key=lambda task: len(task.attempts), default=None)
    is_one_step = bool(reference.step) or reference.task is not None
    if attempt is not None and is_one_step and most is not None and attempt >= len(most.attempts):
        raise NoSuchAttempt(pathspec(state, most), attempt, len(most.attempts))  # none of them has
    for task in tasks:
        number = attempt if attempt is not None else max((found.number for found in task.attempts), default=0)
        for line in read_log(folder, task.id, number, stream) if folder else ():
            yield Printed(task, number, line)


def hooks_printed(state: RunState, attempt: int | None, stream: Stream | None) -> Iterator[Printed]:
    """What the run's exit hooks printed, when they began last or the time that is named."""
    folder = log_folder(state)
    number = state.hook_starts - 1 if attempt is None else attempt
    hooks = Task(0, "exit_hook", 0, None, {}, 0)
    for line in read_log(folder, 0, number, stream) if folder and 0 <= number < state.hook_starts else ():
        yield Printed(hooks, number, line)


def hosts_elsewhere(tasks: list[Task]) -> dict[str, list[str]]:
    """Other machines that tasks ran on last, and these tasks."""
    here = os.uname().nodename
    found: dict[str, list[str]] = {}
    for task in tasks:
        host = task.attempts[-1].host if task.attempts else ""
        if host and host != here:
            found.setdefault(host, []).append(f"{task.step}/{task.id}")
    return found


def origins(tasks: list[Task]) -> dict[str, list[str]]:
    """The runs that did the work of tasks that were taken over, and these tasks."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        if task.reused:
            flow, run, _ = task.reused.split("/", 2)
            found.setdefault(f"{flow}/{run}", []).append(f"{task.step}/{task.id}")
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def log_folder(state: RunState) -> str | None:
    """Where a run's captured output is, or None where nothing of it can be seen from here."""
    return find_folder(state.header.get("store", ""), RunId(FlowName(state.flow), RunNumber(state.number)), config.get("store"))


def _plain(state: RunState, line: Printed) -> dict[str, Any]:
    return {
        "task": pathspec(state, line.task),
        "attempt": line.attempt,
        "stream": line.line.stream,
        "at": iso(line.line.at_us),
        "text": line.line.text,
    }


command = click.Command(
    "logs",
    callback=_show,
    params=[click.Argument(["what"], shell_complete=of_what()), *_options()],
    help=f"Show what tasks printed. {WHAT}",
)


class _ShowByDefault(click.Group):
    """`logs 3` means `logs show 3`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


def flow_logs(flow: type) -> click.Command:
    """`logs [show] WHAT` and `logs scrub WHAT` of a flow's own command line."""

    def show(what: str, **options: Any) -> None:
        _show(what, **options, flow=flow)

    def scrub(what: str, every: bool, include_not_done: bool) -> None:
        _scrub(what, every=every, include_not_done=include_not_done, flow=flow)

    scrub_options: list[click.Parameter] = [
        click.Argument(["what"], shell_complete=of_what()),
        click.Option(["--all/--latest", "every"], default=False, help="All attempts, or the last one  [default: --latest]"),
        click.Option(["--include-not-done"], is_flag=True, help="Tasks that are not over too."),
    ]
    group = _ShowByDefault("logs", help="Show what tasks printed, or forget it.")
    group.add_command(
        click.Command(
            "show", callback=show, params=[click.Argument(["what"], shell_complete=of_what()), *_options()], help=f"Show it. {WHAT_OF_FLOW}"
        )
    )
    group.add_command(click.Command("scrub", callback=scrub, params=scrub_options, help=f"Overwrite what tasks printed. {WHAT_OF_FLOW}"))
    return group


def _scrub(what: str, *, every: bool, include_not_done: bool, flow: type) -> None:
    with session.log() as log:
        reference, run = meant(log, what, flow)
        _, state = session.folded(log, run)
    folder = log_folder(state) or ""
    scrubbed = 0
    for task in tasks_of(state, reference):
        if not include_not_done and task.status not in ("succeeded", "skipped", "failed", "cancelled"):
            click.echo(f"{pathspec(state, task)} is not over; --include-not-done scrubs it too.", err=True)
            continue
        attempts = task.attempts if every else task.attempts[-1:]
        for attempt in attempts if folder else ():
            scrubbed += scrub(folder, task.id, attempt.number, clock.now_us())
    click.echo(f"{scrubbed} log{'' if scrubbed == 1 else 's'} scrubbed.", err=True)
