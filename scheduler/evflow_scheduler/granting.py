"""Who of a shard's runs gets what: slots of this machine, places on others, and the limited names that go with them.

The decisions are `evflow.core.admit`'s and `evflow.core.limits`'; here stands what is asked of them and in which order. What comes of it is
told to the runs as facts: `SlotGranted`, and `RunCancelRequested` for a run that may not begin beside another one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from evflow.core import events as ev
from evflow.core.admit import Grant, Slots, Waiting, admit, admit_elsewhere, fair
from evflow.core.graph import LOCAL
from evflow.core.ids import AttemptId, RunId
from evflow.core.state import Task
from evflow_scheduler.names import AGAIN_AFTER_S, Names
from evflow_scheduler.orders import name_of
from evflow_scheduler.roster import Roster
from evflow_scheduler.run import OWNER, OwnedRun

MAX_WORKERS: Final = "max_workers"
"""The option of a run that says how many attempts of it may be at work at once."""

Fact = tuple[ev.Event, str, int]


def is_here(task: Task) -> bool:
    """Whether the task's attempt runs on the owner's machine."""
    return task.attempt.executor == LOCAL


class Granting:
    """Gives slots to the attempts of a shard's runs, and takes them back.

    Args:
        roster: The runs.
        slots: Of this machine; shards of one process share them.
        names: The limited names that the shard's attempts and runs hold.
        is_live: Whether an attempt has a slot by its run's log.
        instead: Executors whose attempts run on this machine instead, and why.
        most: The option of a run that bounds its attempts; None where the slots are the run's own.
    """

    def __init__(
        self,
        roster: Roster,
        slots: Slots,
        names: Names,
        is_live: Callable[[AttemptId], bool],
        instead: Mapping[str, str],
        most: str | None,
    ) -> None:
        self._roster = roster
        self._slots = slots
        self._names = names
        self._is_live = is_live
        self._instead = instead
        self._option = most
        self._ask_again_us = 0

    async def begin(self) -> None:
        """Learn what the shard's runs hold, as a former owner left it."""
        await self._names.begin(self._roster.runs.values())

    def hold(self, run: OwnedRun) -> None:
        """Note the slots of this machine that attempts of a former owner have."""
        for number in run.state.live:
            task = run.state.tasks[number]
            if is_here(task):
                self._slots.hold(_asks(run, number), task.attempt.slot)

    def free(self, name: RunId) -> None:
        """Take back all slots of a run that goes."""
        for attempt in [attempt for attempt in self._slots.taken if attempt.run == name]:
            self._slots.free(attempt)

    async def let_go(self, name: RunId) -> None:
        """The run is sealed: it holds no name any more."""
        await self._names.give_back([name])

    @property
    def has_room(self) -> bool:
        """Slots are left."""
        return bool(self._slots.unused)

    @property
    def again_us(self) -> int | None:
        """When names that were refused are to be asked for again; None where none was."""
        return self._ask_again_us if self._names.refused else None

    async def take_back(self) -> bool:
        """Take back what attempts have that ended; answers whether slots were freed."""
        runs = self._roster.runs
        ended = [attempt for attempt in self._slots.taken if attempt.run in runs and not self._is_live(attempt)]
        for attempt in ended:
            self._slots.free(attempt)
        await self._names.give_back([attempt for attempt in self._names.attempts if attempt.run in runs and not self._is_live(attempt)])
        return bool(ended)

    async def told(self, now_us: int, *, woken: bool, grant: bool) -> dict[RunId, list[Fact]]:
        """What runs are told.

        Args:
            now_us: The present instant.
            woken: Somebody says that names were given back.
            grant: Slots are given at all.
        """
        if woken or (self._names.refused and self._ask_again_us <= now_us):
            await self._names.look_again()
        facts: dict[RunId, list[Fact]] = {}
        if grant:
            await self._grant_here(facts, now_us)
            await self._grant_elsewhere(facts, now_us)
            if self._names.refused:
                await self._say_to_the_stuck(facts)
        return facts

    async def _grant_here(self, facts: dict[RunId, list[Fact]], now_us: int) -> None:
        """Slots of this machine for those that wait, and the names that go with them; whoever does not get those gives its slot to the next."""
        while True:
            lines = {namespace: self._waiting(runs) for namespace, runs in self._roster.lines().items()}
            offered = admit(self._slots, fair(lines, self._slots))
            refused = await self._names.take(self._roster.runs, [grant.attempt for grant in offered])
            for attempt in refused:
                self._slots.free(attempt)
            for grant in offered:
                if grant.attempt not in refused:
                    self._tell(facts, grant)
            if not refused:
                return
            self._ask_again_us = now_us + round(AGAIN_AFTER_S * 1e6)

    async def _grant_elsewhere(self, facts: dict[RunId, list[Fact]], now_us: int) -> None:
        """Let tasks go that run on other machines, beside those that got a slot of this one."""
        for run in self._roster.reaching_out():
            tasks = run.state.tasks
            room = self._most(run) - len(run.state.live) - len(facts.get(run.id, ()))
            away = (number for number in run.state.waiting if not self._comes_here(tasks[number]))
            free = (number for number in away if self._names.free_for(run, tasks[number]))
            names = [name_of(run.id, tasks[number]) for number in islice(free, max(0, room))]
            refused = await self._names.take(self._roster.runs, names)
            if refused:
                self._ask_again_us = now_us + round(AGAIN_AFTER_S * 1e6)
            taken = {tasks[number].attempt.slot for number in run.state.live if not is_here(tasks[number])}
            for grant in admit_elsewhere([name for name in names if name not in refused], taken, self._most(run)):
                self._tell(facts, grant)

    def _tell(self, facts: dict[RunId, list[Fact]], grant: Grant) -> None:
        attempt = grant.attempt
        why = self._instead.get(self._roster.runs[attempt.run].state.tasks[attempt.task].attempt.executor)
        reason = "; ".join(filter(None, (grant.reason, self._names.taken(attempt), why)))
        event = ev.SlotGranted(attempt.task, attempt.attempt, grant.slot, reason, "" if why is None else LOCAL)
        facts.setdefault(attempt.run, []).append((event, OWNER, 0))

    async def _say_to_the_stuck(self, facts: dict[RunId, list[Fact]]) -> None:
        """Runs that may not begin beside those that are at work: they wait, or give up, or have the others end."""
        for run in list(self._roster.waiting()):
            stuck = self._names.is_stuck(run)
            if stuck is None or run.state.live:
                continue
            if stuck.when_busy == "skip":
                why = f"another run of {run.id.flow} is at work (limit {stuck.limit.name}, {stuck.limit.most} at once)"
                facts.setdefault(run.id, []).append((ev.RunCancelRequested(why), OWNER, 0))
            elif stuck.when_busy == "cancel":
                await self._names.make_way(stuck.limit, run.id)

    def _waiting(self, runs: Iterable[OwnedRun]) -> Iterator[Waiting]:
        """What waits of these runs for slots of this machine and may have them."""
        for run in runs:
            room = self._most(run) - len(run.state.live)
            for number in run.state.waiting:
                if room <= 0:
                    break
                task = run.state.tasks[number]
                if name_of(run.id, task) in self._slots.taken:  # granted in this round
                    room -= 1
                elif self._comes_here(task) and self._names.free_for(run, task):
                    room -= 1
                    yield _asks(run, number)

    def _most(self, run: OwnedRun) -> int:
        """How many attempts of a run may be out at once: slots of a process that stays are many runs', and a run has its own limit besides."""
        most: int = self._slots.capacity.slots if self._option is None else run.state.options.get(self._option, 1)
        return max(most, len(run.state.live))

    def _comes_here(self, task: Task) -> bool:
        return is_here(task) or task.attempt.executor in self._instead


def _asks(run: OwnedRun, number: int) -> Waiting:
    """What a task asks for."""
    task = run.state.tasks[number]
    policy = run.state.graph[task.step].policy
    namespace: str = run.state.header["namespace"]
    return Waiting(name_of(run.id, task), policy.cpu, policy.memory_mb, policy.gpu, namespace, run.state.priority)
