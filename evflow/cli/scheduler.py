"""`evflow scheduler`: carry out the runs that are asked of deployed flows, for as long as the process lives."""

from contextlib import suppress
from typing import Any

import click

from evflow import config
from evflow.cli import session
from evflow.cli.output import instant, write_json
from evflow.cli.setting_option import setting_option, take_given_of_service
from evflow.log.keys import shared_shards
from evflow.log.owners import seen_owner
from evflow.log.protocol import shown_owner
from evflow.log.shard_sets import generation_of, may_own, shown

_SETTINGS = ("shards", "max_workers", "durability", "warm_memory", "drain_timeout", "hot_for", "http", "log_level", "log_format")


@click.pass_context
def _scheduler(ctx: click.Context, /, **given: object) -> None:
    if ctx.invoked_subcommand is not None:
        return
    take_given_of_service(_SETTINGS, given, "evflow scheduler")
    from evflow import diagnostics

    diagnostics.prepare(at_once=True)
    from evflow_scheduler.daemon import Duty, serve

    serve(
        Duty(
            user=config.get("user"),
            max_workers=config.get("max_workers"),
            durability=config.get("durability"),
            warm_bytes=config.get("warm_memory") * 1_000_000,
            drain_s=config.get("drain_timeout"),
            streams=config.get("event_streams"),
            folders=config.get("event_folders"),
            queues=config.get("event_queues"),
            buckets=config.get("event_buckets"),
            http=config.get("http"),
            hot_for_s=config.get("hot_for"),
            shards=config.get("shards") or (),
        )
    )


command = click.Group(
    "scheduler",
    callback=_scheduler,
    invoke_without_command=True,
    params=[
        setting_option("shards", "0-3,6", "Shards that this one may own  [default: all]"),
        setting_option("max_workers", "N", "Tasks at once on this machine  [default: 16]", "--concurrency"),
        setting_option("durability", "everysec|fsync|replicated", "When an event counts as written."),
        setting_option("warm_memory", "MB", "Memory that loaded flows without work may keep  [default: 1000]"),
        setting_option("drain_timeout", "SECONDS", "How long what runs may go on after SIGTERM  [default: until it ends]"),
        setting_option("http", "HOST:PORT", "Answer HTTP there: /live, /ready, /metrics  [default: nowhere]"),
        setting_option("hot_for", "TIME", "How long the log of a run that is over stays at the server once it is archived  [default: 1d]"),
        setting_option("log_level", "debug|info|warning|error", "What it says on stderr  [default: info]"),
        setting_option("log_format", "auto|json|text", "How it says it  [default: text in a terminal, else json]"),
    ],
    help="Carry out the runs that are asked of deployed flows, until Ctrl-C or SIGTERM: then what runs may end, and nothing new "
    "begins; a second one ends it at once, and whoever takes the runs over starts those tasks again. Several may run, on one machine or "
    "more: each run has one of them.",
    short_help="Carry out runs of deployed flows.",
)


@command.command("status", help="Say which schedulers there are, and what they own.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Ask the log who owns its shared shards. Exit code 1 where nobody owns any."""
    from evflow.core.versions import parsed  # the decisions come with it

    owners: dict[str, str | None] = dict.fromkeys(shared_shards())
    found: dict[str, list[str]] = {}
    limited: dict[str, tuple[int, ...]] = {}
    sources: dict[str, list[dict[str, Any]]] = {}
    living: list[str] = []
    with suppress(session.NoRunsYet), session.log() as log:
        owners = {shard: seen_owner(log, shard) for shard in shared_shards()}
        living = log.schedulers()
        found = {_process(name): [] for name in living}
        limited = {_process(name): may_own(name) for name in living}
        sources = {_process(name): list(one.get("sources", ())) for name, one in log.sources().items()}
    generations = {_process(name): parsed(generation_of(name)) for name in living}
    earlier = {name for name, generation in generations.items() if generation < max(generations.values())}
    for shard, held in owners.items():
        if held is not None:
            found.setdefault(_process(held), []).append(shard)
    free = [shard for shard, held in owners.items() if held is None]
    reach = {f"s{number}" for numbers in limited.values() for number in numbers}
    nobodys = [shard for shard in free if limited and shard not in reach]
    if as_json:
        plain = [_plain(name, shards, limited.get(name), sources.get(name, [])) for name, shards in found.items()]
        write_json({"schedulers": plain, "free": free})
    elif not found:
        click.echo("No scheduler runs. `evflow scheduler` starts one; runs that are asked for wait in the log.", err=True)
    else:
        for name, shards in found.items():
            may = limited.get(name, ())
            only = f"  (may own {shown(may)})" if 0 < len(may) < len(owners) else ""
            if name in earlier:
                only += "  (of an earlier version: shards go to a later one)"
            click.echo(f"{shown_owner(name)}  {len(shards)} of {len(owners)} shards{': ' if shards else ''}{', '.join(shards)}{only}")
            for one in sources.get(name, ()):
                click.echo(f"  {one['place']}  {_shown_source(one)}")
        if free:
            click.echo(f"Nobody owns {', '.join(free)}: runs of theirs wait.")
        if nobodys:
            click.echo(f"No scheduler may own {', '.join(nobodys)}: start one with `--shards {shown([int(one[1:]) for one in nobodys])}`.")
    if not found:
        ctx.exit(1)


def _process(owner: str) -> str:
    """Host and process of an owner's name, which has more."""
    return ":".join(owner.split(":")[:2])


def _shown_source(one: dict[str, Any]) -> str:
    """How the reading of a queue or a bucket goes, in a line."""
    came = ", ".join(f"{one[name]} {name}" for name in ("published", "known", "passed", "refused") if one[name]) or "nothing came"
    if one["is_up"] is None:
        return "not read yet"
    since = instant(one["since_us"])
    return f"read since {since}: {came}" if one["is_up"] else f"not read since {since}: {one['why']} ({came})"


def _plain(process: str, shards: list[str], may: tuple[int, ...] | None, sources: list[dict[str, Any]]) -> dict[str, object]:
    host, _, pid = process.partition(":")
    return {
        "host": host,
        "pid": int(pid) if pid.isdecimal() else None,
        "shards": shards,
        "may_own": None if may is None else [f"s{number}" for number in may],
        "sources": sources,
    }
