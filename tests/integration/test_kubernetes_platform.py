"""Kubernetes as a platform, over an API server that runs containers as processes."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from evflow_executors.kubernetes import api, platform, watching
from evflow_executors.kubernetes.api import Cluster, KubernetesApi
from evflow_executors.kubernetes.operator import Operator
from evflow_executors.kubernetes.platform import KubernetesPlatform
from evflow_executors.remote.rate import CallRate
from evflow_executors.remote.verdicts import GANG_ENDED
from tests.fakes import kubernetes_api
from tests.fakes.kubernetes_api import TOKEN, FakeKubernetes, fake_kubernetes, rights
from tests.fakes.kubernetes_cluster import stamp
from tests.kubernetes_world import FOR_EVER, a_gang, a_job, a_platform
from tests.waiting import wait_until

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.may_block("kubernetes-asyncio reads its configuration's files in the loop")


@pytest.fixture
def server(root: Path) -> Iterator[FakeKubernetes]:
    """An API server of a current version."""
    with fake_kubernetes(root / "cluster") as found:
        yield found


@pytest.fixture
def kubeconfig(server: FakeKubernetes, root: Path) -> Path:
    return server.kubeconfig(root / "kubeconfig")


async def test_a_job_runs_and_its_end_and_output_are_seen(kubeconfig: Path) -> None:
    job = a_job('echo "hello $OWN"; exit 3')
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([job]) == {}
        end = await watched.ended(job.name)
        assert (end.exit_code, end.verdict.kind, end.epoch) == (3, "exited", 1)
        assert end.host == "node1"
        assert [line.text async for line in watched.platform.logs(job.name)] == ["hello 2"]
        assert await watched.platform.log_tail(job.name, 5) == "hello 2\n"


async def test_a_second_submit_under_a_name_changes_nothing(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("sleep 60")
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([job]) == {}
        assert await watched.platform.submit([job]) == {}
        assert list(server.jobs()) == [job.name]


async def test_an_answer_that_was_lost_is_repeated_without_a_twin(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("sleep 60")
    async with a_platform(kubeconfig) as watched:
        server.faults.lost_answers = 1
        problems = await watched.platform.submit([job])
        assert problems[job.name].transient
        assert await watched.platform.submit([job]) == {}
        assert list(server.jobs()) == [job.name]
        assert len(server.pods()) == 1


async def test_output_is_followed_while_it_comes(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("echo one; sleep 0.5; echo two; sleep 60")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        found: list[str] = []
        async with aclosing(watched.platform.logs(job.name)) as lines:
            async for line in lines:
                found.append(line.text)
                if len(found) == 2:
                    break
        assert found == ["one", "two"]


async def test_a_job_is_ended_with_its_pod_in_the_grace(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("trap 'echo interrupted; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        async with aclosing(watched.platform.logs(job.name)) as lines:
            assert (await anext(lines)).text == "ready"
        await watched.platform.terminate(job.name, "the run asked for it", 60)
        end = await watched.ended(job.name)
        assert (end.exit_code, end.verdict.kind) == (7, "exited")
        assert server.jobs() == {}
        await watched.platform.terminate(job.name, "again", 5)


async def test_what_was_submitted_by_a_former_owner_is_found_and_watched(server: FakeKubernetes, kubeconfig: Path) -> None:
    here, there, gone = a_job("exit 4", 1), a_job("sleep 60", 2, namespace="flows"), a_job("true", 3)
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([here, there]) == {}
        await watched.ended(here.name)
    async with a_platform(kubeconfig) as watched:
        found = await watched.platform.find([here.name, there.name, gone.name], [there.asked])
        assert {name: seen.phase for name, seen in found.items()} == {here.name: "ended", there.name: found[there.name].phase}
        assert found[here.name].exit_code == 4
        assert found[there.name].phase in ("waiting", "running")
        await watched.platform.terminate(there.name, "test", 1)
        await watched.ended(there.name)


async def test_what_was_found_and_is_gone_before_the_watch_has_its_list_has_ended(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("sleep 60")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        await watched.running(job.name)
    heir = KubernetesPlatform(Cluster(str(kubeconfig)), CallRate(1_000), Operator)
    found = await heir.find([job.name], [])
    assert found[job.name].phase == "running"
    await heir.terminate(job.name, "test", 1)
    await to_thread.run_sync(wait_until, lambda: not server.pods(), "its pod is gone", 30.0)
    async with aclosing(heir.watch()) as told:
        assert (await anext(told)).phase == "ended"
    await heir.aclose()


async def test_many_are_found_by_their_label(server: FakeKubernetes, kubeconfig: Path) -> None:
    server.faults.runs = False
    jobs = [a_job("true", task) for task in range(30)]
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit(jobs)
        for job in jobs:
            assert (await watched.ended(job.name)).exit_code == 0
    async with a_platform(kubeconfig) as watched:
        assert set(await watched.platform.find([job.name for job in jobs], [])) == {job.name for job in jobs}


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("kill_container", "failed", "container-out-of-memory"),
        ("evict", "lost", "evicted"),
        ("preempt", "lost", "preempted"),
        ("drain", "lost", "evicted"),
        ("lose_node", "lost", "host-lost"),
        ("delete_pod", "failed", "killed-by-hand"),
    ],
)
async def test_what_happens_to_a_pod_is_told_as_what_it_is(
    server: FakeKubernetes, kubeconfig: Path, fault: str, kind: str, code: str
) -> None:
    job = a_job("trap 'exit 143' TERM; while :; do sleep 0.05; done")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        await watched.running(job.name)
        getattr(server, fault)(server.pod_of(job.name))
        end = await watched.ended(job.name)
        assert (end.verdict.kind, end.verdict.code) == (kind, code), end
        assert len([seen for seen in watched.of(job.name) if seen.phase == "ended"]) == 1


async def test_an_image_that_is_not_there_is_told_within_seconds_and_its_job_is_removed(server: FakeKubernetes, kubeconfig: Path) -> None:
    server.faults.images["nothing:1"] = "manifest for nothing:1 not found: manifest unknown"
    job = a_job("true", image="nothing:1")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        end = await watched.ended(job.name)
        assert end.verdict.code == "image-pull"
        assert "manifest for nothing:1 not found" in end.verdict.text


async def test_a_pod_that_no_node_can_take_is_told_and_waits_until_the_patience_is_over(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("true", cpu=1_000)
    async with a_platform(kubeconfig, patience_s=0.1) as watched:
        await watched.platform.submit([job])
        waits = await watched.until(lambda seen: bool(seen.message), job.name)
        assert waits.message == "No node can take the pod: 0/1 nodes are available: 1 Insufficient cpu."
        assert waits.phase == "waiting"
        end = await watched.ended(job.name)
        assert end.verdict.code == "unschedulable"


async def test_a_job_for_which_no_pod_is_made_says_why(server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "PODLESS_S", 0.1)
    monkeypatch.setattr(platform, "LOOK_S", 0.05)
    server.faults.podless = "exceeded quota: small"
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([a_job("true")])
        waits = await watched.until(lambda seen: bool(seen.message), a_job("true").name)
        assert waits.message == "Kubernetes makes no pod for it: Error creating: pods is forbidden: exceeded quota: small."


async def test_a_pod_whose_volume_cannot_be_mounted_says_why_and_waits_until_the_patience_is_over(
    server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "PODLESS_S", 0.1)
    monkeypatch.setattr(platform, "LOOK_S", 0.05)
    server.faults.starts, server.faults.unmounted = False, 'MountVolume.SetUp failed for volume "cm" : configmap "no" not found'
    job = a_job("true")
    async with a_platform(kubeconfig, patience_s=0.3) as watched:
        await watched.platform.submit([job])
        waits = await watched.until(lambda seen: bool(seen.message), job.name)
        assert (waits.phase, waits.message) == ("waiting", f"The container does not start yet: {server.faults.unmounted}.")
        end = await watched.ended(job.name)
        assert (end.verdict.kind, end.verdict.code) == ("failed", "container-broken")
        assert 'configmap "no" not found' in end.verdict.text


async def test_a_job_whose_attempt_is_over_is_deleted_though_the_platform_is_closed_at_once(
    server: FakeKubernetes, kubeconfig: Path
) -> None:
    server.faults.images["nothing:1"] = "manifest for nothing:1 not found"
    job = a_job("true", image="nothing:1")
    async with a_platform(kubeconfig, rate=3) as watched:  # so the deletion has to wait for its turn
        await watched.platform.submit([job])
        await watched.ended(job.name)
    assert server.jobs() == {}


async def test_lines_of_two_streams_that_come_out_of_order_are_all_told(
    server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server
    stamps = iter(["2026-01-01T00:00:02.000000Z", "2026-01-01T00:00:01.900000Z", "2026-01-01T00:00:02.100000Z"])
    monkeypatch.setattr(kubernetes_api, "stamp", lambda *, nano=False: next(stamps) if nano else stamp())
    job = a_job("echo one; echo two; echo three; sleep 60")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        async with aclosing(watched.platform.logs(job.name)) as lines:
            with anyio.fail_after(60):
                assert [(await anext(lines)).text for _ in range(3)] == ["one", "two", "three"]
        await watched.platform.terminate(job.name, "the test is over", 1)


async def test_each_right_of_the_role_is_used(server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server grants no other; so the Role in `ops/kubernetes` is what evflow needs, and no more."""
    monkeypatch.setattr(platform, "PODLESS_S", 0.1)
    monkeypatch.setattr(platform, "LOOK_S", 0.05)
    monkeypatch.setattr(api, "FEW", 1)
    one, podless = a_job("echo one; sleep 60", 1), a_job("true", 2)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([one])
        await watched.running(one.name)
        async with aclosing(watched.platform.logs(one.name)) as lines:
            assert (await anext(lines)).text == "one"
        server.faults.podless = "exceeded quota: small"
        await watched.platform.submit([podless])
        await watched.until(lambda seen: bool(seen.message), podless.name)
        assert set(await watched.platform.find([one.name, podless.name], [])) == {one.name, podless.name}
        await watched.platform.terminate(one.name, "the test is over", 1)
        await watched.ended(one.name)
    assert set(server.requests) - {"list version"} == rights()


async def test_a_job_that_is_gone_before_it_had_a_pod_has_ended(
    server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "PODLESS_S", 0.1)
    monkeypatch.setattr(platform, "LOOK_S", 0.05)
    server.faults.podless = "no"
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([a_job("true")])
        server.delete_job(a_job("true").name)
        end = await watched.ended(a_job("true").name)
        assert end.verdict.code == "killed-by-hand"
        assert "The Job" in end.verdict.text


async def test_a_limit_of_the_platform_ends_what_nobody_else_does(kubeconfig: Path) -> None:
    job = a_job("trap 'exit 143' TERM; while :; do sleep 0.05; done", timeout_s=1)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        assert (await watched.ended(job.name)).verdict.code == "container-timeout"


async def test_a_watch_that_is_cut_goes_on_without_a_list(server: FakeKubernetes, kubeconfig: Path) -> None:
    one, two = a_job("true", 1), a_job("true", 2)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([one])
        await watched.ended(one.name)
        server.requests.clear()
        server.cut_watches()
        await watched.platform.submit([two])
        await watched.ended(two.name)
        assert "watch pods" in server.requests
        assert "list pods" not in server.requests


async def test_a_watch_whose_version_is_forgotten_lists_anew_and_tells_what_was_missed(server: FakeKubernetes, kubeconfig: Path) -> None:
    one, two = a_job("sleep 60", 1), a_job("true", 2)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([one])
        await watched.running(one.name)
        server.faults.forbidden.add("watch pods")
        server.cut_watches()
        await watched.platform.submit([two])
        server.delete_pod(server.pod_of(one.name))
        server.compact()
        server.faults.forbidden.clear()
        assert (await watched.ended(one.name)).verdict.code == "killed-by-hand"
        await watched.ended(two.name)
        assert "list pods" in server.requests


async def test_a_server_that_is_away_is_waited_for_which_is_said_once(
    server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_FORGIVEN", 1)
    one, two = a_job("sleep 1; exit 5", 1), a_job("true", 2)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([one])
        await watched.running(one.name)
        server.faults.away = True
        server.cut_watches()
        problems = await watched.platform.submit([two])
        assert problems[two.name].transient
        assert "does not answer" in problems[two.name].message
        await to_thread.run_sync(wait_until, lambda: bool(watched.notices), "it is said")
        server.faults.away = False
        assert (await watched.ended(one.name)).exit_code == 5
        (notice,) = watched.notices
        assert re.match(r"The Kubernetes API server at \S+ does not answer: .*\. It is waited for", notice)


async def test_a_right_that_is_missing_for_the_watch_is_told_with_what_to_do(
    server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_FORGIVEN", 1)
    server.faults.forbidden.add("watch pods")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([a_job("true")])
        await to_thread.run_sync(wait_until, lambda: bool(watched.notices), "it is said")
        assert "cannot watch resource" in watched.notices[0]
        assert "docs/kubernetes.md" in watched.notices[0]
        server.faults.forbidden.clear()
        await watched.ended(a_job("true").name)


def with_token(kubeconfig: Path, old: str, new: str) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace(old, new))


async def test_credentials_that_are_refused_are_told_with_what_to_try(kubeconfig: Path) -> None:
    with_token(kubeconfig, TOKEN, "old")
    async with a_platform(kubeconfig) as watched:
        problem = (await watched.platform.submit([a_job("true")]))[a_job("true").name]
        assert "does not accept the credentials" in problem.message
        assert not problem.transient


async def test_credentials_that_have_expired_are_taken_anew(kubeconfig: Path) -> None:
    with_token(kubeconfig, TOKEN, "old")
    async with a_platform(kubeconfig) as watched:
        with_token(kubeconfig, "old", TOKEN)
        assert await watched.platform.submit([a_job("true")]) == {}


@pytest.fixture
def pod(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeKubernetes, Path]]:
    """A server that speaks TLS, and the folder in which a pod of its namespace `flows` finds its account; this process is in that pod."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH, which makes the server's certificate")
    account = root / "serviceaccount"
    account.mkdir()
    key, certificate = root / "key.pem", account / "ca.crt"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kubernetes"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    (account / "namespace").write_text("flows\n")
    (account / "token").write_text(TOKEN)
    incluster = "kubernetes_asyncio.config.incluster_config"
    monkeypatch.setattr(api, "_TOKEN", str(account))
    monkeypatch.setattr(f"{incluster}.SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(f"{incluster}.SERVICE_CERT_FILENAME", str(certificate))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with fake_kubernetes(root / "cluster", tls=tls) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield server, account


async def test_in_a_pod_its_account_is_used_and_a_token_that_was_replaced_is_read_anew(pod: tuple[FakeKubernetes, Path]) -> None:
    server, account = pod
    found = await KubernetesApi.connect(Cluster(), CallRate(100))
    try:
        await found.greet()
        assert (found.namespace, found.server.version) == ("flows", server.version)
        server.token = "another"
        (account / "token").write_text("another")
        assert await found.items("/api/v1/namespaces/flows/pods", "a=b") == ([], "100")
    finally:
        await found.aclose()


async def test_an_old_server_makes_no_second_pod_of_one_that_was_deleted(root: Path) -> None:
    with fake_kubernetes(root / "old", (1, 20)) as server:
        job = a_job("trap 'exit 143' TERM; while :; do sleep 0.05; done")
        async with a_platform(server.kubeconfig(root / "kubeconfig")) as watched:
            await watched.platform.submit([job])
            await watched.running(job.name)
            assert any("Kubernetes 1.20 does not remove Jobs" in notice for notice in watched.notices)
            server.lose_node(server.pod_of(job.name))
            end = await watched.ended(job.name)
            assert end.verdict.kind == "lost"
            await watched.platform.terminate(job.name, "what the owner does with what is left", 1)
            assert server.jobs() == {}


async def test_a_pod_template_is_laid_over_and_what_a_step_names_is_filled_by_the_settings(
    server: FakeKubernetes, kubeconfig: Path
) -> None:
    operators = ("pod.yaml", {"spec": {"hostNetwork": True, "priorityClassName": "low"}})
    job = a_job("true", pod_template={"spec": {"priorityClassName": "high"}})
    async with a_platform(kubeconfig, defaults={"service_account": "runner", "image": "unused"}, templates=(operators,)) as watched:
        await watched.platform.submit([job])
        await watched.ended(job.name)
        pod = next(iter(server.pods().values()))["spec"]
        assert (pod["hostNetwork"], pod["priorityClassName"], pod["serviceAccountName"]) == (True, "high", "runner")
        assert pod["containers"][0]["image"] == "python:local"


async def test_jobs_of_other_logs_are_not_seen(kubeconfig: Path) -> None:
    ours, theirs = a_job("true", 1), a_job("true", 1, log="another")
    async with a_platform(kubeconfig) as watched, a_platform(kubeconfig) as others:
        await others.platform.submit([theirs])
        await watched.platform.submit([ours])
        await others.ended(theirs.name)
        await watched.ended(ours.name)
        assert not watched.of(theirs.name)
        assert not others.of(ours.name)


async def test_a_gang_whose_answer_was_lost_is_repeated_without_a_twin_and_its_failure_is_found_as_it_was(
    server: FakeKubernetes, kubeconfig: Path
) -> None:
    gang = a_gang(f"[ $JOB_COMPLETION_INDEX = 1 ] && exit 3; {FOR_EVER}")
    names = [node.name for node in gang.nodes]
    async with a_platform(kubeconfig) as watched:
        server.faults.lost_answers = 1
        assert (await watched.platform.submit([gang]))[gang.name].transient
        assert await watched.platform.submit([gang]) == {}
        for name in names:
            await watched.ended(name)
    assert (list(server.jobs()), server.requests.count("create jobs")) == ([gang.name], 2)
    async with a_platform(kubeconfig) as watched:
        found = await watched.platform.find(names, [], {gang.name: names})
        assert [(found[name].exit_code, found[name].verdict.code) for name in names] == [(None, GANG_ENDED), (3, ""), (None, GANG_ENDED)]


async def test_ending_one_node_ends_its_pod_alone_and_then_its_gang_for_that(server: FakeKubernetes, kubeconfig: Path) -> None:
    """As when one runs into its limit: the run asks for the end of that one, and of the others when it has ended."""
    gang = a_gang(FOR_EVER)
    names = [node.name for node in gang.nodes]
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([gang])
        for name in names:
            await watched.running(name)
        await watched.platform.terminate(names[1], "its limit", 1)
        assert [(await watched.ended(name)).verdict.code for name in names] == [GANG_ENDED, "", GANG_ENDED]
        assert server.running() == []


async def test_the_pod_of_a_node_that_is_done_may_go_and_the_others_go_on(server: FakeKubernetes, kubeconfig: Path) -> None:
    gang = a_gang(f"[ $JOB_COMPLETION_INDEX = 0 ] && exit 0; {FOR_EVER}", 2)
    done, other = (node.name for node in gang.nodes)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([gang])
        assert (await watched.ended(done)).exit_code == 0
        await watched.running(other)
        server.delete_pod(server.pod_of(gang.name, 0))
        server.evict(server.pod_of(gang.name, 1))
        assert [seen.verdict.code for seen in watched.told if seen.phase == "ended"] == [""]
        assert (await watched.ended(other)).verdict.code == "evicted"
