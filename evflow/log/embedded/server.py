"""A client's handle on the embedded server: join or start it, wait for it, start it again, leave it."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from evflow import diagnostics
from evflow.clock import monotonic_s
from evflow.log.embedded import binaries, launch, locks, places as where
from evflow.log.embedded.binaries import Binary
from evflow.log.embedded.places import Places
from evflow.log.embedded.problems import (
    BinaryMissing,
    BinaryUnusable,
    DataOfAnotherServer,
    EmbeddedProblem,
    HomeUnusable,
    ServerDidNotStart,
    ServerSilent,
)

if TYPE_CHECKING:
    from evflow.log.wire import Wire

READY_TIMEOUT_S = 30.0
LOADING_TIMEOUT_S = 600.0
"""Reading back a log of some gigabytes takes minutes, and the server says that it is at it."""
_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.005
_ANSWER_TIMEOUT_S = 5.0
_ORPHAN_END_S = 10.0
_MOST_STARTS = 6
_SHOWN_LINES = 6


class EmbeddedServer:
    """This process's share in the embedded server of a home. Not for two threads at once.

    Attributes:
        durability: As for `begin`; a change counts from the next `ready` on.
    """

    def __init__(self, places: Places, linger_s: float, binary: str | None, durability: str | None) -> None:
        self._places = places
        self._linger_s = linger_s
        self._explicit = binary
        self.durability = durability
        self._joined = False
        self._refused: dict[str, EmbeddedProblem] = {}
        self._starting: Binary | None = None  # what we have started and not seen answer yet
        self._starts = 0
        self._shell = 0
        self._log_offset = 0

    @classmethod
    def begin(
        cls, home: Path | str, *, linger_s: float | None = None, binary: str | None = None, durability: str | None = None
    ) -> "EmbeddedServer":
        """Join the server of a home, and start it where it does not run. Returns at once.

        From here on this process is a client: the server stays until `release`, or the process's end.

        Args:
            home: EVFLOW_HOME.
            linger_s: How long the server outlives its last client; None: the setting. Who starts the server decides.
            binary: The server program; None: the setting, else the one that `binaries.choose` finds.
            durability: `fsync` makes the server sync before it answers, for all its clients, until it stops; None: the
                setting.

        Raises:
            EmbeddedProblem: The home or the program cannot be used.
        """
        if linger_s is None or binary is None or durability is None:
            from evflow import config

            linger_s = float(config.get("linger_s")) if linger_s is None else linger_s
            binary = config.get("server_binary") if binary is None else binary
            durability = config.get("durability") if durability is None else durability
        server = cls(where.find(home), linger_s, binary, durability)
        try:
            server._advance()
        except BaseException:
            server.release()
            raise
        return server

    @property
    def url(self) -> str:
        """The server's URL: `unix:///...`. It stays the same when the server is started again."""
        return self._places.url

    @property
    def places(self) -> Places:
        """Where its files are."""
        return self._places

    def ready(self, timeout_s: float = READY_TIMEOUT_S) -> str:
        """Wait until the server answers, and return its URL.

        A server that has died is started again on the same data; its clients connect anew.

        Args:
            timeout_s: How long it may stay silent. One that is reading its data back may take longer.

        Raises:
            EmbeddedProblem: It does not start, or stays silent.
        """
        began = monotonic_s()
        pause_s = _FIRST_PAUSE_S
        while True:
            why = "a server before it is being stopped" if not self._advance() else self._ask()
            if why is None:
                return self.url
            allowed_s = max(timeout_s, LOADING_TIMEOUT_S) if why.startswith("loading") else timeout_s
            waited_s = monotonic_s() - began
            if waited_s >= allowed_s:
                raise self._silent(waited_s, why)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def ensure(self, timeout_s: float = READY_TIMEOUT_S) -> str:
        """As `ready`, for a client whose connection broke."""
        began = monotonic_s()
        url = self.ready(timeout_s)
        diagnostics.info("embedded server answers again", url=url, after_s=round(monotonic_s() - began, 3))
        return url

    def release(self) -> None:
        """Be a client no longer; the guard does the rest. A second time does nothing."""
        if self._joined:
            self._joined = False
            locks.leave(self._places.clients_lock)
        self._bury()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    # ------------------------------------------------------------ joining and starting; never waits

    def _advance(self) -> bool:
        """Join, and take charge where nobody is in charge; False while a guard is stopping the server."""
        try:
            if not self._joined:
                self._joined = locks.join(self._places.clients_lock)
            if not self._joined:
                return False
            lock = locks.responsibility(self._places.guard_lock)
        except locks.LocksUnsupported as error:
            self._move(locks_too=True, error=error)
            return self._advance()
        if lock is not None:
            try:
                self._take_charge(lock)
            finally:
                os.close(lock)  # the guard has it now
        return True

    def _take_charge(self, lock: int) -> None:
        self._bury()
        server = self._unguarded_server()
        if server is not None:
            self._shell = launch.adopt(self._places, server, self._linger_s, lock)
            return
        if self._starting is not None:
            self._learn_from(self._starting)
        self._starts += 1
        try:
            self._starting = binaries.choose(self._places, self._explicit, self._refused)
        except (BinaryMissing, DataOfAnotherServer):
            if self._refused:  # how the best of them failed says more than that there is no other
                raise next(iter(self._refused.values())) from None
            raise
        self._log_offset = _size(self._places.log)
        self._shell = launch.launch(self._places, self._starting, self._linger_s, lock)

    def _unguarded_server(self) -> int | None:
        """The pid of a server that runs and has lost its guard; one that can no longer be reached is ended."""
        recorded = recorded_pids(self._places)
        if recorded is None and not self._places.socket.exists():
            return None
        from evflow.log.errors import LogStarting, LogTimeout, LogUnavailable

        try:
            wire = self._connected()
            try:
                return int(info(wire, "server")["process_id"])
            finally:
                wire.close()
        except LogTimeout as error:
            raise self._silent(_ANSWER_TIMEOUT_S, "it is suspended or overloaded") from error
        except LogStarting:
            return recorded[1] if recorded else None
        except LogUnavailable:
            if recorded is not None and _is_ours(recorded[1], self._places):
                _end(recorded[1], self._places)  # two servers must never write one log
            return None

    def _learn_from(self, failed: Binary) -> None:
        """Look why the server that we have started ended, and change what can be changed.

        Raises:
            EmbeddedProblem: Another start would end the same way.
        """
        self._starting = None
        said = self._said()
        text = "\n".join(said).lower()
        problem: EmbeddedProblem = ServerDidNotStart(failed.path, said[-_SHOWN_LINES:], self._places.log)
        if self._starts >= _MOST_STARTS:
            raise problem
        if "unix socket" in text and self._places.sockets == self._places.data:
            self._move(locks_too=False, error=problem)
            return
        snapshot = binaries.snapshot_format(self._places.append_only)
        if not binaries.readable_by_all(snapshot) and not binaries.readable(snapshot, asked := binaries.asked_binary(failed.path)):
            record = binaries.read_record(self._places.binary_record)
            wrote = record.shown if record and record.version else binaries.writer_of(snapshot)
            problem = DataOfAnotherServer(self._places.append_only, wrote, [f"{asked.path} ({asked.shown})"])
        elif "directive" in text or "config" in text:
            asked = binaries.asked_binary(failed.path)
            if asked.version < binaries.OLDEST_VERSION:
                problem = BinaryUnusable(asked.path, f"it is {asked.shown}, and 7.0 or newer is needed")
        if isinstance(problem, ServerDidNotStart) and self._starts < 2:
            return  # it may have been killed, which a second start survives and a cause does not
        if failed.explicit or isinstance(problem, ServerDidNotStart):
            raise problem
        self._refused[failed.path] = problem

    def _move(self, *, locks_too: bool, error: Exception) -> None:
        """Go on in the user's runtime folder, because the home's file system lacks sockets or locks."""
        if self._places.sockets != self._places.data and (not locks_too or self._places.locks != self._places.data):
            raise HomeUnusable(self._places.sockets, "its file system has no unix sockets or no locks") from error
        moved = where.elsewhere(self._places, locks=locks_too)
        if self._joined and moved.locks != self._places.locks:
            locks.leave(self._places.clients_lock)
            self._joined = False
        self._places = moved

    # ------------------------------------------------------------ asking

    def _ask(self) -> str | None:
        """None where the server answers, else why it is not ready."""
        from evflow.log.errors import LogConnectionLost, LogStarting, LogTimeout, LogUnreachable

        try:
            wire = self._connected()
        except LogUnreachable:
            return "nobody listens"
        try:
            wire.call("PING")
            if self.durability == "fsync":
                wire.call("CONFIG", "SET", "appendfsync", "always")
            if self._starting is not None:
                self._record(self._starting, info(wire, "server"))
        except LogStarting:
            return "loading its data"
        except LogConnectionLost:
            return "it ended"
        except LogTimeout:
            return "it is suspended or overloaded"
        finally:
            wire.close()
        self._starting = None
        self._starts = 0
        self._bury()
        return None

    def _connected(self) -> "Wire":
        from evflow.log.wire import Wire

        return Wire.connect(self.url, connect_timeout_s=_ANSWER_TIMEOUT_S, timeout_s=_ANSWER_TIMEOUT_S)

    def _record(self, started: Binary, said: dict[str, str]) -> None:
        family = "valkey" if "valkey_version" in said else "redis"
        version = tuple(int(part) for part in said[f"{family}_version"].split(".") if part.isdecimal())
        try:
            binaries.write_record(self._places.binary_record, Binary(started.path, family, version))
        except OSError as error:
            raise HomeUnusable(self._places.binary_record, error.strerror or str(error)) from error

    def _said(self) -> list[str]:
        """What the server said since we started it."""
        lines: list[str] = []
        for path, offset in ((self._places.errors, 0), (self._places.log, self._log_offset)):
            try:
                with path.open("rb") as file:
                    file.seek(min(offset, _size(path)))
                    lines += [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            except FileNotFoundError:
                continue
        return lines

    def _silent(self, waited_s: float, why: str) -> ServerSilent:
        pids = recorded_pids(self._places)
        guarded = locks.is_guarded(self._places.guard_lock)
        guard, host = (pids[0], pids[2]) if pids and guarded else (None, "")
        return ServerSilent(self._places.socket, waited_s, why, guard, host)

    def _bury(self) -> None:
        """Wait for the shell that started the server. It ends within a few milliseconds, whatever the server does."""
        if self._shell:
            with contextlib.suppress(ChildProcessError):  # somebody waits for all children, or ignores them
                os.waitpid(self._shell, 0)
            self._shell = 0


# ---------------------------------------------------------------- what others of this package need, too


def info(wire: "Wire", section: str) -> dict[str, str]:
    """A section of INFO, as text."""
    text: str = wire.call("INFO", section).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def recorded_pids(places: Places) -> tuple[int, int, str] | None:
    """The guard, the server and their host, as the guard wrote them; None after an orderly stop."""
    try:
        guard, server, host = places.guard_lock.read_text().split()
        return int(guard), int(server), host
    except (OSError, ValueError):
        return None


def _is_ours(pid: int, places: Places) -> bool:
    """Whether the process is a server on this data: pids are given out again."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == places.data and "guard" not in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return False
    import subprocess

    done = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return str(places.config) in done.stdout or str(places.socket) in done.stdout


def _end(pid: int, places: Places) -> None:
    deadline = monotonic_s() + _ORPHAN_END_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while _is_ours(pid, places) and monotonic_s() < deadline:
        time.sleep(_FIRST_PAUSE_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
