"""The graph as it is read from source: kinds, order, lines, policies."""

import linecache
from typing import Any

import pytest

from evflow import FlowSpec, catch, exit_hook, resources, retry, schedule, step, timeout, trigger
from evflow.cli.flow_graph import along
from evflow.core.graph import Graph
from evflow.flow import graph_of
from evflow.flow.decorators.of_class import decorators_of, written
from evflow.flow.decorators.spec import apply_with
from evflow.flow.graph import read_graph
from evflow.flow.graph_view import graph_info
from evflow.flow.source import SourceMissing
from tests.unit import test_flow_language as language


class Rich(FlowSpec):
    """A flow of every kind
    of step.

    And more text.
    """

    @retry(times=2, seconds_between_retries=30, backoff=2, max_minutes=10)
    @step
    def start(self) -> None:
        """Begin.

        Slowly.
        """
        self.xs = [1]
        self.next(self.each, foreach="xs")

    @timeout(minutes=1, seconds=30)
    @catch(var="error")
    @step
    def each(self) -> None:
        def inner() -> None:
            other.next(self.end)

        other: Any = inner
        self.next(self.join)

    @resources(cpu=2, memory="8000", gpu=1)
    @step
    def join(self, inputs: Any) -> None:
        self.next(
            {"a": self.maybe, 2: self.split, True: self.split},
            condition="mode",
        )

    @step
    async def maybe(this) -> None:  # noqa: N805
        if this.mode:
            this.next(this.split)
        else:
            try:
                this.next(this.end)
            finally:
                pass

    @step
    def split(self) -> None:
        self.next(self.b, self.a)

    @step
    def a(self) -> None:
        self.next(self.last)

    @step
    def b(self) -> None:
        if self.mode:
            self.next(self.last)
        else:
            self.next(self.last)

    @step
    def last(self, inputs: Any) -> None:
        self.next(self.again, foreach="xs")

    @step
    def again(self) -> None:
        self.next(self.last_join)

    @step
    def last_join(self, inputs: Any) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(Rich)


def test_each_step_has_its_kind(graph: Graph) -> None:
    kinds = {name: node.kind for name, node in graph.nodes.items()}
    assert kinds == {
        "start": "foreach",
        "each": "linear",
        "join": "switch",
        "maybe": "conditional",
        "split": "split",
        "a": "linear",
        "b": "linear",
        "last": "foreach",
        "again": "linear",
        "last_join": "join",
        "end": "end",
    }


def test_steps_and_branches_are_in_the_order_of_the_source(graph: Graph) -> None:
    assert list(graph.nodes)[:3] == ["start", "each", "join"]
    assert graph["split"].out == ("b", "a")
    assert graph["maybe"].out == ("split", "end")
    assert graph.parents("split") == ("join", "maybe")


def test_a_switch_has_its_cases_as_text(graph: Graph) -> None:
    assert graph["join"].condition == "mode"
    assert graph["join"].cases == {"a": "maybe", "2": "split", "True": "split"}


def test_steps_with_a_second_argument_take_inputs(graph: Graph) -> None:
    assert [name for name, node in graph.nodes.items() if node.takes_inputs] == ["join", "last", "last_join"]


def test_texts_and_places_are_those_of_the_source(graph: Graph) -> None:
    assert graph.doc == "A flow of every kind of step."
    assert graph["start"].doc == "Begin."
    assert graph["start"].file == __file__
    assert "def start" in linecache.getline(__file__, graph["start"].line)


def test_decorators_make_the_policy(graph: Graph) -> None:
    start, each, join = (graph[name].policy for name in ("start", "each", "join"))
    assert (start.retry_times, start.retry_explicit, start.retry_delay_us) == (2, True, 30_000_000)
    assert (start.retry_backoff, start.retry_max_delay_us) == (2.0, 600_000_000)
    assert (each.timeout_us, each.catch, each.catch_var) == (90_000_000, True, "error")
    assert (join.cpu, join.memory_mb, join.gpu) == (2.0, 8000, 1)
    assert not join.retry_explicit


def test_decorators_are_shown_as_they_were_written(graph: Graph) -> None:
    assert graph["each"].decorators == ("@timeout(minutes=1, seconds=30)", "@catch(var='error')")


def test_the_plain_form_of_the_graph_has_metaflows_names() -> None:
    info = graph_info(Rich)
    assert (info["file"], info["start_step"], info["end_step"], info["parameters"]) == ("test_graph_source.py", "start", "end", [])
    assert info["doc"] == "A flow of every kind\nof step.\n\nAnd more text."
    start, join = info["steps"]["start"], info["steps"]["join"]
    assert (start["type"], start["next"], start["foreach_artifact"]) == ("split-foreach", ["each"], "xs")
    assert (start["doc"], start["source_file"]) == ("Begin.\n\nSlowly.", __file__)
    [decorator] = start["decorators"]
    assert (decorator["name"], decorator["statically_defined"]) == ("retry", True)
    assert decorator["attributes"]["times"] == 2
    assert (join["type"], join["condition"], join["switch_cases"]["a"]) == ("split-switch", "mode", "maybe")


def test_decorators_of_the_class_are_in_the_graph_in_their_order() -> None:
    def tell() -> None: ...

    @schedule(hourly=True)
    @trigger(event={"name": "data", "parameters": {"n": "count"}})
    @exit_hook(on_error=[tell])
    class Planned(Rich):
        pass

    shown = graph_info(Planned)["decorators"]
    assert [(one["name"], one["statically_defined"]) for one in shown] == [("schedule", True), ("trigger", True), ("exit_hook", True)]
    assert (shown[0]["attributes"]["hourly"], shown[1]["attributes"]["event"]["name"]) == (True, "data")
    assert [written(one).rpartition("<locals>.")[2] for one in decorators_of(Planned)] == [
        "@schedule(hourly=True)", "@trigger(event={'name': 'data', 'parameters': {'n': 'count'}})", "tell])",
    ]  # fmt: skip
    assert graph_info(Rich)["decorators"] == []


def test_the_graph_survives_its_way_through_an_event(graph: Graph) -> None:
    assert Graph.from_plain(graph.to_plain()) == graph


def test_with_adds_to_the_graph_of_its_class_only() -> None:
    class Copy(Rich):
        pass

    apply_with(Copy, ["retry:times=7,minutes_between_retries=0"])
    assert graph_of(Copy)["end"].policy.retry_times == 7
    assert graph_of(Copy)["start"].policy.retry_times == 2
    assert graph_of(Rich)["end"].policy.retry_times == 0


def test_inherited_steps_are_read_from_their_own_files() -> None:
    class Elsewhere(language.Base):
        @step
        def work(self) -> None:
            self.next(self.more)

        @step
        def more(self) -> None:
            self.next(self.end)

    graph = graph_of(Elsewhere)
    assert {name: node.file for name, node in graph.nodes.items()} == {
        "start": language.__file__,
        "work": __file__,
        "end": language.__file__,
        "more": __file__,
    }


CELL = """
from evflow import FlowSpec, step
class Celled(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        pass
"""


def test_a_flow_of_a_notebook_cell_is_read_through_linecache(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<ipython-input-1-abc>"
    monkeypatch.setitem(linecache.cache, name, (len(CELL), None, CELL.splitlines(keepends=True), name))
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL, name, "exec"), space)
    assert graph_of(space["Celled"])["start"].out == ("end",)


def test_a_flow_without_source_says_so() -> None:
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec(compile(CELL, "<string>", "exec"), space)
    with pytest.raises(SourceMissing, match="source of step start cannot be found: it was defined in <string>"):
        graph_of(space["Celled"])


def test_a_step_under_a_wrapping_decorator_is_read() -> None:
    import functools

    def noisy(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return function(*arguments)

        return wrapper

    class Wrapped(FlowSpec):
        @noisy
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    assert graph_of(Wrapped)["start"].out == ("end",)


def test_a_file_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ast

    read_graph(Rich)
    monkeypatch.delattr(ast, "parse")
    read_graph(Rich)


def test_steps_are_shown_along_the_graph_wherever_they_are_defined() -> None:
    class Base(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.fit)

        @step
        def end(self) -> None:
            pass

    class Child(Base):
        @step
        def join(self, inputs: Any) -> None:
            self.next(self.end)

        @step
        def b(self) -> None:
            self.next(self.join)

        @step
        def a(self) -> None:
            self.next(self.join)

        @step
        def fit(self) -> None:
            self.next(self.a, self.b)

    assert along(read_graph(Child)) == ["start", "fit", "a", "b", "join", "end"]
