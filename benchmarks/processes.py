"""Run one command and wait for all that it started, as a reader of a stopwatch would.

An embedded server or a reaper outlives the command that started it. Its cost belongs to the command,
so this process adopts what is orphaned (``prctl(2)``, PR_SET_CHILD_SUBREAPER) and the time ends when
the last descendant is gone. This makes one command at a time the rule: nothing else may be a child.
"""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
SAMPLE_S = 0.1  # Reading the maps of 18 processes takes about 20 ms.


class CommandFailed(Exception):
    """A measured command ended badly; its time means nothing."""

    def __init__(self, argv: Sequence[str], returncode: int, output: Path) -> None:
        """Say what ran, how it ended, and the last it said."""
        tail = output.read_text(errors="replace").splitlines()[-15:]
        super().__init__(f"{' '.join(argv)} ended with {returncode}:\n  " + "\n  ".join(tail))


@dataclass(frozen=True, slots=True)
class Finished:
    """How long a command took, in seconds.

    Attributes:
        command_s: Until the command itself returned.
        all_s: Until the last process that it started was gone.
        peak_pss_bytes: The largest sum of PSS over all its processes; 0 when it was not sampled.
    """

    command_s: float
    all_s: float
    peak_pss_bytes: int


def finish(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: Path,
    timeout_s: float = 1800,
    sample_memory: bool = False,
) -> Finished:
    """Run a command and wait until it and all its descendants are gone.

    Sampling memory slows the command, so time and memory are taken in separate runs.

    Raises:
        CommandFailed: It returned something other than 0, or ran into the time limit.
    """
    adopt_orphans()
    returncode, command_s, all_s = -1, 0.0, 0.0
    with output.open("wb") as sink, Sampler(enabled=sample_memory) as sampler, deadline(timeout_s):
        begin = time.perf_counter()
        command = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            all_s = time.perf_counter() - begin
            if pid == command.pid:
                command_s, returncode = all_s, os.waitstatus_to_exitcode(status)
                command.returncode = returncode  # Reaped here, so Popen must not look for it.
    if returncode != 0:
        raise CommandFailed(argv, returncode, output)
    return Finished(command_s, all_s, sampler.peak_bytes)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def deadline(timeout_s: float) -> Generator[None]:
    """Kill all descendants after some seconds, unless the block has ended by then."""
    timer = threading.Timer(timeout_s, kill_descendants)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Sampler(threading.Thread):
    """Samples the PSS of all descendants while a ``with`` block runs.

    PSS counts a page that n processes share as 1/n in each, so the sum over a tree is the memory
    that the tree takes: forked workers are not counted double, as they would be with RSS.
    """

    def __init__(self, *, enabled: bool) -> None:
        """Prepare; nothing runs yet."""
        super().__init__(daemon=True)
        self.enabled = enabled
        self.peak_bytes = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Sample until the block ends."""
        while not self._over.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(pss_bytes(pid) for pid in descendants()))

    def __enter__(self) -> Self:
        """Start to sample."""
        if self.enabled:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._over.set()
        if self.enabled:
            self.join()


def descendants() -> Iterator[int]:
    """Name all living processes below this one, children before their children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # It ended between the two looks.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = children.get(os.getpid(), [])
    while found:
        pid, *found = found
        yield pid
        found += children.get(pid, [])


def pss_bytes(pid: int) -> int:
    """Read what a process takes, its share of shared pages included; 0 when it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def kill_descendants() -> None:
    """End everything below this process: servers that linger, or a command out of its time."""
    for pid in list(descendants()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
