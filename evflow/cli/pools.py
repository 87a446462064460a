"""`evflow pools`: the pools of workers, who works in them, and what waits."""

from collections import Counter
from typing import Any

import click

from evflow import clock
from evflow.cli import session
from evflow.cli.complete import of_pools
from evflow.cli.output import count, duration, write_json
from evflow.log.pools import PoolPicture


@click.command("pools", help="Show the pools of workers: who works in them, what runs there and what waits.")
@click.argument("name", required=False, shell_complete=of_pools())
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(name: str | None, as_json: bool) -> None:
    """Show them."""
    from evflow.log import pools

    try:
        with session.log() as log:
            names = [pools.check_name(name)] if name else pools.ask(log.url, pools.names())
            found = [pools.ask(log.url, pools.picture(pool)) for pool in names]
    except session.NoRunsYet:
        if name:
            raise
        found = []
    now_us = clock.now_us()
    if as_json:
        write_json([_plain(pool) for pool in found])
    elif not found:
        click.echo("There are no pools yet. `evflow worker --pool NAME` starts a worker of one.", err=True)
    for pool in () if as_json else found:
        for line in _lines(pool, now_us):
            click.echo(line)


def _lines(pool: PoolPicture, now_us: int) -> list[str]:
    busy = Counter(worker for worker, _ in pool.running.values())
    waits = f"{pool.queued} waiting"
    if pool.queued:
        waits += f", the first for {duration(now_us - pool.oldest_us)}"
    lines = [f"{pool.name}  {count(len(pool.workers), 'worker')}, {len(pool.running)} of {pool.slots} slots taken, {waits}"]
    if not pool.workers:
        lines.append(f"  no worker is alive: `evflow worker --pool {pool.name}` starts one")
    for worker in pool.workers:
        about = worker.about
        state = ", draining" if about.get("draining") else ""
        since = duration(now_us - about.get("since_us", now_us))
        lines.append(
            f"  {about.get('label', worker.name)}  process {about.get('pid')} on {about.get('host')}  {busy[worker.name]} of {about.get('slots')} slots, for {since}{state}"
        )
    living = {worker.name for worker in pool.workers}
    lost = sum(number for name, number in busy.items() if name not in living)
    if lost:
        lines.append(f"  {count(lost, 'task')} of workers that are dead, until the owners of the runs look")
    return lines


def _plain(pool: PoolPicture) -> dict[str, Any]:
    busy = Counter(worker for worker, _ in pool.running.values())
    return {
        "pool": pool.name,
        "queued": pool.queued,
        "oldest_us": pool.oldest_us or None,
        "slots": pool.slots,
        "running": [
            {"attempt": attempt, "worker": worker, "claimed_us": at_us} for attempt, (worker, at_us) in sorted(pool.running.items())
        ],
        "workers": [{"name": worker.name, **worker.about, "running": busy[worker.name]} for worker in pool.workers],
    }
