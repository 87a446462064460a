"""A double of AWS Batch and of Kubernetes' API that costs little itself: ``cloud_double.py batch|kubernetes LOG``. It prints its port.

It answers what evflow asks, in the shape and about the size of the real answers (a job with its environment, a pod with the fields that its server manages, five
changes from a pod's creation to its end), and counts each call by its instant. It checks nothing: `tests/fakes/` does that. Containers are not run. From
``/go`` on each job begins, reports what a container whose body does nothing reports, and ends; from ``/hold`` on it waits. ``/calls`` has the instants of
all calls, by kind; ``/jobs`` those of the beginnings of jobs; these four are not counted.
"""

import asyncio
import base64
import json
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from evflow.core.codec import encode_report
from evflow.core.events import AttemptStarted, AttemptSucceeded
from evflow.core.ids import RunId
from evflow.log import commands
from evflow.log.link import Link
from evflow.store import open_store
from evflow_executors.pool_orders import PoolOrder
from evflow_executors.remote.sheets import variables_of

ENDS_TOGETHER = 20
ENDS_EVERY_S = 0.04
ARN = "arn:aws:batch:eu-west-1:123456789012"
STAMP = "2026-11-27T12:00:00Z"


class Double(ABC):
    """What both have: jobs, and their ends."""

    def __init__(self, log_url: str) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.begun: list[float] = []
        self._link = Link(log_url)
        self._go = asyncio.Event()
        self._waiting: list[str] = []
        self._tasks = [asyncio.create_task(self._run())]

    def begin(self, name: str) -> None:
        """A job is there."""
        self.begun.append(time.monotonic())
        self._waiting.append(name)

    def go(self) -> None:
        """Let containers run from now on."""
        self._go.set()

    def hold(self) -> None:
        """Let none begin from now on."""
        self._go.clear()

    async def _run(self) -> None:
        while True:
            await self._go.wait()
            some, self._waiting = self._waiting[:ENDS_TOGETHER], self._waiting[ENDS_TOGETHER:]
            for name in some:
                self.started(name)
                await self._report(self.variables(name))
            for name in some:
                self.ended(name)
            await asyncio.sleep(ENDS_EVERY_S)

    async def _report(self, variables: dict[str, str]) -> None:
        """What a container says whose body does nothing: its artifacts are those that it was given."""
        name = variables["EVFLOW_ATTEMPT"]
        found = PoolOrder.unpack(name, base64.b64decode(variables["EVFLOW_ORDER"]))
        order, now_us = found.order, time.time_ns() // 1000
        manifest = order.parents[0][2]
        begun = AttemptStarted(order.task, order.attempt, "double", 1, now_us)
        done = AttemptSucceeded(order.task, order.attempt, manifest, "linear", ("join",), started_us=now_us, ended_us=now_us)
        for event in (begun, done):
            payload = encode_report(event, principal="worker:double:1")
            await self._link.repeated(commands.report(found.context.shard, RunId.parse(found.run), payload), 60.0)

    @abstractmethod
    def variables(self, name: str) -> dict[str, str]:
        """The environment of a job's container."""

    @abstractmethod
    def started(self, name: str) -> None:
        """Its container runs."""

    @abstractmethod
    def ended(self, name: str) -> None:
        """It has ended well."""

    @abstractmethod
    def answer(self, method: str, path: str, query: str, body: bytes, transport: asyncio.Transport) -> tuple[int, bytes] | None:
        """The status and body of an answer; None where it goes on over the connection."""


class Batch(Double):
    """AWS Batch."""

    def __init__(self, log_url: str) -> None:
        super().__init__(log_url)
        self._definitions: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, query: str, body: bytes, transport: asyncio.Transport) -> tuple[int, bytes] | None:
        call = path.rpartition("/")[2]
        self.calls[call].append(time.monotonic())
        return 200, json.dumps(getattr(self, f"_{call}")(json.loads(body or b"{}"))).encode()

    def _describejobqueues(self, given: dict[str, Any]) -> dict[str, Any]:
        order = [{"order": 1, "computeEnvironment": f"{ARN}:compute-environment/c"}]
        return {"jobQueues": [{"jobQueueName": given["jobQueues"][0], "state": "ENABLED", "priority": 1, "computeEnvironmentOrder": order}]}

    def _describecomputeenvironments(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"computeEnvironments": [{"computeEnvironmentName": "c", "computeResources": {"type": "EC2", "maxvCpus": 256}}]}

    def _describejobdefinitions(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"jobDefinitions": []}

    def _registerjobdefinition(self, given: dict[str, Any]) -> dict[str, Any]:
        arn = f"{ARN}:job-definition/{given['jobDefinitionName']}:1"
        self._definitions[arn] = given["containerProperties"]
        return {"jobDefinitionName": given["jobDefinitionName"], "jobDefinitionArn": arn, "revision": 1}

    def _submitjob(self, given: dict[str, Any]) -> dict[str, Any]:
        job_id, size = str(uuid.uuid4()), given.get("arrayProperties", {}).get("size")
        properties = self._definitions[given["jobDefinition"]]
        own = given["containerOverrides"]["environment"]
        container = {**properties, "environment": [*properties["environment"], *own], "networkInterfaces": [], "ulimits": []}
        for index in range(size or 1):
            name = f"{job_id}:{index}" if size else job_id
            self.jobs[name] = {
                "jobArn": f"{ARN}:job/{name}",
                "jobName": given["jobName"],
                "jobId": name,
                "jobQueue": given["jobQueue"],
                "status": "RUNNABLE",
                "attempts": [],
                "createdAt": time.time_ns() // 1_000_000,
                "retryStrategy": {"attempts": 1, "evaluateOnExit": []},
                "dependsOn": [],
                "jobDefinition": given["jobDefinition"],
                "parameters": {},
                "container": container,
                "timeout": given["timeout"],
                "tags": given["tags"],
                "platformCapabilities": ["EC2"],
                **({"arrayProperties": {"index": index}} if size else {}),
            }
            self.begin(name)
        return {"jobArn": f"{ARN}:job/{job_id}", "jobName": given["jobName"], "jobId": job_id}

    def _describejobs(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"jobs": [self.jobs[name] for name in given["jobs"]]}

    def _listjobs(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"jobSummaryList": []}

    def variables(self, name: str) -> dict[str, str]:
        found = {one["name"]: one["value"] for one in self.jobs[name]["container"]["environment"]}
        if "EVFLOW_ORDERS_AT" in found:
            index = self.jobs[name]["arrayProperties"]["index"]
            found.update(variables_of(open_store(found["EVFLOW_STORE"]), bytes.fromhex(found["EVFLOW_ORDERS_AT"]), index))
        return found

    def started(self, name: str) -> None:
        self.jobs[name].update(status="RUNNING", startedAt=time.time_ns() // 1_000_000)

    def ended(self, name: str) -> None:
        job = self.jobs[name]
        job.update(status="SUCCEEDED", stoppedAt=time.time_ns() // 1_000_000, statusReason="Essential container in task exited")
        job["container"] = {**job["container"], "exitCode": 0, "logStreamName": f"evflow/default/{name}"}


class Kubernetes(Double):
    """The API server of a cluster with one namespace."""

    def __init__(self, log_url: str) -> None:
        super().__init__(log_url)
        self._version = 100
        self._watches: list[asyncio.Transport] = []
        self._pods: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, query: str, body: bytes, transport: asyncio.Transport) -> tuple[int, bytes] | None:
        asked = parse_qs(query)
        kind = path.strip("/").split("/")[-1]
        self.calls["submitjob" if method == "POST" and kind == "jobs" else "watch" if "watch" in asked else method.lower()].append(
            time.monotonic()
        )
        if kind == "version":
            return 200, b'{"major": "1", "minor": "31", "gitVersion": "v1.31.0"}'
        if "watch" in asked:
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._watches.append(transport)
            return None
        if method == "POST":
            return 201, self._submit(json.loads(body))
        if kind == "pods":
            listed = {"kind": "PodList", "metadata": {"resourceVersion": str(self._version)}, "items": list(self._pods.values())}
            return 200, json.dumps(listed).encode()
        if method == "GET" and kind in self.jobs:
            return 200, json.dumps(self.jobs[kind]).encode()
        return (200, b'{"kind": "Status", "status": "Success"}') if method == "DELETE" else (404, b'{"kind": "Status", "code": 404}')

    def _submit(self, job: dict[str, Any]) -> bytes:
        name, uid = job["metadata"]["name"], str(uuid.uuid4())
        job["metadata"].update(uid=uid, resourceVersion=str(self._version), creationTimestamp=STAMP, namespace="default")
        job["status"] = {}
        self.jobs[name] = job
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "job-name": name, "batch.kubernetes.io/job-name": name, "controller-uid": uid}
        self._pods[name] = {
            "metadata": {
                **template["metadata"],
                "name": f"{name}-{uid[:5]}",
                "namespace": "default",
                "uid": str(uuid.uuid4()),
                "labels": labels,
                "creationTimestamp": STAMP,
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}],
                "managedFields": MANAGED,
            },
            "spec": template["spec"],
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        }
        self._change(name, "ADDED")
        self._pods[name]["spec"]["nodeName"] = "node-1"
        self._pods[name]["status"].update(conditions=[{"type": "PodScheduled", "status": "True", "lastTransitionTime": STAMP}])
        self._change(name)
        self._state(name, {"waiting": {"reason": "ContainerCreating"}})
        self.begin(name)
        return json.dumps(job).encode()

    def _state(self, name: str, state: dict[str, Any], phase: str = "Pending") -> None:
        container = self._pods[name]["spec"]["containers"][0]
        status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0, "state": state}
        self._pods[name]["status"].update(phase=phase, containerStatuses=[status], podIP="10.0.0.7", hostIP="10.0.0.1", startTime=STAMP)
        self._change(name)

    def _change(self, name: str, kind: str = "MODIFIED") -> None:
        self._version += 1
        self._pods[name]["metadata"]["resourceVersion"] = str(self._version)
        line = json.dumps({"type": kind, "object": self._pods[name]}).encode() + b"\n"
        for watch in self._watches:
            watch.write(b"%x\r\n%b\r\n" % (len(line), line))

    def variables(self, name: str) -> dict[str, str]:
        return {one["name"]: one.get("value", "") for one in self._pods[name]["spec"]["containers"][0]["env"]}

    def started(self, name: str) -> None:
        self._state(name, {"running": {"startedAt": STAMP}}, "Running")

    def ended(self, name: str) -> None:
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": STAMP, "finishedAt": STAMP}
        self._state(name, {"terminated": ended}, "Succeeded")


_FIELD = {"f:metadata": {"f:labels": {".": {}, "f:job-name": {}}, "f:ownerReferences": {".": {}}}, "f:spec": {"f:containers": {}}}
MANAGED = [
    {"manager": who, "operation": "Update", "apiVersion": "v1", "time": STAMP, "fieldsType": "FieldsV1", "fieldsV1": _FIELD}
    for who in ("kube-controller-manager", "kubelet", "kube-scheduler")
]


class Http(asyncio.Protocol):
    """HTTP/1.1 as far as the clients speak it."""

    def __init__(self, double: Double) -> None:
        self._double = double
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].decode("latin-1")
            lines = head.split("\r\n")
            length = next((int(line[15:]) for line in lines if line[:15].lower() == "content-length:"), 0)
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            method, target, _ = lines[0].split(" ")
            path, _, query = target.partition("?")
            self._answer(method, path, query, body)

    def _answer(self, method: str, path: str, query: str, body: bytes) -> None:
        if path in ("/calls", "/jobs"):
            told = self._double.calls if path == "/calls" else {"at": self._double.begun}
            answered: tuple[int, bytes] | None = 200, json.dumps(told).encode()
        elif path in ("/go", "/hold"):
            self._double.go() if path == "/go" else self._double.hold()
            answered = 200, b"{}"
        else:
            answered = self._double.answer(method, path, query, body, self._transport)
        if answered is not None:
            status, data = answered
            head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            self._transport.write(head.encode() + data)


async def main(kind: str, log_url: str) -> None:
    """Answer until the process is ended."""
    double = {"batch": Batch, "kubernetes": Kubernetes}[kind](log_url)
    server = await asyncio.get_running_loop().create_server(lambda: Http(double), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
