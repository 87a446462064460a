"""Runs attempts as processes of this machine, by way of a fork server.

The executor owns one fork server, talks with it over its socket and translates: orders to frames, frames to
observations. It has no task of its own: whoever iterates over `watch` drives it, so the socket is the queue and its
buffer the bound.

A fork server that dies takes its attempts with it (the kernel sees to that). Each of them is observed to exit once its
lock is free, whatever it had started is ended, and a new fork server is started as a fresh interpreter. One that dies
before it has loaded the flow has begun no attempt: those that it was told of are handed to the next one.
"""

import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.to_thread

from evflow.core.events import AttemptExited, AttemptStarted
from evflow.core.ids import AttemptId, RunId
from evflow.errors import EnvironmentProblem, UsageError
from evflow.worker import frames, leftovers
from evflow.worker.forkserver import ForkServer
from evflow.worker.method import StartMethod
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.carriers import Carriers
from evflow_executors.protocol import Observation, OutputLine

FORK_SERVER_DIED: Final = "fork-server-died"
MAX_FRUITLESS_STARTS: Final = 3
"""So many fork servers in a row that died before they started an attempt: a further one would die too."""
CLOSE_WITHIN_S: Final = 15.0
CANCEL_GRACE_S: Final = 2.0
"""What attempts get at the executor's end before they are killed."""


class ForkServerBroken(EnvironmentProblem):
    """Fork servers die as soon as they are started."""

    code = "fork-server-broken"

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(
            f"{MAX_FRUITLESS_STARTS} fork servers in a row died before they started an attempt; the last one with code {exit_code}.",
            "Their messages are above. --start-method spawn starts each attempt as an interpreter of its own.",
        )


class RunUnknown(UsageError):
    """An attempt was launched of a run whose context was never given."""

    code = "run-unknown"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"The local executor was not told the context of run '{run}'.", "Call `prepare` before `launch`.")


class _Launched:
    """An attempt that was launched and has not been observed to exit: what a new fork server has to be told of it."""

    __slots__ = ("frames", "pid")

    def __init__(self, launch: bytes) -> None:
        self.frames = launch
        self.pid = 0


class LocalExecutor:
    """Attempts as processes of this machine.

    Args:
        server: The fork server to use; it belongs to the executor from now on.
        host: The name of this machine in `AttemptStarted`.
        restart: Starts another one after a death; the default is a fresh interpreter.
        on_full: Awaited by who tells a fork server more than that takes at once, and sees that `flush` is called; the default is `flush`.
    """

    name = "local"

    def __init__(
        self,
        server: ForkServer,
        *,
        host: str | None = None,
        restart: Callable[[], ForkServer] | None = None,
        on_full: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._server = server
        self._host = host if host is not None else os.uname().nodename
        self._restart = restart or (lambda: ForkServer.start(server.method.method if server.method.method == "spawn" else "auto"))
        self._on_full = on_full or self.flush
        self._reader = frames.FrameReader()
        self._contexts: dict[RunId, RunContext] = {}
        self._runs: dict[str, RunId] = {}
        self._carriers = Carriers()
        self._forgotten: set[RunId] = set()
        self._launched: dict[AttemptId, _Launched] = {}
        self._unsent = bytearray()
        self._flushing = anyio.Lock()
        self._received: deque[bytes] = deque()
        self._reading = False
        self._closing = False
        self._fruitless = 0

    @property
    def fork_server_pid(self) -> int:
        """The process of the fork server of now."""
        return self._server.pid

    @property
    def loaded(self) -> StartMethod | None:
        """How the fork server of now starts attempts, once it has the flow; before, when no attempt can have begun, None."""
        return self._server.loaded

    @property
    def running(self) -> frozenset[AttemptId]:
        """The attempts that were launched and have not been observed to exit."""
        return frozenset(self._launched)

    def is_running(self, attempt: AttemptId) -> bool:
        """Whether an attempt was launched and has not been observed to exit."""
        return attempt in self._launched

    async def prepare(self, context: RunContext) -> None:
        """Tell what all attempts of a run share; before the first `launch` of the run."""
        run = RunId.parse(f"{context.flow}/{context.run}")
        self._contexts[run] = context
        self._runs[str(run)] = run
        self._forgotten.discard(run)
        self._carriers.begin(run, context)
        await self._send(frames.frame(frames.CONTEXT, str(run), context.pack()))

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt under its name; a second call for the same name changes nothing.

        Raises:
            RunUnknown: `prepare` was not called for its run, or `forget` was.
        """
        if attempt in self._launched:
            return
        if attempt.run not in self._contexts or attempt.run in self._forgotten:
            raise RunUnknown(attempt.run)
        launch = frames.frame(frames.LAUNCH, str(attempt.run), attempt.task, attempt.attempt, order.pack(), order.reuse)
        self._launched[attempt] = _Launched(launch)
        await self._send(launch)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """SIGTERM to the attempt's group now, SIGKILL after `grace_s`. Unknown names are ignored."""
        launched = self._launched.get(attempt)
        if launched is not None:
            cancel = frames.frame(frames.CANCEL, str(attempt.run), attempt.task, attempt.attempt, grace_s)
            launched.frames += cancel
            await self._send(cancel)

    async def forget(self, run: RunId) -> None:
        """The run is over: drop what is known of it, as soon as none of its attempts is left."""
        if run in self._contexts:
            self._forgotten.add(run)
            self._drop_forgotten()
            await self._send(frames.frame(frames.FORGET, str(run)))

    async def flush(self) -> None:
        """Hand over what is left; until the fork server has taken it, or is dead."""
        async with self._flushing:
            while not self._push():
                await anyio.wait_writable(self._server.socket)

    async def give_up(self, attempt: AttemptId) -> bool:
        """End an attempt without its fork server, which hangs or is dead, and see that it never begins.

        Returns:
            Whether its end is the caller's to tell: `watch` does not observe it any more. False if it did.

        Raises:
            AttemptWillNotEnd: It cannot be ended.
        """
        if attempt in self._launched:
            await anyio.to_thread.run_sync(self._end, [attempt])
        return self._over(attempt)

    async def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens, in order, until the executor is closed. One at a time may watch.

        Raises:
            ForkServerBroken: No fork server lives long enough to run anything.
            AttemptWillNotEnd: One of a dead fork server's attempts cannot be ended.
            OSError: The system gives no process for a fork server.
        """
        while True:
            data = await self._receive()
            if data:
                for values in self._reader.feed(data):
                    for seen in self._translate(*values):
                        yield seen
                continue
            for seen in await self._after_death():
                yield seen
            if self._closing:
                self._server.close()
                return

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """End what is left of a former owner's attempts; none of them is kept.

        A local attempt does not outlive its owner: it has died, or is about to. When this returns none of them runs,
        and neither does anything that they had started.

        Raises:
            AttemptWillNotEnd: One cannot be ended.
            RunUnknown: `prepare` was not called for its run.
        """
        await end_former(attempts, self._contexts)
        return ()

    async def aclose(self) -> None:
        """End every attempt and the fork server, within `CLOSE_WITHIN_S`."""
        if self._closing:
            return
        self._closing = True
        if self._server.loaded is None:
            self._server.kill()  # It loads, deaf and maybe for ever, and has begun nothing.
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_WITHIN_S):
                self._unsent += frames.frame(frames.SHUTDOWN, CANCEL_GRACE_S)
                await self.flush()
                await self._gone(drain=True)
            self._server.kill()
            with anyio.move_on_after(CLOSE_WITHIN_S):
                await self._gone(drain=True)
                if not self._reading:  # else `watch` meets the end, and does this
                    self._server.close()
                    if self._launched:
                        await anyio.to_thread.run_sync(self._end, list(self._launched))
            await self._carriers.aclose()

    # --- the fork server ---------------------------------------------------------------------------------

    async def _send(self, data: bytes) -> None:
        """Hand a frame over. One that cannot be sent because the fork server died is sent to the next one."""
        self._unsent += data
        if not self._push():
            await self._on_full()

    def _push(self) -> bool:
        """Hand over what the fork server takes now; whether nothing is left that it could take."""
        while self._unsent:
            try:
                sent = self._server.socket.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError:
                return True  # `watch` meets the end and starts another one
            del self._unsent[:sent]
        return True

    async def _receive(self) -> bytes:
        """The next bytes, or none at the fork server's end."""
        if self._received:
            return self._received.popleft()
        while True:
            try:
                return self._server.socket.recv(frames.READ_BYTES)
            except BlockingIOError:
                self._reading = True
                try:
                    await anyio.wait_readable(self._server.socket)
                finally:
                    self._reading = False
            except OSError:
                return b""

    async def _after_death(self) -> Sequence[Observation]:
        """See that nothing of a dead fork server's attempts is left, and start another one."""
        self._server.kill()
        await self._gone()
        if not self._closing:
            self._fruitless += 1
            if self._fruitless > MAX_FRUITLESS_STARTS:
                raise ForkServerBroken(self._server.exit_code)
        dead = list(self._launched) if self._closing or self._server.loaded else []
        await anyio.to_thread.run_sync(self._end, dead)
        for attempt in dead:
            self._over(attempt)
        if not self._closing:
            await self._start_again()
        return [_exited(attempt, None, None, FORK_SERVER_DIED) for attempt in dead]

    async def _start_again(self) -> None:
        """Start another fork server, and tell it what was asked for since the death of the one before."""
        async with self._flushing:
            self._server.close()
            # Not in a thread of anyio's: the kernel would take that thread's end for the owner's.
            self._server = self._restart()
            self._reader = frames.FrameReader()
            contexts = [frames.frame(frames.CONTEXT, str(run), context.pack()) for run, context in self._contexts.items()]
            end = [frames.frame(frames.SHUTDOWN, CANCEL_GRACE_S)] if self._closing else []
            self._unsent[:] = b"".join([*contexts, *(launched.frames for launched in self._launched.values()), *end])
        await self.flush()

    def _over(self, attempt: AttemptId) -> bool:
        was_there = self._launched.pop(attempt, None) is not None
        if attempt.run in self._forgotten:
            self._drop_forgotten()
        return was_there

    def _drop_forgotten(self) -> None:
        for run in self._forgotten - {attempt.run for attempt in self._launched}:
            self._forgotten.discard(run)
            del self._contexts[run], self._runs[str(run)]
            self._carriers.release(run)

    def _end(self, attempts: Sequence[AttemptId]) -> None:
        for attempt in attempts:
            leftovers.end_attempt(self._contexts[attempt.run].lock_file, attempt)

    async def _gone(self, *, drain: bool = False) -> None:
        """Wait for the fork server's exit; with `drain` keep what it says until then, so that it is not held up."""
        pause_s = 0.001
        with self._server.watched() as end:
            while not self._server.poll():
                if drain and not self._reading:
                    with suppress(OSError):
                        data = self._server.socket.recv(frames.READ_BYTES)
                        if data:
                            self._received.append(data)
                            continue
                with anyio.move_on_after(pause_s):
                    await (anyio.sleep(pause_s) if end is None else anyio.wait_readable(end))
                pause_s = min(0.02, 2 * pause_s)

    # --- frames ------------------------------------------------------------------------------------------

    def _translate(self, kind: str, *values: Any) -> Sequence[Observation | OutputLine]:
        if kind == frames.LOADED:
            self._server.loaded = StartMethod(*values)
        if kind not in {frames.STARTED, frames.LINES, frames.EXITED} or values[0] not in self._runs:
            return ()
        run, task, number, *rest = values
        attempt = AttemptId(self._runs[run], task, number)
        if kind == frames.LINES:
            stream, lines = rest
            known = self._launched.get(attempt)
            return [OutputLine(attempt, stream, at_us, text, known.pid if known else 0) for at_us, text, _ in lines]
        if attempt not in self._launched:
            return ()
        if kind == frames.STARTED:
            pid, at_us = rest
            self._fruitless = 0  # It can run attempts. What a body does to it is the attempt's loss, and losses are bounded.
            self._launched[attempt].pid = pid
            return [Observation(attempt, AttemptStarted(task, number, self._host, pid, at_us))]
        self._fruitless = 0
        self._over(attempt)
        self._carriers.ended(attempt)
        return [_exited(attempt, *rest)]


async def end_former(attempts: Sequence[AttemptId], contexts: Mapping[RunId, RunContext]) -> None:
    """End what is left of a former owner's attempts on this machine.

    Raises:
        AttemptWillNotEnd: One cannot be ended.
        RunUnknown: There is no context of its run.
    """
    for attempt in attempts:
        context = contexts.get(attempt.run)
        if context is None:
            raise RunUnknown(attempt.run)
        await anyio.to_thread.run_sync(leftovers.end_attempt, context.lock_file, attempt)


def _exited(attempt: AttemptId, exit_code: int | None, signal: int | None, why: str) -> Observation:
    return Observation(attempt, AttemptExited(attempt.task, attempt.attempt, exit_code, signal, why))
