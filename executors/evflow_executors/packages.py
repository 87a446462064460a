"""Runs attempts of many runs and many flows on this machine: a fork server for each code that they have.

An interpreter can hold one version of a flow and of the modules beside it. So each code (package, flow, file, decorators
of `--with`, start method) gets a `LocalExecutor` of its own at the first run of it, whose working folder is the flow's.
When the last run of a code is over its fork server stays, warm for the next one, as long as all that wait like this fit
into `warm_bytes`; else those go first whose last run was over first.

A flow that cannot be loaded is no fault of this process. An exception is met again, and reported, by each attempt, in an
interpreter of its own (`LazyForkLauncher`). So is code that ends the process which imports it: after `MOST_LOADS` such
deaths its attempts are spawned, each with what it said in its own log. Where not even that can be had, each attempt is observed to fail.

A task for each fork server reads what that one says, and lives as long as the fork server: longer than the call that
started it, and across those who watch. A task group would have to be open in one of them; so these are plain tasks, which
`aclose` waits for.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.core.events import AttemptExited, AttemptFailed, EnvironmentReady
from evflow.core.ids import AttemptId, RunId
from evflow.errors import EvflowError
from evflow.worker import launchers as launchers  # launchers: `ForkServer.start` would import it on the loop
from evflow.worker.forkserver import ForkServer
from evflow.worker.interpreters import Interpreter, lock_of
from evflow.worker.leftovers import AttemptWillNotEnd
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.local import FORK_SERVER_DIED, ForkServerBroken, LocalExecutor, RunUnknown, end_former
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import Observation, OutputLine

if TYPE_CHECKING:
    from evflow_executors.environments import Environments

MOST_LOADS: Final = 2
"""So many fork servers in a row that died while they loaded a flow: the next one does not load it."""
LOOK_EVERY_S: Final = 5.0
"""How often the memory of warm fork servers is looked at, at most: a look costs a millisecond each."""
HAND_OVER_WITHIN_S: Final = 0.05
"""How long a caller waits for a fork server whose socket is full because it still loads; the rest is handed over beside it."""
STOP_WITHIN_S: Final = 20.0
"""How long what a closed fork server said last may take to be passed on."""
_TEXT_CHARS: Final = 2_000
_UNREAD: Final = 1_000
"""Observations that nobody took; beyond them the fork servers' sockets are left unread."""


class _Code(NamedTuple):
    """What a fork server has loaded; runs with the same share it."""

    package: bytes | None
    flow: str
    file: str
    decorators: tuple[str, ...]
    method: str
    interpreter: Interpreter | None = None

    @classmethod
    def of(cls, context: RunContext) -> "_Code":
        decorators: Sequence[str] = context.options.get("with", ())
        return cls(context.package, context.flow, context.flow_file, tuple(decorators), context.options.get("start_method") or "auto")


class _Workshop:
    """The fork server of one code, and the runs that it works for.

    Attributes:
        code: What it has loaded.
        local: Talks with it.
        runs: The runs that it was told of and that are not over.
        reading: The task that passes on what it says.
    """

    def __init__(self, code: _Code, on_death: "Callable[[_Workshop], None]", on_full: "Callable[[_Workshop], Awaitable[None]]") -> None:
        self.code = code
        self._on_death = on_death
        self.runs: set[RunId] = set()
        self.local = LocalExecutor(self._start(code.method), restart=self._start_again, on_full=partial(on_full, self))
        self.reading: asyncio.Task[None] | None = None
        self._died_loading = 0

    @property
    def is_idle(self) -> bool:
        return not self.runs and not self.local.running

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it spares the next run anything: not where each attempt is an interpreter, or the flow is not there yet."""
        return self.local.loaded is not None and self.local.loaded.method == "fork"

    def _start(self, method: str) -> ForkServer:
        return ForkServer.start(method, folder=os.path.dirname(self.code.file), of=self.code.interpreter)  # noqa: PTH120 - it is used as it came

    def _start_again(self) -> ForkServer:
        self._died_loading = 0 if self.local.loaded else self._died_loading + 1
        diagnostics.warning("a fork server died", flow=self.code.flow, file=self.code.file, loading=self.local.loaded is None)
        self._on_death(self)
        return self._start("spawn" if self._died_loading >= MOST_LOADS else self.code.method)


class PackagedExecutor:
    """Attempts as processes of this machine, whatever code their runs have.

    Args:
        warm_bytes: Memory that fork servers without work may keep, together.
        look_every_s: How often that is looked at, at most.
        on_notice: Hears of environments that are built.
    """

    name = "local"

    def __init__(self, *, warm_bytes: int, look_every_s: float = LOOK_EVERY_S, on_notice: Callable[[str], None] = diagnostics.info) -> None:
        self._on_notice = on_notice
        self._warm_bytes = warm_bytes
        self._look_every_s = look_every_s
        self._contexts: dict[RunId, tuple[RunContext, _Code]] = {}
        self._workshops: dict[_Code, _Workshop] = {}  # in the order in which they became idle
        self._leaving: set[_Workshop] = set()  # their code has another one, or none
        self._seen = MergedStream(_UNREAD)
        self._environments: Environments | None = None
        self._opening = anyio.Lock()
        self._waiting: dict[AttemptId, object] = {}  # for their environments, each with a mark of its own launch
        self._told: set[tuple[RunId, str]] = set()  # which environments their runs know of
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = False
        self._look_again = False
        self._closing = False

    @property
    def running(self) -> frozenset[AttemptId]:
        """The attempts that were launched and have not been observed to end."""
        return frozenset(self._waiting).union(*(workshop.local.running for workshop in self._all()))

    @property
    def fork_servers(self) -> dict[int, str]:
        """The fork servers of now, as pid and flow's file; those without work that was over first come first."""
        return {workshop.local.fork_server_pid: workshop.code.file for workshop in self._workshops.values()}

    @property
    def warm(self) -> int:
        """How many of them have no work."""
        return sum(workshop.is_idle for workshop in self._workshops.values())

    @property
    def runs(self) -> frozenset[RunId]:
        """The runs that were prepared and not released."""
        return frozenset(self._contexts)

    async def prepare(self, context: RunContext) -> None:
        """Tell what all attempts of a run share, before its first `launch`; its code begins to be loaded.

        Raises:
            OSError: The system gave no process.
        """
        run = RunId.parse(f"{context.flow}/{context.run}")
        self._contexts[run] = context, _Code.of(context)
        await self._workshop_of(run, *self._contexts[run])

    def expect(self, context: RunContext) -> None:
        """As `prepare`, for a run of which only steps with environments come here: nothing is loaded yet."""
        self._contexts[RunId.parse(f"{context.flow}/{context.run}")] = context, _Code.of(context)

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt under its name; a second call for the same name changes nothing.

        Raises:
            RunUnknown: `prepare` was not called for its run, or `release` was.
        """
        run = attempt.run
        known = self._contexts.get(run)
        if known is None:
            raise RunUnknown(run)
        if attempt in self._waiting or any(workshop.local.is_running(attempt) for workshop in self._all()):
            return
        lock = lock_of(known[0], order.step)
        if lock is None:
            await self._launch(attempt, order, *known)
            return
        mark = self._waiting[attempt] = object()
        self._spawn(self._launch_in(lock, mark, attempt, order, *known))

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """SIGTERM to the attempt's group now, SIGKILL after `grace_s`. Unknown names are ignored."""
        if self._waiting.pop(attempt, None) is not None:
            await self._seen.put(_exited(attempt, "never-started"))
            return
        for workshop in self._all():
            if workshop.local.is_running(attempt):
                await workshop.local.cancel(attempt, grace_s=grace_s)
                if workshop.local.loaded is None:
                    self._spawn(self._end_unheard(workshop, attempt, grace_s))

    async def release(self, run: RunId) -> None:
        """The run is over: forget it, as soon as its last process has ended. Unknown runs are ignored."""
        self._contexts.pop(run, None)
        self._told = {told for told in self._told if told[0] != run}
        for workshop in self._all():
            if run in workshop.runs:
                workshop.runs.discard(run)
                await workshop.local.forget(run)
                self._became_idle(workshop)

    def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens, in order for each attempt, until the executor is closed. One at a time may watch.

        Every attempt that was launched is observed to exit, or to fail because it could not begin, once.
        """
        return self._seen.take()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """End what is left of a former owner's attempts; none of them is kept. See `LocalExecutor.adopt`.

        Raises:
            AttemptWillNotEnd: One cannot be ended.
            RunUnknown: `prepare` was not called for its run.
        """
        await end_former(attempts, {run: context for run, (context, _) in self._contexts.items()})
        return ()

    async def aclose(self) -> None:
        """End every attempt and every fork server, all at once; each has the deadlines of `LocalExecutor.aclose`."""
        if self._closing:
            return
        self._closing = True
        self._seen.lift()
        while self._waiting:
            await self._seen.put(_exited(self._waiting.popitem()[0], "never-started"))
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for workshop in self._all():
                    group.start_soon(self._stop, workshop)
            if self._environments is not None:
                await self._environments.aclose()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_WITHIN_S)
        self._seen.close()

    # --- launching ---------------------------------------------------------------------------------------

    async def _launch(self, attempt: AttemptId, order: AttemptOrder, context: RunContext, code: _Code) -> None:
        try:
            workshop = await self._workshop_of(attempt.run, context, code)
            while workshop in self._leaving:  # given up while it was told of the run
                workshop = await self._workshop_of(attempt.run, context, code)
        except OSError as error:
            await self._seen.put(_exited(attempt, f"never-started: {error.strerror or error}"))
        else:
            await workshop.local.launch(attempt, order)

    async def _launch_in(
        self, lock: bytes, mark: object, attempt: AttemptId, order: AttemptOrder, context: RunContext, code: _Code
    ) -> None:
        """Launch an attempt as soon as its environment is here; one that is cancelled meanwhile has ended."""
        try:
            ready = await (await self._all_environments()).get(context.store_url, lock)
        except Exception as error:  # noqa: BLE001 - it becomes the attempt's end
            if self._is_waiting(attempt, mark):
                del self._waiting[attempt]
                await self._seen.put(_unready(attempt, error))
            return
        if not self._is_waiting(attempt, mark):
            return
        run, built = attempt.run, ready.built
        if (run, built.name) not in self._told:
            self._told.add((run, built.name))
            said = (built.name, ready.how, os.uname().nodename, built.version, ready.took_us)
            await self._seen.put(Observation(attempt, EnvironmentReady(attempt.task, attempt.attempt, *said)))
        if self._is_waiting(attempt, mark):
            await self._launch(attempt, order, context, code._replace(interpreter=ready.interpreter))
            if self._waiting.pop(attempt, None) is None:  # cancelled while its fork server was told of it
                for workshop in self._all():
                    await workshop.local.cancel(attempt, grace_s=0)

    async def _all_environments(self) -> "Environments":
        """The environments of this machine; few runs need them, and they are no small import."""
        async with self._opening:
            if self._environments is None:
                self._environments = await anyio.to_thread.run_sync(_environments, self._on_notice)
            return self._environments

    def _is_waiting(self, attempt: AttemptId, mark: object) -> bool:
        return self._waiting.get(attempt) is mark

    # --- fork servers ------------------------------------------------------------------------------------

    def _all(self) -> list[_Workshop]:
        return [*self._workshops.values(), *self._leaving]

    async def _workshop_of(self, run: RunId, context: RunContext, code: _Code) -> _Workshop:
        """The fork server of a run's code, which knows the run."""
        workshop = self._workshops.get(code)
        if workshop is None:
            workshop = self._workshops[code] = _Workshop(code, self._became_idle, self._hold_up)
            workshop.reading = self._spawn(self._read(workshop))
        if run not in workshop.runs:
            workshop.runs.add(run)
            await workshop.local.prepare(context)
        return workshop

    async def _hold_up(self, workshop: _Workshop) -> None:
        """Wait for a fork server that takes no more now; one that does not listen holds up nobody but its own runs."""
        with anyio.move_on_after(HAND_OVER_WITHIN_S) as scope:
            await workshop.local.flush()
        if scope.cancelled_caught:
            self._spawn(workshop.local.flush())

    async def _read(self, workshop: _Workshop) -> None:
        """Pass on what a fork server says, until it is stopped or no fork server can be had."""
        try:
            async with aclosing(workshop.local.watch()) as watched:
                async for seen in watched:
                    await self._seen.put(seen)
                    if isinstance(seen, Observation) and isinstance(seen.event, AttemptExited):
                        self._became_idle(workshop)
        except (ForkServerBroken, AttemptWillNotEnd, OSError) as error:
            diagnostics.warning("a fork server is given up", flow=workshop.code.flow, file=workshop.code.file, why=str(error))
            self._retire(workshop)
            await self._end_without(workshop, error)
            await workshop.local.aclose()
            self._leaving.discard(workshop)
            self._let_go(workshop.code)

    async def _end_without(self, workshop: _Workshop, error: EvflowError | OSError) -> None:
        """End the attempts of a fork server that there will not be; each is observed when nothing of it is left."""
        while left := workshop.local.running:
            for attempt in left:
                with suppress(AttemptWillNotEnd):  # the next round may: each takes its time
                    if await workshop.local.give_up(attempt):
                        await self._seen.put(_unstarted(attempt, error))

    async def _end_unheard(self, workshop: _Workshop, attempt: AttemptId, grace_s: float) -> None:
        """End a cancelled attempt although its fork server still loads the flow, and hears nothing."""
        await anyio.sleep(grace_s)
        if workshop.local.loaded is None and workshop.local.is_running(attempt):
            with suppress(AttemptWillNotEnd):  # it has begun after all, and has been cancelled
                if await workshop.local.give_up(attempt):
                    await self._seen.put(_exited(attempt, "never-started"))
                    self._became_idle(workshop)

    def _retire(self, workshop: _Workshop) -> None:
        """From now on its code has no fork server."""
        if self._workshops.get(workshop.code) is workshop:
            del self._workshops[workshop.code]
        self._leaving.add(workshop)

    async def _stop(self, workshop: _Workshop) -> None:
        self._retire(workshop)
        try:
            await workshop.local.aclose()
        except AttemptWillNotEnd as error:
            diagnostics.warning("an attempt does not end", why=str(error))
        if workshop.reading is not None:
            await asyncio.wait([workshop.reading], timeout=STOP_WITHIN_S)
        self._leaving.discard(workshop)
        self._let_go(workshop.code)

    def _let_go(self, code: _Code) -> None:
        """A fork server has ended: if it was the last one in its environment, that one may be removed."""
        used = {workshop.code.interpreter for workshop in self._all()}
        if self._environments is not None and code.interpreter is not None and code.interpreter not in used:
            self._environments.let_go(code.interpreter.name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._seen.close(error)  # a mistake of ours: whoever watches has it

    # --- warm ones ---------------------------------------------------------------------------------------

    def _became_idle(self, workshop: _Workshop) -> None:
        if not workshop.is_idle or self._workshops.get(workshop.code) is not workshop or self._closing:
            return
        self._workshops[workshop.code] = self._workshops.pop(workshop.code)
        self._look_again = True
        if not self._looking:
            self._looking = True
            self._spawn(self._keep_within())

    async def _keep_within(self) -> None:
        """Stop the oldest idle fork servers beyond the memory that they may keep; not at once, since the next run may come."""
        try:
            while self._look_again:
                await anyio.sleep(self._look_every_s)
                self._look_again = False
                await self._look()
        finally:
            self._looking = False

    async def _look(self) -> None:
        idle = [workshop for workshop in self._workshops.values() if workshop.is_idle]
        sizes = await anyio.to_thread.run_sync(idle_sizes_bytes, [workshop.local.fork_server_pid for workshop in idle])
        surplus = sum(size for workshop, size in zip(idle, sizes, strict=True) if workshop.is_worth_keeping) - self._warm_bytes
        async with anyio.create_task_group() as group:
            for workshop, size in zip(idle, sizes, strict=True):
                if not workshop.is_idle or self._workshops.get(workshop.code) is not workshop:  # it got work meanwhile, or is gone
                    continue
                if workshop.is_worth_keeping:
                    if surplus <= 0:
                        continue
                    surplus -= size
                self._retire(workshop)  # before anything is awaited: the next run of its code gets another one
                group.start_soon(self._stop, workshop)


def idle_sizes_bytes(pids: Sequence[int]) -> list[int]:
    """As `sizes_bytes` of fork servers without work, each together with the process that waits for its next order. Blocking."""
    import psutil

    families: list[list[int]] = []
    for pid in pids:
        families.append([pid])
        with suppress(psutil.Error):  # it has ended
            families[-1] += [child.pid for child in psutil.Process(pid).children()]
    return [sum(sizes_bytes(family)) for family in families]


def sizes_bytes(pids: Sequence[int]) -> list[int]:
    """What each process takes, its part of shared pages included where the system says so. Blocking."""
    import psutil

    sizes: list[int] = []
    for pid in pids:
        try:
            info = psutil.Process(pid).memory_full_info()
            sizes.append(int(getattr(info, "pss", info.rss)))
        except psutil.Error:
            sizes.append(0)
    return sizes


def _environments(on_notice: Callable[[str], None]) -> "Environments":
    from evflow_executors.environments import of_this_machine

    return of_this_machine(on_notice)


def _unready(attempt: AttemptId, error: Exception) -> Observation:
    """An attempt whose environment cannot be had here."""
    name = error.code if isinstance(error, EvflowError) else type(error).__name__
    text = f"{error.message} {error.hint}".strip() if isinstance(error, EvflowError) else str(error)
    return Observation(attempt, AttemptFailed(attempt.task, attempt.attempt, "environment", name, text[:_TEXT_CHARS]))


def _unstarted(attempt: AttemptId, error: EvflowError | OSError) -> Observation:
    if isinstance(error, ForkServerBroken):
        text = f"{error.message} Their messages are in the output of the process that owns them."
        return Observation(attempt, AttemptFailed(attempt.task, attempt.attempt, "load", error.code, text))
    if isinstance(error, OSError):
        return _exited(attempt, f"never-started: {error.strerror or error}")
    return _exited(attempt, FORK_SERVER_DIED)


def _exited(attempt: AttemptId, why: str) -> Observation:
    return Observation(attempt, AttemptExited(attempt.task, attempt.attempt, None, None, why))
