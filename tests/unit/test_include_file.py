"""IncludeFile: what a run gets from a path, and what it is told where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from evflow import FlowSpec, IncludeFile, step
from evflow.cli.flow_parameters import ParameterOptions
from evflow.core.ids import FlowName
from evflow.deployments.catalog import Reference, find
from evflow.deployments.request import Asked, FileFromElsewhere, Requested, make_ready, request_run
from evflow.deployments.specs import from_plain, spec_of, stand_in, to_plain
from evflow.flow.decorators.trigger import mistakes as trigger_mistakes, trigger
from evflow.flow.includefile import IncludedFileNotText, IncludedFileUnreadable
from evflow.flow.named_parser import ParserNotFound
from evflow.flow.parameter_values import ParameterContext, ParameterMissing, default_shown, resolve, shown, type_name
from evflow.flow.parameters import mistakes
from evflow.testing import run_flow, run_step
from tests.unit.deploy_world import World, found


def value_of(parameter: IncludeFile[Any], given: object = None, env: dict[str, str] | None = None) -> Any:
    flow: type[FlowSpec] = type("Flow", (FlowSpec,), {"f": parameter})
    return resolve(flow, {} if given is None else {parameter.name: given}, env or {})["f"]


def codes(parameter: IncludeFile[Any]) -> list[str]:
    return [code for code, *_ in mistakes(type("Flow", (FlowSpec,), {"f": parameter}))]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of text in the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "names.txt"
    file.write_bytes("Zoë\r\nBob\n".encode())
    return file


def test_a_path_becomes_the_text_of_its_file(names: Path) -> None:
    assert value_of(IncludeFile("f"), "names.txt") == "Zoë\nBob\n"
    assert value_of(IncludeFile("f"), names) == "Zoë\nBob\n"


def test_bytes_are_those_of_the_file(names: Path) -> None:
    assert value_of(IncludeFile("f", is_text=False), "names.txt") == names.read_bytes()


def test_a_file_is_read_in_the_encoding_of_its_parameter(names: Path) -> None:
    names.write_bytes("Zoë".encode("latin-1"))
    assert value_of(IncludeFile("f", encoding="latin-1"), "names.txt") == "Zoë"


def test_the_home_of_a_path_is_the_user_s(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(names.parent))
    assert value_of(IncludeFile("f"), "~/names.txt") == "Zoë\nBob\n"


def test_the_environment_and_the_default_give_paths(names: Path) -> None:
    (names.parent / "other.txt").write_text("other", encoding="utf-8")
    assert value_of(IncludeFile("f", default="names.txt"), env={"EVFLOW_RUN_F": "other.txt"}) == "other"
    assert value_of(IncludeFile("f", default="names.txt")) == "Zoë\nBob\n"


def test_a_default_may_be_computed(names: Path) -> None:
    def path(context: ParameterContext) -> str:
        return f"{context.parameter_name}.txt"

    assert value_of(IncludeFile("names", default=path)) == "Zoë\nBob\n"


def test_a_relative_default_is_looked_for_beside_the_flow_s_file(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).name
    monkeypatch.chdir(names.parent)
    flow: type[FlowSpec] = type("Flow", (FlowSpec,), {"f": IncludeFile("f", default=here), "__module__": __name__})
    assert str(resolve(flow, {}, {})["f"]).startswith('"""IncludeFile')


def test_a_file_that_is_not_needed_and_not_given_is_none() -> None:
    assert value_of(IncludeFile("f")) is None


def test_a_file_that_is_needed_is_asked_for() -> None:
    with pytest.raises(ParameterMissing, match="Missing option '--f'"):
        value_of(IncludeFile("f", required=True))


@pytest.mark.parametrize(("path", "why"), [("nothing.txt", "No such file"), (".", "Is a directory"), ("a\0b", "null")])
def test_a_file_that_cannot_be_read_is_named(names: Path, path: str, why: str) -> None:
    with pytest.raises(IncludedFileUnreadable, match=why) as caught:
        value_of(IncludeFile("f"), path)
    assert "--f PATH" in str(caught.value)


def test_a_default_that_is_not_there_is_told_as_a_default(names: Path) -> None:
    with pytest.raises(IncludedFileUnreadable, match=r"'no.txt' of '--f' \(its default\) cannot be read"):
        value_of(IncludeFile("f", default="no.txt"))


def test_what_is_no_path_is_told(names: Path) -> None:
    with pytest.raises(IncludedFileUnreadable, match="it is no path"):
        value_of(IncludeFile("f"), 3)


def test_bytes_that_are_no_text_say_what_to_do(names: Path) -> None:
    names.write_bytes(b"ab\xff")
    with pytest.raises(IncludedFileNotText, match="is no text in utf-8: byte 2 is not") as caught:
        value_of(IncludeFile("f"), "names.txt")
    assert "is_text=False" in str(caught.value)


def test_a_step_reads_what_the_parser_makes_once(names: Path) -> None:
    calls: list[str] = []

    def parse(text: str) -> list[str]:
        calls.append(text)
        return text.splitlines()

    class ParsedFlow(FlowSpec):
        people = IncludeFile("people", default="names.txt", parser=parse)
        place = IncludeFile("place", parser=parse)

        @step
        def start(self) -> None:
            self.first = self.people[0]
            self.same = self.people is self.people
            self.nowhere = self.place
            self.next(self.end)

        @step
        def end(self) -> None:
            self.last = self.people[-1]

    result = run_flow(ParsedFlow)
    assert (result.data.first, result.data.last, result.data.same, result.data.nowhere) == ("Zoë", "Bob", True, None)
    assert calls == ["Zoë\nBob\n"] * 2, "once in each task that reads it"
    assert result.data.people == "Zoë\nBob\n", "what is stored is the file"


def test_a_parser_goes_by_its_dotted_name(names: Path) -> None:
    class NamedFlow(FlowSpec):
        data = IncludeFile("data", parser="json.loads")

        @step
        def start(self) -> None:
            self.n = self.data["n"]

    names.write_text(json.dumps({"n": 3}), encoding="utf-8")
    assert run_step(NamedFlow, "start", data="names.txt").data.n == 3


@pytest.mark.parametrize("name", ["nowhere.to_be_found.loads", "json.nothing", "json.__name__"])
def test_a_parser_that_cannot_be_imported_is_named(names: Path, name: str) -> None:
    class LostFlow(FlowSpec):
        data = IncludeFile("data", default="names.txt", parser=name)

        @step
        def start(self) -> None:
            self.n = self.data

    with pytest.raises(ParserNotFound, match=f"IncludeFile 'data' .* has the parser '{name}'"):
        run_step(LostFlow, "start")


def test_a_file_cannot_be_set_in_a_step(names: Path) -> None:
    class SettingFlow(FlowSpec):
        data = IncludeFile("data", default="names.txt", parser=str.splitlines)

        @step
        def start(self) -> None:
            self.data = []  # type: ignore[assignment]

    with pytest.raises(AttributeError, match="'data' is a Parameter"):
        run_step(SettingFlow, "start")


def test_check_tells_of_encodings_and_parsers_that_cannot_be() -> None:
    assert codes(IncludeFile("f", default="not there", parser="a.b.c")) == []
    assert codes(IncludeFile("f", encoding="utf-9")) == ["parameter-encoding"]
    assert codes(IncludeFile("f", parser="loads")) == ["parameter-parser"]
    assert codes(IncludeFile("f", parser=3)) == ["parameter-parser"]
    assert codes(IncludeFile("f", separator=",")) == ["parameter-field"]


def test_people_see_how_much_a_file_holds_and_where_its_default_is() -> None:
    parameter: IncludeFile[Any] = IncludeFile("f", default="names.txt")
    assert (type_name(parameter), default_shown(parameter)) == ("file", "names.txt")
    assert shown(parameter, "a" * 1234) == "a file of 1,234 characters"
    assert shown(parameter, b"abc") == "a file of 3 bytes"
    assert shown(parameter, None) == "None"


def test_the_option_completes_files() -> None:
    (option,) = ParameterOptions(type("Flow", (FlowSpec,), {"f": IncludeFile("f")})).options
    assert [item.type for item in option.shell_complete(click.Context(click.Command("run")), "na")] == ["file"]


@pytest.mark.parametrize("make", [lambda: IncludeFile("f", encoding="latin-1", help="A file."), lambda: IncludeFile("f", is_text=False)])
def test_a_deployed_flow_reads_files_without_its_code(names: Path, make: Callable[[], IncludeFile[Any]]) -> None:
    flow: type[FlowSpec] = type("Flow", (FlowSpec,), {"data": make()})
    spec = from_plain(to_plain(spec_of(make_attached(flow))))
    assert resolve(stand_in("Flow", [spec]), {"f": "names.txt"}, {}) == resolve(flow, {"f": "names.txt"}, {})


def make_attached(flow: Any) -> IncludeFile[Any]:
    found: IncludeFile[Any] = flow.data
    return found


class Reading(FlowSpec):
    """A flow that reads a file."""

    data = IncludeFile("data", default="names.txt")

    @step
    def start(self) -> None:
        """Begin and end."""


def test_a_deployment_has_its_default_s_content_and_a_run_may_be_given_another(names: Path) -> None:
    world = World(names.parent)
    world.deploy(Reading)
    names.write_text("changed", encoding="utf-8")
    (names.parent / "other.txt").write_text("other", encoding="utf-8")
    assert world.values(asked_for(world)) == {"data": "Zoë\nBob\n"}
    other = asked_for(world, data="other.txt")
    assert world.values(other) == {"data": "other"}
    assert other.started.parameters_shown == {"data": "a file of 5 characters"}


def test_a_file_s_name_from_an_event_a_tick_or_a_backfill_is_not_read(names: Path) -> None:
    world = World(names.parent)
    deployment = found(world.deploy(Reading))
    asked = Asked({"data": "names.txt"}, (), "bob", "desk", {"kind": "event", "deployment": "default", "version": 1})
    with pytest.raises(FileFromElsewhere, match="'data' of Reading takes a file"):
        make_ready(world.store, deployment, asked)


def asked_for(world: World, **given: object) -> Requested:
    return request_run(world.log, world.store, find(world.log, Reference(FlowName("Reading"), "default")), Asked(given, (), "bob", "desk"))


def test_no_event_may_choose_a_file() -> None:
    @trigger(event="arrived", parameters={"data": "path"})
    class HearingFlow(FlowSpec):
        data = IncludeFile("data")

    ((_, message),) = trigger_mistakes(HearingFlow)
    assert "'data' takes a file, and no event may say which" in message
