"""A server may lose a stream and keep what stands beside it (a policy that evicts keys): every command says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.log.protocol import Head
from tests.real_runs import evflow, open_log, run_id

RUN = run_id("LostFlow")


@pytest.fixture(autouse=True)
def lost_run(evflow_home: Path) -> Iterator[None]:
    """A run of which the line in the index and the head are there, and no event."""
    with open_log(evflow_home) as log:
        log.forge(RUN, [], Head(35, b"x" * 32, "open"))
        yield


@pytest.mark.parametrize(
    "command", [["show"], ["logs"], ["explain"], ["replay"], ["replay", "--at", "3"], ["continue"], ["cancel"]], ids=" ".join
)
def test_a_command_says_that_the_runs_log_is_lost(command: list[str]) -> None:
    done = evflow(command[0], str(RUN), *command[1:])
    assert done.returncode == 1
    assert f"The log of '{RUN}' is lost: it had 35 events" in done.stderr
    assert "Internal error" not in done.stderr


def test_verification_says_from_where_on() -> None:
    done = evflow("replay", str(RUN), "--verify")
    assert done.returncode == 1
    assert "event 1  The log should have 35 events and has 0." in done.stdout
