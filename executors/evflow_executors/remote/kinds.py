"""The platforms that there are, by the name that steps have for them: a module each, which is imported by runs that use it.

Such a module has `platform()`, `why_not(asked)`, `secrets()` and `HOW_SECRETS`; see `evflow_executors.batch.start`.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol, cast

from evflow import diagnostics
from evflow.core.ids import RunId
from evflow.errors import EvflowError
from evflow.log.link import Link
from evflow.log.said_waits import UNHEARD, Waits
from evflow.worker.spec import RunContext
from evflow_executors.remote.executor import RemoteExecutor
from evflow_executors.remote.owner import OwnerDispatch
from evflow_executors.remote.platform import NO_GANGS, Job, JobSeen, LogText, Outspoken, Platform, PlatformProblem, Sheets

KINDS: Final = {"batch": "evflow_executors.batch.start", "kubernetes": "evflow_executors.kubernetes.start"}


class Kind(Protocol):
    """What such a module has."""

    HOW_SECRETS: str

    def platform(self, sheets: Sheets | None = None) -> Platform:
        """The platform, as the settings have it; without `sheets` it takes no jobs together."""
        ...

    def why_not(self, asked: Sequence[Mapping[str, Any]]) -> str:
        """Why steps that ask so cannot run there from here, as the rest of "… because"; an empty string where they can. Blocking."""
        ...

    def secrets(self) -> Collection[str]:
        """The variables that the platform takes from its secrets."""
        ...


def kind_of(name: str) -> Kind | None:
    """The module of an executor's name; None where there is none."""
    module = KINDS.get(name)
    if module is None or find_spec(module.rpartition(".")[0]) is None:
        return None
    return cast("Kind", import_module(module))


def remote_executor(
    name: str,
    link: Link,
    shard: str,
    owner: str,
    epoch: Callable[[], int],
    context_of: Callable[[RunId], RunContext],
    *,
    live: bool,
    on_notice: Callable[[str], None] = diagnostics.info,
    waits: Waits = UNHEARD,
) -> RemoteExecutor:
    """The executor of a platform for one owner. Where the platform cannot be used from here, each launch fails, and says why.

    Args:
        name: `batch`, `kubernetes`.
        link: The log; the caller closes it.
        shard: The owner's shard.
        owner: Its name.
        epoch: Its epoch of now.
        context_of: What the attempts of a run share.
        live: Somebody looks at what attempts print.
        on_notice: Hears why jobs wait.
        waits: Hears which runs wait for their store.

    Raises:
        KeyError: There is no such executor.
    """
    kind = kind_of(name)
    if kind is None:
        raise KeyError(name)
    dispatch = OwnerDispatch(link, shard, owner, epoch, context_of, secrets=kind.secrets(), how=kind.HOW_SECRETS)
    try:
        platform = kind.platform(dispatch)
    except EvflowError as error:
        diagnostics.warning("a platform cannot be used", executor=name, why=error.message)
        platform = Unusable(name, error)
    if isinstance(platform, Outspoken):
        platform.on_notice = on_notice
    return RemoteExecutor(platform, dispatch, live=live, on_notice=on_notice, waits=waits)


class Unusable:
    """A platform that cannot be used from here: what it lacks is every job's reason."""

    def __init__(self, name: str, error: EvflowError) -> None:
        self.name = name
        self.together = 0
        self._error = error

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, PlatformProblem]:
        """Refuse all of them."""
        return {job.name: PlatformProblem(self._error.message, self._error.hint) for job in jobs}

    async def find(
        self, names: Sequence[str], asked: Sequence[Mapping[str, Any]], gangs: Mapping[str, Sequence[str]] = NO_GANGS
    ) -> Mapping[str, JobSeen]:
        """It is not known whether they exist: they are not given up.

        Raises:
            PlatformProblem: Always.
        """
        raise PlatformProblem(self._error.message, self._error.hint, transient=True)

    async def watch(self) -> AsyncIterator[JobSeen]:
        """Nothing is seen."""
        nothing: Sequence[JobSeen] = ()
        for seen in nothing:
            yield seen

    async def terminate(self, name: str, why: str, grace_s: float) -> None:
        """Nothing can be ended.

        Raises:
            PlatformProblem: Always.
        """
        raise PlatformProblem(self._error.message, self._error.hint)

    async def logs(self, name: str) -> AsyncIterator[LogText]:
        """Nothing is printed."""
        nothing: Sequence[LogText] = ()
        for line in nothing:
            yield line

    async def log_tail(self, name: str, lines: int) -> str:
        """Nothing."""
        return ""

    async def aclose(self) -> None:
        """Nothing is open."""
