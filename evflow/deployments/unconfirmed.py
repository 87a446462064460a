"""Requests for runs that nobody has taken up: whoever asked may have died between the run's number and its offer.

What crosses two logs is delivered again while it is unconfirmed. The first log is the flow's, with the request; the second one is the run's, and
its first event is the confirmation. So whoever looks after a flow reads the requests in its log, and makes the offer again of each that has not begun
after a while. An offer may be repeated: a run begins once.
"""

from collections.abc import Callable, Collection
from typing import Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.backfill import number_of, unpacked
from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import began_by_itself
from evflow.core.flow_events import RunArchived, RunForgotten, RunRefused, RunRequested
from evflow.core.ids import FlowName, RunNumber, Seq
from evflow.core.summary import OVER
from evflow.core.values import entity, field
from evflow.deployments.backfills import asked_at
from evflow.deployments.offers import offer_again
from evflow.deployments.request import Asked
from evflow.log.protocol import LogClient
from evflow.store import Store
from evflow.store.protocol import StoreFull, StoreUnusable

PATIENCE_US: Final = 5_000_000
"""How long whoever asked has to make the offer, and a scheduler to take it."""
_LONGEST_US: Final = 600_000_000
"""Offers wait where nobody owns their shard: they are repeated less and less often."""
TAIL: Final = 1_000
"""Events at the end of a flow's log in which a scheduler that begins looks for requests. Without schedulers a log hardly grows."""
_CHUNK: Final = 1_000
_FEW: Final = 3
"""So many runs are asked after one by one."""


@entity
class _Waiting:
    """A request, when it is looked at next, and how long to wait after that."""

    asked: RunRequested
    next_us: int
    pause_us: int = PATIENCE_US


@entity
class _Flow:
    """A flow's log: up to where it was read, and the requests in it that are not known to have begun."""

    read: int
    waiting: dict[int, _Waiting] = field(default_factory=dict[int, _Waiting])


class Unconfirmed:
    """What a process knows of the requests of its flows. Blocking: it asks the log and reads stores.

    Args:
        log: The log.
        stores: Opens a deployment's store.
    """

    def __init__(self, log: LogClient, stores: Callable[[str], Store]) -> None:
        self._log = log
        self._stores = stores
        self._flows: dict[FlowName, _Flow] = {}

    def read(self, name: FlowName, end: Seq) -> None:
        """Read what stands in a flow's log up to an end."""
        flow = self._flows.get(name)
        if flow is None or flow.read > end:  # a log that ends before is one that the server has lost a part of
            flow = self._flows[name] = _Flow(max(0, end - TAIL))
        while flow.read < end:
            chunk = self._log.flow_events(name, flow.read, _CHUNK)
            if not chunk:
                break
            for stored in chunk:
                self._take_in(flow, *stored)
            flow.read = chunk[-1].seq
        if len(flow.waiting) > _FEW:
            self._strike_what_is_over(name, flow)

    def keep(self, flows: Collection[FlowName]) -> None:
        """Forget all other flows."""
        for name in [name for name in self._flows if name not in flows]:
            self.forget(name)

    def forget(self, flow: FlowName) -> None:
        """Forget a flow."""
        self._flows.pop(flow, None)

    def look(self, now_us: int) -> None:
        """Offer what should have begun by now.

        Raises:
            LogUnavailable: The server is away.
        """
        for name, flow in self._flows.items():
            for number, one in [(number, one) for number, one in flow.waiting.items() if one.next_us <= now_us]:
                try:
                    done = offer_again(self._log, self._stores, name, one.asked, self._as_asked(name, one.asked))
                except (StoreFull, StoreUnusable) as error:  # it may come back
                    diagnostics.warning("a request waits for the store", flow=name, run=number, why=str(error))
                    done = False
                except UnreadableEvent as error:
                    diagnostics.warning("a request of a backfill that cannot be read waits", flow=name, run=number, why=str(error))
                    done = False
                if done:
                    del flow.waiting[number]
                else:
                    one.pause_us = min(2 * one.pause_us, _LONGEST_US)
                    one.next_us = now_us + one.pause_us

    def _take_in(self, flow: _Flow, seq: int, payload: bytes) -> None:
        try:
            record = flow_events.decode(seq, payload)
        except UnreadableEvent as error:
            diagnostics.debug("an event of a flow's log cannot be read", seq=seq, why=str(error))
            return
        event = record.event
        if isinstance(event, RunRequested) and (event.offer is not None or began_by_itself(event) or number_of(event) is not None):
            flow.waiting[event.number] = _Waiting(event, record.at_us + PATIENCE_US)
        elif isinstance(event, RunArchived | RunForgotten | RunRefused):
            flow.waiting.pop(event.number, None)

    def _as_asked(self, name: FlowName, requested: RunRequested) -> Asked | None:
        """What a backfill asked for, whose requests do not say it all; None for all others."""
        number = number_of(requested)
        packed = None if number is None else self._log.backfills(name).get(number)
        return None if packed is None else asked_at(unpacked(packed), (requested.trigger or {})["tick_us"])

    def _strike_what_is_over(self, name: FlowName, flow: _Flow) -> None:
        """Ask after many runs at once: most were over long ago."""
        span = self._log.counter(name) - min(flow.waiting) + 1
        for entry in self._log.runs(name, max(span, 1)):
            if entry.summary.get("status") in OVER:
                flow.waiting.pop(RunNumber(entry.run.number), None)
