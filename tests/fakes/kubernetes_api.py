"""A Kubernetes API server over HTTP, with the controllers and the kubelet behind it, that runs containers as processes of this machine.

Not faked: the paths, verbs and bodies that evflow uses (Jobs, Pods, their logs, `/version`), validation (`kubernetes_rules`), 401, 403, 404, 409, 422, 429;
the rights of an account, which are those of the Role that we ship; list in pages; watch by resourceVersion with bookmarks, its end after `timeoutSeconds` and 410 for what was compacted; deletion with propagation and
grace; a Job's one pod, and those of an Indexed Job, their names, host names and indexes; its conditions, its removal after its TTL; a pod's conditions and reasons as servers of its version write them.
Faked: nodes (one, of a size that can be set), images (any exists but those that `images` forbids), namespaces, accounts, and what `ContainerHost` fakes.
Volumes are folders, and a variable that names a mount's path names the folder.

It has a loop and a thread of its own, as a server has; every method without `_` may be called from anywhere.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import anyio.to_thread
from aiohttp import web

from tests.fakes.container_host import ContainerHost
from tests.fakes.kubernetes_cluster import INDEX, Cluster, Plain, Status, stamp
from tests.fakes.kubernetes_rules import invalid, unknown_fields
from tests.ports import free_port

T = TypeVar("T")
TOKEN = "fake-token"
ACCOUNTS = Path(__file__).parents[2] / "ops" / "kubernetes" / "base" / "accounts.yaml"


def resources(text: str) -> list[Plain]:
    """The documents of a text in YAML."""
    yaml: Any = import_module("yaml")  # it comes without types
    return list(yaml.safe_load_all(text))


def rights() -> frozenset[str]:
    """What the Role of `ops/kubernetes` allows: verbs and resources, `create jobs`."""
    (role,) = (each for each in resources(ACCOUNTS.read_text()) if each["kind"] == "Role")
    return frozenset(f"{verb} {resource}" for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"])


class FakeKubernetes(Cluster):
    """The server.

    Args:
        root: A folder for what containers write.
        version: Of the server.
        tls: It speaks TLS, with the certificate of this context.
    """

    def __init__(self, root: Path, version: tuple[int, int] = (1, 31), tls: ssl.SSLContext | None = None) -> None:
        super().__init__(root, version)
        self.port = free_port()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.token = TOKEN
        self._tls = tls
        self.requests: list[str] = []
        self._rights = rights()
        self._watches: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._serve, name="fake-kubernetes", daemon=True)

    # --- from outside ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen."""
        up = threading.Event()
        self._up = up
        self._thread.start()
        up.wait()

    def stop(self) -> None:
        """End all containers, and the server."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def jobs(self) -> dict[str, Plain]:
        """All Jobs by name."""
        return self._call(lambda: deepcopy(self._objects["jobs"]))

    def pods(self) -> dict[str, Plain]:
        """All Pods by name."""
        return self._call(lambda: deepcopy(self._objects["pods"]))

    def running(self) -> list[str]:
        """The Jobs whose containers run."""
        return self._call(
            lambda: [
                pod["metadata"]["labels"]["job-name"]
                for name, pod in self._objects["pods"].items()
                if self._containers[name].process is not None and not self._containers[name].over.is_set()
            ]
        )

    def output_of(self, job: str, index: int | None = None) -> str:
        """What the container of the Job's latest pod has printed; of an Indexed Job that of an index."""
        process = self._containers[self.pod_of(job, index)].process
        return process.output.read_text() if process is not None else ""

    def is_over(self, pod: str) -> bool:
        """Whether a pod's container has ended, seen by the cluster or not."""
        return self._call(self._containers[pod].over.is_set)

    def pod_of(self, job: str, index: int | None = None) -> str:
        """The name of the Job's latest pod; of an Indexed Job that of an index."""
        named = "" if index is None else str(index)
        return [
            name
            for name, pod in self.pods().items()
            if pod["metadata"]["labels"]["job-name"] == job and named in ("", pod["metadata"]["annotations"].get(INDEX))
        ][-1]

    def delete_pod(self, name: str) -> None:
        """What `kubectl delete pod` does."""
        self._run(self._delete_pod(name, None))

    def delete_job(self, name: str) -> None:
        """What `kubectl delete job` does."""
        self._run(self._delete_job(name, "Background"))

    def evict(self, name: str, message: str = "The node was low on resource: memory.") -> None:
        """What a kubelet does that has no memory left."""
        self._run(self._fail_pod(name, "Evicted", message))

    def preempt(self, name: str) -> None:
        """What the scheduler does for a pod of a higher priority."""
        self._run(self._disrupt(name, "PreemptionByScheduler", "preempting to accommodate a higher priority pod"))

    def drain(self, name: str) -> None:
        """What `kubectl drain` does to a pod."""
        self._run(self._disrupt(name, "EvictionByEvictionAPI", "Eviction API: evicting"))

    def lose_node(self, name: str, *, lives_on: bool = False) -> None:
        """A pod's node is gone, and nobody ends the container in an orderly way; after its toleration the pod is deleted.

        Where it `lives_on`, the cluster has only lost sight of it.
        """
        self._run(self._lose_node(name, lives_on=lives_on))

    def kill_container(self, name: str, reason: str = "OOMKilled") -> None:
        """SIGKILL by the kernel, with the reason that the container's engine gives."""

        def kill() -> None:
            container = self._containers[name]
            self._objects["pods"][name]["metadata"].setdefault("annotations", {})["fake/reason"] = reason
            assert container.process is not None
            container.process.signal(9)

        self._call(kill)

    def compact(self) -> None:
        """Forget the history: watches from before are answered 410."""

        def forget() -> None:
            self._compacted = self._count
            self._history.clear()

        self._call(forget)

    def cut_watches(self) -> None:
        """Cut the connection of each watch, and of each log that is followed."""
        self._call(lambda: [task.cancel() for task in self._watches])

    def watching(self) -> int:
        """How many watches there are."""
        return self._call(lambda: len(self._watches))

    def kubeconfig(self, path: Path, namespace: str = "default") -> Path:
        """Write a kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": namespace}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }
        path.write_text(json.dumps(config))
        return path

    # --- the loop --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._host = ContainerHost(self._root)
        app = web.Application(middlewares=[self._middleware], client_max_size=16 * 2**20)
        app.router.add_get("/version", self._version)
        for prefix, kind in (("/apis/batch/v1", "jobs"), ("/api/v1", "pods")):
            app.router.add_get(f"{prefix}/{kind}", self._list(kind))
            app.router.add_get(f"{prefix}/namespaces/{{namespace}}/{kind}", self._list(kind))
            app.router.add_get(f"{prefix}/namespaces/{{namespace}}/{kind}/{{name}}", self._get(kind))
            app.router.add_delete(f"{prefix}/namespaces/{{namespace}}/{kind}/{{name}}", self._delete(kind))
        app.router.add_get("/api/v1/namespaces/{namespace}/events", self._events)
        app.router.add_post("/apis/batch/v1/namespaces/{namespace}/jobs", self._create)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self._up.set()
        await self._stop.wait()
        for task in [*self._watches, *self._tasks, *(task for container in self._containers.values() for task in container.tasks)]:
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        for container in self._containers.values():
            if container.process is not None:
                container.process.signal(9)
        await self._host.aclose()
        await runner.cleanup()
        await asyncio.sleep(0)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    # --- requests --------------------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        verb = {"GET": "get" if "name" in request.match_info else "list", "POST": "create", "DELETE": "delete"}[request.method]
        if request.query.get("watch") in ("1", "true"):
            verb = "watch"
        kind = (
            "pods/log"
            if request.path.endswith("/log")
            else "version"
            if request.path == "/version"
            else next(each for each in ("jobs", "pods", "events") if f"/{each}" in request.path)
        )
        self.requests.append(f"{verb} {kind}")
        if self.faults.away:
            self._cut(request)
        try:
            self._admit(request, verb, kind)
            answer: web.StreamResponse = await handler(request)
        except Status as status:
            headers = {"Retry-After": str(status.retry_after_s)} if status.retry_after_s else {}
            return web.json_response(status.body(), status=status.code, headers=headers)
        if verb == "create" and self.faults.lost_answers > 0:
            self.faults.lost_answers -= 1
            self._cut(request)
        return answer

    def _admit(self, request: web.Request, verb: str, kind: str) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Status(401, "Unauthorized", "Unauthorized")
        if self.faults.throttled > 0:
            self.faults.throttled -= 1
            raise Status(
                429,
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
                self.faults.retry_after_s,
            )
        if kind != "version" and (f"{verb} {kind}" in self.faults.forbidden or f"{verb} {kind}" not in self._rights):
            raise Status(
                403,
                "Forbidden",
                f'{kind} is forbidden: User "me" cannot {verb} resource "{kind}" in API group "" in the namespace "default"',
            )

    def _cut(self, request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()
        raise asyncio.CancelledError

    async def _version(self, request: web.Request) -> web.Response:
        major, minor = self.version
        if self.version < (1, 21):  # as a build of Debian answers
            return web.json_response({"major": "", "minor": "", "gitVersion": f"v{major}.{minor}.2"})
        return web.json_response({"major": str(major), "minor": f"{minor}+", "gitVersion": f"v{major}.{minor}.2-fake"})

    async def _events(self, request: web.Request) -> web.Response:
        about = request.query.get("fieldSelector", "")
        if any(f"involvedObject.name={name}," in f"{about}," for name in self._objects["pods"]):
            said = [("FailedScheduling", "0/1 nodes are available: 1 Too many pods."), ("FailedMount", self.faults.unmounted)]
            items = [
                {"reason": reason, "message": message, "lastTimestamp": f"2026-01-01T00:00:0{at}Z"}
                for at, (reason, message) in enumerate(said)
            ]
            return web.json_response({"items": items[:2] if self.faults.unmounted else items[:1]})
        message = f"Error creating: pods is forbidden: {self.faults.podless}"
        return web.json_response({"items": [{"reason": "FailedCreate", "message": message}] if self.faults.podless else []})

    async def _create(self, request: web.Request) -> web.Response:
        job: Plain = await request.json()
        namespace = request.match_info["namespace"]
        if namespace not in ("default", "flows"):
            raise Status(404, "NotFound", f'namespaces "{namespace}" not found')
        if request.query.get("fieldValidation") == "Strict" and self.version >= (1, 25) and (unknown := list(unknown_fields(job))):
            raise Status(400, "BadRequest", f"strict decoding error: {', '.join(unknown)}")
        name = job.get("metadata", {}).get("name", "")
        if faults := list(invalid(job, self.version)):
            raise Status(422, "Invalid", f'Job.batch "{name}" is invalid: {"; ".join(faults)}')
        if name in self._objects["jobs"]:
            raise Status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        if self.version < (1, 24):
            # What the server does not know yet is dropped without a word.
            for late in ("completionMode", "podFailurePolicy", "podReplacementPolicy"):
                job["spec"].pop(late, None)
        self._around(request, "before", name)
        uid = str(uuid4())
        job["metadata"].update(uid=uid, namespace=namespace, creationTimestamp=stamp())
        labels = job["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels.update({"controller-uid": uid, "job-name": name})
        job["status"] = {}
        self._put("jobs", name, job, "ADDED")
        self._make_pods(name)
        self._around(request, "after", name)
        return web.json_response(job, status=201)

    def _around(self, request: web.Request, point: str, name: str) -> None:
        if self.faults.on_create is not None:
            try:
                self.faults.on_create(point, name)
            except ConnectionError:
                self._cut(request)

    def _list(self, kind: str) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            chosen = _selector(request.query.get("labelSelector", ""))
            namespace = request.match_info.get("namespace")

            def fits(thing: Plain) -> bool:
                return chosen(thing) and (namespace is None or thing["metadata"]["namespace"] == namespace)

            if request.query.get("watch") in ("1", "true"):
                return await self._watch(request, kind, fits)
            found = sorted((thing for thing in self._objects[kind].values() if fits(thing)), key=lambda thing: thing["metadata"]["name"])
            after, limit = request.query.get("continue", ""), int(request.query.get("limit", "0"))
            if after:
                found = [thing for thing in found if thing["metadata"]["name"] > after]
            metadata: Plain = {"resourceVersion": str(self._count)}
            if limit and len(found) > limit:
                found = found[:limit]
                metadata["continue"] = found[-1]["metadata"]["name"]
            return web.json_response({"kind": f"{kind[:-1].title()}List", "metadata": metadata, "items": found})

        return answer

    def _get(self, kind: str) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(self._named(kind, request.match_info["name"]))

        return answer

    def _delete(self, kind: str) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            thing = self._named(kind, request.match_info["name"])
            options: Plain = (await request.json()) if request.can_read_body else {}
            wanted = (options.get("preconditions") or {}).get("uid")
            if wanted not in (None, thing["metadata"]["uid"]):
                raise Status(
                    409, "Conflict", f"the UID in the precondition ({wanted}) does not match the UID in record ({thing['metadata']['uid']})"
                )
            policy = request.query.get("propagationPolicy") or options.get("propagationPolicy") or "Background"
            grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
            if kind == "pods":
                await self._delete_pod(thing["metadata"]["name"], None if grace is None else int(grace))
            else:
                await self._delete_job(thing["metadata"]["name"], policy)
            return web.json_response({"kind": "Status", "status": "Success"})

        return answer

    async def _watch(self, request: web.Request, kind: str, fits: Callable[[Plain], bool]) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or self._count)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        async def send(type_: str, thing: Plain) -> None:
            await response.write(json.dumps({"type": type_, "object": thing}).encode() + b"\n")

        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        loop = asyncio.get_running_loop()
        until = loop.time() + float(request.query.get("timeoutSeconds", "1800"))
        try:
            while True:
                if since < self._compacted:
                    await send("ERROR", Status(410, "Expired", f"too old resource version: {since} ({self._compacted})").body())
                    return response
                changed, now = self._changed, self._count  # what comes while this is sent is sent behind it
                for version, of, type_, thing in list(self._history):
                    if version > since and of == kind and fits(thing):
                        await send(type_, thing)
                since = max(since, now)
                if request.query.get("allowWatchBookmarks") == "true":
                    await send("BOOKMARK", {"metadata": {"resourceVersion": str(since)}})
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), max(0.0, until - loop.time()))
                if loop.time() >= until:
                    return response
        except (ConnectionError, asyncio.CancelledError):
            self._abort(request)
            return response
        finally:
            self._watches.discard(task)

    def _abort(self, request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = self._named("pods", request.match_info["name"])
        name = pod["metadata"]["name"]
        container = self._containers.get(name)
        if container is None or container.process is None:
            waits = next((each["state"].get("waiting", {}).get("reason") for each in pod["status"].get("containerStatuses", ())), "")
            raise Status(400, "BadRequest", f'container "task" in pod "{name}" is waiting to start: {waits}')
        follow, tail = request.query.get("follow") == "true", request.query.get("tailLines")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        sent = 0
        try:
            while True:
                over = container.over.is_set()
                text = await anyio.to_thread.run_sync(container.process.output.read_bytes)
                whole = text if over else text[: text.rfind(b"\n") + 1]
                lines = whole[sent:].decode(errors="replace").splitlines()
                sent = len(whole)
                for line in lines[-int(tail) :] if tail else lines:
                    at = f"{stamp(nano=True)} " if request.query.get("timestamps") == "true" else ""
                    await response.write(f"{at}{line}\n".encode())
                if over or not follow:
                    return response
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            self._abort(request)
            return response
        finally:
            self._watches.discard(task)


def _selector(text: str) -> Callable[[Plain], bool]:
    """A selector of equalities and existences."""
    terms = [term.strip() for term in text.split(",") if term.strip()]

    def chosen(thing: Plain) -> bool:
        labels: Mapping[str, str] = thing["metadata"].get("labels") or {}
        return all(
            labels.get(term.partition("=")[0]) == term.partition("=")[2].lstrip("=") if "=" in term else term in labels for term in terms
        )

    return chosen


@contextmanager
def fake_kubernetes(root: Path, version: tuple[int, int] = (1, 31), tls: ssl.SSLContext | None = None) -> Generator[FakeKubernetes]:
    """A server while the block lasts."""
    server = FakeKubernetes(root, version, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
