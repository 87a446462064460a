"""What a live view shows of a run: a small value, taken from the run's state at an instant.

Taking it costs the scheduler's loop the number of steps, running attempts and waiting retries, never the number of
tasks. It is immutable, so that another thread may draw it.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.reasons import said
from evflow.core.state import Attempt, RunState, Task
from evflow.flow.dialect import OPTION

SHOWN_RUNNING = 64
SHOWN_RETRIES = 16
SHOWN_FAILURES = 16
"""More than any terminal shows: bounds of a picture's size."""


class StepRow(NamedTuple):
    """A step and how far its tasks are; `total` counts those that exist by now, `done` those that succeeded or were skipped."""

    name: str
    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    retrying: int = 0
    skipped: int = 0

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot (or were never started because the run ended)."""
        return max(self.total - self.done - self.failed - self.running - self.retrying, 0)


class RunningRow(NamedTuple):
    """An attempt that runs; `pid` is 0 until its process has said so."""

    step: str
    task: int
    attempt: int
    pid: int
    since_us: int


class RetryRow(NamedTuple):
    """A task that waits for its next attempt."""

    step: str
    task: int
    attempt: int
    at_us: int
    reason: str


class FailureRow(NamedTuple):
    """A task that failed for good; `where` is `file:line` of the user's innermost frame, if there is one."""

    step: str
    task: int
    attempt: int
    reason: str
    where: str


class Picture(NamedTuple):
    """A run at an instant.

    Attributes:
        status: `starting`, `running`, `paused`, `cancelling`, `failing`, or the run's outcome.
        running: The attempts that run, the longest first; at most `SHOWN_RUNNING`.
        retries: The next retries, soonest first; at most `SHOWN_RETRIES`.
        failures: The tasks that failed last, oldest first; at most `SHOWN_FAILURES`.
        file: The flow's file when the run began.
        dialect: Whose rules the flow was loaded by: `evflow.flow.dialect`.
    """

    run: str
    status: str
    started_us: int
    now_us: int
    steps: tuple[StepRow, ...] = ()
    running: tuple[RunningRow, ...] = ()
    retries: tuple[RetryRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    reason: str = ""
    file: str = ""
    dialect: str = ""

    @property
    def elapsed_us(self) -> int:
        """How long the run has been going on."""
        return max(self.now_us - self.started_us, 0) if self.started_us else 0

    def count(self, column: str) -> int:
        """The sum of a column of the steps (`total`, `done`, `running`, ...)."""
        return sum(int(getattr(step, column)) for step in self.steps)


class Photographer:
    """Follows a run's events and takes pictures of its state.

    It remembers what the state does not keep at hand: which tasks wait for a retry, and which failed, in their order.
    """

    def __init__(self) -> None:
        self.retried = self.reused = self.cached = 0
        self._seen = False
        self._retries: dict[int, tuple[int, int]] = {}
        self._failed: deque[int] = deque(maxlen=SHOWN_FAILURES)

    def see(self, record: Record, state: RunState) -> None:
        """Take notice of an event that was just folded into the state."""
        if not self._seen:
            self._seen = True
            self._catch_up(state)
        match record.event:
            case ev.RetryScheduled() as event:
                self.retried += 1
                self._retries.update(dict.fromkeys(range(event.task, event.task + event.count), (event.attempt, event.at_us)))
            case ev.TaskReused():
                self.reused += 1
            case ev.AttemptSucceeded() as event:
                self.cached += bool(event.cache[1:2] and event.cache[1])
            case ev.TaskQueued() | ev.TaskSkipped() as event:
                for task in (
                    range(event.task, event.task + event.count) if isinstance(event, ev.TaskQueued) and event.attempt else (event.task,)
                ):
                    self._retries.pop(task, None)
                if event.task in self._failed:  # it is tried again, or gone past
                    self._failed.remove(event.task)
            case ev.TaskFailed() | ev.TaskHeld() as event:
                if event.task not in self._failed:
                    self._failed.append(event.task)
            case _:
                pass

    def take(self, state: RunState, now_us: int) -> Picture:
        """The run as it is now."""
        retries = [
            RetryRow(state.tasks[task].step, task, attempt, at_us, why(state.tasks[task].attempt))
            for task, (attempt, at_us) in self._retries.items()
            if state.tasks[task].status == "retrying"
        ]
        return Picture(
            run=f"{state.flow}/{state.number}",
            status=_status(state),
            started_us=state.started_us,
            now_us=state.finished_us or now_us,
            steps=tuple(_steps(state, retries)),
            running=tuple(_running(state))[:SHOWN_RUNNING],
            retries=tuple(sorted(retries, key=lambda row: row.at_us)[:SHOWN_RETRIES]),
            failures=tuple(_failure(state.tasks[task]) for task in self._failed),
            reason=said(state.outcome.reason) if state.outcome else "",
            file=str(state.header.get("code", {}).get("file") or ""),
            dialect=str(state.header.get("options", {}).get(OPTION, "")),
        )

    def _catch_up(self, state: RunState) -> None:
        """Take over what was before the first event that is seen: a run that is continued has a past."""
        for task in state.all_tasks():
            if task.status == "retrying":
                self._retries[task.id] = (task.attempt.number + 1, task.retry_at_us)
            elif task.status == "failed":
                self._failed.append(task.id)


def why(attempt: Attempt) -> str:
    """Why an attempt ended badly, on one line: `ValueError: nope`, or what became of its process."""
    first = attempt.message.partition("\n")[0]
    name = attempt.error.rpartition(".")[2]
    if not name:
        return said(first)
    return f"{name}: {first}" if first else name


def _failure(task: Task) -> FailureRow:
    attempt = task.attempt
    return FailureRow(task.step, task.id, attempt.number, why(attempt) or said(task.reason), attempt.where)


def _status(state: RunState) -> str:
    if state.over:
        return state.status
    if state.cancelling is not None:
        return "cancelling"
    if state.failing is not None:
        return "failing"
    if state.paused:
        return "paused"
    return "running" if state.live else "starting" if state.status == "new" else state.status


def _steps(state: RunState, retries: Iterable[RetryRow]) -> Iterable[StepRow]:
    running: dict[str, int] = {}
    for task in state.live:
        step = state.tasks[task].step
        running[step] = running.get(step, 0) + 1
    retrying: dict[str, int] = {}
    for row in retries:
        retrying[row.step] = retrying.get(row.step, 0) + 1
    names = list(state.graph.nodes) or list(state.steps)
    for name in names:
        counts = state.steps.get(name)
        if counts is None:
            yield StepRow(name)
        else:
            yield StepRow(
                name,
                counts.created,
                counts.succeeded + counts.skipped,
                counts.failed,
                running.get(name, 0),
                retrying.get(name, 0),
                counts.skipped,
            )


def _running(state: RunState) -> Iterable[RunningRow]:
    for number in state.live:
        task = state.tasks[number]
        attempt = task.attempt
        yield RunningRow(task.step, number, attempt.number, attempt.pid, attempt.started_us or attempt.launched_us)
