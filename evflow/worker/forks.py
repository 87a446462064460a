"""Attempts as forks of a process that has the flow loaded.

Two costs stand between an order and the first line of a body: the fork itself, and the pages that a child copies when
it first touches them (a thousand, some 4 ms of a virtual machine). Where attempts come one after the other both are paid
ahead: a *spare* is forked while nothing else is to be done, runs through what attempts do around a body, and waits for
an order. It outlives its run, and is told of another one together with the order: so the first attempt of a run that
follows an earlier one begins without a fork, too. Where many attempts run at once there is no idle processor, and none is made.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol

from evflow.core.values import compile_all
from evflow.store import preload
from evflow.worker import descriptors, locks, parentage, stdio
from evflow.worker.method import StartMethod
from evflow.worker.spec import RunContext

if TYPE_CHECKING:
    from evflow.worker.reused import Reused

# What the functions of `signal` call. Theirs turn numbers into enumerations, by code that a child would otherwise never
# run: 60 pages that it copies, a quarter of a millisecond.
set_handler: Final[Callable[[int, Any], Any]] = vars(signal)["_signal"].signal
set_mask: Final[Callable[[int, Iterable[int]], Any]] = vars(signal)["_signal"].pthread_sigmask
_SIGCHLD, _SIGTERM, _SIGINT, _SIG_DFL, _SIG_SETMASK = map(
    int, (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIG_DFL, signal.SIG_SETMASK)
)
BLOCK, UNBLOCK = int(signal.SIG_BLOCK), int(signal.SIG_UNBLOCK)

MAX_SPARE_ORDER_BYTES: Final = 32 * 1024
"""What a pipe takes without waiting, with the context before it; a longer order (a join's) gets a fork of its own."""
_SIZE_BYTES: Final = 4
"""Of the context's size, which comes first."""
REHEARSE_AFTER: Final = 32
"""So many attempts of a flow let expect many more: then the fork server rehearses, which takes as long as two of them do."""
REHEARSALS: Final = 12
"""After so many calls Python 3.11 and later have adapted code to what it does."""
EXIT_DEFECT: Final = 70
"""The exit code of an attempt that our own code broke (sysexits.h: EX_SOFTWARE)."""
EXIT_UNREPORTED: Final = 174
"""... that could not report its end in time."""
EXIT_TWIN: Final = 175
"""... whose lock another process holds."""


class Runner(Protocol):
    """Runs one attempt of a loaded flow in the process that calls it.

    Attributes:
        used_up: The process that ran an attempt must run no other one: it failed, or has done what programs do at their end.
    """

    used_up: bool

    def prepare(self, context: RunContext) -> None:
        """Do ahead of the forks what all attempts of a run would do; what fails is left to them."""
        ...

    def expect(self, context: RunContext, order: bytes) -> None:
        """Do ahead of an attempt's fork what its siblings would do as well; what fails is left to them."""
        ...

    def __call__(self, context: RunContext, order: bytes, /) -> int:
        """Run the attempt whose order these bytes are; return its process's exit code."""
        ...

    def rehearse(self, context: RunContext, *, whole: bool = False) -> None:
        """Do what attempts do around a body, without any effect, and send a report to nobody where it is the whole; never raises."""
        ...

    def forget(self, context: RunContext) -> None:
        """Drop what was made for a run: no order of it will come."""
        ...

    def rest(self) -> None:
        """The process goes on to another attempt: have ready for it what this one leaves."""
        ...


class Started(NamedTuple):
    """A process that runs an attempt, and the reading ends of its output. Whoever gets it closes them."""

    pid: int
    stdout: int
    stderr: int


class _Spare(NamedTuple):
    context: RunContext
    started: Started
    orders: int


class ForkLauncher:
    """Forks this process.

    Before the first fork everything that an attempt needs is imported, and the collector is told to leave what
    exists alone, so that a child touches (and copies) as little memory as possible.
    """

    def __init__(self, runner: Runner, kept: Sequence[int] = ()) -> None:
        self.method = StartMethod("fork", "")
        self._runner = runner
        self._kept = kept
        self._pid = os.getpid()
        self._spare: _Spare | None = None
        self._launches = 0

    def prepare(self, context: RunContext) -> None:
        """Have the flow ready for a run."""
        preload(context.store_url)
        self._runner.prepare(context)

    def expect(self, context: RunContext, order: bytes) -> None:
        """Have ready what an attempt and its siblings need."""
        self._runner.expect(context, order)

    def launch(self, context: RunContext, order: bytes) -> Started:
        """Fork, or give the order to the spare."""
        self._launches += 1
        if self._launches == REHEARSE_AFTER:
            for _ in range(REHEARSALS):
                self._runner.rehearse(context, whole=True)
        spare, self._spare = self._spare, None
        if spare is not None:
            told = _told(None if spare.context is context else context, order)
            taken = len(told) <= MAX_SPARE_ORDER_BYTES and _hand_over(spare.orders, told)
            os.close(spare.orders)
            if taken:
                return spare.started
            _close(spare.started)  # it has read an end-of-file, and leaves
        return self._fork(lambda: self._runner(context, order))

    def make_spare(self, context: RunContext) -> None:
        """Fork a spare, unless there is one, which knows this run from the start."""
        if self._spare is not None:
            return
        reading, orders = os.pipe()
        try:
            started = self._fork(lambda: self._wait(context, reading), reading)
        except OSError:
            os.close(orders)
            return  # it is a convenience
        finally:
            os.close(reading)
        self._spare = _Spare(context, started, orders)

    def drop_spare(self) -> None:
        """Let the spare go; it is a child that exits on its own."""
        if self._spare is not None:
            os.close(self._spare.orders)
            _close(self._spare.started)
            self._spare = None

    def forget(self, context: RunContext) -> None:
        """Drop what was made for a run; the spare is for the next one."""
        self._runner.forget(context)

    def launch_reused(self, context: RunContext) -> "Reused":
        """Fork a process that serves one attempt after the other."""
        from evflow.worker.reused import Pipes, Reused, serve

        pipes = Pipes.new()
        try:
            started = self._fork(lambda: serve(self._runner, context, pipes.orders, pipes.done), pipes.orders, pipes.done)
        except OSError:
            pipes.close(pipes.give, pipes.hear)
            raise
        finally:
            pipes.close(pipes.orders, pipes.done)
        return Reused(started, pipes, context)

    def _wait(self, context: RunContext, orders: int) -> int:
        """In the spare: wait for an order; an end-of-file says that none will come."""
        self._runner.rehearse(context)
        told = bytearray()
        while part := os.read(orders, MAX_SPARE_ORDER_BYTES + 1):
            told += part
        os.close(orders)
        if not told:
            return 0
        begin = _SIZE_BYTES + int.from_bytes(told[:_SIZE_BYTES], "big")
        if begin > _SIZE_BYTES:
            self._runner.forget(context)
            context = RunContext.unpack(bytes(told[_SIZE_BYTES:begin]))
            preload(context.store_url)
        self._runner.prepare(context)
        return self._runner(context, bytes(told[begin:]))

    def _fork(self, act: Callable[[], int], *own: int) -> Started:
        stdout, out_write = os.pipe()
        stderr, err_write = os.pipe()
        try:
            set_mask(BLOCK, (_SIGTERM, _SIGCHLD))
            pid = os.fork()
            if pid == 0:
                self._become(act, out_write, err_write, own)
        except OSError:
            _close(Started(0, stdout, stderr))
            raise
        finally:
            set_mask(UNBLOCK, (_SIGTERM, _SIGCHLD))
            os.close(out_write)
            os.close(err_write)
        return Started(pid, stdout, stderr)

    def _become(self, act: Callable[[], int], stdout: int, stderr: int, own: tuple[int, ...]) -> NoReturn:
        """In the child: never returns, whatever happens."""
        code = EXIT_DEFECT
        try:
            os.setsid()
            parentage.die_with(self._pid, signal.SIGKILL)
            default_signals()
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            descriptors.close_all_but(sorted({*self._kept, *own}) if own else self._kept)
            locks.forget_held()
            code = act()
        except parentage.Orphaned:
            code = 0
        except BaseException as error:  # noqa: BLE001 - shown in the attempt's own log; the exit code says the rest
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            stdio.flush()
            os._exit(code)


def _told(context: RunContext | None, order: bytes) -> bytes:
    """What a spare reads: the context, unless it is the one that it was made with, and the order."""
    packed = b"" if context is None else context.pack()
    return len(packed).to_bytes(_SIZE_BYTES, "big") + packed + order


def _hand_over(descriptor: int, told: bytes) -> bool:
    try:
        return os.write(descriptor, told) == len(told)
    except OSError:  # it died
        return False


def _close(started: Started) -> None:
    for descriptor in (started.stdout, started.stderr):
        with suppress(OSError):
            os.close(descriptor)


def default_signals() -> None:
    """In a child: signals act as in any new Python program, and those that were held back at the fork arrive."""
    signal.set_wakeup_fd(-1)
    set_handler(_SIGCHLD, _SIG_DFL)
    set_handler(_SIGTERM, _SIG_DFL)
    set_handler(_SIGINT, signal.default_int_handler)
    set_mask(_SIG_SETMASK, ())


def settle_memory() -> None:
    """Before forks: nothing left to compile, no collection, and no look of later collections at what exists now."""
    compile_all()
    gc.disable()
    gc.freeze()
