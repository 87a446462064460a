"""Ticks of schedules, decided once: by an event of the flow's log at the position where its reader expects it.

A tick that is run is a `RunRequested`, whose number is taken in the same act; one that is skipped is a `ScheduleTicked` with the reason. Both
change what is deployed (`ticked_us`) in that act, so whoever looks next, here or elsewhere, sees what is left to decide, and of two
who look at once one comes too late and looks again.

Between the decision and the offer of its run a process may die. So what is deployed also says where the last such request stands, and
a process that comes to look after a flow offers that run again, if it has not begun. An offer may be repeated.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent
from evflow.core.deployments import SCHEDULE, Deployment, after, pack, tick_of, unpacked
from evflow.core.events import Event
from evflow.core.flow_events import FlowDeployed, FlowRecord, RunRequested, ScheduleTicked
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.core.schedule import Due, Schedule, due, from_plain, local, next_tick_us
from evflow.core.values import entity, field
from evflow.deployments.beginning import take_number
from evflow.deployments.catalog import history, shown
from evflow.deployments.request import Asked, make_ready, offer
from evflow.errors import Conflict, EvflowError
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shard
from evflow.log.protocol import DeploymentChange, LogClient
from evflow.store import Store, open_store
from evflow.store.protocol import StoreFull, StoreUnusable

LOOK_EVERY_S: Final = 1.0
"""A deployment that changes is noticed within this time."""
_AGAIN_SOON_S: Final = 0.01
_ASIDE_US: Final = 5_000_000
"""How long a flow is left alone whose ticks could not be decided: its store is away, say."""
_AHEAD_US: Final = 300_000_000
_REASON_CHARS: Final = 500
_TAIL: Final = 50
"""Events at a flow's end in which a request is looked for whose deployment is gone, and with it the note of it."""


@entity
class _Scheduled:
    """A deployment with a schedule, and its next tick."""

    deployment: Deployment
    schedule: Schedule
    next_us: int | None


@entity
class _Flow:
    """A flow as this process knows it.

    Attributes:
        name: Its name.
        seq: Where its log ended.
        scheduled: Its deployments that have a schedule, by name.
    """

    name: FlowName
    seq: Seq
    scheduled: dict[str, _Scheduled] = field(default_factory=dict[str, _Scheduled])


class TickBook:
    """What a process knows of the schedules that it looks after. Blocking: it asks the log and reads stores.

    Args:
        log: The log; used by `look` alone.
        host: This machine, as where the runs are asked for.
        stores: Opens a deployment's store.
        on_offer: Hears of each run of a tick that was offered: how long after the tick, in seconds.
    """

    def __init__(
        self,
        log: LogClient,
        host: str = "",
        stores: Callable[[str], Store] = open_store,
        on_offer: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._host = host or os.uname().nodename
        self._stores = stores
        self._on_offer = on_offer
        self._flows: dict[FlowName, _Flow] = {}
        self._aside: dict[FlowName, int] = {}
        self._offered: dict[FlowName, set[int]] = {}

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """Decide the ticks that are due of the flows that are mine; returns after how many seconds to look again.

        What goes wrong with one flow is said, tried again, and hinders no other one.

        Raises:
            LogUnavailable: The server is away: nothing that was known of it holds any more.
        """
        try:
            return self._look(is_mine)
        except LogUnavailable:
            self._flows.clear()
            self._offered.clear()
            raise

    def _look(self, is_mine: Callable[[FlowName], bool]) -> float:
        mine = [flow for flow in self._log.flows() if is_mine(flow)]
        for gone in self._offered.keys() - set(mine):
            self._forget(gone)
            del self._offered[gone]
        ends = self._log.flow_seqs(mine)
        now_us = self._log.now_us()
        wait_us = round(LOOK_EVERY_S * 1e6)
        for name, end in zip(mine, ends, strict=True):
            if self._aside.get(name, 0) > now_us:
                continue
            try:
                next_us = self._of_flow(name, end, now_us)
            except Conflict:  # somebody else appended: what is left is decided on what they left
                self._forget(name)
                next_us = now_us + round(_AGAIN_SOON_S * 1e6)
            except LogUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a flow's log or store has in it, other flows' ticks come
                diagnostics.warning("a flow's ticks cannot be decided", flow=name, why=f"{type(error).__name__}: {error}")
                self._forget(name)
                self._aside[name] = now_us + _ASIDE_US
                continue
            if next_us is not None:
                wait_us = min(wait_us, next_us - now_us)
        return max(0, wait_us) / 1e6

    def _forget(self, name: FlowName) -> None:
        self._flows.pop(name, None)
        self._aside.pop(name, None)

    def _of_flow(self, name: FlowName, end: Seq, now_us: int) -> int | None:
        """Bring a flow up to date, decide what is due of it; returns when its next tick comes."""
        flow = self._flows.get(name)
        if flow is None or flow.seq != end:
            flow = self._flows[name] = self._load(name, end, now_us)
        for one in flow.scheduled.values():
            if one.next_us is not None and one.next_us <= now_us:
                self._decide(flow, one, now_us)
        return min((one.next_us for one in flow.scheduled.values() if one.next_us is not None), default=None)

    # --- what is deployed ----------------------------------------------------------------------------------

    def _load(self, name: FlowName, end: Seq, now_us: int) -> _Flow:
        """Read what is deployed, after the end that is known: a change between the two is a conflict of the next decision."""
        flow = _Flow(name, end)
        requests: set[int] = set()
        for deployment in self._readable(name):
            requests.add(deployment.asked_seq)
            if deployment.schedule is None:
                continue
            try:
                schedule = from_plain(deployment.schedule)
            except (TypeError, ValueError) as error:
                diagnostics.warning("a schedule cannot be read", deployment=shown(name, deployment.name), why=str(error))
                continue
            flow.scheduled[deployment.name] = _scheduled(deployment, schedule)
            if deployment.ticked_us > now_us + _AHEAD_US:
                ahead = local(schedule, deployment.ticked_us)
                diagnostics.warning("the clock went back", deployment=shown(name, deployment.name), ticks_are_decided_until=ahead)
        if name not in self._offered:
            requests |= self._last_requests(name, end)
            self._offered[name] = set()
        for seq in sorted(requests - self._offered[name] - {0}):
            self._offer_again(name, seq)
            self._offered[name].add(seq)
        return flow

    def _readable(self, flow: FlowName) -> Iterable[Deployment]:
        for name, packed in self._log.deployments(flow).items():
            try:
                yield unpacked(packed)
            except UnreadableEvent as error:
                diagnostics.warning("a deployment cannot be read", deployment=shown(flow, name), why=str(error))

    def _last_requests(self, flow: FlowName, end: Seq) -> set[int]:
        """Where the last request of a tick stands, for each deployment that has one near the log's end."""
        found: dict[str, int] = {}
        for stored in self._log.flow_events(flow, max(0, end - _TAIL), _TAIL):
            record = _record(*stored)
            if record is not None and isinstance(record.event, RunRequested) and tick_of(record.event) is not None:
                found[record.event.deployment] = record.seq
        return set(found.values())

    # --- the offer of a predecessor's run ------------------------------------------------------------------

    def _offer_again(self, flow: FlowName, seq: int) -> None:
        """See to it that the run which a tick asked for was offered; its predecessor may have died before."""
        stored = self._log.flow_events(flow, seq - 1, 1)
        record = _record(*stored[0]) if stored and stored[0].seq == seq else None
        if record is None or not isinstance(record.event, RunRequested):
            diagnostics.warning("no request stands where one should", flow=flow, seq=seq)
            return
        asked = record.event
        run = RunId(flow, RunNumber(asked.number))
        line = self._log.run(run)
        if self._log.head(shared_shard(run), run).seq or (line is not None and not line.is_requested):
            return
        again = Asked({}, (), asked.user, asked.host, asked.trigger)
        try:
            deployment = self._version(flow, asked.deployment, asked.version)
            if deployment is None:
                diagnostics.warning("a run cannot be offered: its deployment is not in the log", run=run)
                return
            ready = make_ready(self._stores(deployment.store), deployment, again)
            offer(self._log, ready, run, listed=line is not None, patience_s=0.0)
        except (LogUnavailable, StoreFull, StoreUnusable):
            raise
        except EvflowError as error:
            diagnostics.warning("a run cannot be offered", run=run, why=str(error))
        else:
            diagnostics.info("run is offered again", run=run)

    def _version(self, flow: FlowName, name: str, version: int) -> Deployment | None:
        """A version of a deployment; one that is not deployed any more is looked for in the flow's whole log."""
        packed = self._log.deployments(flow).get(name)
        now = None if packed is None else unpacked(packed)
        if now is not None and now.version == version:
            return now
        for record in history(self._log, flow):
            if isinstance(record.event, FlowDeployed) and (record.event.name, record.event.version) == (name, version):
                return after(None, record.event, record.at_us, record.principal)
        return None

    # --- decisions -----------------------------------------------------------------------------------------

    def _decide(self, flow: _Flow, one: _Scheduled, now_us: int) -> None:
        try:
            for tick in due(one.schedule, _decided_us(one.deployment), now_us, paused=one.deployment.paused):
                if tick.run:
                    self._run(flow, one, tick)
                else:
                    self._skip(flow, one, tick, tick.reason)
        except (StoreFull, StoreUnusable) as error:  # it may come back: tried again, until the tick was missed
            diagnostics.warning("a tick waits for the store", deployment=shown(flow.name, one.deployment.name), why=str(error))
            one.next_us = now_us + _ASIDE_US
        else:
            one.next_us = next_tick_us(one.schedule, _decided_us(one.deployment))

    def _run(self, flow: _Flow, one: _Scheduled, tick: Due) -> None:
        deployment = one.deployment
        asked = Asked({}, (), deployment.user, self._host, _trigger(deployment, one.schedule, tick))
        try:
            ready = make_ready(self._stores(deployment.store), deployment, asked)
        except (StoreFull, StoreUnusable):
            raise
        except EvflowError as error:
            self._skip(flow, one, tick, f"{error.code}: {error.message}"[:_REASON_CHARS])
            return
        requested = ready.requested()
        change = self._change(flow, one, requested, asked.principal)
        run = take_number(
            self._log, flow.name, requested, principal=asked.principal, expected=flow.seq, change=change, store=deployment.store
        )
        self._decided(flow, one, change)
        offer(self._log, ready, run, patience_s=0.0)
        self._on_offer((self._log.now_us() - tick.tick_us) / 1e6)
        self._offered[flow.name].add(flow.seq)
        diagnostics.info("tick", run=run, deployment=shown(flow.name, deployment.name), tick=local(one.schedule, tick.tick_us))

    def _skip(self, flow: _Flow, one: _Scheduled, tick: Due, reason: str) -> None:
        since_us = tick.since_us if tick.since_us != tick.tick_us else 0
        skipped = ScheduleTicked(one.deployment.name, tick.tick_us, one.deployment.version, "skip", reason, since_us)
        change = self._change(flow, one, skipped, "scheduler")
        payload = flow_events.encode(skipped, at_us=self._log.now_us(), principal="scheduler")
        self._log.append_flow(flow.name, flow.seq, payload, change)
        self._decided(flow, one, change)
        at = local(one.schedule, tick.tick_us)
        diagnostics.info("tick is skipped", deployment=shown(flow.name, one.deployment.name), tick=at, reason=reason)

    def _change(self, flow: _Flow, one: _Scheduled, event: Event, principal: str) -> DeploymentChange:
        then = after(one.deployment, event, 0, principal, flow.seq + 1)
        assert then is not None  # a tick undeploys nothing
        return DeploymentChange(one.deployment.name, pack(then))

    def _decided(self, flow: _Flow, one: _Scheduled, change: DeploymentChange) -> None:
        flow.seq = Seq(flow.seq + 1)
        one.deployment = unpacked(change.packed)


def upcoming_us(deployment: Deployment, now_us: int) -> int | None:
    """When a deployment's next tick comes; None without a schedule, or with one that cannot be read."""
    if deployment.schedule is None:
        return None
    try:
        return next_tick_us(from_plain(deployment.schedule), max(now_us, _decided_us(deployment)))
    except (TypeError, ValueError):
        return None


def _scheduled(deployment: Deployment, schedule: Schedule) -> _Scheduled:
    return _Scheduled(deployment, schedule, next_tick_us(schedule, _decided_us(deployment)))


def _decided_us(deployment: Deployment) -> int:
    """All ticks up to here are decided; before it was deployed there were none."""
    return deployment.ticked_us or deployment.deployed_us


def _trigger(deployment: Deployment, schedule: Schedule, tick: Due) -> dict[str, Any]:
    """What started the run, as `RunRequested`, `RunStarted` and `current.trigger` have it."""
    return {
        "kind": SCHEDULE,
        "deployment": deployment.name,
        "version": deployment.version,
        "tick_us": tick.tick_us,
        "tick": local(schedule, tick.tick_us),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "reason": tick.reason,
    }


def _record(seq: int, payload: bytes) -> FlowRecord | None:
    try:
        return flow_events.decode(seq, payload)
    except UnreadableEvent as error:
        diagnostics.warning("an event of a flow's log cannot be read", seq=seq, why=str(error))
        return None
