"""Schedulers, their shards and one log's server, in virtual time: the real core, shard loop and writer over simulated parts.

What costs time takes it here, too: each scheduler has one core, which its shards share, and the server has one thread. Bodies of tasks
take their time beside both, on slots; how much their processes cost is no part of this (they run on the machine's other cores).
Runs that are sealed leave, as an archive takes them; each hundredth is verified before, event by event.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from benchmarks.scaling import flows
from benchmarks.scaling.costs import Costs
from benchmarks.scaling.resources import Core
from evflow.core import events as ev
from evflow.core.admit import Capacity, Slots
from evflow.core.codec import decode, encode_report
from evflow.core.ids import AttemptId, RunId
from evflow.log.keys import shared_shard, shared_shards
from evflow.log.protocol import AppendCall, Head, Inbound, Lease
from evflow.log.writer import ShardWriter
from evflow.replay.verify import verify
from evflow.testing.simulated_executor import Fate, Report, SimulatedExecutor, SimulatedMachine
from evflow.testing.simulated_log import SimulatedEventLog, received
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulated_state import State
from evflow.testing.virtual_time import run as run_in_virtual_time
from evflow.worker.spec import AttemptOrder
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.shard import Shard

T = TypeVar("T")
_VERIFIED_OF: int = 100


class RunIsWrong(AssertionError):
    """A simulated run does not hold together, or did not succeed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, and who does it.

    Attributes:
        runs: Runs, one of each of so many flows, all asked for at once.
        tasks: Tasks of each.
        schedulers: How many share the shards.
        slots: Attempts at once on each scheduler's machine.
        body_s: How long a task's body takes.
        costs: What things cost.
    """

    runs: int
    tasks: int
    schedulers: int
    slots: int = 256
    body_s: float = 0.1
    costs: Costs = field(default_factory=Costs)

    @property
    def width(self) -> int:
        """Items of each run's foreach."""
        return self.tasks - flows.FIXED_TASKS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Times are virtual, unless they are the host's.

    Attributes:
        runs: That succeeded.
        tasks: Likewise.
        events: In the runs' logs.
        event_bytes: Their size, without what the server adds.
        appends: Calls of the append script.
        verified: Runs that were replayed and verified.
        took_s: From the first offer to the last seal.
        scheduler_busy: Of the busiest scheduler's core, as a part of the time.
        server_busy: Of the server's thread.
        slots_busy: Of all slots.
        host_s: CPU time of this machine.
    """

    schedulers: int
    runs: int
    tasks: int
    events: int
    event_bytes: int
    appends: int
    verified: int
    took_s: float
    scheduler_busy: float
    server_busy: float
    slots_busy: float
    host_s: float

    @property
    def tasks_per_s(self) -> float:
        """Virtual throughput."""
        return self.tasks / self.took_s


class Server(SimulatedServer):
    """A server with one thread, which never loses anything: no journal is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = Core()
        self.arrivals: dict[str, asyncio.Event] = {}

    def write(self, act: Callable[[State], T], *, frees: bool = False) -> T:
        """See `SimulatedServer.write`; it is never full."""
        del frees
        return act(self.state)

    def report(self, shard: str, run: RunId, payload: bytes) -> None:
        """Put a report into an inbox; whoever waits there hears of it."""
        now_us = self.now_us()
        self.state.report(shard, run, payload, now_us)
        arrival = self.arrivals.pop(shard, None)
        if arrival is not None:
            arrival.set()


class Connection(SimulatedEventLog):
    """A shard's connection, whose calls take the time of the scheduler's core, of the way and of the server's thread."""

    def __init__(self, installation: "Installation", core: Core) -> None:
        super().__init__(installation.server)
        self._installation = installation
        self._server = installation.server
        self._core = core

    async def append(self, lease: Lease, call: AppendCall) -> Head:
        """See `EventLog.append`."""
        costs, count = self._installation.load.costs, len(call.events)
        await self._spend(count * costs.event_us, costs.server_call_us + count * costs.server_event_us)
        head = await super().append(lease, call)
        self._installation.appended(lease.shard, call)
        return head

    async def receive(self, shard: str, after: bytes, timeout_s: float) -> list[Inbound]:
        """See `EventLog.receive`."""
        server, costs = self._server, self._installation.load.costs
        found = received(server, shard, after)
        with anyio.move_on_after(timeout_s):
            while not found and timeout_s > 0:
                await server.arrivals.setdefault(shard, asyncio.Event()).wait()
                found = received(server, shard, after)
        server.thread.take(len(found) * costs.server_entry_us, anyio.current_time())
        await anyio.sleep(costs.way_us / 1e6)
        return found

    async def _io(self, name: str, act: Callable[[], T]) -> T:
        if name != "append":
            costs = self._installation.load.costs
            await self._spend(0.0, costs.server_other_us)
        return await super()._io(name, act)

    async def _spend(self, core_us: float, server_us: float) -> None:
        if core_us:
            await self._core.work(core_us)
        now_s = anyio.current_time()
        await anyio.sleep(self._server.thread.take(server_us, now_s) + self._installation.load.costs.way_us / 1e6 - now_s)


class Scheduler:
    """A scheduler: its core, its machine's slots, its shards."""

    def __init__(self, installation: "Installation", number: int, shards: Sequence[str]) -> None:
        self.core = Core()
        self.name = f"host{number}:{number}:0:{number:04x}"
        self._installation = installation
        self._shards = shards
        self._slots = Slots(Capacity(installation.load.slots))
        self._loops: list[Shard] = []

    async def serve(self) -> None:
        """Own the shards until it is cancelled."""
        async with anyio.create_task_group() as group:
            for shard in self._shards:
                group.start_soon(self._own, shard)

    async def _own(self, name: str) -> None:
        installation = self._installation
        writer = ShardWriter(Connection(installation, self.core), name, self.name)
        executor = SimulatedExecutor(SimulatedMachine(installation.fate, installation.deliver))
        await writer.take()
        observer = RunObserver(name, writer.index_run, None)
        loop = Shard(writer, {"local": executor}, self._slots, observer, host=self)
        self._loops.append(loop)
        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep)
            await loop.serve()

    def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
        """See `RunHost.welcome`."""
        return offered

    def expect(self, run: RunId) -> None:
        """See `RunHost.expect`."""

    def dismiss(self, run: RunId) -> None:
        """See `RunHost.dismiss`."""

    async def refuse(self, run: RunId, why: str) -> None:
        """See `RunHost.refuse`."""

    def has_room(self) -> None:
        """See `RunHost.has_room`."""
        for loop in self._loops:
            loop.look_again()


class Installation:
    """One log and its schedulers.

    Args:
        load: What there is to do.
        progress: Hears now and then how many runs are over, of how many, at which virtual second.
    """

    def __init__(self, load: Load, progress: Callable[[int, int, float], None] = lambda _done, _of, _at_s: None) -> None:
        self.load = load
        self._progress = progress
        self._counts: Counter[str] = Counter()

    def play(self) -> Outcome:
        """Carry all runs out.

        Raises:
            RunIsWrong: One did not succeed, or its log does not hold together.
        """
        began_s = time.process_time()
        took_s = run_in_virtual_time(self._play)
        load, counts = self.load, self._counts
        return Outcome(
            schedulers=load.schedulers,
            runs=counts["runs"],
            tasks=counts["runs"] * load.tasks,
            events=counts["events"],
            event_bytes=counts["bytes"],
            appends=counts["appends"],
            verified=counts["verified"],
            took_s=took_s,
            scheduler_busy=max(one.core.busy_s for one in self._schedulers) / took_s,
            server_busy=self.server.thread.busy_s / took_s,
            slots_busy=counts["runs"] * load.tasks * load.body_s / took_s / (load.slots * load.schedulers),
            host_s=time.process_time() - began_s,
        )

    async def _play(self) -> float:
        self.server = Server()
        self._over = anyio.Event()
        shards = shared_shards()
        self._schedulers = [Scheduler(self, number, shards[number :: self.load.schedulers]) for number in range(self.load.schedulers)]
        for number in range(1, self.load.runs + 1):
            run = flows.named(number)
            self.server.report(shared_shard(run), run, flows.offer(run, max_workers=self.load.tasks))
        async with anyio.create_task_group() as group:
            for scheduler in self._schedulers:
                group.start_soon(scheduler.serve)
            await self._over.wait()
            took_s = anyio.current_time()
            group.cancel_scope.cancel()
        return took_s

    def fate(self, attempt: AttemptId, order: AttemptOrder) -> Fate:
        """What becomes of an attempt."""
        return Fate(runs_s=self.load.body_s, report=flows.report(order, self.load.width))

    async def deliver(self, attempt: AttemptId, report: Report) -> None:
        """Bring an attempt's report to its run's inbox."""
        self.server.report(shared_shard(attempt.run), attempt.run, encode_report(report, principal="worker"))

    def appended(self, shard: str, call: AppendCall) -> None:
        """Count what stands in the log now; a run that is sealed leaves it."""
        counts = self._counts
        counts["appends"] += 1
        counts["events"] += len(call.events)
        counts["bytes"] += sum(map(len, call.events))
        if call.status == "sealed":
            self._leave(shard, call.run)

    def _leave(self, shard: str, run: RunId) -> None:
        log = self.server.state.shard(shard).runs.pop(run)
        counts = self._counts
        if not isinstance(decode(log.head.seq - 1, log.events[-2].payload).event, ev.RunSucceeded):
            raise RunIsWrong(f"{run} did not succeed")
        if counts["runs"] % _VERIFIED_OF == 0:
            verdict = verify(log.events, log.head)
            if verdict.problems or not verdict.sealed:
                raise RunIsWrong(f"{run}: {verdict.problems[:1] or 'not sealed'}")
            counts["verified"] += 1
        counts["runs"] += 1
        if counts["runs"] % max(1, self.load.runs // 100) == 0:
            self._progress(counts["runs"], self.load.runs, anyio.current_time())
        if counts["runs"] == self.load.runs:
            self._over.set()
