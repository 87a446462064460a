"""`@secrets`: sources as users write them, and the variables that they give."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from evflow import FlowSpec, catch, masking, secrets, step
from evflow.errors import EvflowError
from evflow.flow.checks import check
from evflow.flow.decorators.base import DecoratorInvalid
from evflow.flow.decorators.secrets import SecretClashes, Secrets
from evflow.flow.decorators.spec import from_spec
from evflow.flow.graph import read_graph
from evflow.flow.graph_view import graph_info
from evflow.flow.secrets.local import dotenv
from evflow.flow.secrets.sources import SecretNotThere, SecretSourceInvalid, SecretUnusable, Source, fetch, source_of
from evflow.masking import Masker
from evflow.testing import run_step


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_here", Masker())


def inline(**variables: object) -> dict[str, Any]:
    return {"type": "inline", "id": "x", "options": {"env_vars": variables}}


def fetched(*sources: object, folder: object = "") -> dict[str, str]:
    return fetch(source_of(one, default_type=None, folder=str(folder)) for one in sources)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("aws-secrets-manager.prod/db", Source("aws-secrets-manager", "prod/db", {}, "r")),
        ("file./run/a.env", Source("file", "/run/a.env", {}, "r")),
        ("prod.db", Source("environment", "prod.db", {}, "r")),
        ({"id": "X"}, Source("environment", "X", {}, "r")),
        ({"type": "file", "id": "a", "role": "own", "options": {"format": "value"}}, Source("file", "a", {"format": "value"}, "own")),
    ],
)
def test_a_source_is_written_as_for_metaflow(given: object, source: Source) -> None:
    assert source_of(given, default_type="environment", role="r") == source


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("DB", r"'DB' has no type.\nWrite TYPE.ID; types are inline, environment, file, aws-secrets-manager"),
        ("file", "'file' has no id"),
        ("file.", "type file has no id"),
        ({"type": "vault", "id": "x"}, "there is no type 'vault' of secrets"),
        ({"type": "fil", "id": "x"}, "Did you mean 'file'"),
        ({"type": "file", "name": "x"}, "the field 'name'"),
        ({"type": "file", "id": "x", "options": []}, "options a dictionary"),
        ({"type": "file", "id": "x", "role": 3}, "is no text"),
        (3, "not a int"),
    ],
)
def test_another_source_is_refused_with_what_there_is(given: object, says: str) -> None:
    with pytest.raises(SecretSourceInvalid, match=says):
        source_of(given, default_type=None)


def test_variables_come_from_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "k-1")
    monkeypatch.setenv("DB_A", "a-1")
    monkeypatch.setenv("DB_B", "b-1")
    (tmp_path / "db-password.txt").write_text("hunter2\n")
    (tmp_path / "more.json").write_text(json.dumps({"user-name": "ada", "port": 5432, "tls": True}))
    (tmp_path / ".env").write_text("HOST=h\n")
    sources = ["environment.API_KEY", "environment.DB_*", "file.db-password.txt", "file.more.json", "file..env", inline(N=1)]
    assert fetched(*sources, folder=tmp_path) == {
        "API_KEY": "k-1", "DB_A": "a-1", "DB_B": "b-1", "DB_PASSWORD": "hunter2", "user_name": "ada", "port": "5432", "tls": "true", "HOST": "h", "N": "1",
    }  # fmt: skip
    other = {"type": "environment", "id": "API_KEY", "options": {"env_var_name": "KEY"}}
    one = {"type": "file", "id": str(tmp_path / "more.json"), "options": {"format": "value", "env_var_name": "RAW"}}
    assert fetched(other, one) == {"KEY": "k-1", "RAW": '{"user-name": "ada", "port": 5432, "tls": true}'}


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("environment.NOT_THERE", SecretNotThere, "NOT_THERE, which @secrets asks for, is not in the environment"),
        ("environment.NONE_*", SecretNotThere, r"NONE_\*"),
        ("file.missing", SecretNotThere, "missing: No such file"),
        (inline(**{"a-b": "x"}), SecretUnusable, "'a-b', which can be no variable's name"),
        (inline(EVFLOW_USER="x"), SecretUnusable, "configure evflow"),
        (inline(A="hunter2\0"), SecretUnusable, "value of A, from inline.x, can be no variable's"),
        (inline(A=["hunter2"]), SecretUnusable, "has a list under 'A'"),
        ({"type": "inline", "id": "x", "options": {"vars": {}}}, SecretSourceInvalid, "has the option 'vars'"),
        ({"type": "inline", "id": "x", "options": {"env_vars": 3}}, SecretSourceInvalid, "no dictionary"),
        ({"type": "file", "id": "x", "options": {"format": "yaml"}}, SecretSourceInvalid, "the format 'yaml'"),
        ({"type": "environment", "id": "A*", "options": {"env_var_name": "B"}}, SecretSourceInvalid, "several variables"),
    ],
)
def test_what_cannot_be_had_says_what_to_do_and_no_value(source: object, error: type[EvflowError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says) as raised:
        fetched(source, folder=tmp_path)
    assert raised.value.hint
    assert "hunter2" not in str(raised.value)


def test_two_sources_of_one_variable_are_refused() -> None:
    with pytest.raises(SecretUnusable, match=r"Both inline.x and inline.x give the variable A"):
        fetched(inline(A="one1"), inline(A="two2"))


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n# no\n\nexport B = two words # why\nC=a#b\n", {"A": "1", "B": "two words", "C": "a#b"}),
        ('A=\'x $Y # z\' # why\nB="a\\nb\\"c"', {"A": "x $Y # z", "B": 'a\nb"c'}),
        ('K="-----BEGIN\nabc\n-----END"\nL=1', {"K": "-----BEGIN\nabc\n-----END", "L": "1"}),
        ("\ufeffA=\nB=#x\nC==", {"A": "", "B": "", "C": "="}),
    ],
)
def test_a_dotenv_file_is_read_as_shells_write_it(text: str, variables: Mapping[str, str]) -> None:
    assert dotenv(Source("file", "x", {}), text) == variables


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text("ab \"'\\#$\n=", max_size=12)))
def test_what_is_quoted_comes_back(variables: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "\n".join(f"{name}={quoted(value)}" for name, value in variables.items())
    assert dotenv(Source("file", "x", {}), text) == variables


@pytest.mark.parametrize(("text", "says"), [("A=1\nhunter2", "Line 2 of the secret file.x"), ("A='hunter2\nB=1", "Line 1 .* never closed")])
def test_a_broken_dotenv_file_is_told_by_its_line_alone(text: str, says: str) -> None:
    with pytest.raises(SecretUnusable, match=says) as raised:
        dotenv(Source("file", "x", {}), text)
    assert "hunter2" not in str(raised.value)


class Uses(FlowSpec):
    @catch(var="error", print_exception=False)
    @secrets(sources=[inline(TOKEN="hunter2", PORT="80")])
    @step
    def start(self) -> None:
        self.length = len(os.environ["TOKEN"])
        raise ValueError(f"no login with {os.environ['TOKEN']}")
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_step_has_them_and_nothing_that_it_leaves_does(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_step(Uses, "start")
    assert done.data.length == 7
    assert done.data.error.exception == "no login with ***"
    assert "hunter2" not in done.data.error.stacktrace + str(done.caught)
    assert "Note: PORT: the value has fewer than 4 characters" in capsys.readouterr().err
    assert "TOKEN" not in os.environ


def test_the_graph_has_names_of_sources_and_no_values() -> None:
    shown = read_graph(Uses)["start"].decorators
    assert shown[-1] == "@secrets(sources=['inline.x'])"
    assert "hunter2" not in repr(shown)
    assert "hunter2" not in repr(graph_info(Uses))
    assert "'inline.x'" in repr(graph_info(Uses))


def test_a_variable_that_is_there_is_not_replaced_unless_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "another")
    with pytest.raises(SecretClashes, match="The variable TOKEN is in the environment of the step already"):
        Secrets({"sources": [inline(TOKEN="hunter2")]}).before(Uses(use_cli=False))
    assert os.environ["TOKEN"] == "another"
    Secrets({"sources": [inline(TOKEN="hunter2")], "allow_override": True}).before(Uses(use_cli=False))
    assert os.environ["TOKEN"] == "hunter2"
    Secrets({"sources": ["environment.TOKEN"]}).before(Uses(use_cli=False))  # what is there is no clash with itself


def test_check_tells_a_source_that_cannot_be() -> None:
    class Wrong(FlowSpec):
        @secrets(sources=["file.a", {"type": "vault", "id": "x"}], allow_override=cast("Any", "yes"))
        @step
        def start(self) -> None:
            pass

    told = [problem.message for problem in check(Wrong)]
    assert len(told) == 2
    assert told[0].startswith("Step start: @secrets: there is no type 'vault' of secrets.")


def test_a_value_on_the_command_line_is_refused_because_it_would_be_in_the_log() -> None:
    assert from_spec('secrets:sources=["file.a"]').given == {"sources": ["file.a"]}
    with pytest.raises(DecoratorInvalid, match="would stand in the run's log") as raised:
        from_spec('secrets:sources=[{"type":"inline","options":{"env_vars":{"A":"hunter2"}}}]')
    assert "hunter2" not in str(raised.value)
