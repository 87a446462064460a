"""`evflow events`: a run's log, event by event."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, cast

import click

from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import parse, resolve
from evflow.cli.output import instant, iso, write_json, write_json_line
from evflow.core.codec import Record, decode, fields_of, tag_of
from evflow.core.events import TAGS
from evflow.core.summary import GONE
from evflow.errors import did_you_mean
from evflow.log.protocol import LogClient, RunEntry, StoredEvent

_FOLLOW_S = 5.0
"""How long one blocking read waits; then the next one begins."""
_MOST_TEXT = 60
_YEAR_2000_US = 946_684_800_000_000
"""Microseconds above that are an instant, below a duration."""


def _complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [tag for tag in TAGS if tag.startswith(incomplete)]


@click.command("events", help="Print the events of RUN.")
@click.argument("run", shell_complete=of_runs())
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until the run is sealed.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only events behind this position.")
@click.option(
    "--type", "kinds", multiple=True, metavar="TAG", shell_complete=_complete, help="Only events like TaskQueued; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --follow one document a line.")
def command(run: str, follow: bool, after: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Print them."""
    for kind in kinds:
        if kind not in TAGS:  # a later version may have written it
            click.echo(f"Note: no event of this version is called '{kind}'.{did_you_mean(kind, TAGS)}", err=True)
    with session.log() as log:
        entry = _entry(log, run, follow=follow)
        records = (record for record in _records(log, entry, after, follow=follow) if not kinds or tag_of(record.event) in kinds)
        if as_json and not follow:
            write_json([plain(record) for record in records])
            return
        for record in records:
            if as_json:
                write_json_line(plain(record))
            else:
                click.echo(line(record))


def _entry(log: LogClient, text: str, *, follow: bool) -> RunEntry:
    from evflow.replay.load import RunNotFound, never_began

    run = resolve(log, parse(text))
    entry = log.run(run)
    if entry is None:
        raise RunNotFound(run, log)
    if (entry.summary.get("status") in GONE or (entry.is_requested and not follow)) and not log.head(entry.shard, run).seq:
        raise never_began(log, entry)
    return entry


def _records(log: LogClient, entry: RunEntry, after: int, *, follow: bool) -> Iterator[Record]:
    for stored in _stored(log, entry, after, follow=follow):
        yield decode(stored.seq, stored.payload)


def _stored(log: LogClient, entry: RunEntry, after: int, *, follow: bool) -> Iterator[StoredEvent]:
    from evflow.replay.load import events

    for stored in events(log, entry, after):
        after = stored.seq
        yield stored
    while follow and log.head(entry.shard, entry.run).status != "sealed":
        for stored in log.follow(entry.shard, entry.run, after, _FOLLOW_S):
            after = stored.seq
            yield stored
    if follow:  # what came between the last read and the seal
        yield from events(log, entry, after)


def plain(record: Record) -> dict[str, Any]:
    """An event as JSON holds it; digests as hex."""
    return {
        "seq": record.seq,
        "turn": record.turn,
        "at": iso(record.at_us),
        "type": tag_of(record.event),
        "principal": record.principal,
        "cause": record.cause or None,
        "fields": fields_of(record.event),
    }


def line(record: Record) -> str:
    """An event on a line, for people: without what is as it always is."""
    shown = "  ".join(f"{name}={text}" for name, text in _said(record))
    who = "" if record.principal == "scheduler" else f"  {click.style(record.principal, dim=True)}"
    kind = click.style(tag_of(record.event).ljust(18), fg="cyan" if record.event.is_fact else "blue", bold=True)
    return f"{record.seq:>6}  {click.style(instant(record.at_us)[11:], dim=True)}  {kind}  {shown}{who}"


def _said(record: Record) -> Iterator[tuple[str, str]]:
    kind: Any = type(record.event)
    usual: dict[str, Any] = {field.name: field.default for field in fields(kind)} if is_dataclass(kind) else {}
    for name, value in fields_of(record.event).items():
        if value == usual.get(name) or value in (None, "", (), {}):
            continue
        yield name, instant(value)[11:] if name.endswith("_us") and isinstance(value, int) and value > _YEAR_2000_US else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()[:12] or "''"
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return f"{{{len(entries)} entries}}" if len(str(entries)) > _MOST_TEXT else str(entries)
    if isinstance(value, tuple | list):
        return ",".join(_short(item) for item in cast("tuple[Any, ...]", value))
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
