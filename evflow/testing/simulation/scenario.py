"""What a simulated shard is made of, and what goes wrong around it: all of it drawn from one seed and open to be taken apart again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.core.graph import Graph
from evflow.core.ids import RunId
from evflow.log.protocol import Durability
from evflow.worker.spec import AttemptOrder

Report = AttemptSucceeded | AttemptFailed

KINDS = {
    # what happens: how often it is chosen
    "crash": 6, "lost-request": 4, "lost-reply": 4, "delay": 4, "kill-server": 3, "stall": 2, "regress": 2, "forget-lease": 1, "expire-lease": 1,
    "steal-lease": 1, "clock": 2, "litter": 1, "kill-attempt": 3, "kill-all-attempts": 1, "cancel": 1, "force": 1, "repeat-reports": 1,
}  # fmt: skip
"""Faults: of the owner's process, of its connection, of the server, of the machine; and requests to cancel."""

REQUESTS = {"pause": 2, "resume": 1, "retry-task": 2, "skip-task": 2, "prioritise": 1}
"""What people ask of a run that goes on (`evflow.core.control`), in scenarios that are steered."""


class Subject(Protocol):
    """A flow that is played: its graph, and what its steps' bodies come to."""

    name: str

    def graph(self) -> Graph:
        """The graph, each step's policy included."""
        ...

    def report(self, order: AttemptOrder) -> Report:
        """What the body of an attempt comes to: a function of its order alone."""
        ...

    def runs_for_s(self, order: AttemptOrder) -> float | None:
        """How long the body takes; None: the simulation draws it."""
        ...


@dataclass(frozen=True, order=True)
class Fault:
    """Something that goes wrong, or is asked for, at one point: before or after one act of an owner, counted over all owners."""

    point: int
    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.point}: {self.kind} ({self.amount:.3f})"


@dataclass(frozen=True)
class Crew:
    """The workers of a pool.

    Attributes:
        workers: How many there are at a time.
        slots: Of each.
        patience_s: How long each may be silent.
    """

    workers: int
    slots: int
    patience_s: float = 5.0


@dataclass(frozen=True)
class Scenario:
    """One simulated shard.

    Attributes:
        seed: Where it comes from, and what its attempts draw from.
        flows: The flows, one run of each.
        slots: Attempts at once.
        level: When an event counts as written.
        outlives: Attempts live on when their owner dies.
        wild: Attempts die, hang, report twice.
        faults: What goes wrong.
        offered: The runs are offers in the inbox, and owners serve the shard until all are sealed, as a scheduler's.
        steered: What fails is held, and somebody sees to runs that wait.
        options: Options of the runs.
        crew: Workers of the pool in which steps of the flows are to run; without them there is no pool.
        patience_s: Virtual time by which every run is over, or will never be.
    """

    seed: int
    flows: tuple[Any, ...]
    slots: int
    level: Durability
    outlives: bool
    wild: bool
    faults: tuple[Fault, ...] = ()
    offered: bool = False
    steered: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    crew: Crew | None = None
    patience_s: float = 86_400.0

    def quiet(self) -> "Scenario":
        """The same with nothing going wrong and nobody asking for anything."""
        return replace(self, faults=(), wild=False, steered=False, crew=None)

    def name(self, index: int) -> str:
        """A flow's name."""
        name: str = self.flows[index].name
        return name

    def graph(self, index: int) -> Graph:
        """A flow's graph, with its policies."""
        graph: Graph = self.flows[index].graph()
        return graph

    def report(self, index: int, order: AttemptOrder) -> Report:
        """What an attempt of a flow comes to."""
        report: Report = self.flows[index].report(order)
        return report

    def runs_for_s(self, index: int, order: AttemptOrder) -> float | None:
        """How long its body takes; None: the simulation draws it."""
        seconds: float | None = self.flows[index].runs_for_s(order)
        return seconds

    def started(self, index: int, run: RunId) -> dict[str, Any]:
        """Options of a flow's run, as `RunStarted` has them."""
        del index, run
        return {"retry_scale": 1, **self.options, **({"on_failure": "pause"} if self.steered else {})}


def faults(random: Random, *, reach: int, count: int) -> tuple[Fault, ...]:
    """Draw faults at the first `reach` points."""
    kinds = random.choices(list(KINDS), list(KINDS.values()), k=count)
    return tuple(sorted(Fault(int(random.random() * reach), kind, random.random()) for kind in kinds))


def requests(random: Random, *, reach: int, count: int) -> tuple[Fault, ...]:
    """Draw requests at the first `reach` points."""
    kinds = random.choices(list(REQUESTS), list(REQUESTS.values()), k=count)
    return tuple(sorted(Fault(int(random.random() * reach), kind, random.random()) for kind in kinds))
