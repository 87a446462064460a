"""A machine on which attempts run in virtual time, with several owners over it and books of its own.

`evflow.testing.simulated_executor` is one executor over one machine. Here owners die, sleep and come back, so the machine
says who is told of what, remembers which attempts were given up, and notes what no log can be trusted with: whether two
bodies of one task ever ran at once, and whether one began after a result of its task had been reported.
"""

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from evflow.core.events import AttemptExited, AttemptStarted, AttemptSucceeded
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.testing.faults import Faults
from evflow.testing.simulation.scenario import Report
from evflow.worker.forks import EXIT_TWIN, EXIT_UNREPORTED
from evflow.worker.spec import AttemptOrder
from evflow.worker.supervisor import WHY
from evflow_executors.protocol import Observation, OutputLine

DIES_WITHIN_S: Final = 0.05
"""How long an attempt takes to follow its owner."""
_SIGKILL: Final = 9
_SIGTERM: Final = 15


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one attempt behaves.

    Attributes:
        report: What its body comes to.
        starts_after_s: From the process's beginning to its lock.
        runs_for_s: The body's length.
        reports: How many times the report is sent.
        leaves_after_s: From the report to the exit.
        dies: The signal that ends it in the middle of its body, or None.
        deaf: It ignores SIGTERM.
    """

    report: Report
    starts_after_s: float = 0.01
    runs_for_s: float = 1.0
    reports: int = 1
    leaves_after_s: float = 0.0
    dies: int | None = None
    deaf: bool = False


class Mailing(Protocol):
    """Takes an attempt's report to the log."""

    async def __call__(self, attempt: AttemptId, report: Report) -> bool:
        """Deliver it; False where that took too long."""
        ...


@dataclass(eq=False, slots=True)
class _Process:
    """A process of an attempt."""

    attempt: AttemptId
    conduct: Conduct
    owner: "Hold"
    watchers: "list[Hold]"
    started: AttemptStarted
    in_body: bool = False
    ended_by: int | None = None
    why: str = ""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Books:
    """What no log can be trusted with, of all machines: which bodies ran, and what had been reported when they began.

    Attributes:
        twins: Attempts whose body began beside another one of their task.
        repeated: Attempts whose body began after a result of their task had been reported.
        begun: How often the bodies of each task began.
        reported: The tasks of which a result has been reported.
        bodies: Whose bodies run.
    """

    twins: list[AttemptId] = field(default_factory=list[AttemptId])
    repeated: list[AttemptId] = field(default_factory=list[AttemptId])
    begun: Counter[tuple[RunId, TaskId]] = field(default_factory=Counter[tuple[RunId, TaskId]])
    reported: set[tuple[RunId, TaskId]] = field(default_factory=set[tuple[RunId, TaskId]])
    bodies: dict[tuple[RunId, TaskId], list[AttemptId]] = field(default_factory=dict[tuple[RunId, TaskId], list[AttemptId]])

    def begin(self, attempt: AttemptId) -> None:
        """A body begins."""
        task = attempt.run, attempt.task
        self.begun[task] += 1
        if task in self.reported:
            self.repeated.append(attempt)
        if self.bodies.get(task):
            self.twins.append(attempt)
        self.bodies.setdefault(task, []).append(attempt)

    def end(self, attempt: AttemptId) -> None:
        """A body has ended."""
        self.bodies[attempt.run, attempt.task].remove(attempt)


class Machine:
    """Where attempts run.

    Args:
        group: Runs the processes; outside of every owner's.
        conduct: How an attempt behaves.
        deliver: Takes reports to the log.
        now_us: The machine's clock.
        outlives: Attempts go on when their owner dies, and its successor adopts them.
        books: What all machines have in common.
    """

    def __init__(
        self,
        group: TaskGroup,
        conduct: Callable[[AttemptId, AttemptOrder], Conduct],
        deliver: Mailing,
        now_us: Callable[[], int],
        *,
        outlives: bool,
        books: Books | None = None,
    ) -> None:
        self.books = books or Books()
        self._group = group
        self._conduct = conduct
        self._deliver = deliver
        self._now_us = now_us
        self._outlives = outlives
        self._processes: dict[AttemptId, list[_Process]] = {}
        self._given_up: set[AttemptId] = set()
        self._pid = 100

    @property
    def processes(self) -> list[AttemptId]:
        """The attempts of which a process exists."""
        return list(self._processes)

    def start(self, attempt: AttemptId, order: AttemptOrder, owner: "Hold") -> None:
        """Fork a process."""
        self._pid += 1
        started = AttemptStarted(attempt.task, attempt.attempt, "machine", self._pid, self._now_us())
        process = _Process(attempt, self._conduct(attempt, order), owner, [owner], started)
        self._processes.setdefault(attempt, []).append(process)
        owner.see(Observation(attempt, started))
        self._group.start_soon(self._live, process)

    def kill(self, attempt: AttemptId, signal: int = _SIGKILL, why: str = "") -> None:
        """End the processes of an attempt at once."""
        for process in self._processes.get(attempt, ()):
            _end(process, signal, why)

    def terminate(self, attempt: AttemptId, grace_s: float) -> None:
        """SIGTERM now, SIGKILL after the grace."""
        for process in self._processes.get(attempt, ()):
            if grace_s <= 0 or process.conduct.deaf:
                self._group.start_soon(_end_later, process, grace_s)
            else:
                _end(process, _SIGTERM)

    def orphan(self, owner: "Hold") -> None:
        """The owner died: its attempts follow it, unless they outlive it."""
        for process in self._of(owner):
            self._group.start_soon(_end_later, process, DIES_WITHIN_S)

    async def adopt(self, attempts: Sequence[AttemptId], owner: "Hold") -> list[AttemptId]:
        """Hand over what lives on; end the rest, and see that it never starts."""
        kept: list[AttemptId] = []
        for attempt in attempts:
            living = [process for process in self._processes.get(attempt, ()) if process.in_body and process.ended_by is None]
            if living and self._outlives:
                living[0].owner = owner
                # Who adopts may be a stopped owner that has lost the shard and does not know yet: the one that has it sees
                # the attempt's end all the same, as whoever watches a job by its name does.
                living[0].watchers.append(owner)
                owner.see(Observation(attempt, living[0].started))
                kept.append(attempt)
                continue
            self._given_up.add(attempt)
            for process in list(self._processes.get(attempt, ())):
                _end(process, _SIGKILL)
                await process.gone.wait()
        return kept

    async def leave(self, owner: "Hold") -> None:
        """The owner closes its executor."""
        for process in self._of(owner):
            _end(process, _SIGKILL)
            await process.gone.wait()

    def _of(self, owner: "Hold") -> list[_Process]:
        if self._outlives:
            return []
        return [process for processes in self._processes.values() for process in processes if process.owner is owner]

    async def _live(self, process: _Process) -> None:
        code: int | None = None
        with process.scope:
            code = await self._body(process)
        self._leave_body(process)
        attempt = process.attempt
        self._processes[attempt].remove(process)
        if not self._processes[attempt]:
            del self._processes[attempt]
        process.gone.set()
        signal = process.ended_by if code is None else None
        event = AttemptExited(attempt.task, attempt.attempt, code, signal, process.why if signal else WHY.get(code or 0, ""))
        for watcher in process.watchers:
            watcher.see(Observation(attempt, event))

    async def _body(self, process: _Process) -> int:
        attempt, conduct = process.attempt, process.conduct
        await anyio.sleep(conduct.starts_after_s)
        if attempt in self._given_up or any(other.in_body for other in self._processes[attempt]):
            return EXIT_TWIN
        process.in_body = True
        self.books.begin(attempt)
        if conduct.dies is not None:
            await anyio.sleep(conduct.runs_for_s / 2)
            _end(process, conduct.dies)
        await anyio.sleep(conduct.runs_for_s)
        for _ in range(conduct.reports):
            if not await self._deliver(attempt, conduct.report):
                return EXIT_UNREPORTED
        if isinstance(conduct.report, AttemptSucceeded):
            self.books.reported.add((attempt.run, attempt.task))
        # Whoever has reported runs no code of the flow any more.
        self._leave_body(process)
        await anyio.sleep(conduct.leaves_after_s)
        return 0

    def _leave_body(self, process: _Process) -> None:
        if process.in_body:
            process.in_body = False
            self.books.end(process.attempt)


def _end(process: _Process, signal: int, why: str = "") -> None:
    if process.ended_by is None:
        process.ended_by, process.why = signal, why
        process.scope.cancel()


async def _end_later(process: _Process, after_s: float) -> None:
    await anyio.sleep(after_s)
    _end(process, _SIGKILL)


class Hold:
    """One owner's executor on the machine: `evflow_executors.protocol.Executor`.

    Args:
        machine: The machine.
        faults: What goes wrong around `launch`, `cancel`, `adopt` and `aclose`.
        on_effect: Told of each effect when it happens, with the attempt.
    """

    name = "local"

    def __init__(self, machine: Machine, faults: Faults, on_effect: Callable[[str, AttemptId], None]) -> None:
        self._machine = machine
        self._faults = faults
        self._on_effect = on_effect
        self._launched: set[AttemptId] = set()
        self._running: set[AttemptId] = set()
        self._seen: deque[Observation] = deque()
        self._news = anyio.Event()

    @property
    def running(self) -> frozenset[AttemptId]:
        """See `Executor.running`."""
        return frozenset(self._running)

    def see(self, observation: Observation) -> None:
        """Something happened to a process of ours."""
        self._seen.append(observation)
        self._news.set()
        if isinstance(observation.event, AttemptExited):
            self._running.discard(observation.attempt)

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """See `Executor.launch`."""

        async def act() -> None:
            if attempt not in self._launched:
                self._launched.add(attempt)
                self._running.add(attempt)
                self._on_effect("launch", attempt)
                self._machine.start(attempt, order, self)

        await self._io("launch", act)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """See `Executor.cancel`."""

        async def act() -> None:
            self._on_effect("cancel", attempt)
            self._machine.terminate(attempt, grace_s)

        await self._io("cancel", act)

    async def watch(self) -> AsyncIterator[Observation | OutputLine]:
        """See `Executor.watch`."""
        while True:
            while self._seen:
                yield self._seen.popleft()
            self._news = anyio.Event()
            await self._news.wait()  # ends with its owner

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """See `Executor.adopt`."""
        kept: list[AttemptId] = []

        async def act() -> None:
            kept.extend(await self._machine.adopt(attempts, self))

        await self._io("adopt", act)
        self._launched.update(kept)
        self._running.update(kept)
        return kept

    async def aclose(self) -> None:
        """See `Executor.aclose`."""
        await self._io("close", lambda: self._machine.leave(self))

    async def _io(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        await self._faults.before(name)
        await act()
        await self._faults.after(name)
