"""`evflow dump` and `python flow.py dump`: the artifacts of tasks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from evflow.cli import session
from evflow.cli.complete import of_what
from evflow.cli.naming import WHAT, WHAT_OF_FLOW, meant, pathspec, tasks_of
from evflow.cli.output import became, count, size, write_json
from evflow.core.state import RunState, Task
from evflow.errors import EvflowError, UsageError, did_you_mean
from evflow.flow import dialect

if TYPE_CHECKING:
    from evflow.store.artifacts import ArtifactView

_TOO_LARGE = "too large to show"


class NoSuchArtifact(UsageError):
    """`--include` names an artifact that none of the tasks has."""

    code = "no-such-artifact"

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        has = f"There are: {', '.join(known)}." if known else "There are none."
        super().__init__(f"No task of '{what}' has an artifact '{name}'.", f"{has}{did_you_mean(name, known)}")


class DumpUnwritable(UsageError):
    """`--file` names a file that cannot be written."""

    code = "dump-unwritable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"The artifacts cannot be written to '{file}': {why}.", "Name another file with --file.")


def _options() -> list[click.Parameter]:
    return [
        click.Argument(["what"], shell_complete=of_what()),
        click.Option(["--private/--no-private"], default=False, help="Those whose name begins with _ too."),
        click.Option(
            ["--max-value-size"], type=click.IntRange(0), default=1000, show_default=True, help="Show values up to so many bytes."
        ),
        click.Option(["--include"], metavar="A,B", help="Only these."),
        click.Option(["--file"], type=click.Path(dir_okay=False), help="Write {task: {name: value}} to this file, pickled."),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON; values that are JSON-like, up to --max-value-size."),
    ]


def flow_dump(flow: type) -> click.Command:
    """`dump WHAT` of a flow's own command line, where `3/train` is this flow's run."""

    def dump(what: str, **options: Any) -> None:
        _dump(what, **options, flow=flow)

    return click.Command("dump", callback=dump, params=_options(), help=f"Show the artifacts of tasks. {WHAT_OF_FLOW}")


def _dump(
    what: str, private: bool, max_value_size: int, include: str | None, file: str | None, as_json: bool, *, flow: type | None = None
) -> None:  # fmt: skip
    with session.log() as log:
        reference, run = meant(log, what, flow)
        _, state = session.folded(log, run)
    wanted = {name.strip() for name in include.split(",")} if include else None
    found = [
        (task, view, [name for name in sorted(view.names()) if private or not name.startswith("_")])
        for task, view in _views(state, tasks_of(state, reference))
    ]
    made = {task.id: _recorded(pathspec(state, task), wanted) for task, _, _ in found} if private and dialect.is_metaflow() else {}
    if wanted is not None:
        if not dialect.is_metaflow():  # programs that were written for Metaflow ask so whether a task has it
            _check(what, wanted, [names for _, _, names in found])
        found = [(task, view, [name for name in names if name in wanted]) for task, view, names in found]
    if file:
        _write(state, found, file, made)
    elif as_json:
        write_json({pathspec(state, task): {name: _plain(view, name, max_value_size) for name in names} for task, view, names in found})
    else:
        for task, view, names in found:
            _print(pathspec(state, task), view, names, max_value_size)
            for name, value in made.get(task.id, {}).items():
                click.echo(f"  {click.style(name, fg='cyan')}  = {_cut(repr(value), max_value_size)}")


def _recorded(task: str, wanted: set[str] | None) -> dict[str, Any]:
    """What Metaflow keeps beside the user's artifacts, and `task["_success"]` in the client has too; made of the log."""
    from evflow.client.recorded import NAMES
    from evflow.client.task import Task as TaskOfClient

    there = TaskOfClient(task, _namespace_check=False)
    return {name: there[name].data for name in sorted(NAMES) if wanted is None or name in wanted}


def _cut(text: str, most: int) -> str:
    return text if len(text.encode()) <= most else _TOO_LARGE


def _check(what: str, wanted: set[str], has: list[list[str]]) -> None:
    known = {name for names in has for name in names}
    for name in sorted(wanted - known):
        if has:  # else there is nothing to choose from, and each task said so
            raise NoSuchArtifact(what, name, sorted(known))


def _views(state: RunState, tasks: list[Task]) -> Iterator[tuple[Task, "ArtifactView"]]:
    from evflow.client.code import main_resolver
    from evflow.store.artifacts import ArtifactView

    store = session.store(str(state.header.get("store") or ""))
    code = state.header.get("code", {})
    main = main_resolver(store, code.get("package"), code.get("file") or "")
    for task in tasks:
        if task.manifest is None:
            click.echo(f"{pathspec(state, task)} has no artifacts: it {became(task.status)}.", err=True)
        else:
            yield task, ArtifactView.open(store, task.manifest, main=main)


def _plain(view: "ArtifactView", name: str, max_value_size: int) -> dict[str, Any]:
    from evflow.store import plain

    entry = view.entry(name)
    shown: dict[str, Any] = {"type": entry.type, "size": entry.size, "serializer": entry.serializer, "sha256": entry.digest}
    if entry.serializer == plain.NAME and entry.size <= max_value_size:  # nothing is unpickled for a program that reads JSON
        try:
            shown["value"] = view.load(name)
        except EvflowError as error:
            shown["problem"] = error.message
    return shown


def _print(task: str, view: "ArtifactView", names: list[str], max_value_size: int) -> None:
    click.secho(task, bold=True)
    width = max((len(name) for name in names), default=0)
    for name in names:
        entry = view.entry(name)
        head = f"  {click.style(name.ljust(width), fg='cyan')}  {click.style(f'[{entry.type}, {size(entry.size)}]', dim=True)}"
        if entry.size > max_value_size:
            click.echo(f"{head} {_TOO_LARGE}")
        else:
            click.echo(f"{head} {_shown(view, name)}")


def _shown(view: "ArtifactView", name: str) -> str:
    try:
        value = view.load(name)
    except EvflowError as error:
        return click.style(f"cannot be loaded: {error.message}", fg="red")
    try:
        return f"= {value!r}"
    except Exception as error:  # noqa: BLE001 - the user's __repr__; the other artifacts are still to be shown
        return click.style(f"cannot be shown: its __repr__ raised {type(error).__name__}: {error}", fg="red")


def _write(state: RunState, found: list[tuple[Task, "ArtifactView", list[str]]], file: str, made: dict[int, dict[str, Any]]) -> None:
    import pickle
    from pathlib import Path

    values = {_key(pathspec(state, task)): {name: view.load(name) for name in names} | made.get(task.id, {}) for task, view, names in found}
    try:
        Path(file).write_bytes(pickle.dumps(values, protocol=5))
    except OSError as error:
        raise DumpUnwritable(file, error.strerror or str(error)) from error
    click.echo(f"Artifacts of {count(len(values), 'task')} were written to {file}.", err=True)


def _key(task: str) -> str:
    """What the file calls a task; for programs that were written for Metaflow without the flow's name."""
    return task.partition("/")[2] if dialect.is_metaflow() else task


command = click.Command("dump", callback=_dump, params=_options(), help=f"Show the artifacts of tasks. {WHAT}")
