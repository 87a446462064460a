"""A pool of workers as an executor: what the owner of a shard has to do with the message queue.

To launch is to put an order into the queue. Whoever claims it says what happens to it in the shard's inbox, as the attempt does, so
all of that is consumed as reports are, by whoever owns the shard then. What is left to be seen from here is what nobody can
report: a worker that died, and an order that the queue has lost. So as long as attempts are out, the executor looks at them each `LOOK_EVERY_S`.
An attempt that has neither order nor claim any more is over, and its report lies in the inbox; it is observed to exit all the
same, and the shard, which reads its inbox before it believes an exit, knows better.

Attempts outlive their owner: a new one adopts those that wait or that a living worker has. Its look fences the former owner, whose
launches and cancellations the pool refuses from then on.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, TypeVar

import anyio

from evflow import diagnostics
from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.graph import POOL_PREFIX
from evflow.core.ids import AttemptId, RunId
from evflow.core.retry import WORKER_LOST
from evflow.errors import EvflowError
from evflow.log import pools
from evflow.log.commands import Operation
from evflow.log.errors import LogUnavailable
from evflow.log.link import Link
from evflow.log.pools import MOST_ORDER_BYTES, MOST_ORDERS, Look
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.merged import MergedStream
from evflow_executors.pool_live import read_live
from evflow_executors.pool_orders import NoPackage, PoolOrder
from evflow_executors.protocol import Observation, OutputLine

LOOK_EVERY_S: Final = 3.0
PATIENCE_S: Final = 120.0
"""How long the server may be away; as for the writer of a shard."""
CLOSE_WITHIN_S: Final = 5.0
ORDER_LOST: Final = "order-lost"
_LIVE_WAIT_S: Final = 30.0
_UNREAD: Final = 1_000

T = TypeVar("T")
_Order = tuple[AttemptId, AttemptOrder]
_Cancel = tuple[AttemptId, float]


class PoolExecutor:
    """The attempts of one shard in one pool.

    Args:
        pool: The pool.
        link: The log; the caller closes it.
        shard: The shard.
        epoch: The epoch of its owner: this process.
        context_of: What the attempts of a run share.
        live: Somebody looks at what they print.
    """

    def __init__(
        self, pool: str, link: Link, shard: str, epoch: Callable[[], int], context_of: Callable[[RunId], RunContext], *, live: bool = False
    ) -> None:
        self.name = POOL_PREFIX + pool
        self._pool = pool
        self._link = link
        self._shard = shard
        self._epoch = epoch
        self._context_of = context_of
        self._live = live
        self._contexts: dict[RunId, bytes] = {}
        self._told: list[_Order | _Cancel] = []
        self._telling = anyio.Lock(fast_acquire=True)
        self._number = 0
        self._out: dict[AttemptId, None] = {}
        self._of_run: Counter[RunId] = Counter()
        self._lost: list[tuple[AttemptId, str]] = []  # found dead when they were adopted
        self._seen = MergedStream(_UNREAD)
        self._driver: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._something = anyio.Event()
        self._closed = False

    @property
    def running(self) -> Collection[AttemptId]:
        """The attempts that were launched and have not been observed to exit, where somebody looks.

        Else none: nobody here has to wait for them, since they outlive this process.
        """
        return self._out.keys() if self._live else ()

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Have an attempt ordered, together with all others of this round; a second call for the same name changes nothing."""
        if attempt not in self._out:
            self._put_out(attempt)
            self._tell((attempt, order))

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Take the order back, or have its worker end the attempt. Unknown names are ignored."""
        if attempt in self._out:
            self._tell((attempt, grace_s))

    def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What nobody reports, and what attempts print where somebody looks, until the executor is closed."""
        return self._watch()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """Which of a former owner's attempts wait in the queue, or have a worker; one whose worker is dead is observed to exit.

        All others are over, or were never ordered.

        Raises:
            PoolFenced: There is a newer owner than this one.
            LogUnavailable: The server was away for too long.
        """
        kept: list[AttemptId] = []
        for first in range(0, len(attempts), MOST_ORDERS):
            seen = await self._look(attempts[first : first + MOST_ORDERS], fence=True)
            kept += [attempt for attempt, fate in seen.fates.items() if fate.what != "gone"]
            self._lost += [(attempt, fate.worker) for attempt, fate in seen.fates.items() if fate.what == "lost"]
        for attempt in kept:
            self._put_out(attempt)
        self._something.set()
        return kept

    async def workers(self) -> int:
        """How many workers of the pool live."""
        return (await self._look(())).workers

    async def aclose(self) -> None:
        """Have done what was asked for, and look no more. The attempts go on: whoever owns their shard next finds them."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_WITHIN_S), suppress(EvflowError):
                await self._flush()
            for task in (self._driver, self._reader):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task], timeout=CLOSE_WITHIN_S)
            if self._live:
                with anyio.move_on_after(CLOSE_WITHIN_S), suppress(LogUnavailable):
                    await self._link.do(pools.drop_live(self._shard))
                    await self._link.do(pools.forget(self._pool, self._shard))
        self._seen.close()

    # --- one task that tells and looks ---------------------------------------------------------------------

    async def _watch(self) -> AsyncGenerator[Observation | OutputLine]:
        if self._driver is None and not self._closed:
            # Plain tasks, which `aclose` ends: a task group in a generator would be left in another task than it was entered.
            self._driver = self._spawn(self._drive())
            if self._live:
                self._reader = self._spawn(self._read_live())
        async for seen in self._seen.take():
            yield seen

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._seen.close(error)  # whoever watches has it

    async def _drive(self) -> None:
        look_at_s = inf
        for attempt, worker in self._lost:
            await self._exited(attempt, f"{WORKER_LOST}{worker}")
        self._lost.clear()
        while True:
            await self._flush()
            now_s = anyio.current_time()
            if not self._out:
                look_at_s = inf
            elif look_at_s == inf:
                look_at_s = now_s + LOOK_EVERY_S
            elif look_at_s <= now_s:
                await self._look_at_all()
                look_at_s = anyio.current_time() + LOOK_EVERY_S
            self._something = anyio.Event()
            if not self._told:
                with anyio.move_on_after(look_at_s - now_s):  # nothing is out: whatever is launched wakes it
                    await self._something.wait()

    def _put_out(self, attempt: AttemptId) -> None:
        if attempt not in self._out:
            self._out[attempt] = None
            self._of_run[attempt.run] += 1

    def _tell(self, what: _Order | _Cancel) -> None:
        self._told.append(what)
        self._something.set()

    async def _flush(self) -> None:
        """Send what is to be told, in order: orders that follow one another in as few calls as possible."""
        async with self._telling:
            while self._told:
                orders, size = list[tuple[str, bytes, int]](), 0
                while self._told and len(orders) < MOST_ORDERS and size < MOST_ORDER_BYTES:
                    attempt, what = self._told[0]
                    if not isinstance(what, AttemptOrder):
                        break
                    del self._told[0]
                    packed = await self._packed(attempt, what)
                    if packed is not None:
                        orders.append((str(attempt), packed, what.priority))
                        size += len(packed)
                if orders:
                    self._number += 1
                    await self._send(pools.order(self._pool, self._shard, self._epoch(), self._number, orders))
                elif self._told:
                    attempt, what = self._told.pop(0)
                    if not isinstance(what, AttemptOrder):
                        await self._cancel(attempt, what)

    async def _packed(self, attempt: AttemptId, order: AttemptOrder) -> bytes | None:
        """An order, or None where there cannot be one; the attempt is observed to fail then."""
        try:
            if attempt.run not in self._contexts:
                context = self._context_of(attempt.run)
                if context.package is None:
                    raise NoPackage(str(attempt.run))
                self._contexts[attempt.run] = context.pack()
        except EvflowError as error:
            failed = AttemptFailed(attempt.task, attempt.attempt, "load", error.code, f"{error.message} {error.hint}".strip())
            await self._over(attempt, failed)
            return None
        return PoolOrder.pack(self._contexts[attempt.run], order, live=self._live)

    async def _cancel(self, attempt: AttemptId, grace_s: float) -> None:
        fate = await self._send(pools.cancel(self._pool, self._shard, self._epoch(), attempt, grace_s))
        if fate.what == "waiting":
            await self._exited(attempt, "never-started")
        elif fate.what == "lost":
            await self._exited(attempt, f"{WORKER_LOST}{fate.worker}")

    async def _look_at_all(self) -> None:
        """See which attempts are out no more."""
        out = list(self._out)
        for first in range(0, len(out), MOST_ORDERS):
            async with self._telling:  # what is told and not sent yet is not there to be seen
                told = {attempt for attempt, _ in self._told}
                asked = [attempt for attempt in out[first : first + MOST_ORDERS] if attempt in self._out and attempt not in told]
                seen = await self._look(asked)
            for attempt, fate in seen.fates.items():
                if fate.what == "lost":
                    diagnostics.warning("a worker of a pool is dead", pool=self._pool, worker=fate.worker, attempt=str(attempt))
                    await self._exited(attempt, f"{WORKER_LOST}{fate.worker}")
                elif fate.what == "gone":
                    await self._exited(attempt, ORDER_LOST)

    async def _look(self, attempts: Sequence[AttemptId], *, fence: bool = False) -> Look:
        return await self._send(pools.look(self._pool, self._shard, attempts, self._epoch() if fence else None))

    async def _send(self, operation: Operation[T]) -> T:
        return await self._link.repeated(operation, PATIENCE_S)

    async def _exited(self, attempt: AttemptId, why: str) -> None:
        await self._over(attempt, AttemptExited(attempt.task, attempt.attempt, None, None, why))

    async def _over(self, attempt: AttemptId, event: AttemptExited | AttemptFailed) -> None:
        if attempt in self._out:
            del self._out[attempt]
            self._of_run[attempt.run] -= 1
            if not self._of_run[attempt.run]:
                del self._of_run[attempt.run]
                self._contexts.pop(attempt.run, None)
            await self._seen.put(Observation(attempt, event))

    # --- what workers see of them, where somebody looks -------------------------------------------------------

    async def _read_live(self) -> None:
        wait, after = self._link.wait(), b"0"
        try:
            while True:
                try:
                    after, found = await wait.do(pools.live(self._shard, after, _LIVE_WAIT_S), _LIVE_WAIT_S)
                except LogUnavailable as error:
                    if not error.transient:
                        raise
                    await anyio.sleep(pools.BEAT_EVERY_S)
                    continue
                for packed in found:
                    for seen in read_live(packed):
                        if isinstance(seen, Observation) and isinstance(seen.event, AttemptFailed | AttemptExited):
                            await self._over(seen.attempt, seen.event)
                        elif seen.attempt in self._out:
                            await self._seen.put(seen)
        finally:
            await wait.aclose()
