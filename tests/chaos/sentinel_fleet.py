"""A fleet whose servers are watched by three Sentinels: they do the fail-overs, and evflow finds the server by them alone.

Each server stands behind a proxy of its own, and is known to everybody, its replica and the Sentinels as well, at the proxy's port. So
a proxy that loses replies may make the Sentinels take a living server for dead.
"""

import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from evflow.clock import now_us
from tests.chaos.fleet import Fleet
from tests.chaos.members import Worker
from tests.chaos.proxy import Proxy
from tests.chaos.tcp_server import TcpServer
from tests.redis_groups import SHORT_DISTRUST
from tests.waiting import wait_until

SERVICE = "main"
SENTINELS = 3
DOWN_AFTER_MS = 1_000
"""Of silence, after which a Sentinel takes a server for dead."""
_WITHIN_S = 60.0
_CALM_MS = "600000"
_LONG_MS = "60000"
"""Longer than a strike takes: writes wait until the server is dead, or until they are let go on."""


class Sentinel(TcpServer):
    """A Sentinel's process."""

    def watch(self, server: TcpServer, replica: TcpServer) -> None:
        """Begin to watch a server that has a replica."""
        self._file = self.folder / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\ndir {self.folder}\nsentinel monitor {SERVICE} 127.0.0.1 {server.known_as} 2\n"
            f"sentinel known-replica {SERVICE} 127.0.0.1 {replica.known_as}\n"  # else it takes ten seconds to hear of it
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\nsentinel failover-timeout {SERVICE} 4000\n"
        )
        self.restart()

    def restart(self) -> None:
        """Start it on its file, in which it keeps what it knows."""
        self._process = subprocess.Popen(
            ["redis-server", str(self._file), "--sentinel"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(self.answers, "the Sentinel answers")
        self.call(*SHORT_DISTRUST)

    def primary(self) -> int:
        """The port of the server that it takes for the primary."""
        named = self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(named, list)
        return int(named[1])

    def others(self) -> int:
        """How many other Sentinels it knows."""
        said = self.call("SENTINEL", "SENTINELS", SERVICE)
        assert isinstance(said, list)
        return len(said)


class SentinelFleet(Fleet):
    """See the module.

    Attributes:
        fail_overs: How often another server became the primary.
        lost_bytes: What had been acknowledged and was lost by fail-overs, at least.
    """

    def __init__(self, root: Path, random: Random) -> None:
        super().__init__(root, random)
        self.sentinels = [Sentinel(root / f"sentinel-{number}") for number in range(SENTINELS)]
        self.fail_overs = 0
        self.lost_bytes = 0
        self.acts += [self.fail_over, self.fail_over, self.fail_over, self.pause_server, self.kill_sentinel]

    def start_servers(self) -> str:
        """See the base."""
        self.proxies = [Proxy(one.port).__enter__() for one in (self.server, self.replica)]
        for one, proxy in zip((self.server, self.replica), self.proxies, strict=True):
            one.known_as = proxy.port
        self.server.start()
        self.replica.start(self.server)
        self.replica.follow_up()
        for sentinel in self.sentinels:
            sentinel.watch(self.server, self.replica)
        wait_until(lambda: all(one.others() == SENTINELS - 1 for one in self.sentinels), "the Sentinels know each other", _WITHIN_S)
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for sentinel in self.sentinels:
            sentinel.kill()

    def calm_down(self) -> None:
        """See the base. From now on the Sentinels take no server for dead: what a fail-over lost after the last owner's end nobody could write again."""
        self.settle()
        for sentinel in self.sentinels:
            sentinel.call("SENTINEL", "SET", SERVICE, "down-after-milliseconds", _CALM_MS)
        self.settle()
        super().calm_down()

    def fail_over(self) -> None:
        """The server dies while its replica does not hear it: what it acknowledged meanwhile is lost. The Sentinels promote the replica."""
        self.settle()
        self.may_have_twins |= self.claimed()
        self.replica.pause()
        # Cut, or what the stopped replica is sent would lie in its socket.
        self.server.call("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(self.random.uniform(0.05, 0.5))
        written = self.server.written()
        self.server.call("CLIENT", "PAUSE", _LONG_MS, "WRITE")  # a claim behind this look would be lost, and nobody would know of it
        self.may_have_twins |= super().claimed()
        self.server.kill()
        self.replica.resume()
        self.lost_bytes += max(0, written - self.replica.written())
        wait_until(lambda: self._agreed() == self.replica.known_as, "the Sentinels promote the replica", _WITHIN_S)
        self._swap()
        self.replica.start(self.server)
        self.settle()  # on a busy machine the Sentinels may already think otherwise

    def pause_server(self) -> None:
        """The server sleeps for less or for longer than the Sentinels wait; in the second case it wakes up as a primary beside another."""
        self.settle()
        self.server.call("CLIENT", "PAUSE", _LONG_MS, "WRITE")
        self.may_have_twins |= super().claimed()
        self.server.pause()
        time.sleep(self.random.choice((0.5, 3.0)))
        awake_us = now_us()
        self.server.resume()
        self.server.call("CLIENT", "UNPAUSE")
        self.settle()
        self.torn.append((awake_us, now_us()))

    def kill_sentinel(self) -> None:
        """Kill -9 of one, which comes back."""
        sentinel = self.random.choice(self.sentinels)
        sentinel.kill()
        time.sleep(self.random.uniform(0, 1.0))
        sentinel.restart()

    def kill_server(self) -> None:
        """See the base; where it takes long, the Sentinels promote the replica meanwhile."""
        self.settle()
        self.server.call("CLIENT", "PAUSE", _LONG_MS, "WRITE")  # as in `fail_over`: the replica may not have had the last claims
        self.may_have_twins |= super().claimed()
        self.server.kill()
        time.sleep(self.random.uniform(0, 1.5))
        back_us = now_us()
        self.server.start()
        self.settle()
        self.torn.append((back_us, now_us()))  # as one that slept

    def lose_replies(self) -> None:
        """See the base."""
        self.may_have_twins |= self.claimed()
        super().lose_replies()

    def claimed(self, worker: Worker | None = None) -> set[str]:
        """See the base."""
        self.settle()
        return super().claimed(worker)

    def tally(self) -> str:
        """See the base."""
        return f"{super().tally()}; {self.fail_overs} fail-overs in all, which lost {self.lost_bytes} bytes at least"

    def settle(self) -> None:
        """Wait until all Sentinels name one primary, which has the other server for a replica."""
        wait_until(self._is_settled, "one primary, and the other server follows it", _WITHIN_S)
        if self._agreed() != self.server.known_as:
            self._swap()

    def _swap(self) -> None:
        self.server, self.replica = self.replica, self.server
        self.fail_overs += 1
        self._moments.append(f"{datetime.now(UTC):%H:%M:%S.%f} another primary")

    def _agreed(self) -> int | None:
        named = {sentinel.primary() for sentinel in self.sentinels}
        return named.pop() if len(named) == 1 else None

    def _is_settled(self) -> bool:
        primary = self._agreed()
        if primary is None:
            return False
        server, replica = (self.server, self.replica) if primary == self.server.known_as else (self.replica, self.server)
        follows = "role:master" in server.info() and "state=online" in server.info()
        return follows and "role:slave" in replica.info() and "master_link_status:up" in replica.info()
