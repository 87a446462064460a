"""A foreach around a task, as flows and clients written for Metaflow ask for it (`_foreach_stack`)."""

from typing import Any, NamedTuple


class ForeachFrame(NamedTuple):
    """A foreach around a task.

    Attributes:
        step: The step that runs for each item.
        var: The artifact that it split over.
        num_splits: How many items that has.
        index: The task's item, from 0.
        value: The item.
    """

    step: str
    var: str | None
    num_splits: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name; Metaflow calls it so
    value: Any
