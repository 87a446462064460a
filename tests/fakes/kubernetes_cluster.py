"""What is behind the fake API server: Jobs and Pods, the controllers that make and end them, and the kubelet of the one node."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.fakes.container_host import ContainerHost, Process
from tests.fakes.kubernetes_rules import amount
from tests.ports import free_port

Plain = dict[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass
class Faults:
    """What goes wrong, until it is taken back.

    Attributes:
        throttled: So many requests are answered 429.
        retry_after_s: What the 429 says.
        lost_answers: So many creations are carried out, and their answers lost.
        away: Connections are cut without an answer.
        forbidden: Verbs and resources (`create jobs`) that the account may not.
        images: Images that cannot be pulled, and what the registry says.
        starts: Whether pods that have a node start: without, they stay in ContainerCreating.
        on_create: Called around each creation with `before` or `after`, and the Job's name; what it raises cuts the connection.
        podless: Why the controllers make no pods, such as a quota; empty where they do.
        unmounted: Why a volume of pods cannot be mounted; an event says it. Empty where nothing does.
        runs: Whether containers run: without, they succeed at once.
    """

    throttled: int = 0
    retry_after_s: int = 0
    lost_answers: int = 0
    away: bool = False
    forbidden: set[str] = field(default_factory=set[str])
    images: dict[str, str] = field(default_factory=dict[str, str])
    starts: bool = True
    runs: bool = True
    podless: str = ""
    unmounted: str = ""
    on_create: Callable[[str, str], None] | None = None


class Status(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after_s = code, reason, message, retry_after_s

    def body(self) -> Plain:
        details = {"retryAfterSeconds": self.retry_after_s} if self.retry_after_s else {}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
            "details": details,
        }


@dataclass(eq=False)
class Container:
    """A pod's container while it runs, and its output afterwards."""

    process: Process | None = None
    unseen: bool = False  # its node is lost
    over: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])


class Cluster:
    """Everything but the requests. All methods are of the server's loop.

    Args:
        root: A folder for what containers write.
        version: Of the server.
    """

    def __init__(self, root: Path, version: tuple[int, int]) -> None:
        self.version = version
        self.faults = Faults()
        self.room = {"cpu": 64.0, "memory": 256e9}
        self._root = root
        # Each pod has an address of its own, unlike those of other clusters on this machine: all of 127.0.0.0/8 is it.
        port = free_port()
        self._network = f"127.{port // 256}.{port % 256}"
        self._objects: dict[str, dict[str, Plain]] = {"jobs": {}, "pods": {}}
        self._containers: dict[str, Container] = {}
        self._history: list[tuple[int, str, str, Plain]] = []
        self._compacted = 0
        self._count = 100
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: set[asyncio.Future[Process]] = set()
        self._host: ContainerHost

    def _spawn(self, work: Coroutine[Any, Any, Any], among: set[asyncio.Task[Any]] | None = None) -> None:
        tasks = self._tasks if among is None else among
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _named(self, kind: str, name: str) -> Plain:
        thing = self._objects[kind].get(name)
        if thing is None:
            raise Status(404, "NotFound", f'{"jobs.batch" if kind == "jobs" else kind} "{name}" not found')
        return thing

    def _put(self, kind: str, name: str, thing: Plain, type_: str = "MODIFIED") -> None:
        self._count += 1
        thing["metadata"]["resourceVersion"] = str(self._count)
        if type_ == "DELETED":
            self._objects[kind].pop(name, None)
        else:
            self._objects[kind][name] = thing
        self._history.append((self._count, kind, type_, deepcopy(thing)))
        self._changed.set()
        self._changed = asyncio.Event()

    # --- controllers and kubelet -----------------------------------------------------------------------------

    def _make_pods(self, job_name: str) -> None:
        """Those of a Job that has just been made: of an Indexed Job one for each index."""
        spec = self._objects["jobs"][job_name]["spec"]
        for index in range(spec["completions"]) if spec.get("completionMode") == "Indexed" else (None,):
            self._make_pod(job_name, index)

    def _make_pod(self, job_name: str, index: int | None) -> None:
        if self.faults.podless:
            return
        job = self._objects["jobs"][job_name]
        name = f"{job_name[:57]}-{uuid4().hex[:5]}"
        template = deepcopy(job["spec"]["template"])
        if index is not None:
            name = f"{job_name}-{index}-{uuid4().hex[:5]}"
            template["metadata"].setdefault("annotations", {})[INDEX] = str(index)
            if self.version >= (1, 28):
                template["metadata"]["labels"][INDEX] = str(index)
            template["spec"].setdefault("hostname", f"{job_name}-{index}")
            for container in template["spec"]["containers"]:
                at = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
                container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": at})
        owner = {"kind": "Job", "name": job_name, "uid": job["metadata"]["uid"], "controller": True}
        pod: Plain = {
            "metadata": {
                **template["metadata"],
                "name": name,
                "namespace": job["metadata"]["namespace"],
                "uid": str(uuid4()),
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending", "conditions": [], "podIP": f"{self._network}.{self._count % 250 + 1}"},
        }
        pod["metadata"]["creationTimestamp"] = stamp()
        self._put("pods", name, pod, "ADDED")
        self._containers[name] = Container()
        self._spawn(self._kubelet(name), self._containers[name].tasks)

    async def _kubelet(self, name: str) -> None:
        """From a pod's creation to the start of its container."""
        pod = self._objects["pods"][name]
        task = pod["spec"]["containers"][0]
        asked = task.get("resources", {}).get("requests", {})
        short = [what for what, room in self.room.items() if (amount(asked.get(what, "0")) or 0) > room]
        if short:
            message = f"0/1 nodes are available: 1 Insufficient {short[0]}."
            pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
            self._put("pods", name, pod)
            return
        pod["spec"]["nodeName"] = "node1"
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        pod["status"]["startTime"] = stamp()
        self._state(name, waiting={"reason": "ContainerCreating"})
        if task["image"] in self.faults.images:
            said = self.faults.images[task["image"]]
            self._state(name, waiting={"reason": "ErrImagePull", "message": said})
            await asyncio.sleep(0.1)
            self._state(name, waiting={"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{task["image"]}"'})
            return
        if not self.faults.starts:
            return
        if not self.faults.runs:
            self._state(name, running={"startedAt": stamp()}, phase="Running")
            self._ended(name, 0)
            return
        argv = [*task.get("command", ()), *task.get("args", ())]
        start = asyncio.ensure_future(self._host.start(argv, self._env(name, pod, task), lambda code: self._ended(name, code)))
        self._starting.add(start)
        start.add_done_callback(self._starting.discard)
        self._containers[name].process = await asyncio.shield(start)
        if "terminated" not in self._state_of(pod):
            self._state(name, running={"startedAt": stamp()}, phase="Running")
        if (limit := pod["spec"].get("activeDeadlineSeconds")) is not None:
            await asyncio.sleep(limit)
            await self._fail_pod(name, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

    def _env(self, name: str, pod: Plain, task: Plain) -> dict[str, str]:
        paths = {
            "metadata.name": name,
            "metadata.namespace": pod["metadata"]["namespace"],
            "metadata.uid": pod["metadata"]["uid"],
            f"metadata.annotations['{INDEX}']": pod["metadata"].get("annotations", {}).get(INDEX, ""),
            "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
            "spec.nodeName": "node1",
            "status.hostIP": "127.0.0.1",
            "status.podIP": pod["status"]["podIP"],
        }
        folders: dict[str, str] = {}
        for mount in task.get("volumeMounts", ()):
            folder = self._root / name / mount["mountPath"].strip("/").replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            folders[mount["mountPath"]] = str(folder)
        env: dict[str, str] = {}
        for each in task.get("env", ()):
            text = each["value"] if "value" in each else paths[each["valueFrom"]["fieldRef"]["fieldPath"]]
            env[each["name"]] = folders.get(text, text).replace("$$(", "$(")
        return env

    @staticmethod
    def _state_of(pod: Plain) -> Plain:
        return next((each["state"] for each in pod["status"].get("containerStatuses", ())), {})

    def _state(self, name: str, phase: str = "Pending", **state: Plain) -> None:
        pod = self._objects["pods"].get(name)
        if pod is None:
            return
        pod["status"].update(phase=phase, containerStatuses=[{"name": pod["spec"]["containers"][0]["name"], "state": state}])
        self._put("pods", name, pod)

    def _ended(self, name: str, code: int) -> None:
        """The container has ended."""
        self._containers[name].over.set()
        if self._containers[name].unseen:
            return
        pod = self._objects["pods"].get(name)
        if pod is None:
            return
        if pod["status"].get("phase") == "Failed":  # its reason was told before
            if pod["metadata"].get("deletionTimestamp"):
                self._remove_pod(name)
            return
        reason = pod["metadata"].get("annotations", {}).get("fake/reason") or ("Completed" if code == 0 else "Error")
        terminated = {"exitCode": code, "reason": reason, "finishedAt": stamp()}
        self._state(name, "Succeeded" if code == 0 else "Failed", terminated=terminated)
        if pod["metadata"].get("deletionTimestamp"):
            self._remove_pod(name)
            return
        self._finish(pod, good=code == 0)

    def _finish(self, pod: Plain, *, good: bool) -> None:
        """The Job's controller sees the end of a pod: of an Indexed Job all have to end well, and the first that does not ends the others."""
        job_name = pod["metadata"]["labels"]["job-name"]
        job = self._objects["jobs"].get(job_name)
        if job is None or job["status"].get("conditions"):
            return
        if good and job["spec"].get("completionMode") == "Indexed":
            done = {*filter(None, job["status"].get("completedIndexes", "").split(",")), pod["metadata"]["annotations"][INDEX]}
            job["status"].update(succeeded=len(done), completedIndexes=",".join(sorted(done, key=int)))
            if len(done) < job["spec"]["completions"]:
                self._put("jobs", job_name, job)
                return
        condition: Plain = {"type": "Complete", "status": "True"}
        if not good:
            condition = {
                "type": "Failed",
                "status": "True",
                "reason": "BackoffLimitExceeded",
                "message": "Job has reached the specified backoff limit",
            }
            if "podFailurePolicy" in job["spec"]:
                name = pod["metadata"]["name"]
                condition.update(reason="PodFailurePolicy", message=f"Pod {name} matched FailJob rule at index 0")
        job["status"].update({"succeeded": job["spec"]["completions"]} if good else {"failed": 1})
        if self.version >= (1, 31):  # what is to come is told first; it has come when no pod is left
            job["status"]["conditions"] = [{**condition, "type": "SuccessCriteriaMet" if good else "FailureTarget"}]
            self._conclude(job_name, condition)
        else:
            job["status"]["conditions"] = [condition]
        self._put("jobs", job_name, job)
        for name in self._active(job_name):
            self._spawn(self._delete_active(name, job_name, condition))
        if (ttl := job["spec"].get("ttlSecondsAfterFinished")) is not None and self.version >= (1, 21):
            self._spawn(self._expire(job_name, ttl))

    def _active(self, job_name: str) -> list[str]:
        return [
            name
            for name, pod in self._objects["pods"].items()
            if pod["metadata"]["labels"]["job-name"] == job_name and pod["status"]["phase"] not in ("Failed", "Succeeded")
        ]

    def _conclude(self, job_name: str, condition: Plain) -> None:
        job = self._objects["jobs"].get(job_name)
        if job is not None and not self._active(job_name) and len(job["status"]["conditions"]) == 1:
            job["status"]["conditions"].append(condition)
            self._put("jobs", job_name, job)

    async def _delete_active(self, name: str, job_name: str, condition: Plain) -> None:
        if name in self._objects["pods"]:
            await self._delete_pod(name, None)
            if self._containers[name].process is not None:
                await self._containers[name].over.wait()
        if self.version >= (1, 31):
            self._conclude(job_name, condition)

    async def _expire(self, job_name: str, ttl_s: float) -> None:
        await asyncio.sleep(ttl_s)
        if job_name in self._objects["jobs"]:
            await self._delete_job(job_name, "Background")

    async def _delete_job(self, name: str, policy: str) -> None:
        job = self._objects["jobs"].get(name)
        if job is None:
            return
        pods = [pod for pod, thing in self._objects["pods"].items() if thing["metadata"]["labels"].get("job-name") == name]
        self._put("jobs", name, job, "DELETED")
        if policy != "Orphan":
            for pod in pods:
                await self._delete_pod(pod, None)

    async def _delete_pod(self, name: str, grace_s: int | None) -> None:
        pod = self._named("pods", name)
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
        if pod["metadata"].get("deletionTimestamp") is None:
            pod["metadata"].update(deletionTimestamp=stamp(), deletionGracePeriodSeconds=grace)
            self._put("pods", name, pod)
        container = self._containers[name]
        if container.process is None or container.over.is_set():
            for task in container.tasks:
                task.cancel()
            self._remove_pod(name)
        else:
            await self._host.end(container.process, grace)

    def _remove_pod(self, name: str) -> None:
        pod = self._objects["pods"].get(name)
        if pod is None:
            return
        self._put("pods", name, pod, "DELETED")
        job_name = pod["metadata"]["labels"]["job-name"]
        if (job := self._objects["jobs"].get(job_name)) is None or job["status"].get("conditions"):
            return
        index = pod["metadata"].get("annotations", {}).get(INDEX)
        if index is not None and index in job["status"].get("completedIndexes", "").split(","):
            return  # it had done its part
        if self.version >= (1, 26):
            self._finish(pod, good=False)  # a pod that was deleted counts as failed
        else:
            self._make_pod(job_name, None if index is None else int(index))

    async def _fail_pod(self, name: str, reason: str, message: str) -> None:
        pod = self._named("pods", name)
        if pod["status"]["phase"] in ("Failed", "Succeeded"):
            return
        pod["status"].update(phase="Failed", reason=reason, message=message, containerStatuses=[])
        self._put("pods", name, pod)
        container = self._containers[name]
        if container.process is not None:
            await self._host.end(container.process, 1)
        self._finish(pod, good=False)

    async def _disrupt(self, name: str, reason: str, message: str) -> None:
        pod = self._named("pods", name)
        if self.version >= (1, 26):
            pod["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message})
            self._put("pods", name, pod)
        await self._delete_pod(name, None)

    async def _lose_node(self, name: str, *, lives_on: bool = False) -> None:
        pod = self._named("pods", name)
        container = self._containers[name]
        container.unseen = True
        if container.process is not None and not lives_on:
            container.process.signal(9)
            await container.over.wait()
        if self.version >= (1, 26):
            pod["status"]["conditions"].append(
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node1 is unreachable"}
            )
        else:
            pod["status"].update(phase="Unknown", reason="NodeLost", containerStatuses=[])
        # What its container did is not known to anybody.
        pod["status"]["containerStatuses"] = []
        pod["status"]["phase"] = "Unknown" if self.version < (1, 26) else "Running"
        self._put("pods", name, pod)
        self._remove_pod(name)


def stamp(*, nano: bool = False) -> str:
    now = datetime.now(UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z" if nano else "%Y-%m-%dT%H:%M:%SZ")
