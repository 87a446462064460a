"""The platform of Kubernetes over an API server: the fake one, or the one that EVFLOW_TEST_KUBECONFIG names."""

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from evflow.core.ids import AttemptId, RunId, TaskId
from evflow_executors.kubernetes.api import Cluster
from evflow_executors.kubernetes.known import Operator
from evflow_executors.kubernetes.platform import KubernetesPlatform
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import job_name, labels
from evflow_executors.remote.platform import Job, JobSeen
from evflow_executors.remote.rate import CallRate

REAL = os.environ.get("EVFLOW_TEST_KUBECONFIG", "")
"""A kubeconfig of a real cluster: the tests of what both have to do run there as well."""
_logs = [0]
IMAGE = os.environ.get("EVFLOW_TEST_IMAGE", "python:local")
HOST_NETWORK = {"spec": {"hostNetwork": True}}
"""A test bed may have no network of pods; the address of every server is loopback then."""


def new_log() -> None:
    """From now on jobs are of another log: what a test before left to a real cluster has other names."""
    _logs[0] += 1


def log_now() -> str:
    """The log of the jobs of this test."""
    return f"log-of-tests-{os.getpid()}-{_logs[0]}"


def a_job(script: str, task: int = 1, *, log: str = "", epoch: int = 1, timeout_s: float = 0, **asked: Any) -> Job:
    """A job that runs a line of shell."""
    log = log or log_now()
    attempt = AttemptId(RunId.parse("Train/3"), TaskId(task), 0)
    return Job(
        job_name(log, attempt),
        attempt,
        "train",
        {"image": IMAGE, "image_pull_policy": "IfNotPresent", "cpu": 0.1, "memory": 50, "disk": 10, "pod_template": HOST_NETWORK, **asked},
        ContainerCommand(("sh", "-c", script), {"SHARED": "1"}, {"OWN": "2"}),
        labels(log, attempt, shard="s0", epoch=epoch, step="train"),
        timeout_s,
    )


class Watched:
    """A platform, and what its watch has told."""

    def __init__(self, platform: KubernetesPlatform, notices: list[str]) -> None:
        self.platform = platform
        self.notices = notices
        self.told: list[JobSeen] = []
        self._more = anyio.Event()

    async def listen(self) -> None:
        async for seen in self.platform.watch():
            self.told.append(seen)
            self._more.set()
            self._more = anyio.Event()

    def of(self, name: str) -> list[JobSeen]:
        return [seen for seen in self.told if seen.name == name]

    async def until(self, what: Callable[[JobSeen], bool], name: str) -> JobSeen:
        """The first thing told of a job that is so."""
        with anyio.fail_after(120):
            while True:
                more = self._more
                for seen in self.of(name):
                    if what(seen):
                        return seen
                await more.wait()

    async def ended(self, name: str) -> JobSeen:
        return await self.until(lambda seen: seen.phase == "ended", name)

    async def running(self, name: str) -> JobSeen:
        return await self.until(lambda seen: seen.phase == "running", name)


@asynccontextmanager
async def a_platform(
    kubeconfig: Path, *, rate: float = 1_000.0, defaults: Mapping[str, Any] | None = None, **more: Any
) -> AsyncGenerator[Watched]:
    """A platform whose watch is listened to while the block lasts."""
    notices: list[str] = []
    operator = Operator(defaults=defaults or {}, **more)
    platform = KubernetesPlatform(Cluster(str(kubeconfig)), CallRate(rate), lambda: operator, notices.append)
    watched = Watched(platform, notices)
    async with anyio.create_task_group() as group:
        group.start_soon(watched.listen)
        try:
            yield watched
        finally:
            with anyio.CancelScope(shield=True):
                await platform.aclose()
            group.cancel_scope.cancel()
