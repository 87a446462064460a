"""A simulated shard: real core, real loop, real writer, in virtual time, against a server and a machine that misbehave.

Owners are incarnations of one program: each begins or takes over whatever it finds, works until it dies, is told to stop,
or is done; then another one comes. All the world's I/O passes `World.point`, where the scenario's faults strike.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, cast

import anyio

from evflow.core import events as ev
from evflow.core.admit import Capacity, Slots
from evflow.core.apply import apply
from evflow.core.codec import decode, encode_report
from evflow.core.control import refusal
from evflow.core.decide import LOGIC
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.state import RunState, Task
from evflow.errors import Conflict
from evflow.log.errors import LogConnectionLost, LogTimeout, LogUnavailable
from evflow.log.pools import PoolFenced
from evflow.log.protocol import StoredEvent
from evflow.log.writer import LEASE_S, LogLostTooMuch, ShardWriter
from evflow.testing.faults import Crash
from evflow.testing.simulated_server import START_US
from evflow.testing.simulation.machine import Conduct, Hold, Machine
from evflow.testing.simulation.scenario import REQUESTS, Fault, Report, Scenario
from evflow.testing.simulation.watched import SHARD, Host, Listener, RecordedRun, Violation, WatchedLog, WatchedServer
from evflow.testing.virtual_time import run as run_in_virtual_time
from evflow.worker.spec import AttemptOrder
from evflow_executors.protocol import Executor
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Batch, Shard
from evflow_scheduler.takeover import RunVanished, TakeOver

MAX_OWNERS: Final = 60
REPORT_WITHIN_S: Final = 30.0
LIMITS: Final = {"max_splits": 100, "task_budget": 60}
"""Options of runs of random flows: small, so that loops without an exit end soon."""
LOOK_EVERY_S: Final = 60.0
"""How often somebody looks whether a run waits."""
RETRIES_BY_REQUEST: Final = 3
"""How many attempts a task that is held has, before it is skipped."""


class Process:
    """One incarnation of the owner; the place where its I/O meets the scenario's faults."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"host:{number}:{world.server.now_us()}:{number:04x}"
        self.dead = False
        self.stalled_until_s = 0.0
        self.log: WatchedLog | None = None

    async def before(self, act: str) -> None:
        """Called before each act."""
        await self.world.point(self, f"before {act}")

    async def after(self, act: str) -> None:
        """Called after each act."""
        await self.world.point(self, f"after {act}")


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
        beyond_repair: The server lost more than its owner had kept, or what an owner that died had written.
    """

    scenario: Scenario
    trace: list[str] = field(default_factory=list[str])
    digests: dict[RunId, dict[int, set[bytes]]] = field(default_factory=dict[RunId, dict[int, set[bytes]]])
    points: int = 0
    lost: int = 0
    crashes: int = 0
    beyond_repair: bool = False
    cancelled: bool = False
    crash_at: int | None = None
    each_turn: bool = True
    limits: dict[str, int] = field(default_factory=lambda: dict(LIMITS))
    after_crash: "Callable[[World], None] | None" = None
    strike_at: int | None = None
    strike: "Callable[[World], None] | None" = None

    def __post_init__(self) -> None:
        self.random = Random(f"{self.scenario.seed}/world")
        self.skew_us = 0
        self.excused: set[tuple[RunId, TaskId]] = set()  # tasks that may run beside a twin, by a flaw that is known
        self._told_the_dead: list[dict[RunId, int]] = []  # up to which event of each run the server said to have it
        self._since = 0  # the latest epoch that a pool refused an owner for
        self._told: dict[RunId, int] | None = None  # likewise, to the owner of now, who may be suspended until another one has the shard
        self._plan: dict[int, list[Fault]] = {}
        for fault in self.scenario.faults:
            self._plan.setdefault(fault.point, []).append(fault)
        self.runs = [RunId(FlowName(self.scenario.name(index)), RunNumber(1)) for index in range(len(self.scenario.flows))]
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
        with anyio.move_on_after(self.scenario.patience_s) as limit:
            async with anyio.create_task_group() as group:
                self.group = group
                self.machine = Machine(group, self._conduct, self._deliver, self._clock_us, outlives=self.scenario.outlives)
                if self.scenario.offered:
                    self._offer()
                if self.scenario.steered:
                    group.start_soon(self._see_to_what_waits)
                self._open()
                self._hire()
                await self._until_sealed()
                await self._close()
                group.cancel_scope.cancel()
        if limit.cancelled_caught:
            raise Violation(f"I10: after {self.scenario.patience_s:g} s of virtual time something is not over")

    def _open(self) -> None:
        """What else is there before the first owner comes: nothing."""

    async def _close(self) -> None:
        """What else must come to its end when the runs are over: nothing."""

    def _places(self, process: Process, writer: ShardWriter, executor: Hold) -> Mapping[str, Executor]:
        """The executors of an owner, by the names that steps have for them."""
        return {executor.name: executor}

    async def _leave(self, places: Mapping[str, Executor]) -> None:
        """An owner that ends closes its executors, but for that of the machine."""

    async def _until_sealed(self) -> None:
        while True:
            self._one_left = anyio.Event()
            await self._one_left.wait()  # ends, or patience does
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
            self._note_end(process, first_of(errors))
        except (Crash, Conflict, LogUnavailable) as error:
            self._note_end(process, error)
        if process.dead:
            self.crashes += 1
            if process.log is not None:
                self._told_the_dead.append(process.log.acknowledged)
            self._see_what_is_lost_for_good()
            if self.after_crash is not None:
                self.after_crash(self)
            self.machine.orphan(executor)
            if self.random.random() < 0.5 and self.server.refusal is None:  # somebody looks, and knows that the process is gone
                self.server.write(lambda state: state.bury(SHARD, process.name))
        self._working -= 1
        self._one_left.set()

    def _note_end(self, process: Process, error: BaseException) -> None:
        self.trace.append(f"owner {process.number} ends: {error!r}")
        if isinstance(error, PoolFenced):
            self._since = max(self._since, error.epoch)
        self.beyond_repair = self.beyond_repair or isinstance(error, LogLostTooMuch | RunVanished)

    def _see_what_is_lost_for_good(self) -> None:
        """Whether the server has less than it told an owner that is dead, or was followed by another: it cannot write it again, and nobody knows what it launched."""
        held = self.server.state.shard(SHARD).runs
        lost = [run for told in self._told_the_dead for run, seq in told.items() if run not in held or held[run].head.seq < seq]
        self.beyond_repair = self.beyond_repair or bool(lost)

    async def _work(self, process: Process, executor: Hold) -> None:
        log = process.log = WatchedLog(self.server, process)
        writer = ShardWriter(log, SHARD, process.name)
        try:
            await writer.take(wait_s=2 * LEASE_S, since=self._since)
            if self._told is not None:  # whoever had the shard may still be there, suspended: what it does from now on is refused
                self._told_the_dead.append(dict(self._told))
                self._see_what_is_lost_for_good()
            self._told = log.acknowledged
            self.trace.append(f"owner {process.number} has the shard")
            places = self._places(process, writer, executor)
            try:
                await self._serve(writer, executor, places)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._leave(places)
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

    async def _serve(self, writer: ShardWriter, executor: Hold, places: Mapping[str, Executor]) -> None:
        if self.scenario.offered:
            await self._serve_shared(writer, executor, places)
        else:
            await self._serve_own(writer, executor, places)

    async def _serve_shared(self, writer: ShardWriter, executor: Hold, places: Mapping[str, Executor]) -> None:
        shard = Shard(writer, places, Slots(Capacity(self.scenario.slots)), Listener(), self.scenario.level, Host())
        runs = [OwnedRun(run) for run in await writer.active()]
        batch = await TakeOver("host", "ada").of(runs, writer, executor, elsewhere=places)
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

    async def _serve_own(self, writer: ShardWriter, executor: Hold, places: Mapping[str, Executor]) -> None:
        runs = [RecordedRun(run, self.digests.setdefault(run, {}) if self.each_turn else None) for run in self.runs]
        batch = await self._begin(runs, writer, executor, places)
        shard = Shard(writer, places, Slots(Capacity(self.scenario.slots)), Listener(), self.scenario.level)
        for run in runs:
            shard.add(run)
        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep)
            await shard.serve(batch)
            group.cancel_scope.cancel()

    async def _begin(self, runs: Sequence[RecordedRun], writer: ShardWriter, executor: Hold, places: Mapping[str, Executor]) -> Batch:
        """The first round: a start of those that have no events, a take-over of the others."""
        heads = await writer.heads([run.id for run in runs])
        fresh = [run for run, head in zip(runs, heads, strict=True) if head.seq == 0]
        batch = await TakeOver("host", "ada").of([run for run in runs if run not in fresh], writer, executor, elsewhere=places)
        for run in fresh:
            batch.facts[run.id] = [(self._started(run.id), "user:ada", 0)]
        return batch

    def _started(self, run: RunId) -> ev.RunStarted:
        index = self.runs.index(run)
        options = {**self.limits, **self.scenario.started(index, run)}
        graph = self.scenario.graph(index)
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
        index = self.runs.index(attempt.run)
        report = self.scenario.report(index, order)
        drawn_s = random.choice((0.0, 0.01, 0.3, 5.0, 20.0))
        known_s = self.scenario.runs_for_s(index, order)
        runs_for_s = drawn_s if known_s is None else known_s
        if not self.scenario.wild:
            return Conduct(report, runs_for_s=min(runs_for_s, 5.0) if known_s is None else known_s)
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
        while self.server.down or self.server.refusal is not None:
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
            case "lost-request" | "lost-reply" if act not in ("launch", "cancel", "adopt", "close", "prepare", "release"):
                raise LogConnectionLost("simulation") if amount < 0.7 else LogTimeout("simulation", act, 0.0)
            case "delay":
                await anyio.sleep(amount * 8)
            case "stall":
                process.stalled_until_s = anyio.current_time() + LEASE_S * (0.5 + 3 * amount)
                self._hire()
                await anyio.sleep(process.stalled_until_s - anyio.current_time())
            case _ if fault.kind in REQUESTS:
                self._request(self.runs[int(amount * len(self.runs))], fault.kind, amount)
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
                self._see_what_is_lost_for_good()
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
        payload = encode_report(ev.RunCancelRequested("the simulation cancels it", forced=forced), principal="user:ada")
        with suppress(LogUnavailable):
            self.report(run, payload)

    def _request(self, run: RunId, kind: str, amount: float) -> None:
        """Somebody asks for something, at whatever moment; it need not have an effect."""
        state = self.state_of(run)
        if state.next_task <= 1:
            return
        number = next(iter(state.held), 1 + int(amount * 1_000) % (state.next_task - 1))
        out = state.graph[state.tasks[number].step].out
        asked: dict[str, ev.Fact] = {
            "pause": ev.RunPauseRequested("a look at it"),
            "resume": ev.RunResumeRequested(),
            "retry-task": ev.TaskRetryRequested(number),
            "skip-task": ev.TaskSkipRequested(number, out[0] if len(out) > 1 else ""),
            "prioritise": ev.RunPriorityRequested(int(amount * 10)),
        }
        self.ask(run, asked[kind])

    def ask(self, run: RunId, event: ev.Fact) -> None:
        """Report a request to a run."""
        with suppress(LogUnavailable):
            self.report(run, encode_report(event, principal="user:ada"))

    async def _see_to_what_waits(self) -> None:
        """Somebody looks, now and then, and lets runs that wait go on: nothing else wakes them (I10)."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            for run in self.runs:
                state = self.state_of(run)
                if state.pause is not None:
                    self.ask(run, ev.RunResumeRequested())
                for number in state.held:
                    self._see_to(run, state, state.tasks[number])

    def _see_to(self, run: RunId, state: RunState, task: Task) -> None:
        """Try again, twice; then skip; and where that cannot be, give the run up."""
        out = state.graph[task.step].out
        skip = ev.TaskSkipRequested(task.id, out[0] if len(out) > 1 else "")
        plain = replace(skip, step="")
        if len(task.attempts) - sum(attempt.outcome == "lost" for attempt in task.attempts) <= RETRIES_BY_REQUEST:
            self.ask(run, ev.TaskRetryRequested(task.id))
        elif not refusal(state, plain):
            self.ask(run, plain)
        elif not refusal(state, skip):
            self.ask(run, skip)
        else:
            self.cancelled = True
            self._ask_to_cancel(run, forced=False)

    def state_of(self, run: RunId) -> RunState:
        """What the run's log folds to now; it may be empty."""
        state = RunState()
        for stored in self.log_of(run):
            apply(state, decode(stored.seq, stored.payload))
        return state

    def _away(self, seconds: float) -> None:
        self.server.kill()

        async def return_later() -> None:
            await anyio.sleep(seconds)
            self.server.start()

        self.group.start_soon(return_later)


def first_of(error: BaseException) -> BaseException:
    """An error, or the first one of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
