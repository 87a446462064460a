"""What a flow's author writes, and which steps run with which values."""

from collections.abc import Callable
from typing import Any

import pytest

from evflow import FlowSpec, Parameter, step
from evflow.exception import InvalidNextException, SwitchValueUnknown
from evflow.flow.execution import instantiate, run_step
from tests.unit.flow_world import run_flow, stored


class Linear(FlowSpec):
    @step
    def start(self) -> None:
        self.x = [1]
        self.next(self.middle)

    @step
    def middle(self) -> None:
        self.x.append(2)
        self.next(self.end)

    @step
    def end(self) -> None:
        self.y = sum(self.x)


def test_a_linear_flow_hands_its_artifacts_on() -> None:
    world = run_flow(Linear)
    assert world.steps() == ["start", "middle", "end"]
    assert world.task("start")["x"] == [1]
    assert world.task("end")["x"] == [1, 2]
    assert world.task("end")["y"] == 3


class Branches(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.left, self.right)

    @step
    def left(self) -> None:
        self.side = "l"
        self.next(self.join)

    @step
    def right(self) -> None:
        self.side = "r"
        self.next(self.again)

    @step
    def again(self) -> None:
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.sides = [each.side for each in inputs]
        self.named = (inputs.left.side, inputs.again.side)
        self.index_here = self.index
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_static_split_joins_in_the_order_of_the_source() -> None:
    world = run_flow(Branches)
    assert world.task("end")["sides"] == ["l", "r"]


def test_inputs_of_a_join_are_named_after_the_last_step_of_their_branch() -> None:
    world = run_flow(Branches)
    assert world.task("end")["named"] == ("l", "r")


class Nested(FlowSpec):
    @step
    def start(self) -> None:
        self.outer_items = ["a", "b"]
        self.next(self.outer, foreach="outer_items")

    @step
    def outer(self) -> None:
        self.letter = self.input
        self.numbers = range(2)
        self.next(self.inner, foreach="numbers")

    @step
    def inner(self) -> None:
        self.stack = self.foreach_stack()
        self.where = (self.letter, self.input, self.index)
        self.next(self.deeper)

    @step
    def deeper(self) -> None:
        self.same = self.input == self.where[1]
        self.next(self.join_inner)

    @step
    def join_inner(self, inputs: Any) -> None:
        self.wheres = [each.where for each in inputs]
        self.inputs_know = [(each.index, each.input, each.foreach_stack()) for each in inputs]
        self.mine = (self.index, self.input)
        self.next(self.join_outer)

    @step
    def join_outer(self, inputs: Any) -> None:
        self.all = [each.wheres for each in inputs]
        self.outside = (self.index, self.input, self.foreach_stack())
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_nested_foreach_knows_its_items_at_every_depth() -> None:
    world = run_flow(Nested)
    assert world.task("inner", 3)["stack"] == [(1, 2, "b"), (1, 2, 1)]
    assert world.task("end")["all"] == [[("a", 0, 0), ("a", 1, 1)], [("b", 0, 0), ("b", 1, 1)]]


def test_input_and_index_stay_the_same_along_a_branch() -> None:
    world = run_flow(Nested)
    assert all(world.task("deeper", number)["same"] for number in range(4))


def test_a_join_stands_in_the_foreach_around_it() -> None:
    world = run_flow(Nested)
    assert world.task("join_inner", 1)["mine"] == (1, "b")
    assert world.task("join_outer")["outside"] == (None, None, [])


def test_the_inputs_of_a_join_know_their_index_and_item() -> None:
    world = run_flow(Nested)
    assert world.task("join_inner", 1)["inputs_know"] == [(0, 0, [(1, 2, "b"), (0, 2, 0)]), (1, 1, [(1, 2, "b"), (1, 2, 1)])]


class Switch(FlowSpec):
    mode = Parameter("mode", default="small")

    @step
    def start(self) -> None:
        self.next({"small": self.small, "large": self.large}, condition="mode")

    @step
    def small(self) -> None:
        self.took = "small"
        self.next(self.end)

    @step
    def large(self) -> None:
        self.took = "large"
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@pytest.mark.parametrize("mode", ["small", "large"])
def test_a_switch_runs_the_chosen_step_only(mode: str) -> None:
    assert run_flow(Switch, {"mode": mode}).steps() == ["start", mode, "end"]


def test_a_switch_on_an_unknown_value_names_value_and_cases() -> None:
    with pytest.raises(SwitchValueUnknown) as caught:
        run_flow(Switch, {"mode": "zzz"})
    assert (
        caught.value.message == "Switch condition variable 'mode' has value 'zzz' which is not in the available cases: ['small', 'large']"
    )
    assert isinstance(caught.value, RuntimeError)


def test_a_switch_on_a_value_without_a_hash_is_an_unknown_value() -> None:
    class Unhashable(FlowSpec):
        @step
        def start(self) -> None:
            self.mode = ["list"]
            self.next({"a": self.end}, condition="mode")

        @step
        def end(self) -> None:
            pass

    with pytest.raises(SwitchValueUnknown, match="list"):
        run_flow(Unhashable)


class Loop(FlowSpec):
    @step
    def start(self) -> None:
        self.count = 0
        self.next(self.grow)

    @step
    def grow(self) -> None:
        self.count += 1
        self.more = "again" if self.count < 3 else "enough"
        self.next({"again": self.grow, "enough": self.half}, condition="more")

    @step
    def half(self) -> None:
        if self.count < 5:
            self.count += 1
            self.next(self.half)
        else:
            self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_step_loops_by_switch_and_by_a_plain_condition() -> None:
    world = run_flow(Loop)
    assert world.steps() == ["start", "grow", "grow", "grow", "half", "half", "half", "end"]
    assert world.task("end")["count"] == 5


class Base(FlowSpec):
    size = Parameter("size", default=2)
    scale = 10

    @step
    def start(self) -> None:
        self.next(self.work)

    @step
    def work(self) -> None:
        self.result = 0
        self.next(self.end)

    @step
    def end(self) -> None:
        self.shown = self.helper()

    def helper(self) -> str:
        return f"{type(self).__name__} {self.result}"


class Derived(Base):
    scale = 100

    @step
    def work(self) -> None:
        self.result = self.size * self.scale
        self.next(self.end)


def test_a_flow_inherits_steps_parameters_constants_and_helpers() -> None:
    assert run_flow(Derived, {"size": "3"}).task("end")["shown"] == "Derived 300"
    assert [each.name for each in Derived(use_cli=False)] == ["start", "work", "end"]


def test_start_and_end_may_have_other_names() -> None:
    class Renamed(FlowSpec):
        @step(start=True)
        def begin(self) -> None:
            self.next(self.finish)

        @step(end=True)
        def finish(self) -> None:
            self.ok = True

    flow = instantiate(Renamed, "finish", parameters=stored())
    assert run_step(flow).transition.kind == "end"


def test_a_flow_of_one_step_ends_where_it_starts() -> None:
    class One(FlowSpec):
        @step
        def only(self) -> None:
            self.ok = True

    assert run_step(instantiate(One, "only", parameters=stored())).transition.kind == "end"


@pytest.mark.parametrize(
    "items", ["abc", range(3), {"a": 1, "b": 2, "c": 3}, (x for x in "abc"), {1, 2, 3}], ids=lambda items: type(items).__name__
)
def test_foreach_takes_whatever_a_for_loop_takes(items: Any) -> None:
    class Iterating(FlowSpec):
        @step
        def start(self) -> None:
            self.__dict__["items"] = items
            self.next(self.each, foreach="items")

        @step
        def each(self) -> None:
            pass

        @step
        def end(self) -> None:
            pass

    done = run_step(instantiate(Iterating, "start", parameters=stored()))
    assert done.transition.items is not None
    assert len(list(done.transition.items)) == 3


def said_by(body: Callable[[Any], object] | None) -> str:
    """The error of a step `start` with this body, in a flow with the steps a, b and end."""

    class Wrong(FlowSpec):
        limit = 5

        @step
        def start(self) -> None:
            assert body is not None
            body(self)

        @step
        def a(self) -> None:
            self.next(self.end)

        @step
        def b(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            self.next(self.a)

        def helper(self) -> None:
            pass

    with pytest.raises(InvalidNextException) as caught:
        run_step(instantiate(Wrong, "end" if body is None else "start", parameters=stored()))
    return str(caught.value)


def test_a_missing_next_is_told() -> None:
    assert "Step start is missing a self.next() transition to the next step." in said_by(lambda self: None)


def test_a_second_next_names_both_lines() -> None:
    text = said_by(lambda self: (self.next(self.a), self.next(self.b)))
    assert "twice" in text
    assert text.count(f"{__file__}:") == 2


def test_next_in_the_end_step_is_told() -> None:
    assert "end of the flow" in said_by(None)


def test_next_to_a_method_that_is_no_step_is_told() -> None:
    assert "Step start specifies a self.next() transition to an unknown step, helper." in said_by(lambda self: self.next(self.helper))


def test_next_without_a_step_is_told() -> None:
    assert "without a step" in said_by(lambda self: self.next())


def test_next_to_a_step_of_another_instance_is_told() -> None:
    assert "unknown step, work" in said_by(lambda self: self.next(Base(use_cli=False).work))


def test_a_missing_foreach_variable_is_told_with_the_one_that_was_meant() -> None:
    def body(self: Any) -> None:
        self.numbers = [1]
        self.next(self.a, foreach="number")

    text = said_by(body)
    assert "Foreach variable self.number in step start does not exist. Did you mean 'numbers'?" in text


def test_an_empty_foreach_is_told() -> None:
    def body(self: Any) -> None:
        self.xs = ()
        self.next(self.a, foreach="xs")

    text = said_by(body)
    assert "Foreach iterator over xs in step start produced zero splits. Check your variable." in text


def test_a_foreach_over_a_number_is_told() -> None:
    assert "cannot be iterated: it is of type int" in said_by(lambda self: self.next(self.a, foreach="limit"))


def test_a_foreach_to_two_steps_is_told() -> None:
    assert "foreach and 2 steps" in said_by(lambda self: self.next(self.a, self.b, foreach="limit"))


def test_a_foreach_over_a_value_instead_of_a_name_is_told() -> None:
    assert "takes the name" in said_by(lambda self: self.next(self.a, foreach=[1, 2]))


def test_a_switch_without_condition_is_told() -> None:
    assert "no condition=" in said_by(lambda self: self.next({"x": self.a}))


def test_a_condition_without_cases_is_told() -> None:
    assert "no cases" in said_by(lambda self: self.next(self.a, condition="limit"))


def test_a_step_named_twice_is_told() -> None:
    assert "named a step twice" in said_by(lambda self: self.next(self.a, self.a))


@pytest.mark.parametrize("nodes", [0, -1, 2.0, "4", True, [1]])
def test_a_gang_needs_a_positive_number_of_nodes_which_is_told_with_its_name_and_value(nodes: Any) -> None:
    said = said_by(lambda self: self.next(self.a, num_parallel=nodes))
    assert f"num_parallel={nodes!r}" in said
    assert "step a" in said


def test_a_gang_is_one_step_and_nothing_else() -> None:
    assert "another option" in said_by(lambda self: self.next(self.a, num_parallel=2, foreach="items"))
    assert "2 targets" in said_by(lambda self: self.next(self.a, self.b, num_parallel=2))


def test_an_inert_flow_says_that_no_step_runs() -> None:
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = Linear(use_cli=False).input


def test_the_graph_of_an_inert_flow_is_there_by_step() -> None:
    graph = Nested(use_cli=False)._graph
    assert graph["join_inner"].type == "join"
    assert graph["deeper"].in_funcs == {"inner"}
    assert graph["deeper"].split_parents == ["start", "outer"]
    assert graph["join_inner"].split_parents == ["start", "outer"]
    assert graph["start"].out_funcs == ["outer"]
    assert not graph["start"].parallel_step
