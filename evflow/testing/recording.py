"""A finished run as a subject of the simulation: its graph, and what its bodies came to.

Nothing of the flow's code is needed, or run: what a body came to, and how long it took, stands in the run's log. A task is
known by its place: its step, which time the step ran on its path, and its index in each split around it. What attempt n of a
task came to is what its attempt n came to then, or its last one, if it had fewer.

Where the simulation comes to a place that the run did not (one member of a foreach failed then, and the others were ended), the task
goes the way that the source leaves, and fails where it leaves several.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evflow.core.control import way_on
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.core.gangs import PARALLEL
from evflow.core.graph import LOCAL, Graph, Policy
from evflow.core.retry import delay_us
from evflow.core.state import Attempt, RunState, Task
from evflow.core.values import value
from evflow.log.protocol import StoredEvent
from evflow.replay.refold import refold
from evflow.testing.simulation.scenario import Report
from evflow.worker.spec import AttemptOrder

Place = tuple[str, int, tuple[tuple[str, int], ...]]

_OPTIONS = ("max_splits", "task_budget", "retry_scale")
_NOT_ITS_OWN = ("", "lost", "cancelled", "exited")
"""Outcomes of attempts that say nothing of their bodies."""


@value
class _Result:
    """What an attempt came to, without its number; and its length."""

    report: Mapping[str, Any]
    failed: bool
    runs_for_s: float


class Recording:
    """`evflow.testing.simulation.scenario.Subject`, from a run's state.

    Attributes:
        name: The flow.
        status: How the run ended.
        reason: Why it failed or was cancelled, or an empty string.
        tasks: How many tasks it had.
        max_workers: How many attempts it ran at once, at most.
        nodes: How many it ran at once, at least: those of its largest gang.
        options: What of its options decisions depend on.
        busy_s: How long its bodies took together, and how long `@retry` can make its tasks wait.
    """

    def __init__(self, state: RunState) -> None:
        self.name = state.flow
        self.status = state.status
        self.reason = state.outcome.reason if state.outcome is not None else ""
        self.tasks = len(state.tasks) - 1
        self.max_workers = int(state.options.get("max_workers", 16))
        self.nodes = max((split.size for split in state.splits.values() if split.kind == PARALLEL), default=1)
        self.options = {name: state.options[name] for name in _OPTIONS if name in state.options}
        self.busy_s = sum(map(_longest_s, state.all_tasks())) + sum(_wait_s(state.graph[task.step].policy) for task in state.all_tasks())
        # The simulation has one machine, which is nobody else's: no pool, and no names that other runs hold.
        here = {name: replace(node, policy=replace(node.policy, executor=LOCAL, limits={})) for name, node in state.graph.nodes.items()}
        self._graph = replace(state.graph, nodes=here)
        self._results = {_place(task): results for task in state.all_tasks() if (results := list(_results(task)))}

    @classmethod
    def of(cls, events: Iterable[StoredEvent]) -> "Recording":
        """The recording of a run's log."""
        return cls(refold(events))

    def graph(self) -> Graph:
        """The graph, with the policies that the run had, but for where attempts run and for limits that span runs."""
        return self._graph

    def report(self, order: AttemptOrder) -> Report:
        """What the attempt comes to."""
        found = self._result(order)
        if order.mode == "catch":
            return self._caught(order, found)
        if found is None:
            return self._unknown(order)
        kind = AttemptFailed if found.failed else AttemptSucceeded
        return kind(order.task, order.attempt, **found.report)

    def runs_for_s(self, order: AttemptOrder) -> float:
        """How long its body takes: as long as it took."""
        found = self._result(order)
        return found.runs_for_s if found is not None and order.mode == "run" else 0.0

    def _result(self, order: AttemptOrder) -> _Result | None:
        place = (order.step, order.iteration, tuple((step, index) for step, _, _, index, *_ in order.frames))
        results: Sequence[_Result] = self._results.get(place, ())
        return results[min(order.attempt, len(results) - 1)] if results else None

    def _caught(self, order: AttemptOrder, found: _Result | None) -> AttemptSucceeded:
        """The attempt that only records a crash for `@catch`: the step goes on the one way that it has."""
        way = way_on(self._graph[order.step], "") or ("linear", ())
        manifest = found.report["manifest"] if found is not None and not found.failed else _inherited(order)
        return AttemptSucceeded(order.task, order.attempt, manifest, *way, caught=order.crash or "lost")

    def _unknown(self, order: AttemptOrder) -> Report:
        way = way_on(self._graph[order.step], "")
        if way is None:
            why = "The run that is played did not come to this task, and its step has more than one way on."
            return AttemptFailed(order.task, order.attempt, "transition", "evflow.testing.NotRecorded", why)
        return AttemptSucceeded(order.task, order.attempt, _inherited(order), *way)


def _inherited(order: AttemptOrder) -> bytes:
    return order.parents[0][2]


def _place(task: Task) -> Place:
    return task.step, task.iteration, tuple((frame.split.step, frame.index) for frame in task.frames())


def _results(task: Task) -> Iterable[_Result]:
    """What the attempts came to by themselves, in their order, from the one on that somebody asked for; what a task that was skipped has."""
    own = () if task.status == "skipped" else task.attempts[task.renewed :]
    for attempt in own:
        if attempt.outcome not in (*_NOT_ITS_OWN, "succeeded"):
            yield _Result(_failure(attempt), failed=True, runs_for_s=_seconds(attempt))
    if task.manifest is not None:
        yield _Result(
            {
                "manifest": task.manifest, "next_kind": task.next_kind, "next_steps": task.next_steps, "splits": task.splits,
                "items": task.items, "variable": task.variable, "caught": task.caught, "artifacts": task.artifacts, "size_bytes": task.size_bytes,
            },
            failed=False,
            runs_for_s=_seconds(own[-1]) if own else 0.0,
        )  # fmt: skip


def _failure(attempt: Attempt) -> dict[str, Any]:
    """A failure that the worker reported; a crash and a hard timeout as what they count as."""
    kind = {"crashed": "exit", "timed-out": "timeout"}.get(attempt.outcome, attempt.kind)
    return {
        "kind": kind, "error": attempt.error, "message": attempt.message, "where": attempt.where, "detail": attempt.detail,
        "retryable": attempt.retryable,
    }  # fmt: skip


def _longest_s(task: Task) -> float:
    return max(map(_seconds, task.attempts), default=0.0)


def _wait_s(policy: Policy) -> float:
    return sum(delay_us(policy, failures, 1.0) for failures in range(1, policy.retry_times + 1)) / 1e6


def _seconds(attempt: Attempt) -> float:
    return max(attempt.ended_us - attempt.started_us, 0) / 1e6 if attempt.started_us else 0.0
