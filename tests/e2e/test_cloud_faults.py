"""What goes wrong between a run and either platform of containers: schedulers that die around a submit, attempts that succeed after they were given up."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.aws import CREDENTIALS
from tests.e2e.test_scheduler import ended, scheduler, told
from tests.fakes.batch_server import BatchServer, a_batch_server
from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.real_runs import evflow, python, verified
from tests.sums_flow import WITHIN_S, fields
from tests.waiting import wait_until

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.timeout(600)

FLOW = """
import os, time
from evflow import FlowSpec, batch, current, kubernetes, step

class Two(FlowSpec):
    @PLATFORM
    @step
    def start(self):
        print("at work")
        while os.environ.get("EVFLOW_TEST_GO") and not os.path.exists(f"{os.environ['EVFLOW_TEST_GO']}{current.retry_count}"):
            time.sleep(0.02)
        self.attempt = current.retry_count
        self.next(self.end)

    @PLATFORM
    @step
    def end(self):
        print("attempt", self.attempt)

if __name__ == "__main__":
    Two()
"""


class Cloud:
    """A platform's service, whichever it is."""

    def __init__(self, name: str, server: BatchServer | FakeKubernetes) -> None:
        self.name = name
        self._server = server

    def at_submit(self, act: Callable[[str, str], None] | None) -> None:
        """Have something done within each submit, before and after it is carried out."""
        if isinstance(self._server, BatchServer):
            self._server.faults.on_submit = act
        else:
            self._server.faults.on_create = act

    def made(self) -> list[str]:
        """The names of all jobs, twins twice."""
        if isinstance(self._server, BatchServer):
            return sorted(job.name for job in self._server.jobs.values())
        return sorted(pod["metadata"]["labels"]["job-name"] for pod in self._server.pods().values())

    def running(self) -> list[str]:
        """The names of those that run."""
        return [job.name for job in self._server.running()] if isinstance(self._server, BatchServer) else self._server.running()

    def works(self, job: str) -> bool:
        """Whether it has printed that it is at work."""
        if isinstance(self._server, BatchServer):
            return any(one.output is not None and "at work" in one.output.read_text() for one in self._server.of_name(job))
        return "at work" in self._server.output_of(job)

    def lose_sight_of(self, job: str) -> Callable[[], bool]:
        """A host is given up by the platform, and what runs there goes on; answers what tells whether that has ended."""
        if isinstance(self._server, BatchServer):
            [lost] = self._server.of_name(job)
            self._server.lose_host(lost, lives_on=True)
            return lambda: lost.process is not None and lost.process.poll() is not None
        server, pod = self._server, self._server.pod_of(job)
        server.lose_node(pod, lives_on=True)
        return lambda: server.is_over(pod)


@pytest.fixture(params=["batch", "kubernetes"])
def cloud(request: pytest.FixtureRequest, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The service, an environment whose platform it is, and a flow whose steps run there. Containers report to the log."""
    del folder
    monkeypatch.setenv("EVFLOW_REPORT_VIA", "log")
    Path("two.py").write_text(FLOW.replace("PLATFORM", request.param))
    if request.param == "kubernetes":
        with fake_kubernetes(root / "cluster") as server:
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(root / "kubeconfig")))
            yield Cloud("kubernetes", server)
        return
    with a_batch_server(root) as batch:
        for name, text in {**CREDENTIALS, "EVFLOW_AWS_ENDPOINT": batch.url, "EVFLOW_BATCH_JOB_QUEUE": "queue"}.items():
            monkeypatch.setenv(name, text)
        yield Cloud("batch", batch)


def test_schedulers_killed_behind_and_before_a_submit_are_made_up_for_by_the_next_one(
    cloud: Cloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first dies when the start's job was made and not answered for, the second when the end's was asked for and not made."""
    go = root / "go-"
    monkeypatch.setenv("EVFLOW_TEST_GO", str(go))
    assert python("two.py", "deploy").returncode == 0
    owners: list[subprocess.Popen[str]] = []

    def kill(at: str, name: str) -> None:
        of_end = not name.endswith("-1-0")
        if owners and at == ("before" if of_end else "after") and len(owners) == (2 if of_end else 1):
            owners[-1].kill()
            if of_end:
                cloud.at_submit(None)
                raise ConnectionAbortedError

    with scheduler(root) as first:
        owners.append(first)
        cloud.at_submit(kill)
        run = str(told("run", "Two")["run"])
        assert first.wait(WITHIN_S) == -signal.SIGKILL
    with scheduler(root) as second:
        owners.append(second)
        go.with_name("go-0").touch()  # and not before: the end's submit kills the one that is known as its owner
        assert second.wait(WITHIN_S) == -signal.SIGKILL
    with scheduler(root):
        assert ended(run) == "succeeded"
    made = cloud.made()
    assert len(made) == len(set(made))
    assert len(fields(run, "AttemptSucceeded")) == 2
    wait_until(lambda: not cloud.running(), "no orphan is left", WITHIN_S)
    verified(run)


def test_a_late_success_of_an_attempt_that_was_given_up_has_no_effect(cloud: Cloud, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = root / "go-"
    monkeypatch.setenv("EVFLOW_TEST_GO", str(go))
    with Path("run.log").open("wb") as log:
        owner = subprocess.Popen([sys.executable, "two.py", "run"], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: any(map(cloud.works, cloud.running())), "it works", WITHIN_S)
        [first] = cloud.running()
        is_over = cloud.lose_sight_of(first)
        wait_until(lambda: any(job != first and cloud.works(job) for job in cloud.running()), "it works again", WITHIN_S)
        go.with_name(f"{go.name}0").touch()
        wait_until(is_over, "the first one has succeeded after all, and said so", WITHIN_S)
        for number in (1, 2):
            go.with_name(f"{go.name}{number}").touch()
        assert owner.wait(WITHIN_S) == 0, Path("run.log").read_text()
    finally:
        owner.kill()
        owner.wait()
    assert [(one["task"], one["attempt"]) for one in fields("Two/1", "AttemptSucceeded")] == [(1, 0), (1, 1), (2, 0)]
    assert evflow("logs", "Two/1/end/2").stdout == "attempt 1\n"
    verified("Two/1")
