"""Why tasks of a resumed run were run and not taken over: worked out from its log and its origin's, which says it for good."""

from collections.abc import Callable, Iterable

from evflow.cli import session
from evflow.cli.naming import pathspec
from evflow.core.ids import RunId
from evflow.core.reasons import anew
from evflow.core.reuse import RunAnew, plan_of
from evflow.core.state import RunState, Task
from evflow.errors import EvflowError
from evflow.log.protocol import LogClient

Why = Callable[[Task], tuple[RunAnew, str] | None]
"""A task to why it was run, as a value and in words; None of one that was taken over, has not begun, or where nobody knows."""


def reasons(log: LogClient, state: RunState) -> Why:
    """Why tasks of a run were run. Of a run that resumes none, and where the origin's log is gone, nothing is known."""
    origin: str | None = state.header.get("origin")
    if origin is None:
        return lambda _: None
    try:
        _, then = session.folded(log, RunId.parse(origin))
    except EvflowError:  # it was forgotten; what was taken over from it stands in the run's own log
        return lambda _: None
    plan = plan_of(then, state.graph, state.options.get("resume_step"))

    def why(task: Task) -> tuple[RunAnew, str] | None:
        was_run = task.reused is None and any(attempt.launched_us for attempt in task.attempts)
        found = plan.why(state, task) if was_run else None
        return None if found is None else (found, anew(origin, found))

    return why


def ran_anew(log: LogClient, state: RunState, tasks: Iterable[Task]) -> list[tuple[str, RunAnew, str]]:
    """Of these tasks those that were run and not taken over, each with why, as a value and in words."""
    why = reasons(log, state)
    return [(pathspec(state, task), *found) for task in tasks if (found := why(task)) is not None]
