"""The loop of a shard's owner: it moves values and holds no rule about flows.

    wait for reports, observations, timers -> fold and decide (pure) -> admit (pure) -> append -> effects

What a run does next is decided in `evflow.core`; what is written here is the order of the acts. One round of the
loop appends once per run, whatever came in: the turn of the reports and the turn of the slots that it freed go in
one call (in several where one would be too large). Nothing is launched, cancelled or shown before the log has it as
durably as asked.

Reports are known by id and content, not by a position in the inbox: a server that lost its tail, or whose clock went
back, gives new entries smaller ids than those that were read before.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from evflow import diagnostics
from evflow.core import events as ev, hooks
from evflow.core.admit import Slots
from evflow.core.codec import Record
from evflow.core.graph import LOCAL
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.values import entity, field
from evflow.errors import InternalError
from evflow.log.commands import INBOX_BATCH
from evflow.log.protocol import AppendCall, Durability, Head, Inbound
from evflow.log.writer import Incident
from evflow_executors.mailbox import Mailbox
from evflow_executors.protocol import Executor, Observation, OutputLine
from evflow_scheduler.granting import MAX_WORKERS, Fact, Granting, is_here, whole
from evflow_scheduler.hooking import Hooking, publish_end
from evflow_scheduler.inbox import Accepted, BegunElsewhere, Offer, accept, is_a_word, offer_of, waiting_reports
from evflow_scheduler.launching import launch
from evflow_scheduler.names import NameLog, Names
from evflow_scheduler.newer import RunIsNewer
from evflow_scheduler.roster import Roster
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
"""How long a start, from which nothing follows, waits for company: a round costs as much for one as for ten."""
CANCEL_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL of an attempt that is cancelled (Metaflow: 5 s)."""

_RECEIVE_WAIT_S = 30.0

NO_RUN = RunId(FlowName("none"), RunNumber(0))
"""Names the log of no run in an append that only consumes."""

_UNFOLDABLE = (InternalError, LookupError, TypeError, ValueError, AttributeError)
"""What folding and deciding raise on what no evflow has written. A foreground ends with it; a scheduler has other runs."""

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


class ShardLog(NameLog, Protocol):
    """What the loop needs of the log: a writer that holds the shard's lease."""

    async def append(self, call: AppendCall) -> Head:
        """Append, as `EventLog.append`; reconnects and repeats until a deadline."""
        ...

    async def wait_durable(self, level: Durability) -> None:
        """As `EventLog.wait_durable`."""
        ...

    async def heads(self, runs: Sequence[RunId]) -> list[Head]:
        """The ends of runs' logs, in order."""
        ...

    async def receive(self, after: bytes, timeout_s: float) -> list[Inbound]:
        """As `EventLog.receive`, for the shard."""
        ...

    async def publish(self, event_id: str, body: bytes) -> None:
        """Publish an event; reconnects and repeats until a deadline."""
        ...

    def now_us(self) -> int:
        """The writer's clock, set to the server's."""
        ...

    def take_incidents(self) -> Sequence[Incident]:
        """What happened to the runs' logs at the server since the last call."""
        ...


class RunHost(Protocol):
    """Where runs of a shared shard live: they come as offers, and go when they are sealed."""

    def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
        """The run begins here: its first event, with what only its owner knows. Its attempts may be launched from now on."""
        ...

    def expect(self, run: RunId) -> None:
        """The run has begun, and an attempt of it may be launched at once: what that takes may be made ready meanwhile."""
        ...

    def dismiss(self, run: RunId) -> None:
        """The run is sealed; nothing more is asked of it."""
        ...

    async def refuse(self, run: RunId, why: str) -> None:
        """The run cannot begin, here or elsewhere: have that be known. Repeated where this owner dies before the offer is struck off."""
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
    """A group of runs with one owner: this object.

    Attributes:
        runs: The runs, by id.
        aside: Runs that nobody can go on with: what is reported of them is left where it lies.

    Args:
        log: The writer that holds the shard's lease.
        executors: By name; one that is not there yet may be made when it is asked for.
        slots: What attempts may take; shards of one process share them.
        observer: Hears of what is durable.
        durability: When an event counts as written.
        host: Takes new runs in, for a shard that is served until it is drained; None for one that ends with its runs.
        instead: Executors whose attempts run on this machine instead, and why.
    """

    def __init__(
        self,
        log: ShardLog,
        executors: Mapping[str, Executor],
        slots: Slots,
        observer: Observer,
        durability: Durability = "everysec",
        host: RunHost | None = None,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self._roster = Roster()
        self.runs: Mapping[RunId, OwnedRun] = self._roster.runs
        self.aside: set[str] = set()
        self._log = log
        self._executors = executors
        self._observer = observer
        self._durability: Durability = durability
        self._host = host
        self._watched: set[str] = set()
        self._watchers: TaskGroup | None = None
        self._draining = False
        self._left = False
        self._over = False
        most = None if host is None else MAX_WORKERS
        self._granting = Granting(self._roster, slots, Names(log), self._is_live, instead or {}, most, self.look_again)
        self._mail = Mailbox[Incoming](MAILBOX)
        self._known: dict[Inbound, None] = {}
        self._hooking = Hooking()
        self._ahead_us = 0

    def add(self, run: OwnedRun) -> None:
        """Own one more run; what its state asks for is done in the next round.

        Attempts of a former owner hold their slots until they are seen to have ended. Where the log is ahead of the
        server's clock of now (it went back), the shard's clock goes on from the log: timers would stand still else.
        """
        self._roster.add(run)
        self._ahead_us = max(self._ahead_us, run.state.at_us - self._log.now_us())
        self._granting.hold(run)

    async def tell(self, run: RunId, event: ev.Fact, principal: str) -> None:
        """Hand in a fact from this process, such as Ctrl-C."""
        await self._mail.put((run, event, principal))

    @property
    def live(self) -> int:
        """How many attempts of its runs have a slot of this machine."""
        return sum(sum(is_here(run.state.tasks[number]) for number in run.state.live) for run in self.runs.values())

    @property
    def draining(self) -> bool:
        """Whether it ends with what runs."""
        return self._draining

    def look_again(self) -> None:
        """Begin a round soon, though nothing came in: a slot that was freed elsewhere may be for this shard."""
        self._mail.wake()

    def drain(self) -> None:
        """Take no new run and grant no slot from now on; `serve` returns when what runs has ended."""
        self._draining = True
        self.look_again()

    def stay(self) -> None:
        """Go on after all; what was left for the next owner is looked at."""
        self._draining, self._left = False, True
        self.look_again()

    async def serve(self, first: "Batch | None" = None) -> None:
        """Work until every run is sealed, or with a host until the shard is drained.

        Args:
            first: What to begin with: what recovery found, or a start.
        """
        first = first or Batch()
        first.entries = self._new(first.entries)
        await self._granting.begin()
        async with self._sources():
            with self._granting.sharing():
                await self._work(first)
            with anyio.move_on_after(LAST_WORDS_S):
                await self._last_words()

    async def _work(self, first: "Batch") -> None:
        await self._rounds(first)
        for attempt in filter(self._is_live, first.ending):
            await self._end(attempt, self.runs[attempt.run].state.tasks[attempt.task].attempt.cancel)
        while self._goes_on():
            await self._rounds(await self._collect())

    def _goes_on(self) -> bool:
        if self._host is None:
            return any(not run.state.sealed for run in self.runs.values())
        return not (self._draining and not self.live and not self._hooking)

    async def _last_words(self) -> None:
        """Wait for the processes whose reports ended their runs: what they printed last is shown before they are gone."""
        self._over = True
        while any(executor.running for executor in self._executors.values()):
            await self._mail.wait()
            self._mail.take()

    @asynccontextmanager
    async def _sources(self) -> AsyncGenerator[TaskGroup]:
        async with anyio.create_task_group() as group:
            self._watchers = group
            group.start_soon(self._receive)
            for name in self._executors:
                self._executor(name)
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

    def _executor(self, name: str) -> Executor:
        """The executor of a name, which is watched from now on."""
        executor = self._executors[name]
        if name not in self._watched and self._watchers is not None:
            self._watched.add(name)
            self._watchers.start_soon(self._watch, executor)
        return executor

    async def _watch(self, executor: Executor) -> None:
        async for seen in executor.watch():
            if isinstance(seen, OutputLine):
                self._observer.on_line(seen)
            elif self._over or (isinstance(seen.event, ev.AttemptExited) and self._hooking.is_of(seen.attempt)):
                await self._mail.put(seen)
            elif self._is_live(seen.attempt):  # Else it is the usual end: its report was folded before its process was seen to end.
                await self._mail.put(seen, UNHURRIED_S if isinstance(seen.event, ev.AttemptStarted) else 0.0)

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
            elif (ended := self._hooking.ended(item)) is not None:
                batch.facts.setdefault(item.attempt.run, []).append((ended, "executor", 0))
            elif not self._is_live(item.attempt):
                continue  # Its report came meanwhile.
            elif isinstance(item.event, ev.AttemptStarted) and self._has_started(item.attempt):
                continue  # It was adopted, and its start stands in the log.
            elif isinstance(item.event, ev.AttemptExited):
                batch.exits.append(item)
            else:
                by = f"executor:{item.event.host}" if isinstance(item.event, ev.AttemptStarted) else "executor"
                fact: Fact = (item.event, by, 0)
                batch.facts.setdefault(item.attempt.run, []).append(fact)
        batch.entries = self._new(batch.entries)
        if batch.exits or self._left:
            self._left = False
            batch.entries += self._new(await waiting_reports(self._log))
        return batch

    def _new(self, entries: Sequence[Inbound]) -> list[Inbound]:
        new = [entry for entry in entries if entry not in self._known]
        self._known.update(dict.fromkeys(new))
        while len(self._known) > KNOWN_REPORTS:
            del self._known[next(iter(self._known))]
        return new

    async def _wait(self) -> list[Incoming]:
        due = self._roster.next_timer_us()
        again = self._granting.again_us
        if again is not None:
            due = again if due is None else min(due, again)
        timeout = max(0.0, (due - self._now_us()) / 1e6) if due is not None else None
        if self._roster.is_touched:
            timeout = 0.0
        await self._mail.wait(timeout)  # No timer: something else wakes a live run (I10).
        batch: list[Incoming] = []
        while len(batch) < ROUND_LIMIT and (item := self._mail.take()) is not None:
            batch.append(item)
        return batch

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
        entries = batch.entries if self._host is None else await self._begin_offered(batch.entries, self._host)
        accepted = accept(entries, self._roster.named, _begun(batch.facts))
        exits = _by_run(batch.exits)
        concerned = {run.id: run for run in self._roster.concerned([*batch.facts, *accepted.facts, *exits], now)}
        for name, run in list(concerned.items()):
            try:
                self._fold(run, batch.facts.get(name, ()), accepted, exits.get(name, ()), now)
            except _UNFOLDABLE as error:
                if self._host is None:
                    raise
                self._set_aside(run, error, self._host)
                del concerned[name]
            else:
                self._roster.note(run)
        for attempt in self._hooking.unwanted(batch.facts, accepted.facts):
            await self._executor(LOCAL).cancel(attempt, grace_s=CANCEL_GRACE_S)
        for name, grants in (await self._grants(now, concerned, woken=any(map(is_a_word, entries)))).items():
            run = concerned[name] = self.runs[name]
            for part in whole(run, grants, ROUND_LIMIT):
                run.turn(part, now)
        if accepted.useless and not concerned:
            concerned = self._roster.oldest()
        await self._write(concerned.values(), accepted, now)
        if self._host is not None:
            self._dismiss_sealed(concerned.values(), self._host)

    def _fold(self, run: OwnedRun, facts: Sequence[Fact], accepted: Accepted, exits: Sequence[Observation], now: int) -> None:
        """Make the turns of what came in for a run."""
        if run.state.sealed:
            return
        run.turn([*facts, *accepted.starts.get(run.id, ())], now)
        reports, ids = accepted.facts.get(run.id, []), accepted.consumed.get(run.id, [])
        for first in range(0, len(reports), TURN_LIMIT):
            run.turn(reports[first : first + TURN_LIMIT], now, ids[first : first + TURN_LIMIT])
        unreported = [seen for seen in exits if self._is_live(seen.attempt)]
        for first in range(0, len(unreported), TURN_LIMIT):
            run.turn([(seen.event, "executor", 0) for seen in unreported[first : first + TURN_LIMIT]], now)
        self._take_over(run, now)

    def _set_aside(self, run: OwnedRun, why: Exception, host: RunHost) -> None:
        """Let a run go that cannot be folded on, so that it hinders no other. Nothing of this round is written of it."""
        diagnostics.warning("run set aside", run=run.id, seq=run.head.seq, why=f"{type(why).__name__}: {why}")
        self.aside.add(str(run.id))
        self._let_go(run.id)
        host.dismiss(run.id)

    def lacks_a_name(self, run: OwnedRun) -> bool:
        """Whether what waits of a run waits for a limited name."""
        return self._granting.lacks_a_name(run)

    def _let_go(self, name: RunId) -> OwnedRun:
        self._granting.free(name)
        self._hooking.pop(name, None)
        return self._roster.remove(name)

    async def _begin_offered(self, entries: list[Inbound], host: RunHost) -> list[Inbound]:
        """Begin the runs that are offered; answers the entries that were no such offers.

        While the shard is drained, what concerns no run of it waits for its next owner.
        """
        known = self._roster.named
        if self._draining:
            for entry in entries:
                if not known(entry.run):
                    self._known.pop(entry, None)
            return [entry for entry in entries if known(entry.run)]
        found = ((entry, offer_of(entry)) for entry in entries if entry.run not in self.aside and not known(entry.run))
        offers = {entry: offer for entry, offer in found if offer is not None}
        over = await self._begun_before([offer.run for offer in offers.values()])
        rest: list[Inbound] = []
        for entry in entries:
            if entry.run in self.aside:
                continue
            offer = None if known(entry.run) else offers.get(entry)  # the entry before may have begun it
            if offer is None or offer.run in over or not await self._begin(offer, host):
                rest.append(entry)
        return rest

    async def _begun_before(self, offered: Sequence[RunId]) -> set[RunId]:
        """Those of the offered runs that were begun before; they are over then.

        Raises:
            BegunElsewhere: One goes on, and this owner does not have it.
        """
        if not offered:
            return set()
        heads = dict(zip(offered, await self._log.heads(offered), strict=True))
        for run, head in heads.items():
            if head.seq and head.status != "sealed":
                raise BegunElsewhere(run)
        return {run for run, head in heads.items() if head.seq}

    async def _begin(self, offer: Offer, host: RunHost) -> bool:
        """Begin an offered run, if its first event can be one."""
        run = OwnedRun(offer.run)
        try:
            run.turn([(host.welcome(offer.event), offer.principal, 0)], self._now_us(), [offer.entry])
        except RunIsNewer as error:
            diagnostics.warning("offer left to a scheduler of a later version", run=run.id, by=offer.principal, why=error.message)
            host.dismiss(run.id)
            self.aside.add(str(run.id))
            return True
        except _UNFOLDABLE as error:
            diagnostics.warning("offer refused", run=run.id, by=offer.principal, why=f"{type(error).__name__}: {error}")
            host.dismiss(run.id)
            await host.refuse(run.id, str(error))
            return False
        self._roster.add(run)
        if self._granting.has_room_for(run):
            host.expect(run.id)
        diagnostics.info("run begins", run=run.id, by=offer.principal)
        return True

    async def _strike(self, entries: Sequence[bytes]) -> None:
        """Strike entries off that concern no run of this shard, where no run's append could do it."""
        await self._log.append(AppendCall(NO_RUN, Head(), (), (), tuple(entries)))

    def _dismiss_sealed(self, runs: Iterable[OwnedRun], host: RunHost) -> None:
        for run in runs:
            if run.state.sealed:
                self._let_go(run.id)
                diagnostics.info("run over", run=run.id, status=run.state.status, seq=run.head.seq)
                host.dismiss(run.id)

    async def _write(self, runs: Collection[OwnedRun], accepted: Accepted, now: int) -> None:
        """Append what is new, wait once until all of it is durable, then act on it.

        A run of a host is sealed after its end was published, which comes after its outcome is durable: so whoever takes over a run that is over
        and unsealed publishes it again, and no end is lost.
        """
        over = [run for run in runs if run.state.over and not run.state.sealed]
        ended = [run for run in over if not hooks.are_due(run.state)]
        if self._host is None:
            for run in ended:
                run.seal(now)
        await self._append(runs, accepted)
        for run in await self._hooking.start(over, now, self._append, partial(self._executor, LOCAL), self._log if self._host else None):
            self._roster.touch(run.id)
        if self._host is not None and ended:
            for run in ended:
                await publish_end(self._log, run)
                run.seal(now)
            await self._append(ended, Accepted())

    async def _append(self, runs: Iterable[OwnedRun], accepted: Accepted) -> None:
        useless, dropped = accepted.useless, accepted.dropped
        written: list[OwnedRun] = []
        for run in runs:
            self._roster.note(run)
            calls = run.pending(useless, dropped)
            if calls:
                useless, dropped = [], {}
                for call in calls:
                    await self._log.append(call)
                written.append(run)
        if useless:
            await self._strike(useless)
        if written:
            await self._log.wait_durable(self._durability)
        for run in written:
            records = run.appended()
            if run.state.sealed:
                await self._granting.let_go(run.id)
            diagnostics.debug("events durable", run=run.id, seq=run.head.seq, events=len(records))
            await self._act(run, records)
            await self._observer.on_records(run, records)

    def _now_us(self) -> int:
        return self._log.now_us() + self._ahead_us

    def _take_over(self, run: OwnedRun, now: int) -> None:
        """In a resumed run, take over what the origin finished; more than one round's share waits for the next one.

        Nothing is launched before all of it is: what can be taken over need not run.
        """
        share = ROUND_LIMIT
        while run.reuse is not None and share > 0 and not run.state.stopping:
            reused = run.reuse.reusable(run.state, min(share, TURN_LIMIT)) or run.reuse.ending()
            if not reused:
                return
            run.turn([(event, OWNER, 0) for event in reused], now)
            share -= len(reused)
        if share <= 0:
            self._roster.touch(run.id)

    async def _grants(self, now: int, concerned: Iterable[RunId], *, woken: bool) -> Mapping[RunId, Sequence[Fact]]:
        """What runs are told of slots."""
        await self._granting.take_back(concerned)
        return await self._granting.told(now, woken=woken, grant=not (self._draining or self._roster.is_touched))

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
                await launch(self._executor(event.executor), run, event)
            elif isinstance(event, ev.AttemptCancelRequested):
                task = run.state.tasks[event.task]
                diagnostics.debug("cancel", run=run.id, task=task.id, attempt=event.attempt, seq=record.seq, reason=event.reason)
                await self._end(AttemptId(run.id, TaskId(task.id), event.attempt), event.reason)

    async def _end(self, attempt: AttemptId, reason: str) -> None:
        executor = self._executor(self.runs[attempt.run].state.tasks[attempt.task].attempt.executor)
        await executor.cancel(attempt, grace_s=0.0 if reason in ("killed", "timeout") else CANCEL_GRACE_S)


def _begun(facts: Mapping[RunId, Sequence[Fact]]) -> set[AttemptId]:
    """The attempts that are seen to start in this round, and reported as well where a worker did it."""
    return {
        AttemptId(run, TaskId(event.task), event.attempt)
        for run, told in facts.items()
        for event, _, _ in told
        if isinstance(event, ev.AttemptStarted)
    }


def _by_run(seen: Iterable[Observation]) -> dict[RunId, list[Observation]]:
    found: defaultdict[RunId, list[Observation]] = defaultdict(list)
    for one in seen:
        found[one.attempt.run].append(one)
    return found
