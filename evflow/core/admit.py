"""Which waiting tasks get a slot: the one decision that looks beyond a single run.

A slot and the room for declared resources are shared by all runs of a process, in whichever of its shards they are, so what is said here of
a run does not follow from the run's own log. It is therefore recorded there as a fact, `SlotGranted`, with its reason.

There is one order over all shards: `in_one_line` makes it of theirs, `fair` goes through it, and `admit` gives slots in it. Only a shard's own
loop can write to its runs' logs, so each gives slots to its own attempts alone, and leaves to others what comes before those.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush, merge
from itertools import count
from typing import Protocol

from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.values import replaced, value


@value
class Waiting:
    """A queued attempt and what its step declared; 0 where it declared nothing. Namespace, priority and the instant of its beginning are its run's.

    Attributes:
        nodes: How many attempts get slots together or not at all: those of a gang, whose tasks follow on this one's.
    """

    attempt: AttemptId
    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0
    namespace: str = ""
    priority: int = 0
    began_us: int = 0
    nodes: int = 1

    def each(self) -> "Iterator[Waiting]":
        """The attempts, each by itself."""
        run, task, number = self.attempt
        return (replaced(self, attempt=AttemptId(run, TaskId(task + place), number), nodes=1) for place in range(self.nodes))


@value
class Grant:
    """A numbered slot for an attempt."""

    attempt: AttemptId
    slot: int
    reason: str


@value
class Capacity:
    """What there is: slots, and the machine's resources (0 where a resource is not bounded)."""

    slots: int
    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0


@value
class Admission:
    """What a shard gives its attempts.

    Attributes:
        grants: Slots for them.
        others: Attempts of other shards that can have a slot now; they are left one each.
        rest: Some wait on.
    """

    grants: tuple[Grant, ...] = ()
    others: tuple[AttemptId, ...] = ()
    rest: bool = False


class Sharer(Protocol):
    """A shard that shares slots with others of its process. The shell asks these among each other; nothing here does."""

    def lines(self, now_us: int) -> Mapping[str, Iterator[Waiting]]:
        """What waits for slots of it and may have them, by namespace; nothing of a shard that does not answer."""
        ...

    def has(self, run: RunId) -> bool:
        """Whether a run is one of its."""
        ...

    def call(self, now_us: int) -> None:
        """A slot is there for an attempt of it."""
        ...


_BEYOND = -1
"""The slot of an attempt that a former owner, who had more of them, had launched: gone when the attempt ends."""


class Slots:
    """What is taken. The shell keeps one and changes it by `admit`, `hold` and `free` only.

    Attributes:
        turns: When each namespace last got a slot, in turns from 1.
        sharers: The shards that take these slots.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.taken: dict[AttemptId, tuple[int, Waiting]] = {}
        self.unused = list(range(capacity.slots))  # in order, so a heap
        self.turns: dict[str, int] = {}
        self.sharers: list[Sharer] = []

    def take(self, waiting: Waiting) -> int:
        """Give the lowest free slot."""
        slot = heappop(self.unused)
        self.taken[waiting.attempt] = (slot, waiting)
        self.turns[waiting.namespace] = max(self.turns.values(), default=0) + 1
        return slot

    def hold(self, waiting: Waiting, slot: int) -> None:
        """Note the slot that an attempt got from a former owner, who may have had more of them, until it is freed."""
        if slot not in self.unused:
            slot = self.unused[0] if self.unused else _BEYOND
        if slot != _BEYOND:
            self.unused.remove(slot)
            heapify(self.unused)
        self.taken[waiting.attempt] = (slot, waiting)

    def free(self, attempt: AttemptId) -> None:
        """Take an ended attempt's slot back; one that has none changes nothing."""
        found = self.taken.pop(attempt, None)
        if found is None or found[0] == _BEYOND:
            return
        heir = next((other for other, (slot, _) in self.taken.items() if slot == _BEYOND), None) if self._more_than_there_is() else None
        if heir is None:
            heappush(self.unused, found[0])
        else:  # There are more attempts than slots: nobody new until they fit.
            self.taken[heir] = (found[0], self.taken[heir][1])

    def _more_than_there_is(self) -> bool:
        return len(self.taken) + len(self.unused) >= self.capacity.slots

    def room_for(self, waiting: Waiting) -> str:
        """Why the attempt must wait although a slot is free, or an empty string.

        An attempt that asks for more than there is runs when nothing else does.
        """
        if not self.taken:
            return ""
        for name in ("cpu", "memory_mb", "gpu"):
            wanted, there = getattr(waiting, name), getattr(self.capacity, name)
            if wanted and there:
                free = there - sum(getattr(other, name) for _, other in self.taken.values())
                if wanted * waiting.nodes > free:
                    return f"{name}: needs {wanted * waiting.nodes:g}, {max(free, 0):g} free"
        return ""


def rank(priority: int, began_us: int, place: int = 0) -> tuple[int, int, int]:
    """A run's place among those that wait for slots, the first one's the smallest: by priority, then by age.

    Priorities are strict: a run waits as long as others of a higher one have tasks that wait.

    Args:
        priority: The run's; higher ones come first.
        began_us: When it began, which is the same for whoever owns it.
        place: Its position in the order in which its shard got its runs, which decides between equals.
    """
    return -priority, began_us, place


def in_one_line(shards: Iterable[Mapping[str, Iterator[Waiting]]]) -> dict[str, Iterator[Waiting]]:
    """The lines of several shards as one for each namespace, in the order of `rank`; nothing is asked for before it is needed."""
    lines: dict[str, list[Iterator[Waiting]]] = {}
    for shard in shards:
        for namespace, line in shard.items():
            lines.setdefault(namespace, []).append(line)
    return {namespace: merge(*each, key=_rank) if len(each) > 1 else each[0] for namespace, each in lines.items()}


def _rank(waiting: Waiting) -> tuple[int, int, int]:
    return rank(waiting.priority, waiting.began_us)


def fair(lines: Mapping[str, Iterator[Waiting]], slots: Slots) -> Iterator[Waiting]:
    """In which order attempts of several namespaces get slots.

    Those of the highest priority; among them one of the namespace that has the fewest slots, and of several with as few the one that got
    its last slot the longest time ago. So nobody's thousand tasks keep another one's ten waiting; somebody alone gets all there is.

    Args:
        lines: By namespace what waits, in its order. An attempt is asked for when the one before it has been dealt with.
        slots: What is taken.
    """
    if len(lines) == 1:  # nothing to share, and nothing to count
        yield from next(iter(lines.values()))
        return
    shares = Counter(waiting.namespace for _, waiting in slots.taken.values())
    heads = {namespace: head for namespace, line in lines.items() if (head := next(line, None)) is not None}
    while heads:
        namespace = min(heads, key=lambda name: (-heads[name].priority, shares[name], slots.turns.get(name, 0), name))
        yield heads.pop(namespace)
        shares[namespace] += 1
        following = next(lines[namespace], None)
        if following is not None:
            heads[namespace] = following


def admit(slots: Slots, waiting: Iterable[Waiting], is_mine: Callable[[RunId], bool] = lambda _run: True) -> Admission:
    """Give free slots to attempts in their order, which is `fair`'s and, in a namespace, that of their runs (`rank`) and of their queues; the slots are taken.

    The first attempt that does not fit stops the round: a large task is not overtaken for ever by small ones. So it is with a gang, which
    has no slot before it has all.

    Args:
        slots: What is taken.
        waiting: Attempts of this shard and of others.
        is_mine: Whether a run is of this shard. What others can have is left free, and so is, where several namespaces are served, what comes
            behind that in its own.
    """
    served: list[tuple[Waiting, Grant, int]] = []
    turns, rest = dict(slots.turns), False
    for candidate in waiting:
        if len(slots.unused) < candidate.nodes or slots.room_for(candidate):
            rest = True
            break
        for one in (candidate,) if candidate.nodes == 1 else candidate.each():
            grant = Grant(one.attempt, slots.take(one), _reason(slots))
            served.append((one, grant, slots.turns[one.namespace]))
    if all(is_mine(one.attempt.run) for one, _, _ in served):
        return Admission(tuple(grant for _, grant, _ in served), (), rest)
    grants: list[Grant] = []
    others: list[AttemptId] = []
    # Whose turn it is among several namespaces may look otherwise to the one that looks next. So in none of them is anybody served before his time.
    is_shared, left = len({one.namespace for one, _, _ in served}) > 1, set[str]()
    for one, grant, turn in served:
        mine = is_mine(one.attempt.run)
        if mine and not (is_shared and one.namespace in left):
            grants.append(grant)
            turns[one.namespace] = turn
            continue
        slots.free(one.attempt)
        left.add(one.namespace)
        if mine:
            rest = True
        else:
            others.append(one.attempt)
    slots.turns = turns
    return Admission(tuple(grants), tuple(others), rest)


def admit_elsewhere(waiting: Iterable[AttemptId], taken: Collection[int], most: int) -> list[Grant]:
    """Give numbers to attempts of one run that run on other machines, which take nothing of this one.

    Their queue is the buffer, so nothing but the run's own limit holds them back.

    Args:
        waiting: The attempts, in their order; no more than the run may have besides what it has.
        taken: The numbers of its attempts that are out.
        most: How many it may have at once.
    """
    free = (number for number in count() if number not in taken)
    return [Grant(attempt, next(free), f"{len(taken) + place} of {most} at once") for place, attempt in enumerate(waiting, start=1)]


def _reason(slots: Slots) -> str:
    return f"{len(slots.taken)} of {slots.capacity.slots} slots"
