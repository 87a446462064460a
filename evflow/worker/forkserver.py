"""The fork server: the process that supervises the attempts of a run, and how it is started.

Two ways. A foreground run forks it from itself, after the flow was imported and before any thread or loop, so that
the flow's imports are paid for once (`ForkServer.fork_here`). Where that one has died, or the flow must not be
forked, it is a fresh interpreter (`ForkServer.start`), which loads the flow's file at the first context.

The handle is a socket and a pid; whoever holds it may use it from a thread or a loop (`evflow_executors.local`).
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from evflow.clock import monotonic_s
from evflow.imports import framework_view
from evflow.store import quiet
from evflow.worker.method import StartMethod, choose

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec
    from evflow.worker.forks import Runner
    from evflow.worker.interpreters import Interpreter
    from evflow.worker.spec import RunContext

SOCKET_BUFFER_BYTES: Final = 1024 * 1024
EXIT_DEFECT: Final = 70


class ForkServer:
    """A running fork server.

    Attributes:
        pid: Its process, a child of this one.
        socket: Where frames go and come (`evflow.worker.frames`); the owner closes it with `close`.
        method: How it starts attempts, as far as that was known when it was started.
        loaded: How it starts attempts, once it has the flow; None before. No attempt has begun then.
    """

    def __init__(self, pid: int, connection: socket.socket, method: StartMethod, *, loaded: StartMethod | None = None) -> None:
        self.pid = pid
        self.socket = connection
        self.method = method
        self.loaded = loaded
        self.exit_code: int | None = None

    @classmethod
    def fork_here(
        cls,
        flow: "type[FlowSpec] | None",
        *,
        asked: str = "auto",
        home: str = "",
        make_runner: "Callable[[], Runner] | None" = None,
    ) -> "ForkServer":
        """Fork the fork server from this process, which has the flow loaded.

        Call it from the main thread, before this process starts a loop or a thread of ours. Where the flow must not
        be forked a fresh interpreter is started instead; `method.why` then says why (`method.explain` in a line).

        Args:
            flow: The flow's class, decorators of `--with` included.
            asked: `auto`, `fork` or `spawn`.
            home: EVFLOW_HOME: files open below it are ours and do not stay open in attempts.
            make_runner: Called in the new process in place of what makes it ready for the flow.

        Raises:
            StartMethodUnknown: `asked` is none of these.
        """
        quiet()
        method = choose(asked)
        if method.method == "spawn":
            return cls.start("spawn", why=method.why)
        ours, theirs = _socketpair()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        owner = os.getpid()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # a Ctrl-C is the foreground's: see `lead_session`
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                _become(theirs, make_runner or partial(_prepare, flow), owner, home)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        return cls(pid, ours, method, loaded=method)

    @classmethod
    def start(cls, asked: str = "auto", *, why: str = "", folder: str = "", of: "Interpreter | None" = None) -> "ForkServer":
        """Start the fork server as a fresh interpreter, which takes some 50 ms and then loads the flow.

        Call it from a thread that lives as long as this process: the kernel tells the fork server when it ends.

        Args:
            asked: `auto`, `fork` or `spawn`.
            why: The reason for `spawn`, for people.
            folder: Its working folder and so that of its attempts; empty for this process's.
            of: The interpreter of an environment; None for this process's.

        Raises:
            OSError: The system gave no process.
        """
        from evflow.worker.launchers import start

        ours, theirs = _socketpair()
        with theirs:
            arguments = ("--fd", "3", "--owner", str(os.getpid()), "--method", asked, "--folder", folder)
            try:
                pid = start("evflow.worker.forkserver", {0: None, 1: None, 2: 2, 3: theirs.fileno()}, *arguments, of=of)
            except OSError:
                ours.close()
                raise
        return cls(pid, ours, StartMethod("spawn" if asked == "spawn" else "fork", why))

    def poll(self) -> bool:
        """Whether its process has ended; it is waited for then."""
        if self.exit_code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    @contextmanager
    def watched(self) -> Generator[int | None]:
        """A descriptor that is readable once its process has ended; None where the system has no such thing (it is Linux's)."""
        try:
            end = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # OSError: it has been waited for
            yield None
            return
        try:
            yield end
        finally:
            os.close(end)

    def kill(self) -> None:
        """End it at once. Its attempts die with it."""
        if not self.poll():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the socket: a living fork server takes that for its owner's death."""
        self.socket.close()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Close it and wait for its end; past the time it is killed. Blocking; for owners without a loop."""
        import time

        self.close()
        deadline = monotonic_s() + timeout_s
        while not self.poll():
            if monotonic_s() >= deadline:
                self.kill()
            time.sleep(0.002)


def _prepare(flow: "type[FlowSpec] | None") -> "Runner":
    from evflow.worker.attempt import prepare

    assert flow is not None
    return prepare(flow)


def _socketpair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    ours.setblocking(False)
    return ours, theirs


def _become(control: socket.socket, make_runner: "Callable[[], Runner]", owner: int, home: str) -> NoReturn:
    """In the fork: be the fork server until the end, and leave without finalising what is the foreground's."""
    code = EXIT_DEFECT
    try:
        from evflow.worker import descriptors, parentage, stdio
        from evflow.worker.forks import ForkLauncher, settle_memory
        from evflow.worker.launchers import lead_session
        from evflow.worker.supervisor import Supervisor

        lead_session()
        stdio.forget_stdin()
        kept = descriptors.keep_only({control.fileno()}, home)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        stdio.open_line_buffered()
        parentage.warm()
        runner = make_runner()
        settle_memory()
        Supervisor(control, ForkLauncher(runner, kept), owner).run()
        code = 0
    except BaseException as error:  # noqa: BLE001 - shown on the terminal; the executor starts another one
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def main(arguments: list[str]) -> None:
    """Serve as a fresh interpreter: `--fd N --owner PID --method auto|fork|spawn --folder PATH`."""
    from evflow.worker import parentage, stdio
    from evflow.worker.forks import Runner
    from evflow.worker.launchers import LazyForkLauncher, lead_session
    from evflow.worker.supervisor import Supervisor

    lead_session()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    control = socket.socket(fileno=int(options["--fd"]))
    os.set_inheritable(control.fileno(), False)
    if options["--folder"]:
        with suppress(OSError):  # the flow's file is gone, too, and each attempt says so
            os.chdir(options["--folder"])

    def load(context: "RunContext") -> Runner:
        from evflow.worker import attempt

        return attempt.load(context)

    stdio.open_line_buffered()
    parentage.warm()
    Supervisor(control, LazyForkLauncher(load, options["--method"]), int(options["--owner"])).run()
    os._exit(0)


if __name__ == "__main__":
    # `evflow.worker.forkserver` and not `__main__`: the flow's file becomes `__main__`.
    from evflow.worker.forkserver import main as serve

    with framework_view():
        serve(sys.argv[1:])
