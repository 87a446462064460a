"""Who hears of a run while it goes on: the live view and the index of runs."""

from collections.abc import Awaitable, Callable, Sequence

from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.control import CONTROLS
from evflow.core.summary import summary
from evflow.log.protocol import RunEntry
from evflow_executors.protocol import OutputLine
from evflow_scheduler.request import RunView
from evflow_scheduler.run import OwnedRun

_INDEXED = (ev.RunStarted, ev.RunContinued, ev.RunSealed, ev.LogRegressed, ev.RunPaused, *CONTROLS)
"""Events after which a run's line in the index is written anew."""


class RunObserver:
    """Passes events on to a view, and keeps the run's line in the index of runs."""

    def __init__(self, shard: str, index: Callable[[RunEntry], Awaitable[None]], view: RunView | None) -> None:
        self._shard = shard
        self._index = index
        self._view = view

    async def on_records(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """These events stand in the log."""
        if self._view is not None:
            for record in records:
                self._view.on_event(record, run.state)
                if isinstance(record.event, ev.LogRegressed):
                    self._view.on_notice(_regressed(run, record.event))
            self._view.tick()
        if any(isinstance(record.event, _INDEXED) for record in records):
            await self._index(RunEntry(run.id, self._shard, summary(run.state)))

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line."""
        if self._view is not None:
            self._view.on_line(line)


def _regressed(run: OwnedRun, event: ev.LogRegressed) -> str:
    first, last = event.from_seq, event.to_seq
    return f"The server had lost events {first} to {last} of the log of '{run.id}'; they were written again, and the run goes on."
