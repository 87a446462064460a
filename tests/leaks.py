"""What a test leaves behind: processes, descriptors, files outside its folder, signals, asyncio tasks, Redis keys.

Leaks of one test make another one fail, or only the machine slower, so they are looked for after each test. Every check
is cheap when nothing leaked (under a millisecond), and patient when something is still going away.
"""

import asyncio
import gc
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import wait_until

# Processes started by a test carry its folder in their environment, and so do their children, in whichever session.
TEST_ROOT_VARIABLE = "EVFLOW_TEST_ROOT"
# An embedded server that was told to stop writes its last append-only file first.
PATIENCE_S = 60.0
FD_PATIENCE_S = 10.0
FD_FOLDER = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112 - evaluated at import, before Path is patched by anything
ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
# Opened once by a library for the life of the process.
KEPT_OPEN = ("/dev/", "anon_inode:[eventfd]", "/proc/", "/sys/", "/memfd:")


@dataclass(frozen=True, slots=True)
class Signals:
    """What this process does on the signals that end a run. What it ignores or holds back, all it starts does as well."""

    handlers: tuple[object, ...]
    held: frozenset[int]

    @classmethod
    def now(cls) -> "Signals":
        """Take note of them."""
        return cls(tuple(map(signal.getsignal, ENDING)), frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    def restore(self) -> None:
        """Put them back."""
        for number, handler in zip(ENDING, self.handlers, strict=True):
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.pthread_sigmask(signal.SIG_SETMASK, self.held)


def hear_signals() -> None:
    """Hear what a shell's `&`, `nohup` or some other starter of ours had us ignore or hold back."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@dataclass(frozen=True, slots=True)
class Before:
    """What existed before a test."""

    root: Path
    watched: tuple[Path, ...]
    pids: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[Path]
    signals: "Signals"

    @classmethod
    def look(cls, root: Path, watched: tuple[Path, ...]) -> "Before":
        """Take note of everything that `leaks` compares with.

        Args:
            root: The test's own folder; what is in it goes away with it.
            watched: Folders outside of it where nothing may appear. Only their direct entries are compared.
        """
        return cls(root, watched, frozenset(psutil.pids()), open_descriptors(), entries(watched), Signals.now())

    def leaks(self) -> list[str]:
        """Name what is there now and was not before, and end the processes among it."""
        found: list[str] = []
        for process in self._lasting_processes():
            found.append(f"process {describe(process)}")
            end(process)
        found += [f"descriptor {fd} -> {target}" for fd, target in sorted(self._lasting_descriptors())]
        found += [f"descriptor {fd}, which is closed now" for fd in reopened_standard_streams()]
        found += [f"file {path}" for path in sorted(entries(self.watched) - self.files)]
        if Signals.now() != self.signals:
            found.append(f"signals {Signals.now()}, before it {self.signals}")
            self.signals.restore()
        return found

    def _lasting_processes(self) -> list[psutil.Process]:
        if not self._new_processes():
            return []
        with suppress(TimeoutError):
            wait_until(lambda: not self._new_processes(), "the test's processes are gone", PATIENCE_S)
        return self._new_processes()

    def _new_processes(self) -> list[psutil.Process]:
        return [process for pid in psutil.pids() if pid not in self.pids and (process := own_process(pid, self.root)) is not None]

    def _lasting_descriptors(self) -> frozenset[tuple[int, str]]:
        deadline = time.monotonic() + FD_PATIENCE_S
        while new := open_descriptors() - self.descriptors:
            if time.monotonic() > deadline:
                return new
            gc.collect()
            time.sleep(0.005)
        return new


def reopened_standard_streams() -> list[int]:
    """Which of descriptors 0 to 2 were closed; they read nothing from now on, before another file gets the number."""
    closed: list[int] = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(fd)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            if null != fd:
                os.close(null)
    return closed


def own_process(pid: int, root: Path) -> psutil.Process | None:
    """Answer the process if this test started it: our child, or one that carries the test's folder in its environment."""
    try:
        process = psutil.Process(pid)
        ours = process.ppid() == os.getpid() or process.environ().get(TEST_ROOT_VARIABLE) == str(root)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None
    return process if ours else None


def describe(process: psutil.Process) -> str:
    """Answer pid, state and command line, as far as the process still tells."""
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:
        return str(process.pid)


def end(process: psutil.Process) -> None:
    """Kill a leaked process, so that the next test starts clean."""
    with suppress(psutil.Error, OSError):
        process.send_signal(signal.SIGKILL)
        process.wait(5)


def open_descriptors() -> frozenset[tuple[int, str]]:
    """Answer this process's open sockets, pipes, files and selectors, each with what it points at."""
    found: set[tuple[int, str]] = set()
    for name in os.listdir(FD_FOLDER):  # noqa: PTH208 - a Path for each of them is the greater part of this check's cost
        try:
            target = os.readlink(f"{FD_FOLDER}/{name}") if FD_FOLDER.startswith("/proc") else f"inode {os.fstat(int(name)).st_ino}"  # noqa: PTH115
        except OSError:
            continue  # the descriptor that listed the folder
        if not target.startswith(KEPT_OPEN):
            found.add((int(name), target))
    return frozenset(found)


def entries(folders: tuple[Path, ...]) -> frozenset[Path]:
    """Answer the direct entries of some folders. A folder that does not exist has none."""
    found: set[Path] = set()
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.update(folder.iterdir())
    return frozenset(found)


def new_tasks(before: set[asyncio.Task[object]]) -> list[str]:
    """Name the running loop's unfinished tasks that are not among those from before."""
    return sorted(f"asyncio task {task.get_name()}: {task.get_coro()!r}" for task in asyncio.all_tasks() - before if not task.done())
