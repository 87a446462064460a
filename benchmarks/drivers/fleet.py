"""An embedded server, schedulers and workers beside it, for the drivers in this folder: they are copied beside a flow and run there.

A driver is a client in a process of its own, as a user's would be. It prints its readings as JSON.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from evflow import config
from evflow.core.ids import FlowName
from evflow.log import connect, pools
from evflow.log.embedded import EmbeddedServer
from evflow.log.keys import shared_shards

SLOTS = 16
"""Attempts at once; as many as Temporal's worker has threads."""
EVFLOW = [sys.executable, "-m", "evflow.cli"]
WITHIN_S = 120.0


class Fleet(AbstractContextManager["Fleet"]):
    """A log and what works on it, until the end of a ``with`` block.

    Attributes:
        log: Looks at the log.
        said: What schedulers and workers wrote on stderr.
    """

    def __init__(self, durability: str | None = None) -> None:
        self._stack = ExitStack()
        server = self._stack.enter_context(EmbeddedServer.begin(config.home(), durability=durability))
        self.log = connect(server.ready())
        self._stack.callback(self.log.close)
        self.said = Path("fleet.log")

    def __exit__(self, *_: object) -> None:
        """End everything, the newest first."""
        self._stack.close()

    def deploy(self, *options: str, file: str = "flow.py") -> None:
        """Deploy a flow of this folder."""
        subprocess.run([sys.executable, file, "deploy", *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def scheduler(self, *options: str, slots: int = SLOTS) -> subprocess.Popen[bytes]:
        """Start a scheduler; returns when it owns all shards."""
        process = self.start("scheduler", "--max-workers", str(slots), *options)
        wait_for(lambda: self.owned_by(process.pid) == len(shared_shards()), "a scheduler owns all shards")
        return process

    def worker(self, pool: str, *options: str, slots: int = SLOTS) -> subprocess.Popen[bytes]:
        """Start a worker of a pool; returns when it is there."""
        process = self.start("worker", "--pool", pool, "--slots", str(slots), *options)
        wait_for(lambda: bool(pools.ask(self.log.url, pools.picture(pool)).workers), "a worker is there")
        return process

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process of ours, which is killed at the end."""
        with self.said.open("ab") as said:
            process = subprocess.Popen([*EVFLOW, *command], stdout=said, stderr=said, start_new_session=True)
        self._stack.callback(end, process)
        return process

    def owned_by(self, pid: int) -> int:
        """How many shards a process owns."""
        owners = (self.log.owner(shard) for shard in shared_shards())
        return sum(f":{pid}:" in owner[0] for owner in owners if owner is not None)

    def succeeded(self, flow: str) -> int:
        """How many runs of a flow have ended well.

        Raises:
            RuntimeError: One ended otherwise.
        """
        statuses = [run.summary["status"] for run in self.log.runs(FlowName(flow))]
        if {"failed", "cancelled"} & set(statuses):
            raise RuntimeError(f"a run of {flow} failed: {self.said.read_text()[-2000:]}")
        return statuses.count("succeeded")

    def stamps(self, word: str) -> list[float]:
        """When bodies stamped a word, in seconds of the monotonic clock."""
        file = Path(os.environ["BENCH_STAMPS"])
        lines = file.read_text().splitlines() if file.exists() else []
        return [int(line.split()[1]) / 1e9 for line in lines if line.startswith(f"{word} ")]


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a process of ours end; kill it where it does not."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(holds: Callable[[], bool], what: str, within_s: float = WITHIN_S, every_s: float = 0.02) -> None:
    """Look until something holds.

    Raises:
        TimeoutError: It did not, in time.
    """
    deadline_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(every_s)
