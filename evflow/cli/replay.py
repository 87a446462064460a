"""`evflow replay`: a run rebuilt from its log alone."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import is_number, parse, resolve
from evflow.cli.output import count, write_json
from evflow.cli.show import plain_run, plain_task, run_lines, task_lines
from evflow.core.state import RunState
from evflow.errors import EvflowError
from evflow.log.protocol import LogClient
from evflow.replay.load import RunLog
from evflow.replay.verify import Verdict


@click.command("replay", help="Rebuild RUN from its log alone: what happened, when and why, and the state that it led to.")
@click.argument("run", shell_complete=of_runs())
@click.option("--at", metavar="SEQ|TIME", help="The state at that event, or at that instant: 17, 12:04:05, 2026-11-23T12:04:05.")
@click.option(
    "--verify", is_flag=True, help="Decide every turn anew; check the chain, the seal and every artifact. Exits with 1 if anything differs."
)
@click.option("--no-artifacts", is_flag=True, help="With --verify: the log only.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(ctx: click.Context, run: str, at: str | None, verify: bool, no_artifacts: bool, as_json: bool) -> None:
    """Rebuild it."""
    if at is not None and verify:
        raise click.UsageError("--at and --verify do not go together: a log is verified as a whole.")
    with session.log() as log:
        found = _load(log, run, even_lost=verify)
    if verify:
        _verify(ctx, found, artifacts=not no_artifacts, as_json=as_json)
    elif at is not None:
        _show_state(found, at, as_json=as_json)
    else:
        _tell(found, as_json=as_json)


def _load(log: LogClient, text: str, *, even_lost: bool) -> RunLog:
    from evflow.replay.load import load, look

    run = resolve(log, parse(text))
    return look(log, run) if even_lost else load(log, run)


# --- verify -----------------------------------------------------------------------------------------------


def _verify(ctx: click.Context, found: RunLog, *, artifacts: bool, as_json: bool) -> None:
    from evflow.replay.verify import verify, verify_objects

    verdict = verify(found.events, found.head)
    if artifacts and verdict.state.header:
        verify_objects(verdict, object_check(str(verdict.state.header.get("store") or "")))
    if as_json:
        write_json(_plain_verdict(found, verdict))
    else:
        _print_verdict(found, verdict, artifacts=artifacts)
    if not verdict.ok:
        ctx.exit(1)


def object_check(store_url: str) -> Callable[[bytes], Sequence[str]]:
    """A check of a manifest or of packed items, and of all that it names, in a store; each object is read once."""
    from evflow.store.manifests import NotAManifest, manifest_objects, verify_object

    store = session.store(store_url)
    seen: dict[bytes, str] = {}

    def look(digest: bytes) -> str:
        if digest not in seen:
            try:
                verify_object(store, digest)
                seen[digest] = ""
            except EvflowError as error:
                seen[digest] = error.message
        return seen[digest]

    def check(digest: bytes) -> Sequence[str]:
        wrong = look(digest)
        if wrong:
            return [wrong]
        try:
            named = list(manifest_objects(store, digest))
        except NotAManifest:  # the packed items of a foreach are one object, which was looked at
            return []
        return [problem for problem in map(look, named) if problem]

    return check


def _plain_verdict(found: RunLog, verdict: Verdict) -> dict[str, Any]:
    return {
        "run": str(found.entry.run),
        "ok": verdict.ok,
        "sealed": verdict.sealed,
        "events": verdict.events,
        "turns": verdict.turns,
        "objects": verdict.objects,
        "problems": [{"seq": p.seq or None, "check": p.check, "what": p.what} for p in verdict.problems],
    }


def _print_verdict(found: RunLog, verdict: Verdict, *, artifacts: bool) -> None:
    run = click.style(str(found.entry.run), bold=True)
    if verdict.ok:
        click.echo(f"{run} {click.style('verified', fg='green', bold=True)}: what its log says is what happened.")
        click.echo(
            f"  {count(verdict.events, 'event')} in {count(verdict.turns, 'turn')}: the chain holds, every decision follows from the facts."
        )
        if verdict.sealed:
            click.echo("  The state that they fold to is the one that the live run sealed.")
        else:
            click.echo("  The run is not sealed yet: what comes after this is not part of it.")
        if artifacts:
            click.echo(f"  {count(verdict.objects, 'manifest')} and all that they name have the digests that are their names.")
        return
    click.echo(f"{run} {click.style('does not verify', fg='red', bold=True)}: {count(len(verdict.problems), 'problem')}.")
    for problem in verdict.problems:
        place = f"event {problem.seq}" if problem.seq else problem.check
        click.echo(f"  {click.style(place, bold=True)}  {problem.what}")


# --- time travel ------------------------------------------------------------------------------------------


def _show_state(found: RunLog, at: str, *, as_json: bool) -> None:
    state = state_at(found, at)
    tags = list(state.header.get("tags", ()))
    if as_json:
        write_json({"at": {"seq": state.seq}, **plain_run(state, tags), "tasks": [plain_task(state, task) for task in state.all_tasks()]})
        return
    click.echo(f"After event {state.seq} of {found.head.seq}:", err=True)
    for line in run_lines(state, tags, end_us=state.at_us):
        click.echo(line)
    click.echo()
    for line in task_lines(list(state.all_tasks())):
        click.echo(line)


def state_at(found: RunLog, at: str) -> RunState:
    """The state behind an event's position, or at an instant.

    Raises:
        click.UsageError: The text is neither, or it is before the run's first event.
    """
    from evflow.replay.refold import refold

    state = refold(found.events, until_seq=int(at)) if is_number(at) else refold(found.events, until_us=_instant(found, at))
    if not state.header:
        raise click.BadParameter(f"The run began after '{at}'.", param_hint="'--at'")
    return state


def _instant(found: RunLog, text: str) -> int:
    """An instant as people type it; a time of day is that of the run's first day, in local time."""
    from datetime import datetime, time

    from evflow.core.codec import decode

    began = datetime.fromtimestamp(decode(1, found.events[0].payload).at_us / 1e6).astimezone()
    try:
        when = datetime.fromisoformat(text) if "-" in text else datetime.combine(began.date(), time.fromisoformat(text))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is neither a position nor a time.", param_hint="'--at'") from error
    zoned = when if when.tzinfo else when.replace(tzinfo=began.tzinfo)
    # Whoever types seconds means the whole second.
    return int(zoned.timestamp() * 1e6) + (0 if zoned.microsecond else 999_999)


# --- the story --------------------------------------------------------------------------------------------


def _tell(found: RunLog, *, as_json: bool) -> None:
    from evflow.cli.timeline import plain, told
    from evflow.replay.refold import refold

    entries = list(told(found.events))
    state = refold(found.events)
    tags = list(state.header.get("tags", ()))
    if as_json:
        write_json({**plain_run(state, tags), "timeline": [plain(entry) for entry in entries]})
        return
    for entry in entries:
        click.echo(entry.line())
    click.echo()
    for line in run_lines(state, tags, end_us=state.finished_us or state.at_us):
        click.echo(line)
    click.echo(f"`evflow replay {found.entry.run} --verify` proves it.", err=True)
