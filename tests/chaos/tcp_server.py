"""A `redis-server` on loopback that may be killed, started again on its file, filled up, and made the replica of another one."""

import signal
import subprocess
from pathlib import Path

from evflow.log.wire import Wire
from tests.ports import free_port
from tests.waiting import wait_until


class TcpServer:
    """A server with an append-only file, on a port of its own.

    Args:
        folder: Where its files are; made.

    Attributes:
        known_as: The port that it announces as a replica, and at which a replica of it is to find it: a proxy's, where one is before it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        self.known_as = self.port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, replica_of: "TcpServer | None" = None) -> None:
        """Start it on what its file holds; a replica begins with nothing."""
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "repl-diskless-sync-delay": "0"}
        options["replica-announce-port"] = str(self.known_as)
        options["appendonly"] = "yes"
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        words += ["--replicaof", "127.0.0.1", str(replica_of.known_as)] if replica_of is not None else []
        self._process = subprocess.Popen(
            ["redis-server", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self.answers, "the server answers")

    def follow_up(self) -> None:
        """Wait until a replica has what there is."""
        wait_until(lambda: "master_link_status:up" in self.info(), "the replica has what there is")

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return self.call("PING") in (b"PONG", "PONG")
        except Exception:  # noqa: BLE001 - it begins, or loads its file: asked again
            return False

    def info(self) -> str:
        """What it says of its replication."""
        said = self.call("INFO", "replication")
        return said.decode() if isinstance(said, bytes) else str(said)

    def written(self) -> int:
        """How many bytes of writes it has had, its own and those of whom it was the replica of."""
        return next(int(line.partition(":")[2]) for line in self.info().splitlines() if line.startswith("master_repl_offset:"))

    def call(self, *words: str) -> object:
        """One command on a connection of its own."""
        wire = Wire.connect(f"redis://127.0.0.1:{self.port}")
        try:
            return wire.call(*words)
        finally:
            wire.close()
