"""`--with kubernetes`: whole flows whose steps run as Jobs of an API server (`tests.fakes.kubernetes_api`)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_scheduler import told
from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.fakes.kubernetes_cluster import Status
from tests.kubernetes_world import IMAGE, REAL, use_the_cluster
from tests.real_runs import evflow, python, verified
from tests.sums_flow import WITHIN_S, a_run, fields, write
from tests.waiting import wait_until

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def server(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """An API server, and an environment whose cluster it is."""
    del folder
    with fake_kubernetes(root / "cluster") as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(root / "kubeconfig")))
        yield found


def test_a_flow_runs_on_kubernetes_from_its_start_to_its_end(server: FakeKubernetes) -> None:
    write()
    done = python("sums.py", "run", "--with", "kubernetes:image=python:local,memory=256")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = server.jobs()
    assert len(jobs) == 6
    assert len(server.pods()) == 6
    assert all(job["status"]["conditions"][-1]["type"] == "Complete" for job in jobs.values())
    container = next(iter(jobs.values()))["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "python:local"
    assert container["resources"]["requests"]["memory"] == "256M"
    assert "working on 2" in done.stdout
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    verified("Sums/1")


@pytest.mark.parametrize(("point", "carried_out"), [("before", False), ("after", True)], ids=["before it is carried out", "after it"])
def test_an_owner_killed_at_a_submit_leaves_neither_an_orphan_nor_a_twin(server: FakeKubernetes, point: str, *, carried_out: bool) -> None:
    write()
    owners: list[subprocess.Popen[bytes]] = []
    made: list[str] = []

    def kill(at: str, name: str) -> None:
        if at == "after":
            made.append(name)
        if at == point and not name.endswith("-1-0") and owners:  # the start has run: the first of the foreach is submitted
            os.kill(owners.pop().pid, signal.SIGKILL)
            if not carried_out:
                raise ConnectionAbortedError

    server.faults.on_create = kill
    owner = a_run("--with", "kubernetes")
    owners.append(owner)
    assert owner.wait(WITHIN_S) == -signal.SIGKILL, Path("run.log").read_text()
    done = evflow("continue", "Sums/1")
    assert done.returncode == 0, done.stderr
    assert len(set(made)) == len(made)
    assert not server.running()
    succeeded = fields("Sums/1", "AttemptSucceeded")
    assert sorted(int(str(one["task"])) for one in succeeded) == [1, 2, 3, 4, 5, 6]
    verified("Sums/1")


def test_answers_that_are_lost_and_calls_that_are_throttled_make_no_twins(server: FakeKubernetes) -> None:
    write()
    server.faults.throttled, server.faults.lost_answers = 3, 3
    done = python("sums.py", "run", "--with", "kubernetes")
    assert done.returncode == 0, done.stderr
    assert len(server.jobs()) == len(server.pods()) == 6


def test_cancelling_a_run_ends_its_jobs_which_are_listed_before(server: FakeKubernetes) -> None:
    write("import time; time.sleep(600)")
    owner = a_run("--with", "kubernetes")
    wait_until(lambda: sum("working on" in server.output_of(job) for job in server.running()) == 3, "they work", WITHIN_S)
    listed = json.loads(evflow("kubernetes", "list", "Sums/1", "--json").stdout)
    assert [(one["flow"], one["run"], one["step"], one["status"]) for one in listed if one["step"] == "work"] == [
        ("Sums", 1, "work", "running")
    ] * 3
    assert "running" in evflow("kubernetes", "list", "--my-runs").stdout
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1, Path("run.log").read_text()
    wait_until(lambda: not server.running(), "their containers are gone", WITHIN_S)
    left = evflow("kubernetes", "kill", "--ended", "--json")
    assert {one["step"] for one in json.loads(left.stdout)} == {"start"}
    assert server.jobs() == {}


def test_a_run_whose_server_is_gone_for_good_says_so_and_is_ended_by_ctrl_c(server: FakeKubernetes) -> None:
    write("import time; time.sleep(600)")
    owner = a_run("--with", "kubernetes")
    wait_until(lambda: sum("working on" in server.output_of(job) for job in server.running()) == 3, "they work", WITHIN_S)
    server.faults.away = True
    server.cut_watches()
    wait_until(lambda: "It is waited for" in Path("run.log").read_text(), "the run says what it waits for", WITHIN_S)
    os.kill(owner.pid, signal.SIGINT)
    wait_until(lambda: "jobs cannot be ended yet" in Path("run.log").read_text(), "it cannot be cancelled", WITHIN_S)
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1
    assert "`evflow kubernetes kill Sums/1` ends them" in Path("run.log").read_text()
    server.faults.away = False
    assert "3 jobs told to end." in evflow("kubernetes", "kill", "Sums/1").stderr
    wait_until(lambda: not server.running(), "their containers are gone", WITHIN_S)
    verified("Sums/1")


def test_what_happens_to_pods_is_made_up_for_or_told(server: FakeKubernetes) -> None:
    write("import os, time\n        if self.input == 1 and 'EVFLOW_TEST_GO' not in os.environ: time.sleep(600)")
    owner = a_run("--with", "kubernetes")

    def sleeping() -> list[str]:
        return [job for job in server.running() if "working on 1" in server.output_of(job)]

    wait_until(lambda: bool(sleeping()), "the first one works", WITHIN_S)
    (first,) = sleeping()
    server.lose_node(server.pod_of(first))
    wait_until(lambda: bool(set(sleeping()) - {first}), "it works again", WITHIN_S)
    (second,) = set(sleeping()) - {first}
    server.kill_container(server.pod_of(second))
    assert owner.wait(WITHIN_S) == 1
    assert "more memory than it may" in Path("run.log").read_text()
    assert [str(one["reason"]).partition(":")[0] for one in fields("Sums/1", "AttemptLost")] == ["host-lost"]
    assert not server.running()


def test_an_image_that_cannot_be_pulled_fails_with_its_name(server: FakeKubernetes) -> None:
    write()
    server.faults.images["nobody/nothing"] = "pull access denied, repository does not exist"
    done = python("sums.py", "run", "--with", "kubernetes:image=nobody/nothing")
    assert done.returncode == 1
    assert "The image 'nobody/nothing' cannot be pulled" in done.stderr + done.stdout


def test_why_a_pod_waits_is_explained_while_it_waits(server: FakeKubernetes) -> None:
    write()
    server.room["cpu"] = 0
    owner = a_run("--with", "kubernetes", "--with", "retry:times=1,minutes_between_retries=0")
    why = "No node can take the pod: 0/1 nodes are available: 1 Insufficient cpu."
    wait_until(lambda: why in evflow("explain", "Sums/1/start").stdout, "it is explained", WITHIN_S)
    explained = json.loads(evflow("explain", "Sums/1", "--json").stdout)
    assert explained["explanation"][0].startswith("Sums/1/start/1 was ordered of Kubernetes ")
    assert explained["explanation"][-1].endswith(f": 1 job there has not begun. start/1: {why}")
    reason = explained["reasons"][-1]
    assert (reason["of"], reason["reason"], reason["executor"], reason["tasks"]) == ("Sums/1", "waits-for-platform", "kubernetes", 1)
    assert reason["jobs"] == [{"task": 1, "attempt": 0, "why": why}]
    [shown] = json.loads(evflow("show", "Sums/1", "--json").stdout)["waits_for_platform"]
    assert (shown["executor"], shown["tasks"], shown["jobs"]) == ("kubernetes", 1, reason["jobs"])
    assert f"1 job there has not begun. start/1: {why}" in evflow("show", "Sums/1").stdout
    [row] = json.loads(evflow("top", "--json").stdout)["runs"]
    assert (row["waiting"], row["running"]) == ({"platform": 1}, 0)
    server.room["cpu"] = 1_000
    server.delete_pod(server.pod_of(next(iter(server.jobs()))))  # the next attempt finds room
    assert owner.wait(WITHIN_S) == 0, Path("run.log").read_text()
    assert json.loads(evflow("show", "Sums/1", "--json").stdout)["waits_for_platform"] == []


def test_why_a_job_is_not_made_is_explained_while_a_quota_is_used_up(server: FakeKubernetes) -> None:
    write()

    def is_full(point: str, name: str) -> None:
        if point == "before":
            raise Status(403, "Forbidden", f'jobs.batch "{name}" is forbidden: exceeded quota: small, limited: count/jobs.batch=2')

    server.faults.on_create = is_full
    owner = a_run("--with", "kubernetes")
    wait_until(lambda: "exceeded quota: small" in evflow("explain", "Sums/1/start").stdout, "it is explained", WITHIN_S)
    assert "start/1: It is not submitted yet: Kubernetes refused POST " in evflow("explain", "Sums/1").stdout
    [row] = told("top")["runs"]
    assert (row["waiting"], row["running"]) == ({"platform": 1}, 0)
    assert evflow("cancel", "Sums/1").returncode == 0, "what was refused is not there, and needs not be looked for"
    assert owner.wait(WITHIN_S) == 1
    assert server.jobs() == {}
    server.faults.on_create = None
    assert a_run("--with", "kubernetes").wait(WITHIN_S) == 0, Path("run.log").read_text()


def test_no_cluster_is_told_and_a_mistake_of_a_decorator_is_found_by_check(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    done = python("sums.py", "run", "--with", "kubernetes:namespace=No_Such")
    assert "namespace 'No_Such'" in done.stderr
    assert server.jobs() == {}
    monkeypatch.delenv("KUBECONFIG")
    done = python("sums.py", "run", "--with", "kubernetes", "--fallback", "error")
    assert done.returncode == 1
    assert "no cluster is named" in done.stderr
    done = python("sums.py", "run", "--with", "kubernetes")
    assert done.returncode == 0
    assert done.stderr.count("Steps with @kubernetes run on this machine") == 1


def test_an_operators_template_and_a_steps_are_laid_over(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("operator.yaml").write_text("spec:\n  hostNetwork: true\n  priorityClassName: low\n")
    Path("step.yaml").write_text("spec:\n  priorityClassName: high\n")
    monkeypatch.setenv("EVFLOW_KUBERNETES_POD_TEMPLATE", "operator.yaml")
    write()
    text = (
        Path("sums.py").read_text().replace("    @step\n    def end", "    @kubernetes(pod_template='step.yaml')\n    @step\n    def end")
    )
    Path("sums.py").write_text(text)
    done = python("sums.py", "run")
    assert done.returncode == 0, done.stderr
    (job,) = server.jobs().values()
    spec = job["spec"]["template"]["spec"]
    assert (spec["hostNetwork"], spec["priorityClassName"]) == (True, "high")


@pytest.mark.skipif(not REAL, reason="EVFLOW_TEST_KUBECONFIG names no cluster")
def test_a_flow_runs_on_a_real_cluster_whose_node_is_this_machine(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del folder
    use_the_cluster(root, monkeypatch)
    write()
    done = python("sums.py", "run", "--with", f"kubernetes:image={IMAGE},executable={sys.executable},memory=200,cpu=0.1,disk=10")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "working on 2" in done.stdout
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    verified("Sums/1")
    listed = json.loads(evflow("kubernetes", "list", "Sums/1", "--ended", "--json").stdout)
    assert [one["status"] for one in listed] == ["succeeded"] * 6
    killed = evflow("kubernetes", "kill", "Sums/1", "--ended")
    assert "6 jobs told to end." in killed.stderr + killed.stdout
