"""Several schedulers on one real server behind a proxy, work for them, and everything that may happen to them.

Pool workers may join them: what strikes is `Fleet.acts`, who is struck is `Fleet.schedulers`.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Self

import psutil

from evflow import DeployedFlow, Deployer
from evflow.client.connection import disconnect
from evflow.core.ids import FlowName
from evflow.deployments import backfills
from evflow.deployments.catalog import Reference, find
from evflow.log import connect
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import LogClient
from evflow.store import open_store
from tests.chaos.proxy import Proxy
from tests.chaos.tcp_server import TcpServer
from tests.waiting import wait_until

FLOW = FlowName("FleetFlow")
FILE = Path(__file__).parent / "fleet_flow.py"
WITHIN_S = 120.0
SCHEDULERS = 3


class Scheduler:
    """A scheduler's process, and what it says."""

    def __init__(self, root: Path, number: int) -> None:
        self.said = root / f"scheduler-{number}"
        with self.said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evflow.cli", "scheduler", "--max-workers", "3"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM: it ends in order, unless it has not begun."""
        begun = b"share changes" in self.said.read_bytes()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WITHIN_S)
        assert code == 0 or (not begun and code == -signal.SIGTERM), (code, self.said.read_text()[-5_000:])

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class Fleet:
    """The world of a test: servers, proxy, schedulers, work.

    Args:
        root: The test's folder.
        random: Where everything that happens comes from.
        loses: Fail-overs lose what had been acknowledged.
    """

    def __init__(self, root: Path, random: Random, *, loses: bool = False) -> None:
        self.root = root
        self.random = random
        self.book = root / "book"
        self.book.mkdir()
        self.server, self.replica = TcpServer(root / "server-a"), TcpServer(root / "server-b")
        self.schedulers: list[Scheduler] = []
        self.happened: list[str] = []
        self.unknown = 0  # requests of which nobody knows whether they arrived
        self.lost_bytes = 0
        self._begun = 0
        self._over = threading.Event()
        self._asking = threading.Thread(target=self._ask, name="requests")
        self.acts: list[Callable[[], None]] = [
            self.kill_scheduler, self.pause_scheduler, self.drain_scheduler, self.cut, self.lose_replies, self.kill_server, self.fill_up,
        ]  # fmt: skip
        if loses:
            self.acts += [self.fail_over, self.fail_over, self.fail_over]

    def __enter__(self) -> Self:
        self.server.start()
        self.replica.start(self.server)
        self._proxy = Proxy(self.server.port).__enter__()
        self.url = os.environ["EVFLOW_REDIS_URL"] = f"redis://127.0.0.1:{self._proxy.port}"  # put back after the test
        os.environ["CHAOS_BOOK"] = str(self.book)
        folder = self.root / "flows"
        folder.mkdir()
        shutil.copy(FILE, folder / "flow.py")
        self.deployed = Deployer(folder / "flow.py", show_output=False).scheduler().create()
        for _ in range(SCHEDULERS):
            self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._asking.is_alive():
            self._asking.join()
        disconnect()
        for scheduler in self.schedulers:
            scheduler.kill()
        self._proxy.__exit__()
        self.server.kill()
        self.replica.kill()

    def log(self) -> "closing[LogClient]":
        """A connection past the proxy."""
        return closing(connect(f"redis://127.0.0.1:{self.server.port}"))

    # --- the work ------------------------------------------------------------------------------------------

    def begin(self, minutes: int) -> None:
        """Ask for a backfill of so many minutes, and for runs from then on, a few a second."""
        with self.log() as log:
            deployment = find(log, Reference(FLOW))
            now = datetime.fromtimestamp(log.now_us() / 1e6, UTC)
            since, until = ((now - timedelta(minutes=ago)).isoformat() for ago in (minutes + 5, 6))
            wish = backfills.Wish(since, until, max_parallel=4, user="ada", host="box")
            store = open_store(deployment.store)
            planned = backfills.plan(Reference(FLOW), deployment, wish, store, log.now_us())
            backfills.request(log, FLOW, planned, user="ada")
        self._asking.start()

    def _ask(self) -> None:
        """Somebody who asks for runs and does not ask again where it is not known whether one was asked for."""
        while not self._over.wait(self.random.uniform(0.3, 1.2)):
            try:
                DeployedFlow.from_deployment(FLOW).trigger()
            except LogUnavailable:
                self.unknown += 1

    def calm_down(self) -> None:
        """Let everything work again, and ask for nothing more."""
        self._over.set()
        self._asking.join()
        self.happened.append("calm")
        while sum(scheduler.alive for scheduler in self.schedulers) < SCHEDULERS:
            self.start_scheduler()
        self.deployed.pause()

    def end(self) -> None:
        """Stop the schedulers; each ends in order."""
        for scheduler in self.schedulers:
            if scheduler.alive:
                scheduler.stop()

    def story(self) -> str:
        """What happened, for a test that failed."""
        return ", ".join(self.happened)

    # --- what happens --------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Let something happen."""
        act = self.random.choice(self.acts)
        self.happened.append(act.__name__)
        act()
        while len(self.living) < SCHEDULERS:
            self.start_scheduler()

    @property
    def living(self) -> list[Scheduler]:
        """The schedulers that have not ended."""
        return [scheduler for scheduler in self.schedulers if scheduler.alive]

    def start_scheduler(self) -> None:
        """Start one more."""
        self.schedulers.append(Scheduler(self.root, self._begun))
        self._begun += 1

    def kill_scheduler(self) -> None:
        """Kill -9 of one."""
        self.random.choice(self.living).kill()

    def drain_scheduler(self) -> None:
        """SIGTERM for one: what runs ends, the rest is handed over."""
        self.random.choice(self.living).stop()

    def pause_scheduler(self) -> None:
        """Let one sleep, for less or for longer than its leases last."""
        scheduler = self.random.choice(self.living)
        scheduler.process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.choice((0.5, 3.0, 6.5)))
        scheduler.process.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        """End all connections, one after the other a few times."""
        for _ in range(self.random.randint(1, 5)):
            self._proxy.cut()
            time.sleep(self.random.uniform(0, 0.3))

    def lose_replies(self) -> None:
        """Commands arrive, their replies do not; then the connections end."""
        self._proxy.lose_replies()
        time.sleep(self.random.uniform(0.05, 2.0))
        self._proxy.cut()

    def kill_server(self) -> None:
        """Kill -9 of the server, which comes back with what its file holds: all that it acknowledged."""
        self.server.kill()
        time.sleep(self.random.uniform(0, 1.0))
        self.server.start()
        wait_until(lambda: "master_link_status:up" in self.replica.info(), "the replica is there again")

    def fill_up(self) -> None:
        """No memory is left for writes, for a while."""
        self.server.call("CONFIG", "SET", "maxmemory", "1mb")
        time.sleep(self.random.uniform(0.2, 2.5))
        self.server.call("CONFIG", "SET", "maxmemory", "0")

    def fail_over(self) -> None:
        """The replica takes over without the last writes, which the server had acknowledged."""
        self.replica.promote()
        time.sleep(self.random.uniform(0.0, 0.5))
        self.lost_bytes += self.server.written() - self.replica.written()
        self.server.kill()
        self._proxy.lead_to(self.replica.port)
        self.server, self.replica = self.replica, self.server
        self.replica.start(self.server)


def processes_of(root: Path) -> list[psutil.Process]:
    """What a test started and still lives."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("CHAOS_BOOK") == str(root / "book"):
                found.append(process)
    return found
