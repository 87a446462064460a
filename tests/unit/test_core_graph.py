"""A graph in a log is the graph that the flow had."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow.core.codec import decode, encode
from evflow.core.events import RunStarted
from evflow.core.graph import Graph, Node, Policy

TEXT = st.text(max_size=8)
POLICIES = st.builds(
    Policy, st.integers(0, 9), st.booleans(), st.integers(0, 10**9), st.floats(0, 10), st.integers(0, 10**9), st.integers(0, 10**9),
    st.booleans(), st.none() | TEXT, TEXT, st.floats(0, 64), st.integers(0, 10**6), st.integers(0, 8),
)  # fmt: skip
NODES = st.builds(
    Node, TEXT, st.sampled_from(["linear", "split", "foreach", "switch", "join", "end", "conditional"]),
    st.lists(TEXT, max_size=3).map(tuple), st.booleans(), st.none() | TEXT, st.none() | TEXT,
    st.dictionaries(TEXT, TEXT, max_size=3), TEXT, st.integers(0, 999), TEXT, st.lists(TEXT, max_size=2).map(tuple), POLICIES,
)  # fmt: skip


def _graph(nodes: list[Node], doc: str) -> Graph:
    ends = [Node("start", "linear", ("end",)), Node("end", "end")]
    return Graph({node.name: node for node in [*nodes, *ends]}, doc=doc)


@given(st.lists(NODES, max_size=5), TEXT)
def test_a_graph_passes_through_a_log_unchanged(nodes: list[Node], doc: str) -> None:
    """Every field of every step, and the order of the steps."""
    graph = _graph(nodes, doc)
    start = RunStarted("F", 1, 1, graph.to_plain(), b"", {}, {}, {}, "ada", "")
    read = decode(1, encode(start, turn=1, at_us=1, principal="x", cause=0)).event
    assert isinstance(read, RunStarted)
    again = Graph.from_plain(read.graph)
    assert again == graph
    assert list(again.nodes) == list(graph.nodes)


def test_what_is_as_always_is_not_written() -> None:
    """A flow of a thousand steps has to fit into its first event."""
    plain = _graph([], "").to_plain()
    assert plain["steps"] == [{"name": "start", "kind": "linear", "out": ("end",)}, {"name": "end", "kind": "end"}]


def test_fields_of_a_later_version_are_dropped() -> None:
    """Of steps and of policies."""
    plain = Graph({"start": Node("start", "end", policy=Policy(retry_times=2))}, end="start").to_plain()
    plain["steps"][0]["colour"] = "red"
    plain["steps"][0]["policy"]["mood"] = "good"
    plain["weight"] = 3
    assert Graph.from_plain(plain)["start"].policy == Policy(retry_times=2)


@pytest.mark.parametrize(
    "plain",
    [
        {}, {"steps": 1}, {"steps": [], "start": "start", "end": "end"}, {"steps": [{}], "start": "start", "end": "end"},
        {"steps": [{"name": "start", "kind": 3}], "start": "start", "end": "start"},
        {"steps": [{"name": "start", "kind": "end", "out": "end"}], "start": "start", "end": "start"},
        {"steps": [{"name": "start", "kind": "end", "policy": {"retry_times": "3"}}], "start": "start", "end": "start"},
        {"steps": [{"name": "start", "kind": "end", "policy": 3}], "start": "start", "end": "start"},
        {"steps": [{"name": "start", "kind": "end"}], "start": "begin", "end": "start"},
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(plain: dict[str, Any]) -> None:
    """With what is wrong, and always by the same error."""
    with pytest.raises(ValueError, match="graph"):
        Graph.from_plain(plain)


def test_the_parents_of_a_step_are_in_the_order_of_the_source() -> None:
    """Those that name it in `self.next`."""
    graph = _graph([Node("a", "linear", ("end",)), Node("b", "linear", ("a",))], "")
    assert graph.parents("end") == ("a", "start")
    assert graph.parents("start") == ()
    assert "a" in graph
    assert "c" not in graph
