"""A worker of a pool: takes orders from the message queue and runs them on this machine.

It waits at the server for orders only while it has a free slot, so what it reads it can run at once. An order is its own once it
claimed it. What happens to an attempt it reports to the attempt's shard, as the attempt itself does with its result; the claim is given
back after that, so a claim that is gone has left its report behind.

Each second it says that it lives. One that could not for `patience_s` counts as dead: its attempts are being started elsewhere. So
it ends them before that instant, without being told, and begins anew under another name.

The first SIGTERM or Ctrl-C drains it: it takes nothing more, what it read and did not claim goes back, and what runs may end. The
second one, or the end of the time that draining may take, ends what runs; the runs' owners start it again elsewhere.
"""

import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
from anyio import CancelScope
from anyio.abc import TaskGroup

from evflow import clock, diagnostics
from evflow.core.codec import encode_report
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted, EnvironmentReady
from evflow.core.ids import AttemptId, RunId
from evflow.core.retry import WORKER_LOST
from evflow.core.values import value
from evflow.errors import EvflowError
from evflow.log import commands, pools
from evflow.log.commands import Operation
from evflow.log.errors import LogUnavailable
from evflow.log.link import Link, Wait
from evflow.log.pools import Entry, WorkerLost
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.pool_live import LiveSender
from evflow_executors.pool_orders import OrderUnreadable, PoolOrder, settle, unsettled
from evflow_executors.protocol import Observation, OutputLine

WAIT_S: Final = 30.0
"""How long one wait at the server lasts; then the next one begins."""
REPORT_WITHIN_S: Final = 3_600.0
"""How long a report may wait for the server; its attempt's claim holds as long."""
DRAIN_GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL of an attempt that is ended because its worker ends."""
MARGIN_S: Final = 0.75
"""So long before a silent worker counts as dead its attempts are killed: the kernel and this loop take a moment."""
KEPT_FOR_S: Final = 60.0
"""How long what was made for a run is kept after its last attempt here."""
_AGAIN_AFTER_S: Final = 0.5
MOST_REPORTS: Final = 100
"""Reports of one exchange: what has come in while the one before was on its way."""
STOPPED: Final = "worker-stopped"
NEVER_STARTED: Final = "never-started"

Seen = AttemptStarted | AttemptFailed | AttemptExited | EnvironmentReady
"""What a worker reports of an attempt; anything but its start, and the environment for it, is its end."""


class Workshop(Protocol):
    """What a worker needs of the executor that runs its attempts: see `PackagedExecutor`."""

    async def prepare(self, context: RunContext) -> None:
        """Tell what all attempts of a run share."""
        ...

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt."""
        ...

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """End an attempt."""
        ...

    def watch(self) -> AsyncIterator[Observation | OutputLine]:
        """What happens to attempts."""
        ...

    async def release(self, run: RunId) -> None:
        """Forget a run."""
        ...


@value
class WorkerJob:
    """What a worker is asked to do.

    Attributes:
        pool: The pool.
        slots: Attempts at once.
        label: Its name for people; the machine's where nothing is said.
        home: EVFLOW_HOME.
        patience_s: Without a word for so long it counts as dead.
        drain_s: How long attempts may go on after the first signal; None: until they end.
        version: Of evflow.
    """

    pool: str
    slots: int
    label: str
    home: Path
    patience_s: float
    drain_s: float | None = None
    version: str = ""


class PoolWorker:
    """A worker, until it is drained.

    Args:
        job: What it is asked to do.
        executor: Runs its attempts; the caller closes it.
        link: The log; the caller closes it.
    """

    def __init__(self, job: WorkerJob, executor: Workshop, link: Link) -> None:
        self._job = job
        self._executor = executor
        self._link = link
        self._host = os.uname().nodename
        self._principal = f"worker:{self._host}:{os.getpid()}"
        self._since_us = clock.now_us()
        self._name = ""
        self._claimed: dict[AttemptId, PoolOrder] = {}
        self._launched: set[AttemptId] = set()
        self._launching: dict[AttemptId, float | None] = {}  # what the executor is being told of, and the grace of what is to end meanwhile
        self._unwanted: dict[AttemptId, str] = {}  # attempts that are ended for another reason than their owners', and for which
        self._settling: dict[RunId, anyio.Lock] = {}
        self._settled: set[RunId] = set()
        self._idle_since: dict[RunId, float] = {}
        self._reports: deque[tuple[AttemptId, PoolOrder, Seen]] = deque()
        self._reported = anyio.Event()
        self._slot_freed = anyio.Event()
        self._emptied = anyio.Event()
        self._claiming = False
        self._told_early: set[AttemptId] = set()  # to be ended, and perhaps claimed: messages do not wait for the answer of a claim
        self._naming = anyio.Lock()  # a claim, or a beat that names what is here: what the one changes the other does not know of
        self._confirmed = 0  # the connection of the log's that knows which attempts are here
        self._live = LiveSender(link)
        self._fetching: CancelScope | None = None
        self._fenced = False
        self._heard_s = 0.0
        self._unsure_until_s = 0.0  # a wait whose connection is gone may go on at the server for so long
        self.draining = False
        self._all_ended = anyio.Event()

    @property
    def attempts(self) -> tuple[AttemptId, ...]:
        """The attempts that it has claimed and not given back."""
        return tuple(self._claimed)

    @property
    def running(self) -> int:
        """How many they are."""
        return len(self._claimed)

    async def serve(self) -> None:
        """Work until `drain` was called and nothing runs any more.

        Raises:
            LogUnavailable: The server refuses for good.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._work, group)
            await self._all_ended.wait()  # also while it joins: a log that is away keeps nobody who is told to end
            group.cancel_scope.cancel()
        with anyio.move_on_after(DRAIN_GRACE_S), suppress(LogUnavailable):  # it is given up soon enough
            await self._link.do(pools.leave(self._job.pool, self._name))
        diagnostics.info("worker ends", pool=self._job.pool, name=self._name)

    def drain(self) -> None:
        """Take nothing more; `serve` ends when what runs has ended."""
        if self.draining:
            return
        diagnostics.info("worker drains", pool=self._job.pool, attempts=len(self._claimed))
        self.draining = True
        self._stop_fetching()
        self._check_end()

    async def stop(self, grace_s: float = DRAIN_GRACE_S) -> None:
        """End what runs, to be started again elsewhere."""
        self.drain()
        for attempt in list(self._claimed):
            await self._end(attempt, grace_s, STOPPED)

    # --- its life ------------------------------------------------------------------------------------------

    async def _work(self, group: TaskGroup) -> None:
        await self._join()
        group.start_soon(self._beat)
        group.start_soon(self._take_orders, group)
        group.start_soon(self._heed_messages)
        group.start_soon(self._watch)
        group.start_soon(self._send_reports)
        group.start_soon(self._live.send)
        group.start_soon(self._forget_runs)

    async def _join(self) -> None:
        """Be a worker, under a name that no other one ever has."""
        self._name = self._new_name()
        told = False
        while True:
            self._heard_s = anyio.current_time()
            try:
                await self._link.repeated(pools.join(self._job.pool, self._name, self._job.patience_s, self._about()), MARGIN_S)
            except LogUnavailable as error:
                if not error.transient:
                    raise
                (diagnostics.debug if told else diagnostics.warning)(
                    "the pool cannot be joined: the worker waits for the log", pool=self._job.pool, why=str(error)
                )
                told = True
            else:
                break
        diagnostics.info("worker begins", pool=self._job.pool, name=self._name, slots=self._job.slots)

    def _new_name(self) -> str:
        return f"{self._job.label}:{os.getpid()}:{os.urandom(4).hex()}"

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(pools.BEAT_EVERY_S)
            # A wait for the reply ends in time to fence: whoever hears nothing is not heard.
            asked_s, left_s = anyio.current_time(), self._left_s()
            lost = left_s <= 0
            if not lost:
                try:
                    with anyio.move_on_after(left_s):
                        await self._say_that_it_lives()
                        self._heard_s = asked_s
                        # An order may have come to a wait that was ended, or whose answer was lost: nobody else would ever get it.
                        if self.draining or asked_s < self._unsure_until_s:
                            await self._link.do(pools.give_back(self._job.pool, self._name))
                except LogUnavailable as error:
                    if not error.transient:
                        raise
                    diagnostics.debug("the log does not hear that this worker lives", why=str(error))
                except WorkerLost:
                    lost = True
            if lost or self._left_s() <= 0:
                await self._begin_anew()

    async def _say_that_it_lives(self) -> None:
        """To a new connection with what it has; while a claim is on its way nobody knows that, and a later beat says it."""
        connection = self._link.connections
        if connection == self._confirmed or self._naming.locked():
            await self._link.do(self._life(None))
            return
        async with self._naming:  # no claim begins before it is answered
            await self._link.do(self._life([*map(str, self._claimed)]))
        self._confirmed = connection

    def _life(self, has: list[str] | None) -> Operation[None]:
        return pools.beat(self._job.pool, self._name, self._job.patience_s, self._about(), has)

    def _left_s(self) -> float:
        """How long it may go on without being heard."""
        return self._heard_s + self._job.patience_s - MARGIN_S - anyio.current_time()

    async def _begin_anew(self) -> None:
        """It counts as dead, or is about to: end what runs, which others may start from now on, and begin under another name."""
        diagnostics.warning(
            "this worker was not heard of for too long: what it runs is ended", pool=self._job.pool, attempts=len(self._claimed)
        )
        self._fenced = True
        self._stop_fetching()
        for attempt in list(self._claimed):
            await self._end(attempt, 0.0, f"{WORKER_LOST}{self._name}")
        self._emptied = anyio.Event()
        if self._claimed:
            await self._emptied.wait()  # they were killed; or their reports wait for the server, as joining would
        if not self.draining:
            await self._join()
        self._fenced = False
        self._free()

    def _about(self) -> dict[str, object]:
        return {
            "host": self._host,
            "pid": os.getpid(),
            "slots": self._job.slots,
            "since_us": self._since_us,
            "label": self._job.label,
            "version": self._job.version,
            "draining": self.draining,
        }

    # --- orders --------------------------------------------------------------------------------------------

    async def _take_orders(self, group: TaskGroup) -> None:
        wait = self._link.wait()
        try:
            while not self.draining:
                free = self._job.slots - len(self._claimed)
                if free <= 0 or self._fenced:
                    self._slot_freed = anyio.Event()
                    await self._slot_freed.wait()
                    continue
                try:
                    await self._take_some(wait, free, group)
                except WorkerLost:
                    await anyio.sleep(_AGAIN_AFTER_S)  # the next beat begins anew
                except LogUnavailable as error:
                    diagnostics.debug("no order can be had", why=str(error))
                    self._unsure_until_s = anyio.current_time() + WAIT_S
                    await anyio.sleep(_AGAIN_AFTER_S)
        finally:
            await wait.aclose()

    async def _take_some(self, wait: Wait, free: int, group: TaskGroup) -> None:
        """Wait for orders, and claim as many as there are slots."""
        name, entries = self._name, list[Entry]()
        with CancelScope() as self._fetching:
            entries = await wait.do(pools.fetch(self._job.pool, name, min(free, pools.MOST_ORDERS), WAIT_S), WAIT_S)
        self._fetching = None
        if not entries or self.draining or self._is_given_up(name):
            return  # what was read goes back with the burial of the name, or when the worker leaves
        self._claiming = True
        try:
            async with self._naming:
                # A claim whose answer is lost is repeated: it would be nobody's otherwise, as long as this worker lives.
                mine = await self._link.repeated(pools.claim(self._job.pool, name, entries), float("inf"))
                if not self._is_given_up(name):  # else their owner will see that
                    for entry in mine:
                        self._accept(entry, group)
        except LogUnavailable:
            self._confirmed = 0  # refused for good, perhaps after it was carried out once: the next beat names what is here
            raise
        finally:
            self._claiming = False
            self._told_early.clear()
            self._check_end()  # also where the claim was refused: a worker that drains waits for nothing else

    def _is_given_up(self, name: str) -> bool:
        """Whether this worker counts as dead under a name, or is about to: what it claimed so is no longer its own to run."""
        return self._fenced or name != self._name

    def _accept(self, entry: Entry, group: TaskGroup) -> None:
        try:
            order = PoolOrder.unpack(entry.attempt, entry.order)
        except OrderUnreadable as error:
            diagnostics.warning("an order cannot be read", attempt=entry.attempt, why=str(error))
            group.start_soon(self._refuse, entry.attempt, error)
            return
        attempt = AttemptId.parse(entry.attempt)
        if attempt in self._claimed:
            return  # a fail-over lost its claim, and the order came back to where it runs: its end gives this claim back
        self._claimed[attempt] = order
        diagnostics.debug("attempt claimed", run=attempt.run, task=attempt.task, attempt=attempt.attempt, step=order.order.step)
        if attempt in self._told_early:
            self._end_before_it_begins(attempt, NEVER_STARTED)
        else:
            group.start_soon(self._begin, attempt, order)

    async def _refuse(self, name: str, error: OrderUnreadable) -> None:
        """Give back what nobody can run: it fails where its order still says which shard is told; elsewhere its owner misses it."""
        if error.shard is not None:
            attempt = AttemptId.parse(name)
            payload = encode_report(unsettled(attempt, error, self._host), principal=self._principal)
            await self._link.repeated(commands.report(error.shard, attempt.run, payload), REPORT_WITHIN_S)
        await self._link.repeated(pools.release(self._job.pool, [name]), REPORT_WITHIN_S)

    async def _begin(self, attempt: AttemptId, order: PoolOrder) -> None:
        """Start an attempt, as soon as its run's code is here."""
        run = attempt.run
        self._idle_since.pop(run, None)
        try:
            if run not in self._settled:
                async with self._settling.setdefault(run, anyio.Lock()):
                    if run not in self._settled:
                        await self._executor.prepare(await self._settle(order.context))
                        self._settled.add(run)
        except Exception as error:  # noqa: BLE001 - what a package holds is its writer's: it fails its run, and no other one
            diagnostics.warning("a run's code cannot be had", run=run, why=f"{type(error).__name__}: {error}")
            if attempt not in self._unwanted:
                self._report(attempt, unsettled(attempt, error, self._host))
            return
        # It was suspended, perhaps: the next beat is heard, or ends what is here.
        while self._is_wanted(attempt, order) and self._left_s() <= 0:  # noqa: ASYNC110 - what it waits for is time's doing
            await anyio.sleep(_AGAIN_AFTER_S)
        if self._is_wanted(attempt, order):
            await self._launch(attempt, order)

    async def _launch(self, attempt: AttemptId, order: PoolOrder) -> None:
        self._launched.add(attempt)
        self._launching[attempt] = None
        await self._executor.launch(attempt, order.order)
        grace_s = self._launching.pop(attempt)
        if grace_s is not None:  # it was to be ended before the executor knew it
            await self._executor.cancel(attempt, grace_s=grace_s)

    def _is_wanted(self, attempt: AttemptId, order: PoolOrder) -> bool:
        return self._claimed.get(attempt) is order and attempt not in self._unwanted

    async def _settle(self, context: RunContext) -> RunContext:
        """A run's context for the attempts of this machine."""
        return await anyio.to_thread.run_sync(settle, context, self._job.home, self._link.url)

    async def _heed_messages(self) -> None:
        """End attempts whose owners say so."""
        wait, name, after = self._link.wait(), "", b"0"
        try:
            while True:
                if name != self._name:
                    name, after = self._name, b"0"
                try:
                    for message in await wait.do(pools.messages(self._job.pool, name, after, WAIT_S), WAIT_S):
                        after = message.id
                        with suppress(EvflowError):  # it names no attempt
                            await self._heed(AttemptId.parse(message.cancel), message.grace_s)
                except LogUnavailable as error:
                    diagnostics.debug("no message can be heard", why=str(error))
                    await anyio.sleep(_AGAIN_AFTER_S)
        finally:
            await wait.aclose()

    async def _heed(self, attempt: AttemptId, grace_s: float) -> None:
        if self._claiming and attempt not in self._claimed:
            self._told_early.add(attempt)
        else:
            await self._end(attempt, grace_s)

    async def _end(self, attempt: AttemptId, grace_s: float, why: str = "") -> None:
        """End an attempt; one that waits for its code has not begun, and has ended."""
        if attempt in self._launched:
            if why:
                self._unwanted[attempt] = why
            if attempt in self._launching:
                self._launching[attempt] = grace_s
            await self._executor.cancel(attempt, grace_s=grace_s)
        elif attempt in self._claimed and attempt not in self._unwanted:
            self._end_before_it_begins(attempt, why or NEVER_STARTED)

    def _end_before_it_begins(self, attempt: AttemptId, why: str) -> None:
        self._unwanted[attempt] = why
        self._report(attempt, AttemptExited(attempt.task, attempt.attempt, None, None, why))

    # --- what happens to them ------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for seen in self._executor.watch():
            order = self._claimed.get(seen.attempt)
            if order is None:
                continue
            if not isinstance(seen, Observation):
                if order.live:
                    self._live.add(order.context.shard, seen)
                continue
            event = seen.event
            if isinstance(event, AttemptExited) and event.exit_code != 0 and seen.attempt in self._unwanted:
                event = replace(event, why=self._unwanted[seen.attempt])
            self._report(seen.attempt, event)

    def _report(self, attempt: AttemptId, event: Seen) -> None:
        """Say to the attempt's shard what happened to it."""
        order = self._claimed[attempt]
        self._reports.append((attempt, order, event))
        self._reported.set()
        if order.live and not isinstance(event, EnvironmentReady):
            self._live.add(order.context.shard, Observation(attempt, event))

    async def _send_reports(self) -> None:
        while True:
            while not self._reports:
                self._reported = anyio.Event()
                await self._reported.wait()
            some = [self._reports.popleft() for _ in range(min(len(self._reports), MOST_REPORTS))]
            said: list[Operation[Any]] = [self._said(attempt, order, event) for attempt, order, event in some if not _is_told(event)]
            ends = [(attempt, order, event) for attempt, order, event in some if isinstance(event, AttemptFailed | AttemptExited)]
            # The claims of those whose own reports are there go in the same exchange; all others follow the reports that are made here.
            at_once = [attempt for attempt, _, event in ends if _is_told(event)]
            later = [attempt for attempt, _, event in ends if not _is_told(event)]
            for exchange in (said + self._released(at_once), self._released(later)):
                if exchange:
                    await self._link.repeated(commands.together(exchange), REPORT_WITHIN_S)
            for attempt, order, _ in ends:
                self._over(attempt, order)

    def _said(self, attempt: AttemptId, order: PoolOrder, event: Seen) -> Operation[bool]:
        return commands.report(order.context.shard, attempt.run, encode_report(event, principal=self._principal))

    def _released(self, attempts: list[AttemptId]) -> list[Operation[Any]]:
        return [pools.release(self._job.pool, attempts)] if attempts else []

    def _over(self, attempt: AttemptId, order: PoolOrder) -> None:
        del self._claimed[attempt]
        self._launched.discard(attempt)
        self._unwanted.pop(attempt, None)
        if not any(other.run == attempt.run for other in self._claimed):
            self._idle_since[attempt.run] = anyio.current_time()
        self._free()
        self._check_end()

    def _free(self) -> None:
        self._slot_freed.set()

    def _stop_fetching(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        self._free()

    def _check_end(self) -> None:
        if not self._claimed:
            self._emptied.set()
        if self.draining and not self._claimed and not self._claiming:
            self._all_ended.set()

    async def _forget_runs(self) -> None:
        """Let runs go that have had no attempt here for a while: nobody tells a worker that a run is over."""
        while True:
            await anyio.sleep(KEPT_FOR_S)
            before_s = anyio.current_time() - KEPT_FOR_S
            for run in [run for run, since_s in self._idle_since.items() if since_s <= before_s]:
                del self._idle_since[run]
                self._settled.discard(run)
                self._settling.pop(run, None)
                await self._executor.release(run)


def _is_told(event: Seen) -> bool:
    """Whether an attempt has told its shard of its end itself: so it has where it exits with 0."""
    return isinstance(event, AttemptExited) and event.exit_code == 0
