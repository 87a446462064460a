"""Real runs for tests: flows as processes, their logs read, verified and forged."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evflow.core.chain import LINK_BYTES, links
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import connect
from evflow.log.embedded import EmbeddedServer
from evflow.log.keys import own_shard, run_keys, shard_keys
from evflow.log.protocol import Head, LogClient, RunEntry, StoredEvent
from evflow.log.wire import Wire

WITHIN_S = 200.0


def python(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=WITHIN_S, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def evflow(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of evflow to its end."""
    return python("-m", "evflow.cli", *arguments, cwd=cwd, **variables)


def verified(run: str, *, cwd: Path | None = None, **variables: str) -> dict[str, Any]:
    """What `evflow replay --verify` says, as it prints it for programs; its exit code is added as `exit`."""
    done = evflow("replay", run, "--verify", "--json", cwd=cwd, **variables)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return {**said, "exit": done.returncode, "stderr": done.stderr}


@dataclass(frozen=True)
class OpenLog:
    """The embedded server's log, and the server itself."""

    client: LogClient
    url: str

    def events(self, run: RunId) -> list[StoredEvent]:
        """All events of a run that has a shard of its own."""
        return self.client.read(own_shard(run), run, 0, 100_000)

    def head(self, run: RunId) -> Head:
        """Where its log ends."""
        return self.client.head(own_shard(run), run)

    @contextmanager
    def lease_kept(self, run: RunId) -> Generator[None]:
        """Let the lease of an owner that is stopped last for the block, however long that takes here; behind it, it ends when it would have ended."""
        key = shard_keys(own_shard(run)).lease
        wire = Wire.connect(self.url)
        try:
            owner, ends = wire.call("HMGET", key, "owner", "expires")
            wire.call("HSET", key, "expires", self.client.now_us() + 250_000_000)
            yield
            if wire.call("HGET", key, "owner") == owner:
                wire.call("HSET", key, "expires", ends)
        finally:
            wire.close()

    def forge(self, run: RunId, events: Sequence[StoredEvent], head: Head) -> None:
        """Write a stream behind the back of evflow, under a run's name that is not taken."""
        keys = run_keys(own_shard(run), run)
        wire = Wire.connect(self.url)
        try:
            wire.pipeline([("XADD", keys.stream, f"{seq}-0", "e", payload, "h", link) for seq, payload, link in events])
            wire.call("HSET", keys.meta, "seq", head.seq, "digest", head.digest, "status", head.status)
        finally:
            wire.close()
        self.client.index_run(RunEntry(run, own_shard(run), {"status": "succeeded", "started_us": 1, "finished_us": 1}))


@contextmanager
def open_log(home: Path) -> Generator[OpenLog]:
    """Join the embedded server, or start it."""
    with EmbeddedServer.begin(home) as server:
        url = server.ready()
        client = connect(url)
        try:
            yield OpenLog(client, url)
        finally:
            client.close()


def run_id(flow: str, number: int = 1) -> RunId:
    """A run's name."""
    return RunId(FlowName(flow), RunNumber(number))


def chained(payloads: Sequence[bytes]) -> tuple[list[StoredEvent], bytes]:
    """A log of these events whose chain holds, and the chain's end."""
    digests = list(links(Head().digest, payloads))
    events = [
        StoredEvent(seq, payload, digest[:LINK_BYTES]) for seq, (payload, digest) in enumerate(zip(payloads, digests, strict=True), 1)
    ]
    return events, digests[-1]
