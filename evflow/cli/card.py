"""`evflow card` and `python flow.py card`: look at the cards of tasks."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import click

from evflow.cli import session
from evflow.cli.complete import of_what
from evflow.cli.naming import WHAT, Reference, parse, pathspec, resolve, tasks_of
from evflow.cli.output import count, size, table, write_json
from evflow.client.cards import cached, named, page_of
from evflow.core.cards import RecordedCard, of_task
from evflow.core.state import RunState, Task
from evflow.errors import UsageError

_DIGITS = 12
_LISTED = 20


class NoCards(UsageError):
    """Nothing of what was named has a card that fits."""

    code = "no-cards"

    def __init__(self, what: str, *, chosen: bool, others: int) -> None:
        if chosen and others:
            super().__init__(f"None of the {count(others, 'card')} of '{what}' fits.", f"`evflow card list {what}` lists them.")
        else:
            super().__init__(
                f"'{what}' has no cards.", "A step with @card makes one when it ends. `evflow card list RUN` lists those of a whole run."
            )


class SeveralCards(UsageError):
    """More than one card could be meant."""

    code = "several-cards"

    def __init__(self, what: str, cards: "list[Found]") -> None:
        listed = "\n".join(f"  {one.line()}" for one in cards[:_LISTED]) + ("\n  …" if len(cards) > _LISTED else "")
        super().__init__(f"'{what}' has {len(cards)} cards:\n{listed}", "Name a task, or choose by --id, --type or --hash.")


class CardUnwritable(UsageError):
    """A file was named that cannot be written."""

    code = "card-unwritable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"'{file}' cannot be written: {why}.", "Name another file.")


class Found(NamedTuple):
    """A card, and the task that it is of."""

    state: RunState
    task: Task
    card: RecordedCard

    @property
    def name(self) -> str:
        """What its file is called: type, id and hash."""
        return "-".join(part for part in (self.card.type, self.card.id, self.card.page.hex()[:_DIGITS]) if part)

    def line(self) -> str:
        """It in one line."""
        name = f" --id {self.card.id}" if self.card.id else ""
        return f"{pathspec(self.state, self.task)} --type {self.card.type}{name} --hash {self.card.page.hex()[:_DIGITS]}"

    def page(self) -> str:
        """Its page."""
        return page_of(session.store(self.state.header.get("store", "")), self.card)

    def plain(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "pathspec": pathspec(self.state, self.task),
            "attempt": self.task.attempts[-1].number if self.task.attempts else 0,
            "type": self.card.type,
            "id": self.card.id or None,
            "hash": self.card.page.hex(),
            "size": self.card.size_bytes,
            "failed": self.card.failed,
            "origin": self.task.reused,
        }


def find(what: str, flow: type | None, *, id: str | None, type: str | None, digest: str, follow_resumed: bool = True) -> list[Found]:  # noqa: A002 - as in Metaflow
    """The cards of what is named, task by task.

    Raises:
        NoCards: There are none.
    """
    with session.log() as log:
        reference = _reference(what, flow)
        _, state = session.folded(log, resolve(log, reference, flow=flow.__name__ if flow is not None else ""))
    every = [(task, card) for task in tasks_of(state, reference) if follow_resumed or not task.reused for card in of_task(task)]
    found = [Found(state, task, card) for task, card in every if [*named([card], id=id, type=type, digest=digest)]]
    if not found:
        raise NoCards(what or reference.flow, chosen=bool(id or type or digest), others=len(every))
    return found


def _reference(what: str, flow: type | None) -> Reference:
    """What was named; of a flow's own command line, a step alone is that of its newest run."""
    if flow is None:
        return parse(what)
    if not what:
        return Reference(flow.__name__, flow.__name__)
    from evflow.flow.steps import facts

    if what in facts(flow).steps:
        return Reference(what, flow.__name__, None, what)
    return parse(what)


def _one(what: str, flow: type | None, **chosen: Any) -> Found:
    found = find(what, flow, **chosen)
    if len({one.card.page for one in found}) > 1:
        raise SeveralCards(what, found)
    return found[0]


def _view(what: str, flow: type | None, **chosen: Any) -> None:
    import webbrowser

    found = _one(what, flow, **chosen)
    file = cached(found.name, found.page)
    opened = webbrowser.open(file.absolute().as_uri())
    click.echo(f"{'Opened' if opened else 'No browser could be opened. The card is'} {file}", err=opened)


def _get(what: str, flow: type | None, file: str | None, **chosen: Any) -> None:
    page = _one(what, flow, **chosen).page()
    if file is None or file == "-":
        click.echo(page, nl=False)
        return
    _write(file, page)
    click.echo(f"Written to {file}.", err=True)


def _list(what: str, flow: type | None, *, as_json: bool, file: str | None, **chosen: Any) -> None:
    try:
        found = find(what, flow, **chosen)
    except NoCards as none:  # to a list, nothing is wrong
        found = []
        if not as_json and file is None:
            click.echo(f"{none.message}\n{none.hint}", err=True)
            return
    if file is not None:
        _write(file, json.dumps([one.plain() for one in found], indent=2) + "\n")
        return
    if as_json:
        write_json([one.plain() for one in found])
        return
    rows = [
        (
            pathspec(one.state, one.task),
            one.card.type,
            one.card.id or "",
            size(one.card.size_bytes),
            one.card.page.hex()[:_DIGITS],
            "could not be rendered" if one.card.failed else "",
        )
        for one in found
    ]
    for line in table(("TASK", "TYPE", "ID", "SIZE", "HASH", ""), rows, right=("SIZE",)):
        click.echo(line.rstrip())


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, "utf-8", "replace")
    except OSError as error:
        raise CardUnwritable(file, error.strerror or str(error)) from error


def _choice() -> list[click.Parameter]:
    return [
        click.Option(["--id"], metavar="ID", help="The card with this id."),
        click.Option(["--type"], metavar="TYPE", help="A card of this type."),
        click.Option(["--hash", "digest"], metavar="HASH", default="", help="The card whose hash begins so."),
        click.Option(
            ["--follow-resumed/--no-follow-resumed"],
            default=True,
            help="Of tasks that were taken over from another run, the cards of then  [default: follow]",
        ),
    ]


def _group(flow: type | None) -> click.Group:
    def view(what: str, **chosen: Any) -> None:
        _view(what, flow, **chosen)

    def get(what: str, file: str | None, **chosen: Any) -> None:
        _get(what, flow, file, **chosen)

    def list_(what: str, **chosen: Any) -> None:
        _list(what, flow, **chosen)

    def argument(*, required: bool = True) -> click.Argument:
        return click.Argument(["what"], required=required, default=None if required else "", shell_complete=of_what())

    own = " Of this flow, a step alone is that of its newest run." if flow is not None else ""
    group = click.Group("card", help="Look at the cards of tasks: pages that steps with @card make of themselves.")
    group.add_command(click.Command("view", callback=view, params=[argument(), *_choice()], help=f"Open a card in a browser. {WHAT}{own}"))
    file = click.Argument(["file"], required=False, type=click.Path(dir_okay=False, allow_dash=True))
    group.add_command(
        click.Command(
            "get", callback=get, params=[argument(), file, *_choice()], help=f"Write a card's HTML to FILE, or print it. {WHAT}{own}"
        )
    )
    listing: list[click.Parameter] = [
        argument(required=flow is None),
        *_choice(),
        click.Option(["--json", "--as-json", "as_json"], is_flag=True, help="As JSON."),
        click.Option(["--file"], type=click.Path(dir_okay=False), metavar="FILE", help="Write the JSON to this file."),
    ]
    group.add_command(click.Command("list", callback=list_, params=listing, help=f"List cards. {WHAT}{own}"))
    return group


command = _group(None)


def flow_card(flow: type) -> click.Group:
    """`card` of a flow's own command line."""
    return _group(flow)
