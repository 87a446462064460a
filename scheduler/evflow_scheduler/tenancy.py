"""Runs of shared shards on this machine: their code, their fork servers, and which shard hears of which attempt.

One executor serves all shards of the process. A run's code is fetched, and its fork server started, when its first
attempt is launched, or when there is a slot for that while it begins; beside the loops: a package that is missing or slow holds up nobody but its own run. What cannot be
prepared is observed as attempts that failed, with the reason.
"""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from evflow import diagnostics
from evflow.archives import connect
from evflow.aws import pause_s
from evflow.core.decide import LOGIC
from evflow.core.events import AttemptExited, AttemptFailed, RunStarted
from evflow.core.graph import LOCAL
from evflow.core.ids import AttemptId, RunId
from evflow.core.values import value
from evflow.deployments.refusals import refuse
from evflow.errors import EnvironmentProblem, EvflowError
from evflow.log.keys import shared_shard
from evflow.log.said_waits import LATE_S, NO_ANSWER, UNHEARD, Waits
from evflow.store import open_store
from evflow.store.packages import unpacked
from evflow.store.protocol import StoreUnusable
from evflow.worker import leftovers
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.mailbox import Mailbox
from evflow_executors.protocol import Executor, Observation, OutputLine
from evflow_scheduler import offers
from evflow_scheduler.newer import RunIsNewer, newer_logic
from evflow_scheduler.start import RunFolder, context_of, shared_context

END_WITHIN_S: Final = 10.0
"""How long killed attempts may take to be gone, when their shard was lost."""
STORE_PATIENCE_S: Final = 120.0
"""How long a run that begins waits for a store that is away, before its attempts fail: as long as for the log."""
_SEEN: Final = 1_000
_TEXT_CHARS: Final = 2_000


class NoPackage(EnvironmentProblem):
    """A run that was asked of a scheduler has no code package."""

    code = "no-package"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' has no code package: a scheduler has no other way to its code.", "Deploy the flow again.")


class HostExecutor(Executor, Protocol):
    """An executor of runs that come and go."""

    async def prepare(self, context: RunContext) -> None:
        """Tell what all attempts of a run share; before the first `launch` of the run."""
        ...

    async def release(self, run: RunId) -> None:
        """The run is over: forget it."""
        ...


@value
class Premises:
    """This machine, as runs see it.

    Attributes:
        home: EVFLOW_HOME.
        host: The machine's name.
        log_url: The log.
        installation: The log's identity.
    """

    home: Path
    host: str
    log_url: str
    installation: str


class Tenancies:
    """All shared shards' share of one executor.

    Args:
        executor: Runs the attempts.
        premises: This machine.
    """

    def __init__(self, executor: HostExecutor, premises: Premises) -> None:
        self.executor = executor
        self.premises = premises
        self.tenants: dict[str, Tenancy] = {}

    async def watch(self) -> None:
        """Tell each shard what happens to its attempts, until the executor is closed."""
        async for seen in self.executor.watch():
            tenant = self.tenants.get(shared_shard(seen.attempt.run))
            if tenant is not None:
                await tenant.hear(seen)

    def begin(self, shard: str, group: TaskGroup, waits: Waits = UNHEARD) -> "Tenancy":
        """Give a shard that this process owns its share; until `Tenancy.end`.

        Args:
            shard: The shard.
            group: What the shard's owner waits for.
            waits: Hears which runs wait for their store.
        """
        tenant = self.tenants[shard] = Tenancy(self, shard, group, waits)
        return tenant


class Tenancy:
    """One shard's runs here: the `RunHost` and the `Executor` of its loop."""

    name = "local"

    def __init__(self, all_of_them: Tenancies, shard: str, group: TaskGroup, waits: Waits) -> None:
        self._executor = all_of_them.executor
        self._premises = all_of_them.premises
        self._tenants = all_of_them.tenants
        self._shard = shard
        self._group = group
        self._waits = waits
        self._seen = Mailbox[Observation | OutputLine](_SEEN)
        self._started: dict[RunId, RunStarted] = {}
        self._ready: set[RunId] = set()
        self._queued: dict[RunId, dict[AttemptId, AttemptOrder]] = {}
        self._ending: set[AttemptId] | None = None
        self._ended = anyio.Event()

    # --- as the host of runs -----------------------------------------------------------------------------

    def welcome(self, offered: RunStarted) -> RunStarted:
        """Complete a run's first event with what only its owner knows.

        Raises:
            RunIsNewer: Whoever asked for it was of a later version.
            OfferUnfit: The run cannot be carried out here.
        """
        if offered.logic > LOGIC:
            raise RunIsNewer(RunId.parse(f"{offered.flow}/{offered.number}"), newer_logic(offered.logic))
        offers.check(offered, self._shard)
        started = replace(offered, logic=LOGIC, host=self._premises.host, installation=self._premises.installation)
        self.resume(started)
        return started

    def resume(self, started: RunStarted) -> None:
        """Host a run that has begun; called again for one that is known, nothing changes."""
        self._started[RunId.parse(f"{started.flow}/{started.number}")] = started

    def expect(self, run: RunId) -> None:
        """Fetch a run's code, and tell its fork server of it, while its first events are written."""
        if run not in self._ready and run not in self._queued:
            self._queued[run] = {}
            self._group.start_soon(self._get_ready, run)

    def dismiss(self, run: RunId) -> None:
        """Forget a run that is over."""
        self._started.pop(run, None)
        if run in self._ready:
            self._ready.discard(run)
            self._group.start_soon(self._executor.release, run)

    async def refuse(self, run: RunId, why: str) -> None:
        """Have the flow's log say that a run of this shard which was asked for cannot begin.

        Raises:
            LogUnavailable: The server is away; the offer is still there.
        """
        if shared_shard(run) != self._shard:
            return  # its own shard may have a better offer of it

        def record() -> bool:
            with closing(connect(self._premises.log_url)) as client:
                return refuse(client, run, why, "scheduler")

        await anyio.to_thread.run_sync(record)

    async def end(self) -> None:
        """The shard is no longer ours: kill what runs of it here, and forget its runs.

        Returns when nothing of it runs, or after `END_WITHIN_S`; whoever owns the shard now has told what runs that it is given up.
        """
        for queued in self._queued.values():
            queued.clear()
        self._ending = {attempt for attempt in self._executor.running if shared_shard(attempt.run) == self._shard}
        self._seen.lift()  # the loop takes no more: whoever tells all shards must not wait for it
        for attempt in list(self._ending):
            await self._executor.cancel(attempt, grace_s=0.0)
        with anyio.move_on_after(END_WITHIN_S):
            if self._ending:
                await self._ended.wait()
        del self._tenants[self._shard]
        for run in self._ready:
            await self._executor.release(run)

    def context_elsewhere(self, run: RunId) -> RunContext:
        """What attempts of a run are told that run on other machines.

        Raises:
            NoPackage: It has no code package.
        """
        started = self._started[run]
        if started.code.get("package") is None:
            raise NoPackage(run)
        return shared_context(started, shard=self._shard, log_url=self._premises.log_url, flow_file=started.code["file"])

    # --- as the executor of the shard's loop -------------------------------------------------------------

    @property
    def running(self) -> Sequence[AttemptId]:
        """The attempts that were launched and have not been observed to exit."""
        queued = [attempt for orders in self._queued.values() for attempt in orders]
        return [*queued, *(attempt for attempt in self._executor.running if attempt.run in self._started)]

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt under its name, as soon as its run's code is here."""
        run = attempt.run
        if run in self._ready:
            await self._executor.launch(attempt, order)
        elif run in self._queued:
            self._queued[run][attempt] = order
        else:
            self._queued[run] = {attempt: order}
            self._group.start_soon(self._get_ready, run)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """End an attempt; one that waits for its code has not begun, and has ended."""
        if self._queued.get(attempt.run, {}).pop(attempt, None) is not None:
            await self.hear(Observation(attempt, AttemptExited(attempt.task, attempt.attempt, None, None, "never-started")))
        else:
            await self._executor.cancel(attempt, grace_s=grace_s)

    async def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens to the shard's attempts, for as long as somebody asks."""
        while True:
            await self._seen.wait()
            while (seen := self._seen.take()) is not None:
                yield seen

    async def hear(self, seen: Observation | OutputLine) -> None:
        """Take note of what happened; output is kept in the store, and shown by nobody here."""
        if not isinstance(seen, Observation):
            return
        if self._ending is None:
            await self._seen.put(seen)
        elif seen.is_end:
            self._ending.discard(seen.attempt)
            if not self._ending:
                self._ended.set()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """End what is left of a former owner's attempts on this machine; none of them is kept.

        One that never started is given up as well: its owner may only be suspended, and come to its launch later.

        Raises:
            AttemptWillNotEnd: One cannot be ended.
        """
        for attempt in attempts:
            await anyio.to_thread.run_sync(self._end_former, attempt)
        return ()

    def _end_former(self, attempt: AttemptId) -> None:
        folder = RunFolder.of(self._premises.home, attempt.run)
        folder.make()
        leftovers.end_attempt(str(folder.locks), attempt)

    async def aclose(self) -> None:
        """See `end`: the executor belongs to all shards."""

    async def _get_ready(self, run: RunId) -> None:
        """Fetch a run's code, and launch what waits for it."""
        try:
            await self._prepare(run)
        except anyio.get_cancelled_exc_class():  # the shard is left, and nobody else here knows of the run
            with anyio.CancelScope(shield=True):
                await self._executor.release(run)
            raise

    async def _prepare(self, run: RunId) -> None:
        started = self._started.get(run)
        if started is None:  # it was over before this began
            self._queued.pop(run, None)
            return
        try:
            context = await self._context_once_stored(run, started)
            await self._executor.prepare(context)
        except Exception as error:  # noqa: BLE001 - what a package holds is its writer's: it fails its run, and no other of the shard
            diagnostics.warning("a run's code cannot be had", run=run, why=f"{type(error).__name__}: {error}")
            await self._executor.release(run)  # it may know of the run
            for attempt in self._queued.pop(run, {}):
                await self.hear(Observation(attempt, _failed(attempt, error)))
            return
        queued = self._queued.get(run, {})
        while queued:  # one that is cancelled meanwhile is not in it any more, and one that is launched meanwhile is
            attempt = next(iter(queued))
            await self._executor.launch(attempt, queued.pop(attempt))
        self._queued.pop(run, None)
        if run in self._started and self._ending is None:
            self._ready.add(run)
        else:  # it is over, or another scheduler's
            await self._executor.release(run)

    async def _context_once_stored(self, run: RunId, started: RunStarted) -> RunContext:
        """What the run's attempts are told. A store that is away is waited for, as the log is."""
        deadline_s, failures = anyio.current_time() + STORE_PATIENCE_S, 0
        first = anyio.CancelScope()
        self._group.start_soon(self._say_if_late, run, first)
        try:
            while True:
                try:
                    return await anyio.to_thread.run_sync(self._context, run, started)
                except StoreUnusable as error:
                    first.cancel()
                    if not error.is_transient or run not in self._started or anyio.current_time() >= deadline_s:
                        raise
                    failures += 1
                    diagnostics.warning("a run waits for its store to begin", run=run, why=error.message)
                    await self._waits.say(run, LOCAL, 0, error.message)  # all that have not begun: some may come meanwhile
                    await anyio.sleep(pause_s(failures))
        finally:
            first.cancel()
            await self._waits.unsay(run, LOCAL)

    async def _say_if_late(self, run: RunId, first_try: anyio.CancelScope) -> None:
        with first_try:
            await anyio.sleep(LATE_S)
        if not first_try.cancel_called:
            await self._waits.say(run, LOCAL, 0, NO_ANSWER)

    def _context(self, run: RunId, started: RunStarted) -> RunContext:
        """What the run's attempts are told; its folders are made and its code is unpacked. Blocking."""
        package: bytes | None = started.code.get("package")
        if package is None:
            raise NoPackage(run)
        folder = RunFolder.of(self._premises.home, run)
        folder.make()
        code = unpacked(open_store(started.store), package, self._premises.home / "cache")
        file = code / os.path.basename(started.code["file"])  # noqa: PTH119 - a name from another machine
        return context_of(started, folder, shard=self._shard, log_url=self._premises.log_url, flow_file=str(file))


def _failed(attempt: AttemptId, error: Exception) -> AttemptFailed:
    name = error.code if isinstance(error, EvflowError) else type(error).__name__
    text = f"{error.message} {error.hint}".strip() if isinstance(error, EvflowError) else str(error)
    return AttemptFailed(attempt.task, attempt.attempt, "load", name, text[:_TEXT_CHARS])
