"""Who of a shard's runs gets what: slots of this machine, places on others, and the limited names that go with them.

The decisions are `evflow.core.admit`'s and `evflow.core.limits`'; here stands what is asked of them and in which order. What comes of it is
told to the runs as facts: `SlotGranted`, and `RunCancelRequested` for a run that may not begin beside another one.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from evflow.core import events as ev
from evflow.core.admit import Admission, Grant, Slots, Waiting, admit, admit_elsewhere, fair, in_one_line
from evflow.core.gangs import gang_of, lead_of, nodes_of
from evflow.core.graph import LOCAL, TAKES_GANGS
from evflow.core.ids import AttemptId, RunId
from evflow.core.state import Task
from evflow_scheduler.names import Names
from evflow_scheduler.orders import name_of
from evflow_scheduler.roster import Roster
from evflow_scheduler.run import OWNER, OwnedRun

MAX_WORKERS: Final = "max_workers"
"""The option of a run that says how many attempts of it may be at work at once."""

LOOK_AHEAD_US: Final = 1_000_000
"""How often it is asked, for runs that wait for slots, whether others of their flow are at work."""
ANSWERS_WITHIN_US: Final = 1_000_000
"""How long slots are left to another shard that was told of them: its server may be away, and it its own."""

Fact = tuple[ev.Event, str, int]


def is_here(task: Task) -> bool:
    """Whether the task's attempt runs on the owner's machine."""
    return task.attempt.executor == LOCAL


class Granting:
    """Gives slots to the attempts of a shard's runs, and takes them back: a `Sharer`.

    Shards that share slots give them in one order: each gives its attempts what no attempt of another one comes before, and calls those that
    have something to take. What another one has that waits is what its own last round left; it is looked at with each of its rounds.

    Args:
        roster: The runs.
        slots: Of this machine; shards of one process share them.
        names: The limited names that the shard's attempts and runs hold.
        is_live: Whether an attempt has a slot by its run's log.
        instead: Executors whose attempts run on this machine instead, and why.
        most: The option of a run that bounds its attempts; None where the slots are the run's own.
        wake: Begins a round of the shard.
    """

    def __init__(
        self,
        roster: Roster,
        slots: Slots,
        names: Names,
        is_live: Callable[[AttemptId], bool],
        instead: Mapping[str, str],
        most: str | None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._roster = roster
        self._slots = slots
        self._names = names
        self._is_live = is_live
        self._instead = instead
        self._option = most
        self._wake = wake
        self._rest = False  # some wait for slots, as the last round left them
        self._called_us = 0
        self._looked_us = self._ahead_us = 0  # for runs that would not wait for others: when, and when again
        self._left_us = 0  # when slots were left to others, before attempts of this shard
        self._never: dict[tuple[RunId, int], str] = {}  # first nodes of gangs that cannot ever run here, and why
        self._held: dict[RunId, dict[int, AttemptId]] = {}  # by task, slots of this machine: a round asks its own runs only, of thousands

    def has_room_for(self, run: OwnedRun) -> bool:
        """Whether the first attempt of a run that has just begun runs on this machine, as far as its slots say."""
        graph = run.state.graph
        return bool(self._slots.unused) and graph[graph.start].policy.executor == LOCAL

    async def begin(self) -> None:
        """Learn what the shard's runs hold, as a former owner left it."""
        await self._names.begin(self._roster.runs.values())

    def hold(self, run: OwnedRun) -> None:
        """Note the slots of this machine that attempts of a former owner have."""
        for number in run.state.live:
            task = run.state.tasks[number]
            if is_here(task):
                asks = _asks(run, number)
                self._slots.hold(asks, task.attempt.slot)
                self._held.setdefault(run.id, {})[number] = asks.attempt

    def free(self, name: RunId) -> None:
        """Take back all slots of a run that goes."""
        for attempt in self._held.pop(name, {}).values():
            self._slots.free(attempt)

    def lacks_a_name(self, run: OwnedRun) -> bool:
        """Whether a limited name that the first attempt of a run's line needs was not to be had when it was last asked for."""
        first = next(iter(run.state.waiting), None)
        return first is not None and not self._names.free_for(run, run.state.tasks[first])

    async def let_go(self, name: RunId) -> None:
        """The run is sealed: it holds no name any more."""
        await self._names.give_back([name])

    @contextmanager
    def sharing(self) -> Generator[None]:
        """Take slots, in one order with all who do, within the block."""
        self._slots.sharers.append(self)
        try:
            yield
        finally:
            self._slots.sharers.remove(self)

    def lines(self, now_us: int) -> Mapping[str, Iterator[Waiting]]:
        """See `Sharer.lines`."""
        if not self._rest or (self._called_us and now_us - self._called_us > ANSWERS_WITHIN_US):
            return {}
        return self._own_lines()

    def has(self, run: RunId) -> bool:
        """See `Sharer.has`."""
        return run in self._roster.runs

    def call(self, now_us: int) -> None:
        """See `Sharer.call`."""
        self._called_us = self._called_us or now_us
        self._wake()

    @property
    def again_us(self) -> int | None:
        """When to look again: names that were refused may be had, or a shard that slots were left to has not taken them; None where neither is."""
        again = [] if self._names.again_us is None else [self._names.again_us]
        again += [self._ahead_us] if self._ahead_us else []
        return min([*again, self._left_us + ANSWERS_WITHIN_US + 1] if self._left_us else again, default=None)

    async def take_back(self, concerned: Iterable[RunId]) -> None:
        """Take back what attempts have that ended.

        Args:
            concerned: The runs that have changed since the last call.
        """
        runs = self._roster.runs
        for name in concerned:
            held, run = self._held.get(name), runs.get(name)
            if held and run is not None:
                live, tasks = run.state.live, run.state.tasks
                for attempt in [one for task, one in held.items() if task not in live or tasks[task].attempt.number != one.attempt]:
                    self._slots.free(attempt)
                    del held[attempt.task]
        if self._names.attempts:
            await self._names.give_back([attempt for attempt in self._names.attempts if attempt.run in runs and not self._is_live(attempt)])

    async def told(self, now_us: int, *, woken: bool, grant: bool) -> dict[RunId, list[Fact]]:
        """What runs are told.

        Args:
            now_us: The present instant.
            woken: Somebody says that names were given back.
            grant: Slots are given at all.
        """
        self._called_us = self._ahead_us = 0
        again_us = self._names.again_us
        if woken or (again_us is not None and again_us <= now_us):
            await self._names.look_again()
        facts: dict[RunId, list[Fact]] = {}
        if grant and self._never:
            self._refuse(facts)
            self._wake()  # nobody gets a slot in this round: it would be in one turn with its run's end
            return facts
        if grant:
            admission = await self._grant_here(facts, now_us)
            await self._grant_elsewhere(facts, now_us)
            await self._look_ahead(now_us, rest=admission.rest)
            if self._names.refused:
                await self._say_to_the_stuck(facts)
        else:
            admission = self._admission(now_us, own=False)
        self._rest = grant and admission.rest
        self._left_us = now_us if grant and admission.rest and admission.others else 0
        self._call(admission, now_us)
        return facts

    def _admission(self, now_us: int, *, own: bool) -> Admission:
        """Give slots to attempts of this shard, as far as it is their turn.

        Args:
            now_us: The present instant.
            own: Whether they get any; else it is asked who of the others can have some.
        """
        if not self._slots.unused:
            return Admission(rest=own and self._roster.has_line)
        others = [sharer.lines(now_us) for sharer in self._slots.sharers if sharer is not self]
        lines = in_one_line([self._own_lines(), *others] if own else others)
        return admit(self._slots, fair(lines, self._slots), self.has)

    def _call(self, admission: Admission, now_us: int) -> None:
        """Tell those of the others that slots are there for them."""
        runs = {attempt.run for attempt in admission.others}
        for sharer in self._slots.sharers:
            if sharer is not self and any(map(sharer.has, runs)):
                sharer.call(now_us)

    def _own_lines(self) -> dict[str, Iterator[Waiting]]:
        return {namespace: self._waiting(runs) for namespace, runs in self._roster.lines().items()}

    async def _grant_here(self, facts: dict[RunId, list[Fact]], now_us: int) -> Admission:
        """Slots of this machine for those that wait, and the names that go with them; whoever does not get those gives its slot to the next."""
        while True:
            admission = self._admission(now_us, own=True)
            offered = admission.grants
            refused = await self._names.take(self._roster.runs, [grant.attempt for grant in offered])
            for attempt in refused:
                self._slots.free(attempt)
            for grant in offered:
                if grant.attempt not in refused:
                    self._held.setdefault(grant.attempt.run, {})[grant.attempt.task] = grant.attempt
                    self._tell(facts, grant)
            if not refused:
                return admission

    def _note_never(self, run: OwnedRun, number: int, why: str) -> None:
        """Note a gang that would wait for ever, perhaps while another shard looks through the lines: the next round tells its run."""
        if (run.id, number) not in self._never:
            self._never[run.id, number] = why
            self._wake()

    def _refuse(self, facts: dict[RunId, list[Fact]]) -> None:
        """Tell runs of gangs that would wait for ever."""
        for (name, number), why in self._never.items():
            run = self._roster.runs.get(name)
            if run is not None and number in run.state.waiting:
                facts.setdefault(name, []).append((ev.GangRefused(number, why), OWNER, 0))
        self._never.clear()

    async def _grant_elsewhere(self, facts: dict[RunId, list[Fact]], now_us: int) -> None:
        """Let tasks go that run on other machines, beside those that got a slot of this one."""
        for run in self._roster.reaching_out():
            tasks = run.state.tasks
            room = self._most(run) - len(run.state.live) - len(facts.get(run.id, ()))
            if room <= 0:
                continue
            names = [name_of(run.id, task) for task in self._leaving(run, room)]
            if not names:
                continue
            refused = await self._names.take(self._roster.runs, names)
            taken = {tasks[number].attempt.slot for number in run.state.live if not is_here(tasks[number])}
            for grant in admit_elsewhere([name for name in names if name not in refused], taken, self._most(run)):
                self._tell(facts, grant)

    def _leaving(self, run: OwnedRun, room: int) -> Iterator[Task]:
        """The tasks that may go to other machines now, at most `room`; the nodes of a gang all, one behind the other, or none."""
        for number in self._queue(run, here=False):
            task = run.state.tasks[number]
            if gang_of(task) is not None and (lead_of(task) != number or self._is_refused(run, task, here=False)):
                continue
            nodes = nodes_of(run.state, task)
            if len(nodes) > room:  # nothing behind it goes first
                return
            if self._names.free_for(run, task):
                room -= len(nodes)
                yield from nodes

    def _tell(self, facts: dict[RunId, list[Fact]], grant: Grant) -> None:
        attempt = grant.attempt
        why = self._instead.get(self._roster.runs[attempt.run].state.tasks[attempt.task].attempt.executor)
        reason = "; ".join(filter(None, (grant.reason, self._names.taken(attempt), why)))
        event = ev.SlotGranted(attempt.task, attempt.attempt, grant.slot, reason, "" if why is None else LOCAL)
        facts.setdefault(attempt.run, []).append((event, OWNER, 0))

    async def _look_ahead(self, now_us: int, *, rest: bool) -> None:
        """Whether others are at work is asked with the grant of a slot; where some wait for slots, each second as well."""
        if not rest:
            return
        if 0 <= now_us - self._looked_us < LOOK_AHEAD_US:
            self._ahead_us = self._looked_us + LOOK_AHEAD_US
            return
        self._looked_us = now_us
        if await self._names.look_ahead([run for run in self._roster.waiting() if not run.state.live]):
            self._ahead_us = now_us + LOOK_AHEAD_US

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
            for number in self._queue(run, here=True):
                if room <= 0:
                    break
                task = run.state.tasks[number]
                if name_of(run.id, task) in self._slots.taken:  # granted in this round
                    room -= 1
                elif gang_of(task) is not None:
                    if lead_of(task) != number or self._is_refused(run, task, here=True):
                        continue
                    nodes = len(nodes_of(run.state, task))
                    if nodes > room:  # as with slots, nothing behind it goes first
                        break
                    if self._names.free_for(run, task):
                        room -= nodes
                        yield _asks(run, number, nodes)
                elif self._names.free_for(run, task):
                    room -= 1
                    yield _asks(run, number)

    def _is_refused(self, run: OwnedRun, task: Task, *, here: bool) -> bool:
        """Whether a gang cannot ever run, here or elsewhere; noted for whoever tells the run."""
        nodes, most = len(nodes_of(run.state, task)), self._slots.capacity.slots
        own = most if self._option is None else run.state.options.get(self._option, 1)
        gang = f"its gang has {nodes} nodes, which run at the same time"
        why = ""
        if not here and task.attempt.executor not in TAKES_GANGS:  # several workers would have to take its nodes at the same time
            why = f"the nodes of a gang run on one machine or on Kubernetes, and its step has {task.attempt.executor}."
        elif nodes > most and (here or self._option is None):  # a scheduler's slots are of its machine
            why = f"{gang}, and there {'is' if most == 1 else 'are'} {most} slot{'' if most == 1 else 's'}. Give it fewer nodes (num_parallel), or more slots ({_more_slots(self._option)})."
        elif nodes > own:
            why = f"{gang}, and the run may have {own} at once. Give it fewer nodes (num_parallel), or the run more (--max-workers)."
        elif (limit := self._names.too_small(run, task, nodes)) is not None:
            why = f"{gang}, and only {limit.most} at once may hold the limit {limit.name}. Give it fewer nodes, or raise the limit."
        if why:
            self._note_never(run, task.id, why)
        return bool(why)

    def _most(self, run: OwnedRun) -> int:
        """How many attempts of a run may be out at once: slots of a process that stays are many runs', and a run has its own limit besides."""
        most: int = self._slots.capacity.slots if self._option is None else run.state.options.get(self._option, 1)
        return max(most, len(run.state.live))

    def _queue(self, run: OwnedRun, *, here: bool) -> Iterable[int]:
        """The tasks of a run that wait for this machine, or for others: in their order, and at no cost for those that wait for the other."""
        state = run.state
        wanted = [executor for executor in state.lines if (executor == LOCAL or executor in self._instead) is here]
        if len(wanted) == len(state.lines):
            return state.waiting
        if len(wanted) <= 1:
            return state.lines[wanted[0]] if wanted else ()
        return (number for number in state.waiting if state.tasks[number].attempt.executor in wanted)


def whole(run: OwnedRun, facts: Sequence[Fact], most: int) -> Iterator[Sequence[Fact]]:
    """What a run is told, in parts of at most `most` facts, none of which ends within the grants of a gang."""
    first = 0
    while first < len(facts):
        end = min(first + most, len(facts))
        while first < end < len(facts) and _are_one(run, facts[end - 1][0], facts[end][0]):
            end -= 1
        yield facts[first:end]
        first = end


def _are_one(run: OwnedRun, one: ev.Event, other: ev.Event) -> bool:
    if not isinstance(one, ev.SlotGranted) or not isinstance(other, ev.SlotGranted):
        return False
    tasks = run.state.tasks
    return gang_of(tasks[one.task]) is not None and lead_of(tasks[one.task]) == lead_of(tasks[other.task])


def _more_slots(option: str | None) -> str:
    return "--max-workers" if option is None else "--concurrency of `evflow scheduler`"


def _asks(run: OwnedRun, number: int, nodes: int = 1) -> Waiting:
    """What a task asks for, or a gang whose first node it is."""
    task = run.state.tasks[number]
    policy = run.state.graph[task.step].policy
    namespace: str = run.state.header["namespace"]
    began_us = run.state.started_us
    return Waiting(name_of(run.id, task), policy.cpu, policy.memory_mb, policy.gpu, namespace, run.state.priority, began_us, nodes)
