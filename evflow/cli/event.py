"""`evflow event`: publish events, and list those that were published."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from evflow import config
from evflow.cli import session
from evflow.cli.output import instant, iso, table, write_json, write_json_line
from evflow.core.codec import UnreadableEvent
from evflow.log.protocol import LogClient, PublishedEvent

_FOLLOW_S = 5.0
"""How long one blocking read waits; then the next one begins."""
_CHUNK = 1_000
_MOST_TEXT = 80


@click.group("event", help="Publish events on which deployed flows begin, and list them.")
def command() -> None:
    """Group of the two."""


@command.command("publish", help="Publish an event called NAME. Flows with @trigger that were deployed begin, once a scheduler runs.")
@click.argument("name")
@click.option("--payload", metavar="JSON|@FILE", help="What it says, as JSON; @FILE reads a file, @- the standard input.")
@click.option("--id", "event_id", metavar="ID", help="Its id: of one id one event is published, however often this is tried.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def publish(name: str, payload: str | None, event_id: str | None, as_json: bool) -> None:
    """Publish it."""
    from evflow.client.publishing import checked_id, made_of, send

    user = config.get("user")
    made = made_of(name, _parsed(payload), source="cli", principal=f"user:{user}", store=session.store)
    checked = checked_id(event_id)
    with session.own_log() as log:
        done = send(log, made, checked)
    if as_json:
        write_json({"id": done.id, "name": done.name, "at": iso(done.at_us), "is_new": done.is_new})
    elif done.is_new:
        click.echo(f"Published {click.style(done.name, bold=True)}, id {done.id}.")
    else:
        click.echo(f"An event with the id {done.id} was published before, at {instant(done.at_us)[:19]}: nothing was published now.")


@command.command("list", help="List events that were published, oldest first; the newest 50 if nothing else is said.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only events of this name; may be repeated.")
@click.option("--limit", "-n", type=click.IntRange(1), default=50, help="The newest so many.", show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Wait for more.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --follow one document a line.")
def list_command(names: tuple[str, ...], limit: int, follow: bool, as_json: bool) -> None:
    """List them."""
    try:
        with session.log() as log:
            _list(log, names, limit, follow=follow, as_json=as_json)
    except session.NoRunsYet:
        _show([], as_json=as_json)


def _list(log: LogClient, names: tuple[str, ...], limit: int, *, follow: bool, as_json: bool) -> None:
    held = [plain(event) for event in events(log)]
    after_us = log.event_bounds().last_us if not held else held[-1]["at_us"]
    found = [one for one in held if not names or one["name"] in names][-limit:]
    if not follow:
        _show(found, as_json=as_json)
        return
    for one in found:
        _tell(one, as_json=as_json)
    while True:  # until Ctrl-C
        for event in log.published(after_us, _CHUNK, _FOLLOW_S):
            after_us = event.at_us
            one = plain(event)
            if not names or one["name"] in names:
                _tell(one, as_json=as_json)


def events(log: LogClient, after_us: int = 0, until_us: int | None = None) -> Iterator[PublishedEvent]:
    """What was published after an instant, and up to one."""
    while chunk := log.published(after_us, _CHUNK):
        for event in chunk:
            if until_us is not None and event.at_us > until_us:
                return
            yield event
        after_us = chunk[-1].at_us
        if len(chunk) < _CHUNK:
            return


def plain(event: PublishedEvent) -> dict[str, Any]:
    """A published event as JSON holds it; a payload that lies in the store is named by its digest."""
    from evflow.core.published import decode

    held: dict[str, Any] = {"id": event.id, "at": iso(event.at_us), "at_us": event.at_us}
    try:
        made = decode(event.body)
    except UnreadableEvent as error:
        return {**held, "name": None, "unreadable": error.why}
    about = {"name": made.name, "payload": made.payload, "source": made.source, "principal": made.principal}
    return {**held, **about, **({"payload_in_store": made.stored.hex()} if made.stored else {})}


def payload_text(one: dict[str, Any]) -> str:
    """A payload on a line, for people."""
    import json

    if "unreadable" in one:
        return f"unreadable: {one['unreadable']}"
    if "payload_in_store" in one:
        return f"(in the store: {one['payload_in_store'][:12]})"
    text = "" if one["payload"] is None else json.dumps(one["payload"], ensure_ascii=False)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        write_json(found)
    elif not found:
        click.echo("Nothing was published. `evflow event publish NAME` publishes an event.", err=True)
    else:
        for line in table(["at", "event", "id", "source", "by", "payload"], [_row(one) for one in found]):
            click.echo(line)


def _tell(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json_line(one)
    else:
        click.echo("  ".join(part for part in _row(one) if part))
        sys.stdout.flush()


def _row(one: dict[str, Any]) -> list[str]:
    at = instant(one["at_us"])
    return [at, click.style(one["name"] or "?", bold=True), one["id"], one.get("source", ""), one.get("principal", ""), payload_text(one)]


def _parsed(given: str | None) -> Any:
    if given is None:
        return None
    import json

    text = given
    if given.startswith("@"):
        try:
            text = sys.stdin.read() if given == "@-" else Path(given[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{error}.", param_hint="--payload") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise click.BadParameter("it is nested too deeply to be read as JSON.", param_hint="--payload") from error
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}. A text is written '\"so\"'.", param_hint="--payload") from error
