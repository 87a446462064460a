"""Scenarios of random flows, drawn from a seed."""

from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random

from evflow.core import events as ev
from evflow.core.graph import POOL_PREFIX, Graph, Node
from evflow.log.protocol import Durability
from evflow.testing.simulation import scenario as simulation
from evflow.testing.simulation.pooled import CREW_KINDS, POOL
from evflow.testing.simulation.scenario import Crew, Fault, Report, faults, requests
from evflow.worker.spec import AttemptOrder
from tests.random_flows import RandomFlow, Step, choose, grow, spoil

__all__ = ["Fault", "Scenario"]

STEERED = 4
"""In one scenario of so many, what fails is held, and somebody asks for things."""


@dataclass(frozen=True)
class Scenario(simulation.Scenario):
    """A scenario whose flows are random ones."""

    flows: tuple[RandomFlow, ...]

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        random = Random(seed)
        flows = tuple(_flow(random) for _ in range(random.choice((1, 1, 1, 2))))
        levels: tuple[Durability, ...] = ("everysec", "everysec", "fsync", "replicated")
        scenario = cls(seed, flows, random.choice((1, 2, 4, 8)), random.choice(levels), random.random() < 0.3, random.random() < 0.5)
        reach = random.choice((20, 100, 400))
        return replace(scenario, faults=faults(random, reach=reach, count=random.choice((0, 1, 2, 3, 5, 8))))

    def with_crew(self) -> "Scenario":
        """The same, most steps of which run in a pool, whose workers have faults of their own."""
        random = Random(f"{self.seed}/crew")
        crew = Crew(random.choice((1, 2, 4)), random.choice((1, 2, 4)), random.choice((3.0, 5.0)))
        kinds = random.choices(list(CREW_KINDS), list(CREW_KINDS.values()), k=random.choice((0, 1, 2, 4, 6)))
        reach = random.choice((50, 200, 800))
        struck = [Fault(int(random.random() * reach), kind, random.random()) for kind in kinds]
        return replace(self, crew=crew, faults=tuple(sorted((*self.faults, *struck))))

    def with_requests(self) -> "Scenario":
        """The same, and people ask for things."""
        random = Random(f"{self.seed}/requests")
        asked = requests(random, reach=random.choice((20, 100, 400)), count=random.choice((1, 3, 8)))
        return replace(self, steered=True, faults=tuple(sorted((*self.faults, *asked))))

    def with_gangs(self) -> "Scenario":
        """The same faults, in flows with gangs; mostly with as many slots as the largest of them has nodes, else some are refused."""
        random = Random(f"{self.seed}/gangs")
        flows = tuple(grow(random, depth=random.choice((1, 1, 2)), gangs=True) for _ in self.flows)
        slots = max(self.slots, 4) if random.random() < 0.85 else self.slots
        return replace(self, flows=flows, slots=slots, options={"max_workers": random.choice((4, 4, 8))})

    def quiet(self) -> "Scenario":
        """See the base."""
        return replace(self, faults=(), wild=False, steered=False, crew=None)

    def name(self, index: int) -> str:
        """See the base."""
        return f"Flow{index}"

    def graph(self, index: int) -> Graph:
        """A flow's graph, with the waits and limits that the simulation wants to see kept."""
        random, places = Random(f"{self.seed}/{index}/policies"), Random(f"{self.seed}/{index}/places")
        nodes = [_policed(node, random) for node in self.flows[index].graph().nodes.values()]
        if self.crew is not None:
            nodes = [_pooled(node) if places.random() < 0.7 else node for node in nodes]
        return Graph({node.name: node for node in nodes})

    def report(self, index: int, order: AttemptOrder) -> Report:
        """See the base."""
        return report_of(self.flows[index], order)

    def runs_for_s(self, index: int, order: AttemptOrder) -> None:
        """See the base."""


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


def _pooled(node: Node) -> Node:
    return replace(node, policy=replace(node.policy, executor=POOL_PREFIX + POOL))


def report_of(flow: RandomFlow, order: AttemptOrder) -> Report:
    """What the step's body comes to: a function of its order alone, as with a real flow's source."""
    step = flow[order.step]
    index = order.frames[-1][3] if order.frames else 0
    if order.mode == "run" and step.fails_at(order.attempt, index) and not (step.caught and order.last):
        return ev.AttemptFailed(order.task, order.attempt, "exception", "ValueError", "as told")
    kind, steps, splits = transition(step, order)
    return ev.AttemptSucceeded(order.task, order.attempt, manifest_of(order), kind, steps, splits, artifacts=1, size_bytes=10)


def manifest_of(order: AttemptOrder) -> bytes:
    """A digest of everything that the step could see."""
    frames = [(step, index, size) for step, _, _, index, size, _, _ in order.frames]
    parents = [(step, manifest) for step, _, manifest in order.parents]
    return sha256(repr((order.step, order.iteration, frames, parents)).encode()).digest()


def transition(step: Step, order: AttemptOrder) -> tuple[str, tuple[str, ...], int]:
    """Where the step leads from there."""
    place = tuple(index for _, _, kind, index, *_ in order.frames if kind == "foreach")
    if step.kind == "end":
        return "end", (), 0
    if step.kind in ("foreach", "parallel"):
        return step.kind, step.out, step.items
    if step.kind == "split":
        return "split", step.out, 0
    if step.kind == "loop":
        return "linear", (step.out[0] if order.iteration + 1 < step.items else step.out[1],), 0
    if step.kind in ("switch", "conditional"):
        return "linear", (step.out[choose(step.name, place, len(step.out))],), 0
    return "linear", step.out, 0
