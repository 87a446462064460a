"""Options of commands that decide a setting: what they take is what the setting takes."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from evflow import config


def setting_option(name: str, metavar: str, text: str, *others: str) -> click.Option:
    """The option `--<name>`, and by other names; without it the setting keeps its value."""
    return click.Option([name, option_of(name), *others], type=_SettingKind(name), metavar=metavar, help=text)


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def take_given(names: Iterable[str], given: Mapping[str, object]) -> None:
    """Let what was given of these options hold from now on."""
    for name in names:
        if given.get(name) is not None:
            config.set_option(name, given[name], option_of(name))


def take_given_of_service(names: Iterable[str], given: Mapping[str, object], command: str) -> None:
    """As `take_given`, for a process that stays: it has nothing else to show than its log."""
    take_given(names, given)
    if config.source("log_level").layer == "default":
        config.set_option("log_level", "info", command)


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
