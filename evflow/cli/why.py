"""`evflow why` and `evflow why-not`: what started a run, and why none began."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from evflow import clock
from evflow.cli import session
from evflow.cli.complete import of_deployments, of_runs
from evflow.cli.output import instant, iso, table, write_json
from evflow.errors import UsageError

if TYPE_CHECKING:
    from evflow.core.flow_events import FlowRecord
    from evflow.core.ids import RunId
    from evflow.deployments.account import Entry

_REASONS: Mapping[str, str] = {
    "event": "the event came",
    "all-came": "all events that it needs had come",
    "quiet": "no further event had come for the time of debounce",
    "time-is-over": "the time of coalesce was over",
    "many": "as many events had gathered as one run takes",
    "for-others": "it waits for the other events that the trigger needs",
    "gathering": "it waits for further events (debounce or coalesce)",
    "superseded": "a newer event of its name took its place",
    "window-passed": "the others did not come within the window",
    "throttled": "a run had begun within the time of throttle",
    "trimmed": "events were removed from the log before a scheduler looked at them",
    "paused": "the deployment was paused",
    "missed": "no scheduler was alive when it came, and catch_up is 'none'",
    "not-the-last": "no scheduler was alive when it came, and catch_up is 'last'",
    "too-many": "no scheduler was alive when it came, and catch_up has a bound",
    "due": "it was due",
    "caught-up": "no scheduler was alive when it came; it was caught up",
}


class RunHasNoRequest(UsageError):
    """Nothing says how a run began."""

    code = "run-has-no-request"

    def __init__(self, run: "RunId") -> None:
        super().__init__(f"The log of flow '{run.flow}' does not say who asked for '{run}'.", f"`evflow show {run}` shows the run.")


@click.command("why", help="Say what started RUN: a person, a tick of a schedule, or which events, with what they said.")
@click.argument("run", shell_complete=of_runs())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def why_command(run: str, as_json: bool) -> None:
    """Say it."""
    from evflow.cli.naming import NoSuchRun, parse, resolve
    from evflow.core.summary import GONE
    from evflow.deployments.account import chain
    from evflow.deployments.finding import request_of
    from evflow.replay.load import RunGone

    with session.log() as log:
        found = resolve(log, parse(run))
        request = request_of(log, found.flow, found.number)
        if request is None:
            line = log.run(found)
            if line is None:
                raise NoSuchRun(str(found), log.flows())
            if line.summary.get("status") in GONE:
                raise RunGone(line)
            raise RunHasNoRequest(found)
        asked: Any = request.event
        trigger: Mapping[str, Any] = asked.trigger or {}
        line = log.run(found)
        gone = line is not None and line.summary.get("status") in GONE and not log.head(line.shard, found).seq
        entries = chain(log, found.flow, trigger, request.seq) if trigger.get("kind") == "event" else []
    if as_json:
        write_json(
            {
                "run": str(found),
                "at": iso(request.at_us),
                "principal": request.principal,
                "host": asked.host,
                "origin": asked.origin,
                "deployment": asked.deployment or None,
                "version": asked.version or None,
                "trigger": asked.trigger,
                "parameters": asked.parameters,
                "chain": [plain(one) for one in entries],
                "gone": {"status": line.summary.get("status"), "reason": line.summary.get("reason")} if line is not None and gone else None,
            }
        )
        return
    for text in _because(found, request, trigger):
        click.echo(text)
    for text in lines(entries):
        click.echo(f"  {text}")
    if line is not None and gone:
        click.echo(RunGone(line).message)


@click.command(
    "why-not",
    help="Say what became of each tick and event of FLOW around a time, and what was missing for a run. FLOW:NAME is one deployment.",
)
@click.argument("flow", shell_complete=of_deployments())
@click.option(
    "--at", "at", required=True, metavar="TIME", help="'2026-11-27 02:00', in local time; '02:00' is today; ISO 8601 with an offset."
)
@click.option("--for", "span", default="1h", metavar="TIME", help="So long before it and after it: 30s, 10m, 2h, 1d.", show_default=True)
@click.option(
    "--most", type=click.IntRange(min=1), default=200, metavar="N", help="Show so many, those nearest to the time.", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="As JSON: all of them.")
def why_not_command(flow: str, at: str, span: str, most: int, as_json: bool) -> None:
    """Say it."""
    from evflow.core.flow_events import FlowDeployed
    from evflow.core.spans import WANTED, span_us
    from evflow.deployments.account import around, deployments_at
    from evflow.deployments.catalog import find, history, parse

    wanted, width_us = parse(flow), span_us(span)
    if not width_us:
        raise click.BadParameter(f"'{span}' is none: it is {WANTED}.", param_hint="--for")
    at_us = _instant(at)
    since_us, until_us = max(at_us - width_us, _FIRST_US), min(at_us + width_us, _LAST_US)
    with session.log() as log:
        told = list(history(log, wanted.flow))
        if not any(isinstance(one.event, FlowDeployed) and (":" not in flow or one.event.name == wanted.name) for one in told):
            find(log, wanted)  # it never was deployed: says what is
        entries = [one for one in around(log, wanted.flow, since_us, until_us) if ":" not in flow or one.deployment == wanted.name]
        deployed = deployments_at(told, at_us)
        alive = log.schedulers()
    if ":" in flow:
        deployed = {name: one for name, one in deployed.items() if name == wanted.name}
    notes = [*_notes(flow, deployed, at_us), *_absence(entries, alive=bool(alive))]
    if as_json:
        write_json(
            {
                "flow": flow,
                "from": iso(since_us),
                "to": iso(until_us),
                "deployed": sorted(deployed),
                "entries": [plain(one) for one in entries],
                "notes": notes,
            }
        )
        return
    started = list(dict.fromkeys(one.run for one in entries if one.run))
    runs = ", ".join(started) if len(started) <= _FEW else f"{len(started)} runs, {started[0]} to {started[-1]}"
    click.echo(f"From {instant(since_us)[:19]} to {instant(until_us)[:19]} {f'began {runs}' if runs else f'no run of {flow} began'}.")
    for note in notes:
        click.echo(note)
    nearest = _nearest(entries, at_us, most)
    for line in lines(nearest):
        click.echo(f"  {line}")
    if len(nearest) < len(entries):
        click.echo(f"  Those are the {most} nearest of {len(entries)}: --most shows more, --for looks less far.")


def _nearest(entries: "list[Entry]", at_us: int, most: int) -> "list[Entry]":
    """So many of them at most, in their order."""
    if len(entries) <= most:
        return entries
    places = sorted(range(len(entries)), key=lambda place: abs(entries[place].at_us - at_us))[:most]
    return [entries[place] for place in sorted(places)]


def plain(entry: "Entry") -> dict[str, Any]:
    """What was decided, as JSON holds it."""
    return {
        "at": iso(entry.at_us),
        "deployment": entry.deployment or None,
        "what": entry.what,
        "name": entry.name or None,
        "id": entry.id or None,
        "outcome": entry.outcome or None,
        "reason": entry.reason or None,
        "run": entry.run or None,
        "decided_at": iso(entry.decided_us or None),
        "payload": entry.payload,
    }


def _because(run: "RunId", request: "FlowRecord", trigger: Mapping[str, Any]) -> list[str]:
    asked: Any = request.event
    name = click.style(str(run), bold=True)
    of = f" of {run.flow}:{asked.deployment}, version {asked.version}" if asked.deployment else ""
    if trigger.get("kind") == "schedule":
        what = f"{name}{of} was started by the tick of {trigger.get('tick')} ({trigger.get('cron')}, {trigger.get('timezone')})"
        return [f"{what}: {said(str(trigger.get('reason', '')))}.", f"It was decided at {instant(request.at_us)} on {asked.host}."]
    if trigger.get("kind") == "backfill":
        what = f"{name}{of} was started by the backfill {run.flow}/b{trigger.get('backfill')}, for the tick of {trigger.get('tick')}"
        decided = f"It was decided at {instant(request.at_us)} on {asked.host}. `evflow backfills {run.flow}/b{trigger.get('backfill')}` shows it."
        return [f"{what} ({trigger.get('cron')}, {trigger.get('timezone')}).", decided]
    if trigger.get("kind") == "event":
        events = trigger["events"]
        what = f"event {events[0]['name']}" if len(events) == 1 else f"{len(events)} events"
        return [
            f"{name}{of} was started by {what}: {said(str(trigger['reason']))}.",
            f"It was decided at {instant(request.at_us)} on {asked.host}.",
        ]
    by = request.principal
    origin = f", as a resumption of {asked.origin}" if asked.origin else ""
    return [f"{name}{of} was asked for by {by} at {instant(request.at_us)} on {asked.host}{origin}."]


def said(reason: str) -> str:
    """A reason in words."""
    return _REASONS.get(reason, reason)


def lines(entries: "list[Entry]") -> list[str]:
    """Entries as a table; the deployment is named where there are several."""
    import json

    rows: list[list[str]] = []
    several = len({one.deployment for one in entries}) > 1
    for one in entries:
        payload = "" if one.payload is None else json.dumps(one.payload, ensure_ascii=False)[:80]
        late = f", decided {instant(one.decided_us)[:19]}: no scheduler was alive" if one.was_late else ""
        outcome = f"started {one.run}" if one.run else one.outcome
        rows.append([
            instant(one.at_us), *([one.deployment] if several else []), one.what, click.style(one.name, bold=True), one.id,
            click.style(outcome, fg=_COLORS.get(one.outcome)), f"{said(one.reason)}{late}", payload,
        ])  # fmt: skip
    return table(["at", *(["deployment"] if several else []), "what", "", "id", "outcome", "why", "payload"], rows) if rows else []


_FEW = 5
_FIRST_US, _LAST_US = 1_000_000, 253_370_764_800_000_000
"""What can be asked about: from 1970 to 9998, so that an instant is one in each time zone."""
_COLORS = {"started": "green", "skipped": "yellow", "undecided": "red", "given-up": "red", "refused": "red"}


def _notes(flow: str, deployed: Mapping[str, Any], at_us: int) -> list[str]:
    from evflow.cli.deployments import schedule_of
    from evflow.core.spans import shown_span

    if not deployed:
        return [f"{flow} was not deployed at {instant(at_us)[:19]}."]
    found: list[str] = []
    for name, one in deployed.items():
        if one.paused:
            found.append(f"{name} was paused, by {one.paused_by} since {instant(one.paused_us)[:19]}.")
        if one.schedule is None and not one.triggers:
            found.append(f"{name} has neither a schedule nor a trigger: only people start runs of it.")
        if one.schedule is not None:
            found.append(f"{name} has a schedule: {schedule_of(one)}.")
        for trigger in one.triggers:
            names = f" {'and' if trigger['need'] == 'all' else 'or'} ".join(wanted["event"] for wanted in trigger["wanted"])
            spans = "".join(f", {span} {shown_span(trigger[f'{span}_us'])}" for span in _SPANS if f"{span}_us" in trigger)
            found.append(f"{name} listens for {names}{spans}.")
    return found


_SPANS = ("within", "debounce", "coalesce", "throttle")


def _absence(entries: "list[Entry]", *, alive: bool) -> list[str]:
    found = ["No scheduler was alive for some of it: see the times of decision."] if any(one.was_late for one in entries) else []
    if any(one.outcome == "undecided" for one in entries):
        found.append("Some is not decided yet." if alive else "Some is not decided: no scheduler is alive. `evflow scheduler` starts one.")
    if not entries:
        found.append("No tick came and no event that it listens for.")
    return found


def _instant(text: str) -> int:
    try:
        if len(text) <= len("00:00:00"):
            today = datetime.fromtimestamp(clock.now_us() / 1e6).astimezone().date()
            found = datetime.fromisoformat(f"{today.isoformat()} {text}")
        else:
            found = datetime.fromisoformat(text)
        at_us = round(found.astimezone().timestamp() * 1e6)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"'{text}' is no time: write '2026-11-27 02:00' or '02:00'.", param_hint="--at") from error
    if not _FIRST_US <= at_us <= _LAST_US:
        raise click.BadParameter(f"'{text}' is too far away: from 1970 to 9998 is possible.", param_hint="--at")
    return at_us
