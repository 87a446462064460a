"""What a real API server and kubelet do with what we make of steps, and the fake ones with it.

With EVFLOW_TEST_KUBECONFIG (and EVFLOW_TEST_IMAGE, an image with a shell and Python that the nodes have) each test runs on that cluster too. Nothing here depends on the
fake: what only it can do is in `test_kubernetes_platform`.
"""

import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from evflow_executors.kubernetes.api import Cluster, KubernetesApi
from evflow_executors.kubernetes.manifest import INDEXED_SINCE, Server, TaskJob, gang_manifest
from evflow_executors.remote.rate import CallRate
from tests.fakes.kubernetes_api import fake_kubernetes
from tests.kubernetes_world import IMAGE, REAL, a_gang, a_job, a_platform, new_log

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.may_block("kubernetes-asyncio reads its configuration's files in the loop")


@pytest.fixture(params=["fake", "real"])
def kubeconfig(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    """Credentials for an API server, whose Jobs of ours go away behind the test."""
    new_log()
    if request.param == "fake":
        with fake_kubernetes(root / "cluster") as server:
            yield server.kubeconfig(root / "kubeconfig")
        return
    if not REAL:
        pytest.skip("EVFLOW_TEST_KUBECONFIG names no cluster")
    yield Path(REAL)
    kubectl(Path(REAL), "delete", "jobs", "-l", "app.kubernetes.io/managed-by=evflow")


def kubectl(kubeconfig: Path, *arguments: str) -> str:
    return subprocess.run(["kubectl", "--kubeconfig", str(kubeconfig), *arguments], capture_output=True, text=True, check=True).stdout


async def test_a_job_runs_and_its_end_and_output_are_seen(kubeconfig: Path) -> None:
    job = a_job('echo "hello $OWN"; id -u; echo home > $HOME/x && echo tmp > /tmp/x && echo written; exit 3', secrets=None)
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([job]) == {}
        end = await watched.ended(job.name)
        assert (end.exit_code, end.verdict.kind, end.epoch) == (3, "exited", 1)
        assert end.host
        lines = [line.text async for line in watched.platform.logs(job.name)]
        assert (lines[0], lines[1].isdecimal(), lines[-1]) == ("hello 2", True, "written" if kubeconfig == Path(REAL) else lines[-1])
        assert (await watched.platform.log_tail(job.name, 1)).strip() == lines[-1]


async def test_a_second_submit_under_a_name_changes_nothing(kubeconfig: Path) -> None:
    job = a_job("sleep 60")
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([job]) == {}
        first = await watched.running(job.name)
        assert await watched.platform.submit([job]) == {}
        found = await watched.platform.find([job.name], [])
        assert found[job.name].place == first.place
        await watched.platform.terminate(job.name, "the test is over", 1)
        await watched.ended(job.name)


async def test_output_is_followed_while_it_comes(kubeconfig: Path) -> None:
    job = a_job("echo one; sleep 1; echo two; sleep 60")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        found: list[str] = []
        async with aclosing(watched.platform.logs(job.name)) as lines:
            async for line in lines:
                found.append(line.text)
                if len(found) == 2:
                    break
        assert found == ["one", "two"]
        await watched.platform.terminate(job.name, "the test is over", 1)
        await watched.ended(job.name)


async def test_a_job_is_ended_by_sigterm_within_its_grace(kubeconfig: Path) -> None:
    job = a_job("trap 'echo interrupted; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        async with aclosing(watched.platform.logs(job.name)) as lines:
            assert (await anext(lines)).text == "ready"
        await watched.platform.terminate(job.name, "the run asked for it", 60)
        end = await watched.ended(job.name)
        assert end.verdict.kind == "exited"
        assert end.exit_code in (7, None)  # a kubelet of 1.20 has removed the container before it looks
        await watched.platform.terminate(job.name, "again", 5)


async def test_what_a_former_owner_submitted_is_found(kubeconfig: Path) -> None:
    one, two, never = a_job("exit 4", 1), a_job("sleep 60", 2), a_job("true", 3)
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([one, two]) == {}
        await watched.ended(one.name)
        await watched.running(two.name)
    async with a_platform(kubeconfig) as watched:
        found = await watched.platform.find([one.name, two.name, never.name], [])
        assert {name: seen.phase for name, seen in found.items()} == {one.name: "ended", two.name: "running"}
        assert found[one.name].exit_code == 4
        await watched.platform.terminate(two.name, "the test is over", 1)
        await watched.ended(two.name)


async def test_a_pod_deleted_by_others_ends_its_job_and_no_second_one_runs_on(kubeconfig: Path) -> None:
    job = a_job("trap 'exit 143' TERM; while :; do sleep 0.05; done")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        running = await watched.running(job.name)
        api = await KubernetesApi.connect(Cluster(str(kubeconfig)), CallRate(100))
        try:
            await api.call("DELETE", f"/api/v1/namespaces/default/pods/{running.place.partition('/')[2]}")
        finally:
            await api.aclose()
        end = await watched.ended(job.name)
        assert end.verdict.code in ("killed-by-hand", "evicted")
        assert len([seen for seen in watched.of(job.name) if seen.phase == "ended"]) == 1


async def test_an_image_that_is_not_there_is_told(kubeconfig: Path, request: pytest.FixtureRequest) -> None:
    if "fake" in request.node.name:
        pytest.skip("the fake has any image that it is not told to refuse; see test_kubernetes_platform")
    job = a_job("true", image="no-such-image.invalid/at-all:1", image_pull_policy="Always")
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        seen = await watched.until(lambda seen: bool(seen.message) or seen.phase == "ended", job.name)
        assert "no-such-image.invalid/at-all:1" in (seen.message or seen.verdict.text)


async def test_a_pod_that_no_node_can_take_is_told_and_given_up(kubeconfig: Path) -> None:
    job = a_job("true", cpu=10_000)
    async with a_platform(kubeconfig, patience_s=1) as watched:
        await watched.platform.submit([job])
        waits = await watched.until(lambda seen: bool(seen.message), job.name)
        assert "nodes are available" in waits.message
        assert (await watched.ended(job.name)).verdict.code == "unschedulable"


async def test_a_limit_of_the_platform_ends_what_nobody_else_does(kubeconfig: Path) -> None:
    job = a_job("trap 'exit 143' TERM; while :; do sleep 0.05; done", timeout_s=3)
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([job])
        assert (await watched.ended(job.name)).verdict.code == "container-timeout"


async def test_what_all_arguments_make_is_taken(kubeconfig: Path) -> None:
    everything: dict[str, Any] = {
        "qos": "guaranteed",
        "labels": {"team.example/name": "ml"},
        "annotations": {"note": "any text: ü"},
        "use_tmpfs": True,
        "shared_memory": 16,
        "memory": 64,
        "port": 8000,
        "extended_resources": {"vendor.example/device": 1},
        "gpu": 1,
        "gpu_vendor": "amd",
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
        "node_selector": {"disk": "ssd"},
        "persistent_volume_claims": {"my.claim": "/data"},
        "image_pull_secrets": ["registry"],
        "secrets": ["warehouse"],
    }
    async with a_platform(kubeconfig) as watched:
        job = a_job("true", **everything)
        assert await watched.platform.submit([job]) == {}
        await watched.platform.terminate(job.name, "the test is over", 1)


async def test_a_gang_is_taken_as_an_indexed_job(kubeconfig: Path) -> None:
    job = TaskJob("evgang-of-tests", {"evflow-log": "x"}, {"image": IMAGE}, ("true",), {"OWN": "1"})
    made = gang_manifest(job, 3, Server((1, 31)), ttl_s=60)
    api = await KubernetesApi.connect(Cluster(str(kubeconfig)), CallRate(100))
    try:
        said = await api.call("POST", "/apis/batch/v1/namespaces/default/jobs", {"dryRun": "All"}, made)
    finally:
        await api.aclose()
    assert said["spec"]["completions"] == 3


INDEX = "i=${JOB_COMPLETION_INDEX:-$OWN}"


async def test_a_gang_is_submitted_once_and_found_by_a_new_owner_who_ends_all_of_it(kubeconfig: Path) -> None:
    """As one Job where the server has Indexed Jobs, else as one for each node."""
    gang = a_gang(f"{INDEX}; trap 'exit 143' TERM; echo node $i; while :; do sleep 0.05; done")
    names = [node.name for node in gang.nodes]
    async with a_platform(kubeconfig) as watched:
        assert await watched.platform.submit([gang]) == {}
        for index, name in enumerate(names):
            await watched.running(name)
            async with aclosing(watched.platform.logs(name)) as lines:
                assert (await anext(lines)).text == f"node {index}"
        assert await watched.platform.submit([gang]) == {}
    async with a_platform(kubeconfig) as watched:
        other = a_gang("true", 2).nodes[0].name.replace("-2-0", "-9-0")
        found = await watched.platform.find([*names, other], [], {gang.name: names})
        assert {name: seen.phase for name, seen in found.items()} == dict.fromkeys(names, "running")
        assert len({seen.place for seen in found.values()}) == len(names)
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(watched.platform.terminate, name, "the test is over", 2)
        for name in names:
            assert (await watched.ended(name)).verdict.kind == "exited"
        assert await watched.platform.find(names, [], {gang.name: names}) == {}


async def test_a_node_that_fails_ends_its_gang_and_is_told_as_the_one(kubeconfig: Path) -> None:
    gang = a_gang(f"{INDEX}; [ $i = 1 ] && exit 3; trap 'exit 143' TERM; while :; do sleep 0.05; done")
    names = [node.name for node in gang.nodes]
    async with a_platform(kubeconfig) as watched:
        await watched.platform.submit([gang])
        failed = await watched.ended(names[1])
        assert (failed.exit_code, failed.verdict.code) == (3, "")
        by_the_server = await has_indexed_jobs(kubeconfig)
        for name in (names[0], names[2]):
            if not by_the_server:  # the run ends the others then
                await watched.platform.terminate(name, "another node failed", 2)
            end = await watched.ended(name)
            assert (end.verdict.kind, end.verdict.code) == ("exited", "gang-ended" if by_the_server else "")


async def has_indexed_jobs(kubeconfig: Path) -> bool:
    api = await KubernetesApi.connect(Cluster(str(kubeconfig)), CallRate(100))
    try:
        await api.greet()
    finally:
        await api.aclose()
    return api.server.has(INDEXED_SINCE)
