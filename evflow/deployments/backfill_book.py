"""Carry backfills out: ask for the runs of their ticks, exactly once each, whoever does it and whoever dies.

What comes next is `evflow.core.backfill.decide`'s to say; it is appended to the flow's log at the position where this process expects
the end, and changes the backfill beside the log in that act. So of two who decide at once one comes too late and looks again, and a
process that dies leaves nothing that is not in the log. Between a request and its offer it may die, too: whoever comes to look after a flow offers the
runs of its backfills again that have not begun.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from evflow import diagnostics
from evflow.core import flow_events
from evflow.core.backfill import Ask, Backfill, after, decide, pack, skip, unpacked
from evflow.core.codec import UnreadableEvent, encode_report
from evflow.core.events import Event, RunCancelRequested
from evflow.core.flow_events import BackfillEnded, RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.core.schedule import from_plain, local
from evflow.core.values import entity, field
from evflow.deployments.backfills import Name, RunsOfTicks, asked_at, status_of
from evflow.deployments.beginning import take_number
from evflow.deployments.catalog import Reference, version_of
from evflow.deployments.offers import offer_again
from evflow.deployments.request import Asked, Ready, make_ready, offer
from evflow.errors import Conflict, EvflowError
from evflow.log.errors import LogUnavailable
from evflow.log.flow_commands import FlowLogForked
from evflow.log.keys import shared_shard
from evflow.log.protocol import BackfillChange, LogClient
from evflow.store import Store, open_store
from evflow.store.protocol import StoreFull, StoreUnusable

LOOK_EVERY_S: Final = 1.0
"""A backfill that is asked for or cancelled is noticed within this time."""
_SOON_S: Final = 0.2
"""How soon it is noticed that a run of one is over, and how much later for each of them: asking after a hundred takes 20 ms."""
_EACH_S: Final = 0.005
_ASIDE_US: Final = 5_000_000
"""How long a flow is left alone whose backfills could not be carried on: its store is away, say."""
_REASON_CHARS: Final = 500
_PRINCIPAL: Final = "scheduler"


@entity
class _Flow:
    """A flow as this process knows it.

    Attributes:
        name: Its name.
        seq: Where its log ended.
        backfills: Those that are not over, by number.
        packed: The same as the log has them.
        runs: The runs of its backfills that are not known to be over, by the positions of their requests.
    """

    name: FlowName
    seq: Seq
    backfills: dict[int, Backfill] = field(default_factory=dict[int, Backfill])
    packed: dict[int, bytes] = field(default_factory=dict[int, bytes])
    runs: dict[int, RunRequested] = field(default_factory=dict[int, RunRequested])

    def change(self, then: Backfill) -> BackfillChange:
        """The change of a backfill of which it is now what it is known to be."""
        return BackfillChange(then.number, pack(then), self.packed[then.number])

    def moved(self, then: Backfill, change: BackfillChange) -> None:
        """Know that a change was made, by an event at the log's end."""
        self.seq = Seq(self.seq + 1)
        self.backfills[then.number], self.packed[then.number] = then, change.packed


class BackfillBook:
    """What a process knows of the backfills that it looks after. Blocking: it asks the log and reads stores.

    Args:
        log: The log; used by `look` alone.
        host: This machine, as where the runs are asked for.
        stores: Opens a deployment's store.
    """

    def __init__(self, log: LogClient, host: str = "", stores: Callable[[str], Store] = open_store) -> None:
        self._log = log
        self._host = host or os.uname().nodename
        self._stores = stores
        self._flows: dict[FlowName, _Flow] = {}
        self._aside: dict[FlowName, int] = {}
        self._known: dict[FlowName, RunsOfTicks] = {}
        self._offered: dict[FlowName, set[int]] = {}
        self._cancelled: set[RunId] = set()

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """Carry on the backfills of the flows that are mine; returns after how many seconds to look again.

        What goes wrong with one flow is said, tried again, and hinders no other one.

        Raises:
            LogUnavailable: The server is away: nothing that was known of it holds any more.
        """
        try:
            return self._look(is_mine)
        except LogUnavailable:
            for known in (self._flows, self._known, self._offered, self._cancelled):
                known.clear()
            raise

    def _look(self, is_mine: Callable[[FlowName], bool]) -> float:
        mine = [flow for flow in self._log.backfilled() if is_mine(flow)]
        for gone in self._flows.keys() - set(mine):
            self._distrust(gone)
        if not mine:
            return LOOK_EVERY_S
        wait_s = LOOK_EVERY_S
        now_us = self._log.now_us()
        for name, end in zip(mine, self._log.flow_seqs(mine), strict=True):
            if self._aside.get(name, 0) > now_us:
                continue
            try:
                running = self._of_flow(name, end)
                if running:
                    wait_s = min(wait_s, _SOON_S + running * _EACH_S)
            except FlowLogForked:
                self._distrust(name)
                wait_s = 0.0
            except Conflict:  # somebody else appended: what is left is decided on what they left
                self._forget(name)
                wait_s = 0.0
            except LogUnavailable:
                raise
            except (StoreFull, StoreUnusable) as error:  # it may come back
                diagnostics.warning("a backfill waits for the store", flow=name, why=str(error))
                self._set_aside(name, now_us)
            except Exception as error:  # noqa: BLE001 - whatever a flow's log or store has in it, other flows' backfills go on
                diagnostics.warning("a flow's backfills cannot be carried on", flow=name, why=f"{type(error).__name__}: {error}")
                self._set_aside(name, now_us)
        return wait_s

    def _set_aside(self, name: FlowName, now_us: int) -> None:
        self._forget(name)
        self._aside[name] = now_us + _ASIDE_US

    def _forget(self, name: FlowName) -> None:
        self._flows.pop(name, None)
        self._known.pop(name, None)
        self._aside.pop(name, None)

    def _distrust(self, name: FlowName) -> None:
        """Forget also what was offered: that may be lost, or another process's runs may stand in its place."""
        self._forget(name)
        self._offered.pop(name, None)

    def _of_flow(self, name: FlowName, end: Seq) -> int:
        """Bring a flow up to date and carry its backfills on; returns how many runs of theirs are not over."""
        flow = self._flows.get(name)
        if flow is not None and end < flow.seq:  # the server lost what was read
            self._distrust(name)
            flow = None
        if flow is None or flow.seq != end:
            flow = self._flows[name] = self._load(name, end)
        for number in list(flow.backfills):
            self._carry_on(flow, number)
        return sum(len(backfill.running) for backfill in flow.backfills.values())

    def _load(self, name: FlowName, end: Seq) -> _Flow:
        """Read the backfills, after the end that is known: a change between the two is a conflict of the next decision."""
        flow = _Flow(name, end)
        for number, packed in self._log.backfills(name).items():
            try:
                backfill = unpacked(packed)
            except UnreadableEvent as error:
                diagnostics.warning("a backfill cannot be read", backfill=str(Name(name, number)), why=str(error))
                continue
            if not backfill.is_over:
                flow.backfills[number], flow.packed[number] = backfill, packed
        offered = self._offered.setdefault(name, set())
        for backfill in flow.backfills.values():
            for seq in backfill.running:
                asked = flow.runs[seq] = self._request_at(name, seq)
                if seq not in offered and asked.trigger is not None:
                    offer_again(self._log, self._stores, name, asked, asked_at(backfill, asked.trigger["tick_us"]))
                    offered.add(seq)
        return flow

    def _request_at(self, name: FlowName, seq: int) -> RunRequested:
        for stored in self._log.flow_events(name, seq - 1, 1):
            event = flow_events.decode(*stored).event
            if isinstance(event, RunRequested):
                return event
        raise LookupError(f"no request stands at {seq}")

    # --- one backfill --------------------------------------------------------------------------------------

    def _carry_on(self, flow: _Flow, number: int) -> None:
        """Do what there is to do of a backfill now."""
        while True:
            backfill = flow.backfills[number]
            over = self._over(flow, backfill)
            if backfill.cancel_runs:
                self._cancel_runs(flow, backfill, over)
            known = self._known.setdefault(flow.name, RunsOfTicks(self._log, flow.name))
            if not backfill.again:
                known.catch_up()
            deployed = backfill.name in self._log.deployments(flow.name)
            step = decide(backfill, over, partial(known.held, backfill.name), deployed=deployed)
            if step is None:
                return
            if isinstance(step, Ask):
                self._ask(flow, backfill, step.tick_us)
            else:
                self._append(flow, backfill, step)
            if isinstance(step, BackfillEnded):
                diagnostics.info("backfill ends", backfill=str(Name(flow.name, number)), outcome=step.outcome)
                del flow.backfills[number]
                return

    def _over(self, flow: _Flow, backfill: Backfill) -> dict[int, tuple[int, str]]:
        """Which of its runs are over."""
        found: dict[int, tuple[int, str]] = {}
        for seq in backfill.running:
            number = flow.runs[seq].number
            status = status_of(self._log, RunId(flow.name, RunNumber(number)))
            if status is not None:
                found[seq] = (number, status)
        return found

    def _cancel_runs(self, flow: _Flow, backfill: Backfill, over: dict[int, tuple[int, str]]) -> None:
        """Ask for the ends of its runs, once in the life of this process: it counts for nothing a second time."""
        for seq in backfill.running:
            run = RunId(flow.name, RunNumber(flow.runs[seq].number))
            if seq not in over and run not in self._cancelled:
                reason = f"the backfill {Name(flow.name, backfill.number)} was cancelled"
                self._log.report(
                    shared_shard(run), run, encode_report(RunCancelRequested(reason), principal=backfill.cancelled_by), patience_s=0.0
                )
                self._cancelled.add(run)

    def _ask(self, flow: _Flow, backfill: Backfill, tick_us: int) -> None:
        deployment = version_of(self._log, Reference(flow.name, backfill.name), backfill.version)
        if deployment is None:
            self._append(flow, backfill, skip(backfill, tick_us, f"version {backfill.version} is not in the log"))
            return
        asked = asked_at(backfill, tick_us)
        try:
            ready = make_ready(self._stores(deployment.store), deployment, asked)
        except (StoreFull, StoreUnusable):
            raise
        except EvflowError as error:
            self._append(flow, backfill, skip(backfill, tick_us, f"{error.code}: {error.message}"[:_REASON_CHARS]))
            return
        self._request(flow, backfill, ready, asked, tick_us)

    def _request(self, flow: _Flow, backfill: Backfill, ready: Ready, asked: Asked, tick_us: int) -> None:
        requested = ready.requested()
        seq = Seq(flow.seq + 1)
        then = after(backfill, requested, 0, asked.principal, seq)
        assert then is not None
        change = flow.change(then)
        run = take_number(
            self._log, flow.name, requested, principal=asked.principal, expected=flow.seq, change=change, store=ready.deployment.store
        )
        flow.moved(then, change)
        flow.runs[seq] = RunRequested(run.number, asked.user, trigger=asked.trigger)
        offer(self._log, ready, run, patience_s=0.0)
        self._offered[flow.name].add(seq)
        tick = local(from_plain(backfill.schedule), tick_us)
        diagnostics.info("tick of a backfill", run=run, backfill=str(Name(flow.name, backfill.number)), tick=tick)

    def _append(self, flow: _Flow, backfill: Backfill, event: Event) -> None:
        at_us = self._log.now_us()
        then = after(backfill, event, at_us, _PRINCIPAL, flow.seq + 1)
        assert then is not None
        payload = flow_events.encode(event, at_us=at_us, principal=_PRINCIPAL)
        change = flow.change(then)
        self._log.append_flow(flow.name, flow.seq, payload, change)
        flow.moved(then, change)
