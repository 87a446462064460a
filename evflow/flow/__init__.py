"""The flow language: flows, steps, parameters, decorators, their graph and their checks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evflow.core.graph import Graph


def graph_of(cls: type) -> "Graph":
    """The graph of a flow without mistakes.

    Raises:
        FlowInvalid: It has mistakes; `problems` lists all of them.
        SourceMissing: A step's source cannot be found.
    """
    from evflow.flow.checks import checked_graph

    return checked_graph(cls)
