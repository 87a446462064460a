"""The graph as Metaflow's users know it: `F(use_cli=False)._graph` in Python, `current.graph` as plain values."""

import inspect
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from evflow.core.graph import Graph, Node
from evflow.flow.decorators.of_class import decorators_of
from evflow.flow.graph import read_graph
from evflow.flow.source import class_line
from evflow.flow.split_walk import split_parents
from evflow.flow.steps import facts

_LONG_KINDS = {"split": "split-static", "foreach": "split-foreach", "parallel": "split-parallel"}
"""What the plain form calls them, other than `NodeView.type`; as Metaflow does."""


class NodeView(NamedTuple):
    """A step of the graph.

    Attributes:
        type: `start`, `linear`, `split`, `foreach`, `split-switch`, `join`, `conditional` or `end`.
        in_funcs: The steps that lead to it.
        out_funcs: The steps that it leads to.
        split_parents: The splits around it, outermost first; of a join also the one that it joins.
        parallel_step: It is `@parallel`.
        parallel_foreach: It leads to such a step, with `num_parallel`; its type is `foreach` then.
    """

    name: str
    type: str
    in_funcs: set[str]
    out_funcs: list[str]
    split_parents: list[str]
    doc: str
    parallel_step: bool = False
    parallel_foreach: bool = False


class GraphView:
    """Steps by name."""

    def __init__(self, cls: type) -> None:
        self._graph = read_graph(cls)
        self._parents = split_parents(self._graph)

    def __getitem__(self, name: str) -> NodeView:
        node = self._graph[name]
        return NodeView(
            name,
            "foreach" if node.kind == "parallel" else _type(self._graph, node),
            set(self._graph.parents(name)),
            list(node.out),
            self._parents.get(name, []),
            node.doc,
            node.policy.parallel,
            node.kind == "parallel",
        )

    def __contains__(self, name: object) -> bool:
        return name in self._graph

    def __iter__(self) -> Iterator[NodeView]:
        return (self[name] for name in self._graph.nodes)


def _type(graph: Graph, node: Node) -> str:
    if node.name == graph.start and node.kind == "linear":
        return "start"
    return "split-switch" if node.kind == "switch" else node.kind


def graph_info(cls: type) -> dict[str, Any]:
    """The flow as plain values, under the names of Metaflow's `_graph_info`; cases of a switch are texts."""
    graph, found = read_graph(cls), facts(cls)
    return {
        "file": os.path.basename(class_line(cls)[0]),  # noqa: PTH119 - pathlib is a heavy import in an attempt
        "start_step": graph.start,
        "end_step": graph.end,
        "parameters": [{"name": attribute, "type": "Parameter"} for attribute in found.parameters],
        "constants": [{"name": name, "type": type(value).__name__} for name, value in found.constants.items()],
        "steps": {name: _step_info(cls, graph, node) for name, node in graph.nodes.items()},
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "decorators": [
            {"name": one.name, "attributes": one.attributes(), "statically_defined": bool(one.where.file)} for one in decorators_of(cls)
        ],
        "extensions": {},
    }


def _step_info(cls: type, graph: Graph, node: Node) -> dict[str, Any]:
    found = facts(cls)
    kind = _type(graph, node)
    info: dict[str, Any] = {
        "name": node.name,
        "type": _LONG_KINDS.get(kind, kind),
        "line": node.line,
        "source_file": node.file,
        "doc": inspect.cleandoc(found.steps[node.name].__doc__ or ""),
        "decorators": [
            {
                "name": decorator.name,
                "attributes": decorator.attributes(),
                "statically_defined": decorator not in found.extra.get(node.name, ()),
            }
            for decorator in reversed(found.decorators(node.name))
        ],
        "next": list(node.out),
    }
    if node.foreach is not None:
        info["foreach_artifact"] = node.foreach
    if node.condition is not None:
        info["condition"], info["switch_cases"] = node.condition, dict(node.cases)
    return info
