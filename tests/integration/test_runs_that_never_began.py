"""A process may die between its run's number and its first event: every command says so, none falls over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.core import flow_events
from evflow.log.keys import own_shard
from evflow.log.protocol import RunEntry
from tests.real_runs import evflow, open_log, run_id

RUN = run_id("DeadFlow")


@pytest.fixture(autouse=True)
def dead_run(evflow_home: Path) -> Iterator[None]:
    """A run of which only the line in the index is there, as its process writes it before the first event."""
    with open_log(evflow_home) as log:
        requested = flow_events.RunRequested(0, "ada", None, host="box")
        log.client.request_run(RUN.flow, flow_events.encode(requested, at_us=1, principal="user:ada"))
        log.client.index_run(RunEntry(RUN, own_shard(RUN), {"status": "starting", "user": "ada", "host": "box"}))
        yield


@pytest.mark.parametrize(
    "command", [["show"], ["explain"], ["replay"], ["replay", "--verify"], ["continue"], ["cancel", "--no-wait"]], ids=" ".join
)
def test_a_command_says_that_the_run_has_no_events(command: list[str]) -> None:
    done = evflow(command[0], str(RUN), *command[1:])
    assert done.returncode == 1
    assert "has no events" in done.stderr
    assert "Internal error" not in done.stderr


def test_it_stands_in_the_list_of_runs() -> None:
    assert "starting" in evflow("runs").stdout
