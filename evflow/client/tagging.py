"""Changing a run's tags: an event of the flow's log, appended by whoever comes first, decided again by the others."""

from collections.abc import Iterable
from typing import cast

from evflow import config
from evflow.client.errors import EvflowTaggingError
from evflow.client.history import RunHistory
from evflow.core import flow_events
from evflow.core.flow_events import RunTagged
from evflow.core.tags import MOST_TAGS, fault
from evflow.errors import Conflict
from evflow.log.protocol import LogClient, TagChange

_MOST_TRIES = 100
"""Each try loses to another writer of the same flow's log; that this happens so often in a row means a defect."""


def listed(tag: object) -> Iterable[str]:
    """One tag as a list. Metaflow's older callers give a list here, and it is taken as one."""
    return (tag,) if isinstance(tag, str) else cast("Iterable[str]", tag)


def change(history: RunHistory, *, remove: Iterable[str], add: Iterable[str]) -> None:
    """Change a run's user tags.

    Raises:
        EvflowTaggingError: A tag is none, there would be too many, or one of evflow's would go.
    """
    removed, added = _checked(remove), _checked(add)
    if not removed and not added:
        raise EvflowTaggingError("There is no tag to add or to remove.")
    fixed = (removed - added) & history.system_tags
    if fixed:
        raise EvflowTaggingError(f"{_quoted(fixed)} cannot be removed: evflow gave it, and the run keeps it.")
    added -= history.system_tags
    for _ in range(_MOST_TRIES):
        try:
            tags = history.log.ask(lambda log: _try(log, history, removed, added), repeat=False)
        except Conflict:
            continue
        history.set_tags(tags)
        return
    raise EvflowTaggingError(f"The tags of '{history.run}' change faster than they can be read.", "Try again later.")


def _try(log: LogClient, history: RunHistory, removed: set[str], added: set[str]) -> tuple[str, ...]:
    run = history.run
    expected = log.flow_seq(run.flow)  # before the tags: a change between the two is a conflict
    changed = log.tags(run)
    old = set(history.entry.summary.get("tags", ()) if changed is None else changed)
    new = (old - removed) | added
    if new == old:
        return tuple(old)
    if len(new) > MOST_TAGS and len(new) > len(old):
        raise EvflowTaggingError(
            f"Run '{run}' would have {len(new)} tags; {MOST_TAGS} are the most that it may have.",
            "Remove some first: run.remove_tags(...).",
        )
    tags = tuple(sorted(new))
    event = RunTagged(run.number, tags, tuple(sorted(new - old)), tuple(sorted(old - new)))
    payload = flow_events.encode(event, at_us=log.now_us(), principal=f"user:{config.get('user')}")
    log.append_flow(run.flow, expected, payload, TagChange(run, tags))
    return tags


def _checked(tags: Iterable[str]) -> set[str]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EvflowTaggingError(f"Tags come in a list, not as {tags!r}.", "For a single tag there are add_tag and remove_tag.")
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise EvflowTaggingError(f"A tag is a text, not {tag!r}.")
        wrong = fault(tag)
        if wrong is not None:
            raise EvflowTaggingError(wrong)
    return set(found)


def _quoted(tags: Iterable[str]) -> str:
    return ", ".join(f"'{tag}'" for tag in sorted(tags))
