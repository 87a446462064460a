"""Kubernetes as a platform: one Job for each attempt, under the attempt's name.

Names make submits idempotent: a Job that is there already is what the former submit, or the former owner, made (409). What happens is seen by
one watch of pods for each namespace and shard; a Job is asked for where there is no pod to speak for it. A pod that is gone though its Job might make another one
takes the Job with it: an attempt runs once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.clock import now_us
from evflow.core.values import field, value
from evflow.errors import EvflowError
from evflow_executors.kubernetes.answers import container_state, part, rows
from evflow_executors.kubernetes.api import CallRefused, Cluster, KubernetesApi, path_of, selector
from evflow_executors.kubernetes.manifest import CONTAINER, FAILURE_POLICY_SINCE, TTL_SINCE, TaskJob, filled, job_manifest
from evflow_executors.kubernetes.reasons import DISRUPTIONS_SINCE, PodSeen, overdue, pod_seen, told_by_job
from evflow_executors.kubernetes.template import laid_over, template_in
from evflow_executors.kubernetes.watching import PodEvent, pod_events
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import Job, JobSeen, LogText, PlatformProblem
from evflow_executors.remote.rate import CallRate
from evflow_executors.remote.verdicts import EXITED

NAME: Final = "kubernetes"
SUBMITS_AT_ONCE: Final = 32
"""Calls that are on their way together; their rate is bounded elsewhere."""
FEW: Final = 20
"""So many Jobs are asked for one by one; of more, all of the log are listed."""
PODLESS_S: Final = 20.0
"""A Job without a pod for so long is asked why: a quota, a webhook."""
LOOK_S: Final = 5.0
SIDECAR_S: Final = 10.0
"""What a sidecar may take to end by itself when the step is over."""
LOG_AGAIN_S: Final = 1.0
_HANDS: Final = 8
_NO_LOG_YET: Final = b"unable to retrieve container logs for "
"""What a kubelet says in place of a log, with success, while its container's engine is not as far."""


@value
class Operator:
    """What an operator says of all Jobs.

    Attributes:
        namespace: Where Jobs are made; empty for the one that the credentials name.
        secret_env: Variables that Kubernetes takes from its secrets, by name: `secret/key`.
        defaults: Fields of `@kubernetes` for steps that leave them open.
        templates: Pod templates to be laid over ours, each with its source.
        ttl_s: After so many seconds a Job that ended is removed.
        patience_s: How long a pod may wait for a node or an image; 0 for as long as it takes.
    """

    namespace: str = ""
    secret_env: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    templates: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    ttl_s: int = 86_400
    patience_s: float = 0.0


class _Known:
    """A Job that was submitted, found or seen."""

    __slots__ = ("asked_at", "ended", "ending", "namespace", "pod", "since", "told")

    def __init__(self, namespace: str, at: float) -> None:
        self.namespace = namespace
        self.since = self.asked_at = at
        self.pod: dict[str, Any] | None = None
        self.told: JobSeen | None = None
        self.ending = False
        self.ended = False


class KubernetesPlatform:
    """The Jobs of one shard of a log.

    Args:
        cluster: Which cluster, and as whom. It is not connected to before it is needed.
        rate: All calls take of it.
        operator: Reads what holds for all Jobs. Called in a thread, once.
        on_notice: Hears what people should know: a server that lacks something, or does not answer. An attribute as well.
    """

    def __init__(
        self, cluster: Cluster, rate: CallRate, operator: Callable[[], Operator], on_notice: Callable[[str], None] = diagnostics.info
    ) -> None:
        self.name = NAME
        self.together = 0
        self._cluster = cluster
        self._rate = rate
        self._read_operator = operator
        self.on_notice = on_notice
        self._connecting = asyncio.Lock()
        self._connected: tuple[KubernetesApi, Operator] | None = None
        self._selector = ""
        self._known: dict[str, _Known] = {}
        self._heeded: list[str] = []
        self._followed: set[str] = set()
        self._seen = asyncio.Queue[JobSeen | None]()  # at most a few for each Job that is out
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._hands = asyncio.Semaphore(_HANDS)
        self._begun = False

    # --- what the executor asks for ----------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """Make Jobs; one whose name is there already is left as it is."""
        problems: dict[str, PlatformProblem] = {}
        try:
            await self._ready()
        except PlatformProblem as error:
            return {job.name: error for job in jobs}
        if jobs:
            self._select(jobs[0].labels)
        at_once = asyncio.Semaphore(SUBMITS_AT_ONCE)

        async def one(job: Job) -> None:
            async with at_once:
                if any(problem.throttled for problem in problems.values()):
                    problems[job.name] = PlatformProblem("Kubernetes asked for fewer calls.", throttled=True)
                    return
                try:
                    await self._submit(job)
                except PlatformProblem as error:
                    problems[job.name] = error
                except EvflowError as error:
                    problems[job.name] = PlatformProblem(error.message, error.hint)

        async with anyio.create_task_group() as group:
            for job in jobs:
                group.start_soon(one, job)
        return problems

    async def find(self, names: Sequence[str], asked: Sequence[Mapping[str, Any]]) -> Mapping[str, JobSeen]:
        """Which of these Jobs exist, in the namespaces that the steps of their runs ask for."""
        await self._ready()
        wanted = set(names)
        found: dict[str, JobSeen] = {}
        for namespace in dict.fromkeys([self._operator.namespace, *map(self._namespace_of, asked)]):
            self._heed(namespace)
            jobs = await self._jobs_in(namespace, wanted - found.keys())
            pods: dict[str, dict[str, Any]] = {}
            for job in jobs.values():
                self._select(part(part(job, "metadata"), "labels"))
            if jobs:
                for pod in (await self._api.items(path_of(namespace=namespace, kind="pods"), self._selector))[0]:
                    pods[_job_of(pod)] = pod
            for name, job in jobs.items():
                known = self._know(name, namespace)
                known.pod = pods.get(name, known.pod)
                found[name] = self._jobs_state(name, job, known)
        return found

    def watch(self) -> AsyncIterator[JobSeen]:
        """Each change of each Job of the log."""
        return self._watch()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """Delete a Job and its pod: SIGTERM, and SIGKILL after the grace."""
        await self._ready()
        known = self._know(name, self._known[name].namespace if name in self._known else self._operator.namespace)
        known.ending = True
        diagnostics.debug("a Job of Kubernetes is deleted", job=name, why=why)
        await self._delete("jobs", known.namespace, name, {"propagationPolicy": "Background"})
        pods = [known.pod] if known.pod is not None else (await self._api.items(*self._pods_of(name, known.namespace)))[0]
        for pod in pods:
            known.pod = pod
            # The Job's deletion takes its pods along with the grace that they have; ours may be shorter.
            grace = {"gracePeriodSeconds": max(1, round(grace_s))}
            await self._delete("pods", known.namespace, pod["metadata"]["name"], grace)
        if not pods:
            await self._tell(name, known, PodSeen("ended", EXITED))

    async def logs(self, name: str) -> AsyncGenerator[LogText]:
        """What its container prints, as it comes; where the connection is cut it goes on behind the last line."""
        after_us = 0
        last: set[str] = set()
        while True:
            known = self._known.get(name)
            pod = known.pod if known is not None else None
            over = known is None or known.ended
            if pod is None or pod_seen(pod).phase == "waiting":
                if over:
                    return
                await self._change()
                continue
            query = {"container": CONTAINER, "follow": "true", "timestamps": "true"}
            if after_us:
                query["sinceTime"] = datetime.fromtimestamp(after_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            path = path_of(namespace=pod["metadata"]["namespace"], kind="pods", name=pod["metadata"]["name"], sub="log")
            try:
                async with self._api.lines(path, query) as lines:
                    async for line in lines:
                        if line.startswith(_NO_LOG_YET):
                            break
                        at_us, text = _stamped(line)
                        key = line.decode(errors="replace")
                        if at_us < after_us or key in last:
                            continue
                        if at_us > after_us:
                            after_us = at_us
                            last.clear()
                        last.add(key)
                        yield LogText(at_us, text)
            except CallRefused as error:
                # 400: it has not started; 404: its pod is gone, or a kubelet has not heard of it yet. The watch tells which.
                if error.status not in (400, 404) and not error.transient:
                    raise
                if over or self._is_over(name):
                    return
            except PlatformProblem as error:
                diagnostics.debug("a log of Kubernetes was cut", job=name, why=error.message)
            else:
                if over or self._is_over(name):
                    return
            await anyio.sleep(LOG_AGAIN_S)

    async def log_tail(self, name: str, lines: int) -> str:
        """The last lines of its container; the message of its end where there is no log any more."""
        known = self._known.get(name)
        if known is None or known.pod is None:
            return ""
        metadata = known.pod["metadata"]
        path = path_of(namespace=metadata["namespace"], kind="pods", name=metadata["name"], sub="log")
        try:
            return str(await self._api.call("GET", path, {"container": CONTAINER, "tailLines": str(lines)}))
        except PlatformProblem as error:
            diagnostics.debug("the last lines of a pod cannot be had", job=name, why=error.message)
            return str(part(container_state(known.pod), "terminated").get("message") or "")

    async def aclose(self) -> None:
        """Stop watching. Jobs go on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._seen.put_nowait(None)
        if self._connected is not None:
            await self._connected[0].aclose()

    # --- submitting ------------------------------------------------------------------------------------------

    def manifest(self, job: Job) -> tuple[str, dict[str, Any]]:
        """The namespace and the Job of an attempt.

        Raises:
            EvflowError: There can be no such Job.
        """
        fields = filled(job.asked, self._operator.defaults)
        namespace = self._namespace_of(job.asked)
        own = fields.pop("pod_template", None)
        about = {"evflow.dev/attempt": str(job.attempt), "evflow.dev/step": job.step}
        task = TaskJob(
            job.name, job.labels, fields, job.command.argv, job.command.env, job.step, job.timeout_s, about, self._operator.secret_env
        )
        made = job_manifest(task, self._api.server, ttl_s=self._operator.ttl_s)
        templates = list(self._operator.templates)
        if own is not None:
            source = f"of step '{job.step}'"
            templates.append((source, template_in(own, source)))
        return namespace, laid_over(made, templates) if templates else made

    async def _submit(self, job: Job) -> None:
        namespace, manifest = self.manifest(job)
        self._heed(namespace)
        self._know(job.name, namespace)
        try:
            await self._api.call("POST", path_of(namespace=namespace, kind="jobs"), {"fieldValidation": "Strict"}, manifest)
        except CallRefused as error:
            if error.status != 409:
                if not error.transient:
                    del self._known[job.name]
                raise

    # --- the server ------------------------------------------------------------------------------------------

    @property
    def _api(self) -> KubernetesApi:
        assert self._connected is not None
        return self._connected[0]

    @property
    def _operator(self) -> Operator:
        assert self._connected is not None
        return self._connected[1]

    async def _ready(self) -> None:
        """Connect, where that has not been done.

        Raises:
            PlatformProblem: There is no cluster, or it does not answer.
        """
        async with self._connecting:
            if self._connected is not None:
                return
            try:
                operator = await anyio.to_thread.run_sync(self._read_operator)
                api = await KubernetesApi.connect(self._cluster, self._rate)
            except EvflowError as error:
                raise PlatformProblem(error.message, error.hint) from error
            try:
                await api.greet()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await api.aclose()
                raise
            self._connected = api, replace(operator, namespace=operator.namespace or api.namespace)
        version = ".".join(map(str, api.server.version))
        if not api.server.has(TTL_SINCE):
            self.on_notice(f"Kubernetes {version} does not remove Jobs that have ended: `evflow kubernetes kill --ended` does.")
        if not api.server.has(FAILURE_POLICY_SINCE):
            self.on_notice(f"Kubernetes {version} has no pod failure policies: evflow itself ends the Job of a pod that was deleted.")

    def _select(self, labels: Mapping[str, str]) -> None:
        """Watch the Jobs of this log and shard from now on. Other shards have owners, and watches, of their own."""
        if not self._selector:
            self._selector = selector({name: labels[name] for name in LABELS[:2]})
            self._follow_all()

    # --- what is seen ----------------------------------------------------------------------------------------

    async def _watch(self) -> AsyncGenerator[JobSeen]:
        if not self._begun:
            self._begun = True
            self._follow_all()
            self._spawn(self._look())
        while True:
            seen = await self._seen.get()
            if seen is None:
                if self._error is not None:
                    raise self._error
                return
            yield seen

    async def _follow(self, namespace: str) -> None:
        async for event in pod_events(self._api, namespace, self._selector, self._tell_trouble):
            if event.kind == "listed":
                await self._missed(namespace)
            else:
                await self._pod(namespace, event)

    def _tell_trouble(self, why: str) -> None:
        self.on_notice(f"{why} It is waited for; tasks that run go on meanwhile.")

    async def _pod(self, namespace: str, event: PodEvent) -> None:
        pod = event.pod
        name = _job_of(pod)
        known = self._know(name, namespace)
        if known.pod is not None and known.pod["metadata"]["uid"] != pod["metadata"]["uid"] and known.ended:
            self._away(name, known)  # another pod of a Job whose attempt is over
            return
        known.pod = pod
        seen = pod_seen(pod, gone=event.kind == "gone", ending=known.ending, tells_disruptions=self._api.server.has(DISRUPTIONS_SINCE))
        await self._tell(name, known, seen)
        if seen.phase != "ended" or known.ending:
            return
        if event.kind == "gone" or part(pod, "status").get("phase") == "Pending":
            self._away(name, known)  # a Job of an older server makes another pod for one that is gone, and a pull is tried for ever
        elif part(pod, "status").get("phase") == "Running":
            self._spawn(self._away_later(name, known))

    async def _away_later(self, name: str, known: _Known) -> None:
        """Delete a Job whose pod lives on behind our container: it has a sidecar. A kubelet may tell of the pod's end a moment later."""
        await anyio.sleep(SIDECAR_S)
        if known.pod is not None and part(known.pod, "status").get("phase") == "Running":
            self._away(name, known)

    async def _missed(self, namespace: str) -> None:
        """After a list: what is known and has no pod in it has ended meanwhile, or waits for its pod."""
        for name, known in list(self._known.items()):
            if known.namespace == namespace and not known.ended and known.pod is None:
                await self._ask(name, known)

    async def _look(self) -> None:
        """Ask for Jobs that have no pod, and give up pods that have waited for too long."""
        while True:
            await anyio.sleep(LOOK_S)
            now = anyio.current_time()
            for name, known in list(self._known.items()):
                if known.ended:
                    continue
                if known.pod is None:
                    if now - known.asked_at >= PODLESS_S:
                        known.asked_at = now
                        await self._ask(name, known)
                elif self._operator.patience_s and known.told is not None and known.told.phase == "waiting":
                    seen = overdue(pod_seen(known.pod), now - known.since, self._operator.patience_s)
                    if seen.phase == "ended":
                        await self._tell(name, known, seen)
                        self._away(name, known)

    async def _ask(self, name: str, known: _Known) -> None:
        """Have a Job speak for itself."""
        try:
            job = await self._api.call("GET", path_of(namespace=known.namespace, kind="jobs", name=name))
        except CallRefused as error:
            if error.status != 404:
                diagnostics.debug("a Job cannot be asked for", job=name, why=error.message)
            elif anyio.current_time() - known.since >= PODLESS_S:  # its submit may be on its way
                await self._tell(name, known, told_by_job({"metadata": {"name": name}}, gone=True, ending=known.ending))
        except PlatformProblem as error:
            diagnostics.debug("a Job cannot be asked for", job=name, why=error.message)
        else:
            seen = told_by_job(job)
            if seen is None:
                is_late = anyio.current_time() - known.since >= PODLESS_S
                seen = PodSeen("waiting", note=await self._why_podless(name, known) if is_late else "")
            if known.pod is None:  # none has come meanwhile
                await self._tell(name, known, seen)

    async def _why_podless(self, name: str, known: _Known) -> str:
        """What Kubernetes says of a Job for which it makes no pod."""
        path = f"/api/v1/namespaces/{known.namespace}/events"
        try:
            said = await self._api.call("GET", path, {"fieldSelector": f"involvedObject.name={name},type=Warning"})
        except PlatformProblem:
            return "Kubernetes has made no pod for it yet."  # who may not read events is told that much
        messages = [str(each.get("message") or "") for each in rows(said, "items")]
        return f"Kubernetes makes no pod for it: {messages[-1].rstrip('.')}." if messages else ""

    def _jobs_state(self, name: str, job: Mapping[str, Any], known: _Known) -> JobSeen:
        """A Job as its pod, or else it itself, says."""
        gone = PodSeen("waiting")
        seen = pod_seen(known.pod, ending=known.ending) if known.pod is not None else told_by_job(job) or gone
        made = _job_seen(name, known.pod or job, seen, known.namespace)
        known.ended = made.phase == "ended"
        known.told = made
        return made

    async def _tell(self, name: str, known: _Known, seen: PodSeen | None) -> None:
        if seen is None or known.ended:
            return
        made = _job_seen(name, known.pod or {}, seen, known.namespace)
        known.ended = made.phase == "ended"
        changed, known.told = made != known.told, made
        self._changed.set()
        self._changed = asyncio.Event()
        if changed:
            self._seen.put_nowait(made)

    # --- the rest --------------------------------------------------------------------------------------------

    def _namespace_of(self, asked: Mapping[str, Any]) -> str:
        return str(asked.get("namespace") or self._operator.namespace)

    def _heed(self, namespace: str) -> None:
        """Watch a namespace from now on."""
        if namespace not in self._heeded:
            self._heeded.append(namespace)
            self._follow_all()

    def _follow_all(self) -> None:
        if self._begun and self._selector:
            for namespace in self._heeded:
                if namespace not in self._followed:
                    self._followed.add(namespace)
                    self._spawn(self._follow(namespace))

    def _know(self, name: str, namespace: str) -> _Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _Known(namespace, anyio.current_time())
        return known

    async def _jobs_in(self, namespace: str, names: set[str]) -> dict[str, dict[str, Any]]:
        if len(names) > FEW:
            found, _ = await self._api.items(path_of(namespace=namespace, kind="jobs"), self._selector)
            return {job["metadata"]["name"]: job for job in found if job["metadata"]["name"] in names}
        jobs: dict[str, dict[str, Any]] = {}
        for name in names:
            try:
                jobs[name] = await self._api.call("GET", path_of(namespace=namespace, kind="jobs", name=name))
            except CallRefused as error:
                if error.status != 404:
                    raise
        return jobs

    def _pods_of(self, name: str, namespace: str) -> tuple[str, str]:
        return path_of(namespace=namespace, kind="pods"), f"job-name={name}"

    async def _delete(self, kind: str, namespace: str, name: str, options: Mapping[str, Any]) -> None:
        try:
            await self._api.call("DELETE", path_of(namespace=namespace, kind=kind, name=name), body=options)
        except CallRefused as error:
            if error.status != 404:
                raise

    def _away(self, name: str, known: _Known) -> None:
        """Delete a Job whose attempt is over."""
        # That one, and none that has been made under its name since.
        uid = next((str(owner.get("uid")) for owner in rows(part(known.pod or {}, "metadata"), "ownerReferences")), "")
        options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}

        async def delete() -> None:
            async with self._hands:
                for _ in range(3):
                    try:
                        await self._delete("jobs", known.namespace, name, options)
                    except CallRefused as error:
                        if error.status == 409:
                            return
                    except PlatformProblem as error:
                        diagnostics.debug("a Job of Kubernetes cannot be deleted yet", job=name, why=error.message)
                    else:
                        return
                    await anyio.sleep(LOOK_S)

        self._spawn(delete())

    async def _change(self) -> None:
        await self._changed.wait()  # a pod's change, or whoever waits is cancelled

    def _is_over(self, name: str) -> bool:
        known = self._known.get(name)
        return known is None or known.ended

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._error = error
                self._seen.put_nowait(None)

        task.add_done_callback(done)


def _job_of(pod: Mapping[str, Any]) -> str:
    return str(part(part(pod, "metadata"), "labels").get("job-name", ""))


def _job_seen(name: str, thing: Mapping[str, Any], seen: PodSeen, namespace: str) -> JobSeen:
    labels: Mapping[str, str] = part(part(thing, "metadata"), "labels")
    epoch = labels.get(LABELS[2], "")
    return JobSeen(
        name,
        seen.phase,
        seen.verdict or EXITED,
        seen.exit_code,
        seen.note,
        host=str(part(thing, "spec").get("nodeName") or ""),
        started_us=_started_us(thing),
        epoch=int(epoch) if epoch.isdecimal() else 0,
        place=f"{namespace}/{part(thing, 'metadata').get('name') or name}",
        labels={key: text for key, text in labels.items() if key in LABELS},
    )


def _started_us(pod: Mapping[str, Any]) -> int:
    state = container_state(pod)
    at = part(state, "running").get("startedAt") or part(state, "terminated").get("startedAt")
    return round(datetime.fromisoformat(at).timestamp() * 1_000_000) if at else 0


def _stamped(line: bytes) -> tuple[int, str]:
    """When a line was printed, and the line."""
    stamp, _, text = line.partition(b" ")
    try:
        whole, _, fraction = stamp.decode().rstrip("Z").partition(".")
        at = datetime.fromisoformat(f"{whole}+00:00")
        return round(at.timestamp()) * 1_000_000 + int((fraction + "000000")[:6] or 0), text.decode(errors="replace")
    except (ValueError, UnicodeDecodeError):
        return now_us(), line.decode(errors="replace")
