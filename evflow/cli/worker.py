"""`evflow worker`: run tasks of a pool on this machine, for as long as the process lives."""

import os

import click

from evflow import config
from evflow.cli.complete import of_pools
from evflow.cli.setting_option import setting_option, take_given_of_service
from evflow.core.graph import DEFAULT_POOL

_SETTINGS = ("worker_patience", "warm_memory", "drain_timeout", "log_level", "log_format")


@click.pass_context
def _worker(ctx: click.Context, /, pool: str, slots: int | None, name: str | None, **given: object) -> None:
    take_given_of_service(_SETTINGS, given, "evflow worker")
    from evflow import __version__, diagnostics

    diagnostics.prepare(at_once=True)
    from evflow.log.pools import check_name
    from evflow_executors.pool_worker import WorkerJob
    from evflow_scheduler.worker import serve

    serve(
        WorkerJob(
            pool=check_name(pool),
            slots=slots or _cores(),
            label=check_name(name or os.uname().nodename, "a worker"),
            home=config.home(),
            patience_s=config.get("worker_patience"),
            drain_s=config.get("drain_timeout"),
            version=__version__,
        ),
        warm_bytes=config.get("warm_memory") * 1_000_000,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


command = click.Command(
    "worker",
    callback=_worker,
    params=[
        click.Option(
            ["--pool"], default=DEFAULT_POOL, metavar="NAME", help="Whose tasks it runs  [default: default]", shell_complete=of_pools()
        ),
        click.Option(["--slots"], type=click.IntRange(1), metavar="N", help="Tasks at once  [default: the cores of this machine]"),
        click.Option(["--name"], metavar="NAME", help="What it is called  [default: this machine's name]"),
        setting_option("worker_patience", "SECONDS", "Unheard for so long, it counts as dead and ends what it runs  [default: 5]"),
        setting_option("warm_memory", "MB", "Memory that loaded flows without work may keep  [default: 1000]"),
        setting_option("drain_timeout", "SECONDS", "How long what runs may go on after SIGTERM  [default: until it ends]"),
        setting_option("log_level", "debug|info|warning|error", "What it says on stderr  [default: info]"),
        setting_option("log_format", "auto|json|text", "How it says it  [default: text in a terminal, else json]"),
    ],
    help="Run tasks of a pool on this machine, those of steps with @pool(NAME), until Ctrl-C or SIGTERM: then what runs may end, and nothing "
    "new begins; a second one ends it, and it is started again elsewhere. It needs the log (EVFLOW_REDIS_URL) and the store of the "
    "runs; their code comes from the store.",
    short_help="Run tasks of a pool.",
)
