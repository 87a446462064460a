"""What a platform of containers has to be able to do: AWS Batch, Kubernetes, the one of the tests.

A platform knows jobs by their names (`names.job_name`) and nothing of attempts' states, logs and reports: that is the executor's. It never
retries on its own: it says whether a repeat may help, and the executor repeats within its rate.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, runtime_checkable

from evflow.core.ids import AttemptId, RunId
from evflow.core.values import field, value
from evflow.errors import EnvironmentProblem
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.verdicts import EXITED, Verdict

Phase = Literal["waiting", "running", "ended"]

NO_GANGS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


class PlatformProblem(EnvironmentProblem):
    """A platform did not do what it was asked for.

    Attributes:
        transient: A repeat may help, without anybody changing anything.
        undone: Nothing was done: it refused, as where it asks for fewer calls, was not asked at all, or not reached.
        retry_after_s: For how long it asked for none, in seconds; 0 where it said nothing.
    """

    code = "platform-problem"

    def __init__(self, message: str, hint: str = "", *, transient: bool = False, undone: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint)
        self.transient = transient
        self.undone = undone
        self.retry_after_s = retry_after_s


@value
class Job:
    """What a platform is to run.

    Attributes:
        name: Its name there, which is the attempt's alone.
        attempt: The attempt.
        step: Its step.
        asked: What the step's decorator asks for, merged with `@resources`: `Policy.asked`.
        command: What its container runs.
        labels: What it carries (`names.labels`).
        timeout_s: How long it may run, for the platform to end what nobody else does; 0 for no limit.
        nodes: Of a gang: its nodes by index, each with the name under which it is seen and ended. The gang's command runs in all of them, and finds
            its index in JOB_COMPLETION_INDEX; a platform that has no such jobs submits the nodes as jobs.
    """

    name: str
    attempt: AttemptId
    step: str
    asked: Mapping[str, Any]
    command: ContainerCommand
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 0.0
    nodes: Sequence["Job"] = ()


@value
class JobSeen:
    """A job as its platform knows it now.

    Attributes:
        name: Its name.
        phase: `waiting` (submitted, scheduled, its image is pulled), `running`, `ended`.
        verdict: Of one that ended: what that means.
        exit_code: Of one that ended: its container's, 128 + n where signal n ended it; None where it had none.
        message: Why it waits, for people; an empty string where that is usual.
        host: Where it runs, as the platform calls it.
        started_us: When its container started; 0 where that is not known.
        epoch: Of the owner who submitted it (its label).
        place: Where people find it: an id, an ARN, a page.
        labels: What it carries.
        reads: Digests of what its container will read first (`command.objects_read`), as far as the platform shows that.
    """

    name: str
    phase: Phase
    verdict: Verdict = EXITED
    exit_code: int | None = None
    message: str = ""
    host: str = ""
    started_us: int = 0
    epoch: int = 0
    place: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    reads: frozenset[bytes] = frozenset()


@value
class LogText:
    """A line that a container printed."""

    at_us: int
    text: str


class Sheets(Protocol):
    """Where sheets are; see `remote.owner.OwnerDispatch`."""

    async def write_sheet(self, run: RunId, members: Sequence[str], own: Sequence[Mapping[str, str]]) -> bytes:
        """Store one; its digest.

        Raises:
            StoreFull, StoreUnusable: The store does not take it.
        """
        ...

    async def sheet_members(self, prefix: str, digest: bytes, size: int) -> Sequence[str] | None:
        """The members of a sheet; None where the run with this prefix is not known here, or the sheet is gone.

        Raises:
            StoreUnusable: The store cannot be read.
        """
        ...


class Platform(Protocol):
    """A platform, for one owner of runs.

    Attributes:
        name: Its name.
        together: So many jobs of one step, or more, cost less when they are submitted together; the executor waits a moment for more of them. 0: never.
    """

    name: str
    together: int

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """Submit jobs; one whose name is there already is left as it is. Of a gang all nodes are, or none will be.

        Returns:
            What was not submitted, by name, each with its reason. Where the answer to a submit was lost it is among them, as transient:
            the repeat finds out first whether the job is there.
        """
        ...

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        """Which of these jobs exist, or have ended and are known still; they are watched from now on.

        Args:
            names: The jobs.
            asked: What the steps of their runs ask for (`Policy.asked`): the queues or namespaces in which the jobs may be.
            gangs: Names of gangs, and of their nodes by index: some of the jobs may be nodes of these.

        Raises:
            PlatformProblem: It cannot be asked.
        """
        ...

    def watch(self) -> AsyncIterator[JobSeen]:
        """Each change of each job that was submitted or found, until `aclose`; the last of a job is `ended`, and comes at least once.

        A platform that sees all jobs of a log at once tells those of other owners, too: the executor knows which are strays.
        It waits for a platform that is away, without an end.
        """
        ...

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """End a job: SIGTERM, and SIGKILL after the grace, as far as the platform lets us choose it. One that is over is ignored.

        Raises:
            PlatformProblem: It was not told.
        """
        ...

    def logs(self, name: str) -> AsyncIterator[LogText]:
        """What a job prints, from its first line, as it comes; ends when the job has ended and all was read.

        Raises:
            PlatformProblem: There is no reading it.
        """
        ...

    async def log_tail(self, name: str, lines: int) -> str:
        """The last lines of a job that ended; empty where there are none to be had. Never raises for a log that is not there."""
        ...

    async def aclose(self) -> None:
        """Stop watching. Jobs go on."""
        ...


@runtime_checkable
class Outspoken(Protocol):
    """A platform that has something to say to people beside what it says of jobs: that its service is away, or lacks something.

    Attributes:
        on_notice: Hears it.
    """

    on_notice: Callable[[str], None]
