"""The calls of AWS Batch and of the log of its jobs: clients, the rate, and what an error means. The one module that talks to AWS."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from evflow import aws
from evflow.errors import EvflowError
from evflow_executors.remote.platform import PlatformProblem
from evflow_executors.remote.rate import CallRate

AT_ONCE: Final = 32
"""Calls on their way at once: 200 a second where an answer takes 0.15 s. The client has so many connections."""
DESCRIBED: Final = 100
"""Jobs of a `DescribeJobs`: the API takes no more."""


class BatchCalls:
    """Calls of one owner.

    Args:
        rate: All calls take of it.
        region: None: what the platform says.
        endpoint: URL of another server than AWS's.
    """

    def __init__(self, rate: CallRate, region: str | None, endpoint: str | None) -> None:
        self._region = region
        self._endpoint = endpoint
        self._rate = rate
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._opening = asyncio.Lock()
        self._open: dict[str, tuple[AbstractAsyncContextManager[Any], Any]] = {}

    async def batch(self, method: str, doing: str, **given: Any) -> Any:
        """A call of AWS Batch.

        Args:
            method: Of the client.
            doing: What is done, as it goes on after "could not".
            given: Its arguments.

        Raises:
            AwsProblem: It was not done.
        """
        return await self._call("batch", method, doing, given)

    async def logs(self, method: str, doing: str, **given: Any) -> Any:
        """A call of CloudWatch Logs, which has a rate of its own; as `batch`."""
        return await self._call("logs", method, doing, given)

    async def describe(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Jobs by their ids, as many as there still are.

        Raises:
            AwsProblem: AWS Batch cannot be asked.
        """
        found: list[Mapping[str, Any]] = []
        for first in range(0, len(ids), DESCRIBED):
            answer = await self.batch("describe_jobs", "look at jobs", jobs=list(ids[first : first + DESCRIBED]))
            found += answer["jobs"]
        return found

    async def end(self, job_id: str, why: str) -> None:
        """End a job, a member of an array, or an array with all of its members.

        Raises:
            AwsProblem: AWS Batch did not.
        """
        await self.batch("terminate_job", "end a job", jobId=job_id, reason=why)

    async def aclose(self) -> None:
        """End its connections."""
        opened, self._open = self._open, {}
        for entered, _ in opened.values():
            await entered.__aexit__(None, None, None)

    async def _call(self, service: str, method: str, doing: str, given: Mapping[str, Any]) -> Any:
        client = await self._client(service)
        # The rate stands behind the wait for a connection: calls that were let go together would come together.
        async with self._at_once, self._rate.call() if service == "batch" else nullcontext():
            try:
                with aws.explained(doing):
                    return await getattr(client, method)(**given)
            except aws.AwsProblem as error:
                if is_throttle(error):
                    self._rate.hold(aws.pause_s(1))
                raise

    async def _client(self, service: str) -> Any:
        async with self._opening:
            if service not in self._open:
                entered = aws.client(service, region=self._region, endpoint=self._endpoint, connections=AT_ONCE)
                self._open[service] = (entered, await entered.__aenter__())
            return self._open[service][1]


def problem_of(error: EvflowError) -> PlatformProblem:
    """An error as the executor understands it."""
    if isinstance(error, PlatformProblem):
        return error
    transient = isinstance(error, aws.AwsProblem) and error.transient
    throttled = isinstance(error, aws.AwsProblem) and is_throttle(error)
    return PlatformProblem(error.message, error.hint, transient=transient or throttled, undone=throttled)


def is_throttle(error: aws.AwsProblem) -> bool:
    """Whether AWS asked for fewer calls; the call has done nothing then."""
    return "Throttl" in error.kind or "TooManyRequests" in error.kind or "RequestLimitExceeded" in error.kind
