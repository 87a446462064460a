"""AWS Batch as a platform of containers.

Names of jobs are no keys there: `SubmitJob` takes a name as often as it is given. So a name is submitted again only after a look whether it is
there, wherever the answer to a submit was lost; and where two of a name are found all the same, the first one counts and the other is ended.

Where many attempts of a step are submitted together they go as array jobs (`arrays`); what is told of a member, and what can be done to it, is the same as of
a job of its own.

There is no watch: jobs are described, a hundred a call, at intervals that grow with their number, so that the calls stay within a part of the
rate. After an adoption the newest jobs of the log are listed some times, because a former owner may have submitted one that no list had yet.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio

from evflow import aws, diagnostics
from evflow.errors import EvflowError
from evflow.store import StoreFull
from evflow_executors.batch.arrays import (
    Array,
    PlannedArray,
    array_name,
    arrays_prefix,
    grouped,
    parts_of,
    prefix_of,
    submit_of_array,
    tail_of,
)
from evflow_executors.batch.calls import AT_ONCE, DESCRIBED, BatchCalls, is_throttle, problem_of
from evflow_executors.batch.definitions import BatchDefaults, log_group_of, queue_of, submit_of
from evflow_executors.batch.reasons import ENDED, OURS, seen_of
from evflow_executors.batch.registered import Registered, kind_of
from evflow_executors.remote.platform import NO_GANGS, Job, JobSeen, LogText, PlatformProblem, Sheets
from evflow_executors.remote.rate import CallRate
from evflow_executors.remote.records import is_away

LOOK_EVERY_S: Final = 1.0
LOOK_EVERY_S_A_JOB: Final = 0.005
"""So much longer for each job that is out: a look costs 0.17 ms of the processor for each."""
LOOK_PART: Final = 0.4
"""The part of the rate that looking may take; the rest is for submits and ends."""
STRAYS_AFTER_S: Final = (5.0, 30.0, 120.0)
"""When the newest jobs of the log are listed after an adoption: lists of AWS lag by seconds."""
MANY_OF_A_RUN: Final = 20
"""So many jobs of a run are found by its prefix, in pages of a hundred; fewer by their names, a call each."""
MOST_PAGES: Final = 200
TOGETHER_S: Final = 0.05
"""How long the end of a member waits for those of the others: all of them are one call."""
FORGIVEN: Final = 2
"""So many looks in a row may fail before people are told."""
_UNSENT: Final = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError")
"""The client's names of what happens before a request is on its way."""
LOG_EVERY_S: Final = 2.0
LOG_LINES: Final = 1_000
TellMembers = Callable[[str, bytes, int], Awaitable[Sequence[str] | None]]
_TWIN: Final = "another job of this name is there"  # of a submit that was repeated too soon


class BatchPlatform:
    """AWS Batch for one owner.

    Args:
        defaults: What steps do not say.
        rate: Calls a second.
        limit: What other platforms of the process take of as well; None for one of its own.
        region: None: what the platform says.
        endpoint: URL of another server than AWS's.
        sheets: Where the orders of arrays are; None for who neither submits nor finds any.
        array_least: So many attempts of a step that are submitted together become an array; 0 for none.
        on_notice: Hears what people should know: that AWS Batch is waited for. An attribute as well.
    """

    name = "batch"

    def __init__(
        self,
        defaults: BatchDefaults,
        *,
        rate: float,
        limit: CallRate | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        sheets: Sheets | None = None,
        array_least: int = 0,
        on_notice: Callable[[str], None] = diagnostics.warning,
    ) -> None:
        self.on_notice = on_notice
        self.together = array_least if sheets is not None else 0
        self._defaults = defaults
        self._per_s = rate
        self._calls = BatchCalls(limit or CallRate(rate), region, endpoint)
        self._registered = Registered(self._calls, defaults)
        self._sheets = sheets
        self._tell_members: TellMembers | None = sheets.sheet_members if sheets is not None else None
        self._known_queues: set[str] = {defaults.queue} if defaults.queue else set()
        self._ids: dict[str, str] = {}  # of jobs that have not been seen to end
        self._arrays: dict[str, Array] = {}  # of which some are among those, by id
        self._logs: dict[str, tuple[str, str]] = {}  # group and stream
        self._ended: dict[str, JobSeen] = {}  # for those who read logs, some of the last
        self._telling = 0
        self._unsure: set[str] = set()  # whose submit was not answered
        self._unsure_arrays: dict[str, PlannedArray] = {}  # likewise, by the names of their members
        self._finding = asyncio.Lock()
        self._prefixes: set[str] = set()
        self._sweep_at_s: list[float] = []
        self._something = asyncio.Event()
        self._closed = False
        self._in_trouble = False  # the next submit begins with one call, which tells whether that is over

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """See `Platform.submit`."""
        problems: dict[str, PlatformProblem] = {}
        new = [job for job in jobs if job.name not in self._ids]
        names = {job.name for job in new}
        unsure = {array.name: array for name in names if (array := self._unsure_arrays.get(name)) is not None}
        queues, kinds, definitions = await self._defined(new, problems)
        fresh = [job for job in new if job.name in kinds and job.name not in self._unsure_arrays]
        arrays, alone = grouped(fresh, self.together, {name: kind for name, kind in kinds.items() if name not in self._unsure})
        submits: list[tuple[Sequence[str], Callable[[], Awaitable[None]]]] = []
        for planned in unsure.values():
            told = [name for name in planned.names if name in kinds]
            if told:
                submits.append((told, partial(self._submit_array, planned, queues[told[0]], definitions[kinds[told[0]]])))
        for some in arrays:
            told = [job.name for job in some]
            submits.append((told, partial(self._new_array, some, queues[told[0]], definitions[kinds[told[0]]])))
        submits += [([job.name], partial(self._submit, job, queues[job.name], definitions[kinds[job.name]])) for job in alone]
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(names: Sequence[str], work: Callable[[], Awaitable[None]]) -> None:
            async with at_once:
                trouble = next((problem for problem in problems.values() if problem.transient), None)
                if trouble is not None:  # the others would meet the same
                    problems.update(dict.fromkeys(names, trouble))
                    return
                try:
                    await work()
                except EvflowError as error:
                    problems.update(dict.fromkeys(names, problem_of(error)))

        probes = 1 if self._in_trouble else 0
        for some_names, work in submits[:probes]:
            await one(some_names, work)
        async with anyio.create_task_group() as group:
            for some_names, work in submits[probes:]:
                group.start_soon(one, some_names, work)
        self._in_trouble = any(problem.transient for problem in problems.values())
        self._something.set()
        return {name: self._not_submitted(name, problem) for name, problem in problems.items()}

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        """See `Platform.find`."""
        del gangs  # no gang is ever let go to AWS Batch (`TAKES_GANGS`)
        self._known_queues.update(str(one["queue"]) for one in asked if one.get("queue"))
        found: dict[str, JobSeen] = {}
        with self._telling_members():
            try:
                for job in sorted(await self._jobs_of(names), key=lambda one: int(one.get("createdAt") or 0)):
                    seen = self._note(job)
                    if seen.name not in found:
                        found[seen.name] = seen
                    elif seen.phase != "ended":
                        await self._end(str(job["jobId"]), _TWIN)
            except EvflowError as error:
                raise problem_of(error) from error
            for name, seen in found.items():
                if seen.phase != "ended":
                    self._take_up(name, seen.host.partition(":")[2])
        self._prefixes.update(_log_prefix(name) for name in names)
        self._sweep_soon()
        self._something.set()
        return found

    async def watch(self) -> AsyncGenerator[JobSeen]:
        """See `Platform.watch`."""
        told: dict[str, JobSeen] = {}
        failures = 0
        while not self._closed:
            try:
                for seen in await self._look():
                    if told.get(seen.name) != seen:
                        told[seen.name] = seen
                        yield seen
                    if seen.phase == "ended":
                        told.pop(seen.name, None)
            except EvflowError as error:
                failures += 1
                diagnostics.debug("AWS Batch cannot be asked; it is waited for", why=error.message)
                if failures == FORGIVEN:
                    self.on_notice(f"{error.message.rstrip('.')}. AWS Batch is waited for; jobs that run go on meanwhile.")
                await asyncio.sleep(aws.pause_s(failures))
                continue
            failures = 0
            await self._pause()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """See `Platform.terminate`; the grace is that of AWS Batch, 30 s."""
        del grace_s
        try:
            if (planned := self._unsure_arrays.get(name)) is not None:
                async with self._finding:  # all of its members are found by the first one
                    if name in self._unsure_arrays:
                        await self._is_there(planned)
            job_id = self._ids.get(name)
            array = self._arrays.get(str(job_id).partition(":")[0])
            if job_id is not None and array is not None:
                await self._end_member(array, name, job_id, why)
            else:
                for each in [job_id] if job_id is not None else await self._list(name, {name}):
                    await self._end(each, why)
        except EvflowError as error:
            raise problem_of(error) from error

    async def logs(self, name: str) -> AsyncIterator[LogText]:
        """See `Platform.logs`."""
        token: str | None = None
        quiet = 0
        while True:
            ended = name not in self._ids
            lines, token = await self._lines(name, token)
            for line in lines:
                yield line
            quiet = 0 if lines else quiet + 1
            if ended and quiet >= 2:  # CloudWatch is a moment behind
                return
            if not lines:
                await asyncio.sleep(LOG_EVERY_S)

    async def log_tail(self, name: str, lines: int) -> str:
        """See `Platform.log_tail`."""
        place = self._logs.get(name)
        if place is None:
            return ""
        given = {"logGroupName": place[0], "logStreamName": place[1], "limit": lines, "startFromHead": False}
        try:
            answer = await self._calls.logs("get_log_events", "read a job's output", **given)
        except EvflowError as error:
            return f"(its output cannot be read: {error.message})"
        return "\n".join(str(event["message"]).rstrip("\n") for event in answer["events"])

    async def aclose(self) -> None:
        """See `Platform.aclose`."""
        self._closed = True
        self._something.set()
        await self._calls.aclose()

    # --- for commands -----------------------------------------------------------------------------------------

    async def listed(self, prefix: str, queues: Iterable[str], members: TellMembers | None = None) -> list[Mapping[str, Any]]:
        """All jobs whose names begin so that have not ended, as `DescribeJobs` has them, the first submitted first.

        Members of arrays are told each for itself, with the names and tags that they would have as jobs of their own; an array whose members nobody can
        tell as one job.

        Args:
            prefix: How they begin.
            queues: Where to look, besides the queue of the settings.
            members: Tells the members of a sheet, as `Sheets.sheet_members`.

        Raises:
            EvflowError: AWS Batch, or the store with the members, cannot be asked.
        """
        self._known_queues.update(queues)
        self._tell_members = members or self._tell_members
        with self._telling_members():
            jobs = await self._calls.describe(await self._list(f"{prefix}*", None))
            found = [self._as_its_own(job) for job in jobs if job.get("status") not in ENDED]
        return sorted(found, key=lambda job: int(job.get("createdAt") or 0))

    async def end(self, job_id: str, why: str) -> None:
        """End a job, a member of an array or an array, by its id.

        Raises:
            AwsProblem: AWS Batch did not.
        """
        await self._calls.end(job_id, why)

    # --- submitting -------------------------------------------------------------------------------------------

    async def _defined(
        self, jobs: Sequence[Job], problems: dict[str, PlatformProblem]
    ) -> tuple[dict[str, str], dict[str, object], dict[object, str]]:
        """The queue and the kind of each job, and the definition of each kind; what there can be no job for becomes a problem."""
        queues: dict[str, str] = {}
        kinds: dict[str, object] = {}
        definitions: dict[object, str | PlatformProblem] = {}
        for job in jobs:
            try:
                queue = queue_of(job, self._defaults)
                kind = kind_of(job, queue)
                if kind not in definitions:
                    definitions[kind] = await self._registered.of(job, queue)
            except EvflowError as error:
                problems[job.name] = problem_of(error)
                continue
            self._known_queues.add(queue)
            self._prefixes.add(_log_prefix(job.name))
            queues[job.name], kinds[job.name] = queue, kind
        return queues, kinds, {kind: arn for kind, arn in definitions.items() if isinstance(arn, str)}

    async def _submit(self, job: Job, queue: str, definition: str) -> None:
        if job.name in self._unsure:
            found = await self._list(job.name, {job.name})
            if found:
                self._unsure.discard(job.name)
                self._ids[job.name] = found[0]
                return
            self._sweep_soon()  # the list may lag: were there two, the other one is seen then
        given = submit_of(job, queue, definition, self._defaults)
        try:
            answer = await self._calls.batch("submit_job", "submit a job", **given)
        except BaseException as error:
            if _may_be_done(error):
                self._unsure.add(job.name)
            raise
        self._unsure.discard(job.name)
        self._ids[job.name] = str(answer["jobId"])

    async def _new_array(self, jobs: Sequence[Job], queue: str, definition: str) -> None:
        assert self._sheets is not None
        prefix = prefix_of(jobs[0])
        try:
            digest = await self._sheets.write_sheet(
                jobs[0].attempt.run, [tail_of(job.name) for job in jobs], [job.command.own for job in jobs]
            )
        except StoreFull as error:  # is waited for, as one is that is away, and as the platform is
            raise PlatformProblem(error.message, error.hint, transient=True) from error
        except EvflowError as error:
            raise PlatformProblem(error.message, error.hint, transient=is_away(error)) from error
        await self._submit_array(PlannedArray(array_name(prefix, digest), prefix, digest, tuple(jobs)), queue, definition)

    async def _submit_array(self, planned: PlannedArray, queue: str, definition: str) -> None:
        """Submit an array, or, where it may be there, look for it first. An array that was not answered is only ever repeated as it was."""
        if planned.jobs[0].name in self._unsure_arrays:
            if await self._is_there(planned):
                return
            self._sweep_soon()
        given = submit_of_array(planned, queue, definition, self._defaults)
        try:
            answer = await self._calls.batch("submit_job", f"submit an array of {len(planned.jobs)} jobs", **given)
        except BaseException as error:
            if _may_be_done(error):
                self._unsure_arrays.update(dict.fromkeys(planned.names, planned))
            raise
        job_id = str(answer["jobId"])
        self._arrays[job_id] = Array(job_id, planned.name, planned.names, given["tags"])
        self._answered(planned, job_id)

    async def _is_there(self, planned: PlannedArray) -> bool:
        """Look for an array whose submit was not answered; its members are looked at from now on."""
        with self._telling_members():
            await self._list(planned.name, set(planned.names))
            there = next((array.id for array in self._arrays.values() if array.name == planned.name), None)
            if there is not None:
                self._answered(planned, there)
        return there is not None

    def _answered(self, planned: PlannedArray, job_id: str) -> None:
        for name, member_id in self._arrays[job_id].ids().items():
            self._unsure_arrays.pop(name, None)
            self._take_up(name, member_id)

    def _take_up(self, name: str, job_id: str) -> None:
        """Look at a job from now on."""
        self._ids[name] = job_id
        if (array := self._arrays.get(job_id.partition(":")[0])) is not None:
            array.left.add(name)

    def _not_submitted(self, name: str, problem: PlatformProblem) -> PlatformProblem:
        """A transient problem of a job: "undone" where it was certainly not submitted, so that whoever cancels it need not wait for AWS."""
        if not problem.transient:
            return problem
        is_sure = name not in self._unsure and name not in self._unsure_arrays
        return PlatformProblem(problem.message, problem.hint, transient=True, undone=is_sure, retry_after_s=problem.retry_after_s)

    # --- looking ----------------------------------------------------------------------------------------------

    async def _look(self) -> list[JobSeen]:
        """All jobs that are out, and after an adoption those that nobody knows."""
        ids = list(self._ids.values())
        with self._telling_members():
            if self._sweep_at_s and self._sweep_at_s[0] <= anyio.current_time():
                del self._sweep_at_s[0]
                ids += await self._swept()
            found: list[JobSeen] = []
            for job in await self._calls.describe(ids):
                name, job_id = str(self._as_its_own(job)["jobName"]), str(job["jobId"])
                if self._ids.get(name, job_id) == job_id:
                    found.append(self._note(job))
                elif job.get("status") not in ENDED:
                    await self._end(job_id, _TWIN)
            return found

    async def _jobs_of(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The jobs of these names that exist, each by itself or as a member of an array."""
        ids: list[str] = []
        for prefix, some in _by_run(names).items():
            wanted = set(some)
            if len(some) >= MANY_OF_A_RUN:
                ids += await self._list(f"{prefix}*", wanted)
            else:
                ids += [job_id for name in some for job_id in await self._list(name, {name})]
                ids += await self._list(f"{arrays_prefix(prefix)}*", wanted)
        return await self._calls.describe(ids)

    async def _swept(self) -> list[str]:
        """The newest jobs of the log that are not looked at; one that has the name of another is ended."""
        found: list[str] = []
        known = set(self._ids.values())
        mine = {array.name: array.id for array in self._arrays.values() if array.left}
        for prefix in self._prefixes:
            for job_id in await self._list(f"{prefix}*", None, pages=2):
                array = self._arrays.get(job_id.partition(":")[0])
                if array is not None and mine.get(array.name, array.id) != array.id:
                    if job_id.endswith(":0"):
                        await self._end(array.id, _TWIN)
                elif job_id not in known:
                    found.append(job_id)
        return found

    def _sweep_soon(self) -> None:
        self._sweep_at_s = sorted([*self._sweep_at_s, *(anyio.current_time() + after_s for after_s in STRAYS_AFTER_S)])

    async def _pause(self) -> None:
        """Wait until the next look is due, or there is something to look at."""
        if self._closed:
            return
        if not self._ids:
            sweep_in_s = max(0.0, self._sweep_at_s[0] - anyio.current_time()) if self._sweep_at_s else None
            self._something.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._something.wait(), sweep_in_s)
            return
        calls = -(-len(self._ids) // DESCRIBED)
        await asyncio.sleep(max(LOOK_EVERY_S, LOOK_EVERY_S_A_JOB * len(self._ids), calls / (self._per_s * LOOK_PART)))

    def _note(self, job: Mapping[str, Any]) -> JobSeen:
        array = self._arrays.get(str(job["jobId"]).partition(":")[0])
        job = self._as_its_own(job)
        seen = seen_of(job, frozenset() if array is None else array.reads)
        container: Mapping[str, Any] = job.get("container") or {}
        group, stream = log_group_of(container), container.get("logStreamName")
        if group and stream:
            self._logs[seen.name] = (group, str(stream))
        if seen.phase == "ended" and self._ids.get(seen.name, str(job["jobId"])) == str(job["jobId"]):
            self._ids.pop(seen.name, None)
            self._let_go(str(job["jobId"]), seen.name)
            self._ended[seen.name] = seen
            while len(self._ended) > DESCRIBED:
                gone = next(iter(self._ended))
                del self._ended[gone]
                self._logs.pop(gone, None)
        return seen

    def _let_go(self, job_id: str, name: str) -> None:
        """A job has ended."""
        array = self._arrays.get(job_id.partition(":")[0])
        if array is not None and name in array.left:
            array.left.discard(name)
            array.ending.discard(name)

    @contextmanager
    def _telling_members(self) -> Generator[None]:
        """Within the block arrays of which nothing is looked at are kept: what was listed of them is not described yet."""
        self._telling += 1
        try:
            yield
        finally:
            self._telling -= 1
            if not self._telling:
                self._arrays = {job_id: array for job_id, array in self._arrays.items() if array.left}

    def _as_its_own(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """A job as it is, and a member of an array with its name and tags."""
        array = self._arrays.get(str(job["jobId"]).partition(":")[0])
        return array.member(job) if array is not None and ":" in str(job["jobId"]) else job

    async def _list(self, pattern: str, wanted: set[str] | None, *, pages: int = MOST_PAGES) -> list[str]:
        """Ids of the jobs of a name, or of those that begin so, the newest first: of the wanted names alone, or, with None, of all that have not ended.

        Members of arrays are among them, by the ids that they have there.
        """
        found: list[str] = []
        for queue in sorted(self._known_queues):
            token: dict[str, str] = {}
            left = set(wanted or ())
            for _ in range(pages):
                given = {"jobQueue": queue, "filters": [{"name": "JOB_NAME", "values": [pattern]}], **token}
                answer = await self._calls.batch("list_jobs", "list jobs", **given)
                arrays: list[str] = []
                for job in answer["jobSummaryList"]:
                    job_id, name, is_over = str(job["jobId"]), str(job["jobName"]), job.get("status") in ENDED
                    if parts_of(name) is not None and not (wanted is None and is_over) and not (wanted is not None and name in wanted):
                        arrays.append(job_id)
                    elif (wanted is None and not is_over) or (wanted is not None and name in wanted):
                        found.append(job_id)
                        left.discard(name)
                for members in await self._members(arrays):
                    some = {name: job_id for name, job_id in members.items() if wanted is None or name in wanted}
                    found += some.values()
                    left -= some.keys()
                if not answer.get("nextToken") or (wanted is not None and not left):
                    break
                token = {"nextToken": str(answer["nextToken"])}
        return found

    async def _members(self, ids: Sequence[str]) -> list[Mapping[str, str]]:
        """The members of arrays, each with its id, by name; an array whose members nobody can tell is a job of its own."""
        found: list[Mapping[str, str]] = [self._arrays[job_id].ids() for job_id in ids if job_id in self._arrays]
        for job in await self._calls.describe([job_id for job_id in ids if job_id not in self._arrays]):
            job_id, name = str(job["jobId"]), str(job["jobName"])
            properties: Mapping[str, Any] = job.get("arrayProperties") or {}
            parts, size = parts_of(name), int(properties.get("size") or 0)
            tails = await self._tell_members(*parts, size) if parts and size and self._tell_members is not None else None
            if parts is None or tails is None:
                found.append({name: job_id})
                continue
            array = self._arrays[job_id] = Array(job_id, name, [f"{parts[0]}{tail}" for tail in tails], job.get("tags") or {})
            found.append(array.ids())
        return found

    async def _end(self, job_id: str, why: str) -> None:
        await self._calls.end(job_id, f"{OURS}{why}")

    async def _end_member(self, array: Array, name: str, job_id: str, why: str) -> None:
        """End a member alone; where all that are left are to be ended, the array at once."""
        array.ending.add(name)
        await anyio.sleep(TOGETHER_S)
        if not array.left <= array.ending:
            await self._end(job_id, why)
            return
        if array.end is None:
            array.end = asyncio.create_task(self._end(array.id, why))
        ended = array.end
        try:
            await asyncio.shield(ended)
        finally:
            if ended is array.end and ended.done() and (ended.cancelled() or ended.exception() is not None):
                array.end = None  # whoever comes again tries again

    async def _lines(self, name: str, token: str | None) -> tuple[list[LogText], str | None]:
        place = self._logs.get(name)
        if place is None:
            return [], token
        given: dict[str, Any] = {"logGroupName": place[0], "logStreamName": place[1], "limit": LOG_LINES, "startFromHead": True}
        if token is not None:
            given["nextToken"] = token
        try:
            answer = await self._calls.logs("get_log_events", "read a job's output", **given)
        except aws.AwsProblem as error:
            if error.kind == "ResourceNotFoundException" or error.transient:  # nothing was printed yet
                return [], token
            raise problem_of(error) from error
        lines = [LogText(int(event["timestamp"]) * 1_000, str(event["message"]).rstrip("\n")) for event in answer["events"]]
        return lines, str(answer["nextForwardToken"])


def _may_be_done(error: BaseException) -> bool:
    """Whether a submit that failed so may have been carried out."""
    if isinstance(error, asyncio.CancelledError):
        return True
    return isinstance(error, aws.AwsProblem) and error.transient and not is_throttle(error) and error.kind not in _UNSENT


def _by_run(names: Sequence[str]) -> dict[str, list[str]]:
    """Names by the prefix of their runs: what stands before task and attempt."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(f"{name.rsplit('-', 2)[0]}-", []).append(name)
    return found


def _log_prefix(name: str) -> str:
    return f"{name.partition('-')[0]}-"
