"""What passes a join: `merge_artifacts`, and what goes down without being asked.

Values are never loaded for it: equal digests are equal values. After the body of a join, an artifact passes
down if the step did not set it and `merge_artifacts` named it, or, unless `include=` closed the list, if it is
public and every input has it with one digest (docs/decisions/0031-artifacts-pass-through-joins.md).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from evflow.exception import MergeArtifactsException, MissingInMergeArtifactsException, UnhandledInMergeArtifactsException
from evflow.flow.joined import JoinedTasks
from evflow.flow.scope import Entry, Scope
from evflow.flow.steps import facts

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec


def merge(flow: "FlowSpec", scope: Scope, inputs: object, exclude: Iterable[str], include: Iterable[str]) -> None:
    """Choose what passes the join; nothing is chosen where an error is raised.

    Raises:
        MergeArtifactsException: Not in a join, or both lists are given.
        UnhandledInMergeArtifactsException: Inputs have different values of an artifact that the step did not set.
        MissingInMergeArtifactsException: No input has an artifact of `include`.
    """
    left_out, wanted = _names(exclude, "exclude"), _names(include, "include")
    members, positions = _inputs_of(scope, inputs)
    if left_out and wanted:
        raise MergeArtifactsException(
            f"merge_artifacts in step {scope.step} was given both exclude and include.",
            "Give one of the two: include names all that passes.",
        )
    settled = _set_by_step(flow, scope) | facts(type(flow)).fixed | left_out
    found: dict[str, Entry] = {}
    holders: dict[str, int] = {}
    conflicts: dict[str, None] = {}
    existing: set[str] = set()
    for index in positions:
        view = members.view(index)
        names = [name for name in wanted if name in view] if wanted else view.names()
        existing.update(view.names() if wanted else ())
        for name in names:
            if name not in settled and found.setdefault(name, entry := view.entry(name)).digest != entry.digest:
                conflicts[name] = None
            holders.setdefault(name, index)
    if conflicts:
        raise UnhandledInMergeArtifactsException(scope.step, [(name, members.owners(name, positions)) for name in sorted(conflicts)])
    if missing := [name for name in wanted if name not in found and name not in settled]:
        raise MissingInMergeArtifactsException(scope.step, missing, sorted(existing))
    scope.merge.entries.update(found)
    scope.merge.holders.update((name, holders[name]) for name in found)
    scope.merge.excluded |= left_out
    scope.merge.only_included |= bool(wanted)


def passed_down(scope: Scope) -> dict[str, Entry]:
    """The inputs' artifacts that go on behind the join, before those that the step set itself."""
    assert scope.joined is not None
    entries: dict[str, Entry] = {}
    if not scope.merge.only_included:
        entries.update(scope.joined.agreed())
    entries.update(scope.merge.entries)
    left_out = scope.merge.excluded | scope.removed | facts(scope.joined.cls).fixed  # parameters are this run's, not an input's
    return {name: entry for name, entry in entries.items() if name not in left_out}


def _set_by_step(flow: "FlowSpec", scope: Scope) -> set[str]:
    return {name for name, value in flow.__dict__.items() if scope.read.get(name, scope) is not value}


def _inputs_of(scope: Scope, inputs: object) -> tuple[JoinedTasks, Sequence[int]]:
    """The join's tasks, and which of them are merged: all, or those that the step picked out."""
    joined = scope.joined
    if joined is None:
        raise MergeArtifactsException(
            f"merge_artifacts was called in step {scope.step}, which is not a join.",
            "A join is a step with a second argument: def step(self, inputs).",
        )
    if inputs is joined.inputs:
        return joined, range(len(joined))
    given = type(inputs).__name__
    positions = [joined.position(each) for each in cast("Iterable[object]", inputs)] if isinstance(inputs, Iterable) else [None]
    if None in positions:
        raise MergeArtifactsException(
            f"merge_artifacts in step {scope.step} was given {given}.",
            "Give it the inputs of the step, or a list of some of them.",
        )
    return joined, [position for position in positions if position is not None]


def _names(names: Iterable[str], option: str) -> set[str]:
    if isinstance(names, str):
        raise MergeArtifactsException(
            f"merge_artifacts takes a list of names as {option}, not the string {names!r}.", f"Write {option}=[{names!r}]."
        )
    return set(names)
