"""`evflow card` and `python flow.py card`: look at the cards of tasks."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from evflow.cli import session
from evflow.cli.complete import of_what
from evflow.cli.logs import log_folder
from evflow.cli.naming import WHAT, Reference, meant, pathspec, tasks_of
from evflow.cli.output import count, size, table, write_json
from evflow.client.cards import cached, drawn_raw, named, page_of, raw_of
from evflow.core.cards import RecordedCard, of_task
from evflow.core.ids import RunId
from evflow.core.state import RunState, Task
from evflow.errors import UsageError
from evflow.flow import dialect
from evflow.log.protocol import LogClient
from evflow.store.live_cards import LiveCard, live_cards

_DIGITS = 12
_LISTED = 20
PORT = 8324


class NoCards(UsageError):
    """Nothing of what was named has a card that fits."""

    code = "no-cards"

    def __init__(self, what: str, run: str, *, chosen: str, others: int, whole: bool, cached_from: str = "") -> None:
        if chosen and others:
            there = "the one that it has does not fit" if others == 1 else f"none of its {count(others, 'card')} fits"
            super().__init__(f"'{what}' has no card with {chosen}: {there}.", f"`evflow card list {run}` lists what there is.")
        else:
            why = "A step with @card makes one when it ends."
            if cached_from:
                why = f"Its result was taken from {cached_from}, which had made none (@cached); a run with --no-cache makes them."
            elsewhere = "" if whole else f" `evflow card list {run}` lists those of the whole run."
            super().__init__(f"'{what}' has no cards.", f"{why}{elsewhere}")


class SeveralCards(UsageError):
    """More than one card could be meant."""

    code = "several-cards"

    def __init__(self, what: str, cards: "list[Found]") -> None:
        listed = "\n".join(f"  {one.line()}" for one in cards[:_LISTED]) + ("\n  …" if len(cards) > _LISTED else "")
        super().__init__(f"'{what}' has {len(cards)} cards:\n{listed}", "Name a task, or choose by --id, --type or --hash.")


class PortTaken(UsageError):
    """The port of `card server` cannot be had."""

    code = "port-taken"

    def __init__(self, port: int, why: str) -> None:
        super().__init__(f"Port {port} cannot be used: {why}.", "Name another one with --port, or 0 for any that is free.")


class CardUnwritable(UsageError):
    """A file was named that cannot be written."""

    code = "card-unwritable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"'{file}' cannot be written: {why}.", "Name another file.")


class Found(NamedTuple):
    """A card, and the task that it is of.

    Attributes:
        state: The run.
        task: The task.
        card: The card as the log names it; of one that only a file has, without a digest.
        place: Its place among the cards of its step.
        live: The file, of an attempt that has reported no cards: it goes on, or was killed.
    """

    state: RunState
    task: Task
    card: RecordedCard
    place: int
    live: LiveCard | None = None

    @property
    def name(self) -> str:
        """What its file is called: type, id and hash."""
        return "-".join(part for part in (self.card.type, self.card.id, self.card.page.hex()[:_DIGITS]) if part)

    def line(self) -> str:
        """It in one line."""
        name = f" --id {self.card.id}" if self.card.id else ""
        digest = f" --hash {self.card.page.hex()[:_DIGITS]}" if self.card.page else ""
        return f"{pathspec(self.state, self.task)} --type {self.card.type}{name}{digest}"

    def page(self) -> str:
        """Its page."""
        if self.live is not None:
            return Path(self.live.path).read_text("utf-8", "replace")
        return page_of(session.store(self.state.header.get("store", "")), self.card)

    def raw(self) -> str | None:
        """What its class gave, under Metaflow's rules; None where that is not kept."""
        if not dialect.is_metaflow():
            return None
        if self.live is not None:
            return drawn_raw(Path(self.live.path))
        return raw_of(session.store(self.state.header.get("store", "")), self.card)

    def news(self) -> str | None:
        """What its class has for programs that follow it while its task goes on, as JSON; None where that is nothing."""
        beside = Path(self.live.path).with_suffix(".json") if self.live is not None else None
        return beside.read_text("utf-8", "replace") if beside is not None and beside.exists() else None

    def file(self) -> Path:
        """A file with its page, for a browser; that of a task that goes on is drawn anew by it."""
        return Path(self.live.path) if self.live is not None else cached(self.name, self.page)

    @property
    def key(self) -> str:
        """What tells it from the others of its run, before its attempt has reported and after."""
        return f"{self.task.id}:{self.place}"

    def plain(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "pathspec": pathspec(self.state, self.task),
            "attempt": self.task.attempts[-1].number if self.task.attempts else 0,
            "type": self.card.type,
            "id": self.card.id or None,
            "hash": self.card.page.hex() or None,
            "size": self.card.size_bytes,
            "failed": self.card.failed,
            "origin": self.task.reused,
            "live": self.live is not None,
        }


def find(what: str, flow: type | None, *, id: str | None, type: str | None, digest: str, follow_resumed: bool = True) -> list[Found]:  # noqa: A002 - as in Metaflow
    """The cards of what is named, task by task.

    Raises:
        NoCards: There are none.
        NoSuchStep: What is named is neither a step of the flow nor another flow.
    """
    with session.log() as log:
        reference, run_id = _meant(log, what, flow)
        _, state = session.folded(log, run_id)
    tasks = [task for task in tasks_of(state, reference) if follow_resumed or not task.reused]
    every = cards_in(state, tasks)
    found = [one for one in every if [*named([one.card], id=id, type=type, digest=digest)]]
    if not found:
        chosen = " ".join(f"--{option} {value}" for option, value in (("id", id), ("type", type), ("hash", digest)) if value)
        taken = tasks[0].attempt.cached_from if all(task.attempts and task.attempt.cached_from for task in tasks) else ""
        run = f"{state.flow}/{state.number}"
        raise NoCards(what or reference.flow, run, chosen=chosen, others=len(every), whole=not reference.step, cached_from=taken)
    return found


def cards_in(state: RunState, tasks: list[Task]) -> list[Found]:
    """The cards of tasks: those that were reported, else what was drawn last of the task's current attempt."""
    drawn: dict[tuple[int, int], list[LiveCard]] = {}
    for live in live_cards(log_folder(state)):
        drawn.setdefault((live.task, live.attempt), []).append(live)
    found: list[Found] = []
    for task in tasks:
        current = task.attempts[-1].number if task.attempts else 0
        reported = of_task(task)
        if reported and (task.attempts[-1].cards or (task.id, current) not in drawn):
            found += [Found(state, task, card, place) for place, card in enumerate(reported)]
            continue
        for live in drawn.get((task.id, current), ()):
            found.append(Found(state, task, RecordedCard(live.type, live.id, b"", Path(live.path).stat().st_size), live.place, live))
    return found


def _meant(log: LogClient, what: str, flow: type | None) -> tuple[Reference, RunId]:
    """As `meant`; a flow's own command line stands for its newest run where nothing is named."""
    return meant(log, what or flow.__name__ if flow is not None else what, flow)


def _one(what: str, flow: type | None, **chosen: Any) -> Found:
    found = find(what, flow, **chosen)
    if len({one.card.page or one.live for one in found}) > 1:
        raise SeveralCards(what, found)
    return found[0]


def _view(what: str, flow: type | None, **chosen: Any) -> None:
    import webbrowser

    found = _one(what, flow, **chosen)
    file = found.file()
    opened = webbrowser.open(file.absolute().as_uri())
    click.echo(f"{'Opened' if opened else 'No browser could be opened. The card is'} {file}", err=opened)


def _get(what: str, flow: type | None, file: str | None, **chosen: Any) -> None:
    found = _one(what, flow, **chosen)
    raw = found.raw()
    text = found.page() if raw is None else raw
    if file is None or file == "-":
        click.echo(text, nl=False)
        return
    _write(file, text)
    unsafe = "" if raw is None else " It is what `render` gave, with any scripts in it; `card view` shows the page, where none run."
    click.echo(f"Written to {file}.{unsafe}", err=True)


def _list(what: str, flow: type | None, *, as_json: bool, file: str | None, **chosen: Any) -> None:
    try:
        found = find(what, flow, **chosen)
    except NoCards as none:  # to a list, nothing is wrong
        found = []
        if not as_json and file is None:
            click.echo(f"{none.message}\n{none.hint}", err=True)
            return
    plain: Any = _by_task(found, what) if dialect.is_metaflow() else [one.plain() for one in found]
    if file is not None:
        _write(file, json.dumps(plain, indent=2) + "\n")
        return
    if as_json:
        write_json(plain)
        return
    rows = [
        (
            pathspec(one.state, one.task),
            one.card.type,
            one.card.id or "",
            size(one.card.size_bytes),
            one.card.page.hex()[:_DIGITS],
            "could not be rendered" if one.card.failed else "live" if one.live is not None else "",
        )
        for one in found
    ]
    for line in table(("TASK", "TYPE", "ID", "SIZE", "HASH", ""), rows, right=("SIZE",)):
        click.echo(line.rstrip())


def _by_task(found: list[Found], what: str) -> Any:
    """Cards as programs that were written for Metaflow read them: the task that was named and its cards; of several, a list of those."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        card = one.plain()
        tasks.setdefault(card["pathspec"], []).append({**card, "filename": f"{one.name}.html"})
    listed = [{"pathspec": name, "cards": cards} for name, cards in tasks.items()]
    return listed[0] if what and len(listed) == 1 else listed


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
        default = {} if required else {"default": ""}  # one that is None counts as given: none is asked for
        return click.Argument(["what"], required=required, shell_complete=of_what(), **default)

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
    serving: list[click.Parameter] = [
        click.Option(["--run-id"], metavar="RUN", help="The run whose cards are shown; the newest one of the flow if not given."),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 for any that is free."),
        click.Option(["--namespace"], metavar="NS", help="As in Metaflow; a run is found by its name."),
        click.Option(
            ["--poll-interval"], type=click.IntRange(1), default=5, show_default=True, help="Seconds between two looks at the run."
        ),
        click.Option(["--max-cards"], type=click.IntRange(1), default=30, show_default=True, help="How many are listed, the newest ones."),
    ]
    if flow is None:
        serving[0] = click.Argument(["run_id"], metavar="RUN", shell_complete=of_what())

    def serve(run_id: str | None, port: int, namespace: str | None, poll_interval: int, max_cards: int) -> None:
        _serve(run_id or "", flow, port, poll_interval, max_cards)

    group.add_command(
        click.Command("server", callback=serve, params=serving, help="Show a run's cards in a browser while it goes on, until Ctrl-C.")
    )
    return group


def _serve(what: str, flow: type | None, port: int, poll_interval: int, max_cards: int) -> None:
    from evflow.cli.card_pages import Pages, server

    def now() -> list[Found]:
        with session.log() as log:
            reference, run = _meant(log, what, flow)
            _, state = session.folded(log, run)
        return cards_in(state, tasks_of(state, reference))[::-1][:max_cards]

    def listed() -> list[tuple[str, str, str]]:
        return [
            (one.key, pathspec(one.state, one.task), " ".join(filter(None, (one.card.type, one.card.id, "live" if one.live else ""))))
            for one in now()
        ]

    def page(key: str) -> str | None:
        found = next((one for one in now() if one.key == key), None)
        return found.page() if found is not None else None

    def news(key: str) -> str | None:
        found = next((one for one in now() if one.key == key), None)
        return found.news() if found is not None else None

    def title() -> str:
        return what or (flow.__name__ if flow is not None else "")

    now()  # what was named is there
    try:
        http = server(Pages(title, listed, page, poll_interval, news), port)
    except OSError as error:
        raise PortTaken(port, error.strerror or str(error)) from error
    click.echo(f"The cards of {title()}: http://localhost:{http.server_address[1]}/  (Ctrl-C ends)", err=True)
    with http, suppress(KeyboardInterrupt):
        http.serve_forever()


command = _group(None)


def flow_card(flow: type) -> click.Group:
    """`card` of a flow's own command line."""
    return _group(flow)
