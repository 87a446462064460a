"""The checks of a flow: one message for each mistake, at its line, with what to do."""

import linecache
from typing import Any

import pytest

from evflow import (
    FlowSpec,
    Parameter,
    batch,
    cached,
    catch,
    environment,
    kubernetes,
    parallel,
    pool,
    pytorch_parallel,
    resources,
    retry,
    schedule,
    step,
    timeout,
)
from evflow.errors import UsageError
from evflow.flow import graph_of
from evflow.flow.checks import FlowInvalid, Problem, check
from tests.unit import test_flow_language as language
from tests.unit.test_graph_source import Rich


class Ends(FlowSpec):
    """A base with the step that most flows here have."""

    @step
    def end(self) -> None:
        pass


def only(cls: type) -> Problem:
    """The one problem of a flow, which has its place."""
    problems = check(cls)
    assert [problem.code for problem in problems] == [problems[0].code]
    assert problems[0].file == __file__
    assert problems[0].hint
    return problems[0]


def line_of(problem: Problem) -> str:
    return linecache.getline(problem.file, problem.line).strip()


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


def test_catch_on_a_step_whose_way_on_is_unclear() -> None:
    class Flow(Ends):
        @catch
        @step
        def start(self) -> None:
            self.next(self.each, foreach="xs")

        @catch
        @step
        def each(self) -> None:
            if self.x:
                self.next(self.other)
            else:
                self.next(self.join)

        @catch
        @step
        def other(self) -> None:
            self.next({"a": self.each, "b": self.each}, condition="x")

        @catch
        @step
        def join(self, inputs: Any) -> None:
            self.next(self.end)

    problems = check(Flow)
    assert [problem.step for problem in problems] == ["start", "each", "other"]
    assert [problem.code for problem in problems] == ["catch-unclear"] * 3
    assert "leads to a foreach" in problems[0].message
    assert "has 2 calls of self.next()" in problems[1].message
    assert all(line_of(problem) == "@catch" for problem in problems)


def test_catch_on_a_static_split_is_clear() -> None:
    class Flow(language.Branches):
        @catch
        @step
        def start(self) -> None:
            self.next(self.left, self.right)

    assert check(Flow) == []


@pytest.mark.parametrize(
    ("var", "what"), [("end", "a step"), ("size", "a parameter or a constant"), ("input", "a word of the flow language")]
)
def test_catch_keeps_the_exception_where_a_step_may_write(var: str, what: str) -> None:
    class Flow(Ends):
        size = 3

        @catch(var=var)
        @step
        def start(self) -> None:
            self.next(self.end)

    [problem] = check(Flow)
    assert problem.code == "catch-var-fixed"
    assert problem.message == f"Step start: @catch keeps the exception in '{var}', which is {what} and cannot be set."


@pytest.mark.parametrize(
    ("decorator", "message"),
    [
        (retry(times=-1), "@retry takes a whole number of at least 0 as times, not -1"),
        (retry(times=1.5), "@retry takes a whole number of at least 0 as times, not 1.5"),  # type: ignore[call-overload]
        (retry(backoff=0.5), "@retry takes a number of at least 1 as backoff, not 0.5"),
        (retry(seconds_between_retries=-1), "@retry takes a number of at least 0 as seconds_between_retries, not -1"),
        (timeout(), "Specify a duration for @timeout"),
        (timeout(minutes=-1), "@timeout takes a number of at least 0 as minutes, not -1"),
        (catch(var="not a name"), "@catch takes the name of an artifact as var, not 'not a name'"),
        (timeout(hours=float("inf")), "@timeout takes a number of at most 1,000,000,000 as hours, not inf"),
        (retry(times=10**23), "@retry takes a whole number of at most 1,000,000,000 as times, not 1"),
        (resources(memory="inf"), "@resources takes a number of at most 1,000,000,000 as memory, not 'inf'"),
        (resources(gpu=10**400), "@resources takes a number of at least 0 as gpu, not 1"),
        (resources(cpu="many"), "@resources takes a number of at least 0 as cpu, not 'many'"),
        (environment(vars={"A": None}), "@environment takes a string as the value of A, not None"),  # type: ignore[dict-item]
        (environment(vars={"A=B": "x"}), "@environment cannot set a variable named 'A=B'"),
    ],
)
def test_a_wrong_value_of_a_decorator(decorator: Any, message: str) -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end)

    decorator(Flow.start)
    [problem] = check(Flow)
    assert problem.message.startswith(f"Step start: {message}")
    assert problem.file == __file__


def test_a_step_for_two_executors() -> None:
    class F(FlowSpec):
        @batch(cpu=1)
        @kubernetes(cpu=1)
        @step
        def start(self) -> None:
            pass

    problem = only(F)
    assert problem.code == "decorators-differ"
    assert problem.message == "Step start is meant for AWS Batch and for Kubernetes."
    assert problem.hint == "Keep one of them."


def test_a_decorator_that_stands_there_twice() -> None:
    class Flow(Ends):
        @retry(times=1)
        @timeout(seconds=1)
        @retry(times=2)
        @step
        def start(self) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "Step start has the decorator @retry twice."
    assert line_of(problem) == "@retry(times=2)"


def test_a_decorator_on_what_is_no_step() -> None:
    class Flow(language.Linear):
        @retry
        def helper(self) -> None:
            pass

    problem = only(Flow)
    assert problem.message == "@retry is on helper, which is not a step."
    assert line_of(problem) == "@retry"


def test_a_decorator_below_step() -> None:
    class Flow(Ends):
        @step
        @retry(times=1)
        def start(self) -> None:
            self.next(self.end)

    problem = only(Flow)
    assert problem.message == "@retry stands below @step."
    assert problem.step == "start"


def test_problems_of_parameters() -> None:
    class Flow(language.Linear):
        alpha = Parameter("alpha", default=1)
        other = Parameter("Alpha", default=1)
        tag = Parameter("tag")
        workers = Parameter("max-workers")
        bad = Parameter("no good")
        rate = Parameter("rate", default="fast", type=float)
        kind = Parameter("kind", type=complex)
        parts = Parameter("parts", type=int, separator=",")
        size = Parameter("size", defualt=3, metavar="N")

    problems = check(Flow)
    assert [(problem.code, line_of(problem).split(" ")[0]) for problem in problems] == [
        ("parameter-clash", "other"),
        ("parameter-reserved", "tag"),
        ("parameter-reserved", "workers"),
        ("parameter-name", "bad"),
        ("parameter-default", "rate"),
        ("parameter-type", "kind"),
        ("parameter-separator", "parts"),
        ("parameter-field", "size"),
    ]
    assert problems[7].message == "Parameter 'size' has no field 'defualt'."
    assert problems[7].hint.endswith("Did you mean 'default'?")


def test_a_flag_is_true_or_false() -> None:
    class Flow(language.Linear):
        fine = Parameter("fine", default=False, is_flag=True)
        off = Parameter("off", default="text", is_flag=False)
        late = Parameter("late", type=bool, is_flag=True)
        loud = Parameter("loud", default="very", is_flag=True)

    problem = only(Flow)
    assert problem.code == "parameter-flag"
    assert problem.message == "Parameter 'loud' is a flag, and its type is not bool."


def test_a_parameter_in_an_attribute_of_the_flow_language() -> None:
    flow = type("Flow", (language.Linear,), {"next": Parameter("following", default=1)})
    [problem] = check(flow)
    assert problem.message == "Parameter 'following' is in the attribute 'next', which the flow language uses itself."


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


def test_a_schedule_that_is_none_is_told_at_its_line() -> None:
    @schedule(cron="0 25 * * *")
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end)

    (problem,) = check(Flow)
    assert problem.message == "@schedule: The cron expression '0 25 * * *' cannot be read: bad hour."
    assert (problem.code, line_of(problem)) == ("schedule", '@schedule(cron="0 25 * * *")')
    assert problem.file == __file__


def test_two_schedules_are_one_too_many() -> None:
    @schedule(hourly=True)
    @schedule(daily=True)
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end)

    (problem,) = check(Flow)
    assert problem.message == "Flow Flow has @schedule 2 times: keep one of them."


def test_a_flow_with_a_schedule_is_sound() -> None:
    @schedule(weekly=True, timezone="Europe/Berlin", catch_up="all")
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.end)

    assert check(Flow) == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("@parallel|train|self.next(self.join)|self.next(self.train)", "parallel-without-gang", "Step train is @parallel, and step start leads to it without num_parallel."),
        ("@parallel|train|self.next(self.join)|self.next(self.train, foreach='xs')", "parallel-without-gang", "Step train is @parallel, and step start leads to it without num_parallel."),
        ("|train|self.next(self.join)|self.next(self.train, num_parallel=2)", "gang-not-parallel", "Step start leads to train with num_parallel, and train has no @parallel."),
        ("@parallel|train|self.next(self.more)|self.next(self.train, num_parallel=2)", "gang-not-joined", "Step train is @parallel and leads to more, which is no join."),
        ("@pytorch_parallel|train|self.next({'a': self.more, 'b': self.other}, condition='x')|self.next(self.train, num_parallel=2)", "gang-chooses", "Step train is @pytorch_parallel and a switch: its nodes would go different ways."),
        ("@pool @parallel|train|self.next(self.join)|self.next(self.train, num_parallel=2)", "gang-in-pool", "Step train is @parallel and @pool: the nodes of a gang run on one machine or on Kubernetes."),
        ("@cached @parallel|train|self.next(self.join)|self.next(self.train, num_parallel=2)", "gang-cached", "Step train is @parallel and @cached: nodes whose results were kept would not be there for those that run."),
        ("@parallel|train|self.next(self.join)|self.next(self.join, num_parallel=self.n)", "split-to-join", "Step start splits right into join, which is a join step (it takes inputs)."),
    ],
)  # fmt: skip
def test_a_gang_that_cannot_be(body: str, code: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message for each, with what to do."""
    above, step_name, leads, start = body.split("|")
    lines = ["class Flow(FlowSpec):", "  @step", "  def start(self):", f"    {start}"]
    lines += [f"  {one}" for one in above.split()] + ["  @step", f"  def {step_name}(self):", f"    {leads}"]
    for name, leads_to in (("more", "join"), ("other", "join")):
        if f"self.{name}" in leads:
            lines += ["  @step", f"  def {name}(self):", f"    self.next(self.{leads_to})"]
    lines += ["  @step", "  def join(self, inputs):", "    self.next(self.end)", "  @step", "  def end(self):", "    pass"]
    text = "\n".join(lines) + "\n"
    cell = f"<cell {hash(text)}>"
    monkeypatch.setitem(linecache.cache, cell, (len(text), None, text.splitlines(keepends=True), cell))
    space: dict[str, Any] = {
        "FlowSpec": FlowSpec,
        "step": step,
        "parallel": parallel,
        "pytorch_parallel": pytorch_parallel,
        "pool": pool,
        "cached": cached,
    }
    space["__name__"] = "cell"
    exec(compile(text, cell, "exec"), space)
    assert [(problem.code, problem.message) for problem in check(space["Flow"])] == [(code, message)]


def test_a_gang_in_a_foreach_is_sound() -> None:
    class Flow(Ends):
        @step
        def start(self) -> None:
            self.next(self.each, foreach="xs")

        @step
        def each(self) -> None:
            self.next(self.train, num_parallel=len(self.xs))

        @parallel
        @step
        def train(self) -> None:
            self.next(self.gather)

        @step
        def gather(self, inputs: Any) -> None:
            self.next(self.join)

        @step
        def join(self, inputs: Any) -> None:
            self.next(self.end)

    assert check(Flow) == []
    graph = Flow(use_cli=False)._graph
    assert (graph["each"].type, graph["each"].parallel_foreach, graph["train"].parallel_step) == ("foreach", True, True)
    assert graph["train"].split_parents == ["start", "each"]
