"""From a card and what is known of its task to a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from evflow.cards.amounts import duration, moment
from evflow.cards.collector import CardPlan
from evflow.cards.component import escape, ours
from evflow.cards.error import Error
from evflow.cards.facts import Around, Shown, TaskFacts
from evflow.cards.page import Heading, drawn, page
from evflow.cards.types import NoSuchCardType
from evflow.core.values import replaced

if TYPE_CHECKING:
    from evflow.cards.own import OwnCard


def render(plan: CardPlan, task: TaskFacts, again_s: int = 0, around: Around | None = None) -> str:
    """A card's page.

    Args:
        plan: The card.
        task: What is known of its task.
        again_s: Of a task that goes on: the page is read anew after so many seconds.
        around: What the class of a type of one's own is told.

    Raises:
        NoSuchCardType: Its type is not known.
    """
    return with_raw(plan, task, again_s, around)[0]


def with_raw(plan: CardPlan, task: TaskFacts, again_s: int = 0, around: Around | None = None) -> tuple[str, str | None]:
    """As `render`, with the text that the class of its type gave, as it is; None for types that make a page and no text."""
    raw: str | None = None
    renderer = RENDERERS.get(plan.type)
    if renderer is not None:
        content = renderer(plan, task)
        raw = _pathspec(task) if plan.type == "taskspec_card" else None
    elif around is None:
        raise NoSuchCardType(plan.type)
    elif task.status == "failed":  # its class is written for a task that has artifacts
        content = _error(plan, task)
    else:
        card = own_card(plan, task, around)
        content, raw = card.final(), card.raw
    return page_around(plan, task, content, again_s), raw


def page_around(plan: CardPlan, task: TaskFacts, content: str, again_s: int = 0) -> str:
    """The page around a card's content; arguments as for `render`."""
    return page(replaced(heading(plan, task), again_s=again_s), content)


def own_card(plan: CardPlan, task: TaskFacts, around: Around) -> "OwnCard":
    """A card of a type of one's own, about to be drawn.

    Raises:
        NoSuchCardType: Its type is not known.
    """

    def builtin(name: str) -> str:
        return RENDERERS[name](plan, task)

    made: OwnCard = ours("evflow.cards.own").OwnCard(plan, around, builtin)
    return made


def error_page(plan: CardPlan, task: TaskFacts, error: BaseException | str) -> str:
    """The page that takes the place of a card that could not be rendered."""
    shown = Error(error, "This card could not be rendered").render()
    note = f"<p>The task itself is not touched by this. Its card was one of the type <code>{escape(plan.type)}</code>.</p>"
    return page(heading(plan, task), shown + note)


def heading(plan: CardPlan, task: TaskFacts) -> Heading:
    """The head of a card's page."""
    facts: list[tuple[str, str]] = []
    times = dict(task.times)
    begun, ended = times.get("Started", 0), times.get("Ended", 0)
    if begun:
        facts.append(("Started", moment(begun)))
    if begun and ended:
        facts.append(("Took", escape(duration(ended - begun))))
    if task.attempt:
        facts.append(("Attempt", str(task.attempt + 1)))
    facts += [(f"{name} ", f"{index + 1:,} of {size:,}") for name, index, size in task.place]
    if task.user:
        facts.append(("User", escape(task.user)))
    if plan.id:
        facts.append(("Card", escape(plan.id)))
    trail = (task.flow, f"run {task.run}", task.step, f"task {task.task}")
    return Heading(title=f"{task.flow}: {task.step}", trail=trail, facts=facts, status=task.status)


def _blank(plan: CardPlan, task: TaskFacts) -> str:
    title = str(plan.options.get("title") or "")
    return (f"<h1>{escape(title)}</h1>\n" if title else "") + drawn(plan.components)


def _default(plan: CardPlan, task: TaskFacts) -> str:
    from evflow.cards.default import sections

    return drawn(plan.components) + "\n" + sections(task)


def _error(plan: CardPlan, task: TaskFacts) -> str:
    return Error(task.error).render() if task.error else "<p>The task did not fail.</p>"


def _taskspec(plan: CardPlan, task: TaskFacts) -> str:
    return f"<p>{escape(_pathspec(task))}</p>"


def _pathspec(task: TaskFacts) -> str:
    return "/".join((task.flow, task.run, task.step, task.task))


def _json(plan: CardPlan, task: TaskFacts) -> str:
    from evflow.cards.artifact import short
    from evflow.cards.viewer import JSONViewer

    def values(shown: Sequence[Shown]) -> list[dict[str, object]]:
        return [
            {"name": one.name, "type": one.type, "size": one.size_bytes, "value": short(one.value) if one.is_loaded else None}
            for one in shown
        ]

    what = {
        "pathspec": _pathspec(task),
        "attempt": task.attempt,
        "status": task.status,
        "error": task.error or None,
        "parameters": values(task.parameters),
        "artifacts": values(task.artifacts),
        "times": dict(task.times),
    }
    return JSONViewer(what, collapsible=False).render()


RENDERERS: Final[Mapping[str, Callable[[CardPlan, TaskFacts], str]]] = {
    "default": _default,
    "blank": _blank,
    "error": _error,
    "taskspec_card": _taskspec,
    "default_json": _json,
}
"""A type of card to what makes its content."""
