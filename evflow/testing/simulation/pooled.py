"""A simulated shard whose steps run in a pool: the real executor of the pool and real workers, over a simulated queue, on machines of their own.

What a worker's process may do: crash, and take its attempts with it; be suspended, while they go on; be cut off from the log; be told to
drain, or to stop. Its bodies run on a machine of its own, where no lock of another one is seen; the books of all machines are one.

After each write to the queue it is looked at (`_look`), and when the runs are over nothing may be left in it (`_close`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from evflow.core.events import AttemptExited
from evflow.core.graph import LOCAL, POOL_PREFIX
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.log.errors import LogConnectionLost, LogOutOfMemory, LogUnavailable
from evflow.log.keys import pool_keys
from evflow.log.link import Link
from evflow.log.pools import GROUP
from evflow.log.writer import ShardWriter
from evflow.testing.faults import Crash, Faults
from evflow.testing.simulated_state import State
from evflow.testing.simulated_transport import URL, connector
from evflow.testing.simulation.machine import Hold, Machine
from evflow.testing.simulation.scenario import Crew, Fault, Report
from evflow.testing.simulation.watched import SHARD, Violation
from evflow.testing.simulation.world import Process, World, first_of
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.pool import PoolExecutor
from evflow_executors.pool_worker import MARGIN_S, PoolWorker, WorkerJob
from evflow_executors.protocol import Executor, Observation

POOL: Final = "crew"
CREW_KINDS: Final = {"crash-worker": 4, "stall-worker": 3, "cut-worker": 3, "drain-worker": 2, "stop-worker": 1, "full": 2}
"""What happens to workers, besides what happens to owners: how often it is chosen. `full` is the server."""
EMPTY_WITHIN_S: Final = 120
"""When all runs are over: the patience of dead workers, the end of waits, of delays and of reports that wait."""
MAX_MEMBERS: Final = 100


class Member(Process):
    """A worker's process, on a machine of its own.

    Attributes:
        cut_until_s: It does not reach the log.
    """

    worker: PoolWorker
    machine: Machine

    def __init__(self, world: "PoolWorld", number: int) -> None:
        super().__init__(world, number)
        self.cut_until_s = 0.0

    @property
    def is_cut(self) -> bool:
        """Whether it does not reach the log."""
        return anyio.current_time() < self.cut_until_s


class Line:
    """What goes wrong with a worker's connections, besides what goes wrong with it."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def before(self, act: str) -> None:
        """See `Faults`."""
        await self._member.before(act)
        self._check()

    async def after(self, act: str) -> None:
        """See `Faults`."""
        await self._member.after(act)
        self._check()

    def _check(self) -> None:
        if self._member.is_cut:
            raise LogConnectionLost("simulation", "the worker is cut off")


class Bench(Hold):
    """What runs a worker's attempts: `evflow_executors.pool_worker.Workshop`.

    Args:
        machine: As for `Hold`, like the next ones.
        faults: The same.
        on_effect: The same.
        on_begin: Told of a launch that begins, which may take its time.
    """

    def __init__(
        self,
        machine: Machine,
        faults: Faults,
        on_effect: Callable[[str, AttemptId], None],
        on_begin: Callable[[AttemptId], None],
    ) -> None:
        super().__init__(machine, faults, on_effect)
        self._on_begin = on_begin

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """See `Executor.launch`."""
        self._on_begin(attempt)
        await super().launch(attempt, order)

    def see(self, observation: Observation) -> None:
        """An attempt that has ended may be launched again: a fail-over that lost its claim and its report brings its order back."""
        super().see(observation)
        if isinstance(observation.event, AttemptExited):
            self._launched.discard(observation.attempt)

    async def prepare(self, context: RunContext) -> None:
        """See `Workshop`."""
        await self._io("prepare", anyio.lowlevel.checkpoint)

    async def release(self, run: RunId) -> None:
        """See `Workshop`."""
        await self._io("release", anyio.lowlevel.checkpoint)


class SimulatedWorker(PoolWorker):
    """A worker that needs no thread, and whose names repeat with the seed."""

    def __init__(self, job: WorkerJob, executor: Bench, link: Link) -> None:
        super().__init__(job, executor, link)
        self._names = 0

    def _new_name(self) -> str:
        self._names += 1
        return f"{self._job.label}:{self._names}"

    async def _settle(self, context: RunContext) -> RunContext:
        return context


class PoolWorld(World):
    """One scenario with a pool, played."""

    def _open(self) -> None:
        assert self.scenario.crew is not None
        self.crew: Crew = self.scenario.crew
        self.members: list[Member] = []
        self._engaged = 0
        self.server.look = self._look
        for _ in range(self.crew.workers):
            self._engage()

    async def _close(self) -> None:
        """I10: no order, no claim and no slot is left."""
        self._plan.clear()
        for _ in range(EMPTY_WITHIN_S):
            if self._left():
                await anyio.sleep(1.0)
        if self._left():
            raise Violation(f"I10: the runs are over, and the pool has {self._left()}")

    def _left(self) -> str:
        keys, held = pool_keys(POOL), self.server.state.keys
        stream = held.streams.get(keys.queue.encode())
        group = stream.groups.get(GROUP.encode()) if stream is not None else None
        # Claims of the dead whose owners ended before they looked go after a day.
        living = held.scores.get(keys.workers.encode(), {})
        found: dict[str, object] = {
            "orders": sorted(held.hashes.get(keys.waiting.encode(), {})),
            "claims": [one for one in sorted(held.hashes.get(keys.claims.encode(), {}).items()) if one[1].partition(b" ")[2] in living],
            "entries": list(stream.entries) if stream is not None else [],
            "entries that were read": dict(group.pending) if group is not None else {},
            "slots": {member.name: member.worker.running for member in self.members if member.worker.running},
        }
        return ", ".join(f"{what}: {left}" for what, left in found.items() if left)

    def _look(self, state: State) -> None:
        """After each write: an order waits once, is there and has a place; who claimed has no more than its slots (I11)."""
        keys, held = pool_keys(POOL), state.keys
        waiting, claims = held.hashes.get(keys.waiting.encode(), {}), held.hashes.get(keys.claims.encode(), {})
        stream = held.streams.get(keys.queue.encode())
        entries = {b"%d-%d" % entry: values[1] for entry, values in stream.entries.items()} if stream is not None else {}
        for attempt, entry in waiting.items():
            if entries.get(entry) != attempt:
                raise Violation(f"I10: {attempt.decode()} waits, and has no entry in the queue")
            if attempt in claims:
                raise Violation(f"I3: {attempt.decode()} waits, and is claimed by {claims[attempt].decode()}")
        if held.scores.get(keys.ranks.encode(), {}).keys() != waiting.keys():
            raise Violation("I10: what waits and what has a place in the order are not the same")
        for worker, count in Counter(claim.partition(b" ")[2] for claim in claims.values()).items():
            if count > self.crew.slots and not self.lost:  # a fail-over brings claims back
                raise Violation(f"I11: {worker.decode()} has claimed {count} attempts, and has {self.crew.slots} slots")

    # --- owners --------------------------------------------------------------------------------------------

    def _places(self, process: Process, writer: ShardWriter, executor: Hold) -> Mapping[str, Executor]:
        self._link = Link(URL, connector=connector(self.server, process))
        pool = PoolExecutor(POOL, self._link, SHARD, lambda: writer.epoch, self._context_of)
        return {LOCAL: executor, POOL_PREFIX + POOL: pool}

    async def _leave(self, places: Mapping[str, Executor]) -> None:
        await places[POOL_PREFIX + POOL].aclose()

    def _context_of(self, run: RunId) -> RunContext:
        return RunContext(run.flow, run.number, "/code/flow.py", SHARD, URL, "sim://", b"p" * 32, b"k" * 32)

    # --- workers -------------------------------------------------------------------------------------------

    def _engage(self) -> None:
        self._engaged += 1
        if self._engaged > MAX_MEMBERS:
            raise Violation(f"I10: {MAX_MEMBERS} workers came and went")
        member = Member(self, 1_000 + self._engaged)
        member.name = f"box-{self._engaged}"

        async def deliver(attempt: AttemptId, report: Report) -> bool:
            await anyio.sleep(max(0.0, member.cut_until_s - anyio.current_time()))
            return await self._deliver(attempt, report)

        member.machine = Machine(self.group, self._conduct, deliver, self._clock_us, outlives=False, books=self.machine.books)
        bench = Bench(
            member.machine, member, lambda act, attempt: self._on_launch(member, act, attempt), partial(self._see_suspended, member)
        )
        link = Link(URL, connector=connector(self.server, Line(member)))
        job = WorkerJob(POOL, self.crew.slots, member.name, Path("/"), self.crew.patience_s)
        member.worker = SimulatedWorker(job, bench, link)
        self.members.append(member)
        self.group.start_soon(self._work_as, member, bench)

    async def _work_as(self, member: Member, bench: Bench) -> None:
        try:
            await member.worker.serve()
        except BaseExceptionGroup as errors:
            _, rest = errors.split((Crash, LogUnavailable))
            if rest is not None:
                raise
            self.trace.append(f"{member.name} ends: {first_of(errors)!r}")
        except (Crash, LogUnavailable) as error:
            self.trace.append(f"{member.name} ends: {error!r}")
        member.machine.orphan(bench)
        self.members.remove(member)
        await anyio.sleep(self.random.choice((0.1, 2.0, 8.0)))
        self._engage()

    def _on_launch(self, member: Member, act: str, attempt: AttemptId) -> None:
        if act == "launch":  # a worker ends attempts of its own accord
            self._on_effect(member, act, attempt)

    # --- faults --------------------------------------------------------------------------------------------

    async def _strike(self, fault: Fault, process: Process, place: str) -> None:
        if fault.kind == "stall" and isinstance(process, Member):
            self._stall(process, fault.amount)
            await anyio.sleep(process.stalled_until_s - anyio.current_time())
        elif fault.kind in CREW_KINDS:
            self._on_crew(fault.kind, fault.amount)
        else:
            await super()._strike(fault, process, place)

    def _outside(self, kind: str, amount: float) -> None:
        if kind == "regress":  # claims are waited for at no level: a known flaw
            self.excused |= {task for member in self.members for task in _tasks_on(member)}
        with suppress(LogOutOfMemory):
            super()._outside(kind, amount)

    def _on_crew(self, kind: str, amount: float) -> None:
        if kind == "full":
            self._fill_up(0.5 + 6 * amount)
            return
        if not self.members:
            return
        member = self.members[int(amount * 1_000) % len(self.members)]
        match kind:
            case "crash-worker":
                member.dead = True  # what it does next ends it; it beats each second
            case "stall-worker":
                self._stall(member, amount)
            case "cut-worker":
                member.cut_until_s = anyio.current_time() + 2 * self.crew.patience_s * amount
            case "drain-worker":
                member.worker.drain()
            case _:
                self.group.start_soon(self._stop, member)

    async def _stop(self, member: Member) -> None:
        with suppress(Crash):
            await member.worker.stop()

    def _stall(self, member: Member, amount: float) -> None:
        member.stalled_until_s = anyio.current_time() + 3 * self.crew.patience_s * amount
        if self._sleeps_long(member):
            self.excused |= _tasks_on(member)

    def _see_suspended(self, member: Member, attempt: AttemptId) -> None:
        """A worker was suspended when it had been given a claim, and before it heard of that."""
        if self._sleeps_long(member):
            self.excused.add((attempt.run, attempt.task))

    def _sleeps_long(self, member: Member) -> bool:
        """Whether a worker is suspended for so long that it counts as dead: its attempts go on, and others begin, which is a known flaw."""
        return member.stalled_until_s - anyio.current_time() > self.crew.patience_s - MARGIN_S - 1.5

    def _fill_up(self, seconds: float) -> None:
        self.server.refusal = LogOutOfMemory("simulation", "OOM command not allowed when used memory > 'maxmemory'.")

        async def empty_later() -> None:
            await anyio.sleep(seconds)
            self.server.refusal = None

        self.group.start_soon(empty_later)


def _tasks_on(member: Member) -> set[tuple[RunId, TaskId]]:
    """The tasks that run there, or are about to: a worker that is suspended goes on at the instant at which it stopped."""
    return {(attempt.run, attempt.task) for attempt in (*member.machine.processes, *member.worker.attempts)}
