"""The two ways in which the process of an attempt comes into being: a fork, or a fresh interpreter."""

import fcntl
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from evflow.worker import descriptors, locks, parentage, stdio
from evflow.worker.method import StartMethod, choose
from evflow.worker.spec import RunContext

# What the functions of `signal` call. Theirs turn numbers into enumerations, by code that a child would otherwise never
# run: 60 pages that it copies, a quarter of a millisecond.
set_handler: Final[Callable[[int, Any], Any]] = vars(signal)["_signal"].signal
set_mask: Final[Callable[[int, Iterable[int]], Any]] = vars(signal)["_signal"].pthread_sigmask
_SIGCHLD, _SIGTERM, _SIGINT, _SIG_DFL, _SIG_SETMASK = map(
    int, (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIG_DFL, signal.SIG_SETMASK)
)
BLOCK, UNBLOCK = int(signal.SIG_BLOCK), int(signal.SIG_UNBLOCK)

EXIT_DEFECT: Final = 70
"""The exit code of an attempt that our own code broke (sysexits.h: EX_SOFTWARE)."""


class Runner(Protocol):
    """Runs one attempt of a loaded flow in the process that calls it."""

    def prepare(self, context: RunContext) -> None:
        """Do ahead of the forks what all attempts of a run would do; what fails is left to them."""
        ...

    def __call__(self, context: RunContext, order: bytes, /) -> int:
        """Run the attempt whose order these bytes are; return its process's exit code."""
        ...


class ForkLauncher:
    """Forks this process, which has the flow loaded.

    Before the first fork everything that an attempt needs is imported, and the collector is told to leave what
    exists alone, so that a child touches (and copies) as little memory as possible.
    """

    def __init__(self, runner: Runner, kept: Sequence[int] = ()) -> None:
        self.method = StartMethod("fork", "")
        self._runner = runner
        self._kept = kept
        self._pid = os.getpid()

    def prepare(self, context: RunContext) -> None:
        """Have the flow ready for a run."""
        self._runner.prepare(context)

    def launch(self, context: RunContext, order: bytes, stdout: int, stderr: int) -> int:
        """Fork."""
        pid = os.fork()
        if pid == 0:
            self._become(context, order, stdout, stderr)
        return pid

    def _become(self, context: RunContext, order: bytes, stdout: int, stderr: int) -> NoReturn:
        """In the child: never returns, whatever happens."""
        code = EXIT_DEFECT
        try:
            os.setsid()
            parentage.die_with(self._pid, signal.SIGKILL)
            default_signals()
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            descriptors.close_all_but(self._kept)
            locks.forget_held()
            code = self._runner(context, order)
        except parentage.Orphaned:
            code = 0
        except BaseException as error:  # noqa: BLE001 - shown in the attempt's own log; the exit code says the rest
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            stdio.flush()
            os._exit(code)


class LazyForkLauncher:
    """Loads the flow at the first context, in an interpreter that does not have it yet, then forks.

    A flow that cannot be loaded, or must not be forked, is left to fresh interpreters: each attempt then meets the
    mistake itself and reports it.
    """

    def __init__(self, load: Callable[[RunContext], Runner], asked: str) -> None:
        self._load = load
        self._asked = asked
        self._launcher: ForkLauncher | SpawnLauncher | None = None
        self.method = StartMethod("spawn" if asked == "spawn" else "fork", "")

    def prepare(self, context: RunContext) -> None:
        """Load the flow, if it is not there yet, and have it ready for a run."""
        if self._launcher is None:
            self._launcher = self._make(context)
            self.method = self._launcher.method
        self._launcher.prepare(context)

    def launch(self, context: RunContext, order: bytes, stdout: int, stderr: int) -> int:
        """Fork or spawn, as the flow allows."""
        if self._launcher is None:
            self.prepare(context)
        assert self._launcher is not None
        return self._launcher.launch(context, order, stdout, stderr)

    def _make(self, context: RunContext) -> "ForkLauncher | SpawnLauncher":
        if self._asked == "spawn":
            return SpawnLauncher(choose("spawn"))
        try:
            runner = self._load(context)
        except (Exception, SystemExit):  # noqa: BLE001 - the attempts will raise it again, each in its own report
            return SpawnLauncher(StartMethod("spawn", "the flow could not be loaded"))
        method = choose(self._asked)
        if method.method == "spawn":
            return SpawnLauncher(method)
        settle_memory()
        return ForkLauncher(runner)


class SpawnLauncher:
    """Starts a fresh interpreter for each attempt (`evflow.worker.entry`)."""

    def __init__(self, method: StartMethod) -> None:
        self.method = method

    def prepare(self, context: RunContext) -> None:
        """Nothing: each attempt loads the flow."""

    def launch(self, context: RunContext, order: bytes, stdout: int, stderr: int) -> int:
        """Start an interpreter that reads its order from a file that has no name."""
        import tempfile

        packed = context.pack()
        with tempfile.TemporaryFile() as file:
            file.write(len(packed).to_bytes(4, "big") + packed + order)
            file.flush()
            file.seek(0)
            return start("evflow.worker.entry", {0: None, 1: stdout, 2: stderr, 3: file.fileno()}, "--fd", "3", "--owner", str(os.getpid()))


def start(module: str, descriptors_of: Mapping[int, int | None], *arguments: str) -> int:
    """Start a fresh interpreter that runs a module of ours; return its pid.

    It gets a session of its own by `lead_session`, since not every system can give it one. Nothing waits: unlike
    `subprocess`, this can be called from an event loop.

    Args:
        module: The module.
        descriptors_of: What each of its descriptors is here; None for /dev/null.
        arguments: For the module.

    Raises:
        OSError: The system gave no process.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # First out of the way of each other, then to their places; what is not named here is closed by the exec.
    moved = {number: fcntl.fcntl(null if own is None else own, fcntl.F_DUPFD_CLOEXEC, 64) for number, own in descriptors_of.items()}
    try:
        return os.posix_spawn(
            sys.executable,
            interpreter(module, *arguments),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, own, number) for number, own in moved.items()],
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE),
        )
    finally:
        for descriptor in (null, *moved.values()):
            os.close(descriptor)


def lead_session() -> None:
    """Have this process lead a session and group of its own, if it does not yet."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command of a fresh interpreter like this one that runs a module of ours, without the current folder on its path."""
    import subprocess

    flags: list[str] = vars(subprocess)["_args_from_interpreter_flags"]()  # what multiprocessing passes on, too
    return [sys.executable, *flags, *([] if "-P" in flags else ["-P"]), "-m", module, *arguments]


def default_signals() -> None:
    """In a child: signals act as in any new Python program, and those that were held back at the fork arrive."""
    signal.set_wakeup_fd(-1)
    set_handler(_SIGCHLD, _SIG_DFL)
    set_handler(_SIGTERM, _SIG_DFL)
    set_handler(_SIGINT, signal.default_int_handler)
    set_mask(_SIG_SETMASK, ())


def settle_memory() -> None:
    """Before forks: no collection, and no look of later collections at what exists now."""
    gc.disable()
    gc.freeze()
