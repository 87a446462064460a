"""The attempts of an executor that are in flight: launched or adopted, and not observed to end.

Who submits, ends and watches them does so on one record of each, `records.Out`. It is there from `put` or `adopt` to `over`, which tells the attempt's end;
so whoever has waited for something looks first whether the record is still there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.ids import AttemptId
from evflow.log.said_waits import Waits
from evflow.worker.spec import AttemptOrder
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import Observation
from evflow_executors.remote.names import gang_name, job_name
from evflow_executors.remote.records import Dispatch, Gang, Out
from evflow_executors.remote.storeless import Storeless
from evflow_executors.remote.tasks import Tasks
from evflow_executors.remote.unstarted import Unstarted


class InFlight:
    """The attempts that are in flight, and the gangs that they are of.

    Args:
        executor: The executor's name.
        dispatch: What the owner knows.
        tasks: The executor's tasks.
        seen: Where the ends are told.
        waits: Hears which runs wait for their store, and whose jobs do not start.

    Attributes:
        storeless: Which of them wait for their store.
        unstarted: Which of them have a job that does not start, or that is not taken.
    """

    def __init__(self, executor: str, dispatch: Dispatch, tasks: Tasks, seen: MergedStream, waits: Waits) -> None:
        self._dispatch = dispatch
        self._tasks = tasks
        self._seen = seen
        self._outs: dict[str, Out] = {}
        self._names: dict[AttemptId, str] = {}
        self._gangs: dict[str, Gang] = {}  # by the names of their nodes
        self.storeless = Storeless(executor, waits, self._outs)
        self.unstarted = Unstarted(executor, waits)

    @property
    def attempts(self) -> Collection[AttemptId]:
        """All of them, as they are at each look."""
        return self._names.keys()

    @property
    def outs(self) -> Mapping[str, Out]:
        """Their records by name, as they are at each look."""
        return self._outs

    def name_of(self, attempt: AttemptId) -> str:
        """What an attempt is called on the platform, in flight or not."""
        return job_name(self._dispatch.log_of(attempt), attempt)

    def of(self, attempt: AttemptId) -> Out | None:
        """The record of an attempt; None where it is not in flight."""
        name = self._names.get(attempt)
        return None if name is None else self._outs[name]

    def put(self, attempt: AttemptId, order: AttemptOrder) -> Out:
        """Begin the record of an attempt that is launched."""
        return self._put(self.name_of(attempt), attempt, order)

    def adopt(self, attempts: Mapping[str, AttemptId], kept: Collection[str]) -> None:
        """Begin the records of a former owner's attempts that are kept; a gang none of whose nodes is kept is forgotten.

        Args:
            attempts: All that were asked for, by name.
            kept: The names of those that are kept.
        """
        for name in attempts.keys() - kept:
            if (gang := self._gangs.get(name)) is not None and not any(node in kept for node in gang.nodes):
                del self._gangs[name]
        for name in kept:
            self._put(name, attempts[name], None)

    def know_gangs(self, gangs: Iterable[Sequence[AttemptId]]) -> None:
        """Learn which attempts are gangs, before their records begin; each from node 0 on."""
        for nodes in gangs:
            names = [self.name_of(attempt) for attempt in nodes]
            whole = gang_name(self._dispatch.log_of(nodes[0]), nodes[0])
            self._gangs.update(dict.fromkeys(names, Gang(whole, nodes[0], names)))

    def gangs_of(self, names: Collection[str]) -> Mapping[str, Sequence[str]]:
        """The gangs that these names are nodes of, each by its name with those of all of its nodes."""
        return {gang.name: gang.nodes for name in names if (gang := self._gangs.get(name)) is not None}

    async def over(self, name: str, event: AttemptExited | AttemptFailed) -> None:
        """Tell an attempt's end; nothing where that was told."""
        out = self._outs.pop(name, None)
        if out is not None:
            del self._names[out.attempt]
            await self.storeless.end(out)
            self.unstarted.note(out.attempt, "")
            if out.gang is not None:
                self._part(out.gang, name)
            await self._seen.put(Observation(out.attempt, event))

    async def never_started(self, name: str, why: str = "") -> None:
        """Tell of an attempt that it ended before it began; `why`, where there is more to say, for people."""
        out = self._outs.get(name)
        if out is not None:
            text = f"never-started: {why}" if why else "never-started"
            await self.over(name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, text))

    def _put(self, name: str, attempt: AttemptId, order: AttemptOrder | None) -> Out:
        gang = self._gangs.get(name)
        out = self._outs[name] = Out(name, attempt, order, gang)
        self._names[attempt] = name
        if gang is not None:
            gang.left.add(name)
        return out

    def _part(self, gang: Gang, node: str) -> None:
        """A node has ended; behind the last one nobody asks for the gang any more."""
        gang.left.discard(node)
        if not gang.left:
            for name in gang.nodes:
                self._gangs.pop(name, None)
            self._tasks.do(self._dispatch.forget_gang(gang.control))
