"""`evflow limits`: what only so many hold at once, who holds it, and what the operator allows."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from evflow.cli import session
from evflow.cli.complete import of_limits
from evflow.cli.output import duration, iso, table, write_json
from evflow.core.limits import fault
from evflow.errors import UsageError
from evflow.log.keys import is_own, shared_shards
from evflow.log.protocol import Holder, LogClient

_NEWEST = 50
"""Runs of a flow among which those in the foreground are looked for that are to hear of a change."""
_NAMED = 3


class LimitInvalid(UsageError):
    """There is no such limit."""

    code = "limit-invalid"


def _limits(ctx: click.Context, as_json: bool) -> None:
    """List them."""
    if ctx.invoked_subcommand is not None:
        return
    allowed: dict[str, int] = {}
    held: dict[str, list[Holder]] = {}
    now_us = 0
    with suppress(session.NoRunsYet), session.log() as log:
        allowed = log.limits()
        held = {name: log.holders(name) for name in log.limited()}
        now_us = log.now_us()
    names = sorted({*allowed, *(name for name, holders in held.items() if holders)})
    if as_json:
        write_json([_plain(name, allowed.get(name), held.get(name, [])) for name in names])
        return
    if not names:
        click.echo(
            "No limit is set, and nothing holds one.\n`evflow limits set flow:FLOW 4` sets one; @limit and @concurrency are a flow's own.",
            err=True,
        )
        return
    rows = [
        [
            click.style(name, bold=True),
            str(len(held.get(name, []))),
            "" if (most := allowed.get(name)) is None else str(most),
            ", ".join(_of_holders(held.get(name, []), now_us)),
        ]
        for name in names
    ]
    for line in table(["limit", "held", "operator's", "by"], rows, right=["held", "operator's"], flexible="by"):
        click.echo(line)


def _of_holders(holders: list[Holder], now_us: int) -> Iterator[str]:
    for holder in sorted(holders, key=lambda holder: holder.since_us)[:_NAMED]:
        yield f"{holder.name} for {duration(max(0, now_us - holder.since_us))}"
    if len(holders) > _NAMED:
        yield f"… and {len(holders) - _NAMED} more"


def _plain(name: str, most: int | None, holders: list[Holder]) -> dict[str, Any]:
    return {
        "limit": name,
        "operator": most,
        "held": len(holders),
        "holders": [{"name": one.name, "slot": one.slot, "since": iso(one.since_us), "shard": one.shard} for one in holders],
    }


command = click.Group(
    "limits",
    callback=click.pass_context(_limits),
    invoke_without_command=True,
    params=[click.Option(["--json", "as_json"], is_flag=True, help="As JSON.")],
    help="List what only so many attempts or runs may hold at once, who holds it, and set such limits.",
    short_help="List and set limits that span runs.",
)
_KINDS = "NAME is key:KEY of a step's @limit, flow:FLOW, step:FLOW/STEP, pool:NAME, tag:TAG or namespace:NAME, which attempts hold, or runs:FLOW, which runs hold."


@command.command(
    "set",
    context_settings={"ignore_unknown_options": True},  # -1 is a wrong number, and no option
    help=f"Let at most MOST hold NAME from now on; 0 lets nothing begin. What runs goes on. {_KINDS}",
)
@click.argument("name", shell_complete=of_limits())
@click.argument("most", type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def set_command(name: str, most: int, as_json: bool) -> None:
    """Set it."""
    _check(name)
    _set(name, most, f"At most {most} may hold {name}.", as_json=as_json)


@command.command("unset", help=f"Take the operator's limit away; a flow's own holds again. {_KINDS}")
@click.argument("name", shell_complete=of_limits())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def unset_command(name: str, as_json: bool) -> None:
    """Take it away."""
    _check(name)
    _set(name, None, f"Nothing but what flows say of themselves limits {name}.", as_json=as_json)


def _set(name: str, most: int | None, said: str, *, as_json: bool) -> None:
    with session.log() as log:
        if most is None and name not in log.limits():
            raise LimitInvalid(f"No limit is set for '{name}'.", "`evflow limits` lists those that are.")
        log.set_limit(name, most)
        _tell(log, name)
        holders = log.holders(name) if as_json else []
    if as_json:
        write_json(_plain(name, most, holders))
    else:
        click.echo(said)


def _check(name: str) -> None:
    wrong = fault(name)
    if wrong is not None:
        raise LimitInvalid(wrong, _KINDS)


def _tell(log: LogClient, name: str) -> None:
    """Wake whoever grants slots: schedulers, and runs in the foreground."""
    kind, _, rest = name.partition(":")
    flow = rest.partition("/")[0].partition(":")[0] if kind in ("flow", "step", "runs") else None
    flows = [found for found in log.flows() if flow is None or found == flow]
    entries = [entry for found in flows for entry in log.runs(found, _NEWEST)]
    alone = [entry.shard for entry in entries if is_own(entry.shard) and entry.summary.get("status") == "running"]
    log.wake([*shared_shards(), *(shard for shard in alone if log.owner(shard) is not None)])
