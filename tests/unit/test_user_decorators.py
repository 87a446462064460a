"""Decorators and mutators that users write: their order, what they may do to a step, and to a flow."""

import os
from collections.abc import Callable, Generator
from typing import Any

import pytest

from evflow import (
    USER_SKIP_STEP,
    Config,
    FlowMutator,
    FlowSpec,
    Parameter,
    StepMutator,
    UserStepDecorator,
    catch,
    environment,
    resources,
    retry,
    schedule,
    step,
    user_step_decorator,
)
from evflow.core.schedule import Schedule
from evflow.errors import UsageError
from evflow.flow.config_values import resolve, settle
from evflow.flow.decorators.base import DecoratorInvalid
from evflow.flow.decorators.schedule import schedule_of
from evflow.flow.decorators.spec import apply_with
from evflow.flow.graph import read_graph
from evflow.flow.mutators import MutableFlow, MutableStep
from evflow.flow.steps import facts
from evflow.flow.user_decorators import UserDecoratorFailed
from evflow.testing import run_flow, run_step

SAID: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    SAID.clear()


@user_step_decorator
def says(step_name: str, flow: Any, inputs: Any = None, attributes: Any = None) -> Generator[None]:
    SAID.append(f"before {step_name} {attributes} {inputs is not None}")
    yield
    SAID.append(f"after {step_name} {attributes}")


@user_step_decorator
def skips(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Generator[dict[str, Any]]:
    flow.skipped = step_name
    yield attributes.get("next", USER_SKIP_STEP)


@user_step_decorator
def never_yields(step_name: str, flow: Any, inputs: Any) -> Generator[None]:
    flow.skipped = step_name
    if step_name == "":
        yield


@user_step_decorator
def replaces(step_name: str, flow: Any, inputs: Any) -> Generator[Callable[..., Any]]:
    def instead(self: Any, *members: Any) -> None:
        self.replaced = len(members)

    yield instead


@user_step_decorator
def swallows(step_name: str, flow: Any, inputs: Any) -> Generator[None]:
    try:
        yield
    except ZeroDivisionError as error:
        flow.swallowed = str(error)


@user_step_decorator
def changes(step_name: str, flow: Any, inputs: Any) -> Generator[None]:
    try:
        yield
    except ZeroDivisionError as error:
        raise KeyError("another") from error


class Steps(FlowSpec):
    @says(a=1)
    @says(a=2)
    @step
    def start(self) -> None:
        SAID.append("body")
        self.next(self.skipped_step)

    @skips
    @step
    def skipped_step(self) -> None:
        raise AssertionError
        self.next(self.each)

    @skips(next={"foreach": "others"})
    @step
    def each(self) -> None:
        self.next(self.sub, foreach="xs")

    @says
    @step
    async def sub(self) -> None:
        SAID.append(f"async {self.input}")
        self.next(self.join)

    @replaces
    @says
    @step
    def join(self, inputs: Any) -> None:
        raise AssertionError
        self.next(self.fails)

    @says
    @swallows
    @changes
    @step
    def other(self) -> None:
        self.next(self.end)

    @says
    @swallows
    @step
    def fails(self) -> None:
        self.partly = 1 // int(self.zero)
        self.next(self.other)

    @never_yields
    @step
    def end(self) -> None:
        raise AssertionError

    others = ("p", "q")
    xs = ("x",)
    zero = 0


def test_the_outermost_comes_first_and_last() -> None:
    run_step(Steps, "start")
    assert SAID == [
        "before start {'a': 1} False", "before start {'a': 2} False", "body", "after start {'a': 2}", "after start {'a': 1}",
    ]  # fmt: skip


def test_a_whole_flow_goes_its_way_though_bodies_are_skipped_replaced_and_fail() -> None:
    done = run_flow(Steps)
    assert [one for one in SAID if "async" in one] == ["async p", "async q"]
    assert done.data.replaced == 1
    assert done.data.swallowed == "integer division or modulo by zero"
    assert done.data.skipped == "end"
    assert not any(one.startswith("before join") for one in SAID)


def test_an_exception_goes_through_those_that_let_it_and_is_caught_outside_of_all() -> None:
    class Fails(FlowSpec):
        @catch(var="error", print_exception=False)
        @says
        @changes
        @step
        def start(self) -> None:
            self.x = 1 // 0
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    done = run_step(Fails, "start")
    assert done.data.error.type == "builtins.KeyError"
    assert SAID == ["before start {} False"]


class Counted(UserStepDecorator):
    def init(self, *args: Any, **kwargs: Any) -> None:
        self.of = kwargs.get("of", "runs")

    def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> None:
        self.skip_step = self.of == "skip"

    def post_step(self, step_name: str, flow: Any, exception: BaseException | None = None) -> Any:
        setattr(flow, self.of, str(exception))
        return None, {"foreach": "ys"} if self.of == "skip" else {}


def test_a_decorator_as_a_class_may_skip_swallow_and_say_what_is_next() -> None:
    class Uses(FlowSpec):
        ys = ("a",)
        xs = ("b", "c")

        @Counted(of="skip")
        @step
        def start(self) -> None:
            self.next(self.sub, foreach="xs")

        @Counted
        @step
        def sub(self) -> None:
            self.next(self.join)
            raise ValueError("late")

        @step
        def join(self, inputs: Any) -> None:
            self.runs = [one.runs for one in inputs]
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    done = run_flow(Uses)
    assert (done.data.runs, done.data.skip) == (["late"], "None")


def test_a_body_that_alone_knows_the_way_cannot_be_skipped() -> None:
    class Either(FlowSpec):
        @skips
        @step
        def start(self) -> None:
            if self.skipped:
                self.next(self.end)
            else:
                self.next(self.other)

        @step
        def other(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    with pytest.raises(
        UserDecoratorFailed, match=r"@skips skipped the body of step start, which alone says which of end, other comes next"
    ):
        run_step(Either, "start")


def test_a_switch_that_is_skipped_goes_by_its_variable() -> None:
    class Switch(FlowSpec):
        kind = "b"

        @skips
        @step
        def start(self) -> None:
            self.next({"a": self.end, "b": self.other}, condition="kind")

        @step
        def other(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    assert run_step(Switch, "start").next == ("other",)


@pytest.mark.parametrize("yields", ["text", 3])
def test_what_is_yielded_and_means_nothing_is_told(yields: object) -> None:
    @user_step_decorator
    def wrong(step_name: str, flow: Any) -> Generator[Any]:
        yield yields

    class Uses(FlowSpec):
        @wrong
        @step
        def start(self) -> None:
            pass

    with pytest.raises(UserDecoratorFailed, match="@wrong on step start yielded"):
        run_step(Uses, "start")


def test_a_second_yield_is_told() -> None:
    @user_step_decorator
    def twice(step_name: str, flow: Any) -> Generator[None]:
        yield
        yield

    class Uses(FlowSpec):
        @twice
        @step
        def start(self) -> None:
            pass

    with pytest.raises(UserDecoratorFailed, match="@twice on step start yielded a second time"):
        run_step(Uses, "start")


def test_what_is_no_decorator_is_told_where_it_is_written() -> None:
    with pytest.raises(DecoratorInvalid, match=r"takes a generator function, and plain \(.*test_user_decorators.py:\d+\)"):

        @user_step_decorator  # type: ignore[arg-type]
        def plain(step_name: str, flow: Any) -> None: ...

    with pytest.raises(DecoratorInvalid, match=r"@says stands on something that is not a step"):
        says(a=1)(lambda: None)


# --- mutators --------------------------------------------------------------------------------------------


class robust(FlowMutator):  # noqa: N801 - it is a decorator
    def init(self, *args: Any, **kwargs: Any) -> None:
        self.most = kwargs.get("most", 2)

    def pre_mutate(self, mutable_flow: MutableFlow) -> None:
        mutable_flow.add_parameter("added", Parameter("added", default=7))
        mutable_flow.remove_parameter("gone")
        mutable_flow.add_decorator(schedule, deco_kwargs={"hourly": True})

    def mutate(self, mutable_flow: MutableFlow) -> None:
        print("mutating", mutable_flow.name)
        for _, one in mutable_flow.steps:
            one.add_decorator("retry:times=1", duplicates=one.IGNORE)
            one.add_decorator(says, deco_kwargs={"by": "robust"})
            for name, _, _, attributes in one.decorator_specs:
                if name == "resources" and attributes["cpu"] > self.most:
                    one.add_decorator(name, deco_kwargs={**attributes, "cpu": self.most}, duplicates=one.OVERRIDE)


class with_url(StepMutator):  # noqa: N801
    def init(self, *args: Any, **kwargs: Any) -> None:
        self.url = kwargs["url"]

    def mutate(self, mutable_step: MutableStep) -> None:
        mutable_step.add_decorator(environment, deco_kwargs={"vars": {"URL": self.url}}, duplicates=mutable_step.ERROR)


class Plain(FlowSpec):
    gone = Parameter("gone", default=1)

    @retry(times=4)
    @resources(cpu=16)
    @step
    def start(self) -> None:
        self.seen = getattr(self, "added", None)
        self.next(self.end)

    @with_url(url="http://u")
    @step
    def end(self) -> None:
        self.url = os.environ["URL"]


@robust(most=3)
class Robust(Plain):
    pass


def test_a_mutator_changes_what_is_known_of_its_flow_and_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    graph = read_graph(Robust)
    assert (graph["start"].policy.retry_times, graph["end"].policy.retry_times) == (4, 1)
    assert graph["start"].policy.cpu == 3
    assert graph["end"].decorators == ("@says", "@environment(vars={'URL': …})", "@retry(times=1)")
    assert list(facts(Robust).parameters) == ["added"]
    assert schedule_of(Robust) == Schedule("0 * * * *")
    assert read_graph(Plain)["start"].policy.cpu == 16
    assert list(facts(Plain).parameters) == ["gone"]
    assert schedule_of(Plain) is None
    assert capsys.readouterr().err.count("mutating Robust") == 1


def test_a_run_has_what_mutators_added() -> None:
    done = run_flow(Robust, added=9)
    assert (done.data.seen, done.data.url) == (9, "http://u")
    assert SAID[0] == "before start {'by': 'robust'} False"


class Configured(FlowSpec):
    cfg = Config("cfg", default_value={"url": "http://a", "cpu": 1, "parameter": "p"})

    @with_url(url=cfg.url)
    @says(cpu=cfg.cpu)
    @step
    def start(self) -> None:
        self.url = os.environ["URL"]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class by_config(FlowMutator):  # noqa: N801
    def pre_mutate(self, mutable_flow: MutableFlow) -> None:
        name = mutable_flow.cfg.parameter
        assert dict(mutable_flow.configs)["cfg"]["parameter"] == name
        mutable_flow.add_parameter(name, Parameter(name, default=1))

    def mutate(self, mutable_flow: MutableFlow) -> None:
        mutable_flow.start.add_decorator(resources, deco_kwargs={"cpu": mutable_flow.cfg.cpu})


def test_configurations_decide_what_a_mutator_does_anew_for_each_run() -> None:
    flow = by_config()(Configured)
    for value in ({"url": "http://b", "cpu": 2, "parameter": "q"}, {"url": "http://c", "cpu": 3, "parameter": "r"}):
        settle(flow, resolve(flow, values={"cfg": value}))
        assert list(facts(flow).parameters) == [value["parameter"]]
        assert read_graph(flow)["start"].policy.cpu == value["cpu"]
        assert not hasattr(flow, "q" if value["parameter"] == "r" else "r")
    done = run_flow(flow, cfg={"url": "http://d", "cpu": 4, "parameter": "s"})
    assert done["start"][0].data.url == "http://d"
    assert SAID[0] == "before start {'cpu': 4} False"


def test_what_the_command_line_adds_is_seen_by_mutators_and_may_be_a_user_s_own() -> None:
    @robust()
    class Bare(FlowSpec):
        @step
        def start(self) -> None:
            pass

    apply_with(Bare, ["resources:cpu=8", f"{__name__}.with_url:url=http://w", f"{__name__}.says:by=with"])
    node = read_graph(Bare)["start"]
    assert node.policy.cpu == 2
    assert "@resources(cpu=2)" in node.decorators
    assert "URL" in str(node.decorators)
    run_step(Bare, "start")
    assert SAID[0] == "before start {'by': 'with'} False"


@pytest.mark.parametrize(
    ("spec", "says_what"),
    [
        ("no_such_module.x", "there is no decorator 'no_such_module.x'"),
        (f"{__name__}.nothing", "has no attribute 'nothing'"),
        (f"{__name__}.robust", "is no decorator of steps"),
        ("nope", "One of your own is MODULE.NAME"),
    ],
)
def test_what_the_command_line_cannot_add_is_told(spec: str, says_what: str) -> None:
    with pytest.raises(DecoratorInvalid, match=says_what):
        apply_with(Plain, [spec])


def mutating(**methods: Callable[..., Any]) -> type[FlowSpec]:
    class Other(FlowSpec):
        taken = Parameter("taken", default=1)

        @retry(times=2)
        @step
        def start(self) -> None:
            pass

    kind: Any = type("changing", (FlowMutator,), methods)
    found: type[FlowSpec] = kind(Other)
    return found


CANNOT_BE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("mutate", lambda flow: flow.add_parameter("x", Parameter("x", default=1)), "possible in pre_mutate only"),
    ("pre_mutate", lambda flow: flow.add_parameter("taken", Parameter("taken", default=1)), "has 'taken' already.*\noverwrite=True"),
    ("pre_mutate", lambda flow: flow.add_parameter("start", Parameter("start", default=1)), "has 'start' already"),
    ("pre_mutate", lambda flow: flow.add_parameter("x", 3), "takes a Parameter as 'x'"),
    ("mutate", lambda flow: flow.start.add_decorator("retry", duplicates=2), "'start' has @retry already"),
    ("mutate", lambda flow: flow.start.add_decorator("retry", deco_kwargs={"tims": 1}, duplicates=3), "no field 'tims'"),
    ("mutate", lambda flow: flow.start.add_decorator("retry:times=1", deco_kwargs={"times": 1}), "has arguments already"),
    ("mutate", lambda flow: flow.start.add_decorator(with_url, deco_kwargs={"url": 1}), "in pre_mutate only"),
    ("mutate", lambda flow: flow.start.add_decorator(len), "is no decorator of steps"),
    ("mutate", lambda flow: flow.add_decorator("retry"), "is no decorator of a flow's class"),
    ("mutate", lambda flow: flow.nope, "has no step, configuration or parameter 'nope'"),
    ("mutate", lambda flow: 1 // 0, r"@changing \(.*test_user_decorators.py:\d+\) raised an exception in mutate:\nTraceback"),
]


@pytest.mark.parametrize(("when", "change", "told"), CANNOT_BE)
def test_a_change_that_cannot_be_is_told(when: str, change: Callable[[Any], Any], told: str) -> None:
    def changed(self: Any, mutable: Any) -> None:
        del self
        change(mutable)

    flow = mutating(**{when: changed})
    with pytest.raises(UsageError, match=told):
        facts(flow)
    with pytest.raises(UsageError, match=told):  # whoever asks next is told, too
        facts(flow)


def test_decorators_are_removed_by_name_and_by_what_they_were_written_with() -> None:
    removed: list[bool] = []

    def change(self: Any, mutable: MutableFlow) -> None:
        start: MutableStep = mutable.start
        removed.append(start.remove_decorator("retry", deco_kwargs={"times": 3}))
        removed.append(start.remove_decorator("retry", deco_kwargs={"times": 2}))
        removed.append(start.has_decorator("retry"))
        removed.append(start.remove_decorator("retry"))
        start.add_decorator(says, deco_kwargs={"a": 1})
        removed.append(start.has_decorator("says"))
        removed.append(start.remove_decorator("says", deco_kwargs={"a": 2}))
        removed.append(start.remove_decorator("says"))
        start.replace_decorator("resources", {"cpu": 2})
        start.replace_decorator("resources", {"memory": 5})
        removed.append(start.get_decorator_kwargs("resources") == {**resources_defaults(), "cpu": 2, "memory": 5})

    flow = mutating(mutate=change)
    assert read_graph(flow)["start"].policy.retry_times == 0
    assert removed == [False, True, False, False, True, False, True, True]


def resources_defaults() -> dict[str, object]:
    from evflow.flow.decorators.resources import Resources

    return dict(Resources.defaults)


def test_one_class_may_be_a_decorator_and_a_mutator() -> None:
    class both(UserStepDecorator, StepMutator):  # noqa: N801
        def init(self, url: str = "http://none") -> None:
            self.url = url

        def mutate(self, mutable_step: Any) -> None:
            mutable_step.add_decorator(environment, deco_kwargs={"vars": {"URL": self.url}})

        def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> None:
            flow.seen = os.environ["URL"]

    class Two(FlowSpec):
        @both(url="http://b")
        @step
        def start(self) -> None:
            pass

    assert run_step(Two, "start").data.seen == "http://b"
    assert [spec[0] for spec in MutableStep(MutableFlow(Two, facts(Two), lambda value: value, is_pre=True), "start").decorator_specs] == [
        "environment",
        "both",
    ]


@pytest.mark.parametrize("said", [False, True])
def test_what_comes_next_may_be_left_to_the_source_by_a_bool(said: bool) -> None:
    class leaves(UserStepDecorator):  # noqa: N801
        def post_step(self, step_name: str, flow: Any, exception: BaseException | None = None) -> Any:
            return None, said

    class Leaves(FlowSpec):
        @leaves
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    assert run_step(Leaves, "start").next == ("end",)


def test_mutators_add_by_name_what_users_wrote() -> None:
    class tags_steps(StepMutator):  # noqa: N801
        def init(self, value: str = "") -> None:
            self.value = value

        def mutate(self, mutable_step: Any) -> None:
            mutable_step.add_decorator("environment", deco_kwargs={"vars": {"URL": self.value}})

    class every_step(FlowMutator):  # noqa: N801
        def init(self, value: str = "") -> None:
            self.value = value

        def pre_mutate(self, mutable_flow: Any) -> None:
            for _, one in mutable_flow.steps:
                one.add_decorator(f"{tags_steps.__qualname__}:value={self.value}")

    class outer(FlowMutator):  # noqa: N801
        def pre_mutate(self, mutable_flow: Any) -> None:
            mutable_flow.add_decorator(f"{every_step.__qualname__}:value=http://n")
            mutable_flow.add_decorator("schedule:hourly=true")

    @outer
    class Named(FlowSpec):
        @step
        def start(self) -> None:
            self.url = os.environ["URL"]

    assert run_step(Named, "start").data.url == "http://n"
    assert schedule_of(Named) is not None


def test_a_name_that_two_modules_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [type("twice", (StepMutator,), {"__module__": module, "__qualname__": "twice"}) for module in ("one.way", "another.way")]
    with pytest.raises(DecoratorInvalid, match=r"'way.twice' may be another\.way\.twice or one\.way\.twice"):
        apply_with(Plain, ["way.twice"])
    del kinds
