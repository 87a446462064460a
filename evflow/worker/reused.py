"""Processes that serve several attempts, one after the other, of steps that allow it (`@pool(reuse=)`).

Such a process reads orders from a pipe and says on another one when an attempt is over; until its supervisor has heard that,
it begins no other one. What a new process would have found is put back in between (`evflow.worker.belongings`). Where that
cannot be, or the attempt did not simply succeed, the process ends like any other attempt's: an exit is never the wrong answer.
So what can be seen of an attempt from outside is the same in both cases, but for the process's number.

Two halves: `serve` runs in the process, `ReusedProcesses` in the supervisor.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from evflow.worker import locks, parentage, stdio
from evflow.worker.forks import EXIT_DEFECT, MAX_SPARE_ORDER_BYTES, Runner, Started
from evflow.worker.spec import RunContext

IDLE_S: Final = 60.0
"""How long a process waits for an order that does not come; then it ends, and its memory is free."""
MOST_ORDER_BYTES: Final = MAX_SPARE_ORDER_BYTES // 2
"""A longer order (a join's) gets a process of its own."""
_DONE: Final = b"."
_SIZE_BYTES: Final = 4
_HEAD_BYTES: Final = 2 * _SIZE_BYTES
"""The sizes of the context, 0 where it is the one before, and of the order."""


class ReusedLauncher(Protocol):
    """How such a process comes into being."""

    def launch_reused(self, context: RunContext) -> "Reused":
        """Start a process that serves orders until no more can come.

        Raises:
            OSError: The system gave no process.
        """
        ...


class Pipes(NamedTuple):
    """The two pipes between a supervisor and a process: the ends of the process, then those of the supervisor."""

    orders: int
    done: int
    give: int
    hear: int

    @classmethod
    def new(cls) -> "Pipes":
        """Open them.

        Raises:
            OSError: There are no descriptors left.
        """
        orders, give = os.pipe()
        try:
            hear, done = os.pipe()
        except OSError:
            os.close(orders)
            os.close(give)
            raise
        os.set_blocking(hear, False)
        return cls(orders, done, give, hear)

    def close(self, *ends: int) -> None:
        """Close some of the ends."""
        for end in ends:
            os.close(end)


# --- in the process --------------------------------------------------------------------------------------


def serve(runner: Runner, context: RunContext, orders: int, done: int) -> int:
    """Run attempts until no order can come; return the process's exit code.

    Args:
        runner: Runs them.
        context: The run that the runner was prepared for.
        orders: Where orders come from.
        done: Where it is said that an attempt is over and another one can come.
    """
    from evflow.worker.belongings import Belongings

    parentage.adopt_orphans()  # whatever an attempt leaves behind is a child of this process, and seen
    before = Belongings((orders, done))
    served = 0
    while (told := _read(orders)) is not None:
        packed, order = told
        if packed:
            runner.forget(context)
            context = RunContext.unpack(packed)
            runner.prepare(context)
        if served:
            _draw_anew()
        code = runner(context, order)
        if code or runner.used_up:
            return code
        stdio.flush()
        runner.rest()
        locks.release(context.lock_file)
        if not before.put_back():
            return code
        served += 1
        try:
            os.write(done, _DONE)
        except OSError:  # its supervisor is gone
            return EXIT_DEFECT
    return 0


def _read(orders: int) -> tuple[bytes, bytes] | None:
    head = _read_all(orders, _HEAD_BYTES)
    if head is None:
        return None
    context_bytes, order_bytes = int.from_bytes(head[:_SIZE_BYTES], "big"), int.from_bytes(head[_SIZE_BYTES:], "big")
    told = _read_all(orders, context_bytes + order_bytes)
    return None if told is None else (told[:context_bytes], told[context_bytes:])


def _read_all(descriptor: int, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = os.read(descriptor, size - len(found))
        if not part:
            return None
        found += part
    return bytes(found)


def _draw_anew() -> None:
    """`random` seeds itself in each fork, and here there is none; numpy and torch are seeded for each attempt."""
    seed = getattr(sys.modules.get("random"), "seed", None)
    if seed is not None:
        with suppress(TypeError):  # a module of the user's with that name
            seed()


# --- in the supervisor -----------------------------------------------------------------------------------


class Reused:
    """Such a process, as its supervisor has it.

    Attributes:
        started: It, and the reading ends of its output.
        served: Attempts that it was given.
        idle_since_s: Since when it waits for an order.
    """

    __slots__ = ("_context", "_give", "_hear", "idle_since_s", "served", "started")

    def __init__(self, started: Started, pipes: Pipes, context: RunContext) -> None:
        self.started = started
        self._give = pipes.give
        self._hear = pipes.hear
        self._context = context
        self.served = 0
        self.idle_since_s = 0.0

    @property
    def hear(self) -> int:
        """Readable when an attempt is over, and at the process's end."""
        return self._hear

    def knows(self, context: RunContext) -> bool:
        """Whether its last attempt was of this run."""
        return self._context is context

    def give(self, context: RunContext, order: bytes) -> bool:
        """Give it an attempt; False if it is dead, or the order too long to be given without waiting."""
        packed = b"" if self._context is context else context.pack()
        told = len(packed).to_bytes(_SIZE_BYTES, "big") + len(order).to_bytes(_SIZE_BYTES, "big") + packed + order
        if len(told) > MAX_SPARE_ORDER_BYTES:
            return False
        try:
            if os.write(self._give, told) != len(told):
                return False
        except OSError:
            return False
        self._context = context
        self.served += 1
        return True

    def has_finished(self) -> bool:
        """Whether it said that its attempt is over; once for each."""
        try:
            return os.read(self._hear, 1) == _DONE
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it: it ends on its own as soon as it has nothing to do."""
        for descriptor in (self._give, self._hear, self.started.stdout, self.started.stderr):
            os.close(descriptor)


class ReusedProcesses:
    """The processes of a supervisor that wait for an order."""

    def __init__(self, launcher: ReusedLauncher, clock: Callable[[], float]) -> None:
        self._launcher = launcher
        self._clock = clock
        self._idle: list[Reused] = []  # who waits longest is first

    @property
    def idle(self) -> Sequence[Reused]:
        """Those that wait."""
        return self._idle

    def take(self, context: RunContext, order: bytes) -> Reused | None:
        """Give an attempt to a process that waits, else to a new one.

        Returns:
            The process; None where the order is too long for one.

        Raises:
            OSError: The system gave no process.
        """
        if len(order) > MOST_ORDER_BYTES:
            return None
        while self._idle:
            found = next((one for one in reversed(self._idle) if one.knows(context)), self._idle[-1])
            self._idle.remove(found)
            if found.give(context, order):
                return found
            found.close()
        made = self._launcher.launch_reused(context)
        if made.give(context, order):
            return made
        made.close()
        return None

    def put_back(self, process: Reused, most: int) -> None:
        """Its attempt is over: it waits for the next one, or ends if it has had `most`."""
        if process.served >= most:
            process.close()
        else:
            process.idle_since_s = self._clock()
            self._idle.append(process)

    def ended(self, pid: int) -> None:
        """A process has ended; none of these, mostly."""
        for process in self._idle:
            if process.started.pid == pid:
                self._idle.remove(process)
                process.close()
                return

    def pause_s(self) -> float | None:
        """Until the first of them has waited too long."""
        return max(0.0, self._idle[0].idle_since_s + IDLE_S - self._clock()) if self._idle else None

    def drop_overdue(self) -> None:
        """Let those go that have waited too long."""
        while self._idle and self._idle[0].idle_since_s + IDLE_S <= self._clock():
            self._idle.pop(0).close()

    def drop_all(self) -> None:
        """Let all go."""
        while self._idle:
            self._idle.pop().close()
