"""Decorators: their fields, and those of `--with`."""

from types import MappingProxyType
from typing import Any

import pytest

from evflow import FlowMutator, FlowSpec, concurrency, environment, pool, retry, schedule, step, timeout, trigger, trigger_on_finish
from evflow.core.schedule import Schedule
from evflow.flow.decorators import REGISTRY, decorator_class
from evflow.flow.decorators.base import DecoratorInvalid, StepDecorator
from evflow.flow.decorators.limit import concurrency_of
from evflow.flow.decorators.pool import REUSE
from evflow.flow.decorators.retry import Retry
from evflow.flow.decorators.schedule import ScheduleDecorator, mistakes as schedule_mistakes, schedule_of
from evflow.flow.decorators.spec import apply_with, from_spec
from evflow.flow.decorators.trigger import mistakes as trigger_mistakes
from evflow.flow.graph import read_graph
from evflow.flow.steps import NOWHERE, facts


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_registered_decorator_is_sound_with_its_defaults(name: str) -> None:
    kind = decorator_class(name)
    assert kind is not None
    assert kind.name == name
    needs = {
        "timeout": ["Specify a duration for @timeout, as in @timeout(minutes=5)."],
        "limit": ["@limit: the key is '': it is a text of 1 to 100 printable characters."],
    }
    assert list(kind({}).mistakes()) == needs.get(name, [])
    assert str(kind({})) == f"@{name}"


@pytest.mark.parametrize(
    ("fields", "delay_us"),
    [
        ({}, 120_000_000),
        ({"minutes_between_retries": 0}, 0),
        ({"seconds_between_retries": 30}, 30_000_000),
        ({"seconds_between_retries": 30, "minutes_between_retries": 1}, 90_000_000),
        ({"minutes_between_retries": 0.5}, 30_000_000),
    ],
)
def test_the_wait_between_retries_adds_up(fields: dict[str, object], delay_us: int) -> None:
    assert Retry(fields).policy()["retry_delay_us"] == delay_us


def test_no_more_than_four_retries_is_no_rule_here() -> None:
    assert list(Retry({"times": 100}).mistakes()) == []


def test_an_unknown_field_is_told_at_the_line_of_the_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(
        DecoratorInvalid,
        match=r"@retry has no field 'tims' \(.*test_flow_decorators.py:\d+\)\.\nIts fields are: times, .*Did you mean 'times'",
    ):
        retry(tims=3)  # type: ignore[call-overload]


def test_a_field_without_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(DecoratorInvalid, match="takes its fields by name"):
        retry(3)  # type: ignore[call-overload]


def test_a_decorator_leaves_the_function_as_it_is() -> None:
    def body(self: Any) -> None: ...

    marked = step(body)
    assert retry(marked) is body
    assert timeout(seconds=1)(marked) is body


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("retry", "retry", {}),
        ("retry:times=4", "retry", {"times": 4}),
        ("retry:times=4,minutes_between_retries=0.5", "retry", {"times": 4, "minutes_between_retries": 0.5}),
        (" timeout : seconds = 3 ", "timeout", {"seconds": 3}),
        ("catch:var=err,print_exception=False", "catch", {"var": "err", "print_exception": False}),
        ('environment:vars={"A": "x:1,2"}', "environment", {"vars": {"A": "x:1,2"}}),
        ("resources:cpu=2,memory=4000", "resources", {"cpu": 2, "memory": 4000}),
    ],
)
def test_a_spec_names_a_decorator_and_its_fields(text: str, name: str, given: dict[str, object]) -> None:
    decorator = from_spec(text)
    assert (decorator.name, decorator.given, decorator.where) == (name, given, NOWHERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "retri",
            "there is no decorator 'retri'.\nThere are: batch, cached, card, catch, conda, environment, kubernetes, limit, parallel, pool, pypi, pytorch_parallel, resources, retry, secrets, timeout. Did you mean 'retry'?",
        ),
        ("retry:4", "'4' is not of the form <field>=<value>"),
        ("retry:tims=4", "@retry has no field 'tims'"),
        ("retry:times=-4", "@retry takes a whole number of at least 0 as times, not -4"),
        ("timeout", "Specify a duration for @timeout"),
        ("", "there is no decorator ''"),
    ],
)
def test_a_wrong_spec_is_told(text: str, message: str) -> None:
    with pytest.raises(DecoratorInvalid) as caught:
        from_spec(text)
    assert message in str(caught.value)


class Flow(FlowSpec):
    @retry(times=1)
    @step
    def start(self) -> None:
        self.next(self.end)

    @environment(vars={"A": "1"})
    @step
    def end(self) -> None:
        pass


def test_with_adds_to_steps_that_lack_the_decorator_and_the_last_one_wins() -> None:
    class Copy(Flow):
        pass

    apply_with(Copy, ["retry:times=2", "timeout:seconds=5"])
    apply_with(Copy, ["retry:times=3"])
    found = {name: [str(each) for each in facts(Copy).decorators(name)] for name in facts(Copy).steps}
    assert found == {
        "start": ["@retry(times=1)", "@timeout(seconds=5)"],
        "end": ["@environment(vars={'A': …})", "@timeout(seconds=5)", "@retry(times=3)"],
    }
    assert [str(each) for each in facts(Flow).decorators("end")] == ["@environment(vars={'A': …})"]


def test_the_values_of_environment_variables_are_in_no_text_of_the_graph() -> None:
    class Secretive(Flow):
        @environment(vars={"TOKEN": "s3cret", "B": "s3cret"})
        @step
        def end(self) -> None:
            pass

    plain = read_graph(Secretive).to_plain()
    assert plain["steps"][-1]["decorators"] == ("@environment(vars={'TOKEN': …, 'B': …})",)
    assert "s3cret" not in str(plain)


def test_a_new_decorator_is_one_small_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "label", (__name__, "Label"))
    decorator = from_spec("label:text=fast")
    assert decorator.value("text") == "fast"


class Label(StepDecorator):
    name = "label"
    defaults = MappingProxyType({"text": ""})


# --- @schedule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cron"),
    [
        ({}, "0 0 * * *"),
        ({"timezone": "Europe/Berlin"}, "0 0 * * *"),
        ({"daily": True}, "0 0 * * *"),
        ({"hourly": True}, "0 * * * *"),
        ({"weekly": True}, "0 0 * * 0"),
        ({"weekly": True, "daily": False}, "0 0 * * 0"),
        ({"cron": "30 2 * * 1-5"}, "30 2 * * 1-5"),
        ({"cron": "30 2 ? * MON-FRI *"}, "30 2 * * MON-FRI"),
    ],
)
def test_a_schedule_is_daily_or_what_is_said(fields: dict[str, object], cron: str) -> None:
    decorator = ScheduleDecorator(fields)
    assert list(decorator.mistakes()) == []
    assert decorator.schedule().cron == cron


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cron": "0 0 * * *", "hourly": True}, "cron and hourly: keep one"),
        ({"hourly": True, "weekly": True}, "hourly and weekly: keep one"),
        ({"daily": False}, "names no schedule"),
        ({"cron": None}, "names no schedule"),
        ({"weekly": "yes"}, "weekly is 'yes'"),
        ({"cron": "0 0"}, "has 2 fields"),
        ({"cron": 7}, "cron is 7"),
        ({"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"catch_up": "some"}, "catch_up is 'some'"),
        ({"catch_up": ["all"]}, "catch_up is"),
        ({"catch_up_most": 0}, "catch_up_most is 0"),
    ],
)
def test_a_schedule_that_is_none_is_one_mistake(fields: dict[str, object], text: str) -> None:
    (mistake,) = ScheduleDecorator(fields).mistakes()
    assert text in mistake


def test_a_schedule_stands_on_the_class_and_holds_for_its_subclasses() -> None:
    @schedule
    class Base(FlowSpec):
        @step
        def start(self) -> None:
            pass

    class Derived(Base):
        pass

    @schedule(hourly=True, catch_up="last")
    class Other(Base):
        pass

    assert schedule_of(Base) == schedule_of(Derived) == Schedule("0 0 * * *")
    assert schedule_of(Other) == Schedule("0 * * * *", catch_up="last")
    assert list(schedule_mistakes(Other)) == []
    assert schedule_of(FlowSpec) is None
    assert facts(Other).constants == {}


def test_a_schedule_that_is_misplaced_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    on_function: Any = schedule
    with pytest.raises(
        DecoratorInvalid, match=r"@schedule stands on something that is not a flow's class \(.*test_flow_decorators.py:\d+\)"
    ):
        on_function(schedule_of)
    with pytest.raises(DecoratorInvalid, match="@schedule stands on something"):
        on_function(hourly=True)(schedule_of)
    with pytest.raises(DecoratorInvalid, match=r"@schedule takes its fields by name .*\n?.*cron='0 0 \* \* \*'"):
        on_function("0 0 * * *")
    with pytest.raises(DecoratorInvalid, match="has no field 'chron'"):
        on_function(chron="0 0 * * *")


@pytest.mark.parametrize(
    ("decorator", "field"), [(trigger, "event"), (trigger_on_finish, "flow"), (concurrency, "at_most"), (schedule, "cron")]
)
def test_a_decorator_of_a_class_takes_its_fields_by_name(monkeypatch: pytest.MonkeyPatch, decorator: Any, field: str) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(DecoratorInvalid, match=rf"takes its fields by name \(.*test_flow_decorators.py:\d+\)[^@]*@\w+\({field}='x'\)"):
        decorator("x")
    with pytest.raises(DecoratorInvalid, match=rf"has no field '{field}s?y'.*[^D]*Did you mean '{field}"):
        decorator(**{f"{field}y": 1})
    with pytest.raises(DecoratorInvalid, match="stands on something that is not a flow's class"):
        decorator(**{field: 1})(test_a_decorator_of_a_class_takes_its_fields_by_name)


def test_bare_decorators_of_a_class_are_told_what_they_lack() -> None:
    @trigger
    @trigger_on_finish
    @concurrency
    class Bare(FlowSpec):
        pass

    assert concurrency_of(Bare) == {"at_most": 1, "when_busy": "queue", "key": None}
    assert [text for _, text in trigger_mistakes(Bare)] == [
        "@trigger: one of event and events is needed, and only one.",
        "@trigger_on_finish: one of flow and flows is needed, and only one.",
    ]


@pytest.mark.parametrize(("spec", "reuse"), [("", 0), (",reuse=False", 0), (",reuse=True", REUSE), (",reuse=50", 50), (",reuse=0", 0)])
def test_pool_says_how_many_attempts_a_process_may_serve(spec: str, reuse: int) -> None:
    policy = from_spec(f"pool:name=gpu{spec}").policy()
    assert policy == {"executor": "pool:gpu", "reuse": reuse}


@pytest.mark.parametrize("reuse", ["-1", "often", "1.5", "1000001", "None"])
def test_pool_refuses_what_is_no_number_of_attempts(reuse: str) -> None:
    with pytest.raises(DecoratorInvalid, match="it is True, False, or how many attempts a process may serve"):
        from_spec(f"pool:reuse={reuse}")


def test_pool_as_people_write_it() -> None:
    class Written(FlowSpec):
        @pool("gpu", reuse=True)
        @step
        def start(self) -> None:
            self.next(self.end)

        @pool(reuse=7)
        @step
        def end(self) -> None:
            pass

    graph = read_graph(Written)
    found = {name: (node.policy.executor, node.policy.reuse) for name, node in graph.nodes.items()}
    assert found == {"start": ("pool:gpu", REUSE), "end": ("pool:default", 7)}


def test_a_mutator_finds_the_decorators_of_the_flow_by_their_names() -> None:
    found: list[object] = []

    class looking(FlowMutator):  # noqa: N801
        def mutate(self, mutable_flow: Any) -> None:
            found.append(mutable_flow.has_decorator("schedule"))
            mutable_flow.add_decorator("schedule", deco_kwargs={"hourly": True})
            [(name, qualified, args, given)] = mutable_flow.get_decorator_specs("schedule")
            found.extend((name, args, given["hourly"], mutable_flow.has_decorator(qualified), mutable_flow.get_decorator_specs("trigger")))
            found.append(mutable_flow.start.flow is mutable_flow)

    @looking
    class Flow(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    facts(Flow)
    assert found == [False, "schedule", [], True, True, [], True]
