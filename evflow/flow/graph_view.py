"""The graph as Metaflow's users know it from `F(use_cli=False)._graph`."""

from collections.abc import Iterator
from typing import NamedTuple

from evflow.core.graph import Graph, Node
from evflow.flow.graph import read_graph
from evflow.flow.split_walk import split_parents


class NodeView(NamedTuple):
    """A step of the graph.

    Attributes:
        type: `start`, `linear`, `split`, `foreach`, `split-switch`, `join`, `conditional` or `end`.
        in_funcs: The steps that lead to it.
        out_funcs: The steps that it leads to.
        split_parents: The splits around it, outermost first.
    """

    name: str
    type: str
    in_funcs: set[str]
    out_funcs: list[str]
    split_parents: list[str]
    doc: str
    parallel_step: bool = False


class GraphView:
    """Steps by name."""

    def __init__(self, cls: type) -> None:
        self._graph = read_graph(cls)
        self._parents = split_parents(self._graph)

    def __getitem__(self, name: str) -> NodeView:
        node = self._graph[name]
        return NodeView(
            name, _type(self._graph, node), set(self._graph.parents(name)), list(node.out), self._parents.get(name, []), node.doc
        )

    def __contains__(self, name: object) -> bool:
        return name in self._graph

    def __iter__(self) -> Iterator[NodeView]:
        return (self[name] for name in self._graph.nodes)


def _type(graph: Graph, node: Node) -> str:
    if node.name == graph.start and node.kind == "linear":
        return "start"
    return "split-switch" if node.kind == "switch" else node.kind
