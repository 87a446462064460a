"""AWS Batch and the part of CloudWatch Logs that its jobs write to, over HTTP; containers are local processes.

Faked: scheduling (a job runs at once, or stays RUNNABLE where a test says so), images, roles, hosts. Not faked: the API's shape (REST-JSON, as botocore
speaks it), what it requires and bounds (RegisterJobDefinition, SubmitJob, DescribeJobs of at most 100, names, tags, timeouts), names that
are no keys, listing by JOB_NAME with a trailing `*` (members of arrays are in no such list), arrays of 2 to 10,000 with their members' ids, states and index, error codes, `statusReason` and `container.reason`, SIGTERM before SIGKILL, exit codes, the log stream.

Faults are set in `faults` and used up by the next calls.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
ARN: Final = "arn:aws:batch:eu-west-1:123456789012"
ENDED: Final = ("SUCCEEDED", "FAILED")
GRACE_S: Final = 2.0
"""Between SIGTERM and SIGKILL; 30 s at AWS."""


class Refused(Exception):
    """An error of the API: its code and its text."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.status = code, status


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        throttled: So many of the next calls are.
        broken: So many of the next calls get a 500.
        lost: So many of the next submits are carried out and not answered.
        away: No call is answered.
        stuck: Jobs stay RUNNABLE, with this reason.
        pull_fails: Jobs end with this reason in the place of running.
        on_submit: Called within each submit, before and after it is carried out.
    """

    throttled: int = 0
    broken: int = 0
    lost: int = 0
    away: bool = False
    stuck: str | None = None
    pull_fails: str = ""
    on_submit: Callable[[str, str], None] | None = None


@dataclass
class Job:
    """A job."""

    id: str
    given: dict[str, Any]
    definition: dict[str, Any]
    created_ms: int
    status: str = "SUBMITTED"
    reason: str = ""
    container: dict[str, Any] = field(default_factory=dict[str, Any])
    started_ms: int = 0
    stopped_ms: int = 0
    terminated: bool = False
    process: subprocess.Popen[bytes] | None = None
    output: Path | None = None
    kill_at_s: float = float("inf")
    members: list["Job"] = field(default_factory=list["Job"])
    index: int | None = None

    @property
    def state(self) -> str:
        """Of an array: that of all of its members."""
        if not self.members:
            return self.status
        states = {member.status for member in self.members}
        return "PENDING" if states - set(ENDED) else "FAILED" if "FAILED" in states else "SUCCEEDED"

    def arrays(self) -> dict[str, Any]:
        """What a description says of an array, or of a member's place in one."""
        if self.index is not None:
            return {"arrayProperties": {"index": self.index}}
        counts = Counter(member.status for member in self.members)
        return {"arrayProperties": {"size": len(self.members), "statusSummary": dict(counts)}} if self.members else {}

    @property
    def name(self) -> str:
        return str(self.given["jobName"])

    def plain(self) -> dict[str, Any]:
        return {
            "jobId": self.id,
            "jobArn": f"{ARN}:job/{self.id}",
            "jobName": self.name,
            "jobQueue": self.given["jobQueue"],
            "jobDefinition": self.definition["jobDefinitionArn"],
            "status": self.state,
            "createdAt": self.created_ms,
            "tags": self.given.get("tags", {}),
            **({"statusReason": self.reason} if self.reason else {}),
            **({"startedAt": self.started_ms} if self.started_ms else {}),
            **({"stoppedAt": self.stopped_ms} if self.stopped_ms else {}),
            **self.arrays(),
            "isTerminated": self.terminated,
            "isCancelled": False,
            "container": {**self.definition["containerProperties"], **self.container},
        }


class BatchServer:
    """The service.

    Args:
        root: A folder for what containers write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.call_times: deque[float] = deque()
        self.definitions: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, Job] = {}
        self.queues = {"queue": "EC2", "fargate": "FARGATE"}
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.02,)), threading.Thread(target=self._reap)]

    def start(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        with self._lock:  # who is being answered yet starts nothing behind this
            for job in self.jobs.values():
                if job.process is not None and job.process.poll() is None:
                    _signal(job, signal.SIGKILL)
                    job.process.wait()

    def of_name(self, name: str) -> list[Job]:
        with self._lock:
            return [job for job in self.jobs.values() if job.name == name and job.index is None]

    def running(self) -> list[Job]:
        with self._lock:
            return [job for job in self.jobs.values() if job.state not in ENDED and not job.members]

    def lose_host(self, job: Job, *, lives_on: bool = False) -> None:
        """What a spot instance's end does; where it `lives_on`, AWS has only lost sight of it."""
        with self._lock:
            self._end(job, "FAILED", "Host EC2 (instance i-0123456789abcdef0) terminated.", {})
        if not lives_on:
            _signal(job, signal.SIGKILL)

    def stop_host(self, job: Job) -> None:
        """SIGTERM, as two minutes before a spot instance goes away."""
        _signal(job, signal.SIGTERM)

    def kill_for_memory(self, job: Job) -> None:
        """What the kernel does to a container that is over its limit."""
        with self._lock:
            job.container["reason"] = "OutOfMemoryError: Container killed due to memory usage"
        _signal(job, signal.SIGKILL)

    # --- the API ----------------------------------------------------------------------------------------------

    def answer(self, path: str, target: str, given: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            call = target.rpartition(".")[2].lower() or path.rpartition("/")[2]
            self.calls[call] += 1
            self.call_times.append(time.monotonic())
            if self.faults.away or self._closing.is_set():
                raise Refused("InternalError", "away", 503)
            if self.faults.throttled:
                self.faults.throttled -= 1
                raise Refused("TooManyRequestsException", "Rate exceeded", 429)
            if self.faults.broken:
                self.faults.broken -= 1
                raise Refused("ServerException", "Service error", 500)
            act = getattr(self, f"_{call}", None)
            if act is None:
                raise Refused("ClientException", f"no such call: {call}", 404)
            return dict(act(given))

    def _describejobqueues(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = [name for name in given.get("jobQueues", self.queues) if name in self.queues]
        return {
            "jobQueues": [
                {
                    "jobQueueName": name,
                    "jobQueueArn": f"{ARN}:job-queue/{name}",
                    "state": "ENABLED",
                    "status": "VALID",
                    "priority": 1,
                    "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": f"{ARN}:compute-environment/{name}"}],
                }
                for name in found
            ]
        }

    def _describecomputeenvironments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = [arn.rpartition("/")[2] for arn in given["computeEnvironments"]]
        return {
            "computeEnvironments": [
                {
                    "computeEnvironmentName": name,
                    "computeEnvironmentArn": f"{ARN}:compute-environment/{name}",
                    "ecsClusterArn": "arn:aws:ecs:eu-west-1:123456789012:cluster/x",
                    "computeResources": {"type": self.queues[name], "maxvCpus": 256, "subnets": ["subnet-1"]},
                }
                for name in names
            ]
        }

    def _registerjobdefinition(self, given: dict[str, Any]) -> dict[str, Any]:
        name = _need(given, "jobDefinitionName")
        _check_name("jobDefinitionName", name)
        if _need(given, "type") != "container":
            raise Refused("ClientException", "type must be container")
        container = _need(given, "containerProperties")
        _need(container, "image")
        wanted = {one["type"]: one["value"] for one in container.get("resourceRequirements", [])}
        fargate = given.get("platformCapabilities") == ["FARGATE"]
        for kind in ("VCPU", "MEMORY"):
            if kind not in wanted:
                raise Refused("ClientException", f"Container properties should have {kind} set.")
        if not fargate and not (wanted["VCPU"].isdecimal() and int(wanted["VCPU"]) >= 1):
            raise Refused("ClientException", f"VCPU must be a whole number of at least 1, not {wanted['VCPU']}")
        if not (wanted["MEMORY"].isdecimal() and int(wanted["MEMORY"]) >= 4):
            raise Refused("ClientException", "MEMORY must be at least 4 MiB")
        if fargate and "executionRoleArn" not in container:
            raise Refused("ClientException", "executionRoleArn is required on Fargate")
        if any(one["name"].startswith("AWS_BATCH") for one in container.get("environment", [])):
            raise Refused("ClientException", "environment variables must not start with AWS_BATCH")
        revision = 1 + sum(one["jobDefinitionName"] == name for one in self.definitions.values())
        arn = f"{ARN}:job-definition/{name}:{revision}"
        self.definitions[arn] = {**given, "jobDefinitionArn": arn, "revision": revision, "status": "ACTIVE"}
        return {"jobDefinitionName": name, "jobDefinitionArn": arn, "revision": revision}

    def _describejobdefinitions(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = [one for one in self.definitions.values() if one["jobDefinitionName"] == given.get("jobDefinitionName")]
        return {"jobDefinitions": sorted(found, key=lambda one: -int(one["revision"]))}

    def _submitjob(self, given: dict[str, Any]) -> dict[str, Any]:
        name = _need(given, "jobName")
        _check_name("jobName", name)
        if _need(given, "jobQueue") not in self.queues:
            raise Refused("ClientException", f"JobQueue {given['jobQueue']} does not exist.")
        definition = self.definitions.get(_need(given, "jobDefinition"))
        if definition is None:
            raise Refused("ClientException", f"JobDefinition {given['jobDefinition']} does not exist.")
        if len(json.dumps(given)) > 30 * 1024:
            raise Refused("ClientException", "The payload of a job is at most 30 KiB.")
        if len(given.get("tags", {})) > 50 or any(len(key) > 128 or len(text) > 256 for key, text in given.get("tags", {}).items()):
            raise Refused("ClientException", "Too many tags, or too long ones.")
        if given.get("timeout", {}).get("attemptDurationSeconds", 60) < 60:
            raise Refused("ClientException", "attemptDurationSeconds must be at least 60")
        if self.faults.on_submit is not None:
            self.faults.on_submit("before", name)
        size = given.get("arrayProperties", {}).get("size")
        if size is not None and not 2 <= size <= 10_000:
            raise Refused("ClientException", "Array size must be between 2 and 10000.")
        job = Job(str(uuid.uuid4()), given, definition, time.time_ns() // 1_000_000)
        self.jobs[job.id] = job
        for index in range(size or 0):
            member = Job(f"{job.id}:{index}", given, definition, job.created_ms, index=index)
            job.members.append(member)
            self.jobs[member.id] = member
        for one in job.members or [job]:
            self._run(one)
        if self.faults.on_submit is not None:
            self.faults.on_submit("after", name)
        if self.faults.lost:
            self.faults.lost -= 1
            raise ConnectionAbortedError
        return {"jobArn": f"{ARN}:job/{job.id}", "jobName": name, "jobId": job.id}

    def _describejobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        ids = _need(given, "jobs")
        if len(ids) > 100:
            raise Refused("ClientException", "The list of jobs has more than 100 entries.")
        return {"jobs": [self.jobs[one].plain() for one in ids if one in self.jobs]}

    def _listjobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        [wanted] = [one["values"][0] for one in given["filters"] if one["name"] == "JOB_NAME"]
        prefix = wanted.removesuffix("*").lower()
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: -job.created_ms)
            if job.index is None
            and job.given["jobQueue"] == given["jobQueue"]
            and (job.name.lower().startswith(prefix) if wanted.endswith("*") else job.name.lower() == prefix)
        ]
        first = int(given.get("nextToken") or 0)
        more = {"nextToken": str(first + 100)} if len(found) > first + 100 else {}
        return {
            "jobSummaryList": [
                {"jobId": job.id, "jobName": job.name, "status": job.state, "createdAt": job.created_ms, **job.arrays()}
                for job in found[first : first + 100]
            ],
            **more,
        }

    def _terminatejob(self, given: Mapping[str, Any]) -> dict[str, Any]:
        job, reason = self.jobs.get(_need(given, "jobId")), _need(given, "reason")
        for one in (job.members or [job]) if job is not None else ():
            if one.status in ENDED:
                continue
            one.terminated, one.reason = True, reason
            if one.process is None:
                self._end(one, "FAILED", reason, {})
            else:
                one.kill_at_s = time.monotonic() + GRACE_S
                _signal(one, signal.SIGTERM)
        return {}

    def _getlogevents(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = [job for job in self.jobs.values() if job.container.get("logStreamName") == given["logStreamName"]]
        if not found or given["logGroupName"] != "/aws/batch/job":
            raise Refused("ResourceNotFoundException", "The specified log stream does not exist.")
        text = found[0].output.read_text() if found[0].output is not None else ""
        lines = text.splitlines() if found[0].status in ENDED else text[: text.rfind("\n") + 1].splitlines()
        if not given.get("startFromHead"):
            lines = lines[-given.get("limit", 10_000) :]
        first = int(str(given.get("nextToken") or "f/0").rpartition("/")[2])
        part = lines[first : first + given.get("limit", 10_000)]
        events = [{"timestamp": found[0].started_ms, "message": line, "ingestionTime": found[0].started_ms} for line in part]
        return {"events": events, "nextForwardToken": f"f/{first + len(part)}", "nextBackwardToken": "b/0"}

    # --- containers -------------------------------------------------------------------------------------------

    def _run(self, job: Job) -> None:
        if self.faults.stuck is not None:
            job.status, job.reason = "RUNNABLE", self.faults.stuck
            return
        if self.faults.pull_fails:
            self._end(job, "FAILED", "Task failed to start", {"reason": self.faults.pull_fails})
            return
        properties = job.definition["containerProperties"]
        home = self._root / job.id.replace(":", "-")
        home.mkdir()
        env = {one["name"]: one["value"] for one in properties.get("environment", [])}
        env |= {one["name"]: one["value"] for one in job.given.get("containerOverrides", {}).get("environment", [])}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.defpath))
        ours = {name: text for name, text in os.environ.items() if name.startswith("EVFLOW_TEST_")}
        base = {"PATH": path, "HOME": str(home), "EVFLOW_HOME": str(home / "evflow"), "TMPDIR": str(home), "AWS_BATCH_JOB_ID": job.id}
        if job.index is not None:
            base["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
        job.output = home / "output"
        with job.output.open("wb") as file:
            job.process = subprocess.Popen(
                properties["command"],
                env={**base, **ours, **env},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        job.status, job.started_ms = "RUNNING", time.time_ns() // 1_000_000
        job.container["logStreamName"] = f"{job.definition['jobDefinitionName']}/default/{job.id}"

    def _reap(self) -> None:
        while not self._closing.wait(0.01):
            with self._lock:
                for job in self.jobs.values():
                    if job.process is None or job.status in ENDED:
                        continue
                    if time.monotonic() >= job.kill_at_s:
                        _signal(job, signal.SIGKILL)
                    code = job.process.poll()
                    if code is not None:
                        _signal(job, signal.SIGKILL)  # what is left of its group
                        code = code if code >= 0 else 128 - code
                        reason = job.reason if job.terminated else "Essential container in task exited"
                        self._end(job, "SUCCEEDED" if code == 0 else "FAILED", reason, {"exitCode": code})

    def _end(self, job: Job, status: str, reason: str, container: dict[str, Any]) -> None:
        if job.status not in ENDED:
            job.container.update(container)
            job.status, job.reason, job.stopped_ms = status, reason, time.time_ns() // 1_000_000


def _signal(job: Job, number: int) -> None:
    if job.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(job.process.pid, number)


def _need(given: Mapping[str, Any], name: str) -> Any:
    if not given.get(name):
        raise Refused("ClientException", f"{name} is required.")
    return given[name]


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused("ClientException", f"{what} should match {NAME.pattern}.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: a killed owner does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(service: BatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, answer = 200, service.answer(self.path, self.headers.get("X-Amz-Target", ""), json.loads(body or b"{}"))
            except Refused as error:
                status, answer = error.status, {"message": str(error), "__type": error.code}
            except ConnectionAbortedError:
                self.close_connection = True
                return
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status != 200:
                self.send_header("x-amzn-ErrorType", answer["__type"])
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the parent's name
            pass

    return Handler


@contextmanager
def a_batch_server(root: Path) -> Generator[BatchServer]:
    """The service, for as long as the block; its containers end with it."""
    server = BatchServer(root / "batch")
    server.start()
    try:
        yield server
    finally:
        server.stop()
