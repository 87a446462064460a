"""A host that runs the commands of containers as local processes, and the plainest platform over it.

Faked: there is no image and no isolation; the process has the host's files, a folder of its own as HOME and EVFLOW_HOME, and of the environment
only what the job says, and a PATH on which this interpreter is `python3`. Not faked: the command, SIGTERM and SIGKILL after the grace, exit codes
(128 + n for signals), output as one stream. Jobs outlive the platforms that look at them, as real ones outlive their owners.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from evflow.clock import now_us
from evflow_executors.remote.names import LABELS
from evflow_executors.remote.platform import NO_GANGS, Job, JobSeen, LogText, PlatformProblem
from evflow_executors.remote.verdicts import EXITED, Verdict


@dataclass
class Process:
    """A container of a job."""

    process: subprocess.Popen[bytes]
    output: Path
    on_end: Callable[[int], None]
    kill_at_s: float = inf

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class ContainerHost:
    """Runs commands.

    Args:
        root: A folder for what containers write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0
        self._running: list[Process] = []
        self._reaper = asyncio.create_task(self._reap())

    async def start(self, argv: Sequence[str], env: Mapping[str, str], on_end: Callable[[int], None]) -> Process:
        """Start a command; `on_end` hears its exit code."""
        self._count += 1
        home = self._root / f"container-{self._count}"
        output = home / "output"
        path = os.pathsep.join((str(Path(sys.executable).parent), os.defpath))
        variables = {"PATH": path, "HOME": str(home), "EVFLOW_HOME": str(home / "evflow"), "TMPDIR": str(home), **_of_tests(), **env}
        started = Process(await anyio.to_thread.run_sync(_start, argv, variables, home, output), output, on_end)
        self._running.append(started)
        return started

    async def end(self, process: Process, grace_s: float) -> None:
        """SIGTERM, then SIGKILL."""
        process.signal(signal.SIGTERM)
        process.kill_at_s = min(process.kill_at_s, anyio.current_time() + grace_s)

    async def aclose(self) -> None:
        """Kill what is left."""
        self._reaper.cancel()
        await asyncio.wait([self._reaper])
        for process in self._running:
            process.signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(process.process.wait)

    async def _reap(self) -> None:
        """No event says that a process of `subprocess` has ended: look at all of them."""
        while True:
            await asyncio.sleep(0.005)
            for process in list(self._running):
                if anyio.current_time() >= process.kill_at_s:
                    process.signal(signal.SIGKILL)
                code = process.process.poll()
                if code is not None:
                    process.signal(signal.SIGKILL)  # its group: a container's end is the end of all in it
                    self._running.remove(process)
                    process.on_end(code if code >= 0 else 128 - code)


def _start(argv: Sequence[str], variables: Mapping[str, str], home: Path, output: Path) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True)
    with output.open("wb") as file:
        return subprocess.Popen(argv, env=variables, cwd=home, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


def _of_tests() -> dict[str, str]:
    """What the leak checker of the tests knows its processes by."""
    return {name: text for name, text in os.environ.items() if name.startswith("EVFLOW_TEST_")}


@dataclass
class Faults:
    """What goes wrong with the next calls: each list is used up from its front.

    Attributes:
        submits: For each submit what is raised instead of it, or None. With `lost` set the job is submitted all the same.
        lost: The submits that fail have been carried out: their answers were lost.
        away: The platform does not answer at all.
        verdicts: What becomes of a job by name, whatever its process does.
    """

    submits: list[PlatformProblem | None] = field(default_factory=list[PlatformProblem | None])
    lost: bool = False
    away: bool = False
    verdicts: dict[str, Verdict] = field(default_factory=dict[str, Verdict])


class PlainService:
    """The service behind the platform: the jobs of all its users."""

    def __init__(self, host: ContainerHost) -> None:
        self.host = host
        self.faults = Faults()
        self.jobs: dict[str, JobSeen] = {}
        self.submitted: list[str] = []
        self.terminated: list[str] = []
        self._processes: dict[str, Process] = {}
        self._changed = asyncio.Event()

    async def submit(self, job: Job) -> None:
        problem = self.faults.submits.pop(0) if self.faults.submits else None
        if problem is not None and not self.faults.lost:
            raise problem
        if job.name not in self.jobs:
            self.submitted.append(job.name)
            self._set(JobSeen(job.name, "waiting", epoch=int(job.labels[LABELS[2]]), labels=job.labels))
            process = await self.host.start(job.command.argv, job.command.env, lambda code: self.ended(job.name, code))
            self._processes[job.name] = process
            if self.jobs[job.name].phase != "ended":
                self._set(replace(self.jobs[job.name], phase="running", host="host-1", started_us=now_us()))
        if problem is not None:
            raise problem

    def ended(self, name: str, code: int | None, verdict: Verdict | None = None) -> None:
        self._set(replace(self.jobs[name], phase="ended", exit_code=code, verdict=verdict or self.faults.verdicts.get(name, EXITED)))

    async def terminate(self, name: str, grace_s: float) -> None:
        self.terminated.append(name)
        if (process := self._processes.get(name)) is not None:
            await self.host.end(process, grace_s)

    def kill(self, name: str) -> None:
        """Kill a job's process, as a host does that has no memory left."""
        self._processes[name].signal(signal.SIGKILL)

    def stop(self, name: str) -> None:
        """What a platform does to a job whose host goes away: SIGTERM."""
        self._processes[name].signal(signal.SIGTERM)

    def output(self, name: str) -> str:
        process = self._processes.get(name)
        return process.output.read_text() if process is not None else ""

    async def change(self) -> None:
        await self._changed.wait()

    def _set(self, seen: JobSeen) -> None:
        self.jobs[seen.name] = seen
        self._changed.set()
        self._changed = asyncio.Event()


class PlainPlatform:
    """A platform over the service, for one owner; it sees all jobs, as a watch of Kubernetes does."""

    def __init__(self, service: PlainService, name: str = "plain") -> None:
        self.name = name
        self.together = 0
        self._service = service
        self._closed = asyncio.Event()

    def _ask(self) -> None:
        if self._service.faults.away:
            raise PlatformProblem("The platform is away.", transient=True)

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        problems: dict[str, PlatformProblem] = {}
        for job in jobs:
            try:
                self._ask()
                await self._service.submit(job)
            except PlatformProblem as problem:
                problems[job.name] = problem
        return problems

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        del asked, gangs
        self._ask()
        return {name: self._service.jobs[name] for name in names if name in self._service.jobs}

    async def watch(self) -> AsyncIterator[JobSeen]:
        told: dict[str, JobSeen] = {}
        while not self._closed.is_set():
            if not self._service.faults.away:
                for name, seen in list(self._service.jobs.items()):
                    if told.get(name) != seen:
                        told[name] = seen
                        yield seen
            with anyio.move_on_after(0.05):
                await self._service.change()

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        del why
        self._ask()
        await self._service.terminate(name, grace_s)

    async def logs(self, name: str) -> AsyncIterator[LogText]:
        sent = 0
        while True:
            ended = self._service.jobs[name].phase == "ended"
            text = await anyio.to_thread.run_sync(self._service.output, name)
            whole = text if ended else text[: text.rfind("\n") + 1]
            for line in whole[sent:].splitlines():
                yield LogText(now_us(), line)
            sent = len(whole)
            if ended:
                return
            await asyncio.sleep(0.02)

    async def log_tail(self, name: str, lines: int) -> str:
        return "\n".join((await anyio.to_thread.run_sync(self._service.output, name)).splitlines()[-lines:])

    async def aclose(self) -> None:
        self._closed.set()
