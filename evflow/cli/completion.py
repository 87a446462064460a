"""`evflow completion`: what a shell needs to complete commands, options and runs."""

import click

_WHERE = {
    "bash": 'eval "$(evflow completion bash)"     in ~/.bashrc',
    "zsh": 'eval "$(evflow completion zsh)"      in ~/.zshrc',
    "fish": "evflow completion fish | source     in ~/.config/fish/config.fish",
}


@click.command(
    "completion",
    help="Print the script that makes a shell complete evflow's commands and options.\n\n\b\n" + "\n".join(_WHERE.values()),
)
@click.argument("shell", type=click.Choice(list(_WHERE)))
def command(shell: str) -> None:
    """Print the script; it asks `evflow` itself for what can follow."""
    from click.shell_completion import get_completion_class

    from evflow.cli.app import app

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click knows no completion for {shell}.")
    click.echo(made(app(), {}, "evflow", "_EVFLOW_COMPLETE").source())
