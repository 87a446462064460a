"""A fork server whose attempts run functions of the test: for what the server does, whatever a flow is."""

import faulthandler
import os
import select
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evflow.worker import frames, leftovers, locks
from evflow.worker.forkserver import ForkServer
from evflow.worker.spec import AttemptOrder, RunContext

Body = Callable[[], int | None]
RUN = "Flow/1"
PATIENCE_S = 60.0


def a_context(root: Path, **fields: Any) -> RunContext:
    """The context of run Flow/1 with its places below a folder."""
    logs = root / "logs"
    logs.mkdir(exist_ok=True)
    known: dict[str, Any] = {
        "flow": "Flow", "run": 1, "flow_file": "", "shard": "s", "log_url": "", "store_url": "", "parameters": b"",
        "lock_file": str(root / "locks"), "log_folder": str(logs),
    }  # fmt: skip
    return RunContext(**{**known, **fields})


class BodyRunner:
    """What the fork server runs for an order: lock, marker, then the function that the order's step names."""

    used_up = True

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        self._bodies = bodies

    def prepare(self, context: RunContext) -> None:
        pass

    def rehearse(self, context: RunContext, *, whole: bool = False) -> None:
        pass

    def expect(self, context: RunContext, order: bytes) -> None:
        pass

    def forget(self, context: RunContext) -> None:
        pass

    def rest(self) -> None:
        pass

    def __call__(self, context: RunContext, packed: bytes) -> int:
        faulthandler.disable()  # pytest's: the crash of a body that is to crash would stand among the results
        order = AttemptOrder.unpack(packed)
        os.environ[leftovers.ATTEMPT_VARIABLE] = f"{RUN}/{order.task}.{order.attempt}"
        os.environ[leftovers.LOCKS_VARIABLE] = context.lock_file
        locks.take(context.lock_file, order.task, order.attempt)
        return self._bodies[order.step]() or 0


def runner_of(bodies: Mapping[str, Body]) -> Callable[[], BodyRunner]:
    return lambda: BodyRunner(bodies)


class ForkBench:
    """Talks with a fork server and keeps what it said."""

    def __init__(self, root: Path, bodies: Mapping[str, Body], **context: Any) -> None:
        self.context = a_context(root, **context)
        self.server = ForkServer.fork_here(None, asked="fork", home=str(root / "e"), make_runner=runner_of(bodies))
        self.seen: list[tuple[Any, ...]] = []
        self._reader = frames.FrameReader()
        self.say(frames.CONTEXT, RUN, self.context.pack())

    def say(self, *values: Any) -> None:
        self.server.socket.sendall(frames.frame(*values))

    def launch(self, step: str, task: int = 1, attempt: int = 0) -> None:
        self.launch_together((step, task, attempt))

    def launch_together(self, *orders: tuple[str, int, int]) -> None:
        """Order several attempts in one write; each is a step, a task and an attempt."""
        told = [frames.frame(frames.LAUNCH, RUN, task, attempt, AttemptOrder(step, task, attempt).pack()) for step, task, attempt in orders]
        self.server.socket.sendall(b"".join(told))

    def cancel(self, task: int = 1, attempt: int = 0, grace_s: float = 10.0) -> None:
        self.say(frames.CANCEL, RUN, task, attempt, grace_s)

    def until(self, kind: str, task: int = 1, attempt: int = 0) -> tuple[Any, ...]:
        """Wait for a frame about an attempt; answer its own values."""
        checked = 0
        while True:
            for values in self.seen[checked:]:
                if values[:4] == (kind, RUN, task, attempt):
                    return values[4:]
            checked = len(self.seen)
            self._receive()

    def run(self, step: str, task: int = 1, attempt: int = 0) -> tuple[Any, ...]:
        """Launch an attempt and wait for its exit: `(code, signal, why)`."""
        self.launch(step, task, attempt)
        return self.until(frames.EXITED, task, attempt)

    def output(self, stream: str = "stdout", task: int = 1, attempt: int = 0) -> str:
        """What has been forwarded of an attempt's output."""
        name = (frames.LINES, RUN, task, attempt, stream)
        lines = [line for values in self.seen if values[:5] == name for line in values[5]]
        return "".join(f"{text}\n" if ends else text for _, text, ends in lines)

    def wait_for_output(self, part: str, task: int = 1, attempt: int = 0) -> str:
        while part not in self.output(task=task, attempt=attempt):
            self._receive()
        return self.output(task=task, attempt=attempt)

    def _receive(self) -> None:
        if not select.select([self.server.socket], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"the fork server said nothing for {PATIENCE_S:g} s; before: {self.seen[-5:]}")
        data = self.server.socket.recv(frames.READ_BYTES)
        if not data:
            raise EOFError(f"the fork server is gone; before: {self.seen[-5:]}")
        self.seen.extend(self._reader.feed(data))


@contextmanager
def a_fork_server(root: Path, bodies: Mapping[str, Body], **context: Any) -> Generator[ForkBench]:
    bench = ForkBench(root, bodies, **context)
    try:
        yield bench
    finally:
        bench.server.stop()
