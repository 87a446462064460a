"""Which splits can be open at each step: a walk over the graph with a stack of splits.

It mirrors, as far as the source shows it, what `evflow.core.frames` decides on a run: a join closes the innermost
split, the end is outside of all splits, a loop stays inside of its split. A step that can be reached in several ways
is wrong only if it is wrong in all of them: which way a run takes, only the run shows.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evflow.core.graph import Graph
from evflow.core.values import field, value
from evflow.flow.source import NextCall

MOST_STATES = 20_000
"""The walk gives up here, without a finding: only a graph that was made for it has so many."""


@value
class Opened:
    """A split on the stack: the step that splits, the line of the call, and the branch that was taken."""

    step: str
    line: int
    branch: str


Stack = tuple[Opened, ...]


@value
class Edge:
    """A way from a step to another."""

    step: str
    line: int
    target: str


@value
class Walk:
    """What the walk saw.

    Attributes:
        stacks: The splits around a step, for each way to reach it.
        arrivals: The splits that are open where an edge starts, for each way to come there.
        joins: For each split, and the splits around it, the joins that each of its branches reaches.
        loops_out: Edges that leave a split by going back to before it, with that split.
    """

    stacks: dict[str, list[Stack]] = field(default_factory=dict[str, list[Stack]])
    arrivals: dict[Edge, list[Stack]] = field(default_factory=dict[Edge, list[Stack]])
    joins: dict[tuple[str, int, Stack], dict[str, set[str]]] = field(default_factory=dict[tuple[str, int, Stack], dict[str, set[str]]])
    loops_out: dict[Edge, Opened] = field(default_factory=dict[Edge, Opened])


def walk(graph: Graph, calls: Mapping[str, Sequence[NextCall]]) -> Walk:
    """Follow every way through the graph; all steps that calls name exist."""
    seen = Walk()
    before = {step: _always_before(graph, step) for step, made in calls.items() if any(_splits(call) for call in made)}
    pending: deque[tuple[str, Stack]] = deque([(graph.start, ())])
    visited: set[tuple[str, Stack]] = {(graph.start, ())}
    while pending and len(visited) < MOST_STATES:
        step, stack = pending.popleft()
        seen.stacks.setdefault(step, []).append(stack)
        for state in _leave(graph, seen, before, step, stack, calls.get(step, ())):
            if state not in visited:
                visited.add(state)
                pending.append(state)
    return seen


def split_parents(graph: Graph) -> dict[str, list[str]]:
    """The splits around each step, outermost first, by the shortest way to it; of a join also the one that it joins, as in Metaflow."""
    calls = {
        name: [NextCall(node.line, node.kind, node.out)] for name, node in graph.nodes.items() if all(step in graph for step in node.out)
    }
    if graph.start not in graph:
        return {}
    seen = walk(graph, calls)
    found = {step: stacks[0] for step, stacks in seen.stacks.items()}
    for edge, stacks in reversed(seen.arrivals.items()):  # the first way to a join is the one that stays
        if graph[edge.target].takes_inputs:
            found[edge.target] = stacks[0]
    return {step: [opened.step for opened in stack] for step, stack in found.items()}


def _leave(
    graph: Graph, seen: Walk, before: Mapping[str, set[str]], step: str, stack: Stack, calls: Iterable[NextCall]
) -> Iterator[tuple[str, Stack]]:
    for call in calls:
        for target in call.steps:
            edge = Edge(step, call.line, target)
            seen.arrivals.setdefault(edge, []).append(stack)
            if stack and not graph[target].takes_inputs and target in before[stack[-1].step]:
                seen.loops_out[edge] = stack[-1]
            elif _splits(call):
                if not any(opened.step == step for opened in stack) and not graph[target].takes_inputs:
                    seen.joins.setdefault((step, call.line, stack), {}).setdefault(target, set())
                    yield target, (*stack, Opened(step, call.line, target))
            elif not graph[target].takes_inputs:
                yield target, stack
            elif stack:
                closed = stack[-1]
                seen.joins[closed.step, closed.line, stack[:-1]][closed.branch].add(target)
                yield target, stack[:-1]


def _splits(call: NextCall) -> bool:
    return call.kind in ("split", "foreach", "parallel")


def _always_before(graph: Graph, step: str) -> set[str]:
    """The steps on every way from the start to `step`, itself included."""
    return {step} | {other for other in graph.nodes if other != step and not _reaches(graph, step, without=other)}


def _reaches(graph: Graph, step: str, *, without: str) -> bool:
    if graph.start == without:
        return False
    pending, seen = [graph.start], {graph.start}
    while pending:
        current = pending.pop()
        if current == step:
            return True
        for target in graph[current].out:
            if target != without and target in graph and target not in seen:
                seen.add(target)
                pending.append(target)
    return False
