"""A scheduler's face to the outside: what it is measured by, and the address where it answers."""

import socket
from collections.abc import Callable
from typing import Any, cast

from prometheus_client import CollectorRegistry, disable_created_metrics

from evflow.log.owners import owner_name
from evflow.log.protocol import EventLog
from evflow.log.writer import ShardWriter
from evflow_scheduler.faceless import Faceless
from evflow_scheduler.http.routes import Served, all_routes
from evflow_scheduler.http.server import listen, serve
from evflow_scheduler.metrics.gauges import Gauges
from evflow_scheduler.metrics.meter import Meter, MeteredObserver, MeteredWriter
from evflow_scheduler.observer import RunObserver


class Face(Faceless):
    """Metrics of a process, and the socket on which they can be asked for.

    Args:
        address: `HOST:PORT`.

    Raises:
        HttpUnusable: It cannot be listened on.
    """

    def __init__(self, address: str) -> None:
        self._listener: socket.socket = listen(address)
        cast("Callable[[], None]", disable_created_metrics)()  # a series more for each, which nobody asks for
        registry = CollectorRegistry()
        self._gauges = Gauges(registry)
        self._meter = Meter(registry)

    def writer(self, log: EventLog, shard: str, **options: Any) -> ShardWriter:
        """A writer whose appends are measured."""
        return MeteredWriter(self._meter, log, shard, owner_name(), **options)

    def observer(self, writer: ShardWriter) -> RunObserver:
        """Counts what becomes durable in a shard."""
        return MeteredObserver(writer.shard, writer.index_run, self._meter)

    def on_offer(self, kind: str, lag_s: float) -> None:
        """A run was offered so long after the tick or event that started it."""
        self._meter.triggered(kind, lag_s)

    async def serve(self, scheduler: Served) -> None:
        """Answer until cancelled."""
        await serve(self._listener, all_routes(scheduler, self._gauges))

    def close(self) -> None:
        """Give the address back; a second time does nothing."""
        self._listener.close()
