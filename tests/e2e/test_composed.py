"""The composed system of docker/: a flow on real containers, whose scheduler is killed and restarted meanwhile.

It needs the images of `make images`, a Docker engine and `docker compose`: `make images ARGS=--test`.

    EVFLOW_TEST_DOCKER        1: run it
    EVFLOW_TEST_REDIS_IMAGE   an image of Redis or Valkey, where that of compose.yaml cannot be had
    EVFLOW_TEST_REDIS_USER    its user
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import REAL_HOME, REPOSITORY
from tests.ports import free_port
from tests.waiting import wait_until

ASKED, REDIS, REDIS_USER = (os.environ.get(f"EVFLOW_TEST_{name}", "") for name in ("DOCKER", "REDIS_IMAGE", "REDIS_USER"))
WITHIN_S = 120.0
FLOW = """
import os, time
from evflow import S3, FlowSpec, pool, step

class Composed(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1, 2, 3]
        self.next(self.work, foreach="items")

    @pool("default")
    @step
    def work(self):
        assert "EVFLOW_HTTP" not in os.environ, "this is the scheduler's container"
        with S3(s3root="s3://evflow/tests") as s3:
            while self.input == 0 and not s3.info("go", return_missing=True).exists:
                time.sleep(0.1)
        self.twice = 2 * self.input
        print("worked on", self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.twice for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)

if __name__ == "__main__":
    Composed()
"""
ZOMBIES = """
from pathlib import Path
for path in Path("/proc").glob("[0-9]*/stat"):
    try:
        if path.read_text().rpartition(")")[2].split()[0] == "Z":
            print(path.read_text())
    except OSError:
        pass
"""


def why_not() -> str | None:
    """What is missing here, in a sentence."""
    if not ASKED:
        return "EVFLOW_TEST_DOCKER is not set: containers are not asked for"
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "there is no `docker` here"
        if done.returncode:
            return f"`{' '.join(command)}` says: {done.stderr.strip()}"
    return None


WHY_NOT = why_not()
pytestmark = [pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)), pytest.mark.timeout(900)]


class System:
    """What docker/compose.yaml describes, under a name of its own."""

    def __init__(self, flows: Path) -> None:
        passwords = {f"{user}_PASSWORD": secrets.token_hex(16) for user in ("ADMIN", "SCHEDULER", "WORKER", "READER")}
        ports = {f"{name}_PORT": str(free_port()) for name in ("REDIS", "S3", "HTTP")}
        images = {name: value for name, value in (("REDIS_IMAGE", REDIS), ("REDIS_USER", REDIS_USER)) if value}
        own = {"COMPOSE_PROFILES": "s3", "FLOWS": str(flows), "HOME": str(REAL_HOME)}
        self._variables = {**os.environ, **passwords, **ports, **images, **own}
        self.name = f"evflow-test-{secrets.token_hex(4)}"
        has_bridge = not subprocess.run(["docker", "network", "inspect", "bridge"], capture_output=True, check=False).returncode
        files = ["compose.yaml"] if has_bridge else ["compose.yaml", "compose.host.yaml"]
        self._command = ["docker", "compose", "--project-name", self.name, "--env-file", os.devnull]
        self._command += [word for file in files for word in ("--file", str(REPOSITORY / "docker" / file))]

    def do(self, *words: str, fails: bool = False) -> str:
        """Carry out a command of `docker compose`; what it printed on stdout."""
        done = subprocess.run(
            [*self._command, *words], env=self._variables, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def within(self, service: str, *command: str, fails: bool = False) -> str:
        """Carry out a command in a service's container."""
        return self.do("exec", "-T", service, *command, fails=fails)

    def begin(self, log: Path, *command: str) -> "subprocess.Popen[bytes]":
        """Start a command of the client."""
        with log.open("wb") as file:
            words = [*self._command, "run", "--rm", "-T", "client", *command]
            return subprocess.Popen(words, env=self._variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def events(self, kind: str) -> int:
        """How many events of a kind the run has."""
        return len(json.loads(self.within("worker", "evflow", "events", "Composed/1", "--json", "--type", kind)))

    def exit_code(self, service: str) -> int:
        """How the container of a service that does not run ended."""
        (one,) = [json.loads(line) for line in self.do("ps", "--all", "--format", "json", service).splitlines()]
        return int(one["ExitCode"])


@pytest.fixture
def system(root: Path) -> Iterator[System]:
    """It, in good health."""
    flows = root / "flows"
    flows.mkdir()
    (flows / "composed.py").write_text(FLOW)
    system = System(flows)
    try:
        system.do("up", "--no-build", "--wait")
        yield system
    except BaseException:
        print(system.do("logs", "--no-color", "--tail", "100"))
        raise
    finally:
        system.do("--profile", "*", "down", "--volumes", "--timeout", "30")


def test_a_run_in_the_composed_system_outlives_its_schedulers_container(system: System, root: Path) -> None:
    assert "is deployed" in system.do("run", "--rm", "-T", "client", "python", "composed.py", "deploy")
    log = root / "follow.log"
    follower = system.begin(log, "evflow", "run", "Composed", "--follow")
    wait_until(lambda: follower.poll() is not None or "Run Composed/1" in log.read_text(), "it is asked for", WITHIN_S)
    wait_until(partial(lambda: system.events("AttemptSucceeded") == 4), "all but the one that waits have ended", WITHIN_S)

    system.do("kill", "scheduler")
    system.do("up", "--no-build", "--wait", "scheduler")
    system.do("stop", "scheduler")
    assert system.exit_code("scheduler") == 0, "it gave its shards back"
    system.do("up", "--no-build", "--wait", "scheduler")

    assert follower.poll() is None, log.read_text()
    assert system.events("AttemptSucceeded") == 4
    system.within("scheduler", "python", "-c", "from evflow import S3\nwith S3(s3root='s3://evflow/tests') as s3: s3.put('go', b'')")
    assert follower.wait(WITHIN_S) == 0, log.read_text()
    assert "worked on 0" in log.read_text()
    assert "total 12" in log.read_text()
    assert system.events("AttemptStarted") == 7, "nothing is repeated"

    assert "verified" in system.within("scheduler", "evflow", "replay", "Composed/1", "--verify")
    stored = system.within("worker", "evflow", "store", "check", "--all")
    assert "s3://evflow/store" in stored
    for service in ("scheduler", "worker"):
        assert system.within(service, "id", "-u").strip() == "1000"
        assert system.within(service, "python", "-c", ZOMBIES) == ""
        system.within(service, "touch", "/opt/evflow/written", fails=True)
