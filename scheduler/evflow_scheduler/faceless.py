"""A scheduler that nobody measures or asks over HTTP. `evflow_scheduler.http.face` has the other one, imported only where it is wanted."""

from typing import TYPE_CHECKING, Any

from evflow.log.owners import owner_name
from evflow.log.protocol import EventLog
from evflow.log.writer import ShardWriter
from evflow_scheduler.observer import RunObserver

if TYPE_CHECKING:
    from evflow_scheduler.http.routes import Served


class Faceless:
    """What a scheduler is measured by, and where it answers: nothing, and nowhere."""

    def writer(self, log: EventLog, shard: str, **options: Any) -> ShardWriter:
        """A writer of a shard, with an owner's name of its own."""
        return ShardWriter(log, shard, owner_name(), **options)

    def observer(self, writer: ShardWriter) -> RunObserver:
        """Hears of what is durable in a shard."""
        return RunObserver(writer.shard, writer.index_run, None)

    def on_offer(self, kind: str, lag_s: float) -> None:
        """A run was offered so long after the tick or event that started it."""

    async def serve(self, scheduler: "Served") -> None:
        """Answer until cancelled."""

    def close(self) -> None:
        """Give the address back; a second time does nothing."""
