"""Parameters: what a run gets from texts, values, variables, defaults."""

import json
from collections.abc import Callable
from typing import Any

import click
import pytest

from evflow import FlowSpec, JSONType, Parameter
from evflow.cli.flow_parameters import ParameterOptions
from evflow.errors import UsageError
from evflow.flow import parameter_values as values
from evflow.flow.parameter_values import (
    ParameterContext,
    ParameterDefaultFailed,
    ParameterFieldTypeMismatch,
    ParameterInvalid,
    ParameterMissing,
    ParameterUnknown,
    resolve,
)
from evflow.flow.parameters import mistakes, of


def flow_with(**parameters: Parameter[Any]) -> type[FlowSpec]:
    return type("Flow", (FlowSpec,), dict(parameters))


def value_of(parameter: Parameter[Any], given: object = None, env: dict[str, str] | None = None) -> Any:
    return resolve(flow_with(p=parameter), {} if given is None else {parameter.name: given}, env or {})["p"]


def computing(result: object) -> Callable[[ParameterContext], Any]:
    return lambda _: result


class Click:
    """A type as click has them."""

    name = "fruit"

    def convert(self, value: object, param: object, ctx: object) -> object:
        if value not in ("apple", "pear"):
            raise ValueError(f"{value} is not one of apple, pear")
        return f"<{value}>"


@pytest.mark.parametrize(
    ("parameter", "given", "expected"),
    [
        (Parameter("p", default=5), "7", 7),
        (Parameter("p", default=5), 7, 7),
        (Parameter("p", default=5), " 7 ", 7),
        (Parameter("p", default=5), 7.0, 7),
        (Parameter("p", default=0.5), "1e-3", 1e-3),
        (Parameter("p", default=0.5), 2, 2.0),
        (Parameter("p", type=float), "nan", pytest.approx(float("nan"), nan_ok=True)),
        (Parameter("p", type=float), float("nan"), pytest.approx(float("nan"), nan_ok=True)),
        (Parameter("p", default="a"), "b", "b"),
        (Parameter("p"), 5, "5"),
        (Parameter("p", type=int), "5", 5),
        (Parameter("p", default=False), "True", True),
        (Parameter("p", default=True), "no", False),
        (Parameter("p", type=bool), True, True),
        (Parameter("p", type=JSONType), '{"a": [1, null]}', {"a": [1, None]}),
        (Parameter("p", type=JSONType), {"a": (1, 2)}, {"a": [1, 2]}),
        (Parameter("p", default=[1]), "[2, 3]", [2, 3]),
        (Parameter("p", default={"a": 1}), "{}", {}),
        (Parameter("p", default="a,b", separator=","), "c,d", ["c", "d"]),
        (Parameter("p", default="a,b", separator=","), ["x", "y"], ["x", "y"]),
        (Parameter("p", default="a,b", separator=","), "", []),
        (Parameter("p", type=Click()), "pear", "<pear>"),
    ],
)
def test_a_given_value_becomes_one_of_the_parameters_type(parameter: Parameter[Any], given: object, expected: object) -> None:
    value = value_of(parameter, given)
    assert value == expected
    assert type(value) is type(expected) or not isinstance(expected, int | float | str | bool | list | dict)


@pytest.mark.parametrize(
    ("parameter", "text", "expected"),
    [
        (Parameter("p", type=JSONType), '"abc"', "abc"),
        (Parameter("p", type=JSONType), '"5"', "5"),
        (Parameter("p", type=JSONType, default="{}"), "null", None),
        (Parameter("p", type=float), "nan", pytest.approx(float("nan"), nan_ok=True)),
        (Parameter("p", type=Click()), "pear", "<pear>"),
        (Parameter("p", separator=","), "a,b", ["a", "b"]),
    ],
)
def test_a_text_of_the_command_line_is_converted_once(parameter: Parameter[Any], text: str, expected: object) -> None:
    parameters = ParameterOptions(flow_with(p=parameter))
    command = click.Command("run", params=[*parameters.options])
    given = parameters.taken(command.make_context("run", ["--p", text]).params)
    assert parameters.resolved(given, user="somebody") == {"p": expected}


@pytest.mark.parametrize(
    ("parameter", "given", "message"),
    [
        (Parameter("p", type=int), "seven", "Invalid value for '--p': 'seven' is not an integer."),
        (Parameter("p", type=int), "1.5", "'1.5' is not an integer"),
        (Parameter("p", type=int), 1.5, "1.5 is not an integer"),
        (Parameter("p", type=int), True, "True is not an integer"),
        (Parameter("p", type=int), float("inf"), "inf is not an integer"),
        (Parameter("p", type=float), "fast", "'fast' is not a number"),
        (Parameter("p", type=bool), "maybe", "'maybe' is not True or False"),
        (Parameter("p", type=JSONType), "{", "is not JSON (Expecting"),
        (Parameter("p", type=JSONType), {1, 2}, "is not JSON (Object of type set"),
        (Parameter("p", type=str), [1], "[1] is not a string"),
        (Parameter("p", separator=","), [1], "is not a list of strings"),
        (Parameter("p", type=Click()), "plum", "'plum' is not fruit (plum is not one of apple, pear)"),
        (Parameter("p", type=int), "9" * 1000, None),
    ],
)
def test_a_value_that_does_not_fit_is_told(parameter: Parameter[Any], given: object, message: str | None) -> None:
    if message is None:
        assert value_of(parameter, given) == int("9" * 1000)
        return
    with pytest.raises(ParameterInvalid) as caught:
        value_of(parameter, given)
    assert message in caught.value.message
    assert isinstance(caught.value, UsageError)


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(ParameterInvalid, match="it is nested too deeply"):
        value_of(Parameter("p", type=JSONType), "[" * 100_000)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ParameterInvalid) as caught:
        value_of(Parameter("p", type=int), "x" * 5000)
    assert len(caught.value.message) < 400


def test_a_default_is_used_where_nothing_is_given() -> None:
    assert value_of(Parameter("p", default=5)) == 5
    assert value_of(Parameter("p", default="7,14", separator=",")) == ["7", "14"]
    assert value_of(Parameter("p", default=1, type=float)) == 1.0
    assert value_of(Parameter("p", default='{"a": 1}', type=JSONType)) == {"a": 1}


def test_a_parameter_without_default_is_none() -> None:
    assert value_of(Parameter("p")) is None


def test_a_required_parameter_is_demanded_and_all_missing_ones_are_named() -> None:
    cls = flow_with(a=Parameter("alpha", required=True), b=Parameter("b", required=True), c=Parameter("c", default=1, required=True))
    with pytest.raises(ParameterMissing) as caught:
        resolve(cls, {}, {})
    assert caught.value.message == "Missing option '--alpha'. Also missing: --b."
    assert "EVFLOW_RUN_ALPHA" in caught.value.hint
    assert resolve(cls, {"alpha": "x", "b": "y"}, {}) == {"a": "x", "b": "y", "c": 1}


def test_values_are_by_attribute_and_given_by_name() -> None:
    assert resolve(flow_with(folds=Parameter("n-folds", default=5)), {"n_folds": "3"}, {}) == {"folds": 3}


def test_a_variable_gives_a_value_where_none_is_given() -> None:
    parameter = Parameter("n-folds", default=5)
    env = {"EVFLOW_RUN_N_FOLDS": "8"}
    assert value_of(parameter, env=env) == 8
    assert value_of(parameter, 3, env=env) == 3
    assert value_of(parameter, env={"EVFLOW_RUN_N_FOLDS": ""}) == 5


def test_a_variable_that_does_not_fit_is_named() -> None:
    with pytest.raises(ParameterInvalid, match=r"'--p' \(EVFLOW_RUN_P\): 'x' is not an integer"):
        value_of(Parameter("p", default=5), env={"EVFLOW_RUN_P": "x"})


def test_the_processs_own_variables_count_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_RUN_P", "8")
    assert resolve(flow_with(p=Parameter("p", default=5)), {}) == {"p": 8}


def test_an_unknown_parameter_is_guessed() -> None:
    with pytest.raises(ParameterUnknown, match=r"Flow Flow has no parameter 'folsd'.\nIt has: folds. Did you mean 'folds'?"):
        resolve(flow_with(folds=Parameter("folds", default=5)), {"folsd": 1}, {})


def test_a_default_may_be_computed_for_the_run() -> None:
    seen: list[ParameterContext] = []

    def compute(context: ParameterContext) -> int:
        seen.append(context)
        return 12

    cls = flow_with(p=Parameter("p", default=compute, type=int))
    assert resolve(cls, {}, {}, user="ada") == {"p": 12}
    [context] = seen
    assert (context.flow_name, context.parameter_name, context.user_name, context.ds_type) == ("Flow", "p", "ada", "local")
    assert resolve(cls, {"p": 1}, {}) == {"p": 1}
    assert len(seen) == 1


def test_a_computed_default_may_log_for_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    def compute(context: ParameterContext) -> str:
        context.logger("looking for it")
        return "x"

    assert value_of(Parameter("p", default=compute)) == "x"
    assert capsys.readouterr().err == "looking for it\n"


@pytest.mark.parametrize(("kind", "result"), [(int, "5"), (str, 5), (bool, 1), (int, True), (float, "x"), (JSONType, {1, 2})])
def test_a_computed_default_of_another_type_is_told(kind: Any, result: object) -> None:
    with pytest.raises(ParameterFieldTypeMismatch, match="The default of parameter 'p'"):
        value_of(Parameter("p", default=computing(result), type=kind))


@pytest.mark.parametrize(
    ("kind", "result", "expected"), [(JSONType, '{"a": 1}', {"a": 1}), (JSONType, {"a": 1}, {"a": 1}), (float, 2, 2.0), (int, None, None)]
)
def test_a_computed_default_of_a_fitting_type_is_taken(kind: Any, result: object, expected: object) -> None:
    assert value_of(Parameter("p", default=computing(result), type=kind)) == expected


def test_a_computed_default_that_raises_shows_the_users_frames() -> None:
    def compute(_: ParameterContext) -> int:
        return 1 // 0

    with pytest.raises(ParameterDefaultFailed) as caught:
        value_of(Parameter("p", default=compute, type=int))
    assert "ZeroDivisionError" in caught.value.message
    assert "parameter_values.py" not in caught.value.message


def test_parameters_are_listed_in_the_order_of_the_source_inherited_ones_first() -> None:
    base = flow_with(b=Parameter("b"), a=Parameter("a"))
    derived = type("Derived", (base,), {"c": Parameter("c"), "a": Parameter("a", default=3)})
    assert [parameter.name for parameter in of(derived)] == ["b", "a", "c"]
    assert resolve(derived, {}, {})["a"] == 3


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    assert value_of(Parameter("p", type=int), np.int64(3)) == 3
    assert value_of(Parameter("p", type=float), np.float32(0.5)) == 0.5


def test_texts_for_people_are_short() -> None:
    assert values.type_name(Parameter("p", default=[1])) == "json"
    assert values.type_name(Parameter("p", default="a", separator=",")) == "list"
    assert values.type_name(Parameter("p", type=int)) == "int"
    assert values.default_shown(Parameter("p", default=[1, 2])) == "[1, 2]"
    assert values.default_shown(Parameter("p", default="secret", show_default=False)) is None
    assert values.default_shown(Parameter("p", default=computing(1), type=int)) is None
    assert values.shown(Parameter("p", separator=","), ["a", "b"]) == "a,b"
    assert json.loads(values.shown(Parameter("p", type=JSONType), {"a": 1})) == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"multiple": True, "separator": ","}, "has multiple and separator, which do not go together"),
        ({"multiple": True, "nargs": 2}, "has multiple and nargs, which do not go together"),
        ({"nargs": -1}, "has nargs=-1"),
    ],
)
def test_what_has_several_values_is_said_in_one_way(fields: dict[str, Any], said: str) -> None:
    class Several(FlowSpec):
        words = Parameter("words", type=str, **fields)

    assert any(said in message for _, _, message, _ in mistakes(Several))
