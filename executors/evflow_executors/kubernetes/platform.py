"""Kubernetes as a platform: one Job for each attempt, under the attempt's name, and one for all nodes of a gang.

Names make submits idempotent: a Job that is there already is what the former submit, or the former owner, made (409). What happens is seen by
one watch of pods for each namespace and shard; a Job is asked for where there is no pod to speak for it. A pod that is gone though its Job might make another one
takes the Job with it: an attempt runs once.

A gang is an Indexed Job: made at once or not at all, and its pods share one fate, by Kubernetes' rules as by ours. Its nodes are told of by their own names,
as if each had a Job. Where the server has no Indexed Jobs, each has one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from evflow import diagnostics
from evflow.errors import EvflowError
from evflow_executors.kubernetes import output
from evflow_executors.kubernetes.answers import lean, part, rows
from evflow_executors.kubernetes.api import CallRefused, Cluster, KubernetesApi, path_of, selector
from evflow_executors.kubernetes.known import Gang, Known, has_failed, index_of, is_bad, job_of, job_seen
from evflow_executors.kubernetes.manifest import FAILURE_POLICY_SINCE, INDEXED_SINCE, TTL_SINCE
from evflow_executors.kubernetes.operator import Operator, manifest_of
from evflow_executors.kubernetes.reasons import DISRUPTIONS_SINCE, PodSeen, is_silent, overdue
from evflow_executors.kubernetes.warned import why_podless, why_slow
from evflow_executors.kubernetes.watching import PodEvent, pod_events
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import NO_GANGS, Job, JobSeen, LogText, PlatformProblem
from evflow_executors.remote.rate import CallRate
from evflow_executors.remote.verdicts import EXITED, GANG_ENDED

NAME: Final = "kubernetes"
SUBMITS_AT_ONCE: Final = 32
"""Calls that are on their way together; their rate is bounded elsewhere."""
PODLESS_S: Final = 20.0
"""A Job without a pod for so long is asked why (a quota, a webhook), and so is a pod that does not start (a volume, a network)."""
SLOW_AT_ONCE: Final = 4
"""So many pods that do not start are asked about in a look: each takes a call, and most of a thousand are only pulling their image."""
LOOK_S: Final = 5.0
SIDECAR_S: Final = 10.0
"""What a sidecar may take to end by itself when the step is over."""
ENDED_KEPT: Final = 1_000
LAST_DELETIONS_S: Final = 5.0
"""What deletions may take that are under way when the platform is closed: a pod that waits would run after all once what it waits for is there."""
_HANDS: Final = 8


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
        self._known: dict[str, Known] = {}  # by the names of Jobs; by those of nodes where a gang is one Job
        self._gangs: dict[str, Gang] = {}  # by the names of their Jobs
        self._ended = deque[str]()
        self._heeded: list[str] = []
        self._followed: set[str] = set()
        self._seen = asyncio.Queue[JobSeen | None]()  # at most a few for each Job that is out
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deletions: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._hands = asyncio.Semaphore(_HANDS)
        self._begun = False
        self._told_of_gangs = False
        self._unsure: dict[str, None] = {}  # whose submit was not answered, the latest behind
        self._in_trouble = False  # the next submit begins with one call, which tells whether that is over

    # --- what the executor asks for ----------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """Make Jobs; one whose name is there already is left as it is."""
        problems: dict[str, PlatformProblem] = {}
        trouble: PlatformProblem | None = None
        try:
            await self._ready()
        except PlatformProblem as error:
            error.undone = True  # nothing was ever asked for
            return {job.name: error for job in jobs}
        if jobs:
            self._select(jobs[0].labels)
        at_once = asyncio.Semaphore(SUBMITS_AT_ONCE)

        async def one(job: Job) -> None:
            nonlocal trouble
            async with at_once:
                if trouble is not None:
                    text = (
                        "Kubernetes asked for fewer calls." if isinstance(trouble, CallRefused) and trouble.is_throttle else trouble.message
                    )
                    problems[job.name] = PlatformProblem(text, transient=True, undone=job.name not in self._unsure)
                    return
                if all(name in self._known and self._known[name].ending for name in _names(job)):
                    text = f"The end of {job.attempt} was asked for."
                    problems[job.name] = PlatformProblem(text, transient=True, undone=job.name not in self._unsure)
                    return
                try:
                    await (self._submit_gang(job) if job.nodes else self._submit(job))
                    self._unsure.pop(job.name, None)
                except PlatformProblem as error:
                    if _is_of_all(error):
                        trouble = error
                    if error.transient and not error.undone:
                        self._unsure.pop(job.name, None)
                        self._unsure[job.name] = None
                    if not error.transient and job.name not in self._unsure:
                        self._forget(job)
                    problems[job.name] = self._not_submitted(job.name, error)
                except EvflowError as error:
                    problems[job.name] = PlatformProblem(error.message, error.hint)

        # Those at which the server failed last come last: it may be for what they are, and the others are not asked for then.
        failed = {name: number for number, name in enumerate(self._unsure)}
        jobs = sorted(jobs, key=lambda job: failed.get(job.name, -1))
        probes = 1 if self._in_trouble else 0
        for job in jobs[:probes]:
            await one(job)
        async with anyio.create_task_group() as group:
            for job in jobs[probes:]:
                group.start_soon(one, job)
        self._in_trouble = trouble is not None
        return problems

    def _not_submitted(self, name: str, problem: PlatformProblem) -> PlatformProblem:
        """A problem of a job: a refusal says nothing of a submit before it that was not answered."""
        if not problem.transient or not problem.undone or name not in self._unsure:
            return problem
        return PlatformProblem(problem.message, problem.hint, transient=True, retry_after_s=problem.retry_after_s)

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        """Which of these Jobs exist, in the namespaces that the steps of their runs ask for."""
        await self._ready()
        wanted = set(names)
        found: dict[str, JobSeen] = {}
        for namespace in dict.fromkeys([self._operator.namespace, *map(self._namespace_of, asked)]):
            self._heed(namespace)
            jobs = await self._jobs_in(namespace, wanted - found.keys(), gangs)
            pods: dict[str, dict[str, Any]] = {}
            for job in jobs.values():
                self._select(part(part(job, "metadata"), "labels"))
            for name in jobs.keys() & gangs.keys():
                self._know_gang(name, gangs[name], namespace).fallen |= has_failed(jobs[name])
            if jobs:
                for pod in (await self._api.items(path_of(namespace=namespace, kind="pods"), self._selector))[0]:
                    pods[self._name_of(pod)] = lean(pod)
            for job_name, job in jobs.items():
                for name in wanted.intersection(gangs.get(job_name, (job_name,))):
                    known = self._know(name, namespace)
                    known.is_made = True
                    known.pod = pods.get(name, known.pod)
                    found[name] = self._jobs_state(name, job, known)
        return found

    def watch(self) -> AsyncGenerator[JobSeen]:
        """Each change of each Job of the log."""
        return self._watch()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """Delete a Job and its pod: SIGTERM, and SIGKILL after the grace."""
        await self._ready()
        known = self._know(name, self._known[name].namespace if name in self._known else self._operator.namespace)
        known.ending = True
        diagnostics.debug("a Job of Kubernetes is deleted", job=name, why=why)
        gang = known.gang
        if gang is None:
            await self._api.delete("jobs", known.namespace, name, {"propagationPolicy": "Background"})
        else:
            await anyio.lowlevel.checkpoint()  # who ends a gang ends all nodes in a row
            if not (gang.deleted or gang.failed) and all(self._is_ending(node) for node in gang.nodes):
                gang.deleted = True
                try:
                    await self._api.delete("jobs", known.namespace, known.job, {"propagationPolicy": "Background"})
                except PlatformProblem:
                    gang.deleted = False
                    raise
        pods = [known.pod] if known.pod is not None else (await self._api.items(*self._pods_of(known.job, known.namespace)))[0]
        pods = [pod for pod in pods if self._name_of(pod) == name]
        for pod in pods:
            known.pod = pod
            # The Job's deletion takes its pods along with the grace that they have; ours may be shorter.
            grace = {"gracePeriodSeconds": max(1, round(grace_s))}
            await self._api.delete("pods", known.namespace, pod["metadata"]["name"], grace)
        if not pods:
            await self._tell(name, known, PodSeen("ended", EXITED))

    def logs(self, name: str) -> AsyncGenerator[LogText]:
        """What its container prints, as it comes; where the connection is cut it goes on behind the last line."""
        return output.followed(self._api, name, lambda: self._known.get(name), self._change)

    async def log_tail(self, name: str, lines: int) -> str:
        """The last lines of its container; the message of its end where there is no log any more."""
        known = self._known.get(name)
        return "" if known is None or known.pod is None else await output.tail(self._api, name, known.pod, lines)

    async def aclose(self) -> None:
        """Stop watching. Jobs go on, but those whose attempts are over: their deletion is under way, and gets a moment."""
        if self._deletions:
            await asyncio.wait(self._deletions, timeout=LAST_DELETIONS_S)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._seen.put_nowait(None)
        if self._connected is not None:
            await self._connected[0].aclose()

    # --- submitting ------------------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> None:
        namespace, manifest = self._namespace_of(job.asked), manifest_of(job, self._operator, self._api.server)
        self._heed(namespace)
        gang = self._know_gang(job.name, [node.name for node in job.nodes], namespace) if job.nodes else None
        made = [self._know(name, namespace) for name in ((job.name,) if gang is None else gang.nodes)]
        try:
            await self._api.call("POST", path_of(namespace=namespace, kind="jobs"), {"fieldValidation": "Strict"}, manifest, unread=True)
        except CallRefused as error:
            if error.status != 409 or error.transient:
                raise
        for known in made:
            known.is_made = True
            known.since = known.asked_at = anyio.current_time()

    def _forget(self, job: Job) -> None:
        """There is no such Job, and will be none; nodes that are there as Jobs of their own are being ended."""
        self._gangs.pop(job.name, None)
        for name in _names(job):
            if name in self._known and not self._known[name].ending:
                del self._known[name]

    async def _submit_gang(self, job: Job) -> None:
        """As one Job; else as one for each node, of which a refusal leaves none."""
        if self._api.server.has(INDEXED_SINCE):
            await self._submit(job)
            return
        if not self._told_of_gangs:
            self._told_of_gangs = True
            version = ".".join(map(str, self._api.server.version))
            self.on_notice(f"Kubernetes {version} has no Indexed Jobs that can be relied on: each node of a gang is a Job of its own.")
        there: list[str] = []
        try:
            for node in job.nodes:
                await self._submit(node)
                there.append(node.name)
        except PlatformProblem as error:
            if not error.transient:
                for name in there:
                    self._know(name, self._namespace_of(job.asked)).ending = True
                    self._away(self._known[name])
            elif there and error.undone:  # some are there, so it is not as if nothing had been done
                raise PlatformProblem(error.message, error.hint, transient=True, retry_after_s=error.retry_after_s) from error
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
        seen: set[str] | None = set()  # before the first list is whole
        async for event in pod_events(self._api, namespace, self._selector, self._tell_trouble):
            if event.kind == "listed":
                if seen is not None:
                    await self._gone_before(namespace, seen)
                    seen = None
                await self._missed(namespace)
            else:
                if seen is not None:
                    seen.add(event.pod["metadata"]["uid"])
                await self._pod(namespace, event)

    async def _gone_before(self, namespace: str, seen: set[str]) -> None:
        """What `find` saw and the first list of the watch does not have was deleted in between: no event will tell of it."""
        for name, known in list(self._known.items()):
            if known.namespace == namespace and not known.ended and known.pod is not None and known.pod["metadata"]["uid"] not in seen:
                if known.ending:
                    await self._tell(name, known, known.by_pod(known.pod, gone=True))
                else:
                    known.pod = None  # its Job is asked

    def _tell_trouble(self, why: str) -> None:
        self.on_notice(f"{why} It is waited for; tasks that run go on meanwhile.")

    async def _pod(self, namespace: str, event: PodEvent) -> None:
        pod = event.pod
        name = self._name_of(pod)
        known = self._know(name, namespace)
        if known.gang is not None and known.ended and not self._is_over_for_all(known.gang):
            return  # what becomes of its pods says nothing about the others
        if known.pod is not None and known.pod["metadata"]["uid"] != pod["metadata"]["uid"] and known.ended:
            self._away(known)  # another pod of a Job whose attempt is over
            return
        known.pod = pod
        seen = known.by_pod(pod, gone=event.kind == "gone", tells_disruptions=self._api.server.has(DISRUPTIONS_SINCE))
        await self._tell(name, known, seen)
        if seen.phase != "ended" or known.ending or (seen.verdict is not None and seen.verdict.code == GANG_ENDED):
            return
        if event.kind == "gone" and known.gang is not None and self._api.server.has(FAILURE_POLICY_SINCE):
            return  # its Job fails of that, and stays to be looked at
        if event.kind == "gone" or part(pod, "status").get("phase") == "Pending":
            self._away(known)  # a Job of an older server makes another pod for one that is gone, and a pull is tried for ever
        elif part(pod, "status").get("phase") == "Running" and (known.gang is None or self._is_over_for_all(known.gang)):
            self._spawn(self._away_later(known))

    async def _away_later(self, known: Known) -> None:
        """Delete a Job whose pod lives on behind our container: it has a sidecar. A kubelet may tell of the pod's end a moment later."""
        await anyio.sleep(SIDECAR_S)
        if known.pod is not None and part(known.pod, "status").get("phase") == "Running":
            self._away(known)

    async def _missed(self, namespace: str) -> None:
        """After a list: what is known and has no pod in it has ended meanwhile, or waits for its pod."""
        await self._ask(
            name
            for name, known in self._known.items()
            if known.namespace == namespace and not known.ended and known.is_made and known.pod is None
        )

    async def _look(self) -> None:
        """Ask for Jobs that have no pod, and give up pods that have waited for too long."""
        while True:
            await anyio.sleep(LOOK_S)
            now = anyio.current_time()
            podless: list[str] = []
            slow: list[Known] = []
            for name, known in self._known.items():
                if known.ended or now - known.asked_at < PODLESS_S:
                    continue
                if known.pod is None:
                    if known.is_made:
                        known.asked_at = now
                        podless.append(name)
                elif known.told is not None and known.told.phase == "waiting" and is_silent(known.pod):
                    slow.append(known)
            await self._ask(podless)
            for known in sorted(slow, key=lambda known: known.asked_at)[:SLOW_AT_ONCE]:
                known.asked_at = now
                known.slow = await why_slow(self._api, known.pod or {}, known.slow)
            for name, known in list(self._known.items()):
                await self._wait_longer(name, known)

    async def _wait_longer(self, name: str, known: Known) -> None:
        """Say why a pod waits, where only an event does, and give up one that has waited for too long."""
        if known.ended or known.pod is None or known.told is None or known.told.phase != "waiting":
            return
        seen = known.by_pod(known.pod)
        if known.slow and is_silent(known.pod):
            seen = PodSeen("waiting", note=known.slow, code="container-broken")
            await self._tell(name, known, seen)
        seen = overdue(seen, anyio.current_time() - known.since, self._operator.patience_s)
        if seen.phase == "ended":
            await self._tell(name, known, seen)
            self._away(known)

    async def _ask(self, names: Iterable[str]) -> None:
        """Have Jobs speak for themselves, and for those of their nodes that have no pod."""
        of_job: dict[str, dict[str, Known]] = {}
        for name in list(names):
            known = self._known[name]
            of_job.setdefault(known.job, {})[name] = known
        for job_name, nodes in of_job.items():
            await self._ask_job(job_name, nodes)

    async def _ask_job(self, job_name: str, nodes: Mapping[str, Known]) -> None:
        first = next(iter(nodes.values()))
        is_late = anyio.current_time() - first.since >= PODLESS_S  # else its submit may be on its way
        note = ""
        try:
            job = await self._api.call("GET", path_of(namespace=first.namespace, kind="jobs", name=job_name))
            is_gone = False
            if is_late and first.by_job(job) is None:
                note = await why_podless(self._api, first.namespace, job_name)
        except CallRefused as error:
            if error.status != 404 or not is_late:
                diagnostics.debug("a Job cannot be asked for", job=job_name, why=error.message)
                return
            job, is_gone = {"metadata": {"name": job_name}}, True
        except PlatformProblem as error:
            diagnostics.debug("a Job cannot be asked for", job=job_name, why=error.message)
            return
        if not is_gone and await self._told_by_pod(job_name, first, job):
            return
        for name, known in nodes.items():
            if known.pod is None:  # none has come meanwhile
                await self._tell(name, known, known.by_job(job, gone=is_gone) or PodSeen("waiting", note=note))

    async def _told_by_pod(self, job_name: str, known: Known, job: Mapping[str, Any]) -> bool:
        """Where a Job has ended, have its pod speak for it, which says more, and of which the watch may not have told yet."""
        seen = known.by_job(job)
        if known.gang is not None or known.pod is not None or seen is None or seen.phase != "ended":
            return False
        try:
            pods, _ = await self._api.items(*self._pods_of(job_name, known.namespace))
        except PlatformProblem as error:
            diagnostics.debug("the pods of a Job cannot be asked for", job=job_name, why=error.message)
            return True  # it is asked again
        if pods:
            await self._pod(known.namespace, PodEvent("seen", pods[-1]))
        return bool(pods)

    def _jobs_state(self, name: str, job: Mapping[str, Any], known: Known) -> JobSeen:
        """A Job as its pod, or else it itself, says."""
        seen = known.by_pod(known.pod) if known.pod is not None else known.by_job(job) or PodSeen("waiting")
        made = job_seen(name, known.pod or job, seen, known.namespace)
        self._note(name, known, made)
        return made

    def _note(self, name: str, known: Known, made: JobSeen) -> None:
        if made.phase == "ended" and not known.ended and known.gang is None:
            self._ended.append(name)
            while len(self._ended) > ENDED_KEPT:  # the last ones are there for those who read their logs
                former = self._ended.popleft()
                if former in self._known and self._known[former].ended:
                    del self._known[former]
        known.ended = made.phase == "ended"
        known.told = made
        if known.gang is not None and is_bad(made):
            known.gang.fallen = True
            known.gang.failed |= not known.ending

    async def _tell(self, name: str, known: Known, seen: PodSeen | None) -> None:
        if seen is None or known.ended:
            return
        made = job_seen(name, known.pod or {}, seen, known.namespace)
        changed = made != known.told
        self._note(name, known, made)
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

    def _know(self, name: str, namespace: str) -> Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(name, namespace, anyio.current_time())
        return known

    def _know_gang(self, name: str, nodes: Sequence[str], namespace: str) -> Gang:
        gang = self._gangs.get(name)
        if gang is None:
            gang = self._gangs[name] = Gang(name, nodes)
            for node in nodes:
                self._known[node] = Known(name, namespace, anyio.current_time(), gang)
        return gang

    def _name_of(self, pod: Mapping[str, Any]) -> str:
        """Whose pod it is: the name of a node, or of a Job by itself."""
        job, index = job_of(pod), index_of(pod)
        gang = self._gangs.get(job)
        return job if gang is None or index is None or index >= len(gang.nodes) else gang.nodes[index]

    def _is_ending(self, name: str) -> bool:
        known = self._known.get(name)
        return known is None or known.ending or known.ended

    def _is_over_for_all(self, gang: Gang) -> bool:
        return gang.fallen or all(known is None or known.ended for known in map(self._known.get, gang.nodes))

    async def _jobs_in(self, namespace: str, wanted: set[str], gangs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
        """The Jobs of a namespace that have these names, and those of gangs that have such nodes."""
        names = wanted | {gang for gang, nodes in gangs.items() if wanted.intersection(nodes)}
        return await self._api.jobs(namespace, names, self._selector)

    def _pods_of(self, name: str, namespace: str) -> tuple[str, str]:
        return path_of(namespace=namespace, kind="pods"), f"job-name={name}"

    def _away(self, known: Known) -> None:
        """Delete a Job whose attempt is over."""
        if known.gang is not None:
            if known.gang.deleted:
                return
            known.gang.deleted = True
        # That one, and none that has been made under its name since.
        uid = next((str(owner.get("uid")) for owner in rows(part(known.pod or {}, "metadata"), "ownerReferences")), "")
        options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}

        async def delete() -> None:
            async with self._hands:
                for _ in range(3):
                    try:
                        await self._api.delete("jobs", known.namespace, known.job, options)
                    except CallRefused as error:
                        if error.status == 409:
                            return
                    except PlatformProblem as error:
                        diagnostics.debug("a Job of Kubernetes cannot be deleted yet", job=known.job, why=error.message)
                    else:
                        return
                    await anyio.sleep(LOOK_S)

        deletion = self._spawn(delete())
        self._deletions.add(deletion)
        deletion.add_done_callback(self._deletions.discard)

    async def _change(self) -> None:
        await self._changed.wait()  # a pod's change, or whoever waits is cancelled

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._error = error
                self._seen.put_nowait(None)

        task.add_done_callback(done)
        return task


def _names(job: Job) -> Sequence[str]:
    """Under which it is seen and ended."""
    return [node.name for node in job.nodes] or [job.name]


def _is_of_all(problem: PlatformProblem) -> bool:
    """Whether the next call meets the same: the server is away or throttles. What it refuses, a full quota say, is one Job's alone."""
    return problem.transient and (not isinstance(problem, CallRefused) or problem.is_throttle or problem.status >= 500)
