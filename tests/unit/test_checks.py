"""The checks of a flow's steps and of where they lead: one message for each mistake, at its line, with what to do."""

import linecache
from typing import Any

import pytest

from evflow import FlowSpec, Parameter, step, timeout
from evflow.errors import UsageError
from evflow.flow import graph_of
from evflow.flow.checks import FlowInvalid, check
from tests.unit import test_flow_language as language
from tests.unit.checks_world import Ends, line_of, only
from tests.unit.test_graph_source import Rich


@pytest.mark.parametrize(
    "cls",
    [language.Linear, language.Branches, language.Nested, language.Switch, language.Loop, language.Base, language.Derived, Rich],
    ids=lambda cls: cls.__name__,
)
def test_a_sound_flow_has_no_problems(cls: type) -> None:
    assert check(cls) == []


def test_a_flow_without_steps() -> None:
    class Flow(FlowSpec):
        def start(self) -> None:
            pass

    assert only(Flow).message == "Flow Flow has no steps."
    assert line_of(only(Flow)) == "class Flow(FlowSpec):"


def test_a_flow_without_start() -> None:
    class Flow(Ends):
        @step
        def begin(self) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "Your flow must have exactly one start step."
    assert problem.hint == "Either name a step 'start' or use @step(start=True)."
    assert line_of(problem) == "class Flow(Ends):"


def test_a_flow_without_end() -> None:
    class Flow(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.stop)

        @step
        def stop(self) -> None:
            pass

    assert only(Flow).message == "Your flow must have exactly one end step."


def test_a_flow_with_two_starts() -> None:
    class Flow(Ends):
        @step(start=True)
        def one(self) -> None:
            self.next(self.two)

        @step(start=True)
        def two(self) -> None:
            self.next(self.end)

    assert only(Flow).message == "Your flow must have exactly one start step. It has 2: one, two."


def test_an_unreachable_step() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def orphan(self) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "Step orphan is unreachable from the entry step start."
    assert line_of(problem) == "def orphan(self) -> None:"


def test_a_step_without_next() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            pass

    assert only(Flow).message == "Step start is missing a self.next() transition to the next step."
    assert line_of(only(Flow)) == "def start(self) -> None:"


def test_a_next_inside_a_nested_function_does_not_count() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            def later() -> None:
                self.next(self.end)

            later()

    assert only(Flow).code == "no-next"


def test_an_unknown_step_is_guessed() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.ende)

    problem = only(Flow)
    assert problem.message == "Step start specifies a self.next() transition to an unknown step, ende."
    assert "Did you mean 'end'?" in problem.hint
    assert line_of(problem) == "self.next(self.ende)"


def test_a_next_to_a_method_that_is_no_step() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.helper)

        def helper(self) -> None:
            pass

    assert only(Flow).hint == "Mark it with @step, or name a step."


def test_a_split_that_is_not_joined() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, self.b)

        @step
        def a(self) -> None:
            self.next(self.c)

        @step
        def b(self) -> None:
            self.next(self.c)

        @step
        def c(self) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "The terminal step end was reached before a split started at step(s) start were joined."
    assert line_of(problem) == "self.next(self.end)"


def test_a_split_whose_branches_all_lead_to_the_end_lacks_one_join() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, self.b)

        @step
        def a(self) -> None:
            self.next(self.end)

        @step
        def b(self) -> None:
            self.next(self.end)

    assert [problem.code for problem in check(Flow)] == ["split-not-joined"]


def test_a_foreach_right_into_the_end() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end, foreach="xs")

    assert only(Flow).code == "split-not-joined"


def test_a_join_without_a_split() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a)

        @step
        def a(self, inputs: Any) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "Step a seems like a join step (it takes an extra input argument) but it is not preceded by a split."
    assert line_of(problem) == "def a(self, inputs: Any) -> None:"


def test_a_split_right_into_a_join() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, foreach="xs")

        @step
        def a(self, inputs: Any) -> None:
            self.next(self.end)

    assert only(Flow).code == "split-to-join"


def test_a_switch_to_a_join() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, foreach="xs")

        @step
        def a(self) -> None:
            self.next({"x": self.join, "y": self.a}, condition="x")

        @step
        def join(self, inputs: Any) -> None:
            self.next(self.end)

    assert only(Flow).message == "Step a switches to join, which is a join step (it takes inputs)."


def test_an_end_with_inputs() -> None:
    class Flow(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.a, self.b)

        @step
        def a(self) -> None:
            self.next(self.end)

        @step
        def b(self) -> None:
            self.next(self.end)

        @step
        def end(self, inputs: Any) -> None:
            pass

    assert only(Flow).message == "The terminal step end should not be a join step (it gets an extra argument)."


def test_an_end_that_goes_on() -> None:
    class Flow(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            self.next(self.start)

    assert only(Flow).code == "end-goes-on"


def test_a_start_with_inputs() -> None:
    class Flow(Ends):
        @step
        def start(self, inputs: Any) -> None:
            self.next(self.end)

    assert only(Flow).code == "start-join"


def test_a_step_with_three_arguments() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a)

        @step
        def a(self, inputs: Any, more: Any) -> None:
            self.next(self.end)

    assert only(Flow).message == "Step a takes 3 arguments."


def test_a_step_that_yields() -> None:
    class Flow(Ends):
        @step
        def start(self) -> Any:
            yield 1
            self.next(self.end)

    assert only(Flow).code == "step-generator"


def test_a_bad_name_of_a_step() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.Foo)

        @step
        def Foo(self) -> None:  # noqa: N802
            self.next(self.end)

    assert only(Flow).message == "Step Foo has an invalid name."


@pytest.mark.parametrize("name", ["name", "next", "input", "index", "cmd", "foreach_stack"])
def test_a_reserved_name_of_a_step(name: str) -> None:
    def body(self: Any) -> None:
        self.next(self.end)

    body.__name__ = name
    Flow = type("Flow", (language.Linear,), {name: step(body)})  # noqa: N806
    problems = [problem for problem in check(Flow) if problem.code == "step-name-reserved"]
    assert [problem.message for problem in problems] == [f"Step name '{name}' is a reserved word."]


def test_branches_that_reach_different_joins() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, self.b)

        @step
        def a(self) -> None:
            self.next(self.one)

        @step
        def b(self) -> None:
            self.next(self.two)

        @step
        def one(self, inputs: Any) -> None:
            self.next(self.end)

        @step
        def two(self, inputs: Any) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "The branches of the split at step start reach different joins: a reaches one; b reaches two."
    assert line_of(problem) == "self.next(self.a, self.b)"


def test_branches_that_can_reach_one_join_are_left_to_the_run() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a, self.b)

        @step
        def a(self) -> None:
            if self.x:
                self.next(self.one)
            else:
                self.next(self.two)

        @step
        def b(self) -> None:
            self.next(self.two)

        @step
        def one(self, inputs: Any) -> None:
            self.next(self.end)

        @step
        def two(self, inputs: Any) -> None:
            self.next(self.end)

    assert check(Flow) == []


def test_a_loop_out_of_its_split() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.before)

        @step
        def before(self) -> None:
            self.next(self.each, foreach="xs")

        @step
        def each(self) -> None:
            if self.x:
                self.next(self.before)
            else:
                self.next(self.join)

        @step
        def join(self, inputs: Any) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "Step each goes back to before, which comes before the split at step before is joined."
    assert line_of(problem) == "self.next(self.before)"


def test_a_loop_behind_the_join_may_go_back_before_the_split() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.each, foreach="xs")

        @step
        def each(self) -> None:
            self.next({"again": self.each, "done": self.join_soon}, condition="x")

        @step
        def join_soon(self) -> None:
            self.next(self.join)

        @step
        def join(self, inputs: Any) -> None:
            if self.x:
                self.next(self.start)
            else:
                self.next(self.end)

    assert check(Flow) == []


def test_a_loop_without_an_exit() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            if self.x:
                self.next(self.end)
            else:
                self.next(self.a)

        @step
        def a(self) -> None:
            self.next(self.b)

        @step
        def b(self) -> None:
            self.next(self.a)

    assert only(Flow).message == "There is a loop in your flow without an exit: a->b->a."


def test_a_loop_that_nothing_leaves_is_one_mistake_though_the_end_is_never_reached() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.a)

        @step
        def a(self) -> None:
            self.next(self.a)

    assert [problem.code for problem in check(Flow)] == ["loop-without-exit"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("self.next()", "self.next() names no step"),
        ("self.next(self.end, foreach=[1])", "foreach takes the name of an artifact as a string"),
        ("self.next(self.end, self.start, foreach='x')", "foreach leads to one step, not to 2"),
        ("self.next(self.end, self.end)", "self.next() names a step twice"),
        ("self.next(getattr(self, 'end'))", "self.next() can be read only where it names steps as self.<step>"),
        ("self.next(*self.targets)", "self.next() can be read only where it names steps as self.<step>"),
        ("self.next({'a': self.end})", "a switch needs the name of the variable that decides"),
        ("self.next({}, condition='x')", "the switch has no cases"),
        ("self.next({self.key: self.end}, condition='x')", "the case self.key is not a literal"),
        ("self.next({'a': end}, condition='x')", "the case 'a' does not lead to a step"),
        ("self.next(self.end, condition='x')", "condition= needs a dict of cases"),
        ("self.next({'a': self.end}, condition='x', foreach='y')", "self.next() has a switch and a foreach"),
        ("self.next(self.end, num_parallel=0)", "num_parallel=0 is no number of nodes"),
        ("self.next(self.end, num_parallel='2')", "num_parallel='2' is no number of nodes"),
        ("self.next(self.end, num_parallel=2, foreach='x')", "self.next() has num_parallel and another option"),
        ("self.next(self.end, self.start, num_parallel=2)", "num_parallel leads to one step, written as self.<step>, not to 2"),
        ("self.next(self.end, foreech='x')", "self.next() does not take foreech"),
    ],
)
def test_a_wrong_form_of_next(call: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"class Flow(FlowSpec):\n  @step\n  def start(self):\n    {call}\n  @step\n  def end(self):\n    pass\n"
    name = f"<cell {call}>"
    monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
    space: dict[str, Any] = {"FlowSpec": FlowSpec, "step": step, "__name__": "cell"}
    exec(compile(text, name, "exec"), space)
    [problem] = check(space["Flow"])
    assert problem.message == f"Step start: {message}."
    assert (problem.code, problem.line, problem.step) == ("next-form", 4, "start")
    assert problem.hint


def test_all_problems_are_found_at_once_in_the_order_of_the_source() -> None:
    class Flow(FlowSpec):
        tags = Parameter("tags")

        @step
        def start(self) -> None:
            self.next(self.nowhere)

        @timeout()
        @step
        def work(self) -> None:
            pass

        @step
        def end(self, inputs: Any) -> None:
            pass

    problems = check(Flow)
    assert [problem.code for problem in problems] == ["parameter-reserved", "unknown-step", "decorator-value", "no-next", "end-join"]
    with pytest.raises(FlowInvalid) as caught:
        graph_of(Flow)
    assert isinstance(caught.value, UsageError)
    assert caught.value.problems == problems
    assert str(problems[0]) in caught.value.message
    assert f"{__file__}:{problems[0].line}: " in caught.value.message
    assert "4 more problems" in caught.value.message
