"""A simulated shard: real core, real loop, real writer, in virtual time, against a server and a machine that misbehave.

Owners are incarnations of one program: each begins or takes over whatever it finds, works until it dies, is told to stop,
or is done; then another one comes. All the world's I/O passes `World.point`, where the scenario's faults strike.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Final

import anyio

from evflow.core import canonical, events as ev
from evflow.core.admit import Capacity, Slots
from evflow.core.codec import Record, decode, encode_report
from evflow.core.decide import LOGIC
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber
from evflow.errors import Conflict
from evflow.log.errors import LogConnectionLost, LogTimeout, LogUnavailable
from evflow.log.protocol import Lease, StoredEvent
from evflow.log.writer import LEASE_S, LogLostTooMuch, ShardWriter
from evflow.testing.faults import Crash
from evflow.testing.simulated_log import START_US, SimulatedEventLog, SimulatedServer
from evflow.testing.virtual_time import run as run_in_virtual_time
from evflow.worker.spec import AttemptOrder
from evflow_executors.protocol import OutputLine
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Batch, Shard
from evflow_scheduler.takeover import TakeOver
from tests.random_flows import RandomFlow, Step, choose
from tests.simulation.machine import Conduct, Hold, Machine, Report
from tests.simulation.scenario import Fault, Scenario

SHARD: Final = "simulated"
LIMIT_S: Final = 86_400.0
"""Virtual time by which every run is over, or will never be."""
MAX_OWNERS: Final = 60
REPORT_WITHIN_S: Final = 30.0


class Violation(AssertionError):
    """An invariant does not hold."""


class Process:
    """One incarnation of the owner; the place where its I/O meets the scenario's faults."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"host:{number}:{world.server.now_us()}:{number:04x}"
        self.dead = False
        self.stalled_until_s = 0.0

    async def before(self, act: str) -> None:
        """Called before each act."""
        await self.world.point(self, f"before {act}")

    async def after(self, act: str) -> None:
        """Called after each act."""
        await self.world.point(self, f"after {act}")


class WatchedServer(SimulatedServer):
    """A server that remembers what was promised: which events are durable, and who held which epoch."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        super().__init__(clock_us)
        self.durable: dict[RunId, int] = {}
        self.epochs: dict[int, str] = {}

    def make_durable(self) -> None:
        """See `SimulatedServer.make_durable`."""
        super().make_durable()
        self.durable = {run: held.head.seq for run, held in self.state.shard(SHARD).runs.items()}

    def note(self, lease: Lease) -> None:
        """I2: an epoch has one owner."""
        owner = self.epochs.setdefault(lease.epoch, lease.owner)
        if owner != lease.owner:
            raise Violation(f"I2: epoch {lease.epoch} was given to {owner} and to {lease.owner}")


class WatchedLog(SimulatedEventLog):
    """A connection that reports epochs to the server's books."""

    async def take(self, shard: str, owner: str, ttl_s: float, since: int = 0) -> Lease:
        """See `EventLog.take`."""
        lease = await super().take(shard, owner, ttl_s, since)
        assert isinstance(self.server, WatchedServer)
        self.server.note(lease)
        return lease


class RecordedRun(OwnedRun):
    """A run that notes the digest of its state at each turn."""

    def __init__(self, run: RunId, digests: dict[int, set[bytes]] | None) -> None:
        super().__init__(run)
        self._at = digests

    def _encoded(self, first: int, consumed: Sequence[bytes] = ()) -> list[Record]:
        new = super()._encoded(first, consumed)
        if new and self._at is not None:
            self._at.setdefault(self.state.seq, set()).add(canonical.digest(self.state))
        return new


class _Recorder:
    """Hears what a live view would."""

    async def on_records(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """These events stand in the log."""

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line."""


class _Host:
    """Takes offers in as they are."""

    def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
        return offered

    def dismiss(self, run: RunId) -> None:
        pass

    def has_room(self) -> None:
        pass


@dataclass
class World:
    """One scenario, played.

    Attributes:
        trace: What happened, for people.
        digests: For each run, the state's digest at the end of each turn that an owner made of it.
        points: Acts passed so far, twice each.
        crash_at: The point at which to crash, besides the scenario's faults.
        each_turn: Note the state's digest at each turn, which is half of the cost.
        limits: Options of the runs.
        after_crash: What happens when an owner has died.
        strike_at: The point at which `strike` happens.
        strike: Anything.
        lost: Writes that the server had acknowledged and lost, for good or not.
        crashes: Owners that died.
        beyond_repair: The server lost more than its owner had kept.
    """

    scenario: Scenario
    trace: list[str] = field(default_factory=list)
    digests: dict[RunId, dict[int, set[bytes]]] = field(default_factory=dict)
    points: int = 0
    lost: int = 0
    crashes: int = 0
    beyond_repair: bool = False
    cancelled: bool = False
    crash_at: int | None = None
    each_turn: bool = True
    limits: dict[str, int] = field(default_factory=lambda: {"max_splits": 100, "task_budget": 60})
    after_crash: "Callable[[World], None] | None" = None
    strike_at: int | None = None
    strike: "Callable[[World], None] | None" = None

    def __post_init__(self) -> None:
        self.random = Random(f"{self.scenario.seed}/world")
        self.skew_us = 0
        self._plan: dict[int, list[Fault]] = {}
        for fault in self.scenario.faults:
            self._plan.setdefault(fault.point, []).append(fault)
        self.runs = [RunId(FlowName(f"Flow{number}"), RunNumber(1)) for number in range(len(self.scenario.flows))]
        self._owners = 0
        self._working = 0

    # --- the play ----------------------------------------------------------------------------------------

    def play(self) -> "World":
        """Run it to its end.

        Raises:
            Violation: It has none (I10), or an effect came before its cause (I4).
        """
        run_in_virtual_time(self._play)
        return self

    async def _play(self) -> None:
        self.server = WatchedServer(self._clock_us)
        with anyio.move_on_after(LIMIT_S) as limit:
            async with anyio.create_task_group() as group:
                self.group = group
                self.machine = Machine(group, self._conduct, self._deliver, self._clock_us, outlives=self.scenario.outlives)
                if self.scenario.offered:
                    self._offer()
                self._hire()
                await self._until_sealed()
                group.cancel_scope.cancel()
        if limit.cancelled_caught:
            raise Violation(f"I10: after {LIMIT_S:g} s of virtual time something is not over")

    async def _until_sealed(self) -> None:
        while True:
            self._one_left = anyio.Event()
            await self._one_left.wait()  # ends, or `LIMIT_S` does
            if not self._working:
                if self._all_sealed():
                    return
                await anyio.sleep(self.random.choice((0.0, 0.5, 5.0)))
                self._hire()

    def _all_sealed(self) -> bool:
        held = self.server.state.shard(SHARD).runs
        return all(run in held and held[run].head.status == "sealed" for run in self.runs)

    def _clock_us(self) -> int:
        return START_US + round(anyio.current_time() * 1e6) + self.skew_us

    def _hire(self) -> None:
        self._owners += 1
        if self._owners > MAX_OWNERS:
            raise Violation(f"I10: {MAX_OWNERS} owners came and went")
        self._working += 1
        self.group.start_soon(self._own, Process(self, self._owners))

    async def _own(self, process: Process) -> None:
        executor = Hold(self.machine, process, lambda act, attempt: self._on_effect(process, act, attempt))
        try:
            await self._work(process, executor)
        except BaseExceptionGroup as errors:
            _, rest = errors.split((Crash, Conflict, LogUnavailable))
            if rest is not None:
                raise
            self._note_end(process, _first(errors))
        except (Crash, Conflict, LogUnavailable) as error:
            self._note_end(process, error)
        if process.dead:
            self.crashes += 1
            if self.after_crash is not None:
                self.after_crash(self)
            self.machine.orphan(executor)
            if self.random.random() < 0.5:  # somebody looks, and knows that the process is gone
                self.server.write(lambda state: state.bury(SHARD, process.name))
        self._working -= 1
        self._one_left.set()

    def _note_end(self, process: Process, error: BaseException) -> None:
        self.trace.append(f"owner {process.number} ends: {error!r}")
        self.beyond_repair = self.beyond_repair or isinstance(error, LogLostTooMuch)

    async def _work(self, process: Process, executor: Hold) -> None:
        log = WatchedLog(self.server, process)
        writer = ShardWriter(log, SHARD, process.name)
        try:
            await writer.take(wait_s=2 * LEASE_S)
            self.trace.append(f"owner {process.number} has the shard")
            try:
                await self._serve(writer, executor)
            finally:
                with anyio.CancelScope(shield=True):
                    await executor.aclose()
                    await writer.release()
        finally:
            with anyio.CancelScope(shield=True):
                await log.aclose()

    def _offer(self) -> None:
        """Ask for the runs, one of them twice."""
        for run in [*self.runs, self.runs[0]]:
            self.report(run, encode_report(self._started(run), principal="user:ada"))
        self.server.make_durable()

    async def _serve(self, writer: ShardWriter, executor: Hold) -> None:
        if self.scenario.offered:
            await self._serve_shared(writer, executor)
        else:
            await self._serve_own(writer, executor)

    async def _serve_shared(self, writer: ShardWriter, executor: Hold) -> None:
        shard = Shard(writer, {"local": executor}, Slots(Capacity(self.scenario.slots)), _Recorder(), self.scenario.level, _Host())
        runs = [OwnedRun(run) for run in await writer.active()]
        batch = await TakeOver("host", "ada").of(runs, writer, executor)
        for run in runs:
            shard.add(run)

        async def drain_at_the_end() -> None:
            while not self._all_sealed():
                await self.server.changed()
            shard.drain()

        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep)
            group.start_soon(drain_at_the_end)
            await shard.serve(batch)
            group.cancel_scope.cancel()

    async def _serve_own(self, writer: ShardWriter, executor: Hold) -> None:
        runs = [RecordedRun(run, self.digests.setdefault(run, {}) if self.each_turn else None) for run in self.runs]
        batch = await self._begin(runs, writer, executor)
        shard = Shard(writer, {"local": executor}, Slots(Capacity(self.scenario.slots)), _Recorder(), self.scenario.level)
        for run in runs:
            shard.add(run)
        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep)
            await shard.serve(batch)
            group.cancel_scope.cancel()

    async def _begin(self, runs: Sequence[RecordedRun], writer: ShardWriter, executor: Hold) -> Batch:
        """The first round: a start of those that have no events, a take-over of the others."""
        heads = {run: await writer.head(run.id) for run in runs}
        fresh = [run for run, head in heads.items() if head.seq == 0]
        batch = await TakeOver("host", "ada").of([run for run in runs if run not in fresh], writer, executor)
        for run in fresh:
            batch.facts[run.id] = [(self._started(run.id), "user:ada", 0)]
        return batch

    def _started(self, run: RunId) -> ev.RunStarted:
        options = {**self.limits, "retry_scale": 1}
        graph = self.scenario.graph(self.runs.index(run))
        return ev.RunStarted(run.flow, run.number, LOGIC, graph.to_plain(), b"p" * 32, {}, options, {}, "ada", "", store="sim://")

    # --- effects -----------------------------------------------------------------------------------------

    def _on_effect(self, process: Process, act: str, attempt: AttemptId) -> None:
        """I4: what is done was decided, and is as durable as it was to be."""
        kind = ev.TaskLaunched if act == "launch" else ev.AttemptCancelRequested
        for stored in reversed(self.log_of(attempt.run)):
            event = decode(stored.seq, stored.payload).event
            if isinstance(event, kind) and (event.task, event.attempt) == (attempt.task, attempt.attempt):
                if self.scenario.level != "everysec" and self.server.durable.get(attempt.run, 0) < stored.seq:
                    raise Violation(f"I4: {act} of {attempt} by owner {process.number} before event {stored.seq} was durable")
                return
        if not self.lost:
            raise Violation(f"I4: {act} of {attempt} by owner {process.number} is not in the log")

    def log_of(self, run: RunId) -> list[StoredEvent]:
        """A run's events, as the server has them."""
        held = self.server.state.shard(SHARD).runs.get(run)
        return held.events if held is not None else []

    # --- attempts ----------------------------------------------------------------------------------------

    def _conduct(self, attempt: AttemptId, order: AttemptOrder) -> Conduct:
        random = Random(f"{self.scenario.seed}/{attempt}")
        flow = self.scenario.flows[self.runs.index(attempt.run)]
        report = report_of(flow, order)
        runs_for_s = random.choice((0.0, 0.01, 0.3, 5.0, 20.0))
        if not self.scenario.wild:
            return Conduct(report, runs_for_s=min(runs_for_s, 5.0))
        draw = random.random()
        return Conduct(
            report,
            starts_after_s=random.choice((0.0, 0.02, 1.0)),
            runs_for_s=1e5 if order.timeout_s and draw < 0.1 and order.attempt == 0 else runs_for_s,
            reports=2 if draw > 0.9 else 1,
            leaves_after_s=random.choice((0.0, 0.0, 0.5)),
            dies=random.choice((9, 11)) if draw < 0.04 else None,
            deaf=draw > 0.95,
        )

    async def _deliver(self, attempt: AttemptId, report: Report) -> bool:
        deadline_s = anyio.current_time() + REPORT_WITHIN_S
        while self.server.down:
            if anyio.current_time() >= deadline_s:
                return False
            await anyio.sleep(0.1)
        self.report(attempt.run, encode_report(report, principal=f"worker:{attempt}"))
        return True

    def report(self, run: RunId, payload: bytes) -> None:
        """Put a report into the inbox."""
        now_us = self.server.now_us()
        self.server.write(lambda state: state.report(SHARD, run, payload, now_us))

    # --- faults ------------------------------------------------------------------------------------------

    async def point(self, process: Process, place: str) -> None:
        """One of two points of an act: whatever the scenario has for it happens."""
        if process.dead:
            raise Crash(place, self.points)
        stalled_s = process.stalled_until_s - anyio.current_time()
        if stalled_s > 0:
            await anyio.sleep(stalled_s)
        number = self.points
        self.points += 1
        if number == self.crash_at:
            self._die(process, place)
        if number == self.strike_at and self.strike is not None:
            self.strike(self)
        for fault in self._plan.get(number, ()):
            self.trace.append(f"point {fault} at owner {process.number}, {place}, {anyio.current_time():.3f} s")
            await self._strike(fault, process, place)

    def _die(self, process: Process, place: str) -> None:
        process.dead = True
        raise Crash(place, self.points)

    async def _strike(self, fault: Fault, process: Process, place: str) -> None:
        amount, act = fault.amount, place.partition(" ")[2]
        match fault.kind:
            case "crash":
                self._die(process, place)
            case "lost-request" | "lost-reply" if act not in ("launch", "cancel", "adopt", "close"):
                raise LogConnectionLost("simulation") if amount < 0.7 else LogTimeout("simulation", act, 0.0)
            case "delay":
                await anyio.sleep(amount * 8)
            case "stall":
                process.stalled_until_s = anyio.current_time() + LEASE_S * (0.5 + 3 * amount)
                self._hire()
                await anyio.sleep(process.stalled_until_s - anyio.current_time())
            case _:
                self._outside(fault.kind, amount)

    def _outside(self, kind: str, amount: float) -> None:
        server, machine = self.server, self.machine
        run = self.runs[int(amount * len(self.runs))]
        match kind:
            case "kill-server" if not server.down:
                self._away(amount * 20)
            case "regress" if not server.down:
                self.lost += server.regress(int(amount * 12))
                self._away(0.005 + amount * 5)
            case "forget-lease":
                server.forget_lease(SHARD)
            case "expire-lease":
                server.expire_lease(SHARD)
            case "steal-lease":
                server.steal_lease(SHARD, ttl_s=amount * 60)
            case "clock":
                self.skew_us += int((amount - 0.5) * 600e6)
            case "litter":
                server.litter(SHARD)
            case "kill-attempt" if machine.processes:
                machine.kill(machine.processes[int(amount * len(machine.processes))])
            case "kill-all-attempts":
                for attempt in machine.processes:
                    machine.kill(attempt, why="fork-server-died")
            case "cancel" | "force":
                self.cancelled = True
                for forced in (False, True)[: 1 + (kind == "force")]:
                    self._ask_to_cancel(run, forced=forced)
            case "repeat-reports":
                for name, payload in list(server.state.shard(SHARD).inbox.values()):
                    if name:
                        self.report(RunId.parse(name), payload)
            case _:
                pass

    def _ask_to_cancel(self, run: RunId, *, forced: bool) -> None:
        payload = encode_report(ev.RunCancelRequested("test", forced=forced), principal="user:ada")
        with suppress(LogUnavailable):
            self.report(run, payload)

    def _away(self, seconds: float) -> None:
        self.server.kill()

        async def return_later() -> None:
            await anyio.sleep(seconds)
            self.server.start()

        self.group.start_soon(return_later)


def report_of(flow: RandomFlow, order: AttemptOrder) -> Report:
    """What the step's body comes to: a function of its order alone, as with a real flow's source."""
    step = flow[order.step]
    if order.mode == "run" and order.attempt < step.fails and not (step.caught and order.last):
        return ev.AttemptFailed(order.task, order.attempt, "exception", "ValueError", "as told")
    kind, steps, splits = transition(step, order)
    return ev.AttemptSucceeded(order.task, order.attempt, manifest_of(order), kind, steps, splits, artifacts=1, size_bytes=10)


def manifest_of(order: AttemptOrder) -> bytes:
    """A digest of everything that the step could see."""
    frames = [(step, index, size) for step, _, _, index, size, _, _ in order.frames]
    parents = [(step, manifest) for step, _, manifest in order.parents]
    return sha256(repr((order.step, order.iteration, frames, parents)).encode()).digest()


def transition(step: Step, order: AttemptOrder) -> tuple[str, tuple[str, ...], int]:
    """Where the step leads from there."""
    place = tuple(index for _, _, kind, index, *_ in order.frames if kind == "foreach")
    if step.kind == "end":
        return "end", (), 0
    if step.kind == "foreach":
        return "foreach", step.out, step.items
    if step.kind == "split":
        return "split", step.out, 0
    if step.kind == "loop":
        return "linear", (step.out[0] if order.iteration + 1 < step.items else step.out[1],), 0
    if step.kind in ("switch", "conditional"):
        return "linear", (step.out[choose(step.name, place, len(step.out))],), 0
    return "linear", step.out, 0


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
