"""Triggers whose events are named by functions, which are called when the flow is deployed."""

from typing import Any

import pytest

from evflow import FlowSpec, Parameter, namespaced_event_name, step, trigger, trigger_on_finish
from evflow.core.projects import Project
from evflow.flow.checks import check
from evflow.flow.decorators.trigger import triggers_of
from evflow.flow.decorators.trigger_functions import TriggerInvalid
from evflow.flow.parameter_values import ParameterDefaultFailed


class Plain(FlowSpec):
    day = Parameter("day", default="")

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def wanted(flow: type, project: Project | None = None) -> list[tuple[str, dict[str, str]]]:
    return [(one.event, dict(one.parameters)) for found in triggers_of(flow, project, user="ada") for one in found.wanted]


def test_functions_are_called_when_the_flow_is_deployed_and_not_before() -> None:
    """With who deploys what; wherever they stand, and a branch's name is made of what they give."""
    called: list[str] = []

    def named(context: Any) -> str:
        called.append(f"{context.flow_name} {context.user_name} {context.parameter_name}")
        return "data.ready"

    def more(_: Any) -> str:
        return "more"

    def days(_: Any) -> dict[str, str]:
        return {"day": "the_day"}

    @trigger(events=[named, {"name": more, "parameters": days}])
    @trigger(event=lambda _: namespaced_event_name("ready"))
    @trigger_on_finish(flows=lambda _: ["Other", {"name": "Third"}])
    class Listens(Plain):
        pass

    assert check(Listens) == []
    assert called == []
    assert wanted(Listens, Project("forecasts", "b")) == [
        ("data.ready", {}),
        ("more", {"day": "the_day"}),
        ("mfns.forecasts.test.b.ready", {}),
        ("evflow.finished.Other", {}),
        ("evflow.finished.Third", {}),
    ]
    assert called == ["Listens ada events"]


def test_what_functions_give_is_checked_and_what_they_raise_is_shown() -> None:
    @trigger(event=lambda _: 5)
    class Five(Plain):
        pass

    @trigger(event=lambda _: {"name": "a", "parameters": {"dya": "x"}})
    class Unknown(Plain):
        pass

    def raises(_: Any) -> str:
        raise LookupError

    @trigger(event=raises)
    class Raises(Plain):
        pass

    with pytest.raises(TriggerInvalid, match="event 5 is neither a name nor a dictionary"):
        triggers_of(Five)
    with pytest.raises(TriggerInvalid, match="has no parameter 'dya'"):
        triggers_of(Unknown)
    with pytest.raises(ParameterDefaultFailed, match="A function of @trigger, event"):
        triggers_of(Raises)
