"""`@parallel` steps on Kubernetes: gangs whose nodes are the pods of one Indexed Job, and have to reach each other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.kubernetes_world import IMAGE, REAL, use_the_cluster
from tests.real_runs import evflow, python, verified
from tests.sums_flow import WITHIN_S, fields
from tests.waiting import wait_until

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.timeout(600)
NODES = 2
FLOW = """
import os, socket, time
from evflow import FlowSpec, current, kubernetes, pytorch_parallel, retry, step

class Crew(FlowSpec):
    @step
    def start(self):
        self.next(self.work, num_parallel=2)

    @retry(times=1, minutes_between_retries=0)
    @kubernetes(image="python:local", memory=256, cpu=0.1, disk=10)
    @pytorch_parallel
    @step
    def work(self):
        place = current.parallel
        print("at work", place.node_index, flush=True)
        while current.retry_count < int(os.environ.get("CREW_HELD", 0)):
            time.sleep(0.05)
        if "CREW_FAILS" in os.environ and place.node_index == 1 and current.retry_count == 0:
            raise ValueError("as told")
        self.met = self.meet(place)
        self.place = (place.node_index, place.num_nodes, place.main_ip, os.environ["MASTER_ADDR"])
        self.next(self.gather)

    def meet(self, place):
        address = (place.main_ip, int(os.environ["MASTER_PORT"]))
        if place.node_index == 0:
            with socket.create_server(address) as server:
                server.settimeout(60)
                peers = [server.accept()[0] for _ in range(place.num_nodes - 1)]
            for peer in peers:
                peer.sendall(b"go")
            return len(peers)
        until = time.monotonic() + 60
        while True:
            try:
                return len(socket.create_connection(address, timeout=60).recv(2))
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    @step
    def gather(self, inputs):
        self.places = [(one.place, one.met) for one in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("places", self.places)

if __name__ == "__main__":
    Crew()
"""


@pytest.fixture(params=[(1, 31)])
def server(request: pytest.FixtureRequest, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """An API server, an environment whose cluster it is, and the flow."""
    del folder
    Path("crew.py").write_text(FLOW)
    with fake_kubernetes(root / "cluster", request.param) as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(root / "kubeconfig")))
        yield found


def a_process(*arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    """Start a Python, which says what it says in `run.log`."""
    env = {**os.environ, **variables}
    with Path("run.log").open("wb") as log:
        return subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, start_new_session=True, env=env)


def places(main_ip: str) -> str:
    """What the nodes have kept when they met: their places, and node 0 its number of peers, the others the two bytes of its word."""
    return str([((index, NODES, main_ip, main_ip), NODES - 1 if index == 0 else 2) for index in range(NODES)])


def address_of(server: FakeKubernetes, job: str, index: int | None = None) -> str:
    address: str = server.pods()[server.pod_of(job, index)]["status"]["podIP"]
    return address


def at_work(server: FakeKubernetes, attempt: int) -> str:
    """The Job of an attempt of the gang, when all of its nodes are in their bodies."""

    def working() -> list[str]:
        jobs = [job for job in server.running() if job.endswith(f"-{attempt}-gang")]
        return jobs if len(jobs) == NODES and all("at work" in server.output_of(jobs[0], index) for index in range(NODES)) else []

    wait_until(lambda: bool(working()), f"attempt {attempt} of all nodes is at work", WITHIN_S)
    return working()[0]


def test_the_nodes_of_a_gang_are_the_pods_of_one_indexed_job_which_fails_as_a_whole_and_reach_node_0(server: FakeKubernetes) -> None:
    done = python("crew.py", "run", EVFLOW_CONTAINER_ENV="CREW_FAILS=1")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = {name.rpartition("-gang")[0][-1]: job for name, job in server.jobs().items()}
    assert [(job["spec"]["completionMode"], job["spec"]["completions"]) for job in jobs.values()] == [("Indexed", NODES)] * 2
    assert {attempt: job["status"]["conditions"][-1]["type"] for attempt, job in jobs.items()} == {"0": "Failed", "1": "Complete"}
    assert server.requests.count("create jobs") == 2
    second = jobs["1"]["metadata"]["name"]
    assert f"places {places(address_of(server, second, 0))}" in done.stdout
    assert [(one["task"], one["message"]) for one in fields("Crew/1", "AttemptFailed")] == [(3, "as told")]
    assert [one["task"] for one in fields("Crew/1", "AttemptCancelled")] == [2]
    assert verified("Crew/1")["problems"] == []
    listed = json.loads(evflow("kubernetes", "list", "Crew/1", "--ended", "--json").stdout)
    assert [(one["step"], one["task"], one["nodes"], one["status"]) for one in listed] == [
        ("work", 2, NODES, "failed"),
        ("work", 2, NODES, "succeeded"),
    ]


@pytest.mark.parametrize("server", [(1, 20)], indirect=True)
def test_where_no_indexed_jobs_are_each_node_is_a_job_and_they_meet_all_the_same(server: FakeKubernetes) -> None:
    done = python("crew.py", "run")
    assert done.returncode == 0, done.stderr + done.stdout
    first, *_ = sorted(server.jobs())
    assert len(server.jobs()) == len(server.pods()) == NODES
    assert f"places {places(address_of(server, first))}" in done.stdout


def test_owners_killed_before_and_after_a_gangs_submit_leave_neither_an_orphan_nor_a_twin(server: FakeKubernetes) -> None:
    owners: list[subprocess.Popen[bytes]] = []
    points = ["before", "after"]
    made: list[str] = []

    def kill(at: str, name: str) -> None:
        if at == "after":
            made.append(name)
        if at == points[0] and owners:
            os.kill(owners.pop().pid, signal.SIGKILL)
            if points.pop(0) == "before":
                raise ConnectionAbortedError  # it is not carried out
            points.append("never")

    server.faults.on_create = kill
    for command in (["crew.py", "run"], ["-m", "evflow.cli", "continue", "Crew/1"]):
        owner = a_process(*command)
        owners.append(owner)
        assert owner.wait(WITHIN_S) == -signal.SIGKILL, Path("run.log").read_text()
    done = evflow("continue", "Crew/1")
    assert done.returncode == 0, done.stderr
    assert len(made) == len(server.jobs()) == 1
    assert len(server.pods()) == NODES
    assert not server.running()
    assert len({str(one["attempt"]) for one in fields("Crew/1", "AttemptSucceeded") if one["task"] in (2, 3)}) == 1
    assert verified("Crew/1")["problems"] == []


def test_a_node_that_is_lost_or_fails_takes_the_gang_along_which_begins_anew_until_it_is_cancelled(server: FakeKubernetes) -> None:
    """A loss does not count; too much memory does, and `@retry` allows that once. What is left when the run is cancelled is the third attempt."""
    owner = a_process("crew.py", "run", EVFLOW_CONTAINER_ENV="CREW_HELD=3")
    server.lose_node(server.pod_of(at_work(server, 0), 1))
    second = at_work(server, 1)
    server.kill_container(server.pod_of(second, 1))
    third = at_work(server, 2)
    scheduled = fields("Crew/1", "RetryScheduled")
    assert [(one["count"], one["counted"]) for one in scheduled] == [(NODES, False), (NODES, True)]
    assert [(one["task"], str(one["reason"]).partition(":")[0]) for one in fields("Crew/1", "AttemptLost")] == [(3, "host-lost")]
    assert [(one["task"], one["error"]) for one in fields("Crew/1", "AttemptFailed")] == [(3, "container-out-of-memory")]
    assert [one["task"] for one in fields("Crew/1", "AttemptCancelled")] == [2, 2]
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1, Path("run.log").read_text()
    wait_until(lambda: not server.running(), "all containers are gone", WITHIN_S)
    assert third not in server.jobs()
    assert len(fields("Crew/1", "AttemptCancelled")) == 2 + NODES
    assert verified("Crew/1")["problems"] == []


@pytest.mark.skipif(not REAL, reason="EVFLOW_TEST_KUBECONFIG names no cluster")
def test_a_gang_runs_on_a_real_cluster_and_is_tried_again_when_a_pod_is_deleted(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one Job or as one for each node, as the server has it."""
    del folder
    use_the_cluster(root, monkeypatch)
    Path("crew.py").write_text(FLOW.replace('image="python:local"', f'image="{IMAGE}", executable="{sys.executable}"'))
    owner = a_process("crew.py", "run", EVFLOW_CONTAINER_ENV="CREW_HELD=1")
    wait_until(lambda: Path("run.log").read_text().count("at work") == NODES, "the first attempt of all nodes is at work", WITHIN_S)
    pods = kubectl("get", "pods", "-l", "evflow-flow=Crew,evflow-attempt=0", "-o", "name").split()
    assert len(pods) == NODES
    kubectl("delete", "--wait=false", pods[-1])
    assert owner.wait(WITHIN_S) == 0, Path("run.log").read_text()
    assert "places [((0, 2, " in Path("run.log").read_text()
    assert [one["count"] for one in fields("Crew/1", "RetryScheduled")] == [NODES]
    assert verified("Crew/1")["problems"] == []
    kubectl("delete", "jobs", "-l", "evflow-flow=Crew")


def kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=True).stdout
