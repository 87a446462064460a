"""Runs that are written event by event into a real log, with real artifacts, for whoever reads them.

world = ClientWorld(home)                        # an embedded server and a store under EVFLOW_HOME
run = world.run(CROSS_VALIDATION)                # a run of it that has started
run.succeed(1, "train", kind="foreach", items=[10, 20], values={"folds": [10, 20]})
run.fail(2, "ValueError", "nope")
run.publish()                                    # what happened so far stands in the log
run.seal()
"""

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import anyio

from evflow import namespace
from evflow.client import namespaces
from evflow.client.connection import disconnect
from evflow.core import events as ev, flow_events
from evflow.core.graph import Graph, Node, Policy
from evflow.core.ids import FlowName, RunId
from evflow.core.summary import summary
from evflow.log import connect, open_event_log
from evflow.log.embedded import EmbeddedServer
from evflow.log.keys import own_shard
from evflow.log.protocol import RunEntry
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView, Code, pack_items, save
from evflow.store.logs import make_folder
from evflow_scheduler.run import OwnedRun

NOON_US = 1_795_435_200_000_000
"""2026-11-23 12:00:00 UTC."""
SECOND = 1_000_000
HOST = os.uname().nodename


def graph(*nodes: Node) -> Graph:
    """A graph of these nodes, in their order."""
    return Graph({node.name: node for node in nodes})


def cross_validation(catch: bool = False, retries: int = 0) -> Graph:
    """start -> foreach train -> join -> end."""
    policy = Policy(catch=catch, catch_var="error" if catch else None, retry_times=retries, retry_explicit=bool(retries))
    return graph(
        Node("start", "foreach", ("train",), foreach="folds"),
        Node("train", "linear", ("join",), policy=policy),
        Node("join", "join", ("end",), takes_inputs=True),
        Node("end", "end", policy=Policy(catch=catch)),
    )


DIAMOND = graph(
    Node("start", "split", ("left", "right")),
    Node("left", "linear", ("join",)),
    Node("right", "linear", ("join",)),
    Node("join", "join", ("end",), takes_inputs=True),
    Node("end", "end"),
)
LINE = graph(Node("start", "linear", ("end",)), Node("end", "end"))


class WrittenRun:
    """A run that is told what happens in it."""

    def __init__(self, world: "ClientWorld", run: RunId, started: ev.RunStarted) -> None:
        self.world = world
        self.id = run
        self.now_us = NOON_US + run.number * 3600 * SECOND
        self._host = started.host
        self._owned = OwnedRun(run)
        self._turn(started)

    @property
    def pathspec(self) -> str:
        """`Flow/3`."""
        return str(self.id)

    def succeed(
        self,
        task: int,
        *steps: str,
        kind: str = "linear",
        values: Mapping[str, Any] | None = None,
        items: Iterable[Any] | None = None,
        caught: str | None = None,
        package: bytes | None = None,
    ) -> Self:
        """The task's attempt ends well, one second later; no steps mean the end."""
        store = self.world.store
        state = self._owned.state
        parent = state.tasks[state.tasks[task].parent]
        inherited = None if state.graph[state.tasks[task].step].takes_inputs else ArtifactView.open(store, parent.manifest or b"")
        saved = save(store, values or {}, inherited, code=Code("flow.py", package))
        packed, splits = pack_items(store, items) if items is not None else (None, 0)
        self.now_us += SECOND
        return self._turn(
            ev.AttemptSucceeded(
                task, self._attempt(task), saved.manifest, kind if steps else "end", steps, splits, packed,
                "folds" if packed else None, caught, saved.artifacts, saved.size_bytes, self.now_us - SECOND, self.now_us,
            )
        )  # fmt: skip

    def fail(self, task: int, error: str = "ValueError", message: str = "nope", traceback: str = "") -> Self:
        """The task's attempt raises."""
        detail = self.world.store.put([traceback.encode()]) if traceback else None
        self.now_us += SECOND
        return self._turn(ev.AttemptFailed(task, self._attempt(task), "exception", error, message, "flow.py:7", detail))

    def exit(self, task: int, *, signal: int | None = None, code: int | None = None) -> Self:
        """The task's process ends without a report."""
        self.now_us += SECOND
        return self._turn(ev.AttemptExited(task, self._attempt(task), code, signal))

    def print(self, task: int, text: str, stream: str = "o") -> Self:
        """The task's attempt prints a line."""
        folder = Path(make_folder(self.world.store.url, self.id))
        with (folder / f"{task}.{self._attempt(task)}.log").open("a") as log:
            log.write(f"{self.now_us} {stream} {text}\n")
        return self

    def cancel(self) -> Self:
        """Somebody cancels the run, and its attempts end."""
        self._turn(ev.RunCancelRequested("Ctrl-C"))
        for task in list(self._owned.state.live):
            self.exit(task, signal=15)
        return self

    def seal(self) -> Self:
        """End the log, and publish it."""
        self._owned.seal(self.now_us)
        return self.publish()

    def publish(self, *, owned: bool = False, owner: str = "test") -> Self:
        """Put everything that happened into the log, and the run's line into the index.

        Args:
            owned: The run's owner goes on living, or its lease holds.
            owner: The owner's name.
        """
        anyio.run(self._append, owned, owner)
        return self

    async def _append(self, owned: bool, owner: str) -> None:
        log = await open_event_log(self.world.url)
        try:
            lease = await log.take(own_shard(self.id), owner, 60)
            for call in self._owned.pending((), {}):
                await log.append(lease, call)
            self._owned.appended()
            await log.index_run(RunEntry(self.id, own_shard(self.id), summary(self._owned.state)))
            if not owned:
                await log.release(lease)
        finally:
            await log.aclose()

    def _attempt(self, task: int) -> int:
        return self._owned.state.tasks[task].attempt.number

    def _turn(self, *facts: ev.Event) -> Self:
        """A turn of these facts, then turns for the slots that they freed, until nothing follows."""
        while True:
            self._owned.turn([(fact, "test", 0) for fact in facts], self.now_us)
            facts = self._grants()
            if not facts:
                return self

    def _grants(self) -> tuple[ev.Event, ...]:
        state = self._owned.state
        free = [] if state.stopping else list(state.waiting)
        granted: list[ev.Event] = [ev.SlotGranted(task, self._attempt(task), slot) for slot, task in enumerate(free)]
        started = [task for task in state.live if state.tasks[task].status == "launched"]
        return (*granted, *(ev.AttemptStarted(task, self._attempt(task), self._host, 4000 + task, self.now_us) for task in started))


class ClientWorld:
    """A log and a store.

    Attributes:
        home: EVFLOW_HOME.
        url: The log's.
        store: The store below the home.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.home = home
        self._server = EmbeddedServer.begin(home) if url is None else None
        self.url: str = url or (self._server.ready() if self._server is not None else "")
        self.store = open_store(str(home / "store"))

    def close(self) -> None:
        """Leave the server."""
        if self._server is not None:
            self._server.release()

    def run(
        self,
        shape: Graph = LINE,
        *,
        flow: str = "TrainFlow",
        user: str = "ada",
        tags: tuple[str, ...] = (),
        parameters: Mapping[str, Any] | None = None,
        host: str = HOST,
        store: str = "",
        code: Mapping[str, Any] | None = None,
        origin: str | None = None,
    ) -> WrittenRun:
        """A run that has started; nothing is published yet."""
        client = connect(self.url)
        try:
            request = flow_events.RunRequested(0, user)
            number = client.request_run(FlowName(flow), flow_events.encode(request, at_us=NOON_US, principal=f"user:{user}"))
        finally:
            client.close()
        manifest = save(self.store, parameters or {}).manifest
        started = ev.RunStarted(
            flow, number, 1, shape.to_plain(), manifest, {}, {"max_splits": 0, "retry_scale": 0},
            {"file": "/flows/flow.py", "package": None, "python": "3.11.7", "evflow": "0.1.0", **(code or {})},
            user, f"user:{user}", tags, (f"user:{user}", "runtime:dev", "python_version:3.11.7"), origin, None, host, "", store or self.store.url,
        )  # fmt: skip
        return WrittenRun(self, RunId(FlowName(flow), number), started)

    def trained(self, **about: Any) -> WrittenRun:
        """A whole run of `cross_validation` over two folds, sealed and published."""
        run = self.run(cross_validation(), parameters={"alpha": 0.5}, **about)
        run.succeed(1, "train", kind="foreach", items=[10, 20], values={"folds": [10, 20]})
        run.succeed(2, "join", values={"score": 1}).succeed(3, "join", values={"score": 2})
        run.succeed(4, "end", values={"scores": [1, 2]})
        return run.succeed(5, values={"best": 2}).seal()


@contextmanager
def client_world(home: Path) -> Generator[ClientWorld]:
    """An empty log to write runs to, which the client sees in the global namespace."""
    made = ClientWorld(home)
    namespace(None)
    try:
        yield made
    finally:
        namespaces.forget()
        disconnect()
        made.close()
