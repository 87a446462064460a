"""The limited names that a shard's attempts and runs hold (`evflow.core.limits`), on the owner's side.

A name is taken before the grant of a slot is written, and given back when the attempt has ended, or the run is sealed. Between two such
acts an owner may die: whoever takes the shard over keeps the names of what runs and gives the others back. A name that is taken is
not asked for again until a word comes that somebody gave it back, or some seconds have passed.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from evflow import diagnostics
from evflow.core import limits
from evflow.core.codec import encode_report
from evflow.core.events import RunCancelRequested
from evflow.core.gangs import lead_of
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.limits import Limit, RunLimit
from evflow.core.line import Rank
from evflow.core.state import RunState, Task
from evflow.log.keys import is_own
from evflow.log.limits import MOST_HOLDERS
from evflow.log.protocol import EventLog, Holder
from evflow_scheduler.run import OWNER, OwnedRun

T = TypeVar("T")
AGAIN_AFTER_S: Final = 5.0
"""How long a refusal is believed without a word: whoever gave the name back may have died before it could say so."""


class NameLog(Protocol):
    """What is needed of the shard's writer."""

    shard: str
    log: EventLog

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Carry out an act that may be repeated."""
        ...


class Refusal(NamedTuple):
    """What came of asking for a name that was not to be had.

    Attributes:
        held: How many held it.
        again_us: When to ask again, if no word comes.
    """

    held: int
    again_us: int


class Names:
    """What a shard's attempts and runs hold.

    Attributes:
        refused: Names that were not to be had when they were last asked for.
        attempts: The attempts that hold any.
    """

    def __init__(self, writer: NameLog) -> None:
        self.refused: dict[str, Refusal] = {}
        self.attempts: set[AttemptId] = set()
        self._writer = writer
        self._table: Mapping[str, int] = {}
        self._held: dict[str, set[str]] = {}
        self._cancelled: set[str] = set()

    # --- when the shard is taken, and when a word comes --------------------------------------------------

    async def begin(self, runs: Iterable[OwnedRun]) -> None:
        """Learn the operator's limits, and what is held: what runs holds its names, nothing else of this shard does."""
        self._table, known = await self._do(self._log.limited)
        wanted: defaultdict[str, list[str]] = defaultdict(list)
        unsealed: set[str] = set()
        for run in runs:
            unsealed.add(str(run.id))
            own = limits.of_run(run.state, self._table)
            if own is not None and _has_begun(run.state):
                wanted[own.limit.name].append(str(run.id))
            for number in run.state.live:
                task = run.state.tasks[number]
                attempt = AttemptId(run.id, TaskId(number), task.attempt.number)
                unsealed.add(str(attempt))
                for limit in limits.of_attempt(run.state, task, self._table):
                    self.attempts.add(attempt)
                    wanted[limit.name].append(str(attempt))
        for name in known:
            for held in await self._do(partial(self._log.holders, name)):
                if held.shard == self._writer.shard:
                    self._held.setdefault(held.name, set()).add(name)
        await self.give_back([holder for holder in self._held if holder not in unsealed])
        for name, holders in wanted.items():
            for first in range(0, len(holders), MOST_HOLDERS):
                part = holders[first : first + MOST_HOLDERS]
                await self._do(partial(self._log.hold, name, self._writer.shard, part))
                for holder in part:
                    self._held.setdefault(holder, set()).add(name)

    @property
    def again_us(self) -> int | None:
        """When what was refused is to be asked for again, whatever is heard; None where nothing was."""
        return min((refusal.again_us for refusal in self.refused.values()), default=None)

    async def look_again(self) -> None:
        """What was refused may be had, and what the operator allows may have changed."""
        self._table = await self._do(self._log.limits)
        self.refused.clear()

    # --- what an attempt needs ---------------------------------------------------------------------------

    def free_for(self, run: OwnedRun, task: Task) -> bool:
        """Whether nothing that the attempt needs was refused lately."""
        if not self.refused:
            return True
        held = self._held.get(str(run.id), ())
        return not any(limit.name in self.refused and limit.name not in held for limit in self._needed(run, task))

    def is_stuck(self, run: OwnedRun) -> RunLimit | None:
        """What keeps a run from its beginning, if other runs hold all of what it needs itself; a place that is kept for one is not held."""
        own = limits.of_run(run.state, self._table)
        if own is None or own.limit.name in self._held.get(str(run.id), ()):
            return None
        refusal = self.refused.get(own.limit.name)
        return own if refusal is not None and refusal.held >= own.limit.most else None

    async def look_ahead(self, runs: Iterable[OwnedRun]) -> bool:
        """Ask in the place of runs that would rather not wait for others at work (`skip`, `cancel`), so that they need no slot to learn of them.

        Returns:
            Whether there are such runs that nobody is in the way of.
        """
        free: set[str] = set()
        for run in runs:
            own = limits.of_run(run.state, self._table)
            if own is None or own.when_busy == "queue" or own.limit.name in self._held.get(str(run.id), ()):
                continue
            if own.limit.name in self.refused or own.limit.name in free:
                continue
            held = await self._do(partial(self._log.holders, own.limit.name))
            rank = Rank(run.state.priority, run.state.started_us)
            if len(held) < own.limit.most or await self._acquire(own.limit, str(run.id), rank):
                free.add(own.limit.name)
        return bool(free)

    async def take(self, runs: Mapping[RunId, OwnedRun], attempts: Iterable[AttemptId]) -> set[AttemptId]:
        """Hold what attempts need, each all of it or nothing; the nodes of a gang, which follow on each other, all of theirs or nothing.

        Returns:
            The attempts that were refused.
        """
        refused: set[AttemptId] = set()
        for (name, _), nodes in groupby(attempts, lambda attempt: (attempt.run, lead_of(runs[attempt.run].state.tasks[attempt.task]))):
            together = list(nodes)
            if await self._take_all(runs[name], together):
                self.attempts.update(attempt for attempt in together if str(attempt) in self._held)
            else:
                refused.update(together)
        return refused

    async def _take_all(self, run: OwnedRun, attempts: Sequence[AttemptId]) -> bool:
        """Hold what these attempts need, or nothing."""
        got: list[tuple[str, str]] = []
        for attempt in attempts:
            for limit in self._needed(run, run.state.tasks[attempt.task]):
                holder = str(run.id if limit.name.startswith("runs:") else attempt)
                if limit.name in self._held.get(holder, ()):
                    continue
                if limit.name in self.refused or not await self._acquire(limit, holder, Rank(run.state.priority, run.state.started_us)):
                    refusal = self.refused[limit.name]
                    for name, other in got:
                        await self._give_back(name, [other])
                    self.refused[limit.name] = (
                        refusal  # of which a gang gave some back: nobody behind it takes those before they are enough
                    )
                    return False
                got.append((limit.name, holder))
        return True

    def too_small(self, run: OwnedRun, task: Task, nodes: int) -> Limit | None:
        """A limit that so many attempts of the task's step can never hold at once, or None."""
        return next((limit for limit in limits.of_attempt(run.state, task, self._table) if limit.most < nodes), None)

    async def give_back(self, holders: Collection[AttemptId | RunId | str]) -> None:
        """Hold nothing more for these."""
        by_name: defaultdict[str, list[str]] = defaultdict(list)
        self.attempts.difference_update(holder for holder in holders if isinstance(holder, AttemptId))
        for holder in map(str, holders):
            for name in self._held.get(holder, ()):
                by_name[name].append(holder)
        for name, each in by_name.items():
            await self._give_back(name, each)

    def taken(self, attempt: AttemptId) -> str:
        """The limited names that an attempt holds, for the reason of its grant."""
        return ", ".join(sorted(self._held.get(str(attempt), ())))

    async def make_way(self, limit: Limit, by: RunId) -> None:
        """Ask for the end of the runs that hold a name, the longest-held first, so that one more may."""
        holders = sorted(await self._do(partial(self._log.holders, limit.name)), key=lambda holder: holder.since_us)
        for holder in holders[: max(0, len(holders) - limit.most + 1)]:
            if holder.name in self._cancelled:
                continue
            self._cancelled.add(holder.name)
            request = encode_report(RunCancelRequested(f"{by} takes its place (limit {limit.name}, {limit.most} at once)"), principal=OWNER)
            await self._do(partial(self._log.report, holder.shard, RunId.parse(holder.name), request))
            diagnostics.info("run makes way", run=holder.name, by=by, limit=limit.name)

    # --- parts -------------------------------------------------------------------------------------------

    @property
    def _log(self) -> EventLog:
        return self._writer.log

    async def _do(self, act: Callable[[], Awaitable[T]]) -> T:
        return await self._writer.patiently(act)

    def _needed(self, run: OwnedRun, task: Task) -> list[Limit]:
        return limits.needed(run.state, task, self._table)

    async def _acquire(self, limit: Limit, holder: str, rank: Rank) -> bool:
        ask = partial(self._log.acquire, limit.name, limit.most, self._writer.shard, [holder], rank)
        grants = await self._do(ask)
        if holder not in grants.slots and not grants.kept_us and await self._bury_the_dead(limit.name):
            grants = await self._do(ask)
        if holder not in grants.slots:
            self.refused[limit.name] = Refusal(grants.held, self._log.clock_us() + (grants.kept_us or round(AGAIN_AFTER_S * 1e6)))
            return False
        self._held.setdefault(holder, set()).add(limit.name)
        return True

    async def _bury_the_dead(self, name: str) -> bool:
        """Give back what foreground runs hold that nobody runs any more: their attempts died with their owner."""
        found: list[Holder] = await self._do(partial(self._log.holders, name))
        shards = {holder.shard for holder in found if is_own(holder.shard) and holder.shard != self._writer.shard}
        dead = {shard for shard in shards if await self._do(partial(self._log.owner, shard)) is None}
        gone = [holder.name for holder in found if holder.shard in dead]
        if gone:
            await self._do(partial(self._log.give_back, name, gone))
        return bool(gone)

    async def _give_back(self, name: str, holders: Sequence[str]) -> None:
        await self._do(partial(self._log.give_back, name, holders))
        self.refused.pop(name, None)
        for holder in holders:
            left: set[Any] = self._held.get(holder, set())
            left.discard(name)
            if not left:
                self._held.pop(holder, None)


def _has_begun(state: RunState) -> bool:
    """Whether the run got a slot for an attempt."""
    first = state.task(1)
    return first is not None and bool(first.attempts) and first.attempts[0].granted_us > 0
