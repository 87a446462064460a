"""Attempts are submitted: their jobs are made, a round at a time, and handed to the platform until each is there or is given up.

What is put in waits for the next round. A round takes all that is there, so a platform that takes many jobs as one, an array of AWS Batch, gets them together;
the launches of a wide foreach come in several rounds, and are waited for. The nodes of a gang are one job.

A job's order may have to go to a store. One that is away is waited for, and so is a platform: each for `SUBMIT_PATIENCE_S`. An attempt that is given up
counts as never started, and is made again. Jobs of different stores are made at once, so that none waits for a store that is not its own.

An owner that lost its shard without knowing asks the log before it submits, and submits nothing: what is queued is the new owner's.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.core.events import AttemptFailed
from evflow.errors import EvflowError
from evflow.log.said_waits import LATE_S
from evflow.store import StoreUnusable
from evflow_executors.remote.command import objects_read
from evflow_executors.remote.in_flight import InFlight
from evflow_executors.remote.notices import Notices
from evflow_executors.remote.platform import Job, Platform, PlatformProblem
from evflow_executors.remote.records import Dispatch, Out, is_away
from evflow_executors.remote.tasks import Tasks
from evflow_executors.remote.terminations import Terminations

SUBMIT_PATIENCE_S: Final = 900.0
"""How long a platform may be away or throttle, or a store be away that a job's order goes to, before an attempt counts as never started; it is made again then."""
STORE_AGAIN_S = 5.0
"""After which pause such a store is tried again; a try takes its own time."""
CANCELLED_EVERY_S: Final = 0.5
"""How often it is seen, between two tries of a submit, whether anybody still wants it."""
MOST_TOGETHER: Final = 1_000
"""How many jobs are made and submitted in one go."""
MOST_IN_ARRAYS: Final = 10_000
"""Likewise, where a platform takes many as one: an array of AWS Batch has so many members."""
COMPANY_S: Final = 0.25
"""How long the launches of a wide foreach, which come in rounds, wait for those of the next round where a platform takes many as one."""
LONGEST_COMPANY_S: Final = 5.0
NOT_YET: Final = "It is not submitted yet:"
_TEXT_CHARS: Final = 2_000


class Submitting:
    """What submits the attempts of one executor.

    Args:
        platform: The platform.
        dispatch: What the owner knows.
        in_flight: The attempts that are in flight; what is submitted is noted there, and the end of what is not.
        terminations: Ends what was cancelled while it was submitted, and what may be there of a gang that is given up.
        tasks: The executor's tasks.
        notices: Hears why jobs wait.
    """

    def __init__(
        self, platform: Platform, dispatch: Dispatch, in_flight: InFlight, terminations: Terminations, tasks: Tasks, notices: Notices
    ) -> None:
        self._platform = platform
        self._dispatch = dispatch
        self._in_flight = in_flight
        self._terminations = terminations
        self._tasks = tasks
        self._notices = notices
        self._queued: dict[str, Sequence[Out]] = {}  # by the name of the job, which is a gang's where it has several
        self._making: dict[str, Sequence[Out]] = {}  # likewise: what their jobs are is being made, and nothing of them is submitted
        self._something = anyio.Event()

    def put(self, job: str, outs: Sequence[Out]) -> None:
        """Have attempts submitted as one job, together with all others of this round.

        Args:
            job: The job's name.
            outs: The nodes of a gang, in their order, else one attempt.
        """
        self._queued[job] = outs
        self._something.set()

    async def take_back(self, out: Out) -> bool:
        """Let an attempt end as never started, and its whole gang with it, where nothing of them was handed to the platform yet; whether that is so."""
        job = out.name if out.gang is None else out.gang.name
        outs = self._queued.pop(job, None) or self._making.pop(job, None)
        if outs is None:
            return False
        for one in outs:
            await self._in_flight.never_started(one.name)
        return True

    def is_there(self, out: Out) -> None:
        """The platform has an attempt's job: it has said so, or shows it. What was cancelled meanwhile is ended now."""
        if out.submitted:
            return
        out.submitted = True
        self._in_flight.unstarted.note(out.attempt, "")
        if out.insisted:
            self._terminations.insist(out)  # once more: there was nothing to end yet
        elif out.cancelled is not None:
            self._terminations.ask(out, out.cancelled)

    def stop(self) -> None:
        """Submit nothing that was not handed to the platform yet. Its attempts are in flight still: whoever owns their shard next launches them."""
        self._queued.clear()
        self._making.clear()

    async def go_on(self) -> None:
        """Submit what is put in, round by round, until cancelled."""
        most = MOST_IN_ARRAYS if self._platform.together else MOST_TOGETHER
        while True:
            self._something = anyio.Event()
            await self._wait_for_company()
            while self._queued:
                by_store: dict[str, dict[str, Sequence[Out]]] = {}
                for job in list(self._queued)[:most]:
                    outs = self._making[job] = self._queued.pop(job)
                    by_store.setdefault(self._dispatch.store_of(outs[0].attempt), {})[job] = outs
                for of_store in by_store.values():
                    self._tasks.do(self._submit(of_store))
            await self._something.wait()  # a launch or the end

    async def _wait_for_company(self) -> None:
        """Wait until launches come no more, where they are many and the platform takes many as one."""
        together, deadline_s = self._platform.together, anyio.current_time() + LONGEST_COMPANY_S
        while together and together <= len(self._queued) < MOST_IN_ARRAYS and anyio.current_time() < deadline_s:
            before = len(self._queued)
            await anyio.sleep(COMPANY_S)
            if len(self._queued) <= before:
                return

    async def _submit(self, outs: Mapping[str, Sequence[Out]]) -> None:
        """Make the jobs of a round and hand them in.

        Args:
            outs: The attempts by the name of the job that they are: the nodes of a gang, else one. All of their runs have one store.
        """
        await self._hand_in(await self._make(outs), outs)

    # --- jobs are made -------------------------------------------------------------------------------------

    async def _make(self, outs: Mapping[str, Sequence[Out]]) -> dict[str, Job]:
        """The jobs, by name, of those that are still wanted; what there can be no job of has ended, or is queued again for its store."""
        jobs: dict[str, Job] = {}
        away: dict[str, StoreUnusable] = {}
        each = [out for some in outs.values() for out in some]
        late = self._tasks.spawn(self._in_flight.storeless.say_if_late(each))
        try:
            jobs_of = await self._jobs(outs)
        finally:
            late.cancel()
        for name, made in jobs_of.items():
            if is_away(made):
                away[name] = made
                continue
            if self._making.pop(name, None) is None:  # taken back meanwhile
                continue
            if isinstance(made, Job):
                jobs[name] = made
                for out in outs[name]:
                    out.reads = objects_read(made.command.env)
                    self._in_flight.storeless.drop(out.name)
            else:
                await self._unfit(outs[name], made)
        await self._wait_for_store(outs, away)
        await self._in_flight.storeless.say(each)
        return jobs

    async def _jobs(self, outs: Mapping[str, Sequence[Out]]) -> Mapping[str, Job | EvflowError]:
        orders = {name: [(out.name, out.attempt, out.order) for out in some if out.order is not None] for name, some in outs.items()}
        made = dict(await self._dispatch.jobs([some[0] for name, some in orders.items() if outs[name][0].gang is None]))
        for name, some in orders.items():
            if outs[name][0].gang is not None:
                away = next(filter(is_away, made.values()), None)  # then this one's is: it is the same
                made[name] = away or await self._dispatch.gang(name, some)
        return made

    async def _wait_for_store(self, outs: Mapping[str, Sequence[Out]], away: Mapping[str, StoreUnusable]) -> None:
        """Queue again what could not be made because its store is away."""
        now_s = anyio.current_time()
        for name, error in away.items():
            if self._making.pop(name, None) is None:  # taken back meanwhile
                continue
            first = outs[name][0]
            if first.stored_by_s is None:
                first.stored_by_s = now_s + SUBMIT_PATIENCE_S
            if now_s >= first.stored_by_s:
                await self._give_up(outs[name], error.message, may_exist=False)
            else:
                self._tell_of(error)
                self._queued[name] = outs[name]
                self._in_flight.storeless.add(outs[name], error.message)
        if away:
            self._tasks.spawn(self._stir(STORE_AGAIN_S))

    async def _stir(self, after_s: float) -> None:
        await anyio.sleep(after_s)
        self._something.set()

    # --- jobs are handed to the platform -------------------------------------------------------------------

    async def _hand_in(self, jobs: dict[str, Job], outs: Mapping[str, Sequence[Out]]) -> None:
        """Submit until each is there, was refused, is not wanted any more, or has been tried for too long."""
        began_s, failures = anyio.current_time(), 0
        problems: Mapping[str, PlatformProblem] = {}
        unsure: set[str] = set()  # whose submit was not answered
        while jobs:
            if not await self._dispatch.is_owner():
                diagnostics.warning(
                    "jobs are not submitted: another process owns their shard", platform=self._platform.name, jobs=len(jobs)
                )
                return
            await self._drop_cancelled(jobs, outs, problems)  # meanwhile: the log may have taken its time
            if not jobs:
                return
            problems = await self._platform.submit(list(jobs.values()))
            unsure.update(name for name, problem in problems.items() if problem.transient and _may_exist(problem))
            for name in jobs:  # the run insisted meanwhile, and was told of an end: there was nothing to end yet
                if name not in problems or name in unsure:
                    self._end_strays([out for out in outs[name] if out.insisted and self._is_over(out)], "its run was cancelled")
            for name in [name for name in jobs if name not in problems]:
                del jobs[name]
                for out in outs[name]:
                    self._submitted(out.name)
            # What was submitted without an answer, and is seen by now.
            problems = {name: problem for name, problem in problems.items() if any(map(self._is_unseen, outs[name]))}
            jobs = {name: job for name, job in jobs.items() if name in problems}
            for name, problem in problems.items():
                if not problem.transient:
                    del jobs[name]
                    await self._unfit(outs[name], problem)
                    if name in unsure:
                        self._end_strays(outs[name], "it was refused when it was submitted again")
            await self._drop_cancelled(jobs, outs, problems)
            if not jobs:
                return
            failures = 1 if len(jobs) < len(problems) else failures + 1
            worst = max(problems.values(), key=lambda problem: problem.retry_after_s)
            if anyio.current_time() >= began_s + SUBMIT_PATIENCE_S:
                for name in jobs:
                    await self._give_up(outs[name], problems[name].message, may_exist=_may_exist(problems[name]))
                return
            self._tell_of(worst)
            if anyio.current_time() >= began_s + LATE_S:
                self._say_why(problems, outs)
            again_s = anyio.current_time() + max(worst.retry_after_s, pause_s(failures))
            while jobs and (left_s := again_s - anyio.current_time()) > 0:
                await anyio.sleep(min(left_s, CANCELLED_EVERY_S))
                await self._drop_cancelled(jobs, outs, problems)

    def _say_why(self, problems: Mapping[str, PlatformProblem], outs: Mapping[str, Sequence[Out]]) -> None:
        """Let those who ask why these attempts do not begin know what the platform answers."""
        for name, problem in problems.items():
            why = problem.message
            for own in {name, *(out.name for out in outs[name])}:
                why = why.replace(f' "{own}"', "")  # what is said alike of many is told once
            for out in filter(self._is_unseen, outs[name]):
                self._in_flight.unstarted.note(out.attempt, f"{NOT_YET} {why}")

    def _submitted(self, name: str) -> None:
        out = self._in_flight.outs.get(name)
        if out is not None:
            out.order = None
            self.is_there(out)

    def _is_over(self, out: Out) -> bool:
        return out.name not in self._in_flight.outs

    def _is_unseen(self, out: Out) -> bool:
        return not out.submitted and not self._is_over(out)

    async def _drop_cancelled(
        self, jobs: dict[str, Job], outs: Mapping[str, Sequence[Out]], problems: Mapping[str, PlatformProblem]
    ) -> None:
        """Take out what is not to be submitted any more: what was cancelled and cannot be there, and what is over or was seen meanwhile."""
        for name in list(jobs):
            problem = problems.get(name)  # None before the first try
            unseen = list(filter(self._is_unseen, outs[name]))
            if not unseen:
                del jobs[name]
            elif any(map(_is_cancelled, outs[name])):
                may_exist = problem is not None and _may_exist(problem)
                # Where some nodes of a gang are there, which are jobs then, to ask for all once more would make those anew that have ended.
                if not may_exist or len(unseen) < len(outs[name]):
                    del jobs[name]
                    await self._give_up(unseen, "", may_exist=may_exist)

    # --- what is not submitted -----------------------------------------------------------------------------

    async def _unfit(self, outs: Sequence[Out], error: EvflowError) -> None:
        """There can be no job of these attempts."""
        text = f"{error.message} {error.hint}".strip()[:_TEXT_CHARS]
        for out in outs:
            await self._in_flight.over(out.name, AttemptFailed(out.attempt.task, out.attempt.attempt, "container", error.code, text))

    async def _give_up(self, outs: Sequence[Out], why: str, *, may_exist: bool) -> None:
        """These attempts count as never started; what is there of them all the same is ended."""
        for out in outs:
            if out.name in self._in_flight.outs:
                await self._in_flight.never_started(out.name, why)
                if may_exist:
                    self._end_strays([out], "it was given up")

    def _end_strays(self, outs: Sequence[Out], why: str) -> None:
        for out in outs:
            self._terminations.end_stray(out.name, why)

    def _tell_of(self, error: EvflowError) -> None:
        self._notices.tell(f"{self._platform.name}: {error.message.rstrip('.')}. It is tried again.")


def _is_cancelled(out: Out) -> bool:
    return out.cancelled is not None


def _may_exist(problem: PlatformProblem) -> bool:
    """Whether a job may be there though its submit was not answered; a call that was refused, or not sent, has done nothing."""
    return not problem.undone
