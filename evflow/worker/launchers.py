"""How the process of an attempt comes into being, where the flow is not loaded yet or must not be forked."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from evflow.worker.forks import ForkLauncher, Runner, Started, settle_memory
from evflow.worker.interpreters import Interpreter
from evflow.worker.method import StartMethod, choose
from evflow.worker.spec import RunContext

if TYPE_CHECKING:
    from evflow.worker.reused import Reused

_NOT_LOADED: Final = "the flow could not be loaded"


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
        try:
            self._launcher.prepare(context)
        except (Exception, SystemExit):  # noqa: BLE001 - as in `_make`: its class does not take the run's decorators
            self._launcher.drop_spare()
            self._launcher = SpawnLauncher(StartMethod("spawn", _NOT_LOADED))
        self.method = self._launcher.method

    def expect(self, context: RunContext, order: bytes) -> None:
        """Have ready what an attempt and its siblings need, where they are forked."""
        if self._launcher is not None:
            self._launcher.expect(context, order)

    def launch(self, context: RunContext, order: bytes) -> Started:
        """Fork or spawn, as the flow allows."""
        if self._launcher is None:
            self.prepare(context)
        assert self._launcher is not None
        return self._launcher.launch(context, order)

    def launch_reused(self, context: RunContext) -> "Reused":
        """A process for one attempt after the other, as the flow allows."""
        if self._launcher is None:
            self.prepare(context)
        assert self._launcher is not None
        return self._launcher.launch_reused(context)

    def make_spare(self, context: RunContext) -> None:
        """Have a process ready for the next order, where the flow allows."""
        if self._launcher is not None:
            self._launcher.make_spare(context)

    def drop_spare(self) -> None:
        """Let it go."""
        if self._launcher is not None:
            self._launcher.drop_spare()

    def forget(self, context: RunContext) -> None:
        """Drop what was made for a run."""
        if self._launcher is not None:
            self._launcher.forget(context)

    def _make(self, context: RunContext) -> "ForkLauncher | SpawnLauncher":
        if self._asked == "spawn":
            return SpawnLauncher(choose("spawn"))
        try:
            runner = self._load(context)
        except (Exception, SystemExit):  # noqa: BLE001 - the attempts will raise it again, each in its own report
            return SpawnLauncher(StartMethod("spawn", _NOT_LOADED))
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

    def expect(self, context: RunContext, order: bytes) -> None:
        """Nothing: a fresh interpreter has nothing of this one."""

    def launch(self, context: RunContext, order: bytes) -> Started:
        """Start an interpreter that reads its order from a file that has no name."""
        return self._start(context, order, {})

    def launch_reused(self, context: RunContext) -> "Reused":
        """Start an interpreter that serves one attempt after the other."""
        from evflow.worker.reused import Pipes, Reused

        pipes = Pipes.new()
        try:
            started = self._start(context, b"", {4: pipes.orders, 5: pipes.done}, "--orders", "4", "--done", "5")
        except OSError:
            pipes.close(pipes.give, pipes.hear)
            raise
        finally:
            pipes.close(pipes.orders, pipes.done)
        return Reused(started, pipes, context)

    def _start(self, context: RunContext, order: bytes, more: Mapping[int, int], *arguments: str) -> Started:
        import tempfile

        packed = context.pack()
        stdout, out_write = os.pipe()
        stderr, err_write = os.pipe()
        try:
            with tempfile.TemporaryFile() as file:
                file.write(len(packed).to_bytes(4, "big") + packed + order)
                file.flush()
                file.seek(0)
                of = {0: None, 1: out_write, 2: err_write, 3: file.fileno(), **more}
                pid = start("evflow.worker.entry", of, "--fd", "3", "--owner", str(os.getpid()), *arguments)
        except OSError:
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        return Started(pid, stdout, stderr)

    def make_spare(self, context: RunContext) -> None:
        """Nothing: each attempt is a fresh interpreter."""

    def drop_spare(self) -> None:
        """Nothing."""

    def forget(self, context: RunContext) -> None:
        """Nothing."""


def start(module: str, descriptors_of: Mapping[int, int | None], *arguments: str, of: Interpreter | None = None) -> int:
    """Start a fresh interpreter that runs a module of ours; return its pid.

    It gets a session of its own by `lead_session`, since not every system can give it one. Nothing waits: unlike
    `subprocess`, this can be called from an event loop.

    Args:
        module: The module.
        descriptors_of: What each of its descriptors is here; None for /dev/null.
        arguments: For the module.
        of: Another interpreter than this process's.

    Raises:
        OSError: The system gave no process.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # First out of the way of each other, then to their places; what is not named here is closed by the exec.
    above = max(descriptors_of, default=0) + 1  # and no higher: few may be allowed
    moved = {number: fcntl.fcntl(null if own is None else own, fcntl.F_DUPFD_CLOEXEC, above) for number, own in descriptors_of.items()}
    try:
        python = sys.executable if of is None else of.python
        return os.posix_spawn(
            python,
            [python, *interpreter(module, *arguments)[1:]],
            os.environ if of is None else {**os.environ, **dict(of.variables)},
            file_actions=[(os.POSIX_SPAWN_DUP2, own, number) for number, own in moved.items()],
            setsigmask=(signal.SIGINT,),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE),
        )
    finally:
        for descriptor in (null, *moved.values()):
            os.close(descriptor)


def lead_session() -> None:
    """Have this process lead a session and group of its own, if it does not yet, and be deaf to a Ctrl-C from before.

    Until here it was in the terminal's group, where a Ctrl-C is the foreground's to hear. Whoever starts it holds SIGINT back.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what waits is dropped
    signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command of a fresh interpreter like this one that runs a module of ours, without the current folder on its path."""
    import subprocess

    flags: list[str] = vars(subprocess)["_args_from_interpreter_flags"]()  # what multiprocessing passes on, too
    return [sys.executable, *flags, *([] if "-P" in flags else ["-P"]), "-m", module, *arguments]
