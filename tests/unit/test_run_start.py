"""What a run's first event says."""

import pytest

from evflow import FlowSpec, JSONType, Parameter, step
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.tags import MOST_TAGS
from evflow.deployments.beginning import Given, TagInvalid, check_tags, shown_parameters
from evflow.flow import graph_of
from evflow.flow.parameter_values import SHOWN_CHARS
from evflow_scheduler.request import RunRequest
from evflow_scheduler.start import started_event


class Trains(FlowSpec):
    rate = Parameter("learning-rate", default=0.1)
    notes = Parameter("notes", default="")
    windows = Parameter("windows", default="7,14", separator=",")
    names = Parameter("names", type=JSONType, default='["a"]')

    @step
    def start(self) -> None:
        pass


class Whole(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_parameters_are_shown_under_the_names_that_people_type() -> None:
    assert shown_parameters(Trains, {"rate": 0.5, "notes": "ok"}) == {"learning-rate": "0.5", "notes": "ok"}


def test_parameters_are_shown_as_people_type_them() -> None:
    assert shown_parameters(Trains, {"windows": ["7", "14", "30"], "names": ["a", 1, None], "notes": ""}) == {
        "windows": "7,14,30",
        "names": '["a", 1, null]',
        "notes": "",
    }


def test_long_values_are_shown_by_their_start() -> None:
    shown = shown_parameters(Trains, {"notes": "x" * 1000})
    assert shown["notes"] == "x" * (SHOWN_CHARS - 1) + "…"


def test_long_words_of_the_command_line_are_recorded_by_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/u/trains.py", "run", "--notes", "x" * 100_000])
    event = started_event(
        RunId(FlowName("Whole"), RunNumber(1)),
        RunRequest(Whole, ""),
        graph_of(Whole),
        given=Given(b"", {}),
        package=None,
        host="h",
        installation="i",
        store="file:///s",
    )
    assert event.code["argv"] == ["trains.py", "run", "--notes", "x" * (SHOWN_CHARS - 1) + "…"]


@pytest.mark.parametrize("tag", ["", "x" * 501, "two\nlines", "\udcff"])
def test_a_tag_that_no_run_can_have_is_refused(tag: str) -> None:
    with pytest.raises(TagInvalid) as refused:
        check_tags(["good", tag])
    str(refused.value).encode()  # can be shown, whatever it is about


def test_too_many_tags_are_refused() -> None:
    check_tags([str(number) for number in range(MOST_TAGS)])
    with pytest.raises(TagInvalid, match="51 tags"):
        check_tags([str(number) for number in range(MOST_TAGS + 1)])
