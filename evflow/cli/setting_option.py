"""Options of commands that decide a setting: what they take is what the setting takes."""

from typing import Any

import click

from evflow import config


def setting_option(name: str, metavar: str, text: str) -> click.Option:
    """The option `--<name>`; without it the setting keeps its value."""
    return click.Option([option_of(name)], type=_SettingKind(name), metavar=metavar, help=text)


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


class _SettingKind(click.ParamType):  # type: ignore[type-arg]  # generic since 8.5 only
    """Reads a text as the setting does."""

    def __init__(self, setting: str) -> None:
        self.name = setting
        self._kind = config.SETTINGS[setting].kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._kind.read(value)
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not {self._kind.wanted}.", param, ctx)
