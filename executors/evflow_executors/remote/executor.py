"""Attempts in containers of a platform, as an executor: the same over AWS Batch, Kubernetes and whatever comes.

To launch is to submit a job under the attempt's name. What happens inside says the container itself, in the shard's inbox, or by a file in the
store that is carried into the inbox from here before the job's end is told: an exit is never seen before the report. What is seen from here is
what the platform knows: that the container runs, and how it ended.

Jobs outlive their owner. A new one finds them by their names and adopts those that exist. What a former owner submitted after the new one
had looked is a stray: it has an older epoch, nobody waits for it, and it is ended as soon as the platform shows it. The other way round, an
owner that lost its shard without knowing asks the log before it submits.

The nodes of a gang are submitted together, under the gang's name, and are attempts like others from then on. A platform ends all of them when one has come to
a bad end; that one is told first, and the others when the run has asked for their end, so the log says which node it was.

Each thing that may have to be repeated (a submit, a termination, a report) is a task of its own, with back-off, so that none waits for another;
all of them share the platform's rate.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from signal import SIGTERM
from typing import Any, Final, TypeVar

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.clock import now_us
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.log.store_waits import UNHEARD, Waits
from evflow.store import StoreUnusable
from evflow.worker.spec import AttemptOrder
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import Observation, OutputLine
from evflow_executors.remote.command import objects_read
from evflow_executors.remote.keeping import Keeping
from evflow_executors.remote.names import gang_name, job_name
from evflow_executors.remote.platform import Job, JobSeen, Platform, PlatformProblem
from evflow_executors.remote.records import Dispatch, Gang, Out, is_away
from evflow_executors.remote.storeless import Storeless
from evflow_executors.remote.verdicts import CONTAINER_STOPPED, EXITED, GANG_ENDED, UNFIT, Verdict, end_of

SUBMIT_PATIENCE_S: Final = 900.0
"""How long a platform may be away or throttle, or a store be away that a job's order goes to, before an attempt counts as never started; it is made again then."""
STORE_AGAIN_S = 5.0
"""After which pause such a store is tried again; a try takes its own time."""
CANCELLED_EVERY_S: Final = 0.5
"""How often it is seen, between two tries of a submit, whether anybody still wants it."""
CLOSE_WITHIN_S: Final = 10.0
LEAVE_S: Final = 5.0
"""How long a platform may take to be told to end a job when the run insists. Then the job is left behind."""
FATE_S: Final = 60.0
"""How long a node that was ended with its gang waits for the run to ask for that; what is not asked for by then is told as it is."""
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
_TERMINATED: Final = 128 + SIGTERM
_UNREAD: Final = 1_000
_MOST_SAID: Final = 1_000

T = TypeVar("T")


class RemoteExecutor:
    """The attempts of one shard on one platform.

    Args:
        platform: The platform; it belongs to the executor from now on.
        dispatch: What the owner knows.
        live: Somebody looks at what attempts print.
        on_notice: Hears why jobs wait, where that is not as usual.
        waits: Hears which runs wait for their store.
    """

    def __init__(
        self,
        platform: Platform,
        dispatch: Dispatch,
        *,
        live: bool = False,
        on_notice: Callable[[str], None] = diagnostics.info,
        waits: Waits = UNHEARD,
    ) -> None:
        self.name = platform.name
        self._platform = platform
        self._dispatch = dispatch
        self._live = live
        self._on_notice = on_notice
        self._out: dict[str, Out] = {}
        self._storeless = Storeless(platform.name, waits, self._out)
        self._names: dict[AttemptId, str] = {}
        self._queued: dict[str, Sequence[Out]] = {}  # by the name of the job, which is a gang's where it has several
        self._making: dict[str, Sequence[Out]] = {}  # likewise: what their jobs are is being made, and nothing of them is submitted
        self._gangs: dict[str, Gang] = {}  # by the names of their nodes
        self._keeping = Keeping(dispatch, lambda: self._out)
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
        out = self._put_out(job_name(self._dispatch.log_of(attempt), attempt), attempt, order)
        self._queued[out.name] = (out,)
        self._something.set()

    async def launch_gang(self, nodes: Sequence[tuple[AttemptId, AttemptOrder]]) -> None:
        """Have the nodes of a gang submitted as one; a second call for the same gang changes nothing."""
        if self._closed or any(attempt in self._names for attempt, _ in nodes):
            return
        self.know_gangs([[attempt for attempt, _ in nodes]])
        log = self._dispatch.log_of(nodes[0][0])
        outs = [self._put_out(job_name(log, attempt), attempt, order) for attempt, order in nodes]
        self._queued[gang_name(log, nodes[0][0])] = outs
        self._something.set()

    def know_gangs(self, gangs: Iterable[Sequence[AttemptId]]) -> None:
        """Learn which attempts a former owner launched together."""
        for nodes in gangs:
            log = self._dispatch.log_of(nodes[0])
            names = [job_name(log, attempt) for attempt in nodes]
            self._gangs.update(dict.fromkeys(names, Gang(gang_name(log, nodes[0]), nodes[0], names)))

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Take it back before it is submitted, else have the platform end it; the second time, without grace. Unknown names are ignored.

        A platform that cannot be told the second time is not waited for: the attempt is observed to exit, and its job may go on.
        """
        name = self._names.get(attempt)
        if name is None:
            return
        out = self._out[name]
        job = name if out.gang is None else out.gang.name
        queued = self._queued.pop(job, None) or self._making.pop(job, None)
        if queued is not None:
            for one in queued:
                await self._over(one.name, self._never_started(one.name, ""))
            return
        is_first, out.cancelled = out.cancelled is None, grace_s
        if out.asked is not None:
            out.asked.set()
        if is_first:
            if out.submitted:
                out.terminating = self._do(self._terminate(name, "the run asked for it", grace_s))
        elif not out.insisted:
            out.insisted = True
            if out.carrying is not None:
                out.carrying.deadline = anyio.current_time() + LEAVE_S
            elif not out.ending:
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
            found = await self._platform.find(list(by_name), self._dispatch.asked_by(attempts), self._gangs_of(by_name))
        except PlatformProblem as error:
            diagnostics.warning("a platform cannot be asked which jobs exist; they are waited for", platform=self.name, why=error.message)
            self._unsure += by_name
            found = None
        kept = [name for name in by_name if found is None or name in found]
        for name in by_name.keys() - kept:
            if (gang := self._gangs.get(name)) is not None and not any(node in kept for node in gang.nodes):
                del self._gangs[name]
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
        self._making.clear()
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
            self._spawn(self._keeping.go_on())
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
        if self._found:
            self._keeping.soon()
        self._found.clear()
        if self._unsure:
            self._spawn(self._make_sure())
        most = MOST_IN_ARRAYS if self._platform.together else MOST_TOGETHER
        while True:
            self._something = anyio.Event()
            await self._wait_for_company()
            while self._queued:
                by_store: dict[str, dict[str, Sequence[Out]]] = {}  # so that none waits for a store that is not its own
                for name in list(self._queued)[:most]:
                    some = self._making[name] = self._queued.pop(name)
                    by_store.setdefault(self._dispatch.store_of(some[0].attempt), {})[name] = some
                for outs in by_store.values():
                    self._do(self._submit(outs))
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

    async def _submit(self, outs: Mapping[str, Sequence[Out]]) -> None:
        """Submit until each is there, was refused, or has been tried for too long.

        Args:
            outs: The attempts by the name of the job that they are: the nodes of a gang, else one.
        """
        jobs: dict[str, Job] = {}
        away: dict[str, StoreUnusable] = {}
        each = [out for some in outs.values() for out in some]
        late = self._spawn(self._storeless.say_if_late(each))
        try:
            jobs_of = await self._jobs(outs)
        finally:
            late.cancel()
        for name, made in jobs_of.items():
            if self._making.pop(name, None) is None:  # taken back meanwhile
                continue
            if isinstance(made, Job):
                jobs[name] = made
                for out in outs[name]:
                    out.reads = objects_read(made.command.env)
                    self._storeless.drop(out.name)
            elif is_away(made):
                away[name] = made
            else:
                await self._unfit(outs[name], made)
        await self._wait_for_store(outs, away)
        await self._storeless.say(each)
        deadline_s, failures = anyio.current_time() + SUBMIT_PATIENCE_S, 0
        while jobs:
            if not await self._dispatch.is_owner():
                diagnostics.warning("jobs are not submitted: another process owns their shard", platform=self.name, jobs=len(jobs))
                return
            problems = await self._platform.submit(list(jobs.values()))
            for name in [name for name in jobs if name not in problems]:
                del jobs[name]
                for out in outs[name]:
                    await self._submitted(out.name)
            # What was submitted without an answer, and is seen by now.
            problems = {name: problem for name, problem in problems.items() if any(map(self._is_unseen, outs[name]))}
            jobs = {name: job for name, job in jobs.items() if name in problems}
            for name, problem in problems.items():
                if not problem.transient:
                    del jobs[name]
                    await self._unfit(outs[name], problem)
            await self._drop_cancelled(jobs, outs, problems)
            if not jobs:
                return
            failures = 1 if len(jobs) < len(problems) else failures + 1
            worst = max(problems.values(), key=lambda problem: problem.retry_after_s)
            if anyio.current_time() >= deadline_s:
                for name in jobs:
                    await self._give_up(outs[name], worst.message, may_exist=True)
                return
            self._tell(f"{self.name}: {worst.message.rstrip('.')}. It is tried again.")
            again_s = anyio.current_time() + max(worst.retry_after_s, pause_s(failures))
            while jobs and (left_s := again_s - anyio.current_time()) > 0:
                await anyio.sleep(min(left_s, CANCELLED_EVERY_S))
                await self._drop_cancelled(jobs, outs, problems)

    async def _wait_for_store(self, outs: Mapping[str, Sequence[Out]], away: Mapping[str, StoreUnusable]) -> None:
        """Queue again what could not be made because its store is away."""
        now_s = anyio.current_time()
        for name, error in away.items():
            first = outs[name][0]
            if first.stored_by_s is None:
                first.stored_by_s = now_s + SUBMIT_PATIENCE_S
            if now_s >= first.stored_by_s:
                await self._give_up(outs[name], error.message, may_exist=False)
            else:
                self._tell(f"{self.name}: {error.message.rstrip('.')}. It is tried again.")
                self._queued[name] = outs[name]
                self._storeless.add(outs[name], error.message)
        if away:
            self._spawn(self._stir(STORE_AGAIN_S))

    async def _stir(self, after_s: float) -> None:
        await anyio.sleep(after_s)
        self._something.set()

    async def _drop_cancelled(
        self, jobs: dict[str, Job], outs: Mapping[str, Sequence[Out]], problems: Mapping[str, PlatformProblem]
    ) -> None:
        """Take out what is not to be submitted any more: what was cancelled and cannot be there, and what is over or was seen meanwhile."""
        for name in list(jobs):
            if not any(map(self._is_unseen, outs[name])):
                del jobs[name]
            elif any(map(_is_cancelled, outs[name])) and not self._may_exist(problems[name]):
                del jobs[name]
                await self._give_up(outs[name], "", may_exist=False)

    async def _jobs(self, outs: Mapping[str, Sequence[Out]]) -> Mapping[str, Job | EvflowError]:
        orders = {name: [(out.name, out.attempt, out.order) for out in some if out.order is not None] for name, some in outs.items()}
        made = dict(await self._dispatch.jobs([some[0] for name, some in orders.items() if outs[name][0].gang is None]))
        for name, some in orders.items():
            if outs[name][0].gang is not None:
                away = next(filter(is_away, made.values()), None)  # then this one's is: it is the same
                made[name] = away or await self._dispatch.gang(name, some)
        return made

    def _is_unseen(self, out: Out) -> bool:
        return out.name in self._out and not out.submitted

    async def _unfit(self, outs: Sequence[Out], error: EvflowError) -> None:
        """There can be no job of these attempts."""
        text = f"{error.message} {error.hint}".strip()[:2_000]
        for out in outs:
            await self._over(out.name, AttemptFailed(out.attempt.task, out.attempt.attempt, "container", error.code, text))

    async def _give_up(self, outs: Sequence[Out], why: str, *, may_exist: bool) -> None:
        """These attempts count as never started; nodes of a gang that are there all the same are ended."""
        for out in outs:
            if out.name in self._out:
                await self._over(out.name, self._never_started(out.name, why))
                if may_exist and out.gang is not None:
                    self._strays.add(out.name)
                    self._do(self._terminate(out.name, "its gang was given up", 0.0))

    def _may_exist(self, problem: PlatformProblem) -> bool:
        """Whether a job may be there though its submit was not answered; a call that was throttled, or not sent, has done nothing."""
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

    async def _insist(self, name: str, out: Out) -> None:
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
                found = await self._platform.find(self._unsure, asked, self._gangs_of(self._unsure))
            except PlatformProblem as error:
                failures += 1
                await anyio.sleep(max(error.retry_after_s, pause_s(failures)))
                continue
            for name in self._unsure:
                if name in found:
                    await self._see(found[name])
                elif (out := self._out.get(name)) is not None:
                    out.ending = True
                    self._do(self._gone(out))
            self._unsure.clear()
            self._keeping.soon()
            return

    async def _gone(self, out: Out) -> None:
        """An adopted attempt has no job: it has ended so long ago that its platform has forgotten it, or was never submitted."""
        await self._carry(out)
        await self._over(out.name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, "job-gone"))

    # --- what is seen ----------------------------------------------------------------------------------------

    async def _see(self, seen: JobSeen) -> None:
        out = self._out.get(seen.name)
        if out is None:
            self._heed_stray(seen)
            return
        if out.ending:
            return
        out.submitted = True
        out.reads |= seen.reads
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

    async def _end(self, out: Out, seen: JobSeen) -> None:
        """Tell an attempt's end, behind all that it printed and reported."""
        if out.tail is not None:
            await asyncio.wait([out.tail], timeout=LAST_LINES_S)
            out.tail.cancel()
        if out.gang is None or out.asked is None:
            verdict = EXITED if out.cancelled is not None and seen.verdict.code != "container-timeout" else seen.verdict
            await self._tell_end(out, seen, verdict)
            return
        if seen.verdict.code == GANG_ENDED:
            with anyio.move_on_after(FATE_S):  # another node's end is told meanwhile, and the run asks for that of this one
                await out.asked.wait()
        async with out.gang.telling:
            await self._tell_end(out, seen, _fate_of(out, seen))

    async def _tell_end(self, out: Out, seen: JobSeen, verdict: Verdict) -> None:
        # A container knows that it was told to end. By whom, and that it would be again, the platform knows better.
        await self._carry(out, unless=CONTAINER_STOPPED if verdict.kind == "failed" else "")
        log = await self._platform.log_tail(seen.name, TAIL_LINES) if verdict.kind == "exited" and seen.exit_code in UNFIT else ""
        await self._over(seen.name, end_of(out.attempt, verdict, seen.exit_code, log))

    async def _carry(self, out: Out, unless: str = "") -> None:
        """Bring what the container left in the store into the inbox; where the run insists on its end, a store that is away is not waited for."""
        with anyio.CancelScope(deadline=anyio.current_time() + LEAVE_S if out.insisted else inf) as out.carrying:
            await self._dispatch.carry(out.attempt, unless=unless, tell=lambda text: self._tell(f"{self.name}: {text}"))
        if out.carrying.cancelled_caught:
            self._tell(f"{self.name}: what the container of {out.attempt} reported is left in the store.")

    async def _show(self, name: str, attempt: AttemptId) -> None:
        """Pass on what a job prints; it is for the eyes, and in the store as well."""
        async with self._tails:
            try:
                async with _closing(self._platform.logs(name)) as lines:
                    async for line in lines:
                        await self._seen.put(OutputLine(attempt, "stdout", line.at_us, line.text))
            except PlatformProblem as error:
                self._tell(f"{self.name}: the output of {attempt} cannot be followed: {error.message}")

    def _put_out(self, name: str, attempt: AttemptId, order: AttemptOrder | None) -> Out:
        gang = self._gangs.get(name)
        out = self._out[name] = Out(name, attempt, order, gang)
        self._names[attempt] = name
        if gang is not None:
            gang.left.add(name)
        return out

    def _gangs_of(self, names: Collection[str]) -> Mapping[str, Sequence[str]]:
        return {gang.name: gang.nodes for name in names if (gang := self._gangs.get(name)) is not None}

    async def _over(self, name: str, event: AttemptExited | AttemptFailed) -> None:
        out = self._out.pop(name, None)
        if out is not None:
            del self._names[out.attempt]
            await self._storeless.end(out)
            if out.gang is not None:
                self._part(out)
            await self._seen.put(Observation(out.attempt, event))

    def _part(self, out: Out) -> None:
        """A node has ended; behind the last one nobody asks for the gang any more."""
        assert out.gang is not None
        out.gang.left.discard(out.name)
        if not out.gang.left:
            for name in out.gang.nodes:
                self._gangs.pop(name, None)
            self._do(self._dispatch.forget_gang(out.gang.control))

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


def _is_cancelled(out: Out) -> bool:
    return out.cancelled is not None


def _fate_of(out: Out, seen: JobSeen) -> Verdict:
    """What the end of a node means.

    It may have been lost although its end was asked for: then the others failed of that. What nobody asked for is a loss as well, where all that is seen
    is that its platform ended it.
    """
    verdict = seen.verdict
    if out.cancelled is not None:
        return EXITED if verdict.kind == "exited" else verdict
    if verdict.code == GANG_ENDED:
        return Verdict("lost", "job-gone", verdict.text)
    if verdict == EXITED and seen.exit_code == _TERMINATED:  # the container itself said nothing, see `container`
        return Verdict("lost", CONTAINER_STOPPED, "It does not say why.")
    return verdict
