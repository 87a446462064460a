"""Attempts of a real flow: its file, a fork server that loads it, a real log and store, and what came of each attempt."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from evflow.core.codec import decode_report
from evflow.core.events import AttemptExited, AttemptFailed, AttemptSucceeded
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.log import connect
from evflow.log.embedded.server import EmbeddedServer
from evflow.log.keys import shard_keys
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView, save
from evflow.worker.forkserver import ForkServer
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.local import LocalExecutor
from evflow_executors.protocol import OutputLine

HEAD = "import os, signal, subprocess, sys, time\nfrom evflow import FlowSpec, catch, current, environment, retry, step\n"
FOOT = '\nif __name__ == "__main__":\n    MyFlow()\n'
SHARD = "run:MyFlow:1"
RUN = RunId(FlowName("MyFlow"), RunNumber(1))


@dataclass(frozen=True)
class Ended:
    """What came of an attempt."""

    exit: AttemptExited
    report: AttemptSucceeded | AttemptFailed | None
    stdout: str
    stderr: str

    @property
    def succeeded(self) -> AttemptSucceeded:
        assert isinstance(self.report, AttemptSucceeded), (self.report, self.exit, self.stderr)
        return self.report

    @property
    def failed(self) -> AttemptFailed:
        assert isinstance(self.report, AttemptFailed), (self.report, self.exit, self.stderr)
        return self.report


class AttemptWorld:
    """A run's surroundings, and an executor that is driven attempt by attempt."""

    def __init__(self, root: Path, server: EmbeddedServer, steps: str, method: str, options: dict[str, Any]) -> None:
        self.folder = root / "w"
        self.flow_file = self.folder / "flow.py"
        self.flow_file.write_text(HEAD + dedent(steps) + FOOT)
        self.server = server
        self.url = server.ready()
        self.store = open_store(f"file://{root}/store")
        self.client = connect(self.url)
        (root / "logs").mkdir()
        self.context = RunContext(
            flow="MyFlow", run=1, flow_file=str(self.flow_file), shard=SHARD, log_url=self.url, store_url=self.store.url,
            parameters=save(self.store, {}).manifest, user="ada", namespace="user:ada", tags=("a-tag",),
            lock_file=str(root / "locks"), log_folder=str(root / "logs"), options=options,
        )  # fmt: skip
        self.executor = LocalExecutor(ForkServer.start(method))
        self.watch = self.executor.watch()

    async def launch(self, step: str, task: int = 1, attempt: int = 0, **order: Any) -> AttemptId:
        name = AttemptId(RUN, TaskId(task), attempt)
        await self.executor.launch(name, AttemptOrder(step, task, attempt, **order))
        return name

    async def run(self, step: str, task: int = 1, attempt: int = 0, **order: Any) -> Ended:
        """Run one attempt to its end."""
        return await self.end_of(await self.launch(step, task, attempt, **order))

    async def end_of(self, name: AttemptId) -> Ended:
        lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        async for seen in self.watch:
            if seen.attempt != name:
                continue
            if isinstance(seen, OutputLine):
                lines[seen.stream].append(seen.text)
            elif isinstance(seen.event, AttemptExited):
                return Ended(seen.event, self.report_of(name), "\n".join(lines["stdout"]), "\n".join(lines["stderr"]))
        raise AssertionError("the executor was closed")

    async def line_of(self, name: AttemptId) -> str:
        """The attempt's next line."""
        async for seen in self.watch:
            if seen.attempt == name and isinstance(seen, OutputLine):
                return seen.text
        raise AssertionError("the executor was closed")

    def reports(self) -> list[tuple[AttemptId, AttemptSucceeded | AttemptFailed]]:
        """All reports in the inbox."""
        from evflow.log import commands

        found: list[tuple[AttemptId, AttemptSucceeded | AttemptFailed]] = []
        if not self.client._connected().call("EXISTS", shard_keys(SHARD).inbox):
            return found
        for inbound in self.client._do(commands.receive(SHARD, b"0", 0.1)):
            event, _ = decode_report(inbound.payload)
            assert isinstance(event, AttemptSucceeded | AttemptFailed)
            found.append((AttemptId(RunId.parse(inbound.run), TaskId(event.task), event.attempt), event))
        return found

    def kill_server(self) -> None:
        """Kill the log's server as a machine's failure would."""
        info: bytes = self.client._connected().call("INFO", "server")
        [pid] = [int(line.partition(b":")[2]) for line in info.splitlines() if line.startswith(b"process_id:")]
        os.kill(pid, signal.SIGKILL)
        self.client.close()

    def report_of(self, name: AttemptId) -> AttemptSucceeded | AttemptFailed | None:
        mine = [event for attempt, event in self.reports() if attempt == name]
        assert len(mine) <= 1, "one attempt, one report"
        return mine[0] if mine else None

    def artifacts(self, manifest: bytes) -> dict[str, Any]:
        view = ArtifactView.open(self.store, manifest)
        return {name: view.load(name) for name in view.names()}


@asynccontextmanager
async def an_attempt_world(
    root: Path, steps: str, *, method: str = "fork", options: dict[str, Any] | None = None
) -> AsyncGenerator[AttemptWorld]:
    server = EmbeddedServer.begin(root / "e", linger_s=0)
    world = AttemptWorld(root, server, steps, method, options or {})
    try:
        await world.executor.prepare(world.context)
        yield world
    finally:
        await world.watch.aclose()
        await world.executor.aclose()
        world.client.close()
        server.release()
