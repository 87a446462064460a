"""Schedulers and workers of a pool on one real server behind a proxy, work for them, and everything that may happen to them.

What strikes is `Fleet.acts`, who is struck is `Fleet.schedulers` and `Fleet.workers`.
"""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Self, TypeVar

import psutil

from evflow import DeployedFlow, Deployer
from evflow.client.connection import disconnect
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments import backfills
from evflow.deployments.catalog import Reference, find
from evflow.log import connect, pools
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import LogClient
from evflow.store import open_store
from tests.chaos.members import Member, Scheduler, Worker
from tests.chaos.proxy import Proxy
from tests.chaos.tcp_server import TcpServer
from tests.waiting import wait_until

FLOW = FlowName("FleetFlow")
FILE = Path(__file__).parent / "fleet_flow.py"
POOL = "crew"
SCHEDULERS = 3
WORKERS = 4
PATIENCE_S = 5.0
"""Of a worker: the default."""
_TRIES = 3
T = TypeVar("T")
M = TypeVar("M", bound=Member)


class Fleet:
    """The world of a test: servers, proxy, schedulers, work.

    Args:
        root: The test's folder.
        random: Where everything that happens comes from.
    """

    def __init__(self, root: Path, random: Random) -> None:
        self.root = root
        self.random = random
        self.book = root / "book"
        self.book.mkdir()
        self.server, self.replica = TcpServer(root / "server-a"), TcpServer(root / "server-b")
        self.schedulers: list[Scheduler] = []
        self.workers: list[Worker] = []
        self.happened: list[str] = []
        self._moments: list[str] = []
        self.unknown = 0  # requests of which nobody knows whether they arrived
        self.may_have_twins: set[str] = set()  # names of tasks
        self.torn: list[tuple[int, int]] = []  # spans, in microseconds, in which two servers took writes
        self.proxies: list[Proxy] = []
        self._over = threading.Event()
        self._asking = threading.Thread(target=self._ask, name="requests")
        self.acts: list[Callable[[], None]] = [
            self.kill_scheduler, self.pause_scheduler, self.drain_scheduler, self.kill_worker, self.kill_worker, self.pause_worker,
            self.drain_worker, self.cut, self.lose_replies, self.kill_server, self.fill_up,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        os.environ["EVFLOW_REDIS_URL"] = self.start_servers()  # put back after the test
        os.environ["CHAOS_BOOK"] = str(self.book)
        folder = self.root / "flows"
        folder.mkdir()
        shutil.copy(FILE, folder / "flow.py")
        self.deployed = Deployer(folder / "flow.py", show_output=False).scheduler().create()
        self.fill_up_ranks()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._asking.is_alive():
            self._asking.join()
        disconnect()
        for member in self.members:
            member.kill()
        for proxy in self.proxies:
            proxy.__exit__()
        self.server.kill()
        self.replica.kill()

    def start_servers(self) -> str:
        """Start a server and its replica; answers the URL at which evflow finds them."""
        self.server.start()
        self.replica.start(self.server)
        self.replica.follow_up()
        self.proxies = [Proxy(self.server.port).__enter__()]
        return f"redis://127.0.0.1:{self.proxies[0].port}"

    def log(self) -> "closing[LogClient]":
        """A connection past the proxy."""
        return closing(connect(f"redis://127.0.0.1:{self.server.port}"))

    def settle(self) -> None:
        """Wait until it is known which server is the primary: here there is one."""

    def ask(self, question: Callable[[LogClient], T]) -> T:
        """Ask the log; once more where a fail-over cut the connection: on a busy machine one comes that nobody ordered."""
        for _ in range(_TRIES):
            self.settle()
            with suppress(LogUnavailable), self.log() as log:
                return question(log)
        with self.log() as log:
            return question(log)

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
        names = (f"request-{number}" for number in count())
        while not self._over.wait(self.random.uniform(0.3, 1.2)):
            try:
                DeployedFlow.from_deployment(FLOW).trigger(tags=[next(names)])
            except LogUnavailable:
                self.unknown += 1

    def calm_down(self) -> None:
        """Let everything work again, and ask for nothing more."""
        self._over.set()
        self._asking.join()
        self._note("calm")
        self.fill_up_ranks()
        self.deployed.pause()

    def end(self) -> None:
        """Stop schedulers and workers; each ends in order."""
        for member in living(self.members):
            member.stop()

    def story(self) -> str:
        """What happened, for a test that failed."""
        return ", ".join(self._moments)

    def _note(self, act: str) -> None:
        self.happened.append(act)
        self._moments.append(f"{datetime.now(UTC):%H:%M:%S.%f} {act}")

    def twins(self) -> str:
        """What bodies that ran beside a twin noted, and what was said of their runs, for a test that failed."""
        found = sorted(path.stem for path in self.book.glob("*.twin"))  # RUN.TASK.WHOSE
        noted = [f"--- {name}\n{(self.book / name).read_text()}" for name in found]
        runs = {RunId(FLOW, RunNumber(int(name.partition(".")[0]))) for name in found}
        return "\n".join([*noted, self.last_lines(sorted(runs), 0)]) if found else ""

    def last_lines(self, runs: Sequence[object] = (), lines: int = 8) -> str:
        """What each member said last, and all that it said of some runs, for a test that failed."""
        names = [f'"{run}"' for run in runs]
        told: list[str] = []
        for member in self.members:
            said = member.said.read_text().splitlines()
            about = [line for line in said[: len(said) - lines] if any(name in line for name in names)]
            told += [
                f"--- {member.name}, {'living' if member.process.poll() is None else member.process.poll()}",
                *about,
                *said[len(said) - lines :],
            ]
        return "\n".join(told)

    def tally(self) -> str:
        """How often what happened, for people."""
        return ", ".join(f"{times} x {act.replace('_', ' ')}" for act, times in sorted(Counter(self.happened).items()) if act != "calm")

    # --- what happens --------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Let something happen."""
        act = self.random.choice(self.acts)
        self._note(act.__name__)
        act()
        self.fill_up_ranks()

    @property
    def members(self) -> list[Member]:
        """All processes of evflow that were ever started."""
        return [*self.schedulers, *self.workers]

    def fill_up_ranks(self) -> None:
        """Start as many schedulers and workers as are missing."""
        while len(living(self.schedulers)) < SCHEDULERS:
            self.schedulers.append(Scheduler(self.root, len(self.schedulers)))
        while len(living(self.workers)) < WORKERS:
            self.workers.append(Worker(self.root, len(self.workers)))

    def kill_scheduler(self) -> None:
        """Kill -9 of one."""
        self.random.choice(living(self.schedulers)).kill()

    def drain_scheduler(self) -> None:
        """SIGTERM for one: what runs ends, the rest is handed over."""
        self.random.choice(living(self.schedulers)).stop()

    def pause_scheduler(self) -> None:
        """Let one sleep, for less or for longer than its leases last."""
        scheduler = self.random.choice(living(self.schedulers))
        scheduler.process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.choice((0.5, 3.0, 6.5)))
        scheduler.process.send_signal(signal.SIGCONT)

    def kill_worker(self) -> None:
        """Kill -9 of one; what it runs dies with it."""
        self.random.choice(living(self.workers)).kill()

    def drain_worker(self) -> None:
        """SIGTERM for one: what it runs ends."""
        self.random.choice(living(self.workers)).stop()

    def pause_worker(self) -> None:
        """Let one sleep, for less or for longer than it may be silent; what it runs goes on."""
        worker, length_s = self.random.choice(living(self.workers)), self.random.choice((0.5, 3.0, 6.5))
        since_s = time.monotonic()
        worker.process.send_signal(signal.SIGSTOP)
        claimed = self.claimed(worker)
        time.sleep(length_s)
        worker.process.send_signal(signal.SIGCONT)
        if (
            time.monotonic() - since_s > PATIENCE_S - 1
        ):  # on a busy machine a shorter sleep, too: it cannot end what it runs, which others may begin: a known flaw
            self.may_have_twins |= claimed

    def claimed(self, worker: Worker | None = None) -> set[str]:
        """The tasks that a worker, or any, has claimed."""
        with self.log() as log:
            picture = pools.ask(log.url, pools.picture(POOL))
        mine = f":{worker.process.pid}:" if worker is not None else ""
        return {attempt.rpartition(".")[0] for attempt, (name, _) in picture.running.items() if mine in name}

    def cut(self) -> None:
        """End all connections, one after the other a few times."""
        for _ in range(self.random.randint(1, 5)):
            self._cut()
            time.sleep(self.random.uniform(0, 0.3))

    def lose_replies(self) -> None:
        """Commands arrive, their replies do not; then the connections end."""
        for proxy in self.proxies:
            proxy.lose_replies()
        time.sleep(self.random.uniform(0.05, 2.0))
        self._cut()

    def _cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut()

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


def living(members: Iterable[M]) -> list[M]:
    """Those that have not ended."""
    return [member for member in members if member.alive]


def processes_of(root: Path) -> list[psutil.Process]:
    """What a test started and still lives."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("CHAOS_BOOK") == str(root / "book"):
                found.append(process)
    return found
