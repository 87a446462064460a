"""A click group that knows its commands by name and imports only the one that is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from evflow.cli.render import color_wish
from evflow.errors import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Lazy(NamedTuple):
    """A command before it is imported.

    Attributes:
        module: The module that defines it.
        attribute: Its name there: a command, or a function that makes one of the group's `subject`.
        help: Its line in the group's help.
    """

    module: str
    attribute: str
    help: str


Sections = Mapping[str, Mapping[str, Lazy]]
"""Title of a section of the help to its commands by name."""


def alike(name: str) -> str:
    """The form in which names are compared: `--n_folds` and `--n-folds` are one option."""
    return name.replace("_", "-")


class LazyGroup(click.Group):
    """A group of commands that are imported when they are asked for.

    Args:
        sections: The commands, in the order and under the titles of the help.
        subject: What a command's maker takes (the flow's class), or None where commands are ready made.
    """

    def __init__(self, *, sections: Sections, subject: Any = None, **attributes: Any) -> None:
        settings = {"token_normalize_func": alike, "help_option_names": ["-h", "--help"], "max_content_width": 100}
        super().__init__(context_settings=settings, **attributes)
        self._sections = sections
        self._lazy = {name: lazy for commands in sections.values() for name, lazy in commands.items()}
        self._subject = subject

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Make the context of an invocation; what it prints is colored as the user wishes."""
        return super().make_context(info_name, args, parent, **{"color": color_wish(), **extra})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        name = alike(cmd_name)
        if name in self.commands:
            return self.commands[name]
        lazy = self._lazy.get(name)
        if lazy is None:
            return None
        made: Any = getattr(import_module(lazy.module), lazy.attribute)
        command: click.Command = made if isinstance(made, click.Command) else made(self._subject)
        self.commands[name] = command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one might have been meant."""
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or alike(name) in self._lazy):
            self._fail_unknown(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands, without importing any."""
        width = max(len(name) for name in self._lazy)
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.help) for name, lazy in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """The commands and options that begin so, without importing any command."""
        from click.shell_completion import CompletionItem

        begun = alike(incomplete)
        found = [CompletionItem(name, help=lazy.help) for name, lazy in self._lazy.items() if name.startswith(begun)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def _fail_unknown(self, ctx: click.Context, name: str) -> NoReturn:
        raise click.UsageError(f"There is no command '{name}'.{did_you_mean(alike(name), self._lazy)}", ctx)
