"""What the observer of a run does with the events that stand in its log."""

from typing import Any, cast

from evflow.core import events as ev
from evflow.core.codec import Record
from evflow.core.ids import Micros, RunId, Seq
from evflow.log.protocol import RunEntry
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.run import OwnedRun


class Notices:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_notice(self, text: str) -> None:
        self.texts.append(text)

    def on_event(self, *_: object) -> None: ...

    def tick(self) -> None: ...


async def test_events_that_the_server_had_lost_are_told_and_the_index_is_written_again() -> None:
    view, lines = Notices(), list[RunEntry]()

    async def index(entry: RunEntry) -> None:
        lines.append(entry)

    run = OwnedRun(RunId.parse("Flow/3"))
    record = Record(cast("Seq", 9), 2, cast("Micros", 1), "owner", 0, ev.LogRegressed(4, 8, 2))
    await RunObserver("shard", index, cast("Any", view)).on_records(run, [record])
    assert [entry.run for entry in lines] == [run.id]
    assert view.texts == ["The server had lost events 4 to 8 of the log of 'Flow/3'; they were written again, and the run goes on."]
