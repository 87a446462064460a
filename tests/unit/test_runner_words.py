"""What a `Runner` hands to a flow's process, and what becomes of it there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.core import Context
from hypothesis import given, strategies as st

from evflow import FlowSpec, IncludeFile, JSONType, Parameter, step
from evflow.cli.flow_call import ArgumentUnknown, words
from evflow.cli.flow_parameters import ParameterOptions
from evflow.cli.flow_run import resume_command, run_command
from evflow.errors import UsageError
from evflow.flow.parameter_values import ParameterInvalid
from evflow.runner.captured import Captured
from evflow.runner.errors import ArgumentUnfit, NoNotebook, RunNotStarted
from evflow.runner.notebook import script
from evflow.runner.words import call, top_words


class Fit(FlowSpec):
    alpha = Parameter("alpha", default=0.5)
    day = Parameter("the-day", default="monday")
    sizes = Parameter("sizes", type=JSONType, default="[]")
    names = Parameter("names", separator=",", default="a")
    flag = Parameter("flag", default=False)
    table = IncludeFile("table")

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def called(options: Mapping[str, Any], arguments: list[object] | None = None, command: click.Command | None = None) -> list[str]:
    """The words that a call becomes in the flow's process."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(call(arguments or [], options))
    return words(Fit, "run", command or run_command(Fit), read, ["--typed"])


def parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the parameters come to."""
    own = ParameterOptions(Fit)
    context = Context(click.Command("run", params=list(own.options)))
    values, _, _ = context.command.make_parser(context).parse_args(called(options)[1:])
    return own.resolved(own.taken(dict(values)), user="me")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "alpha": st.floats(allow_nan=False),
            "the-day": st.text(max_size=30),
            "sizes": st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=10,
            ).filter(lambda value: value is not None and not isinstance(value, str)),
            "names": st.lists(st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), max_size=5)).filter(
                lambda names: names != [""]
            ),
            "flag": st.booleans(),
        },
    )
)
def test_a_parameter_gets_the_value_that_was_given(options: dict[str, Any]) -> None:
    found = parsed(options)
    found["the-day"] = found.pop("day")
    assert {name: found[name] for name in options} == options


def test_names_and_kinds_of_options() -> None:
    assert called({"day": "-x", "max_workers": 3, "tags": ["a", "b"], "with_specs": ["retry"], "tag": None, "sizes": "[1]"}) == [
        "--typed", "--the-day=-x", "--max-workers=3", "--tag=a", "--tag=b", "--with=retry", "--sizes=[1]",
    ]  # fmt: skip
    assert called({"alpha": np.float64(0.25), "table": Path("a.csv")}) == ["--typed", "--alpha=0.25", "--table=a.csv"]
    assert called({"origin_run_id": 3}, ["end"], resume_command(Fit)) == ["--typed", "--origin-run-id=3", "--", "end"]
    switch = click.Command("x", params=[click.Option(["--persist/--no-persist"]), click.Option(["--only"], is_flag=True)])
    assert called({"persist": True, "only": True}, command=switch) == ["--typed", "--persist", "--only"]
    assert called({"persist": False, "only": False}, command=switch) == ["--typed", "--no-persist"]
    with pytest.raises(UsageError, match="only='yes': it is True or False"):
        called({"only": "yes"}, command=switch)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"alhpa": 1}, ArgumentUnknown, "Fit has no parameter 'alhpa', and 'run' no such option. Did you mean 'alpha'?"),
        ({"max_split": 1}, ArgumentUnknown, "no such option."),
        ({"alpha": "x", "names": ["a,b"]}, ParameterInvalid, "a list of strings without ','"),
        ({"names": [""]}, ParameterInvalid, "a list of strings without ','"),
        ({"alpha": {}}, ParameterInvalid, "'--alpha': {} is not a number"),
        ({"table": 3}, ParameterInvalid, "the path of a file"),
        ({"max_workers": {}}, UsageError, "it is one value"),
    ],
    ids=["typo", "option", "separator", "empty", "dict", "file", "option-dict"],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        called(options)
    assert said in str(raised.value)


def test_a_call_that_breaks_off_is_no_call() -> None:
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(UsageError, match="nobody calls"):
        words(Fit, "run", run_command(Fit), read, [])
    os.close(read)


def test_options_before_the_command_become_words() -> None:
    given = {
        "quiet": True, "pylint": False, "metadata": "local", "decospecs": ["retry", "catch"], "branch": None, "trigger": ("a", "b"),
        "config": {"one": Path("one.json")}, "config_value": [("two", {"a": 1}), ("three", "[3]")],
    }  # fmt: skip
    assert list(top_words(given)) == [
        "--quiet", "--no-pylint", "--metadata=local", "--with=retry", "--with=catch", "--trigger=a", "--trigger=b",
        "--config", "one", "one.json", "--config-value", "two", '{"a": 1}', "--config-value", "three", "[3]",
    ]  # fmt: skip
    assert list(top_words({"quiet": False, "with": "retry"})) == ["--not-quiet", "--with=retry"]


def test_a_call_says_which_value_is_none_of_json() -> None:
    assert json.loads(call((3,), {"a": np.int64(3), "b": Path("x"), "c": None})) == {"arguments": ["3"], "options": {"a": 3, "b": "x"}}
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for value in (object(), {1, 2}, np.zeros(3), cyclic, b"x"):
        with pytest.raises(ArgumentUnfit, match=r"^it: a value of type"):
            call((), {"it": value})
    with pytest.raises(ArgumentUnfit):
        call((object(),), {})


# ---------------------------------------------------------------- what was printed


def test_lines_are_whole_or_wait_until_the_end() -> None:
    captured = Captured()
    captured.append(b"erste Zeile\r\nzwei")
    at, line = captured.line(0, ended=False) or (0, "")
    assert (at, line) == (13, "erste Zeile")
    assert captured.line(at, ended=False) is None
    captured.append("te ü".encode()[:-1])
    assert captured.text() == "erste Zeile\r\nzweite \ufffd"
    captured.append("ü".encode()[1:])
    assert captured.line(at, ended=False) is None
    assert captured.line(at, ended=True) == (at + 9, "zweite ü")
    assert captured.line(at + 9, ended=True) is None


def test_output_longer_than_memory_takes_is_whole() -> None:
    captured = Captured()
    for number in range(30):
        captured.append(b"%d" % (number % 10) * 99_999 + b"\n")
    assert len(captured.text()) == 3_000_000
    assert captured.line(2_900_000, ended=False) == (3_000_000, "9" * 99_999)


def test_an_error_without_a_message_shows_the_end_of_what_was_said() -> None:
    error = RunNotStarted(Path("f.py"), -9, "\n".join(map(str, range(100))))
    assert str(error) == "'f.py' started no run: its process ended with exit code -9.\n" + "\n".join(map(str, range(70, 100)))
    assert RunNotStarted(Path("f.py"), 2, "banner\nError: no.\nDo this.\n").hint == "Do this."


# ---------------------------------------------------------------- cells


def test_the_file_of_a_cell_ends_with_the_class() -> None:
    cell = "get_ipython().run_line_magic('time', '')\nout = get_ipython().getoutput('ls')\nimport a\nclass Hi(\n    B):\n    x = 1\nHi()\n"
    assert script("Hi", cell).splitlines() == [
        "# get_ipython().run_line_magic('time', '')", "# out = get_ipython().getoutput('ls')", "import a", "class Hi(", "    B):",
        "    x = 1", "", "", 'if __name__ == "__main__":', "    Hi()",
    ]  # fmt: skip
    with pytest.raises(NoNotebook, match="does not define the class Ho"):
        script("Ho", cell)
