"""Job definitions that are registered: looked up once, made where there is none, and which queues lead where."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evflow_executors.batch.calls import BatchCalls
from evflow_executors.batch.definitions import BatchDefaults, BatchUnfit, definition_of
from evflow_executors.remote.platform import Job

DEFINITIONS_KEPT: Final = 1_000


class Registered:
    """The definitions that one owner has had to do with.

    Args:
        calls: AWS Batch.
        defaults: What steps do not say.
    """

    def __init__(self, calls: BatchCalls, defaults: BatchDefaults) -> None:
        self._calls = calls
        self._defaults = defaults
        self._queues: dict[str, bool] = {}  # whether it leads to Fargate
        self._arns: dict[str, str] = {}  # by name
        self._of: dict[object, str] = {}  # by what they are made of: to make one costs as much as to sign a call
        self._defining = asyncio.Lock()

    async def of(self, job: Job, queue: str) -> str:
        """The definition of a job, registered.

        Raises:
            AwsProblem: AWS Batch cannot be asked, or refuses.
            BatchUnfit: It would refuse what the step asks for.
        """
        key = kind_of(job, queue)
        if key in self._of:
            return self._of[key]
        if len(self._of) >= DEFINITIONS_KEPT:
            self._of.clear()
        found = self._of[key] = await self._defined(job, queue)
        return found

    async def _defined(self, job: Job, queue: str) -> str:
        wanted = definition_of(job, self._defaults, fargate=await self._is_fargate(queue, job.step))
        name = str(wanted["jobDefinitionName"])
        if name in self._arns:
            return self._arns[name]
        async with self._defining:
            if name not in self._arns:
                doing = f"register the job definition of step {job.step}"
                there = await self._calls.batch(
                    "describe_job_definitions", "look for a job definition", jobDefinitionName=name, status="ACTIVE"
                )
                found = there["jobDefinitions"] or [await self._calls.batch("register_job_definition", doing, **wanted)]
                self._arns[name] = str(found[0]["jobDefinitionArn"])
        return self._arns[name]

    async def _is_fargate(self, queue: str, step: str) -> bool:
        """Where a queue leads, by the first of its compute environments; they are all of one kind.

        Raises:
            BatchUnfit: There is no such queue.
        """
        if queue not in self._queues:
            async with self._defining:
                if queue not in self._queues:
                    self._queues[queue] = await self._ask_where(queue, step)
        return self._queues[queue]

    async def _ask_where(self, queue: str, step: str) -> bool:
        answer = await self._calls.batch("describe_job_queues", f"look at the queue {queue}", jobQueues=[queue])
        if not answer["jobQueues"]:
            raise BatchUnfit(
                step, f"there is no queue '{queue}'", "Compare its name, and the region, with `aws batch describe-job-queues`."
            )
        order: Sequence[Mapping[str, Any]] = answer["jobQueues"][0].get("computeEnvironmentOrder") or []
        if not order:
            return False
        name = order[0]["computeEnvironment"]
        answer = await self._calls.batch("describe_compute_environments", "look at a compute environment", computeEnvironments=[name])
        found: Sequence[Mapping[str, Any]] = answer["computeEnvironments"]
        resources: Mapping[str, Any] = (found[0].get("computeResources") if found else None) or {}
        return str(resources.get("type", "")).startswith("FARGATE")


def kind_of(job: Job, queue: str) -> object:
    """What a definition is made of; equal for jobs that have the same one."""
    return (job.step, queue, repr(job.asked), job.command.argv, *job.command.shared.items())
