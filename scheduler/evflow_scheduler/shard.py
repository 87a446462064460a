"""The loop of a shard's owner: it moves values and holds no rule about flows.

    wait for reports, observations, timers -> fold and decide (pure) -> admit (pure) -> append -> effects

What a run does next is decided in `evflow.core`; what is written here is the order of the acts. One round of the
loop appends once per run, whatever came in: the turn of the reports and the turn of the slots that it freed go in
one call (in several where one would be too large). Nothing is launched, cancelled or shown before the log has it as
durably as asked.

Reports are known by id and content, not by a position in the inbox: a server that lost its tail, or whose clock went
back, gives new entries smaller ids than those that were read before.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from evflow import diagnostics
from evflow.core import events as ev
from evflow.core.admit import Slots, Waiting, admit
from evflow.core.codec import Record
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.values import entity, field
from evflow.log.commands import INBOX_BATCH
from evflow.log.protocol import AppendCall, Durability, Head, Inbound
from evflow.log.writer import Incident
from evflow_executors.protocol import Executor, Observation, OutputLine
from evflow_scheduler.inbox import accept, waiting_reports
from evflow_scheduler.mailbox import Mailbox
from evflow_scheduler.orders import name_of, order_of
from evflow_scheduler.run import OWNER, OwnedRun

ROUND_LIMIT = 200
"""Reports and observations of one round, and slots granted in it: with their decisions about one append call."""
TURN_LIMIT = 50
"""Facts of one turn, which cannot be divided among append calls."""
KNOWN_REPORTS = 10 * ROUND_LIMIT + 2 * INBOX_BATCH
"""How many reports are remembered, so that one that is read twice counts once."""
MAILBOX = 1_000
LAST_WORDS_S = 5.0
"""How long a process may take to end after its report, before it is ended."""
UNHURRIED_S = 0.02
"""How long a fact that nothing follows from waits for company: a round costs as much for one as for ten."""
CANCEL_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL of an attempt that is cancelled (Metaflow: 5 s)."""

_RECEIVE_WAIT_S = 30.0

Fact = tuple[ev.Event, str, int]
Incoming = Inbound | Observation | tuple[RunId, ev.Event, str]


@entity
class Batch:
    """What one round works on: reports, facts stated by this process, and exits that were observed.

    `ending` are adopted attempts that a former owner was to end: it may have died before it came to that.
    """

    entries: list[Inbound] = field(default_factory=list[Inbound])
    facts: dict[RunId, list[Fact]] = field(default_factory=dict[RunId, list[Fact]])
    exits: list[Observation] = field(default_factory=list[Observation])
    ending: list[AttemptId] = field(default_factory=list[AttemptId])


class ShardLog(Protocol):
    """What the loop needs of the log: a writer that holds the shard's lease."""

    async def append(self, call: AppendCall) -> Head:
        """Append, as `EventLog.append`; reconnects and repeats until a deadline."""
        ...

    async def wait_durable(self, level: Durability) -> None:
        """As `EventLog.wait_durable`."""
        ...

    async def receive(self, after: bytes, timeout_s: float) -> list[Inbound]:
        """As `EventLog.receive`, for the shard."""
        ...

    def now_us(self) -> int:
        """The writer's clock, set to the server's."""
        ...

    def take_incidents(self) -> Sequence[Incident]:
        """What happened to the runs' logs at the server since the last call."""
        ...


class Observer(Protocol):
    """Hears of what is durable: the live view, the index of runs."""

    async def on_records(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """These events stand in the log."""
        ...

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line."""
        ...


class Shard:
    """A group of runs with one owner: this object."""

    def __init__(
        self,
        log: ShardLog,
        executors: Mapping[str, Executor],
        slots: Slots,
        observer: Observer,
        durability: Durability = "everysec",
    ) -> None:
        self.runs: dict[RunId, OwnedRun] = {}
        self._log = log
        self._executors = executors
        self._slots = slots
        self._observer = observer
        self._durability: Durability = durability
        self._mail = Mailbox[Incoming](MAILBOX)
        self._known: dict[Inbound, None] = {}
        self._more = False
        self._ahead_us = 0

    def add(self, run: OwnedRun) -> None:
        """Own one more run; what its state asks for is done in the next round.

        Attempts of a former owner hold their slots until they are seen to have ended. Where the log is ahead of the
        server's clock of now (it went back), the shard's clock goes on from the log: timers would stand still else.
        """
        self.runs[run.id] = run
        self._ahead_us = max(self._ahead_us, run.state.at_us - self._log.now_us())
        for number in run.state.live:
            task = run.state.tasks[number]
            self._slots.hold(self._asks(run, number), task.attempt.slot)

    async def tell(self, run: RunId, event: ev.Fact, principal: str) -> None:
        """Hand in a fact from this process, such as Ctrl-C."""
        await self._mail.put((run, event, principal))

    async def serve(self, first: "Batch | None" = None) -> None:
        """Work until every run is sealed, beginning with `first`: what recovery found, or a start."""
        first = first or Batch()
        first.entries = self._new(first.entries)
        async with self._sources():
            await self._rounds(first)
            for attempt in filter(self._is_live, first.ending):
                await self._end(attempt, self.runs[attempt.run].state.tasks[attempt.task].attempt.cancel)
            while any(not run.state.sealed for run in self.runs.values()):
                await self._rounds(await self._collect())
            with anyio.move_on_after(LAST_WORDS_S):
                await self._last_words()

    async def _last_words(self) -> None:
        """Wait for the processes whose reports ended their runs: what they printed last is shown before they are gone."""
        while any(executor.running for executor in self._executors.values()):
            await self._mail.wait()
            self._mail.take()

    @asynccontextmanager
    async def _sources(self) -> AsyncGenerator[TaskGroup]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._receive)
            for executor in self._executors.values():
                group.start_soon(self._watch, executor)
            yield group
            group.cancel_scope.cancel()

    async def _receive(self) -> None:
        cursor = b"0"
        while True:
            # Blocks at the server. After a wait without an entry it looks at all there is: see the module's text.
            entries = await self._log.receive(cursor, _RECEIVE_WAIT_S)
            cursor = entries[-1].id if entries else b"0"
            for entry in entries:
                await self._mail.put(entry)

    async def _watch(self, executor: Executor) -> None:
        async for seen in executor.watch():
            if isinstance(seen, OutputLine):
                self._observer.on_line(seen)
            else:
                await self._mail.put(seen)

    async def _collect(self) -> "Batch":
        """Wait for something, then take what else is there.

        An exit is looked at only after every report that was written before it: a process reports, then it ends,
        but the two take different ways.
        """
        batch = Batch()
        waited = await self._wait()
        for incident in self._log.take_incidents():
            batch.facts.setdefault(incident.run, []).append((incident.event, OWNER, 0))
        for item in waited:
            if isinstance(item, Inbound):
                batch.entries.append(item)
            elif not isinstance(item, Observation):
                run, event, principal = item
                batch.facts.setdefault(run, []).append((event, principal, 0))
            elif not self._is_live(item.attempt):
                continue  # The usual end: its report was folded before its process was seen to end.
            elif isinstance(item.event, ev.AttemptStarted) and self._has_started(item.attempt):
                continue  # It was adopted, and its start stands in the log.
            elif isinstance(item.event, ev.AttemptExited):
                batch.exits.append(item)
            else:
                fact: Fact = (item.event, f"executor:{item.event.host}", 0)
                batch.facts.setdefault(item.attempt.run, []).append(fact)
        batch.entries = self._new(batch.entries)
        if batch.exits:
            batch.entries += self._new(await waiting_reports(self._log))
        return batch

    def _new(self, entries: Sequence[Inbound]) -> list[Inbound]:
        new = [entry for entry in entries if entry not in self._known]
        self._known.update(dict.fromkeys(new))
        while len(self._known) > KNOWN_REPORTS:
            del self._known[next(iter(self._known))]
        return new

    async def _wait(self) -> list[Incoming]:
        batch: list[Incoming] = []
        states = [run.state for run in self.runs.values() if not run.state.sealed]
        due = [due for state in states if (due := state.next_timer_us()) is not None]
        timeout = max(0.0, (min(due) - self._now_us()) / 1e6) if due else None
        if self._more:
            timeout, self._more = 0.0, False
        with anyio.move_on_after(timeout):  # No timer: something else wakes a live run (I10).
            await self._mail.wait()
        self._take(batch)
        with anyio.move_on_after(UNHURRIED_S):
            while batch and len(batch) < ROUND_LIMIT and all(map(self._is_unhurried, batch)):
                await self._mail.wait()
                self._take(batch)
        self._take(batch)
        return batch

    def _take(self, batch: list[Incoming]) -> None:
        """Take what is there, as much as one round takes."""
        while len(batch) < ROUND_LIMIT and (item := self._mail.take()) is not None:
            batch.append(item)

    def _is_unhurried(self, item: Incoming) -> bool:
        """Nothing follows from a start, nor from the exit of an attempt whose report was folded."""
        if not isinstance(item, Observation):
            return False
        return isinstance(item.event, ev.AttemptStarted) or not self._is_live(item.attempt)

    async def _rounds(self, batch: "Batch") -> None:
        """Work on a batch; on a large one in several rounds, exits after all reports."""
        entries, exits = batch.entries, batch.exits
        while len(entries) > ROUND_LIMIT or len(exits) > ROUND_LIMIT:
            if entries:
                part, entries = Batch(entries[:ROUND_LIMIT], batch.facts), entries[ROUND_LIMIT:]
            else:
                part, exits = Batch(facts=batch.facts, exits=exits[:ROUND_LIMIT]), exits[ROUND_LIMIT:]
            await self._round(part)
            batch.facts = {}
        await self._round(Batch(entries, batch.facts, exits))

    async def _round(self, batch: "Batch") -> None:
        """Fold, decide, admit, append, act."""
        now = self._now_us()
        accepted = accept(batch.entries, {run.id: run.state for run in self.runs.values()})
        for name, run in self.runs.items():
            if not run.state.sealed:
                run.turn(batch.facts.get(name, ()), now)
                reports, ids = accepted.facts.get(name, []), accepted.consumed.get(name, [])
                for first in range(0, len(reports), TURN_LIMIT):
                    run.turn(reports[first : first + TURN_LIMIT], now, ids[first : first + TURN_LIMIT])
                exits = [seen for seen in batch.exits if seen.attempt.run == name and self._is_live(seen.attempt)]
                for first in range(0, len(exits), TURN_LIMIT):
                    run.turn([(seen.event, "executor", 0) for seen in exits[first : first + TURN_LIMIT]], now)
                self._take_over(run, now)
        for name, grants in self._grants().items():
            for first in range(0, len(grants), ROUND_LIMIT):
                self.runs[name].turn(grants[first : first + ROUND_LIMIT], now)
        useless, dropped = accepted.useless, accepted.dropped
        for run in self.runs.values():
            if run.state.over and not run.state.sealed:
                run.seal(now)
            calls = run.pending(useless, dropped)
            if calls:
                useless, dropped = [], {}
                await self._write(run, calls)

    async def _write(self, run: OwnedRun, calls: Sequence[AppendCall]) -> None:
        """Append, and act on it when it is durable."""
        for call in calls:
            await self._log.append(call)
        await self._log.wait_durable(self._durability)
        records = run.appended()
        diagnostics.debug("events durable", run=run.id, seq=run.head.seq, events=len(records), calls=len(calls))
        await self._act(run, records)
        await self._observer.on_records(run, records)

    def _now_us(self) -> int:
        return self._log.now_us() + self._ahead_us

    def _take_over(self, run: OwnedRun, now: int) -> None:
        """In a resumed run, take over what the origin finished; more than one round's share waits for the next one."""
        share = ROUND_LIMIT
        while run.reuse is not None and share > 0 and not run.state.stopping:
            reused = run.reuse.reusable(run.state, min(share, TURN_LIMIT))
            if not reused:
                return
            run.turn([(event, OWNER, 0) for event in reused], now)
            share -= len(reused)
        self._more = self._more or share <= 0

    def _grants(self) -> dict[RunId, list[Fact]]:
        """Take back the slots of ended attempts and give the free ones, by run."""
        for attempt in list(self._slots.taken):
            if not self._is_live(attempt):
                self._slots.free(attempt)
        facts: dict[RunId, list[Fact]] = {}
        for grant in admit(self._slots, self._waiting()):
            attempt = grant.attempt
            event = ev.SlotGranted(attempt.task, attempt.attempt, grant.slot, grant.reason)
            facts.setdefault(attempt.run, []).append((event, OWNER, 0))
        return facts

    def _waiting(self) -> Iterator[Waiting]:
        for run in self.runs.values():
            state = run.state
            if state.stopping or self._more:
                continue
            for number in state.waiting:
                yield self._asks(run, number)

    def _asks(self, run: OwnedRun, number: int) -> Waiting:
        """What a task asks for."""
        task = run.state.tasks[number]
        policy = run.state.graph[task.step].policy
        return Waiting(name_of(run.id, task), policy.cpu, policy.memory_mb, policy.gpu)

    def _is_live(self, attempt: AttemptId) -> bool:
        run = self.runs.get(attempt.run)
        if run is None:
            return False
        task = run.state.task(attempt.task)
        return task is not None and task.id in run.state.live and task.attempt.number == attempt.attempt

    def _has_started(self, attempt: AttemptId) -> bool:
        return bool(self.runs[attempt.run].state.tasks[attempt.task].attempt.started_us)

    async def _act(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """Carry out the decisions, now that the log has them."""
        for record in records:
            event = record.event
            if isinstance(event, ev.TaskLaunched):
                task = run.state.tasks[event.task]
                diagnostics.debug("launch", run=run.id, task=task.id, attempt=event.attempt, seq=record.seq, step=task.step)
                await self._executors[event.executor].launch(name_of(run.id, task), order_of(run.state, task))
            elif isinstance(event, ev.AttemptCancelRequested):
                task = run.state.tasks[event.task]
                diagnostics.debug("cancel", run=run.id, task=task.id, attempt=event.attempt, seq=record.seq, reason=event.reason)
                await self._end(AttemptId(run.id, TaskId(task.id), event.attempt), event.reason)

    async def _end(self, attempt: AttemptId, reason: str) -> None:
        executor = self._executors[self.runs[attempt.run].state.tasks[attempt.task].attempt.executor]
        await executor.cancel(attempt, grace_s=0.0 if reason in ("killed", "timeout") else CANCEL_GRACE_S)
