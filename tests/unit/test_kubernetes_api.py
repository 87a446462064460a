"""How an API server is reached, and what is kept of its answers."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from evflow_executors.kubernetes import api as api_of_kubernetes
from evflow_executors.kubernetes.answers import lean
from evflow_executors.kubernetes.api import Cluster, KubernetesApi, NoCluster, _proxy_of, from_json, to_json
from evflow_executors.kubernetes.manifest import CONTAINER
from evflow_executors.kubernetes.reasons import pod_seen
from evflow_executors.remote.platform import PlatformProblem
from evflow_executors.remote.rate import CallRate
from tests.ports import free_port


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_proxy_of_the_environment_is_taken_unless_the_server_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _proxy_of("https://cluster.example:6443") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "near.example,127.0.0.1")
    assert _proxy_of("https://cluster.example:6443") == "http://user:word@proxy.example:3128"
    assert _proxy_of("http://cluster.example") is None
    assert _proxy_of("https://near.example") is None
    assert _proxy_of("https://127.0.0.1:6443") is None
    monkeypatch.setenv("HTTPS_PROXY", "https://proxy.example")  # which no client of ours can speak to
    assert _proxy_of("https://cluster.example:6443") is None


def test_a_number_that_names_a_label_is_a_text_in_what_is_sent() -> None:
    assert from_json(to_json({"labels": {1: "a"}})) == {"labels": {"1": "a"}}


def test_what_is_kept_of_a_pod_says_as_much_as_the_pod() -> None:
    waiting = {"name": CONTAINER, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    pod = {
        "metadata": {
            "name": "p",
            "uid": "1",
            "labels": {"job-name": "j"},
            "annotations": {"a": "b"},
            "managedFields": [{}],
            "namespace": "n",
        },
        "spec": {"nodeName": "node", "containers": [{"name": CONTAINER, "image": "nobody/nothing", "env": [{"name": "A", "value": "1"}]}]},
        "status": {"phase": "Pending", "containerStatuses": [waiting]},
    }
    kept = lean(pod)
    assert pod_seen(kept) == pod_seen(pod)
    assert "nobody/nothing" in pod_seen(kept).note
    assert "managedFields" not in kept["metadata"]
    assert "env" not in kept["spec"]["containers"][0]


@pytest.mark.parametrize("text", ["{a: b: c}", "just text", "- a", "{}", "current-context: a\ncontexts: [{name: a, context: text}]"])
@pytest.mark.may_block("kubernetes-asyncio reads its configuration's files in the loop")
async def test_a_kubeconfig_that_is_none_is_told_as_one(tmp_path: Path, text: str) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(NoCluster, match="There is no way to a Kubernetes cluster: "):
        await KubernetesApi.connect(Cluster(str(tmp_path / "kubeconfig")), CallRate(1_000))


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which nobody takes a connection: as many as may wait do."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.may_block("kubernetes-asyncio reads its configuration's files in the loop")
async def test_a_call_that_could_not_be_sent_has_done_nothing_and_says_so(
    listens: bool, tmp_path: Path, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a run that is cancelled while nobody listens there waits for no answer."""
    pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
    monkeypatch.setattr(api_of_kubernetes, "CONNECT_S", 0.3)
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{silent if listens else free_port()}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    api = await KubernetesApi.connect(Cluster(str(tmp_path / "kubeconfig")), CallRate(1_000))
    try:
        with pytest.raises(PlatformProblem, match="does not answer") as raised:
            await api.greet()
    finally:
        await api.aclose()
    assert (raised.value.transient, raised.value.undone) == (True, True)
