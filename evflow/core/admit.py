"""Which waiting tasks get a slot: the one decision that looks beyond a single run.

A slot and the room for declared resources are shared by all runs of a shard, so what `admit` says of a run
does not follow from the run's own log. It is therefore recorded there as a fact, `SlotGranted`, with its reason.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import count

from evflow.core.ids import AttemptId
from evflow.core.values import value


@value
class Waiting:
    """A queued attempt and what its step declared; 0 where it declared nothing. Namespace and priority are its run's."""

    attempt: AttemptId
    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0
    namespace: str = ""
    priority: int = 0


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


_BEYOND = -1
"""The slot of an attempt that a former owner, who had more of them, had launched: gone when the attempt ends."""


class Slots:
    """What is taken. The shell keeps one and changes it by `admit`, `hold` and `free` only.

    Attributes:
        turns: When each namespace last got a slot, in turns from 1.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.taken: dict[AttemptId, tuple[int, Waiting]] = {}
        self.unused = list(range(capacity.slots))  # in order, so a heap
        self.turns: dict[str, int] = {}

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
                if wanted > free:
                    return f"{name}: needs {wanted:g}, {max(free, 0):g} free"
        return ""


def rank(priority: int, place: int) -> tuple[int, int]:
    """A run's place among those that wait for slots, the first one's the smallest: by priority, then by age.

    Priorities are strict: a run waits as long as others of a higher one have tasks that wait.

    Args:
        priority: The run's; higher ones come first.
        place: Its position in the order in which the shard got its runs.
    """
    return -priority, place


def fair(lines: Mapping[str, Iterator[Waiting]], slots: Slots) -> Iterator[Waiting]:
    """In which order attempts of several namespaces get slots.

    Those of the highest priority; among them one of the namespace that has the fewest slots, and of several with as few the one that got
    its last slot the longest time ago. So nobody's thousand tasks keep another one's ten waiting; somebody alone gets all there is.

    Args:
        lines: By namespace what waits, in its order. An attempt is asked for when the one before it has been dealt with.
        slots: What is taken.
    """
    shares = Counter(waiting.namespace for _, waiting in slots.taken.values())
    heads = {namespace: head for namespace, line in lines.items() if (head := next(line, None)) is not None}
    while heads:
        namespace = min(heads, key=lambda name: (-heads[name].priority, shares[name], slots.turns.get(name, 0), name))
        yield heads.pop(namespace)
        shares[namespace] += 1
        following = next(lines[namespace], None)
        if following is not None:
            heads[namespace] = following


def admit(slots: Slots, waiting: Iterable[Waiting]) -> list[Grant]:
    """Give free slots to attempts in their order, which is `fair`'s and, in a namespace, that of their runs (`rank`) and of their queues; the slots are taken.

    The first attempt that does not fit stops the round: a large task is not overtaken for ever by small ones.
    """
    grants: list[Grant] = []
    for candidate in waiting:
        if not slots.unused or slots.room_for(candidate):
            break
        grants.append(Grant(candidate.attempt, slots.take(candidate), _reason(slots)))
    return grants


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
