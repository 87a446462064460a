"""A server that is killed before it answers is started again; one that cannot start is not tried for ever."""

import os
import signal
from pathlib import Path

import pytest

from evflow.log.embedded import EmbeddedServer
from evflow.log.embedded.problems import EmbeddedProblem
from evflow.log.embedded.server import recorded_pids
from tests.waiting import wait_until


def pid_of(server: EmbeddedServer) -> int:
    """The server's process, 0 where it is not known."""
    found = recorded_pids(server.places)
    return found[1] if found is not None else 0


def test_a_server_that_is_killed_while_it_starts_is_started_again(evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home) as server:
        first = wait_until(lambda: pid_of(server), "its process is known")
        os.kill(first, signal.SIGKILL)
        assert server.ready().startswith("unix://")
        second = wait_until(lambda: pid_of(server), "its successor's process is known")
        assert second != first


def test_a_server_that_cannot_start_is_named_with_what_it_said(evflow_home: Path, root: Path) -> None:
    tries = root / "tries"
    broken = root / "broken-server"
    broken.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Redis server v=7.2.0"; exit 0; fi\necho x >>{tries}\necho "broken" >&2\nexit 1\n'
    )
    broken.chmod(0o700)
    with pytest.raises(EmbeddedProblem, match="broken"), EmbeddedServer.begin(evflow_home, binary=str(broken)) as server:
        server.ready()
    assert tries.read_text().count("x") == 2
