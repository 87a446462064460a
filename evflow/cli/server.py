"""`evflow server`: the embedded server of the log, for whoever wants to see or hold it."""

from typing import Any

import click

from evflow import config
from evflow.cli.output import duration, size, write_json


@click.group(
    "server", help="The embedded server of the log. It starts and stops by itself; these commands are for looking and for keeping it."
)
def command() -> None:
    """Group of the three."""


@command.command("status", help="Say whether it runs, and where.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(as_json: bool) -> None:
    """Look, and start nothing."""
    from evflow.log.embedded import status as look

    found = look(config.home())
    if as_json:
        write_json({"running": found is not None, "home": str(config.home()), **(_plain(found) if found else {})})
        return
    remote = config.get("redis_url")
    if remote:
        click.echo(f"Not used: EVFLOW_REDIS_URL is {config.shown('redis_url', remote)}.")
    if found is None:
        click.echo(f"No server runs in {config.home()}. The next command that needs one starts it.")
        return
    click.echo(f"{click.style('running', fg='green')}  {found.version} for {duration(found.uptime_s * 1e6)}, process {found.pid}")
    for name, text in (
        ("url", found.url),
        ("binary", found.binary),
        ("memory", size(found.memory_bytes)),
        ("clients", str(found.clients)),
        ("data", f"{size(found.data_bytes)} in {found.data}"),
        ("guard", f"process {found.guard}" if found.guard else "none; the next client starts one"),
    ):
        click.echo(f"  {click.style(name.ljust(7), dim=True)}  {text}")


@command.command(
    "start", help="Keep it running until Ctrl-C, so that no command waits for its start.", short_help="Keep it running until Ctrl-C."
)
def start() -> None:
    """Hold it in this terminal."""
    from evflow.log.embedded import start_foreground

    def ready(url: str) -> None:
        click.echo(f"The server answers at {url}. Ctrl-C gives it up.", err=True)

    start_foreground(config.home(), ready)


@command.command("stop", help="Stop it, if nobody uses it.")
@click.option("--force", is_flag=True, help="Even if runs use it; live runs start it again.")
def stop(force: bool) -> None:
    """Stop it and wait until it has gone."""
    from evflow.log.embedded import stop as end

    if end(config.home(), force=force):
        click.echo("The server has stopped.", err=True)
    else:
        click.echo(f"No server runs in {config.home()}.", err=True)


def _plain(found: Any) -> dict[str, Any]:
    return {
        "pid": found.pid,
        "guard": found.guard,
        "version": found.version,
        "binary": found.binary,
        "url": found.url,
        "memory_bytes": found.memory_bytes,
        "clients": found.clients,
        "uptime_s": found.uptime_s,
        "data_bytes": found.data_bytes,
        "data": str(found.data),
    }
