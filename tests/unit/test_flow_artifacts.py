"""Attributes of self: what is kept, what is read, and what the messages say."""

import pickle
from typing import Any

import pytest

from evflow import FlowSpec, Parameter, step
from evflow.exception import FunctionIsNoArtifact
from evflow.flow.execution import Outcome, collect, instantiate
from evflow.flow.scope import Scope, scope_of
from evflow.flow.transitions import END
from tests.unit.flow_world import StoredView, after, run_flow, stored


class Flow(FlowSpec):
    alpha = Parameter("alpha", default=0.5)
    options = Parameter("options", default={"depth": 3})
    layers = 3

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass

    @property
    def broken(self) -> int:
        return int(self.not_there) + 1


PARAMETERS = stored(alpha=0.5, options={"depth": 3}, layers=3)


def task(**artifacts: object) -> Any:
    """An instance that runs `start`, with these artifacts inherited."""
    return instantiate(Flow, "start", parameters=PARAMETERS, view=stored(**artifacts))


def left(flow: FlowSpec) -> Outcome:
    scope: Scope = scope_of(flow)
    scope.transition = END
    return collect(flow)


def test_an_artifact_is_loaded_at_its_first_read_and_once() -> None:
    flow = task(x=[1], y=[2])
    view = scope_of(flow).view
    assert isinstance(view, StoredView)
    assert view["x"].loads == 0
    assert flow.x is flow.x
    assert (view["x"].loads, view["y"].loads) == (1, 0)


def test_a_task_behind_one_that_a_resumed_run_took_over_has_this_runs_parameters() -> None:
    flow = task(alpha=0.1, layers=3, x=1)
    scope_of(flow).transition = END
    assert collect(flow, resumed=True).values == {"alpha": 0.5, "options": {"depth": 3}}
    assert (flow.alpha, flow.layers) == (0.5, 3)


def test_what_was_not_touched_goes_on_by_reference() -> None:
    flow = task(x=[1], y=[2])
    outcome = left(flow)
    assert dict(outcome.values) == {}
    assert after(outcome)["x"] is outcome.base.entry("x")


def test_a_value_that_was_read_and_can_change_is_kept_as_it_is_then() -> None:
    flow = task(x=[1], y=[2])
    flow.x.append(5)
    outcome = left(flow)
    assert outcome.values == {"x": [1, 5]}


def test_an_immutable_value_that_was_read_goes_on_by_reference() -> None:
    flow = task(n=1, text="t", flag=True, nothing=None)
    _ = flow.n, flow.text, flow.flag, flow.nothing
    assert dict(left(flow).values) == {}


def test_a_value_that_was_set_counts_as_set_though_it_was_read_before() -> None:
    flow = task(n=1)
    flow.n += 1
    assert left(flow).values == {"n": 2}


def test_a_deleted_artifact_is_gone_for_the_steps_behind() -> None:
    flow = task(x=1, y=2, z=3)
    del flow.x
    _ = flow.y
    del flow.y
    assert not hasattr(flow, "x")
    assert not hasattr(flow, "y")
    assert after(left(flow)).keys() == {"z"}


def test_a_deleted_artifact_may_be_set_again() -> None:
    flow = task(x=1)
    del flow.x
    flow.x = 2
    assert after(left(flow)).load("x") == 2


def test_deleting_what_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="Flow Flow has no attribute 'x'"):
        del task().x


def test_reading_what_is_not_there_lists_what_is_and_guesses() -> None:
    flow = task(losses=1, model_path="m")
    flow.epochs = 3
    with pytest.raises(AttributeError) as caught:
        _ = flow.model
    text = str(caught.value)
    assert text.startswith("Flow Flow has no attribute 'model'")
    assert "epochs, losses, model_path" in text
    assert "Did you mean 'model_path'?" in text


def test_a_deleted_artifact_says_that_the_step_deleted_it() -> None:
    flow = task(x=1)
    del flow.x
    with pytest.raises(AttributeError, match="step start deleted it"):
        _ = flow.x


def test_hasattr_tells_whether_an_artifact_is_there() -> None:
    flow = task(x=1)
    assert hasattr(flow, "x")
    assert not hasattr(flow, "y")
    assert getattr(flow, "y", "default") == "default"


def test_names_that_start_with_two_underscores_are_not_kept() -> None:
    class Mangled(Flow):
        @step
        def start(self) -> None:
            self.__scratch = lambda: 0
            setattr(self, "__other", object())
            self._private = 1
            self.next(self.end)

    world = run_flow(Mangled)
    assert world.task("end")["_private"] == 1
    assert not any("scratch" in name or "other" in name for name in world.task("end").view)


def test_reading_a_name_with_two_underscores_in_a_later_step_says_why_it_is_gone() -> None:
    with pytest.raises(AttributeError, match="starts with __ is not kept"):
        _ = task()._Flow__scratch


@pytest.mark.parametrize("name", ["alpha", "layers"])
def test_parameters_and_constants_cannot_be_set(name: str) -> None:
    with pytest.raises(AttributeError, match="Flow level attributes and Parameters are not modifiable"):
        setattr(task(), name, 1)


@pytest.mark.parametrize("name", ["alpha", "layers"])
def test_parameters_and_constants_cannot_be_deleted(name: str) -> None:
    with pytest.raises(AttributeError, match="Flow level attributes and Parameters are not modifiable"):
        delattr(task(), name)


@pytest.mark.parametrize("name", ["end", "next", "input", "foreach_stack"])
def test_steps_and_words_of_the_language_cannot_be_set(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'{name}' is a"):
        setattr(task(), name, 1)


def test_parameters_are_read_from_the_run_not_from_the_class() -> None:
    flow = instantiate(Flow, "start", parameters=stored(alpha=0.9), view=stored())
    assert flow.alpha == 0.9


def test_a_parameter_of_an_inert_flow_has_no_value() -> None:
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = Flow(use_cli=False).alpha


def test_a_parameter_read_in_a_step_is_not_kept_again() -> None:
    flow = task()
    flow.options["depth"] = 9
    assert dict(left(flow).values) == {}


def test_an_artifact_may_be_called_name() -> None:
    flow = task()
    assert flow.name == "Flow"
    flow.name = "Ada"
    assert left(flow).values == {"name": "Ada"}
    assert task(name="Grace").name == "Grace"


def module_function() -> None:
    pass


@pytest.mark.parametrize("value", [lambda: 0, module_function, Flow(use_cli=False).start], ids=["lambda", "function", "method"])
def test_a_function_in_an_attribute_fails_the_step_with_its_name_and_advice(value: object) -> None:
    flow = task()
    flow.metric = value
    with pytest.raises(FunctionIsNoArtifact) as caught:
        left(flow)
    assert "self.metric" in caught.value.message
    assert "Step start of Flow" in caught.value.message
    assert "what it returns" in caught.value.hint


def test_a_class_in_an_attribute_is_no_function() -> None:
    flow = task()
    flow.kind = dict
    assert left(flow).values == {"kind": dict}


def test_a_flow_cannot_be_pickled_and_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"Flows can't be serialized\. Maybe you tried to assign self"):
        pickle.dumps(task())


def test_a_property_of_the_users_shows_its_own_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'not_there'"):
        _ = task().broken


def test_an_instance_of_another_class_may_be_mixed_in() -> None:
    class Mixin:
        def greet(self) -> str:
            return f"hello {self.who}"  # type: ignore[attr-defined]

    class Mixed(Mixin, Flow):
        pass

    flow = instantiate(Mixed, "start", parameters=PARAMETERS, view=stored(who="Ada"))
    assert flow.greet() == "hello Ada"


def test_a_parameter_that_was_added_after_the_start_of_the_run_says_so() -> None:
    flow = instantiate(Flow, "start", parameters=stored(), view=stored())
    with pytest.raises(AttributeError, match="added after the run started"):
        _ = flow.alpha
