"""Attempts in containers of a platform, as an executor: the same over AWS Batch, Kubernetes and whatever comes.

To launch is to submit a job under the attempt's name. What happens inside says the container itself, in the shard's inbox, or by a file in the
store that is carried into the inbox from here before the job's end is told: an exit is never seen before the report. What is seen from here is
what the platform knows: that the container runs, and how it ended.

Jobs outlive their owner. A new one finds them by their names and adopts those that exist. What a former owner submitted after the new one
had looked is a stray: it has an older epoch, nobody waits for it, and it is ended as soon as the platform shows it. The other way round, an
owner that lost its shard without knowing asks the log before it submits.

Each thing that may have to be repeated (a submit, a termination, a report) is a task of its own, with back-off, so that none waits for another;
all of them share the platform's rate.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.clock import now_us
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.worker.spec import AttemptOrder
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import Observation, OutputLine
from evflow_executors.remote.names import job_name
from evflow_executors.remote.platform import Job, JobSeen, Platform, PlatformProblem
from evflow_executors.remote.verdicts import CONTAINER_STOPPED, EXITED, UNFIT, end_of

SUBMIT_PATIENCE_S: Final = 900.0
"""How long a platform may be away or throttle before an attempt counts as never started; it is made again then."""
CLOSE_WITHIN_S: Final = 10.0
LEAVE_S: Final = 5.0
"""How long a platform may take to be told to end a job when the run insists. Then the job is left behind."""
LAST_LINES_S: Final = 10.0
"""How long the last lines of a job may take to come, where somebody looks: logs of platforms lag."""
MOST_TAILS: Final = 40
"""Jobs whose output is followed at once; logs have rates of their own, and nobody reads more."""
MOST_TOGETHER: Final = 1_000
MOST_IN_ARRAYS: Final = 10_000
"""Likewise, where a platform takes many as one: an array of AWS Batch has so many members."""
COMPANY_S: Final = 0.25
"""How long the launches of a wide foreach, which come in rounds, wait for those of the next round where a platform takes many as one."""
LONGEST_COMPANY_S: Final = 5.0
TAIL_LINES: Final = 20
_UNREAD: Final = 1_000
_MOST_SAID: Final = 1_000

T = TypeVar("T")


class Dispatch(Protocol):
    """What the executor needs of its owner; see `owner.OwnerDispatch`."""

    @property
    def epoch(self) -> int:
        """The epoch of the owner of now."""
        ...

    def log_of(self, attempt: AttemptId) -> str:
        """The identity of the log, for names."""
        ...

    async def jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, "Job | EvflowError"]:
        """What is to be submitted, by name; the error where there cannot be such a job."""
        ...

    async def is_owner(self) -> bool:
        """Whether the shard is still this process's."""
        ...

    async def carry(self, attempt: AttemptId, *, unless: str = "") -> None:
        """Bring what the container left in the store into the inbox, but for an exit with this reason; nothing where it reports to the log."""
        ...

    def is_ours(self, seen: JobSeen) -> bool:
        """Whether a job is of this owner's shard."""
        ...

    def asked_by(self, attempts: Sequence[AttemptId]) -> Sequence[Mapping[str, Any]]:
        """What the steps of these attempts' runs ask of the platform."""
        ...


class _Out:
    """An attempt that was launched or adopted, and has not been observed to end."""

    __slots__ = ("attempt", "cancelled", "ending", "insisted", "order", "started", "submitted", "tail", "terminating", "told")

    def __init__(self, attempt: AttemptId, order: AttemptOrder | None) -> None:
        self.attempt = attempt
        self.order = order
        self.submitted = order is None
        self.started = False
        self.ending = False
        self.insisted = False
        self.terminating: asyncio.Task[None] | None = None
        self.cancelled: float | None = None
        self.tail: asyncio.Task[None] | None = None
        self.told = ""


class RemoteExecutor:
    """The attempts of one shard on one platform.

    Args:
        platform: The platform; it belongs to the executor from now on.
        dispatch: What the owner knows.
        live: Somebody looks at what attempts print.
        on_notice: Hears why jobs wait, where that is not as usual.
    """

    def __init__(
        self, platform: Platform, dispatch: Dispatch, *, live: bool = False, on_notice: Callable[[str], None] = diagnostics.info
    ) -> None:
        self.name = platform.name
        self._platform = platform
        self._dispatch = dispatch
        self._live = live
        self._on_notice = on_notice
        self._out: dict[str, _Out] = {}
        self._names: dict[AttemptId, str] = {}
        self._queued: dict[str, _Out] = {}
        self._unsure: list[str] = []  # adopted while the platform could not be asked
        self._found: list[JobSeen] = []  # when they were adopted
        self._strays: set[str] = set()
        self._said: set[str] = set()
        self._tails = asyncio.Semaphore(MOST_TAILS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._deeds: set[asyncio.Task[None]] = set()  # what `aclose` waits for
        self._seen = MergedStream(_UNREAD)
        self._something = anyio.Event()
        self._begun = False
        self._closed = False

    @property
    def running(self) -> Collection[AttemptId]:
        """The attempts that were launched and have not been observed to end, where somebody looks; they outlive this process."""
        return self._names.keys() if self._live else ()

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Have a job submitted, together with all others of this round; a second call for the same name changes nothing."""
        if attempt in self._names or self._closed:
            return
        name = job_name(self._dispatch.log_of(attempt), attempt)
        out = self._put_out(name, attempt, order)
        self._queued[name] = out
        self._something.set()

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Take it back before it is submitted, else have the platform end it; the second time, without grace. Unknown names are ignored.

        A platform that cannot be told the second time is not waited for: the attempt is observed to exit, and its job may go on.
        """
        name = self._names.get(attempt)
        if name is None:
            return
        out = self._out[name]
        if self._queued.pop(name, None) is not None:
            await self._over(name, AttemptExited(attempt.task, attempt.attempt, None, None, "never-started"))
            return
        is_first, out.cancelled = out.cancelled is None, grace_s
        if is_first:
            if out.submitted:
                out.terminating = self._do(self._terminate(name, "the run asked for it", grace_s))
        elif not out.insisted and not out.ending:
            out.insisted = True
            self._do(self._insist(name, out))

    def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens, in order for each attempt, until the executor is closed."""
        return self._watch()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """Which of a former owner's attempts have a job; one that has ended is observed to exit.

        Where the platform cannot be asked now all are kept, and those without a job are observed to exit once it can.
        """
        by_name = {job_name(self._dispatch.log_of(attempt), attempt): attempt for attempt in attempts}
        try:
            found = await self._platform.find(list(by_name), self._dispatch.asked_by(attempts))
        except PlatformProblem as error:
            diagnostics.warning("a platform cannot be asked which jobs exist; they are waited for", platform=self.name, why=error.message)
            self._unsure += by_name
            found = None
        kept = [name for name in by_name if found is None or name in found]
        for name in kept:
            self._put_out(name, by_name[name], None)
        if found is not None:
            self._found += found.values()
        self._something.set()
        return [by_name[name] for name in kept]

    async def aclose(self) -> None:
        """Have done what was asked for, and look no more. Jobs go on: whoever owns their shard next finds them."""
        if self._closed:
            return
        self._closed = True
        self._queued.clear()
        self._seen.lift()
        with anyio.CancelScope(shield=True):
            if self._deeds:
                await asyncio.wait(self._deeds, timeout=CLOSE_WITHIN_S)
            tasks = [*self._tasks, *self._deeds]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S)
            with anyio.move_on_after(CLOSE_WITHIN_S):
                await self._platform.aclose()
        self._seen.close()

    # --- tasks -----------------------------------------------------------------------------------------------

    async def _watch(self) -> AsyncGenerator[Observation | OutputLine]:
        if not self._begun and not self._closed:
            self._begun = True
            # Plain tasks, which `aclose` ends: a task group in a generator would be left in another task than it was entered.
            self._spawn(self._drive())
            self._spawn(self._follow())
        async for seen in self._seen.take():
            yield seen

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._task(work, self._tasks)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._task(work, self._deeds)

    def _task(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        among.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            among.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._seen.close(error)  # a mistake of ours, or a log that is gone for good: whoever watches has it

        task.add_done_callback(done)
        return task

    async def _drive(self) -> None:
        for seen in self._found:
            await self._see(seen)
        self._found.clear()
        if self._unsure:
            self._spawn(self._make_sure())
        most = MOST_IN_ARRAYS if self._platform.together else MOST_TOGETHER
        while True:
            self._something = anyio.Event()
            await self._wait_for_company()
            while self._queued:
                some = [self._queued.pop(name) for name in list(self._queued)[:most]]
                self._do(self._submit(some))
            await self._something.wait()  # a launch or the end

    async def _wait_for_company(self) -> None:
        """Wait until launches come no more, where they are many and the platform takes many as one."""
        together, deadline_s = self._platform.together, anyio.current_time() + LONGEST_COMPANY_S
        while together and together <= len(self._queued) < MOST_IN_ARRAYS and anyio.current_time() < deadline_s:
            before = len(self._queued)
            await anyio.sleep(COMPANY_S)
            if len(self._queued) <= before:
                return

    async def _follow(self) -> None:
        async with _closing(self._platform.watch()) as watched:
            async for seen in watched:
                await self._see(seen)

    # --- submitting ------------------------------------------------------------------------------------------

    async def _submit(self, outs: Sequence[_Out]) -> None:
        """Submit until each is there, was refused, or has been tried for too long."""
        orders = [(self._names[out.attempt], out.attempt, out.order) for out in outs if out.order is not None]
        jobs: dict[str, Job] = {}
        for name, made in (await self._dispatch.jobs(orders)).items():
            if isinstance(made, Job):
                jobs[name] = made
            else:
                await self._over(name, _unfit(self._out[name].attempt, made))
        deadline_s, failures = anyio.current_time() + SUBMIT_PATIENCE_S, 0
        while jobs:
            if not await self._dispatch.is_owner():
                diagnostics.warning("jobs are not submitted: another process owns their shard", platform=self.name, jobs=len(jobs))
                return
            problems = await self._platform.submit(list(jobs.values()))
            for name in [name for name in jobs if name not in problems]:
                del jobs[name]
                await self._submitted(name)
            # What was submitted without an answer, and is seen by now.
            problems = {name: problem for name, problem in problems.items() if name in self._out and not self._out[name].submitted}
            jobs = {name: job for name, job in jobs.items() if name in problems}
            for name, problem in problems.items():
                if not problem.transient:
                    del jobs[name]
                    await self._over(name, _unfit(self._out[name].attempt, problem))
            for name in [name for name in jobs if self._out[name].cancelled is not None and not self._may_exist(problems[name])]:
                del jobs[name]
                await self._over(name, self._never_started(name, ""))
            if not jobs:
                return
            failures = 1 if len(jobs) < len(problems) else failures + 1
            worst = max(problems.values(), key=lambda problem: problem.retry_after_s)
            if anyio.current_time() >= deadline_s:
                for name in jobs:
                    await self._over(name, self._never_started(name, worst.message))
                return
            self._tell(f"{self.name}: {worst.message} It is tried again.")
            await anyio.sleep(max(worst.retry_after_s, pause_s(failures)))

    def _may_exist(self, problem: PlatformProblem) -> bool:
        """Whether a job may be there though its submit was not answered; a throttled call has done nothing."""
        return not problem.throttled

    async def _submitted(self, name: str) -> None:
        out = self._out.get(name)
        if out is None:
            return
        out.submitted, out.order = True, None
        if out.cancelled is not None and not out.insisted:
            out.terminating = self._do(self._terminate(name, "the run asked for it", out.cancelled))

    async def _terminate(self, name: str, why: str, grace_s: float) -> None:
        """Have a job ended, however often that has to be asked for."""
        failures, out = 0, self._out.get(name)
        while self._out.get(name) is out if out is not None else name in self._strays:
            try:
                await self._platform.terminate(name, why, grace_s)
            except PlatformProblem as error:
                failures += 1
                diagnostics.debug("a job cannot be ended yet", job=name, why=error.message)
                self._tell(f"{self.name}: jobs cannot be ended yet. {error.message}")
                if not error.transient and failures > 3:
                    self._tell(f"{self.name}: the job {name} cannot be ended: {error.message}")
                    return
                await anyio.sleep(max(error.retry_after_s, pause_s(failures)))
            else:
                return

    async def _insist(self, name: str, out: _Out) -> None:
        """Have a job end at once, or leave it behind: whoever asks twice does not wait for a platform that does not answer."""
        if out.terminating is not None:
            out.terminating.cancel()
        with anyio.move_on_after(LEAVE_S) as scope:
            await self._terminate(name, "the run insists", 0.0)
        if scope.cancelled_caught and self._out.get(name) is out and not out.ending:
            self._tell(
                f"{self.name} cannot be told to end the jobs of {out.attempt.run}, and they are left behind. `evflow {self.name} kill {out.attempt.run}` ends "
                "them when it answers."
            )
            await self._over(name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, "left-behind"))
            self._strays.add(name)  # it is ended where this process lives on
            self._spawn(self._terminate(name, "its run was cancelled", 0.0))

    async def _make_sure(self) -> None:
        """Ask for adopted jobs until the platform answers; those that it does not know are over."""
        failures = 0
        asked = self._dispatch.asked_by([self._out[name].attempt for name in self._unsure if name in self._out])
        while True:
            try:
                found = await self._platform.find(self._unsure, asked)
            except PlatformProblem as error:
                failures += 1
                await anyio.sleep(max(error.retry_after_s, pause_s(failures)))
                continue
            for name in self._unsure:
                if name in found:
                    await self._see(found[name])
                elif (out := self._out.get(name)) is not None:
                    await self._dispatch.carry(out.attempt)
                    await self._over(name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, "job-gone"))
            self._unsure.clear()
            return

    # --- what is seen ----------------------------------------------------------------------------------------

    async def _see(self, seen: JobSeen) -> None:
        out = self._out.get(seen.name)
        if out is None:
            self._heed_stray(seen)
            return
        if out.ending:
            return
        out.submitted = True
        if seen.message and seen.message != out.told:
            out.told = seen.message
            self._tell(f"{out.attempt} on {self.name}: {seen.message}")
        if (seen.phase == "running" or seen.started_us) and not out.started:
            out.started = True
            attempt = out.attempt
            started = AttemptStarted(attempt.task, attempt.attempt, seen.host or seen.place or self.name, 0, seen.started_us or now_us())
            await self._seen.put(Observation(attempt, started))
            if self._live:
                out.tail = self._spawn(self._show(seen.name, attempt))
        if seen.phase == "ended":
            out.ending = True
            self._do(self._end(out, seen))

    def _heed_stray(self, seen: JobSeen) -> None:
        """End a job that a former owner of this shard submitted, and that nobody waits for."""
        if seen.phase == "ended":
            self._strays.discard(seen.name)
        elif seen.name not in self._strays and 0 < seen.epoch < self._dispatch.epoch and self._dispatch.is_ours(seen):
            diagnostics.warning("a job of a former owner is ended: nobody waits for it", job=seen.name, platform=self.name)
            self._strays.add(seen.name)
            self._do(self._terminate(seen.name, "its owner is gone, and its attempt was given up", 0.0))

    async def _end(self, out: _Out, seen: JobSeen) -> None:
        """Tell an attempt's end, behind all that it printed and reported."""
        attempt = out.attempt
        if out.tail is not None:
            await asyncio.wait([out.tail], timeout=LAST_LINES_S)
            out.tail.cancel()
        verdict = EXITED if out.cancelled is not None and seen.verdict.code != "container-timeout" else seen.verdict
        # A container knows that it was told to end. By whom, and that it would be again, the platform knows better.
        await self._dispatch.carry(attempt, unless=CONTAINER_STOPPED if verdict.kind == "failed" else "")
        log = await self._platform.log_tail(seen.name, TAIL_LINES) if verdict.kind == "exited" and seen.exit_code in UNFIT else ""
        await self._over(seen.name, end_of(attempt, verdict, seen.exit_code, log))

    async def _show(self, name: str, attempt: AttemptId) -> None:
        """Pass on what a job prints; it is for the eyes, and in the store as well."""
        async with self._tails:
            try:
                async with _closing(self._platform.logs(name)) as lines:
                    async for line in lines:
                        await self._seen.put(OutputLine(attempt, "stdout", line.at_us, line.text))
            except PlatformProblem as error:
                self._tell(f"{self.name}: the output of {attempt} cannot be followed: {error.message}")

    def _put_out(self, name: str, attempt: AttemptId, order: AttemptOrder | None) -> _Out:
        out = self._out[name] = _Out(attempt, order)
        self._names[attempt] = name
        return out

    async def _over(self, name: str, event: AttemptExited | AttemptFailed) -> None:
        out = self._out.pop(name, None)
        if out is not None:
            del self._names[out.attempt]
            await self._seen.put(Observation(out.attempt, event))

    def _never_started(self, name: str, why: str) -> AttemptExited:
        attempt = self._out[name].attempt
        return AttemptExited(attempt.task, attempt.attempt, None, None, f"never-started: {why}" if why else "never-started")

    def _tell(self, text: str) -> None:
        if text not in self._said:
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said.add(text)
            self._on_notice(text)


@asynccontextmanager
async def _closing(stream: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """The stream, closed in the task that reads it: what a cancelled reader leaves open the garbage collector closes in another one."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await stream.aclose()


def _unfit(attempt: AttemptId, error: EvflowError) -> AttemptFailed:
    """An attempt for which there can be no job."""
    text = f"{error.message} {error.hint}".strip()
    return AttemptFailed(attempt.task, attempt.attempt, "container", error.code, text[:2_000])
