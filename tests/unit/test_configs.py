"""Config: where its value comes from, what it is in steps, and how decorators, parameters and the class take it."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from evflow import (
    Config,
    ConfigValue,
    FlowSpec,
    IncludeFile,
    Parameter,
    concurrency,
    config_expr,
    environment,
    limit,
    pool,
    resources,
    retry,
    schedule,
    step,
    trigger,
    yaml_parser,
)
from evflow.errors import UsageError
from evflow.flow import graph_of
from evflow.flow.checks import check
from evflow.flow.config_values import (
    ConfigExpressionFailed,
    ConfigGivenTwice,
    ConfigInvalid,
    ConfigMissing,
    ConfigUnknown,
    ConfigUnreadable,
    ConfigVariableInvalid,
    resolve,
    settle,
)
from evflow.flow.configs import as_plain
from evflow.flow.decorators.base import DecoratorInvalid
from evflow.flow.decorators.limit import concurrency_of
from evflow.flow.decorators.schedule import schedule_of
from evflow.flow.decorators.trigger import triggers_of
from evflow.flow.parameter_values import ParameterContext, ParameterDefaultFailed
from evflow.flow.steps import facts
from evflow.testing import run_flow, run_step

FACTOR = 3


def value_of(config: Config, *, file: object = None, value: object = None, env: dict[str, str] | None = None) -> Any:
    flow: type[FlowSpec] = type("Flow", (FlowSpec,), {"c": config})
    files: dict[str, Any] = {} if file is None else {"c": file}
    return resolve(flow, files, {} if value is None else {"c": value}, env or {})["c"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text('{"a": {"b": 1}}', encoding="utf-8")
    (tmp_path / "other.json").write_text('{"a": {"b": 2}}', encoding="utf-8")
    return tmp_path


# --- where a value comes from -----------------------------------------------------------------------------


def test_a_default_is_a_file_a_value_a_text_or_a_function(folder: Path) -> None:
    def path(context: ParameterContext) -> str:
        return f"{context.parameter_name}.json"

    expected = {"a": {"b": 1}}
    assert value_of(Config("c", default="c.json")) == expected
    assert value_of(Config("c", default=path)) == expected
    assert value_of(Config("c", default_value={"a": {"b": 1}})) == expected
    assert value_of(Config("c", default_value='{"a": {"b": 1}}')) == expected
    assert value_of(Config("c", default_value=lambda _: {"a": {"b": 1}})) == expected


def test_a_file_and_a_value_come_before_the_environment_and_that_before_the_default(folder: Path) -> None:
    by_file = {"EVFLOW_FLOW_CONFIG": json.dumps({"c": "other.json", "unknown": "x"})}
    by_value = {"EVFLOW_FLOW_CONFIG_VALUE": json.dumps({"c": {"a": 3}})}
    config = Config("c", default="c.json")
    assert value_of(config, env=by_file) == {"a": {"b": 2}}
    assert value_of(config, env=by_value) == {"a": 3}
    assert value_of(config, file="c.json", env=by_file) == {"a": {"b": 1}}
    assert value_of(config, value='{"d": 4}', env=by_file) == {"d": 4}


def test_a_configuration_that_is_not_given_is_none_or_missing(folder: Path) -> None:
    assert value_of(Config("c")) is None
    with pytest.raises(ConfigMissing, match=r"Config 'c' of Flow has no value") as caught:
        value_of(Config("c", required=True))
    with pytest.raises(ConfigMissing):
        value_of(Config("c", required=True), value="null")
    assert "--config c FILE" in str(caught.value)


def test_an_unknown_name_is_told_with_those_that_there_are(folder: Path) -> None:
    flow: type[FlowSpec] = type("Flow", (FlowSpec,), {"model": Config("model")})
    with pytest.raises(ConfigUnknown, match=r"(?s)has no Config 'modle'.*It has: model\. Did you mean 'model'\?"):
        resolve(flow, {"modle": "c.json"}, {}, {})


def test_a_file_and_a_value_at_once_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigGivenTwice):
        value_of(Config("c"), file="c.json", value="{}")


@pytest.mark.parametrize(("path", "why"), [("none.json", "No such file"), (".", "Is a directory"), ("a\0b", "null"), ("latin", "byte 2")])
def test_a_file_that_cannot_be_read_is_named(folder: Path, path: str, why: str) -> None:
    (folder / "latin").write_bytes(b'{"\xff": 1}')
    with pytest.raises(ConfigUnreadable, match=why):
        value_of(Config("c"), file=path)


def test_a_file_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "marked").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert value_of(Config("c"), file="marked") == {"a": 1}


def test_bad_json_says_where(folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"\(--config-value\) is no JSON: .*line 1 column 7"):
        value_of(Config("c"), value='{"a": ')


def test_what_is_nested_without_end_is_refused(folder: Path) -> None:
    depth = 100_000
    with pytest.raises(ConfigInvalid, match="is no JSON: it is nested too deeply"):
        value_of(Config("c"), value="[" * depth + "]" * depth)
    with pytest.raises(ConfigInvalid, match=r"\(--config-value\) holds itself"):
        value_of(Config("c", parser=yaml_parser), value="a: &all {b: *all}")


@pytest.mark.parametrize("text", ["[1]", "3", '"x"'])
def test_a_configuration_is_a_map_unless_it_is_plain(folder: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid, match="a configuration is a map of names"):
        value_of(Config("c"), value=text)
    assert value_of(Config("c", plain=True), value=text) == json.loads(text)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_variable_that_is_no_map_is_named(folder: Path, text: str) -> None:
    with pytest.raises(ConfigVariableInvalid, match="EVFLOW_FLOW_CONFIG_VALUE is no JSON map"):
        value_of(Config("c"), env={"EVFLOW_FLOW_CONFIG_VALUE": text})


def test_a_parser_is_a_function_or_its_name_and_its_errors_are_told(folder: Path) -> None:
    assert value_of(Config("c", parser=lambda text: {"n": len(text)}), value="abc") == {"n": 3}
    assert value_of(Config("c", parser="tomllib.loads"), value="a = 1") == {"a": 1}
    with pytest.raises(ConfigInvalid, match=r"cannot be parsed: tomllib\.TOMLDecodeError.*\nMend it, or the parser"):
        value_of(Config("c", parser="tomllib.loads"), value="a = ")


def test_a_default_that_raises_shows_the_user_s_frames(folder: Path) -> None:
    with pytest.raises(ParameterDefaultFailed, match=r"(?s)The default of Config 'c' .*ZeroDivisionError"):
        value_of(Config("c", default_value=lambda _: {"a": 1 / 0}))


# --- the value in a step ----------------------------------------------------------------------------------


def test_entries_are_attributes_at_every_depth_and_the_value_is_a_dict() -> None:
    value = ConfigValue({"a": {"b": [{"c": 1}]}, "items": 2})
    assert value.a.b[0].c == value["a"]["b"][0]["c"] == 1
    assert value["items"] == 2
    assert dict(**value) == {"a": {"b": [{"c": 1}]}, "items": 2}
    assert json.loads(json.dumps(value)) == value == value.to_dict()
    assert type(value.to_dict()["a"]["b"][0]) is dict


@pytest.mark.parametrize(
    "change",
    [
        "v.a = 1", "v['a'] = 1", "del v.a", "del v['a']", "v.update(a=1)", "v.pop('a')", "v.popitem()", "v.clear()", "v.setdefault('b', 1)",
        "v |= {'b': 1}", "v.a.b = 2",
    ],
)  # fmt: skip
def test_nothing_of_it_can_be_changed(change: str) -> None:
    value = ConfigValue({"a": {"b": 1}})
    with pytest.raises(TypeError, match="cannot be changed"):
        exec(change, {"v": value})
    assert value == {"a": {"b": 1}}


def test_it_can_be_pickled_and_copied() -> None:
    value = ConfigValue({"a": {"b": 1}})
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert type(again.a) is ConfigValue
    assert copy.deepcopy(value).a.b == 1


def test_what_is_not_there_is_told_with_what_there_is() -> None:
    value = ConfigValue({"alpha": 1})
    with pytest.raises(AttributeError, match=r"no 'alpa' here\. It has: alpha\. Did you mean 'alpha'\?"):
        value.alpa  # noqa: B018
    with pytest.raises(KeyError, match="It has: alpha"):
        value["beta"]
    assert value.get("beta", 3) == 3
    assert not hasattr(value, "beta")


class Reading(FlowSpec):
    """A flow that reads its configurations in steps."""

    cfg = Config("cfg", default_value={"a": {"b": 1}})
    raw = Config("raw", default_value="[1, 2]", plain=True)
    none = Config("none")

    @step
    def start(self) -> None:
        """Read."""
        self.b, self.kind = self.cfg.a.b, type(self.cfg).__name__
        self.rows, self.nothing = self.raw, self.none
        self.next(self.end)

    @step
    def end(self) -> None:
        """Read once more."""
        self.again = self.cfg.a.b


def test_steps_read_configurations_and_the_artifact_is_a_dict() -> None:
    data = run_flow(Reading, cfg={"a": {"b": 5}}).data
    assert (data.b, data.kind, data.rows, data.nothing, data.again) == (5, "ConfigValue", [1, 2], None, 5)
    assert type(data.cfg) is dict
    assert run_flow(Reading).data.b == 1, "the one before has left nothing behind"
    assert run_step(Reading, "end", cfg={"a": {"b": 9}}).data.again == 9


def test_a_step_cannot_set_a_configuration() -> None:
    class Setting(FlowSpec):
        cfg = Config("cfg")

        @step
        def start(self) -> None:
            self.cfg = {}  # type: ignore[assignment]

    with pytest.raises(AttributeError, match="'cfg' is a Config"):
        run_flow(Setting)


# --- what takes a configuration ---------------------------------------------------------------------------


@schedule(cron=config_expr("cfg.cron"))
@trigger(event=config_expr("'day-' + cfg.kind"))
@concurrency(at_most=config_expr("cfg.times + FACTOR"))
class Taking(FlowSpec):
    """A flow that takes a configuration everywhere."""

    cfg = Config(
        "cfg",
        default_value={
            "times": 2, "env": {"vars": {"EVFLOW_TEST_A": "1"}}, "more": {"cpu": 4}, "cron": "5 4 * * *", "kind": "x", "file": "c.json",
        },
    )  # fmt: skip
    width = Parameter("width", default=cfg.times, help="How wide.")
    text = IncludeFile("text", default=cfg.file)
    kind = cfg.kind
    doubled = config_expr("[cfg.times, cfg['times'] * 2]")

    @retry(times=cfg.times, seconds_between_retries=0)
    @environment(**cfg.env)
    @resources(memory=config_expr("cfg.times * FACTOR"), **cfg.more)
    @step
    def start(self) -> None:
        """Look at all of it."""
        self.seen = (self.width, self.text, self.kind, self.doubled, os.environ["EVFLOW_TEST_A"])


def test_decorators_parameters_and_attributes_take_what_it_says(folder: Path) -> None:
    assert run_flow(Taking).data.seen == (2, '{"a": {"b": 1}}', "x", [2, 4], "1")
    policy = graph_of(Taking)["start"].policy
    assert (policy.retry_times, policy.cpu, policy.memory_mb) == (2, 4.0, 6)
    assert facts(Taking).parameters["width"].type is int
    assert check(Taking) == []


def test_the_decorators_of_the_class_take_it_too(folder: Path) -> None:
    settle(Taking, resolve(Taking, {}, {}, {}))
    found, runs = schedule_of(Taking), concurrency_of(Taking)
    assert found is not None
    assert runs is not None
    assert (found.cron, runs["at_most"]) == ("5 4 * * *", 5)
    assert [one.event for trigger in triggers_of(Taking) for one in trigger.wanted] == ["day-x"]


def test_other_values_take_the_place_of_those_before(folder: Path) -> None:
    run_flow(Taking)
    again = run_flow(
        Taking,
        cfg={"times": 7, "env": {"vars": {"EVFLOW_TEST_A": "2"}}, "more": {}, "cron": "0 0 * * *", "kind": "y", "file": "other.json"},
        width=1,
    )
    assert again.data.doubled == [7, 14]
    assert again.data.kind == "y"
    assert again.data.width == 1
    assert graph_of(Taking)["start"].policy.retry_times == 7


def test_two_flows_that_share_a_step_have_each_its_own(folder: Path) -> None:
    class Other(Taking):
        cfg = Config("cfg", default_value={**as_plain(resolve(Taking, {}, {}, {})["cfg"]), "times": 6})

    run_flow(Other)
    run_flow(Taking)
    assert (graph_of(Other)["start"].policy.retry_times, graph_of(Taking)["start"].policy.retry_times) == (6, 2)


def test_what_a_configuration_lacks_is_told_with_the_place(folder: Path) -> None:
    with pytest.raises(
        ConfigExpressionFailed, match=rf"cfg\.times \* FACTOR \({__file__}:\d+\) has no value: .*no 'times' here\. It has: a\."
    ):
        run_flow(Taking, cfg={"a": 1})


def test_a_field_that_a_decorator_has_not_is_told(folder: Path) -> None:
    class Unpacked(FlowSpec):
        cfg = Config("cfg", default_value={"tims": 1})

        @retry(**cfg)
        @step
        def start(self) -> None:
            pass

    with pytest.raises(DecoratorInvalid, match="@retry has no field 'tims'"):
        run_flow(Unpacked)


def test_what_is_no_map_cannot_be_unpacked(folder: Path) -> None:
    class Unpacked(FlowSpec):
        cfg = Config("cfg", default_value={"a": 1})

        @retry(**cfg.a)
        @step
        def start(self) -> None:
            pass

    with pytest.raises(ConfigInvalid, match="takes a map of names"):
        run_flow(Unpacked)


def test_a_decorator_s_only_field_may_be_given_without_its_name(folder: Path) -> None:
    class Pooled(FlowSpec):
        cfg = Config("cfg", default_value={"pool": "gpu", "slots": "licences"})

        @pool(cfg.pool)  # type: ignore[untyped-decorator]  # a function or a name, as far as its type says
        @limit(cfg.slots, at_most=2)
        @step
        def start(self) -> None:
            pass

    settle(Pooled, resolve(Pooled, {}, {}, {}))
    policy = graph_of(Pooled)["start"].policy
    assert policy.executor == "pool:gpu"
    assert policy.limits == {"licences": 2}


@pytest.mark.parametrize(("use", "instead"), [("retry(c.n)", r"@retry\(<field>=c\.n\)"), ("schedule(c.n)", r"@schedule\(cron=c\.n\)")])
def test_a_decorator_does_not_take_a_configuration_for_what_it_stands_on(use: str, instead: str) -> None:
    with pytest.raises(DecoratorInvalid, match=f"takes its fields by name.*\n.*{instead}"):
        eval(use, {"retry": retry, "schedule": schedule, "c": Config("c")})


@pytest.mark.parametrize(
    "use", ["bool(c.a)", "f'{c.a}'", "str(c.a)", "[*c.a]", "c.a or 3", "c.a + 1", "2 * c.a", "int(c.a)", "len(c.a)", "c.a == 1", "c.a < 1"]
)
def test_a_value_that_is_not_there_yet_cannot_be_used_as_if_it_were(use: str) -> None:
    with pytest.raises(TypeError, match=r"c\.a has no value yet .*config_expr"):
        eval(use, {"c": Config("c")})


@pytest.mark.parametrize("use", ["Parameter(c.a)", "Parameter('x', type=c.a)", "IncludeFile(c.a)", "Config(c.a)"])
def test_what_a_flow_is_asked_by_cannot_come_from_a_configuration(use: str) -> None:
    with pytest.raises(TypeError, match=r"c\.a has no value yet: .*configuration\."):
        eval(use, {"c": Config("c"), "Parameter": Parameter, "IncludeFile": IncludeFile, "Config": Config})


def test_check_tells_what_no_configuration_can_be() -> None:
    class Wrong(FlowSpec):
        p = Parameter("same", default=1)
        a = Config("same")
        b = Config("no name")
        number = Config(3)  # type: ignore[arg-type]
        c = Config("both", default="x", default_value={})
        d = Config("parsed", parser="loads")
        _e = Config("hidden")

        @step
        def start(self) -> None:
            pass

    assert [problem.code for problem in check(Wrong)] == [
        "config-clash",
        "config-name",
        "config-name",
        "config-defaults",
        "config-parser",
        "config-attribute",
    ]


def test_an_error_of_ours_is_a_wrong_use() -> None:
    for error in (ConfigUnknown, ConfigMissing, ConfigUnreadable, ConfigInvalid, ConfigExpressionFailed):
        assert issubclass(error, UsageError)


def test_an_expression_is_placed_where_it_is_written(folder: Path) -> None:
    class Placed(FlowSpec):
        cfg = Config("cfg", default_value={})

        @retry(times=cfg.times)  # here
        @step
        def start(self) -> None:
            pass

    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("cfg.times)  # here"))
    with pytest.raises(ConfigExpressionFailed, match=rf"cfg\.times \({__file__}:{line}\) has no value"):
        run_flow(Placed)
