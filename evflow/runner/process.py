"""A flow's process, as the one who started it sees it: the call that it gets, what it answers and prints, and its end.

The rules:

* A thread of its own reads both of the process's streams and waits for its end, so that it works the same with an event loop,
  without one, and in a notebook; whoever waits is told, nobody looks again and again.
* The process has a session of its own: a terminal's Ctrl-C reaches it through us, once.
* Who asks for its end need not wait: the thread asks (SIGTERM: the run is cancelled, and says so), insists, and kills.
* When `returncode` is there, so is all that the process printed.
"""

import codecs
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from evflow.runner.captured import Captured

if TYPE_CHECKING:
    import asyncio

_ASKED_S: Final = 15.0
"""An attempt gets 10 s to end itself before its run kills it."""
_INSISTED_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.1
"""Where the kernel cannot say that a process ended (no pidfd)."""
_CHUNK_BYTES: Final = 1 << 16
_LAST_TURNS: Final = 100
"""A pipe holds 64 kB, or a megabyte where somebody asked for it."""
_MOST_ANSWER_BYTES: Final = 1 << 24
"""A task that was spun names all its artifacts."""


class FlowProcess:
    """A process that runs a flow's file.

    Args:
        words: The command, made of two descriptors: where the process reads the call, and where it writes its answer.
        call: The call, one line.
        env: Its environment.
        cwd: Its working folder, or None for ours.
        echo: Print what it prints.
    """

    def __init__(
        self, words: Callable[[int, int], Sequence[str]], call: bytes, *, env: Mapping[str, str], cwd: str | None, echo: bool
    ) -> None:
        self.stdout, self.stderr = Captured(), Captured()
        self.returncode: int | None = None
        self.answer: dict[str, Any] | None = None
        self.command: tuple[str, ...] = ()
        self._changed = threading.Condition()
        self._changes = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._deadline: float | None = None
        self._signals: list[signal.Signals] = []
        self._call = memoryview(call)
        self._answered = bytearray()
        call_read, self._call_write = os.pipe()
        self._answer_read, answer_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        try:
            self.command = tuple(words(call_read, answer_write))
            self._popen = subprocess.Popen(
                self.command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(call_read, answer_write), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            for fd in (self._call_write, self._answer_read, self._wake_read, self._wake_write):
                os.close(fd)
            raise
        finally:
            os.close(call_read)
            os.close(answer_write)
        self.pid = self._popen.pid
        self._echo = {name: _Echo(name) for name in ("stdout", "stderr")} if echo else {}
        threading.Thread(target=self._follow, name=f"evflow-runner-{self.pid}", daemon=True).start()

    # --- for who waits --------------------------------------------------------------------------------------

    def settled(self) -> bool:
        """Whether the process has answered, or has ended without."""
        return self.answer is not None or self.returncode is not None

    def over(self) -> bool:
        """Whether it has ended, and all that it printed is here."""
        return self.returncode is not None

    def wait(self, until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Block until something holds of this process; False where the time was over first."""
        with self._changed:
            return self._changed.wait_for(until, timeout_s)

    async def async_wait(self, until: Callable[[], bool]) -> None:
        """The same on an event loop of asyncio; without a bound, which is the caller's to set."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            with self._changed:
                if until():
                    return
                self._waiters.append((loop, future))
            await future

    def end(self, *, by: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process to end; what it takes to make it is done by the thread. Returns at once."""
        with self._changed:
            if self.returncode is not None or self._signals:
                return
            self._signals = [by, by, signal.SIGKILL]
            os.write(self._wake_write, b"!")

    def insist(self) -> None:
        """Do at once what would come next for a process that was asked to end and has not."""
        with self._changed:
            if self.returncode is None:
                os.write(self._wake_write, b"!")

    # --- the thread -----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        popen = self._popen
        assert popen.stdout is not None
        assert popen.stderr is not None
        streams = {"stdout": popen.stdout.fileno(), "stderr": popen.stderr.fileno()}
        with selectors.DefaultSelector() as selector:
            for fd in (*streams.values(), self._call_write, self._answer_read):
                os.set_blocking(fd, False)
            selector.register(self._wake_read, selectors.EVENT_READ, lambda: self._woken())
            selector.register(self._call_write, selectors.EVENT_WRITE, lambda: self._send(selector))
            selector.register(self._answer_read, selectors.EVENT_READ, lambda: self._take_answer(selector))
            for name, fd in streams.items():
                selector.register(fd, selectors.EVENT_READ, _reader(self, selector, name, fd))
            if pidfd is not None:
                selector.register(pidfd, selectors.EVENT_READ, lambda: None)
            while popen.poll() is None:
                self._turn(selector, self._patience_s(pidfd is not None))
                self._escalate()
            for _ in range(_LAST_TURNS):  # what is in the pipes: others may hold them open, and write, for ever
                if not self._turn(selector, 0, but=(pidfd, self._call_write)):
                    break
        self._finish(pidfd)

    def _patience_s(self, is_told: bool) -> float | None:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        return left if is_told else min(_LOOK_EVERY_S, left if left is not None else _LOOK_EVERY_S)

    def _turn(self, selector: selectors.BaseSelector, timeout_s: float | None, but: tuple[int | None, ...] = ()) -> bool:
        """Do what can be done, at most once each; whether there was something."""
        ready = [key for key, _ in selector.select(timeout_s) if key.fd not in but]
        for key in ready:
            key.data()
        return bool(ready)

    def _woken(self) -> None:
        os.read(self._wake_read, 16)
        self._deadline = time.monotonic()

    def _escalate(self) -> None:
        if self._deadline is None or time.monotonic() < self._deadline or not self._signals:
            return
        number = self._signals[0]
        if number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            self._deadline = None
            return
        self._signals.pop(0)
        self._popen.send_signal(number)
        self._deadline = time.monotonic() + (_ASKED_S if len(self._signals) == 2 else _INSISTED_S)

    def _send(self, selector: selectors.BaseSelector) -> None:
        try:
            self._call = self._call[os.write(self._call_write, self._call[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it ended, and its stderr says why
            self._call = memoryview(b"")
        if not self._call:
            selector.unregister(self._call_write)

    def _take_answer(self, selector: selectors.BaseSelector) -> None:
        data = os.read(self._answer_read, _CHUNK_BYTES)
        self._answered += data
        if self._answered.endswith(b"\n"):  # its end, or that of a chunk: others may hold the pipe open for ever
            with contextlib.suppress(ValueError):
                self._tell(answer=json.loads(self._answered))
        if self.answer is not None or not data or len(self._answered) > _MOST_ANSWER_BYTES:
            selector.unregister(self._answer_read)

    def _take(self, selector: selectors.BaseSelector, name: str, fd: int) -> None:
        data = os.read(fd, _CHUNK_BYTES)
        if not data:
            selector.unregister(fd)
            return
        (self.stdout if name == "stdout" else self.stderr).append(data)
        if name in self._echo:
            self._echo[name].write(data)
        self._tell()

    def _finish(self, pidfd: int | None) -> None:
        with self._changed:  # nobody wakes us any more
            code = self._popen.wait()
            for fd in (self._call_write, self._answer_read, self._wake_read, self._wake_write, *([pidfd] if pidfd is not None else [])):
                os.close(fd)
            for stream in (self._popen.stdout, self._popen.stderr):
                assert stream is not None
                stream.close()
            self._tell(returncode=code)

    def _tell(self, **state: Any) -> None:
        with self._changed:
            for name, value in state.items():
                setattr(self, name, value)
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(_settle, future)


def _reader(process: FlowProcess, selector: selectors.BaseSelector, name: str, fd: int) -> Callable[[], None]:
    return lambda: process._take(selector, name, fd)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class _Echo:
    """Writes what comes to a stream of this process, as it is now: a notebook and a test replace them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, data: bytes) -> None:
        text = self._decode(data)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed pipe, a closed stream, no stream at all
            stream = getattr(sys, self._name)
            stream.write(text)
            stream.flush()
