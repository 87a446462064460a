"""The command line: `evflow …` and `python flow.py …`.

A file per command group, imported only when its command is asked for, so that `--help` and every command start fast.
`render` prints errors, `output` prints results, `live` shows a run while it goes on.
"""


def main() -> None:
    """Run `evflow` on the process's arguments, and exit."""
    from evflow.cli.streams import open_closed

    open_closed()
    from evflow.cli.app import run

    run()
