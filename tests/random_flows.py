"""Random flows, as a graph for the pure core and as the source of a real flow.

A flow is grown from blocks (steps in a row, static splits, foreaches, switches, conditional transitions, loops), nested
to a depth, so it is well-formed by construction; `spoil` then breaks some on purpose. What a step does at run time is a
function of its name and of its place alone, so both worlds take the same way through it.
"""

from dataclasses import dataclass, field, replace
from random import Random
from zlib import crc32

from evflow.core.graph import Graph, Node, Policy


@dataclass(frozen=True)
class Step:
    """A step of a random flow.

    Attributes:
        kind: `linear`, `split`, `foreach`, `parallel`, `switch`, `conditional`, `loop` or `end`.
        out: Where it leads; a loop's are the way back and the way out.
        joins: It takes inputs.
        items: Items of a foreach, nodes of a gang, or rounds of a loop.
        fails: Attempts that fail before one succeeds.
        retries: `@retry(times=...)`, or None.
        caught: `@catch` stands on it.
        gang: `@parallel` stands on it.
        failing: The node of the gang that fails; the others do not.
    """

    name: str
    kind: str
    out: tuple[str, ...] = ()
    joins: bool = False
    items: int = 0
    fails: int = 0
    retries: int | None = None
    caught: bool = False
    gang: bool = False
    failing: int = 0

    def fails_at(self, attempt: int, index: int) -> bool:
        """Whether an attempt fails, which is the task's at a place in its split."""
        return attempt < self.fails and (not self.gang or index == self.failing)


@dataclass
class RandomFlow:
    """Steps in the order of the source; the first is `start`, the last is `end`."""

    steps: list[Step] = field(default_factory=list)
    ill_formed: str = ""

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def graph(self) -> Graph:
        """As the core sees it."""
        return Graph({step.name: _node(step) for step in self.steps})

    def source(self, name: str = "RandomFlow") -> str:
        """As its author would have written it."""
        lines = ["from evflow import FlowSpec, catch, current, parallel, retry, step", "", ""]
        lines += [f"class {name}(FlowSpec):"]
        for step in self.steps:
            lines += _source(step)
        lines += ["", 'if __name__ == "__main__":', f"    {name}()", ""]
        return "\n".join(lines)


def grow(random: Random, *, depth: int = 3, gangs: bool = False) -> RandomFlow:
    """A well-formed flow of 3 to about 25 steps; with gangs among its blocks, or as of old, so that old seeds mean what they meant."""
    grower = _Grower(random, gangs=gangs)
    first = grower.sequence(["end"], depth)
    start = Step("start", "linear", (first,))
    return RandomFlow([start, *reversed(grower.steps), Step("end", "end")])


def spoil(flow: RandomFlow, random: Random) -> RandomFlow:
    """The flow with one transition sent somewhere else; it may become ill-formed, or only different."""
    candidates = [step for step in flow.steps if step.out and step.name != "start"]
    if not candidates:
        return flow
    victim = random.choice(candidates)
    out = list(victim.out)
    position = random.randrange(len(out))
    out[position] = random.choice([step.name for step in flow.steps if step.name not in (*out, "start")] or out)
    steps = [replace(step, out=tuple(out)) if step is victim else step for step in flow.steps]
    return RandomFlow(steps, f"{victim.name} -> {out[position]}")


def choose(step: str, place: tuple[int, ...], count: int) -> int:
    """Which of `count` ways a step takes at its place (the indices of the foreaches around it)."""
    return crc32(f"{step}:{place}".encode()) % count


class _Grower:
    """Builds blocks from their end to their beginning, so that each knows where it leads."""

    def __init__(self, random: Random, *, gangs: bool = False) -> None:
        self.random = random
        self.gangs = gangs
        self.steps: list[Step] = []

    def sequence(self, behind: list[str], depth: int) -> str:
        """Some blocks in a row that lead to `behind[0]`; returns the first step."""
        target = behind[0]
        for _ in range(self.random.randint(1, 2)):
            target = self.block(target, depth)
        return target

    def block(self, target: str, depth: int) -> str:
        kinds = ["linear"] if depth == 0 else ["linear", "split", "foreach", "switch", "conditional", "loop"]
        if self.gangs:
            kinds += ["parallel"] * 3
        kind = self.random.choice(kinds)
        if kind == "parallel":
            return self._gang(target)
        if kind in ("split", "foreach"):
            return self._split(kind, target, depth)
        if kind in ("switch", "conditional"):
            ways = tuple(self.sequence([self._plain(target)], depth - 1) for _ in range(2))
            return self._add(Step(self._name(), kind, ways))
        if kind == "loop":
            last = self._name()
            back = self._name()
            self._add(Step(last, "loop", (back, target), items=self.random.randint(1, 3)))
            return self._add(Step(back, "linear", (last,)))
        return self._plain(target)

    def _split(self, kind: str, target: str, depth: int) -> str:
        join = self._add(Step(self._name(), "linear", (target,), joins=True))
        if kind == "split":
            count = self.random.randint(2, 3)
            out = tuple(self.sequence([self._plain(join)], depth - 1) for _ in range(count))
            return self._add(Step(self._name(), "split", out))
        body = self.sequence([self._plain(join)], depth - 1)
        return self._add(Step(self._name(), "foreach", (body,), items=self.random.randint(1, 4)))

    def _gang(self, target: str) -> str:
        join = self._add(Step(self._name(), "linear", (target,), joins=True))
        size = self.random.randint(1, 4)
        fails, retries, caught = self.random.choice([(0, None, False), (0, None, False), (1, 2, False), (9, 1, True), (9, 0, False)])
        node = Step(
            self._name(), "linear", (join,), fails=fails, retries=retries, caught=caught, gang=True, failing=self.random.randrange(size)
        )
        return self._add(Step(self._name(), "parallel", (self._add(node),), items=size))

    def _plain(self, target: str) -> str:
        draw = self.random.random()
        if draw < 0.15:
            return self._add(Step(self._name(), "linear", (target,), fails=1, retries=2))
        if draw < 0.2:
            return self._add(Step(self._name(), "linear", (target,), fails=9, retries=1, caught=True))
        if draw < 0.23:
            return self._add(Step(self._name(), "linear", (target,), fails=9, retries=0))
        return self._add(Step(self._name(), "linear", (target,)))

    def _name(self) -> str:
        self._count = getattr(self, "_count", 0) + 1
        return f"s{self._count}"

    def _add(self, step: Step) -> str:
        self.steps.append(step)
        return step.name


def _node(step: Step) -> Node:
    kind = {"loop": "conditional"}.get(step.kind, step.kind)
    policy = Policy(
        retry_times=step.retries or 0,
        retry_explicit=step.retries is not None,
        catch=step.caught,
        catch_var="caught" if step.caught else None,
        parallel=step.gang,
    )
    return Node(step.name, "join" if step.joins else kind, step.out, step.joins, policy=policy)


def _source(step: Step) -> list[str]:
    lines = ["    @step"]
    if step.caught:
        lines.insert(0, '    @catch(var="caught", print_exception=False)')
    if step.gang:
        lines.insert(0, "    @parallel")
    if step.retries is not None:
        lines.insert(0, f"    @retry(times={step.retries}, minutes_between_retries=0)")
    lines.append(f"    def {step.name}(self{', inputs' if step.joins else ''}):")
    if step.fails:
        only = f" and current.parallel.node_index == {step.failing}" if step.gang else ""
        lines.append(f"        if current.retry_count < {step.fails}{only}:")
        lines.append('            raise ValueError("as told")')
    lines.append(f"        self.last = '{step.name}'")
    if step.joins:
        lines.append("        self.total = sum(getattr(given, 'total', 1) for given in inputs)")
    lines += [f"        {line}" for line in _transition(step)]
    return [*lines, ""]


def _transition(step: Step) -> list[str]:
    if step.kind == "end":
        return ["self.done = True"]
    if step.kind == "foreach":
        return [f"self.items_{step.name} = list(range({step.items}))", f"self.next(self.{step.out[0]}, foreach='items_{step.name}')"]
    if step.kind == "parallel":
        return [f"self.next(self.{step.out[0]}, num_parallel={step.items})"]
    if step.kind == "loop":
        return [
            f"self.rounds_{step.name} = getattr(self, 'rounds_{step.name}', 0) + 1",
            f"if self.rounds_{step.name} < {step.items}:",
            f"    self.next(self.{step.out[0]})",
            "else:",
            f"    self.next(self.{step.out[1]})",
        ]
    if step.kind in ("switch", "conditional"):
        choice = [
            "from zlib import crc32",
            "place = tuple(index for index, _, _ in self.foreach_stack())",
            f"self.way = crc32(f'{step.name}:{{place}}'.encode()) % {len(step.out)}",
        ]
        if step.kind == "switch":
            cases = ", ".join(f"{number}: self.{target}" for number, target in enumerate(step.out))
            return [*choice, f"self.next({{{cases}}}, condition='way')"]
        return [
            *choice,
            "if self.way == 0:", f"    self.next(self.{step.out[0]})", "else:", f"    self.next(self.{step.out[1]})",
        ]  # fmt: skip
    return [f"self.next({', '.join(f'self.{target}' for target in step.out)})"]
