"""What starts runs of deployments by itself, in one process: ticks of schedules and published events, decided as soon as they are due.

`look` goes over all flows that are mine, each second and whenever something is due; `hear` is for events as they come, and touches only the flows that
listen for them. Both decide by `evflow.deployments.ledger`; that one process at a time looks after a flow only saves work.

Up to where what is published has been looked at is known three times: here; with each trigger, in what is deployed, for all that concerned it; and, said now
and then, for each flow beside the events, so that whoever takes over does not read years of what concerned nobody.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from evflow import diagnostics
from evflow.core.codec import UnreadableEvent
from evflow.core.ids import FlowName, Seq
from evflow.core.listening import record_of
from evflow.core.published import Publication, decode
from evflow.core.triggers import Decision, Heard
from evflow.core.values import entity, field
from evflow.deployments.hearing import Listener, hear, heard, listeners
from evflow.deployments.ledger import Known, Ledger
from evflow.deployments.ticks import ASIDE_US, Scheduled, decide_ticks, scheduled
from evflow.errors import Conflict
from evflow.log.errors import LogUnavailable
from evflow.log.flow_commands import FlowLogForked
from evflow.log.protocol import LogClient, PublishedEvent
from evflow.store import Store, open_store

LOOK_EVERY_S: Final = 1.0
"""A deployment that changes is noticed within this time."""
_AGAIN_SOON_S: Final = 0.01
_SAY_EVERY_US: Final = 10_000_000
"""How often it is said up to where what is published was looked at."""
_BATCH: Final = 1_000
_AT_ONCE: Final = 200
"""Events that one look, or hearing, takes in: ticks that come due meanwhile wait no longer for a flood than what becomes of these takes."""


@entity
class _Flow:
    """A flow that is mine."""

    known: Known
    scheduled: list[Scheduled] = field(default_factory=list[Scheduled])
    listeners: list[Listener] = field(default_factory=list[Listener])

    def next_us(self) -> int | None:
        """When something of it is due."""
        due = [*(one.next_us for one in self.scheduled), *(one.next_us for one in self.listeners)]
        return min((next_us for next_us in due if next_us is not None), default=None)


@entity
class _Batch:
    """Events that were read together: all that was published behind `after_us` up to `until_us`."""

    after_us: int
    until_us: int
    events: list[tuple[PublishedEvent, Publication]]

    def named(self, names: frozenset[str], after_us: int) -> Iterator[tuple[PublishedEvent, Publication]]:
        """Those with one of these names."""
        return (pair for pair in self.events if pair[1].name in names and pair[0].at_us > after_us)


class Book:
    """What a process knows of the schedules and triggers that it looks after. Blocking: it asks the log and reads stores.

    Args:
        log: The log; used by `look` and `hear` alone.
        host: This machine, as where the runs are asked for.
        stores: Opens a deployment's store.
        on_offer: Hears of each run that was offered: by what (`schedule`, `event`), and how long after its tick or event, in seconds.

    Attributes:
        position_us: All that was published up to this instant was read.
    """

    def __init__(
        self,
        log: LogClient,
        host: str = "",
        stores: Callable[[str], Store] = open_store,
        on_offer: Callable[[str, float], None] = lambda _kind, _lag_s: None,
    ) -> None:
        self.position_us: int = 0
        self._log = log
        self._ledger = Ledger(log, host, stores, on_offer)
        self._flows: dict[FlowName, _Flow] = {}
        self._aside: dict[FlowName, int] = {}
        self._mine: list[FlowName] = []
        self._begun = False
        self._said_us = 0
        self._said_of_us: int = 0

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """Decide all that is due of the flows that are mine; returns after how many seconds to look again.

        What goes wrong with one flow is said, tried again, and hinders no other one.

        Raises:
            LogUnavailable: The server is away: nothing that was known of it holds any more.
        """
        try:
            return self._look(is_mine)
        except LogUnavailable:
            self._forget_all()
            raise

    def hear(self, is_mine: Callable[[FlowName], bool], events: Sequence[PublishedEvent]) -> float:
        """Decide what becomes of what was published behind `position_us`, or of the first of it; returns as `look`.

        Raises:
            LogUnavailable: As for `look`.
        """
        try:
            batch = self._take_in(events[:_AT_ONCE])  # the others are behind `position_us` then, and read again
            names = {publication.name for _, publication in batch.events}
            concerned = [name for name, flow in self._flows.items() if is_mine(name) and any(names & one.names for one in flow.listeners)]
            now_us = batch.until_us
            for name in concerned:
                self._bring_up_to_date(name, None, now_us, batch, now_us)
            return self._wait_s(self._log.clock_us() if concerned else now_us)
        except LogUnavailable:
            self._forget_all()
            raise

    # --- looking --------------------------------------------------------------------------------------------

    def _look(self, is_mine: Callable[[FlowName], bool]) -> float:
        mine = self._mine = [flow for flow in self._log.flows() if is_mine(flow)]
        for gone in self._ledger.keep(mine):
            self._forget(gone)
        if not self._begun:
            self.position_us, self._begun = self._log.event_bounds().last_us, True
        now_us = self._log.now_us()  # before events are read: all that were published up to now are among them
        found = self._log.published(self.position_us, _AT_ONCE)
        batch = self._take_in(found)
        has_more = len(found) == _AT_ONCE
        ends = self._log.flow_seqs(mine)
        for name, end in sorted(zip(mine, ends, strict=True), key=self._listens):
            self._bring_up_to_date(name, end, now_us, batch, batch.until_us if has_more else now_us)
        self._ledger.unconfirmed.look(now_us)
        self._say_where(dict(zip(mine, ends, strict=True)), now_us)
        return 0.0 if has_more else self._wait_s(now_us)

    def _listens(self, named: tuple[FlowName, Seq]) -> bool:
        """Whether a flow is known to listen: those that only have ticks come first, as events may take long."""
        flow = self._flows.get(named[0])
        return flow is not None and bool(flow.listeners)

    def _wait_s(self, now_us: int) -> float:
        wait_us = round(LOOK_EVERY_S * 1e6)
        for name in self._mine:
            flow = self._flows.get(name)
            if flow is None:
                soon = name not in self._aside
                wait_us = min(wait_us, round(_AGAIN_SOON_S * 1e6)) if soon else wait_us
            elif (next_us := flow.next_us()) is not None:
                wait_us = min(wait_us, next_us - now_us)
        return max(0, wait_us) / 1e6

    def _bring_up_to_date(self, name: FlowName, end: Seq | None, now_us: int, batch: _Batch, read_us: int) -> None:
        """Decide what is due of a flow; of events, as of the instant up to which all that were published were read.

        Where its log ends need not be asked first (None): what is decided on an end that was left behind is refused, and decided again.
        """
        if self._aside.get(name, 0) > now_us:
            return
        self._aside.pop(name, None)
        try:
            flow = self._flows.get(name)
            if flow is None or end not in (None, flow.known.seq):
                if flow is not None and end is not None and end < flow.known.seq:  # the server lost what was read
                    self._ledger.forget(name)
                end = self._end_of(name) if end is None else end
                flow = self._flows[name] = self._load(name, end, now_us, flow)
            for tick in flow.scheduled:
                if tick.next_us is not None and tick.next_us <= now_us:
                    decide_ticks(self._ledger, flow.known, tick, now_us)
            for one in flow.listeners:
                self._listen(flow, one, read_us, batch)
        except FlowLogForked:
            self._flows.pop(name, None)
            self._ledger.forget(name)
        except Conflict:  # somebody else appended: what is left is decided on what they left
            if end is None:
                self._bring_up_to_date(name, self._end_of(name), now_us, batch, read_us)
            else:
                self._flows.pop(name, None)
        except LogUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a flow's log or store has in it, other flows' ticks and events come
            diagnostics.warning("a flow's ticks and events cannot be decided", flow=name, why=f"{type(error).__name__}: {error}")
            self._forget(name)
            self._aside[name] = now_us + ASIDE_US

    def _end_of(self, name: FlowName) -> Seq:
        [end] = self._log.flow_seqs([name])
        return end

    def _load(self, name: FlowName, end: Seq, now_us: int, before: _Flow | None) -> _Flow:
        known = self._ledger.load(name, end)
        flow = _Flow(known, list(scheduled(known, now_us)))
        if any(deployment.triggers for deployment in known.deployments.values()):
            looked = {(one.name, one.number): one for one in before.listeners} if before is not None else {}
            said_us = 0 if before is not None else self._log.looked_at().get(name, 0)
            for one in listeners(known, said_us):
                same = looked.get((one.name, one.number))
                if same is not None and same.trigger == one.trigger:
                    one.looked_us = max(one.looked_us, same.looked_us)
                flow.listeners.append(one)
        return flow

    # --- listening ------------------------------------------------------------------------------------------

    def _listen(self, flow: _Flow, one: Listener, now_us: int, batch: _Batch) -> None:
        """Decide what becomes of all that was published since a trigger was last looked after."""
        if one.aside_us > now_us:
            return
        if one.looked_us < batch.after_us:
            self._catch_up(flow, one, batch.after_us)
        found = [self._heard(pair) for pair in batch.named(one.names, one.looked_us)]
        if found or (one.next_us is not None and one.next_us <= now_us):
            hear(self._ledger, flow.known, one, found, batch.until_us, max(batch.until_us, now_us))
        elif one.looked_us >= batch.after_us:
            one.looked_us = max(one.looked_us, batch.until_us)

    def _catch_up(self, flow: _Flow, one: Listener, until_us: int) -> None:
        """Look at what was published before this process looked after the flow."""
        trimmed_us = self._log.event_bounds().trimmed_us
        if one.looked_us < trimmed_us:
            version = flow.known.deployments[one.name].version
            gone = Decision("skip", (), "trimmed", trimmed_us)
            self._ledger.record(flow.known, one.name, record_of(gone, one.name, version, one.number))
            one.looked_us = trimmed_us
        for chunk in self._chunks(one.looked_us):
            batch = _decoded(one.looked_us, [event for event in chunk if event.at_us <= until_us])
            if not batch.events:
                break
            found = [self._heard(pair) for pair in batch.named(one.names, one.looked_us)]
            hear(self._ledger, flow.known, one, found, batch.until_us, batch.until_us)
            if one.looked_us < batch.until_us:  # its store is away
                return
        one.looked_us = max(one.looked_us, until_us)

    def _heard(self, pair: tuple[PublishedEvent, Publication]) -> Heard:
        return heard(*pair, self._ledger.stores)

    def _take_in(self, events: Sequence[PublishedEvent]) -> _Batch:
        batch = _decoded(self.position_us, events)
        self.position_us = batch.until_us
        return batch

    def _chunks(self, after_us: int) -> Iterator[list[PublishedEvent]]:
        while chunk := self._log.published(after_us, _BATCH):
            yield chunk
            if len(chunk) < _BATCH:
                return
            after_us = chunk[-1].at_us

    def _say_where(self, ends: dict[FlowName, Seq], now_us: int) -> None:
        """Say, not too often, up to where flows were looked after whose logs end where they did before events were read."""
        if now_us < self._said_us + _SAY_EVERY_US or self.position_us == self._said_of_us:
            return
        whole = [
            name
            for name, flow in self._flows.items()
            if flow.listeners and flow.known.seq >= ends.get(name, 0) and all(one.looked_us >= self.position_us for one in flow.listeners)
        ]
        self._log.look_at(dict.fromkeys(whole, self.position_us))
        self._said_us, self._said_of_us = now_us, self.position_us

    def _forget(self, name: FlowName) -> None:
        self._flows.pop(name, None)
        self._aside.pop(name, None)

    def _forget_all(self) -> None:
        self._flows.clear()
        self._ledger.keep(())


def _decoded(after_us: int, events: Sequence[PublishedEvent]) -> _Batch:
    found: list[tuple[PublishedEvent, Publication]] = []
    for event in events:
        try:
            found.append((event, decode(event.body)))
        except UnreadableEvent as error:
            diagnostics.warning("a published event cannot be read", id=event.id, at_us=event.at_us, why=str(error))
    return _Batch(after_us, events[-1].at_us if events else after_us, found)
