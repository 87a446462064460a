"""Several servers as one log, on loopback: a primary with a replica and Sentinels, and a cluster of three."""

import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evflow.log.errors import LogUnavailable
from evflow.log.wire import Wire
from tests.ports import free_port
from tests.waiting import wait_until

SERVICE = "main"
_FAIL_OVER_AFTER_MS = 1_500
"""A server that says nothing for so long has failed: as short as tests can wait for it, and longer than one that is only busy takes."""
SHORT_DISTRUST = ("SENTINEL", "DEBUG", "TILT-PERIOD", "2000")
"""Tells a Sentinel that stood still for how long it is to replace nobody, in milliseconds: half a minute else, in which a replica becomes too old to be promoted."""
_NEVER_MS = 60_000
"""Where no server is to be replaced, none is because the machine stood still."""


@dataclass
class Server:
    """A process of `redis-server`, which may be killed, stopped and started again."""

    folder: Path
    port: int
    words: tuple[str, ...]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        command = ["redis-server", *self.words]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(lambda: self.try_call("PING") == b"PONG", f"the server on port {self.port} answers")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def call(self, *command: str | int) -> Any:
        wire = Wire.connect(f"redis://127.0.0.1:{self.port}")
        try:
            return wire.call(*command)
        finally:
            wire.close()

    def try_call(self, *command: str | int) -> Any:
        with suppress(LogUnavailable):
            return self.call(*command)
        return None

    @property
    def info(self) -> dict[str, str]:
        """What it says of replication."""
        text = (self.try_call("INFO", "replication") or b"").decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@contextmanager
def server(*options: str, port: int | None = None) -> Generator[Server]:
    """A server on a port of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ev-group-", dir="/tmp"))
    port = port or free_port()
    # A primary waits five seconds for further replicas before it sends the first one what there is.
    kept = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
    one = Server(folder, port, ("--port", str(port), *kept, "--dir", str(folder), *options))
    try:
        one.start()
        yield one
    finally:
        one.kill()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Watched:
    """Two servers, one of them a primary, and three Sentinels."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    @property
    def primary(self) -> Server:
        """Whom the Sentinels take for the primary: the one among them that heard last of a fail-over knows, the others hear within seconds."""
        told = [_pairs(one.call("SENTINEL", "MASTER", SERVICE)) for one in self.sentinels]
        _, port = max((int(master["config-epoch"]), int(master["port"])) for master in told)
        return next(one for one in self.servers if one.port == port)

    @property
    def replica(self) -> Server:
        return next(one for one in self.servers if one is not self.primary)

    def flush(self) -> None:
        self.primary.call("FLUSHALL")

    def settle(self) -> None:
        """Wait until the primary has a replica that follows, and every Sentinel knows of it and hears the others."""
        wait_until(self._is_settled, "a replica follows the primary, and the Sentinels know both", 60.0)

    def _is_settled(self) -> bool:
        primary = self.primary
        follows = primary.info.get("role") == "master" and "state=online" in primary.info.get("slave0", "")
        known = all(int(_pairs(one.call("SENTINEL", "MASTER", SERVICE))["num-slaves"]) >= 1 for one in self.sentinels)
        heard = [[_pairs(other)["flags"] for other in one.call("SENTINEL", "SENTINELS", SERVICE)] for one in self.sentinels]
        others = all(flags == ["sentinel", "sentinel"] for flags in heard)  # neither down nor not yet connected
        return follows and known and others and self.replica.info.get("master_link_status") == "up"


@contextmanager
def watched(*, fails_over: bool = True) -> Generator[Watched]:
    """A primary, a replica, three Sentinels, which may replace it."""
    with ExitStack() as stack:
        first = stack.enter_context(server())
        second = stack.enter_context(server("--replicaof", "127.0.0.1", str(first.port)))
        ports = [free_port() for _ in range(3)]
        down_after_ms = _FAIL_OVER_AFTER_MS if fails_over else _NEVER_MS
        sentinels = [stack.enter_context(_sentinel(port, ports, first.port, second.port, down_after_ms)) for port in ports]
        found = Watched([first, second], sentinels)
        found.settle()
        yield found


@contextmanager
def _sentinel(port: int, ports: list[int], primary: int, replica: int, down_after_ms: int) -> Generator[Server]:
    """One of several that know each other and the replica from the start: else it takes them up to ten seconds to hear of all."""
    folder = Path(tempfile.mkdtemp(prefix="ev-group-", dir="/tmp"))
    others = (f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {other:040x}\n" for other in ports if other != port)
    (folder / "sentinel.conf").write_text(
        f"port {port}\ndir {folder}\nsentinel myid {port:040x}\nsentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\nsentinel failover-timeout {SERVICE} 3000\n"
        f"sentinel known-replica {SERVICE} 127.0.0.1 {replica}\n{''.join(others)}"
    )
    one = Server(folder, port, (str(folder / "sentinel.conf"), "--sentinel"))
    try:
        one.start()
        one.call(*SHORT_DISTRUST)
        yield one
    finally:
        one.kill()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Cluster:
    """Three primaries, and a replica for each where a test asks for them."""

    servers: list[Server]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers[:2])

    @property
    def primaries(self) -> list[Server]:
        return [one for one in self.servers if one.info.get("role") == "master"]

    def flush(self) -> None:
        for one in self.primaries:
            one.call("FLUSHALL")


@contextmanager
def cluster(*, replicas: bool = False) -> Generator[Cluster]:
    """Three primaries on loopback, which have all slots."""
    with ExitStack() as stack:
        failed_after_ms = _FAIL_OVER_AFTER_MS if replicas else _NEVER_MS
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(failed_after_ms), "--cluster-config-file", "nodes.conf")
        servers = [stack.enter_context(_node(options)) for _ in range(6 if replicas else 3)]
        places = [f"127.0.0.1:{one.port}" for one in servers]
        made = ["redis-cli", "--cluster", "create", *places, "--cluster-yes", *(["--cluster-replicas", "1"] if replicas else [])]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
        wait_until(lambda: all(b"cluster_state:ok" in one.call("CLUSTER", "INFO") for one in servers), "the cluster is up", 60.0)
        if replicas:
            wait_until(
                lambda: sum("state=online" in one.info.get("slave0", "") for one in servers) == 3, "each primary has its replica", 60.0
            )
        yield Cluster(servers)


@contextmanager
def _node(options: tuple[str, ...]) -> Generator[Server]:
    port, bus = free_port(), free_port()
    with server(*options, "--cluster-port", str(bus), port=port) as one:
        yield one


def _pairs(reply: list[bytes]) -> dict[str, str]:
    words = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))
