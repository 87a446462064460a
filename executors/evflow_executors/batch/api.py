"""AWS Batch as a platform of containers: the one module that talks to it, and to the log of its jobs.

Names of jobs are no keys there: `SubmitJob` takes a name as often as it is given. So a name is submitted again only after a look whether it is
there, wherever the answer to a submit was lost; and where two of a name are found all the same, the first one counts and the other is ended.

There is no watch: jobs are described, a hundred a call, at intervals that grow with their number, so that the calls stay within a part of the
rate. After an adoption the newest jobs of the log are listed some times, because a former owner may have submitted one that no list had yet.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

import anyio

from evflow import aws, diagnostics
from evflow.errors import EvflowError
from evflow_executors.batch.definitions import BatchDefaults, BatchUnfit, definition_of, log_group_of, queue_of, submit_of
from evflow_executors.batch.reasons import ENDED, OURS, seen_of
from evflow_executors.remote.platform import Job, JobSeen, LogText, PlatformProblem
from evflow_executors.remote.rate import CallRate

AT_ONCE: Final = 8
"""Calls on their way at once: the client has so many connections."""
DESCRIBED: Final = 100
"""Jobs of a `DescribeJobs`: the API takes no more."""
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
DEFINITIONS_KEPT: Final = 1_000
LOG_EVERY_S: Final = 2.0
LOG_LINES: Final = 1_000


class BatchPlatform:
    """AWS Batch for one owner.

    Args:
        defaults: What steps do not say.
        rate: Calls a second.
        region: None: what the platform says.
        endpoint: URL of another server than AWS's.
    """

    name = "batch"

    def __init__(self, defaults: BatchDefaults, *, rate: float, region: str | None = None, endpoint: str | None = None) -> None:
        self._defaults = defaults
        self._region = region
        self._endpoint = endpoint
        self._per_s = rate
        self._rate = CallRate(rate)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._opening = asyncio.Lock()
        self._open: dict[str, tuple[AbstractAsyncContextManager[Any], Any]] = {}
        self._queues: dict[str, bool] = {}  # whether it leads to Fargate
        self._known_queues: set[str] = {defaults.queue} if defaults.queue else set()
        self._definitions: dict[str, str] = {}
        self._definitions_of: dict[object, str] = {}  # by what they are made of: to make one costs as much as to sign a call
        self._defining = asyncio.Lock()
        self._ids: dict[str, str] = {}  # of jobs that have not been seen to end
        self._logs: dict[str, tuple[str, str]] = {}  # group and stream
        self._ended: dict[str, JobSeen] = {}  # for those who read logs, some of the last
        self._unsure: set[str] = set()  # whose submit was not answered
        self._prefixes: set[str] = set()
        self._sweep_at_s: list[float] = []
        self._something = asyncio.Event()
        self._closed = False

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """See `Platform.submit`."""
        problems: dict[str, PlatformProblem] = {}

        async def one(job: Job) -> None:
            try:
                await self._submit(job)
            except PlatformProblem as problem:
                problems[job.name] = problem
            except EvflowError as error:
                problems[job.name] = _problem(error)

        async with anyio.create_task_group() as group:
            for job in jobs:
                if job.name not in self._ids:
                    group.start_soon(one, job)
        self._something.set()
        return problems

    async def find(self, names: Sequence[str], asked: Sequence[Mapping[str, Any]]) -> Mapping[str, JobSeen]:
        """See `Platform.find`."""
        self._known_queues.update(str(one["queue"]) for one in asked if one.get("queue"))
        found: dict[str, JobSeen] = {}
        ids: list[str] = []
        try:
            for prefix, some in _by_run(names).items():
                ids += await (self._list(f"{prefix}*", set(some)) if len(some) >= MANY_OF_A_RUN else self._list_each(some))
            described = await self._describe(ids)
        except EvflowError as error:
            raise _problem(error) from error
        for job in sorted(described, key=lambda one: int(one.get("createdAt") or 0)):
            seen = self._note(job)
            if seen.name not in found:
                found[seen.name] = seen
            elif seen.phase != "ended":
                await self._end(str(job["jobId"]), "another job of this name is there")  # of a submit that was repeated too soon
        for name, seen in found.items():
            if seen.phase != "ended":
                self._ids[name] = seen.host.partition(":")[2]
        self._prefixes.update(_log_prefix(name) for name in names)
        self._sweep_at_s = sorted([*self._sweep_at_s, *(anyio.current_time() + after_s for after_s in STRAYS_AFTER_S)])
        self._something.set()
        return found

    async def watch(self) -> AsyncIterator[JobSeen]:
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
                (diagnostics.warning if failures == 1 else diagnostics.debug)(
                    "AWS Batch cannot be asked; it is waited for", why=error.message
                )
                await asyncio.sleep(aws.pause_s(failures))
                continue
            failures = 0
            await self._pause()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """See `Platform.terminate`; the grace is that of AWS Batch, 30 s."""
        del grace_s
        try:
            for job_id in [self._ids[name]] if name in self._ids else await self._list(name, {name}):
                await self._end(job_id, why)
        except EvflowError as error:
            raise _problem(error) from error

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
            answer = await self._call("logs", "get_log_events", "read a job's output", **given)
        except EvflowError as error:
            return f"(its output cannot be read: {error.message})"
        return "\n".join(str(event["message"]).rstrip("\n") for event in answer["events"])

    async def aclose(self) -> None:
        """See `Platform.aclose`."""
        self._closed = True
        self._something.set()
        opened, self._open = self._open, {}
        for entered, _ in opened.values():
            await entered.__aexit__(None, None, None)

    # --- for commands -----------------------------------------------------------------------------------------

    async def listed(self, prefix: str, queues: Iterable[str]) -> list[Mapping[str, Any]]:
        """All jobs whose names begin so that have not ended, as `DescribeJobs` has them, the first submitted first.

        Raises:
            AwsProblem: AWS Batch cannot be asked.
        """
        self._known_queues.update(queues)
        jobs = await self._describe(await self._list(f"{prefix}*", None))
        return sorted((job for job in jobs if job.get("status") not in ENDED), key=lambda job: int(job.get("createdAt") or 0))

    async def end(self, job_id: str, why: str) -> None:
        """End a job by its id.

        Raises:
            AwsProblem: AWS Batch did not.
        """
        await self._call("batch", "terminate_job", "end a job", jobId=job_id, reason=why)

    # --- submitting -------------------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> None:
        queue = queue_of(job, self._defaults)
        self._known_queues.add(queue)
        self._prefixes.add(_log_prefix(job.name))
        if job.name in self._unsure:
            found = await self._list(job.name, {job.name})
            if found:
                self._unsure.discard(job.name)
                self._ids[job.name] = found[0]
                return
        definition = await self._definition(job, queue)
        given = submit_of(job, queue, definition, self._defaults)
        try:
            answer = await self._call("batch", "submit_job", f"submit the job of {job.attempt}", **given)
        except aws.AwsProblem as error:
            if error.transient and not _is_throttle(error):
                self._unsure.add(job.name)
            raise
        except asyncio.CancelledError:
            self._unsure.add(job.name)
            raise
        self._unsure.discard(job.name)
        self._ids[job.name] = str(answer["jobId"])

    async def _definition(self, job: Job, queue: str) -> str:
        key = (job.step, queue, repr(job.asked), job.command.argv, *job.command.shared.items())
        if key in self._definitions_of:
            return self._definitions_of[key]
        if len(self._definitions_of) >= DEFINITIONS_KEPT:
            self._definitions_of.clear()
        found = self._definitions_of[key] = await self._defined(job, queue)
        return found

    async def _defined(self, job: Job, queue: str) -> str:
        wanted = definition_of(job, self._defaults, fargate=await self._is_fargate(queue))
        name = str(wanted["jobDefinitionName"])
        if name in self._definitions:
            return self._definitions[name]
        async with self._defining:
            if name not in self._definitions:
                there = await self._call(
                    "batch", "describe_job_definitions", "look for a job definition", jobDefinitionName=name, status="ACTIVE"
                )
                found = there["jobDefinitions"]
                if not found:
                    found = [
                        await self._call("batch", "register_job_definition", f"register the job definition of step {job.step}", **wanted)
                    ]
                self._definitions[name] = str(found[0]["jobDefinitionArn"])
        return self._definitions[name]

    async def _is_fargate(self, queue: str) -> bool:
        """Where a queue leads, by the first of its compute environments; they are all of one kind.

        Raises:
            BatchUnfit: There is no such queue.
        """
        if queue not in self._queues:
            async with self._defining:
                if queue not in self._queues:
                    self._queues[queue] = await self._ask_where(queue)
        return self._queues[queue]

    async def _ask_where(self, queue: str) -> bool:
        answer = await self._call("batch", "describe_job_queues", f"look at the queue {queue}", jobQueues=[queue])
        if not answer["jobQueues"]:
            raise BatchUnfit(
                "of the run", f"there is no queue '{queue}'", "Compare its name, and the region, with `aws batch describe-job-queues`."
            )
        order: Sequence[Mapping[str, Any]] = answer["jobQueues"][0].get("computeEnvironmentOrder") or []
        if not order:
            return False
        name = order[0]["computeEnvironment"]
        answer = await self._call("batch", "describe_compute_environments", "look at a compute environment", computeEnvironments=[name])
        found: Sequence[Mapping[str, Any]] = answer["computeEnvironments"]
        resources: Mapping[str, Any] = (found[0].get("computeResources") if found else None) or {}
        return str(resources.get("type", "")).startswith("FARGATE")

    # --- looking ----------------------------------------------------------------------------------------------

    async def _look(self) -> list[JobSeen]:
        """All jobs that are out, and after an adoption those that nobody knows."""
        ids = list(self._ids.values())
        if self._sweep_at_s and self._sweep_at_s[0] <= anyio.current_time():
            del self._sweep_at_s[0]
            known = set(ids)
            for prefix in self._prefixes:
                ids += [job_id for job_id in await self._list(f"{prefix}*", None, pages=2) if job_id not in known]
        return [self._note(job) for job in await self._describe(ids)]

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
        seen = seen_of(job)
        container: Mapping[str, Any] = job.get("container") or {}
        group, stream = log_group_of(container), container.get("logStreamName")
        if group and stream:
            self._logs[seen.name] = (group, str(stream))
        if seen.phase == "ended" and self._ids.get(seen.name, str(job["jobId"])) == str(job["jobId"]):
            self._ids.pop(seen.name, None)
            self._ended[seen.name] = seen
            while len(self._ended) > DESCRIBED:
                gone = next(iter(self._ended))
                del self._ended[gone]
                self._logs.pop(gone, None)
        return seen

    async def _describe(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for first in range(0, len(ids), DESCRIBED):
            answer = await self._call("batch", "describe_jobs", "look at jobs", jobs=list(ids[first : first + DESCRIBED]))
            found += answer["jobs"]
        return found

    async def _list_each(self, names: Sequence[str]) -> list[str]:
        return [job_id for name in names for job_id in await self._list(name, {name})]

    async def _list(self, pattern: str, wanted: set[str] | None, *, pages: int = MOST_PAGES) -> list[str]:
        """Ids of the jobs of a name, or of those that begin so; of the wanted names alone, or, with None, of all that have not ended."""
        found: list[str] = []
        for queue in sorted(self._known_queues):
            token: dict[str, str] = {}
            left = set(wanted or ())
            for _ in range(pages):
                given = {"jobQueue": queue, "filters": [{"name": "JOB_NAME", "values": [pattern]}], **token}
                answer = await self._call("batch", "list_jobs", "list jobs", **given)
                for job in answer["jobSummaryList"]:
                    if (wanted is None and job.get("status") not in ENDED) or (wanted is not None and job["jobName"] in wanted):
                        found.append(str(job["jobId"]))
                        left.discard(str(job["jobName"]))
                if not answer.get("nextToken") or (wanted is not None and not left):
                    break
                token = {"nextToken": str(answer["nextToken"])}
        return found

    async def _end(self, job_id: str, why: str) -> None:
        await self.end(job_id, f"{OURS}{why}")

    async def _lines(self, name: str, token: str | None) -> tuple[list[LogText], str | None]:
        place = self._logs.get(name)
        if place is None:
            return [], token
        given: dict[str, Any] = {"logGroupName": place[0], "logStreamName": place[1], "limit": LOG_LINES, "startFromHead": True}
        if token is not None:
            given["nextToken"] = token
        try:
            answer = await self._call("logs", "get_log_events", "read a job's output", **given)
        except aws.AwsProblem as error:
            if error.kind == "ResourceNotFoundException" or error.transient:  # nothing was printed yet
                return [], token
            raise _problem(error) from error
        lines = [LogText(int(event["timestamp"]) * 1_000, str(event["message"]).rstrip("\n")) for event in answer["events"]]
        return lines, str(answer["nextForwardToken"])

    # --- calls ------------------------------------------------------------------------------------------------

    async def _call(self, service: str, method: str, doing: str, **given: Any) -> Any:
        client = await self._client(service)
        if service == "batch":
            await self._rate.take()
        async with self._at_once:
            try:
                with aws.explained(doing):
                    return await getattr(client, method)(**given)
            except aws.AwsProblem as error:
                if _is_throttle(error):
                    self._rate.hold(aws.pause_s(1))
                raise

    async def _client(self, service: str) -> Any:
        async with self._opening:
            if service not in self._open:
                entered = aws.client(service, region=self._region, endpoint=self._endpoint)
                self._open[service] = (entered, await entered.__aenter__())
            return self._open[service][1]


def _problem(error: EvflowError) -> PlatformProblem:
    if isinstance(error, PlatformProblem):
        return error
    transient = isinstance(error, aws.AwsProblem) and error.transient
    throttled = isinstance(error, aws.AwsProblem) and _is_throttle(error)
    return PlatformProblem(error.message, error.hint, transient=transient, throttled=throttled)


def _is_throttle(error: aws.AwsProblem) -> bool:
    return "Throttl" in error.kind or "TooManyRequests" in error.kind or "RequestLimitExceeded" in error.kind


def _by_run(names: Sequence[str]) -> dict[str, list[str]]:
    """Names by the prefix of their runs: what stands before task and attempt."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(f"{name.rsplit('-', 2)[0]}-", []).append(name)
    return found


def _log_prefix(name: str) -> str:
    return f"{name.partition('-')[0]}-"
