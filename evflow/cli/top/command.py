"""`evflow top`: what goes on in a log, live."""

import sys
from contextlib import closing

import click

from evflow import config
from evflow.cli import session
from evflow.cli.complete import of_flows
from evflow.cli.output import terminal_width, write_json
from evflow.cli.top.overview import ORDERS, Order, Wish, plain
from evflow.cli.top.watch import Watch

_AT_ONCE_S = 0.001


@click.command(
    "top",
    help="Show what goes on: schedulers, runs and what their tasks wait for, next ticks, recent failures. "
    "Keys: q ends, s sorts, / takes a part of flows' names. In a pipe it is shown once.",
)
@click.option("--flow", default="", metavar="TEXT", shell_complete=of_flows(), help="Only flows whose names contain this.")
@click.option("--sort", type=click.Choice(ORDERS), default="age", show_default=True, help="Order of the runs.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option("--json", "as_json", is_flag=True, help="Show it once, as JSON.")
def command(flow: str, sort: Order, once: bool, as_json: bool) -> None:
    """Look at the log alone, so that no scheduler has to be reached."""
    from evflow.archives import connect
    from evflow.archives.backlog import Backlog
    from evflow.cli.screen import is_terminal
    from evflow.log.feeds import Feeds
    from evflow.log.url import parse

    wish = Wish(sort, flow)
    with session.own_url() as url, closing(connect(url)) as log, closing(Feeds(url)) as feeds:
        where = parse(url).shown if config.get("redis_url") else f"embedded in {config.get('home')}"
        watch = Watch(log, feeds, where, Backlog(log))
        if not (once or as_json) and is_terminal(sys.stdout) and sys.stdin.isatty():
            from evflow.cli.top.screen import show

            show(watch, wish)
            return
        watch.look(_AT_ONCE_S)
        if as_json:
            write_json(plain(watch.overview(), wish))
        else:
            _print(watch, wish)


def _print(watch: Watch, wish: Wish) -> None:
    from rich.console import Console

    from evflow.cli.render import use_color
    from evflow.cli.top.panel import lines

    console = Console(color_system="standard" if use_color(sys.stdout) else None, force_terminal=use_color(sys.stdout), width=10_000)
    for line in lines(watch.overview(), wish, width=terminal_width()):
        console.print(line, soft_wrap=True)
