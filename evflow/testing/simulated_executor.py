"""A machine that runs attempts in virtual time, and an executor over it.

What becomes of an attempt is a `Fate`, chosen by a function of its name and order: when it starts, how long it runs,
what it reports, how it ends. The machine outlives its executors, as real processes may outlive their owner, so that a
test can crash an owner and let another one take over.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from signal import SIGKILL, SIGTERM

import anyio
from anyio.lowlevel import checkpoint

from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted, AttemptSucceeded
from evflow.core.ids import AttemptId
from evflow.worker.spec import AttemptOrder
from evflow_executors.protocol import Observation, OutputLine

Report = AttemptSucceeded | AttemptFailed
Seen = Observation | OutputLine


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an attempt. Times are seconds of the loop's clock.

    Attributes:
        starts_after_s: From the launch to its process.
        runs_s: From its process to its end.
        lines: What it prints to stdout, at its start.
        report: What it reports right before its end; None for an end without a report.
        exit_code: Its exit code, unless a signal ends it.
        signal: The signal that ends it.
        why: What the executor knows besides; with `never-started` there is no process.
        stubborn: SIGTERM does not end it.
    """

    starts_after_s: float = 0.0
    runs_s: float = 0.0
    lines: tuple[str, ...] = ()
    report: Report | None = None
    exit_code: int | None = 0
    signal: int | None = None
    why: str = ""
    stubborn: bool = False


@dataclass(slots=True)
class _Process:
    order: AttemptOrder
    fate: Fate
    started_us: int | None = None


Choose = Callable[[AttemptId, AttemptOrder], Fate]
Deliver = Callable[[AttemptId, Report], Awaitable[None]]


async def _nowhere(_attempt: AttemptId, _report: Report) -> None:
    await checkpoint()


@dataclass
class SimulatedMachine:
    """Runs attempts.

    Attributes:
        choose: The fate of each attempt.
        deliver: Brings a report to the log.
        survive: Attempts outlive the executor that launched them (a worker pool), or die with it (`local`).
        launches: Every launch that was asked for, in order.
    """

    choose: Choose
    deliver: Deliver = _nowhere
    survive: bool = False
    launches: list[AttemptId] = field(default_factory=list[AttemptId])
    _processes: dict[AttemptId, _Process] = field(default_factory=dict[AttemptId, _Process])
    _agenda: list[tuple[float, int, AttemptId, str, int]] = field(default_factory=list[tuple[float, int, AttemptId, str, int]])
    _count: int = 0
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def running(self) -> frozenset[AttemptId]:
        """The attempts that were launched and have not ended."""
        return frozenset(self._processes)

    def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Begin an attempt; one that exists goes on as it is."""
        if attempt in self._processes:
            return
        self.launches.append(attempt)
        process = _Process(order, self.choose(attempt, order))
        self._processes[attempt] = process
        kind = "end" if process.fate.why == "never-started" else "start"
        self._plan(process.fate.starts_after_s, attempt, kind)

    def signal(self, attempt: AttemptId, number: int, after_s: float = 0.0) -> None:
        """Signal an attempt, if it still runs then."""
        self._plan(after_s, attempt, "signal", number)

    def show_again(self, attempt: AttemptId) -> None:
        """Let the start of an attempt be seen once more, if it has started."""
        self._plan(0.0, attempt, "seen-again")

    def end(self, attempt: AttemptId) -> None:
        """Remove an attempt without a word."""
        self._processes.pop(attempt, None)

    def owner_died(self) -> None:
        """What the death of the executor's process does to what it started."""
        if not self.survive:
            self._processes.clear()

    async def next(self) -> list[Seen]:
        """Wait for the next thing that can be seen."""
        while True:
            now = anyio.current_time()
            if self._agenda and self._agenda[0][0] <= now:
                _, _, attempt, kind, number = heappop(self._agenda)
                seen = await self._happen(attempt, kind, number)
                if seen:
                    return seen
                continue
            self._changed = anyio.Event()
            with anyio.move_on_at(self._agenda[0][0] if self._agenda else float("inf")):
                await self._changed.wait()  # without a deadline where nothing is planned: a launch or `wake` ends it
            if not self._agenda:
                return []

    def wake(self) -> None:
        """End a wait for something to happen."""
        self._changed.set()

    async def _happen(self, attempt: AttemptId, kind: str, number: int) -> list[Seen]:
        process = self._processes.get(attempt)
        if process is None:
            return []
        fate = process.fate
        if kind == "start":
            self._plan(fate.runs_s, attempt, "end")
            process.started_us = at_us = round(anyio.current_time() * 1e6)
            return [_start(attempt, at_us), *(OutputLine(attempt, "stdout", at_us, line, _pid(attempt)) for line in fate.lines)]
        if kind == "seen-again":
            return [_start(attempt, process.started_us)] if process.started_us is not None else []
        if kind == "signal":
            if number == SIGTERM and fate.stubborn:
                return []
            return [self._exit(attempt, None, number, "")]
        if fate.report is not None:
            await self.deliver(attempt, fate.report)
        if fate.signal is not None:
            return [self._exit(attempt, None, fate.signal, fate.why)]
        return [self._exit(attempt, None if fate.why == "never-started" else fate.exit_code, None, fate.why)]

    def _exit(self, attempt: AttemptId, exit_code: int | None, number: int | None, why: str) -> Observation:
        self._processes.pop(attempt, None)
        return Observation(attempt, AttemptExited(attempt.task, attempt.attempt, exit_code, number, why))

    def _plan(self, after_s: float, attempt: AttemptId, kind: str, number: int = 0) -> None:
        self._count += 1
        heappush(self._agenda, (anyio.current_time() + after_s, self._count, attempt, kind, number))
        self._changed.set()


def _pid(attempt: AttemptId) -> int:
    return 1000 + attempt.task


def _start(attempt: AttemptId, at_us: int) -> Observation:
    return Observation(attempt, AttemptStarted(attempt.task, attempt.attempt, "simulated", _pid(attempt), at_us))


class SimulatedExecutor:
    """`evflow_executors.protocol.Executor` over a simulated machine."""

    def __init__(self, machine: SimulatedMachine, name: str = "local") -> None:
        self.name = name
        self._machine = machine
        self._watched = set[AttemptId]()
        self._closed = False

    @property
    def running(self) -> frozenset[AttemptId]:
        """See `Executor.running`."""
        return frozenset(self._watched & self._machine.running)

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """See `Executor.launch`."""
        await checkpoint()
        self._watched.add(attempt)
        self._machine.launch(attempt, order)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """See `Executor.cancel`."""
        await checkpoint()
        if attempt in self._machine.running:
            self._machine.signal(attempt, SIGTERM)
            self._machine.signal(attempt, SIGKILL, grace_s)

    async def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """See `Executor.watch`."""
        while not self._closed or self._watched & self._machine.running:
            for seen in await self._machine.next():
                if seen.attempt in self._watched:
                    yield seen

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """See `Executor.adopt`."""
        await checkpoint()
        if not self._machine.survive:
            for attempt in attempts:
                self._machine.end(attempt)
            return ()
        kept = [attempt for attempt in attempts if attempt in self._machine.running]
        self._watched.update(kept)
        for attempt in kept:
            self._machine.show_again(attempt)
        return kept

    async def aclose(self) -> None:
        """See `Executor.aclose`."""
        self._closed = True
        with suppress(KeyError):
            for attempt in self._watched & self._machine.running:
                self._machine.signal(attempt, SIGKILL)
        self._machine.wake()
        await checkpoint()
