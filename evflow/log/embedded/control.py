"""What `evflow server` does: look at the embedded server, keep it running in a terminal, stop it."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evflow.clock import monotonic_s
from evflow.log.embedded import launch, locks
from evflow.log.embedded.places import Places, look
from evflow.log.embedded.problems import HomeUnusable, ServerInUse, ServerSilent
from evflow.log.embedded.server import EmbeddedServer, info, recorded_pids
from evflow.log.errors import LogConnectionLost, LogUnreachable
from evflow.log.wire import Wire

STOP_TIMEOUT_S = 30.0
_PAUSE_S = 0.002
_WATCH_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A running embedded server.

    Attributes:
        pid: Its process.
        guard: The process that will stop it; None where that was killed, until the next client starts another.
        version: `Valkey 9.1.2`.
        binary: The program.
        url: Where it answers.
        memory_bytes: What it holds.
        clients: Connections to it, without the one that asked.
        uptime_s: Since its start.
        data_bytes: Its append-only files on the disk.
        data: Their folder.
    """

    pid: int
    guard: int | None
    version: str
    binary: str
    url: str
    memory_bytes: int
    clients: int
    uptime_s: int
    data_bytes: int
    data: Path


def status(home: Path | str) -> ServerStatus | None:
    """The embedded server of a home as it is, None where none runs. Starts nothing and makes no file.

    Raises:
        LogUnavailable: It runs and does not answer.
    """
    places = look(home)
    if places is None or not places.socket.exists():
        return None
    try:
        wire = Wire.connect(places.url)
        try:
            said = info(wire, "server") | info(wire, "memory") | info(wire, "clients")
        finally:
            wire.close()
    except (LogUnreachable, LogConnectionLost):  # a crash left its socket; or it is being stopped
        return None
    pids = recorded_pids(places)
    return ServerStatus(
        pid=int(said["process_id"]),
        guard=pids[0] if pids and locks.is_guarded(places.guard_lock) else None,
        version=f"Valkey {said['valkey_version']}" if "valkey_version" in said else f"Redis {said['redis_version']}",
        binary=said.get("executable", ""),
        url=places.url,
        memory_bytes=int(said["used_memory"]),
        clients=int(said["connected_clients"]) - 1,
        uptime_s=int(said["uptime_in_seconds"]),
        data_bytes=data_size(places),
        data=places.append_only,
    )


def stop(home: Path | str, *, force: bool = False, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the embedded server of a home and wait until its process is gone; False where none ran.

    Args:
        home: EVFLOW_HOME.
        force: Stop it although clients use it. Live runs start it again at once.
        timeout_s: How long that may take; what takes time is the last sync.

    Raises:
        ServerInUse: Somebody uses it.
        ServerSilent: It has not ended in time.
    """
    places = look(home)
    if places is None or not _exists(places):
        return False
    client = locks.other_client(places.clients_lock)
    if client is not None and not force:
        raise ServerInUse(client or None)
    lock = locks.responsibility(places.guard_lock)
    if lock is not None and not _adopted(places, lock):
        return False
    _end_guard(places, timeout_s)
    return True


def start_foreground(home: Path | str, on_ready: Callable[[str], Any]) -> None:
    """Keep the embedded server of a home running until SIGINT or SIGTERM, starting it again if it dies.

    Args:
        home: EVFLOW_HOME.
        on_ready: Called with the URL once it answers.

    Raises:
        EmbeddedProblem: It does not start.
    """
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedServer.begin(home) as server:
            on_ready(server.ready())
            while not ended:
                time.sleep(_WATCH_EVERY_S)  # PEP 475 resumes a sleep after a handler: a signal is seen within this
                server.ensure()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def data_size(places: Places) -> int:
    """Bytes of the append-only files."""
    total = 0
    for path in places.append_only.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # a rewrite has just finished
            continue
    return total


def _exists(places: Places) -> bool:
    return places.guard_lock.exists() and (places.socket.exists() or locks.is_guarded(places.guard_lock))


def _adopted(places: Places, lock: int) -> bool:
    """Give a server without a guard one, so that there is one way to stop; False where there is no server."""
    try:
        wire = Wire.connect(places.url)
        try:
            server = int(info(wire, "server")["process_id"])
        finally:
            wire.close()
    except (LogUnreachable, LogConnectionLost):
        os.close(lock)
        return False
    try:
        os.waitpid(launch.adopt(places, server, 0, lock), 0)
    finally:
        os.close(lock)
    return True


def _end_guard(places: Places, timeout_s: float) -> None:
    """Tell the guard to stop its server, and wait until it has."""
    deadline = monotonic_s() + timeout_s
    told = 0
    while locks.is_guarded(places.guard_lock):
        pids = recorded_pids(places)  # not written yet where the guard has just started
        if monotonic_s() > deadline:
            raise ServerSilent(places.socket, timeout_s, "it does not stop", pids[0] if pids else None, pids[2] if pids else "")
        if pids and pids[0] != told and pids[2] == os.uname().nodename:
            told = _terminate(places, pids[0])
        time.sleep(_PAUSE_S)


def _terminate(places: Places, guard: int) -> int:
    try:
        os.kill(guard, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended; its lock says so next
    except PermissionError as error:
        raise HomeUnusable(places.guard_lock, f"process {guard}, which it names, belongs to somebody else") from error
    return guard
