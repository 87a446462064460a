"""What a process knows of a flow's deployments, and how something is decided about one: by an event at the end that it knows.

An event that changes what is deployed, and what is deployed after it, are one act at the position where the flow's log was seen to end.
So whoever looks next, here or elsewhere, sees what is left to decide, and of two who look at once one comes too late and looks again.

Between the decision to start a run and the offer of the run a process may die. So what is deployed also says where the last such request stands,
and a process that comes to look after a flow offers that run again, if it has not begun. An offer may be repeated. A process offers a run
before it decides anything else about its flow, so there is never more than one to offer again.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import Deployment, after, began_by_itself, pack, unpacked
from evflow.core.events import Event
from evflow.core.flow_events import FlowRecord, RunRequested
from evflow.core.ids import FlowName, RunId, Seq
from evflow.core.values import entity, field
from evflow.deployments.beginning import take_number
from evflow.deployments.catalog import shown
from evflow.deployments.offers import offer_again
from evflow.deployments.request import Asked, KnownContents, Ready, make_ready, offer
from evflow.deployments.unconfirmed import Unconfirmed
from evflow.log.protocol import DeploymentChange, LogClient
from evflow.store import Store, open_store

PRINCIPAL: Final = "scheduler"
_TAIL: Final = 50
"""Events at a flow's end in which a request is looked for whose deployment is gone, and with it the note of it."""


_MOST_KEPT: Final = 100
"""Deployments whose contents are kept."""


@entity
class Known:
    """A flow as this process knows it.

    Attributes:
        name: Its name.
        seq: Where its log ended.
        deployments: What is deployed then, by name.
        packed: The same as the log has it, which may say more to a later version than to this one.
    """

    name: FlowName
    seq: Seq
    deployments: dict[str, Deployment] = field(default_factory=dict[str, Deployment])
    packed: dict[str, bytes] = field(default_factory=dict[str, bytes])


class Ledger:
    """Reads what is deployed of flows, and decides about it. Blocking: it asks the log and reads stores.

    Args:
        log: The log.
        host: This machine, as where runs are asked for.
        stores: Opens a deployment's store.
        on_offer: Hears of each run that was offered: by what (`schedule`, `event`), and how long after its tick or event, in seconds.
    """

    def __init__(
        self,
        log: LogClient,
        host: str = "",
        stores: Callable[[str], Store] = open_store,
        on_offer: Callable[[str, float], None] = lambda _kind, _lag_s: None,
    ) -> None:
        self.log = log
        self.stores = stores
        self._on_offer = on_offer
        self._host = host or os.uname().nodename
        self._offered: dict[FlowName, set[int]] = {}
        self._contents = KnownContents(_MOST_KEPT)
        self.unconfirmed = Unconfirmed(log, stores)

    def load(self, name: FlowName, end: Seq) -> Known:
        """Read what is deployed, after the end that is known: a change between the two is a conflict of the next decision."""
        flow = Known(name, end)
        for deployment, packed in self._readable(name):
            flow.deployments[deployment.name], flow.packed[deployment.name] = deployment, packed
        requests = {deployment.asked_seq for deployment in flow.deployments.values()}
        if name not in self._offered:
            requests |= self._last_requests(name, end)
            self._offered[name] = set()
        for seq in sorted(requests - self._offered[name] - {0}):
            self._offer_again(name, seq)
            self._offered[name].add(seq)
        self.unconfirmed.read(name, end)
        return flow

    def keep(self, flows: Collection[FlowName]) -> list[FlowName]:
        """Forget all other flows, which somebody else may have looked after meanwhile; returns those."""
        gone = [name for name in self._offered if name not in flows]
        for name in gone:
            self.forget(name)
        self.unconfirmed.keep(flows)
        return gone

    def forget(self, flow: FlowName) -> None:
        """Forget a flow: what was read of its log, and offered, may not be what its server has."""
        self._offered.pop(flow, None)
        self.unconfirmed.forget(flow)

    def ready(self, deployment: Deployment, parameters: Mapping[str, object], trigger: dict[str, Any]) -> Ready:
        """Do all that can go wrong with a run's start before it is decided.

        Raises:
            EvflowError: As `evflow.deployments.request.make_ready`.
        """
        asked = Asked(parameters, (), deployment.user, self._host, trigger)
        store = self.stores(deployment.store)
        return make_ready(store, deployment, asked, self._contents.of(store, deployment, self._host))

    def start(self, flow: Known, ready: Ready, at_us: int) -> RunId:
        """Decide that a run starts, and offer it.

        Args:
            flow: The flow.
            ready: The run.
            at_us: The instant of its tick or event.

        Raises:
            Conflict: The flow's log has moved on: nothing was decided.
        """
        requested, principal = ready.requested(), ready.asked.principal
        change = self._change(flow, ready.deployment.name, requested, principal)
        run = take_number(
            self.log,
            flow.name,
            requested,
            principal=principal,
            expected=flow.seq,
            change=change,
            store=ready.deployment.store,
        )
        self._decided(flow, change)
        offer(self.log, ready, run, patience_s=0.0)
        kind: str = (ready.asked.trigger or {}).get("kind", "")
        self._on_offer(kind, (self.log.clock_us() - at_us) / 1e6)
        self._offered[flow.name].add(flow.seq)
        return run

    def record(self, flow: Known, name: str, event: Event) -> None:
        """Decide something that starts no run.

        Raises:
            Conflict: As for `start`.
        """
        change = self._change(flow, name, event, PRINCIPAL)
        payload = flow_events.encode(event, at_us=self.log.clock_us(), principal=PRINCIPAL)
        self.log.append_flow(flow.name, flow.seq, payload, change)
        self._decided(flow, change)

    def _change(self, flow: Known, name: str, event: Event, principal: str) -> DeploymentChange:
        then = after(flow.deployments[name], event, 0, principal, flow.seq + 1)
        assert then is not None  # neither a tick nor an event undeploys anything
        return DeploymentChange(name, pack(then), before=flow.packed[name])

    def _decided(self, flow: Known, change: DeploymentChange) -> None:
        flow.seq = Seq(flow.seq + 1)
        flow.deployments[change.name], flow.packed[change.name] = unpacked(change.packed), change.packed

    def _readable(self, flow: FlowName) -> Iterable[tuple[Deployment, bytes]]:
        for name, packed in self.log.deployments(flow).items():
            try:
                yield unpacked(packed), packed
            except UnreadableEvent as error:
                diagnostics.warning("a deployment cannot be read", deployment=shown(flow, name), why=str(error))

    # --- the offer of a predecessor's run ------------------------------------------------------------------

    def _last_requests(self, flow: FlowName, end: Seq) -> set[int]:
        """Where the last request stands that nobody asked for, for each deployment that has one near the log's end."""
        found: dict[str, int] = {}
        for stored in self.log.flow_events(flow, max(0, end - _TAIL), _TAIL):
            record = _record(*stored)
            if record is not None and isinstance(record.event, RunRequested) and began_by_itself(record.event):
                found[record.event.deployment] = record.seq
        return set(found.values())

    def _offer_again(self, flow: FlowName, seq: int) -> None:
        """See to it that the run which was decided on was offered; its predecessor may have died before."""
        stored = self.log.flow_events(flow, seq - 1, 1)
        record = _record(*stored[0]) if stored and stored[0].seq == seq else None
        if record is None or not isinstance(record.event, RunRequested):
            diagnostics.warning("no request stands where one should", flow=flow, seq=seq)
            return
        offer_again(self.log, self.stores, flow, record.event)


def _record(seq: int, payload: bytes) -> FlowRecord | None:
    try:
        return flow_events.decode(seq, payload)
    except UnreadableEvent as error:
        diagnostics.warning("an event of a flow's log cannot be read", seq=seq, why=str(error))
        return None
