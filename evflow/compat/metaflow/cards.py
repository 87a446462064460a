"""`get_cards` as Metaflow's users know it: where no card fits, that is an error."""

from evflow.cli.card import NoCards
from evflow.client.cards import CardContainer, get_cards as found_cards
from evflow.client.task import Task


def get_cards(task: "str | Task", id: str | None = None, type: str | None = None, follow_resumed: bool = True) -> CardContainer:  # noqa: A002 - as in Metaflow
    """The cards of a task; arguments as for `evflow.cards.get_cards`.

    Raises:
        NoCards: None fits; Metaflow calls it CardNotPresentException.
        EvflowInvalidPathspec: The pathspec names no task.
        EvflowNotFound: There is no such task.
    """
    found = found_cards(task, id, type, follow_resumed)
    if found:
        return found
    pathspec = task.pathspec if isinstance(task, Task) else task
    chosen = " ".join(f"{name}={value!r}" for name, value in (("id", id), ("type", type)) if value)
    raise NoCards(pathspec, pathspec.rpartition("/")[0].rpartition("/")[0], chosen=chosen, others=len(found_cards(task)), whole=False)
