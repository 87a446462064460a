"""`@batch`, `@kubernetes`: what a step asks for, as its graph records it."""

from typing import Any

import pytest

from evflow import FlowSpec, batch, kubernetes, resources, step
from evflow.core.graph import Graph
from evflow.flow.decorators.remote import Batch, merged, plain
from evflow.flow.decorators.resources import Resources
from evflow.flow.graph import read_graph


def test_the_larger_of_two_numbers_is_asked_for_whichever_decorator_has_it() -> None:
    """As `compute_resource_attributes` of Metaflow: its defaults of @resources (1 core, 4096 MB) count."""
    assert merged({"cpu": "4", "memory": 500}, [Resources({"cpu": 2, "gpu": 1})]) == {"cpu": "4", "memory": 4096, "gpu": 1}


def test_resources_that_ask_for_less_change_nothing() -> None:
    assert merged({"cpu": 4, "memory": 8000, "shared_memory": 10}, [Resources({"cpu": 2, "shared_memory": "9"})]) == {
        "cpu": 4,
        "memory": 8000,
        "shared_memory": 10,
    }


def test_what_is_asked_for_stands_in_the_graph_and_survives_the_log() -> None:
    class AskingFlow(FlowSpec):
        @batch(cpu=2, image="registry/image:1", aws_batch_tags={"team": "risk"}, host_volumes=["/data"])
        @resources(memory=9000)
        @step
        def start(self) -> None:
            self.next(self.end)

        @kubernetes
        @step
        def end(self) -> None:
            pass

    graph = read_graph(AskingFlow)
    asked = {"cpu": 2, "image": "registry/image:1", "aws_batch_tags": {"team": "risk"}, "host_volumes": ["/data"], "memory": 9000}
    assert (graph["start"].policy.executor, graph["start"].policy.asked) == ("batch", asked)
    assert (graph["end"].policy.executor, graph["end"].policy.asked) == ("kubernetes", {})
    assert Graph.from_plain(graph.to_plain()) == graph


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpu": "many"}, "a number of at least 0.001 as cpu"),
        ({"memory": 0}, "a number of at least 0.001 as memory"),
        ({"gpu": -1}, "a number of at least 0 as gpu"),
        ({"swappiness": 101}, "from 0 to 100 as swappiness"),
        ({"privileged": "yes"}, "True or False as privileged"),
        ({"host_volumes": 3}, "a list of texts as host_volumes"),
        ({"aws_batch_tags": "team"}, "a mapping as aws_batch_tags"),
        ({"inferentia": 1, "trainium": 1}, "keep one of them"),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_mistake(given: dict[str, Any], said: str) -> None:
    assert [said in mistake for mistake in Batch(given).mistakes()] == [True]


def test_fields_that_are_right_are_no_mistake() -> None:
    given = {
        "cpu": "0.5",
        "memory": "2000",
        "gpu": 0,
        "aws_batch_tags": "a=1,b=2",
        "host_volumes": "/a,/b",
        "use_tmpfs": True,
        "image": None,
    }
    assert list(Batch(given).mistakes()) == []


def test_values_that_no_log_could_hold_become_texts() -> None:
    assert plain({"a": (1, {"x"}), 3: object}) == {"a": [1, ["x"]], "3": "<class 'object'>"}
