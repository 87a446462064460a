"""`evflow tag` and `python flow.py tag`: the tags of runs.

A run has the tags that its users gave it and may change, and those that evflow gave it (`user:ada`, `python_version:…`).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from evflow import config
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import parse, resolve
from evflow.cli.output import write_json
from evflow.core.ids import FlowName, RunId
from evflow.errors import UsageError
from evflow.flow import dialect
from evflow.log.protocol import LogClient, RunEntry


class RunNotNamed(UsageError):
    """Tags are to be changed, and it is not said of which run: Metaflow wants that said."""

    code = "run-not-named"

    def __init__(self, flow: str) -> None:
        super().__init__(
            "It is not said which run's tags are to change.", f"Name the run with --run-id; `evflow runs {flow}` lists the runs."
        )


class Tagged(NamedTuple):
    """A run's tags."""

    run: RunId
    user: tuple[str, ...]
    system: tuple[str, ...]


def _changed(run: RunId, change: Callable[[Any], None], as_json: bool) -> None:
    """Change a run's tags by the client, whatever the namespace, and show what it has now."""
    from evflow.client import Run, namespace

    namespace(None)
    found = Run(str(run))
    change(found)
    if as_json:
        write_json(_plain(Tagged(run, tuple(sorted(found.user_tags)), tuple(sorted(found.system_tags)))))
    else:
        click.echo(f"{run}: {', '.join(sorted(found.user_tags)) or 'no tags'}")


def _named(text: str, flow: str = "") -> RunId:
    with session.log() as log:
        return resolve(log, parse(text), flow=flow)


# --- evflow tag -------------------------------------------------------------------------------------------


@click.group("tag", help="List and change the tags of runs.")
def command() -> None:
    """Group of the four."""


@command.command("add", help="Give RUN these tags.")
@click.argument("run", shell_complete=of_runs())
@click.argument("tags", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def add(run: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Add them."""
    _changed(_named(run), lambda found: found.add_tags(tags), as_json)


@command.command("remove", help="Take these tags from RUN.")
@click.argument("run", shell_complete=of_runs())
@click.argument("tags", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def remove(run: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Remove them."""
    _changed(_named(run), lambda found: found.remove_tags(tags), as_json)


@command.command("replace", help="Take tags from RUN and give it others, in one act.")
@click.argument("run", shell_complete=of_runs())
@click.option("--add", "added", multiple=True, metavar="TAG", help="A tag to give; may be repeated.")
@click.option("--remove", "removed", multiple=True, metavar="TAG", help="A tag to take; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def replace(run: str, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Replace them."""
    _replace(_named(run), added, removed, as_json)


@command.command("list", help="List the tags of RUN, or of all runs.")
@click.argument("run", required=False, shell_complete=of_runs())
@click.option("--hide-system-tags", is_flag=True, help="Only tags that users gave.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_tags(run: str | None, hide_system_tags: bool, as_json: bool) -> None:
    """List them."""
    try:
        with session.log() as log:
            found = [tagged for flow in log.flows() for tagged in _all(log, flow)] if run is None else [_of(log, resolve(log, parse(run)))]
    except session.NoRunsYet as error:
        if run is not None:
            raise
        error.as_list(as_json=as_json)
        return
    _print_by_run(found, hide_system=hide_system_tags, as_json=as_json)


# --- python flow.py tag -----------------------------------------------------------------------------------


def flow_tag(flow: type) -> click.Command:
    """`tag add|remove|replace|list` of a flow's own command line; without --run-id its newest run is meant, but in flows for Metaflow."""
    name = flow.__name__

    def chosen(run_id: str | None) -> RunId:
        if run_id is None and dialect.is_metaflow():
            raise RunNotNamed(name)
        return _named(run_id or name, name)

    def add_tags(run_id: str | None, tags: tuple[str, ...], as_json: bool) -> None:
        _changed(chosen(run_id), lambda found: found.add_tags(tags), as_json)

    def remove_tags(run_id: str | None, tags: tuple[str, ...], as_json: bool) -> None:
        _changed(chosen(run_id), lambda found: found.remove_tags(tags), as_json)

    def replace_tags(run_id: str | None, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
        _replace(chosen(run_id), added, removed, as_json)

    group = click.Group("tag", help="List and change the tags of runs.")
    tags = click.Argument(["tags"], nargs=-1, required=True)
    both = [
        click.Option(["--add", "added"], multiple=True, metavar="TAG", help="A tag to give; may be repeated."),
        click.Option(["--remove", "removed"], multiple=True, metavar="TAG", help="A tag to take; may be repeated."),
    ]
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="As JSON.")
    group.add_command(click.Command("add", callback=add_tags, params=[*_run_options(), tags, as_json], help="Give a run tags."))
    group.add_command(click.Command("remove", callback=remove_tags, params=[*_run_options(), tags, as_json], help="Take tags from a run."))
    group.add_command(
        click.Command("replace", callback=replace_tags, params=[*_run_options(), *both, as_json], help="Take tags and give others.")
    )
    group.add_command(_flow_list(name))
    return group


def _run_options() -> list[click.Parameter]:
    return [
        click.Option(["--run-id"], metavar="RUN", help="The run; the newest one if not given (in flows for Metaflow it has to be given)."),
        click.Option(["--namespace"], hidden=True, expose_value=False),
    ]


def _flow_list(flow: str) -> click.Command:
    def listed(
        run_id: str | None,
        every: bool,
        my_runs: bool,
        hide_system_tags: bool,
        group_by_tag: bool,
        group_by_run: bool,
        flat: bool,
        as_json: bool,
    ) -> None:
        try:
            with session.log() as log:
                found = [_of(log, resolve(log, parse(run_id), flow=flow))] if run_id else list(_all(log, FlowName(flow)))
        except session.NoRunsYet as error:
            if run_id:
                raise
            error.as_list(as_json=as_json)
            return
        if my_runs and not every:
            mine = f"user:{config.get('user')}"
            found = [tagged for tagged in found if mine in tagged.system]
        if as_json or group_by_run:
            _print_by_run(found, hide_system=hide_system_tags, as_json=as_json)
        elif group_by_tag:
            _print_by_tag(found, hide_system=hide_system_tags)
        else:
            tags = sorted({tag for tagged in found for tag in _shown(tagged, hide_system_tags)})
            click.echo("\n".join(tags) if flat else f"{flow}: {', '.join(tags) or 'no tags'}")

    options: list[click.Parameter] = [
        *_run_options(),
        click.Option(["--all", "every"], is_flag=True, help="Runs of all users  [default]"),
        click.Option(["--my-runs"], is_flag=True, help="Only runs that you started."),
        click.Option(["--hide-system-tags"], is_flag=True, help="Only tags that users gave."),
        click.Option(["--group-by-tag"], is_flag=True, help="The runs of each tag."),
        click.Option(["--group-by-run"], is_flag=True, help="The tags of each run."),
        click.Option(["--flat"], is_flag=True, help="A tag on each line."),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
    ]
    return click.Command("list", callback=listed, params=options, help="List tags.")


# --- both -------------------------------------------------------------------------------------------------


def _replace(run: RunId, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    if not added and not removed:
        raise click.UsageError("Name tags to --add or to --remove.")
    _changed(run, lambda found: found.replace_tags(removed, added), as_json)


def _of(log: LogClient, run: RunId) -> Tagged:
    from evflow.replay.load import RunNotFound

    entry = log.run(run)
    if entry is None:
        raise RunNotFound(run, log)
    return _tagged(entry, log.tags(run))


def _all(log: LogClient, flow: FlowName) -> Iterator[Tagged]:
    changed = log.all_tags(flow)
    for entry in log.runs(flow):
        yield _tagged(entry, changed.get(entry.run.number))


def _tagged(entry: RunEntry, changed: tuple[str, ...] | None) -> Tagged:
    tags = entry.summary.get("tags", ()) if changed is None else changed
    return Tagged(entry.run, tuple(sorted(tags)), tuple(sorted(entry.summary.get("system_tags", ()))))


def _shown(tagged: Tagged, hide_system: bool) -> tuple[str, ...]:
    return tagged.user if hide_system else (*tagged.user, *tagged.system)


def _print_by_run(found: list[Tagged], *, hide_system: bool, as_json: bool) -> None:
    if as_json:
        write_json([_plain(tagged, hide_system=hide_system) for tagged in found])
        return
    for tagged in found:
        click.echo(f"{click.style(str(tagged.run), bold=True)}: {', '.join(_shown(tagged, hide_system)) or 'no tags'}")


def _print_by_tag(found: list[Tagged], *, hide_system: bool) -> None:
    runs: dict[str, list[str]] = {}
    for tagged in found:
        for tag in _shown(tagged, hide_system):
            runs.setdefault(tag, []).append(str(tagged.run))
    for tag in sorted(runs):
        click.echo(f"{click.style(tag, bold=True)}: {', '.join(runs[tag])}")


def _plain(tagged: Tagged, *, hide_system: bool = False) -> dict[str, Any]:
    return {"run": str(tagged.run), "tags": tagged.user, **({} if hide_system else {"system_tags": tagged.system})}
