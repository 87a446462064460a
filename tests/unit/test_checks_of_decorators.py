"""The checks of decorators, parameters and gangs: one message for each mistake, at its line, with what to do."""

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
from evflow.flow.checks import check
from tests.unit import test_flow_language as language
from tests.unit.checks_world import Ends, line_of, only


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
