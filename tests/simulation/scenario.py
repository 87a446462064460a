"""What a simulated run is made of, all of it drawn from one seed and open to be taken apart again."""

from dataclasses import dataclass, replace
from random import Random

from evflow.core.graph import Graph, Node
from evflow.log.protocol import Durability
from tests.random_flows import RandomFlow, grow, spoil

KINDS = {
    # what happens: how often it is chosen
    "crash": 6, "lost-request": 4, "lost-reply": 4, "delay": 4, "kill-server": 3, "stall": 2, "regress": 2, "forget-lease": 1, "expire-lease": 1,
    "steal-lease": 1, "clock": 2, "litter": 1, "kill-attempt": 3, "kill-all-attempts": 1, "cancel": 1, "force": 1, "repeat-reports": 1,
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Fault:
    """Something that goes wrong at one point: before or after one act of an owner, counted over all owners."""

    point: int
    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.point}: {self.kind} ({self.amount:.3f})"


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
    """

    seed: int
    flows: tuple[RandomFlow, ...]
    slots: int
    level: Durability
    outlives: bool
    wild: bool
    faults: tuple[Fault, ...] = ()
    offered: bool = False

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        random = Random(seed)
        flows = tuple(_flow(random) for _ in range(random.choice((1, 1, 1, 2))))
        levels: tuple[Durability, ...] = ("everysec", "everysec", "fsync", "replicated")
        scenario = cls(seed, flows, random.choice((1, 2, 4, 8)), random.choice(levels), random.random() < 0.3, random.random() < 0.5)
        reach = random.choice((20, 100, 400))
        count = random.choice((0, 1, 2, 3, 5, 8))
        kinds = random.choices(list(KINDS), list(KINDS.values()), k=count)
        faults = (Fault(int(random.random() * reach), kind, random.random()) for kind in kinds)
        return replace(scenario, faults=tuple(sorted(faults)))

    def quiet(self) -> "Scenario":
        """The same with nothing going wrong."""
        return replace(self, faults=(), wild=False)

    def graph(self, index: int) -> Graph:
        """A flow's graph, with the waits and limits that the simulation wants to see kept."""
        random = Random(f"{self.seed}/{index}/policies")
        return Graph({node.name: _policed(node, random) for node in self.flows[index].graph().nodes.values()})


def _flow(random: Random) -> RandomFlow:
    flow = grow(random, depth=random.choice((0, 1, 1, 2, 2, 3)))
    return spoil(flow, random) if random.random() < 0.25 else flow


def _policed(node: Node, random: Random) -> Node:
    policy = node.policy
    if policy.retry_times:
        policy = replace(policy, retry_delay_us=random.choice((0, 1_000_000, 120_000_000)))
    if random.random() < 0.2:
        policy = replace(policy, timeout_us=random.choice((30_000_000, 100_000_000)))
    return replace(node, policy=policy)
