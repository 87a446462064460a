"""Limits that span runs: what needs which name, and what flows and operators may say."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow import FlowSpec, Parameter, concurrency, limit, step
from evflow.core import limits
from evflow.core.graph import Graph, Node, Policy
from evflow.core.limits import Limit, RunLimit
from evflow.core.state import RunState, Task
from evflow.flow.checks import check
from evflow.flow.decorators.base import DecoratorInvalid
from evflow.flow.decorators.limit import Concurrency, concurrency_of
from evflow.flow.decorators.spec import from_spec
from evflow.flow.graph import read_graph


def state_of(own: dict[str, int], tags: tuple[str, ...] = (), **options: Any) -> RunState:
    graph = Graph({"start": Node("start", "end", policy=Policy(limits=own))}, end="start")
    return RunState(flow="Train", graph=graph, header={"tags": tags, "namespace": "user:ada"}, options=options)


def task_of(state: RunState) -> Task:
    return Task(1, "start", 0, None, {"start": 1}, 0)


def test_an_attempt_needs_what_its_step_says_and_what_the_operator_limits() -> None:
    state = state_of({"db": 2, "gpu": 1}, ("nightly", "big"))
    table = {"key:db": 5, "flow:Train": 3, "step:Train/start": 2, "step:Train/other": 1, "tag:big": 1, "tag:else": 1, "flow:Other": 1}
    assert limits.of_attempt(state, task_of(state), {}) == (Limit("key:db", 2), Limit("key:gpu", 1))
    assert limits.of_attempt(state, task_of(state), table) == (
        Limit("flow:Train", 3), Limit("key:db", 5), Limit("key:gpu", 1), Limit("step:Train/start", 2), Limit("tag:big", 1),
    )  # fmt: skip
    pooled = RunState(
        flow="Train", graph=Graph({"start": Node("start", "end", policy=Policy(executor="pool:gpu"))}, end="start"), header=state.header
    )
    assert limits.of_attempt(pooled, task_of(pooled), {"pool:gpu": 2, "pool:cpu": 1}) == (Limit("pool:gpu", 2),)
    assert limits.of_attempt(state, task_of(state), {"pool:gpu": 2})[1:] == (Limit("key:gpu", 1),)
    assert limits.of_attempt(state, task_of(state), {"namespace:user:ada": 4})[-1] == Limit("namespace:user:ada", 4)


def test_a_run_needs_what_its_flow_or_the_operator_says_of_runs() -> None:
    said = {"at_most": 2, "when_busy": "skip", "key": "ada"}
    assert limits.of_run(state_of({}), {}) is None
    assert limits.of_run(state_of({}), {"runs:Train": 3}) == RunLimit(Limit("runs:Train", 3), "queue")
    assert limits.of_run(state_of({}, runs=said), {"runs:Train": 3}) == RunLimit(Limit("runs:Train:ada", 2), "skip")
    assert limits.of_run(state_of({}, runs={**said, "key": None}), {"runs:Train": 3}) == RunLimit(Limit("runs:Train", 3), "skip")


def test_keys_get_the_values_of_the_parameters_that_they_name() -> None:
    graph = Graph({"start": Node("start", "end", policy=Policy(limits={"db-{who}": 2, "gpu": 1}, cpu=2))}, end="start").to_plain()
    options = {"max_workers": 3, "runs": {"at_most": 1, "when_busy": "queue", "key": "{who}-{day}"}}
    filled, other = limits.resolved(graph, options, {"who": "ada", "day": "5"})
    assert Graph.from_plain(filled)["start"].policy == Policy(limits={"db-ada": 2, "gpu": 1}, cpu=2)
    assert other == {"max_workers": 3, "runs": {"at_most": 1, "when_busy": "queue", "key": "ada-5"}}
    assert options["runs"] == {"at_most": 1, "when_busy": "queue", "key": "{who}-{day}"}
    assert limits.resolved(filled, {}, {}) == (filled, {})


@given(st.text())
def test_a_name_is_a_limit_or_the_fault_says_why(name: str) -> None:
    wrong = limits.fault(name)
    assert (wrong is None) == (limits.fault(name) is None)
    if wrong is None:
        kind, _, rest = name.partition(":")
        assert kind in limits.KINDS
        assert rest


@pytest.mark.parametrize(("name", "text"), [("db", "names no limit"), ("flow:", "names no limit"), ("step:Train", "names no step")])
def test_what_names_no_limit_is_said(name: str, text: str) -> None:
    assert text in (limits.fault(name) or "")


@pytest.mark.parametrize("key", ["{", "{a b}", "{a!r}", "{a:5}", "{}", "{a.b}", "{0}"])
def test_braces_hold_a_parameter_s_name_and_nothing_else(key: str) -> None:
    with pytest.raises(ValueError, match=r"brace|expected|Single"):
        limits.placeholders(key)


@concurrency(at_most=2, when_busy="skip", key="{who}")
class Sound(FlowSpec):
    who = Parameter("who", default="ada")

    @limit("db-{who}", at_most=3)
    @limit("gpu")
    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_several_limits_of_a_step_are_one_policy() -> None:
    assert check(Sound) == []
    assert read_graph(Sound)["start"].policy.limits == {"db-{who}": 3, "gpu": 1}
    assert concurrency_of(Sound) == {"at_most": 2, "when_busy": "skip", "key": "{who}"}
    assert concurrency_of(type("Inherits", (Sound,), {})) == concurrency_of(Sound)
    assert concurrency_of(FlowSpec) is None
    assert from_spec("limit:key=db,at_most=2").policy() == {"limits": {"db": 2}}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"at_most": 0}, "at_most is 0"),
        ({"at_most": True}, "at_most is True"),
        ({"when_busy": "wait"}, "when_busy is 'wait': it is one of queue, skip, cancel"),
        ({"key": ""}, "the key is ''"),
        ({"key": "{"}, "@concurrency: "),
    ],
)
def test_what_a_flow_cannot_say_of_its_runs_is_told(fields: dict[str, object], text: str) -> None:
    [mistake] = Concurrency(fields).mistakes()
    assert text in mistake


@concurrency(at_most=1)
@concurrency(at_most=2)
class Unsound(FlowSpec):
    who = Parameter("who", default="ada")

    @limit("db", at_most=3)
    @limit("gpu-{whom}")
    @limit("", at_most=1)
    @step
    def start(self) -> None:
        self.next(self.end)

    @limit("db", at_most=2)
    @step
    def end(self) -> None:
        pass


def test_mistakes_are_told_at_their_lines() -> None:
    found = {problem.code: problem for problem in check(Unsound)}
    assert set(found) == {"concurrency", "limit-differs", "limit-parameter", "decorator-value"}
    assert "@concurrency 2 times" in found["concurrency"].message
    assert found["limit-differs"].message == "@limit('db') lets 3 attempts run at once, and 2 on step end."
    assert found["limit-parameter"].message == "The key 'gpu-{whom}' names 'whom', which is no parameter of the flow."
    assert "Did you mean 'who'" in found["limit-parameter"].hint
    lines = Path(__file__).read_text().splitlines()
    assert lines[found["limit-differs"].line - 1].strip() == '@limit("db", at_most=2)'


def test_concurrency_stands_on_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(DecoratorInvalid, match="not a flow's class"):
        concurrency(at_most=1)(lambda: None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_a_limit_without_a_key_does_not_swallow_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    bare: Any = limit
    with pytest.raises(DecoratorInvalid, match=r"@limit has no key \(.*test_limits.py:\d+\).*\n.*Write @limit"):
        bare(step(test_a_limit_without_a_key_does_not_swallow_its_step))
    with pytest.raises(DecoratorInvalid, match=r"@limit has no key \(.*test_limits.py:\d+\)"):
        limit()
