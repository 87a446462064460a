"""What the scheduler asks of an executor.

Intent comes before act: the decision to launch, with the attempt's deterministic name, is durable before
`launch` is called. So after a crash the new owner asks `adopt` what exists, and submits only what does not.
One contract suite runs over every executor, the simulated one included.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Protocol, runtime_checkable

from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted, EnvironmentReady
from evflow.core.ids import AttemptId
from evflow.core.values import value
from evflow.worker.spec import AttemptOrder


@value
class Observation:
    """Something that an executor saw of an attempt; `event` becomes a fact of the run's log.

    `AttemptFailed` is an attempt that could not begin, for a reason of the flow's own, such as code that cannot be had.
    """

    attempt: AttemptId
    event: AttemptStarted | AttemptFailed | AttemptExited | EnvironmentReady

    @property
    def is_end(self) -> bool:
        """Whether the attempt has ended with it."""
        return isinstance(self.event, AttemptFailed | AttemptExited)


@value
class OutputLine:
    """A line that an attempt printed, for the live view; the captured log is written elsewhere.

    `pid` is the attempt's process, 0 where the executor does not know it.
    """

    attempt: AttemptId
    stream: str
    at_us: int
    text: str
    pid: int = 0


class Executor(Protocol):
    """Starts, watches and ends attempts somewhere."""

    name: str

    @property
    def running(self) -> Collection[AttemptId]:
        """The attempts that were launched and have not been observed to exit."""
        ...

    async def launch(self, attempt: AttemptId, order: AttemptOrder) -> None:
        """Start an attempt under its name; a second call for the same name changes nothing.

        Returns when the order is handed over, not when the process exists. A launch that fails is
        observed as an `AttemptExited` with the reason, never raised for one attempt.
        """
        ...

    async def cancel(self, attempt: AttemptId, *, grace_s: float) -> None:
        """Ask the attempt to end, and kill its whole group after `grace_s`. Unknown names are ignored."""
        ...

    def watch(self) -> AsyncIterator[Observation | OutputLine]:
        """What happens, in order, until the executor is closed.

        Every attempt that was launched is observed to exit exactly once.
        """
        ...

    async def adopt(self, attempts: Sequence[AttemptId]) -> Sequence[AttemptId]:
        """Which of these attempts of a former owner still exist, and are watched from now on.

        Those that have started are observed to start once more: the former owner may have died before the log had it, and
        a timeout counts from there.
        """
        ...

    async def aclose(self) -> None:
        """End everything that this executor started."""
        ...


@runtime_checkable
class GangExecutor(Protocol):
    """What an executor has besides, for which the nodes of a gang are one thing: one submit, under one name.

    Others are told of each node by itself, one right after the other.
    """

    async def launch_gang(self, nodes: Sequence[tuple[AttemptId, AttemptOrder]]) -> None:
        """Start the nodes of a gang, in their order, as `Executor.launch`; all of them are started, or none is.

        From then on each node is an attempt like any other: it is observed, and can be cancelled, by itself.
        """
        ...

    def know_gangs(self, gangs: Iterable[Sequence[AttemptId]]) -> None:
        """Learn which attempts a former owner launched together: before `adopt`, since they are found under the gang's name.

        Args:
            gangs: The nodes of each, in their order, those that have ended among them.
        """
        ...
