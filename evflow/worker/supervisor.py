"""The supervisor of attempts: one thread, one `select`, no event loop, no user code.

It starts an attempt for each order, captures what it prints, ends it when told so, and says what happened
(`evflow.worker.frames` is the language). It is a process of its own because it must be able to fork cheaply and
safely: nothing here starts a thread, opens a connection or holds an artifact.

What holds:

* An attempt of a task starts only after the exit of that task's former attempt was seen: never a twin.
* After an attempt's exit its group is killed before its number is given back, so that no number is mistaken.
* Its output was all in the pipes when it exited; they are emptied and closed then, so that a child of it that holds
  their other ends keeps nobody waiting.
* When its owner is gone (end-of-file, or the kernel's signal), everything is killed, whatever session it is in.
* What the owner does not read is bounded: the pipes are left alone until it does.
* A process that serves several attempts (`evflow.worker.reused`) has one at a time, and the end of each is said as an exit with 0.
"""

import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Container
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from evflow.clock import monotonic_s, now_us
from evflow.flow import dialect
from evflow.masking import ANNOUNCEMENT, Masker, taken
from evflow.store.logs import DEFAULT_LIMIT_MB, LogWriter, Stream
from evflow.worker import frames, leftovers, parentage
from evflow.worker.forks import EXIT_TWIN, EXIT_UNREPORTED, Started
from evflow.worker.method import StartMethod
from evflow.worker.reused import Reused, ReusedProcesses
from evflow.worker.spec import RunContext

READ_BYTES: Final = 64 * 1024
"""A pipe's usual size."""
MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is passed on in parts."""
MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""More than this unread by the owner stops the reading of pipes."""
MAX_DRAIN_BYTES: Final = 1024 * 1024
"""What may be in a pipe at its writer's exit: Linux gives a pipe at most this much."""
LEAVE_WITHIN_S: Final = 5.0
"""How long the last frames may take to be read by the owner."""

WHY: Final = {EXIT_UNREPORTED: "unreported", EXIT_TWIN: "attempt-runs"}
"""Exit codes of ours that say what became of an attempt: no fault of its task."""

Name = tuple[str, int, int]
"""Run, task, attempt."""


class _Order(NamedTuple):
    """What the owner ordered: an attempt, and how many attempts its process may serve."""

    name: Name
    order: bytes
    reuse: int = 0


class Launcher(Protocol):
    """How the process of an attempt comes into being."""

    method: StartMethod

    def prepare(self, context: RunContext) -> None:
        """Do what can be done before the first order of a run; never raises for a flow that cannot be loaded."""
        ...

    def expect(self, context: RunContext, order: bytes) -> None:
        """Do what an attempt and its siblings would each do by themselves, ahead of them; never raises."""
        ...

    def launch(self, context: RunContext, order: bytes) -> Started:
        """Start a process that leads a session of its own.

        Raises:
            OSError: The system gave no process.
        """
        ...

    def launch_reused(self, context: RunContext) -> Reused:
        """Start a process, as `launch` does, that serves one attempt after the other."""
        ...

    def make_spare(self, context: RunContext) -> None:
        """Have a process ready for the next order of a run, where that saves time; called when there is time."""
        ...

    def drop_spare(self) -> None:
        """Let the process go that is ready for an order that will not come."""
        ...

    def forget(self, context: RunContext) -> None:
        """Drop what was kept for a run: no order of it will come."""
        ...


class _Attempt:
    """A running attempt; of a process that serves `most` of them, where it says that it is over by a word."""

    __slots__ = ("cancelled", "captures", "kill_at", "log", "masker", "most", "name", "pid", "process")

    def __init__(self, name: Name, pid: int, log: LogWriter, process: Reused | None, most: int) -> None:
        self.name = name
        self.pid = pid
        self.process = process
        self.most = most
        self.log = log
        self.captures: list[_Capture] = []
        self.masker: Masker | None = None  # until it has secrets
        self.cancelled = False
        self.kill_at: float | None = None


class _Capture:
    """One stream of an attempt: the reading end of its pipe, and the line that is not complete yet."""

    __slots__ = ("attempt", "descriptor", "partial", "stream")

    def __init__(self, attempt: _Attempt, stream: Stream, descriptor: int) -> None:
        self.attempt = attempt
        self.stream: Stream = stream
        self.descriptor = descriptor
        self.partial = b""


class Supervisor:
    """Runs until its owner says so or is gone."""

    def __init__(self, control: socket.socket, launcher: Launcher, owner: int) -> None:
        self._control = control
        self._launcher = launcher
        self._owner = owner
        self._reader = frames.FrameReader()
        self._contexts: dict[str, RunContext] = {}
        self._running: dict[Name, _Attempt] = {}
        self._by_pid: dict[int, _Attempt] = {}
        self._current: dict[tuple[str, int], _Attempt] = {}
        self._waiting: dict[tuple[str, int], deque[_Order]] = {}
        self._reused = ReusedProcesses(launcher, monotonic_s)
        self._unsent = bytearray()
        self._latest: RunContext | None = None
        self._forgotten: set[str] = set()
        self._loaded = False
        self._leaving = False
        self._orphaned = False
        self._sweep: set[str] = set()

    def run(self) -> None:
        """Serve until the end. Nothing of what was started is left then."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._heed_signals()
        try:
            parentage.die_with(self._owner, signal.SIGTERM)
            parentage.adopt_orphans()
            self._control.setblocking(False)
            self._selector.register(self._control, selectors.EVENT_READ, None)
            self._selector.register(self._wake_read, selectors.EVENT_READ, None)
            self._say(frames.READY, os.getpid(), *self._launcher.method)
            self._serve()
        except parentage.Orphaned:
            pass
        finally:
            self._end_everything()

    def _heed_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        signal.signal(signal.SIGTERM, self._orphan)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    # --- the loop ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._orphaned:
            self._flush()
            if self._leaving and not self._running:
                self._flush_all()
                return
            events = self._selector.select(0)
            if not events:
                self._be_ready()
                events = self._selector.select(self._pause_s())
            for key, mask in events:
                if isinstance(key.data, _Capture):
                    self._capture(key.data)
                elif key.data is not None:
                    self._hear_end(key.data)
                elif key.fd == self._wake_read:
                    with suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    self._reap()
                elif mask & selectors.EVENT_READ:
                    self._receive()
            self._kill_overdue()
            self._sweep_cancelled()
            self._drop_forgotten()
            self._reused.drop_overdue()

    def _be_ready(self) -> None:
        """Use the time: where attempts come one after the other, the next one's process can be there already."""
        if self._latest is not None and len(self._running) <= 1 and not self._leaving:
            self._launcher.make_spare(self._latest)

    def _pause_s(self) -> float | None:
        """Until the first attempt's grace is over, or a process has waited too long; for ever where there is neither: every event wakes."""
        deadlines = [attempt.kill_at for attempt in self._running.values() if attempt.kill_at is not None]
        pause_s = max(0.0, min(deadlines) - monotonic_s()) if deadlines else None
        idle_s = self._reused.pause_s()
        return pause_s if idle_s is None else idle_s if pause_s is None else min(pause_s, idle_s)

    def _receive(self) -> None:
        try:
            data = self._control.recv(frames.READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._orphaned = True
            return
        orders: list[_Order] = []
        for kind, *values in self._reader.feed(data):
            if kind == frames.LAUNCH:
                run, task, number, order, *reuse = values
                orders.append(_Order((run, task, number), order, *reuse))
                continue
            self._take(orders)
            if kind == frames.CANCEL:
                self._cancel(*values)
            elif kind == frames.CONTEXT:
                self._meet(values[0], RunContext.unpack(values[1]))
            elif kind == frames.FORGET:
                self._forgotten.add(values[0])
                self._drop_forgotten()
            elif kind == frames.SHUTDOWN:
                self._leaving = True
                self._launcher.drop_spare()
                self._reused.drop_all()
                for name in list(self._running):
                    self._cancel(*name, values[0])
                for run, task in list(self._waiting):
                    self._drop_waiting(run, task)
        self._take(orders)

    # --- runs --------------------------------------------------------------------------------------------

    def _meet(self, run: str, context: RunContext) -> None:
        self._forgotten.discard(run)
        self._latest = self._contexts[run] = context
        if self._loaded:
            self._launcher.prepare(context)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # An owner may die during a load that never ends. There is no attempt yet.
        self._launcher.prepare(context)
        self._heed_signals()  # whatever the flow's modules made of them
        self._loaded = True
        self._say(frames.LOADED, *self._launcher.method)

    def _drop_forgotten(self) -> None:
        """Drop what is known of runs that are over, as soon as none of their attempts is here."""
        if not self._forgotten:
            return
        here = {run for run, _ in (*self._current, *self._waiting)}
        for run in self._forgotten - here:
            context = self._contexts.pop(run, None)
            if context is not None:
                self._launcher.forget(context)
            if self._latest is context:
                self._latest = None
        self._forgotten &= here

    # --- starting ----------------------------------------------------------------------------------------

    def _take(self, orders: list[_Order]) -> None:
        """Start what was ordered together, and strike it off: first all processes, then what is noted of them.

        Behind a fork each page that this process writes to is copied first. What starting one notes are some hundred pages,
        which so are copied once for all of them.
        """
        due: dict[tuple[str, int], _Order] = {}
        for one in orders:
            place = one.name[:2]
            if one.name in self._running or (place in due and due[place].name == one.name):
                continue
            if place in self._current or place in due:
                self._waiting.setdefault(place, deque()).append(one)
            elif self._leaving:
                self._say(frames.EXITED, *one.name, None, None, "never-started")
            else:
                due[place] = one
        orders.clear()
        for one in due.values():
            if one.reuse <= 1:
                self._launcher.expect(self._contexts[one.name[0]], one.order)
        begun = [(one, self._begin(one)) for one in due.values()]
        for one, process in begun:
            self._note(one, process)

    def _begin(self, one: _Order) -> Reused | Started | OSError:
        """Have a process for an attempt, or what kept it from being started."""
        context = self._latest = self._contexts[one.name[0]]
        try:
            reused = self._reused.take(context, one.order) if one.reuse > 1 else None
            return self._launcher.launch(context, one.order) if reused is None else reused
        except OSError as error:
            return error

    def _note(self, one: _Order, begun: Reused | Started | OSError) -> None:
        """Watch a process that was started, and say so."""
        run, task, number = one.name
        if isinstance(begun, OSError):
            self._say(frames.EXITED, *one.name, None, None, f"never-started: {begun.strerror or begun}")
            self._start_waiting(run, task)
            return
        process = None if isinstance(begun, Started) else begun
        started = begun if isinstance(begun, Started) else begun.started
        context = self._contexts[run]
        log = LogWriter(context.log_folder, task, number, int(context.options.get("max_log_size_mb", DEFAULT_LIMIT_MB) * 1_000_000))
        attempt = _Attempt(one.name, started.pid, log, process, one.reuse)
        self._running[one.name] = self._by_pid[started.pid] = self._current[run, task] = attempt
        self._watch(attempt, "stdout", started.stdout)
        self._watch(attempt, "stderr", started.stderr)
        if process is not None:
            self._selector.register(process.hear, selectors.EVENT_READ, attempt)
        self._say(frames.STARTED, *one.name, started.pid, now_us())

    def _start_waiting(self, run: str, task: int) -> None:
        """Start the next attempt of a task of which none is here any more."""
        waiting = self._waiting.get((run, task))
        if waiting:
            one = waiting.popleft()
            if not waiting:
                del self._waiting[run, task]
            self._note(one, self._begin(one))

    def _watch(self, attempt: _Attempt, stream: Stream, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        capture = _Capture(attempt, stream, descriptor)
        attempt.captures.append(capture)
        if not self._is_full():
            self._selector.register(descriptor, selectors.EVENT_READ, capture)

    # --- output ------------------------------------------------------------------------------------------

    def _capture(self, capture: _Capture) -> int:
        """Read once, if the pipe is still open; return how much was there."""
        if capture.descriptor < 0:
            return 0
        try:
            data = os.read(capture.descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._close_capture(capture)
            return 0
        seen = capture.partial + data
        if ANNOUNCEMENT in seen:
            capture.attempt.masker = capture.attempt.masker or Masker()
            seen = taken(seen, capture.attempt.masker)
        *lines, capture.partial = seen.split(b"\n")
        if lines:
            self._pass_on(capture, lines, ends=True)
        if len(capture.partial) > MAX_LINE_BYTES and ANNOUNCEMENT not in capture.partial:
            self._pass_on_partial(capture, goes_on=True)
        return len(data)

    def _pass_on(self, capture: _Capture, lines: list[bytes], *, ends: bool) -> None:
        at_us = now_us()
        attempt = capture.attempt
        if attempt.masker is not None:
            lines = list(map(attempt.masker.masked, lines))
        try:
            attempt.log.write(capture.stream, at_us, lines, ends=ends)
        except OSError as error:
            lines = [*lines, b"[evflow could not write this log: %s]" % str(error).encode()]
        shown = [(at_us, line.decode("utf-8", "replace"), ends) for line in lines]
        self._say(frames.LINES, *attempt.name, capture.stream, shown)

    def _pass_on_partial(self, capture: _Capture, *, goes_on: bool = False) -> None:
        if capture.partial:
            line, capture.partial = capture.partial, b""
            if goes_on and capture.attempt.masker is not None:
                line, capture.partial = capture.attempt.masker.cut(line)
            self._pass_on(capture, [line], ends=False)

    def _close_capture(self, capture: _Capture) -> None:
        self._pass_on_partial(capture)
        with suppress(KeyError):
            self._selector.unregister(capture.descriptor)
        if capture.attempt.process is None:  # else it goes on to the next attempt, or is closed with all that is the process's
            os.close(capture.descriptor)
        capture.descriptor = -1

    def _drain(self, capture: _Capture) -> None:
        """Read what was in the pipe at the attempt's end, and close it."""
        left = MAX_DRAIN_BYTES
        while left > 0 and (size := self._capture(capture)):
            left -= size
        if capture.descriptor >= 0:
            self._close_capture(capture)

    # --- ends --------------------------------------------------------------------------------------------

    def _cancel(self, run: str, task: int, number: int, grace_s: float) -> None:
        attempt = self._running.get((run, task, number))
        if attempt is None:
            self._drop_waiting(run, task, number)
            return
        attempt.cancelled = True
        attempt.kill_at = monotonic_s() + grace_s
        leftovers.kill_group(attempt.pid, signal.SIGTERM)

    def _drop_waiting(self, run: str, task: int, number: int | None = None) -> None:
        waiting = self._waiting.pop((run, task), deque[_Order]())
        for each in list(waiting):
            if number in {None, each.name[2]}:
                waiting.remove(each)
                self._say(frames.EXITED, *each.name, None, None, "never-started")
        if waiting:
            self._waiting[run, task] = waiting

    def _kill_overdue(self) -> None:
        for attempt in self._running.values():
            if attempt.kill_at is not None and attempt.kill_at <= monotonic_s():
                attempt.kill_at = None
                leftovers.kill_group(attempt.pid, signal.SIGKILL)

    def _reap(self) -> None:
        while (dead := _reap_child(self._by_pid)) is not None:
            attempt = self._by_pid.get(dead[0])
            if attempt is None:  # an orphan of an attempt, or a process that waited for one
                self._reused.ended(dead[0])
                continue
            process = attempt.process
            if process is None:
                self._exited(attempt, os.waitstatus_to_exitcode(dead[1]))
                continue
            code = 0 if process.has_finished() else os.waitstatus_to_exitcode(dead[1])
            self._hear_no_more(process)
            self._exited(attempt, code)
            process.close()

    def _hear_end(self, attempt: _Attempt) -> None:
        """A process that goes on has finished an attempt; or it has ended, which `_reap` sees."""
        process = attempt.process
        if process is None or self._running.get(attempt.name) is not attempt:
            return  # it was reaped in this round
        finished = process.has_finished()
        self._hear_no_more(process)  # an end-of-file would wake for ever
        if not finished:
            return
        self._exited(attempt, 0)
        if attempt.cancelled or self._leaving:  # it is being ended
            process.close()
        else:
            self._reused.put_back(process, attempt.most)

    def _hear_no_more(self, process: Reused) -> None:
        with suppress(KeyError):
            self._selector.unregister(process.hear)

    def _exited(self, attempt: _Attempt, code: int) -> None:
        run, task, _ = attempt.name
        for capture in attempt.captures:
            self._drain(capture)
        attempt.captures.clear()  # They know their attempt: no collector looks for what is left of it, and each fork would get it.
        with suppress(OSError):
            if code == -signal.SIGSEGV:  # Nobody else could write it where people look first, as Metaflow does.
                attempt.log.write("stderr", now_us(), [b"Task failed with a segmentation fault."], ends=True)
            attempt.log.close(now_us())
        del self._running[attempt.name], self._by_pid[attempt.pid], self._current[run, task]
        if attempt.cancelled:
            self._sweep.add(run)
        code_or_none, number = (code, None) if code >= 0 else (None, -code)
        if number == signal.SIGKILL and not attempt.cancelled and self._contexts[run].options.get(dialect.OPTION) == dialect.METAFLOW:
            code_or_none, number = 128 + number, None  # There it is a failure as any other, which counts for @retry and @catch.
        self._say(frames.EXITED, *attempt.name, code_or_none, number, WHY.get(code, ""))
        self._start_waiting(run, task)

    def _sweep_cancelled(self) -> None:
        """Kill what cancelled attempts started and what left their groups."""
        for run in self._sweep:
            alive = {f"{name[0]}/{name[1]}.{name[2]}" for name in self._running}
            strays = leftovers.marked(self._contexts[run].lock_file)
            leftovers.kill(process for process, attempt in strays if attempt not in alive)
        self._sweep.clear()

    def _end_everything(self) -> None:
        """Leave no process, in whatever session; nobody listens any more."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._launcher.drop_spare()
        self._reused.drop_all()
        for attempt in self._running.values():
            leftovers.kill_group(attempt.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while self._by_pid:
                pid, _ = os.waitpid(-1, 0)
                self._by_pid.pop(pid, None)
        leftovers.end_children()

    def _orphan(self, _number: int, _frame: Any) -> None:
        self._orphaned = True

    # --- talking -----------------------------------------------------------------------------------------

    def _say(self, *values: Any) -> None:
        self._unsent += frames.frame(*values)
        if self._is_full():
            for attempt in self._running.values():
                for capture in attempt.captures:
                    with suppress(KeyError, ValueError):
                        self._selector.unregister(capture.descriptor)

    def _is_full(self) -> bool:
        return len(self._unsent) > MAX_UNREAD_BYTES

    def _flush(self) -> None:
        if not self._unsent:
            return
        was_full = self._is_full()
        try:
            while self._unsent:
                sent = self._control.send(memoryview(self._unsent)[: frames.READ_BYTES])
                del self._unsent[:sent]
        except BlockingIOError:
            self._selector.modify(self._control, selectors.EVENT_READ | selectors.EVENT_WRITE, None)
        except OSError:
            self._orphaned = True
        else:
            self._selector.modify(self._control, selectors.EVENT_READ, None)
        if was_full and not self._is_full():
            for attempt in self._running.values():
                for capture in attempt.captures:
                    if capture.descriptor >= 0:
                        self._selector.register(capture.descriptor, selectors.EVENT_READ, capture)

    def _flush_all(self) -> None:
        """The last frames, for an owner that may be busy."""
        self._control.settimeout(LEAVE_WITHIN_S)
        with suppress(OSError):
            self._control.sendall(self._unsent)
        self._unsent.clear()


def _note(_number: int, _frame: Any) -> None:
    """Wake the loop by way of the wake-up descriptor: a signal without a handler writes nothing there."""


def _reap_child(leaders: Container[int]) -> tuple[int, int] | None:
    """A child that exited and its status, if there is one; the rest of its group is killed, where it leads one.

    Its number is taken as long as it is not waited for, so the kill before that hits its own group and no other.
    """
    try:
        if sys.platform != "darwin":
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            if found.si_pid in leaders:
                leftovers.kill_group(found.si_pid, signal.SIGKILL)
            return os.waitpid(found.si_pid, 0)
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid in leaders:
        leftovers.kill_group(pid, signal.SIGKILL)
    return (pid, status) if pid else None
