"""The exit hooks that run now: one process for each run, as an attempt of no task."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from evflow.core import events as ev, published
from evflow.core.hooks import GIVEN_UP, are_due, hooks_of, next_start
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.worker.spec import AttemptOrder
from evflow_executors.protocol import Executor, Observation
from evflow_scheduler.inbox import Accepted
from evflow_scheduler.run import OWNER, OwnedRun

NO_TASK = TaskId(0)


Append = Callable[[Iterable[OwnedRun], Accepted], Awaitable[None]]


class Publishing(Protocol):
    """Where events are published."""

    async def publish(self, event_id: str, body: bytes) -> None:
        """Publish an event."""
        ...


class Hooking(dict[RunId, AttemptId]):
    """Runs whose hooks run, and the names of their processes for the executor."""

    def begin(self, run: OwnedRun, now: int) -> AttemptOrder | None:
        """Make the turn that says that hooks begin which are due.

        Returns:
            What their process is told, once the turn is durable; None where they are given up.
        """
        number = next_start(run.state)
        if number is None:
            run.turn([(ev.ExitHookEnded(run.state.hook_starts - 1, None, None, GIVEN_UP), OWNER, 0)], now)
            return None
        self[run.id] = AttemptId(run.id, NO_TASK, number)
        run.turn([(ev.ExitHookStarted(number, hooks_of(run.state)), OWNER, 0)], now)
        return AttemptOrder(run.state.status, NO_TASK, number, mode="hook")

    async def start(
        self, over: Iterable[OwnedRun], now: int, append: Append, executor: Callable[[], Executor], log: Publishing | None
    ) -> list[OwnedRun]:
        """Start the hooks that are due of runs whose outcome is durable.

        Args:
            over: The runs.
            now: The instant.
            append: Makes turns durable.
            executor: Where hooks run.
            log: Where the end is published before: who waits for a run does not wait for its hooks. None where nobody is told.

        Returns:
            Runs whose hooks are given up: they can be sealed.
        """
        given_up: list[OwnedRun] = []
        for run in over:
            if not are_due(run.state) or run.id in self:
                continue
            if log is not None:
                await publish_end(log, run)
            order = self.begin(run, now)
            await append([run], Accepted())
            if order is None:
                given_up.append(run)
            else:
                await executor().launch(self[run.id], order)
        return given_up

    def unwanted(self, *facts: Mapping[RunId, Sequence[tuple[ev.Event, str, int]]]) -> list[AttemptId]:
        """The processes of hooks of runs that somebody asks to cancel: the runs are over, and only their hooks can be ended."""
        asked = {
            run: None
            for each in facts
            for run, told in each.items()
            if run in self and any(isinstance(event, ev.RunCancelRequested) for event, _, _ in told)
        }
        return [self[run] for run in asked]

    def is_of(self, attempt: AttemptId) -> bool:
        """Whether a process is one of hooks that run."""
        return self.get(attempt.run) == attempt

    def ended(self, seen: Observation) -> ev.ExitHookEnded | None:
        """What the log is told of the end of such a process; None of what is something else."""
        if not isinstance(seen.event, ev.AttemptExited) or not self.is_of(seen.attempt):
            return None
        del self[seen.attempt.run]
        return ev.ExitHookEnded(seen.attempt.attempt, seen.event.exit_code, seen.event.signal, seen.event.why)


async def publish_end(log: Publishing, run: OwnedRun) -> None:
    """Publish the event that tells of a run's end; once more changes nothing."""
    body = published.encode(published.finished(run.id.flow, run.id.number, run.state.status, run.state.header))
    await log.publish(published.finished_id(run.id.flow, run.id.number), body)
