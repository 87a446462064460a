"""Runs of several flows, each in a folder of its own, for executors that load flows from their files."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio

from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.store import open_store
from evflow.store.artifacts import save
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.packages import PackagedExecutor
from evflow_executors.protocol import Observation, OutputLine
from tests.fork_bench import a_context

HEAD = "import os, signal, sys, time\nfrom evflow import FlowSpec, step\n"
FLOW = """
class {name}(FlowSpec):
    @step
    def start(self):
        {body}
        sys.stdout.flush()
        os._exit(0)
"""
PATIENCE_S = 60.0


def a_flow(root: Path, folder: str, body: str, *, name: str = "Flow", head: str = "", run: int = 1, **context: Any) -> RunContext:
    """The context of a run of a new flow: `<root>/<folder>/flow.py`, whose step's body is one line and reports nothing."""
    place = root / folder
    place.mkdir(exist_ok=True)
    (place / "flow.py").write_text(HEAD + dedent(head) + FLOW.format(name=name, body=body))
    return a_real_context(root, flow=name, run=run, flow_file=str(place / "flow.py"), **context)


def a_real_context(root: Path, **fields: Any) -> RunContext:
    """A context with a store and a log's address, so that a flow can be run; nobody hears its reports."""
    store = open_store(f"file://{root}/store")
    made = a_context(root, store_url=store.url, parameters=save(store, {}).manifest, log_url=f"unix://{root}/nobody", **fields)
    (root / "locks").mkdir(exist_ok=True)
    return replace(made, lock_file=str(root / "locks" / f"{made.flow}-{made.run}"), options={"report_within_s": 0.0, **made.options})


class PackagedWorld:
    """An executor of many codes, and everything that was seen of it so far."""

    def __init__(self, executor: PackagedExecutor) -> None:
        self.executor = executor
        self.seen: list[Observation | OutputLine] = []
        self._watch = self.executor.watch()

    async def begin(self, context: RunContext, task: int = 1, attempt: int = 0, *, step: str = "start") -> AttemptId:
        """Prepare a run, and launch an attempt of it."""
        await self.executor.prepare(context)
        name = AttemptId(run_of(context), TaskId(task), attempt)
        await self.executor.launch(name, AttemptOrder(step, task, attempt))
        return name

    async def run(self, context: RunContext, task: int = 1) -> str:
        """Run an attempt to its end, and answer what it printed."""
        name = await self.begin(context, task)
        ended = await self.end(name)
        assert ended == AttemptExited(task, 0, 0, None), (ended, self.output(name))
        return self.output(name)

    async def started(self, name: AttemptId) -> AttemptStarted:
        event: AttemptStarted = await self._until(name, lambda event: isinstance(event, AttemptStarted))
        return event

    async def end(self, name: AttemptId) -> AttemptExited | AttemptFailed:
        event: AttemptExited | AttemptFailed = await self._until(name, lambda event: isinstance(event, AttemptExited | AttemptFailed))
        return event

    async def _until(self, name: AttemptId, is_it: Callable[[object], bool]) -> Any:
        checked = 0
        with anyio.fail_after(PATIENCE_S):
            while True:
                for seen in self.seen[checked:]:
                    if seen.attempt == name and isinstance(seen, Observation) and is_it(seen.event):
                        return seen.event
                checked = len(self.seen)
                self.seen.append(await anext(self._watch))

    def output(self, name: AttemptId) -> str:
        return "\n".join(seen.text for seen in self.seen if isinstance(seen, OutputLine) and seen.attempt == name)

    def ends(self, name: AttemptId) -> int:
        return sum(
            isinstance(seen, Observation) and not isinstance(seen.event, AttemptStarted) for seen in self.seen if seen.attempt == name
        )

    async def aclose(self) -> None:
        await self._watch.aclose()
        await self.executor.aclose()


@asynccontextmanager
async def a_packaged_world(*, warm_bytes: int = 2**40, look_every_s: float = 0.01) -> AsyncGenerator[PackagedWorld]:
    world = PackagedWorld(PackagedExecutor(warm_bytes=warm_bytes, look_every_s=look_every_s))
    try:
        yield world
    finally:
        await world.aclose()


def run_of(context: RunContext) -> RunId:
    return RunId.parse(f"{context.flow}/{context.run}")
