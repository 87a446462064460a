"""What a run's first event says."""

from evflow import FlowSpec, JSONType, Parameter, step
from evflow_scheduler.request import RunRequest
from evflow_scheduler.start import SHOWN_CHARS, shown_parameters


class Trains(FlowSpec):
    rate = Parameter("learning-rate", default=0.1)
    notes = Parameter("notes", default="")
    windows = Parameter("windows", default="7,14", separator=",")
    names = Parameter("names", type=JSONType, default='["a"]')

    @step
    def start(self) -> None:
        pass


def test_parameters_are_shown_under_the_names_that_people_type() -> None:
    request = RunRequest(Trains, "", parameters={"rate": 0.5, "notes": "ok"})
    assert shown_parameters(request) == {"learning-rate": "0.5", "notes": "ok"}


def test_parameters_are_shown_as_people_type_them() -> None:
    request = RunRequest(Trains, "", parameters={"windows": ["7", "14", "30"], "names": ["a", 1, None], "notes": ""})
    assert shown_parameters(request) == {"windows": "7,14,30", "names": '["a", 1, null]', "notes": ""}


def test_long_values_are_shown_by_their_start() -> None:
    shown = shown_parameters(RunRequest(Trains, "", parameters={"notes": "x" * 1000}))
    assert shown["notes"] == "x" * (SHOWN_CHARS - 1) + "…"
