"""The platform of Kubernetes over an API server: the fake one, or the one that EVFLOW_TEST_KUBECONFIG names."""

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from evflow.core.ids import AttemptId, RunId, TaskId
from evflow_executors.kubernetes.api import Cluster
from evflow_executors.kubernetes.operator import Operator
from evflow_executors.kubernetes.platform import KubernetesPlatform
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import NODES_LABEL, gang_name, job_name, labels
from evflow_executors.remote.platform import Job, JobSeen
from evflow_executors.remote.rate import CallRate

REAL = os.environ.get("EVFLOW_TEST_KUBECONFIG", "")
"""A kubeconfig of a real cluster: the tests of what both have to do run there as well."""
REPOSITORY = Path(__file__).parents[1]
_logs = [0]
IMAGE = os.environ.get("EVFLOW_TEST_IMAGE", "python:local")
FOR_EVER = "trap 'exit 143' TERM; while :; do sleep 0.05; done"
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


def a_gang(script: str, nodes: int = 3, **asked: Any) -> Job:
    """A gang whose nodes run a line of shell; each finds its index in OWN, or in JOB_COMPLETION_INDEX."""
    each = [a_job(script, task, **asked) for task in range(2, 2 + nodes)]
    each = [replace(job, command=replace(job.command, own={"OWN": str(index)})) for index, job in enumerate(each)]
    first = each[0]
    return replace(first, name=gang_name(log_now(), first.attempt), labels={**first.labels, NODES_LABEL: str(nodes)}, nodes=each)


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


def use_the_cluster(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs of the current folder use the real cluster, whose node is this machine.

    It mounts this Python, the repository and the store; so the account in a pod is the one that owns them.
    """
    monkeypatch.setenv("KUBECONFIG", REAL)
    places = {"repository": REPOSITORY, "python": Path(sys.base_prefix), "store": root / "e"}
    template = {
        "spec": {
            "hostNetwork": True,
            "securityContext": {"runAsUser": os.getuid(), "runAsGroup": os.getgid(), "fsGroup": None, "runAsNonRoot": None},
            "containers": [{"name": "task", "volumeMounts": [{"name": name, "mountPath": str(path)} for name, path in places.items()]}],
            "volumes": [{"name": name, "hostPath": {"path": str(path)}} for name, path in places.items()],
        }
    }
    Path("pod.json").write_text(json.dumps(template))
    monkeypatch.setenv("EVFLOW_KUBERNETES_POD_TEMPLATE", "pod.json")
    monkeypatch.setenv("EVFLOW_KUBERNETES_IMAGE_PULL_POLICY", "IfNotPresent")
