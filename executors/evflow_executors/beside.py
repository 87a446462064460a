"""The executor of a foreground run some of whose steps have environments.

Those go to fork servers of their own, all others to the one that was forked from the foreground.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import anyio

from evflow.core.ids import AttemptId, RunId
from evflow.worker.interpreters import lock_of
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.local import LocalExecutor
from evflow_executors.merged import MergedStream
from evflow_executors.packages import STOP_WITHIN_S, PackagedExecutor
from evflow_executors.protocol import Observation, OutputLine

_UNREAD = 1_000


class WithEnvironments:
    """An executor of this machine.

    Args:
        here: Runs what has no environment; it belongs to this executor from now on.
        on_notice: Hears of environments that are built.
    """

    name = "local"

    def __init__(self, here: LocalExecutor, on_notice: Callable[[str], None]) -> None:
        self._here = here
        self._elsewhere = PackagedExecutor(warm_bytes=0, on_notice=on_notice)
        self._contexts: dict[RunId, RunContext] = {}
        self._seen = MergedStream(_UNREAD)
        self._reading: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> frozenset[AttemptId]:
        """The attempts that were launched and have not been observed to end."""
        return self._here.running | self._elsewhere.running

    async def prepare(self, context: RunContext) -> None:
        """Tell what all attempts of a run share; before the first `launch` of the run."""
        self._contexts[RunId.parse(f"{context.flow}/{context.run}")] = context
        if not self._reading:  # plain tasks, which `aclose` waits for: they outlive who watches
            self._reading = {asyncio.create_task(self._read(executor)) for executor in (self._here, self._elsewhere)}
        await self._here.prepare(context)
        self._elsewhere.expect(context)

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt under its name; a second call for the same name changes nothing."""
        known = self._contexts.get(attempt.run)
        has_environment = known is not None and lock_of(known, order.step) is not None
        await (self._elsewhere if has_environment else self._here).launch(attempt, order)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """SIGTERM to the attempt's group now, SIGKILL after `grace_s`. Unknown names are ignored."""
        await self._here.cancel(attempt, grace_s=grace_s)
        await self._elsewhere.cancel(attempt, grace_s=grace_s)

    def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens, in order for each attempt, until the executor is closed. One at a time may watch."""
        return self._seen.take()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """End what is left of a former owner's attempts; none of them is kept. See `LocalExecutor.adopt`."""
        return await self._here.adopt(attempts)

    async def aclose(self) -> None:
        """End every attempt and every fork server, and wait until what they said last was passed on."""
        self._seen.lift()
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(self._here.aclose)
                group.start_soon(self._elsewhere.aclose)
            if self._reading:
                await asyncio.wait(self._reading, timeout=STOP_WITHIN_S)
            self._seen.close()

    async def _read(self, executor: LocalExecutor | PackagedExecutor) -> None:
        """Pass on what one of the two sees; an error is whoever watches'."""
        try:
            async with aclosing(executor.watch()) as watched:
                async for one in watched:
                    await self._seen.put(one)
        except Exception as error:  # noqa: BLE001 - it is raised where the stream is taken
            self._seen.close(error)
