"""`evflow config`: every setting, its value and its place."""

from typing import Any, cast

import click

from evflow import config
from evflow.cli.complete import of_settings
from evflow.cli.output import table, write_json
from evflow.cli.unknown_settings import unknown_settings
from evflow.errors import EvflowError
from evflow.log import shard_sets


@click.command("config", help="Show every setting, its value and where the value comes from; or only NAME.")
@click.argument("name", required=False, shell_complete=of_settings)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Show them. A value that cannot be is shown as such, and makes the command fail at its end."""
    names = [name.replace("-", "_")] if name else list(config.SETTINGS)
    rows = [_row(setting) for setting in names]
    if as_json:
        write_json(rows[0] if name else {"settings": rows, "files": [str(path) for path in _files()]})
    elif not name:
        _print(rows)
    elif not rows[0]["problem"]:
        click.echo(_text(rows[0]["value"]))
    problems = [row["problem"] for row in rows if row["problem"]]
    for problem in dict.fromkeys(problems):  # a broken file is one for every setting
        click.echo(f"Error: {problem}", err=True)
    if not problems:
        for place, key, nearest in unknown_settings():
            click.echo(f"Note: {place}: there is no setting '{key}'.{nearest}", err=True)
    if problems:
        ctx.exit(1)


def _files() -> list[Any]:
    try:
        return list(config.files())
    except EvflowError:  # named beside the settings that it makes unreadable
        return []


def _row(name: str) -> dict[str, Any]:
    setting = config.SETTINGS.get(name)
    if setting is None:
        raise config.UnknownSetting(name)
    row: dict[str, Any] = {"name": name, "value": None, "layer": None, "place": None, "problem": None}
    try:
        value = config.source(name)
    except EvflowError as error:
        row["problem"] = error.message
    else:
        row.update(value=config.shown(name, value.value), layer=value.layer, place=value.place or None)
    return {**row, "variable": setting.env, "option": setting.option or None, "help": setting.help}


def _print(rows: list[dict[str, Any]]) -> None:
    cells = [
        [
            click.style(row["name"], bold=row["layer"] != "default"),
            click.style("wrong", fg="red") if row["problem"] else _text(row["value"]),
            row["place"] or ("default" if not row["problem"] else ""),
            click.style(row["help"], dim=True),
        ]
        for row in rows
    ]
    for line in table(["setting", "value", "from", "meaning"], cells):
        click.echo(line)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        several = cast("tuple[str, ...] | tuple[int, ...]", value)
        numbers = [one for one in several if isinstance(one, int)]
        return shard_sets.shown(numbers) if numbers else " ".join(map(str, several))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
