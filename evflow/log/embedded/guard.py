# ruff: noqa: PTH108, PTH118
"""The guard of an embedded server: puts its log on the disk each second, and stops it when nobody needs it.

It is started in an interpreter of its own with `-I -S` and imports nothing but built-in modules, so that it is up in
10 ms, holds 3 MB, and nothing of the user's (modules, threads, open files, terminal, folder) lives on in it. Where it
started the server's shell, the server is its child.

Arguments: the server's pid; `child` or `adopted`; the path of `clients.lock`; the append-only folder; the socket; the
linger in seconds. Descriptor 3 is `guard.lock`, locked by whoever started the guard.

Its locks are freed when it ends, however that happens, and the server's log is complete at every moment:
with `appendfsync no` the server hands each write to the kernel before it acknowledges it. So a killed guard costs the sync
each second until the next client starts another, and a killed server costs a restart.
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
import time

GUARD_LOCK = 3
SYNC_EVERY_S = 1.0
COMPACT_FROM_BYTES = 2_000_000
COMPACT_TIMEOUT_S = 5.0
ADOPTED_END_S = 10.0
"""How long a killed server that is not our child may take to give its memory back."""


class Guard:
    """One server's guard."""

    def __init__(self, server: int, adopted: bool, clients: str, append_only: str, socket: str, linger_s: float) -> None:
        self.server = server
        self.adopted = adopted
        self.append_only = append_only
        self.socket = socket
        self.linger_s = linger_s
        self.clients = os.open(clients, os.O_RDWR)
        self.synced: dict[str, int] = {}
        self.syncing = False
        # A number of a process may be given to another one; what pidfd_open names stays the same. Linux only.
        self.pidfd = os.pidfd_open(server) if adopted and hasattr(os, "pidfd_open") else -1

    def run(self) -> None:
        """Serve until the server ends or is not needed any more. Does not return."""
        os.ftruncate(GUARD_LOCK, 0)
        os.pwrite(GUARD_LOCK, f"{os.getpid()} {self.server} {os.uname().nodename}\n".encode(), 0)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, self.on_signal)
        signal.setitimer(signal.ITIMER_REAL, SYNC_EVERY_S, SYNC_EVERY_S)
        self.leave_if_over()  # it may have ended before there was a handler
        while True:
            # No deadline: it waits for as long as there are clients.
            fcntl.lockf(self.clients, fcntl.LOCK_EX)
            if self.linger_s <= 0:
                self.stop()
            last_used = self.last_used()
            fcntl.lockf(self.clients, fcntl.LOCK_UN)
            self.sync()
            self.compact()
            time.sleep(self.linger_s)
            if self.last_used() == last_used and self.nobody():
                self.stop()

    def on_signal(self, number: int, frame: object) -> None:
        """The server ended, somebody wants it stopped, or a second has passed."""
        if number == signal.SIGTERM:
            self.stop()
        self.leave_if_over()
        if number == signal.SIGALRM and not self.syncing:  # it may come in the middle of a slow sync
            self.sync()

    def last_used(self) -> int:
        """When a client last came; clients touch the file."""
        return os.fstat(self.clients).st_mtime_ns

    def nobody(self) -> bool:
        """Whether there is no client; then the lock is ours, and new ones wait for us to end."""
        try:
            fcntl.lockf(self.clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Put what the server has written on the disk."""
        self.syncing = True
        try:
            self.sync_changed()
        finally:
            self.syncing = False

    def sync_changed(self) -> None:
        """Put the files that have grown on the disk, and the folder where files came or went."""
        try:
            sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.append_only)}
        except OSError:
            return  # not made yet, or a file went while we looked: the next second sees it
        for name, size in sizes.items():
            if self.synced.get(name) != size:
                self.sync_file(os.path.join(self.append_only, name))
        if sizes.keys() != self.synced.keys():
            self.sync_file(self.append_only)
        self.synced = sizes

    def compact(self) -> None:
        """Have the server rewrite a log that has grown, now that nobody waits: the next start reads it back faster."""
        grown = sum(size for name, size in self.synced.items() if ".incr." in name)
        if grown < COMPACT_FROM_BYTES:
            return
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(COMPACT_TIMEOUT_S)
                connection.connect(self.socket)
                connection.sendall(b"BGREWRITEAOF\r\n")
                connection.recv(256)
        except OSError as error:
            say(f"cannot compact the log: {error}")

    def sync_file(self, path: str) -> None:
        """Put one file, or a folder's entries, on the disk."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            return  # a rewrite removed it
        try:
            os.fsync(fd)
        except OSError as error:
            say(f"cannot sync {path}: {error}")
        finally:
            os.close(fd)

    def leave_if_over(self) -> None:
        """End where the server has ended: the next client starts another one."""
        if self.is_over():
            self.leave()

    def is_over(self) -> bool:
        """Whether the server has ended."""
        try:
            if not self.adopted:
                return os.waitpid(self.server, os.WNOHANG)[0] != 0
            if self.pidfd >= 0:  # readable once it has ended, even where nobody waits for it yet
                return bool(select.select([self.pidfd], [], [], 0)[0])
            os.kill(self.server, 0)
        except (ChildProcessError, ProcessLookupError):
            return True
        return False

    def stop(self) -> None:
        """Stop the server and end.

        The server's own way to stop waits for its next tick of 100 ms. Everything that it has acknowledged is in the
        kernel's hands, so that a sync and a kill lose nothing and leave nothing to be repaired.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.sync()
        self.kill()
        with contextlib.suppress(OSError):
            os.unlink(self.socket)  # the next client need not find out that nobody listens
        self.leave()

    def kill(self) -> None:
        """Kill the server, and wait until its process is gone."""
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            else:
                os.kill(self.server, signal.SIGKILL)
            if not self.adopted:
                os.waitpid(self.server, 0)
                return
        except (ChildProcessError, ProcessLookupError):
            return
        deadline = time.monotonic() + ADOPTED_END_S
        while not self.is_over() and time.monotonic() < deadline:
            time.sleep(0.001)

    def leave(self) -> None:
        """End, and with us what the server started (a rewrite of its log), which would outlive it."""
        os.ftruncate(GUARD_LOCK, 0)
        if not self.adopted:
            os.killpg(0, signal.SIGKILL)
        os._exit(0)


def say(text: str) -> None:
    """Write a line into `start.log`, which is this process's stderr."""
    sys.stderr.write(f"guard {os.getpid()}: {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> None:
    """Guard the server that the arguments name."""
    server, kind, clients, append_only, socket, linger_s = arguments
    try:
        guard = Guard(int(server), kind == "adopted", clients, append_only, socket, float(linger_s))
    except ProcessLookupError:
        os._exit(0)  # what we were to adopt has ended
    except FileNotFoundError:  # the home was removed while we were on our way: nobody can find the server
        os.kill(int(server), signal.SIGKILL)
        os._exit(0)
    guard.run()
