"""`evflow version`."""

import click


@click.command("version", help="Print evflow's version.")
def command() -> None:
    """Print it."""
    from evflow import __version__

    click.echo(f"evflow {__version__}")
