"""Attempts in containers of a platform, as an executor: the same over AWS Batch, Kubernetes and whatever comes.

To launch is to submit a job under the attempt's name (`submitting`), to cancel is to have it ended (`terminations`); here is what is seen of jobs. What
happens inside says the container itself, in the shard's inbox, or by a file in the store that is carried into the inbox from here before the job's end is
told: an exit is never seen before the report. What is seen from here is what the platform knows: that the container runs, and how it ended.

Jobs outlive their owner. A new one finds them by their names and adopts those that exist. What a former owner submitted after the new one
had looked is a stray: it has an older epoch, nobody waits for it, and it is ended as soon as the platform shows it.

The nodes of a gang are submitted together, under the gang's name, and are attempts like others from then on. A platform ends all of them when one has come to
a bad end; that one is told first, and the others when the run has asked for their end, so the log says which node it was.

Each thing that may have to be repeated (a submit, a termination, a report) is a task of its own, with back-off, so that none waits for another;
all of them share the platform's rate.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from signal import SIGTERM
from typing import Final, TypeVar

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.clock import now_us
from evflow.core.events import AttemptExited, AttemptStarted
from evflow.core.ids import AttemptId
from evflow.log.said_waits import UNHEARD, Waits
from evflow.worker.spec import AttemptOrder
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import Observation, OutputLine
from evflow_executors.remote.in_flight import InFlight
from evflow_executors.remote.keeping import Keeping
from evflow_executors.remote.notices import Notices
from evflow_executors.remote.platform import JobSeen, Platform, PlatformProblem
from evflow_executors.remote.records import Dispatch, Out
from evflow_executors.remote.submitting import Submitting
from evflow_executors.remote.tasks import Tasks
from evflow_executors.remote.terminations import LEAVE_S, Terminations
from evflow_executors.remote.verdicts import CONTAINER_STOPPED, EXITED, GANG_ENDED, UNFIT, Verdict, end_of

CLOSE_WITHIN_S: Final = 10.0
FATE_S: Final = 60.0
"""How long a node that was ended with its gang waits for the run to ask for that; what is not asked for by then is told as it is."""
LAST_LINES_S: Final = 10.0
"""How long the last lines of a job may take to come, where somebody looks: logs of platforms lag."""
MOST_TAILS: Final = 40
"""Jobs whose output is followed at once; logs have rates of their own, and nobody reads more."""
TAIL_LINES: Final = 20
_TERMINATED: Final = 128 + SIGTERM
_UNREAD: Final = 1_000

T = TypeVar("T")


class RemoteExecutor:
    """The attempts of one shard on one platform.

    Args:
        platform: The platform; it belongs to the executor from now on.
        dispatch: What the owner knows.
        live: Somebody looks at what attempts print.
        on_notice: Hears why jobs wait, where that is not as usual.
        waits: Hears which runs wait for their store, and whose jobs do not start.
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
        self._notices = Notices(on_notice)
        self._seen = MergedStream(_UNREAD)
        self._tasks = Tasks(self._seen.close)  # whoever watches has the error
        self._in_flight = InFlight(platform.name, dispatch, self._tasks, self._seen, waits)
        self._terminations = Terminations(platform, dispatch, self._in_flight, self._tasks, self._notices)
        self._submitting = Submitting(platform, dispatch, self._in_flight, self._terminations, self._tasks, self._notices)
        self._keeping = Keeping(dispatch, lambda: self._in_flight.outs)
        self._unsure: list[str] = []  # adopted while the platform could not be asked
        self._found: list[JobSeen] = []  # when they were adopted
        self._tails = asyncio.Semaphore(MOST_TAILS)
        self._begun = False
        self._closed = False

    @property
    def running(self) -> Collection[AttemptId]:
        """The attempts that were launched and have not been observed to end, where somebody looks; they outlive this process."""
        return self._in_flight.attempts if self._live else ()

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Have a job submitted, together with all others of this round; a second call for the same name changes nothing."""
        if self._closed or attempt in self._in_flight.attempts:
            return
        out = self._in_flight.put(attempt, order)
        self._submitting.put(out.name, [out])

    async def launch_gang(self, nodes: Sequence[tuple[AttemptId, AttemptOrder]]) -> None:
        """Have the nodes of a gang submitted as one; a second call for the same gang changes nothing."""
        if self._closed or any(attempt in self._in_flight.attempts for attempt, _ in nodes):
            return
        self.know_gangs([[attempt for attempt, _ in nodes]])
        outs = [self._in_flight.put(attempt, order) for attempt, order in nodes]
        gang = outs[0].gang
        assert gang is not None
        self._submitting.put(gang.name, outs)

    def know_gangs(self, gangs: Iterable[Sequence[AttemptId]]) -> None:
        """Learn which attempts a former owner launched together."""
        self._in_flight.know_gangs(gangs)

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Take it back before it is submitted, else have the platform end it; the second time, without grace. Unknown names are ignored.

        A platform that cannot be told the second time is not waited for: the attempt is observed to exit, and its job may go on.
        """
        out = self._in_flight.of(attempt)
        if out is None or await self._submitting.take_back(out):
            return
        is_first, out.cancelled = out.cancelled is None, grace_s
        if out.asked is not None:
            out.asked.set()
        if is_first:
            if out.submitted:
                self._terminations.ask(out, grace_s)
        elif not out.insisted:
            out.insisted = True
            if out.carrying is not None:
                out.carrying.deadline = anyio.current_time() + LEAVE_S
            elif not out.ending:
                self._terminations.insist(out)

    def watch(self) -> AsyncGenerator[Observation | OutputLine]:
        """What happens, in order for each attempt, until the executor is closed."""
        return self._watch()

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """Which of a former owner's attempts have a job; one that has ended is observed to exit.

        Where the platform cannot be asked now all are kept, and those without a job are observed to exit once it can.
        """
        by_name = {self._in_flight.name_of(attempt): attempt for attempt in attempts}
        try:
            found = await self._platform.find(list(by_name), self._dispatch.asked_by(attempts), self._in_flight.gangs_of(by_name))
        except PlatformProblem as error:
            diagnostics.warning("a platform cannot be asked which jobs exist; they are waited for", platform=self.name, why=error.message)
            self._unsure += by_name
            found = None
        kept = [name for name in by_name if found is None or name in found]
        self._in_flight.adopt(by_name, kept)
        if found is not None:
            self._found += found.values()
        return [by_name[name] for name in kept]

    async def aclose(self) -> None:
        """Have done what was asked for, and look no more. Jobs go on: whoever owns their shard next finds them."""
        if self._closed:
            return
        self._closed = True
        self._submitting.stop()
        self._seen.lift()
        with anyio.CancelScope(shield=True):
            await self._tasks.aclose(CLOSE_WITHIN_S)
            with anyio.move_on_after(CLOSE_WITHIN_S):
                await self._platform.aclose()
        self._seen.close()

    # --- while somebody watches --------------------------------------------------------------------------------

    async def _watch(self) -> AsyncGenerator[Observation | OutputLine]:
        if not self._begun and not self._closed:
            self._begun = True
            self._tasks.spawn(self._drive())
            self._tasks.spawn(self._follow())
            self._tasks.spawn(self._keeping.go_on())
            self._tasks.spawn(self._in_flight.unstarted.go_on())
        async for seen in self._seen.take():
            yield seen

    async def _drive(self) -> None:
        for seen in self._found:
            await self._see(seen)
        if self._found:
            self._keeping.soon()
        self._found.clear()
        if self._unsure:
            self._tasks.spawn(self._make_sure())
        await self._submitting.go_on()

    async def _follow(self) -> None:
        async with _closing(self._platform.watch()) as watched:
            async for seen in watched:
                await self._see(seen)

    async def _make_sure(self) -> None:
        """Ask for adopted jobs until the platform answers; those that it does not know are over."""
        failures, outs = 0, self._in_flight.outs
        asked = self._dispatch.asked_by([outs[name].attempt for name in self._unsure if name in outs])
        while True:
            try:
                found = await self._platform.find(self._unsure, asked, self._in_flight.gangs_of(self._unsure))
            except PlatformProblem as error:
                failures += 1
                await anyio.sleep(max(error.retry_after_s, pause_s(failures)))
                continue
            for name in self._unsure:
                if name in found:
                    await self._see(found[name])
                elif (out := outs.get(name)) is not None:
                    out.ending = True
                    self._tasks.do(self._gone(out))
            self._unsure.clear()
            self._keeping.soon()
            return

    async def _gone(self, out: Out) -> None:
        """An adopted attempt has no job: it has ended so long ago that its platform has forgotten it, or was never submitted."""
        await self._carry(out)
        await self._in_flight.over(out.name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, "job-gone"))

    # --- what is seen ----------------------------------------------------------------------------------------

    async def _see(self, seen: JobSeen) -> None:
        out = self._in_flight.outs.get(seen.name)
        if out is None:
            self._terminations.heed(seen)
            return
        if out.ending:
            return
        self._submitting.is_there(out)
        out.reads |= seen.reads
        waits = seen.phase == "waiting" and not out.started and not seen.started_us
        self._in_flight.unstarted.note(out.attempt, seen.message if waits else "")
        if seen.message and seen.message != out.told:
            out.told = seen.message
            self._notices.tell(f"{out.attempt} on {self.name}: {seen.message}")
        if (seen.phase == "running" or seen.started_us) and not out.started:
            out.started = True
            attempt = out.attempt
            started = AttemptStarted(attempt.task, attempt.attempt, seen.host or seen.place or self.name, 0, seen.started_us or now_us())
            await self._seen.put(Observation(attempt, started))
            if self._live:
                out.tail = self._tasks.spawn(self._show(seen.name, attempt))
        if seen.phase == "ended":
            out.ending = True
            self._tasks.do(self._end(out, seen))

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
        await self._in_flight.over(seen.name, end_of(out.attempt, verdict, seen.exit_code, log))

    async def _carry(self, out: Out, unless: str = "") -> None:
        """Bring what the container left in the store into the inbox; where the run insists on its end, a store that is away is not waited for."""
        with anyio.CancelScope(deadline=anyio.current_time() + LEAVE_S if out.insisted else inf) as out.carrying:
            await self._dispatch.carry(out.attempt, unless=unless, tell=lambda text: self._notices.tell(f"{self.name}: {text}"))
        if out.carrying.cancelled_caught:
            self._notices.tell(f"{self.name}: what the container of {out.attempt} reported is left in the store.")

    async def _show(self, name: str, attempt: AttemptId) -> None:
        """Pass on what a job prints; it is for the eyes, and in the store as well."""
        async with self._tails:
            try:
                async with _closing(self._platform.logs(name)) as lines:
                    async for line in lines:
                        await self._seen.put(OutputLine(attempt, "stdout", line.at_us, line.text))
            except PlatformProblem as error:
                self._notices.tell(f"{self.name}: the output of {attempt} cannot be followed: {error.message}")


@asynccontextmanager
async def _closing(stream: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """The stream, closed in the task that reads it: what a cancelled reader leaves open the garbage collector closes in another one."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await stream.aclose()


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
