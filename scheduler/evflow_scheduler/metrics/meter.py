"""What is counted as it happens: how attempts end, and how long tasks, appends and triggers wait.

Each observation costs about two microseconds, and nothing is computed of them but on a scrape.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram

from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.state import Attempt, RunState
from evflow.log.protocol import AppendCall, Durability, EventLog, Head, RunEntry
from evflow.log.writer import ShardWriter
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.run import OwnedRun

_APPENDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_WAITS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
_LAGS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 30.0, 300.0, 3600.0)

_Ended = ev.AttemptSucceeded | ev.AttemptFailed | ev.AttemptCrashed | ev.AttemptLost | ev.AttemptTimedOut | ev.AttemptCancelled
_OUTCOMES: Final[dict[type[ev.Event], str]] = {
    ev.AttemptSucceeded: "succeeded",
    ev.AttemptFailed: "failed",
    ev.AttemptCrashed: "crashed",
    ev.AttemptLost: "lost",
    ev.AttemptTimedOut: "timed-out",
    ev.AttemptCancelled: "cancelled",
}
_ENDINGS: Final[dict[type[ev.Event], str]] = {ev.RunSucceeded: "succeeded", ev.RunFailed: "failed", ev.RunCancelled: "cancelled"}


class Meter:
    """Counts what happens in a scheduler.

    Args:
        registry: Where Prometheus finds it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter("evflow_attempts_ended", "Attempts that ended, by outcome.", ["outcome"], registry=registry)
        self._runs = Counter("evflow_runs_ended", "Runs that ended, by status.", ["status"], registry=registry)
        self._begun = Counter("evflow_runs_begun", "Runs that began.", registry=registry)
        waits = Histogram("evflow_task_wait_seconds", "From queued to granted a slot (until=granted), and from there to the start of its "
                          "process (until=started).", ["until"], buckets=_WAITS, registry=registry)  # fmt: skip
        self._granted, self._started = waits.labels("granted"), waits.labels("started")
        self._append = Histogram("evflow_append_seconds", "Until the log had taken an append.", buckets=_APPENDS, registry=registry)
        self._durable = Histogram(
            "evflow_durable_seconds", "Until appended events were as durable as asked.", buckets=_APPENDS, registry=registry
        )
        self._lag = Histogram("evflow_trigger_lag_seconds", "From a trigger's instant until its run was offered to schedulers, by kind.",
                              ["kind"], buckets=_LAGS, registry=registry)  # fmt: skip
        for outcome in _OUTCOMES.values():  # all there from the beginning: a rate needs a zero before the first one
            self._attempts.labels(outcome)
        for status in _ENDINGS.values():
            self._runs.labels(status)

    def see(self, records: Sequence[Record], state: RunState) -> None:
        """Count durable events of a run."""
        for record in records:
            event = record.event
            if isinstance(event, ev.SlotGranted):
                if (attempt := _attempt(state, event.task, event.attempt)) is not None:
                    self._granted.observe(_seconds(attempt.queued_us, attempt.granted_us))
            elif isinstance(event, ev.AttemptStarted):
                if (attempt := _attempt(state, event.task, event.attempt)) is not None:
                    self._started.observe(_seconds(attempt.granted_us, event.started_us))
            elif isinstance(event, _Ended):
                outcome = _OUTCOMES[type(event)]
                attempt = _attempt(state, event.task, event.attempt)
                if attempt is not None and attempt.outcome == outcome:  # else a report that came too late to count
                    self._attempts.labels(outcome).inc()
            elif isinstance(event, ev.RunStarted):
                self._begun.inc()
            elif (status := _ENDINGS.get(type(event))) is not None:
                self._runs.labels(status).inc()

    def triggered(self, kind: str, lag_s: float) -> None:
        """A trigger led to a run that was offered."""
        self._lag.labels(kind).observe(max(0.0, lag_s))

    def appended(self, seconds: float) -> None:
        """An append was taken."""
        self._append.observe(seconds)

    def durable(self, seconds: float) -> None:
        """Events were waited for until they were durable."""
        self._durable.observe(seconds)


class MeteredObserver(RunObserver):
    """Counts what it hears of."""

    def __init__(self, shard: str, index: Callable[[RunEntry], Awaitable[None]], meter: Meter) -> None:
        super().__init__(shard, index, None)
        self._meter = meter

    async def on_records(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """These events stand in the log."""
        self._meter.see(records, run.state)
        await super().on_records(run, records)


class MeteredWriter(ShardWriter):
    """Measures how long the log takes, the waits for a server that was away included."""

    def __init__(self, meter: Meter, log: EventLog, shard: str, owner: str, **options: Any) -> None:
        super().__init__(log, shard, owner, **options)
        self._meter = meter

    async def append(self, call: AppendCall) -> Head:
        """Append: see `ShardWriter.append`."""
        began_s = anyio.current_time()
        head = await super().append(call)
        self._meter.appended(anyio.current_time() - began_s)
        return head

    async def wait_durable(self, level: Durability) -> None:
        """See `ShardWriter.wait_durable`."""
        began_s = anyio.current_time()
        await super().wait_durable(level)
        if level != "everysec":
            self._meter.durable(anyio.current_time() - began_s)


def _attempt(state: RunState, number: int, attempt: int) -> Attempt | None:
    """An attempt of a task: nearly always the last one. None where a report names one that there never was."""
    task = state.task(number)
    return next((one for one in reversed(task.attempts) if one.number == attempt), None) if task is not None else None


def _seconds(since_us: int, until_us: int) -> float:
    """Clocks of two machines may differ: never less than nothing."""
    return max(0, until_us - since_us) / 1e6
