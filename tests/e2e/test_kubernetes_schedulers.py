"""`ops/kubernetes` on a real cluster: two schedulers with the account's rights carry out a deployed flow, and one of them is killed.

With EVFLOW_TEST_KUBECONFIG, and with EVFLOW_TEST_SCHEDULER_IMAGE, EVFLOW_TEST_TASK_IMAGE and EVFLOW_TEST_REDIS_IMAGE, which the node has: those of `docker/`, and one with a
redis-server. As in the other tests on a cluster, its one node is this machine, and pods are on its network; so what the overlay says of networks, ports and volumes is changed.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evflow.core.ids import RunId
from evflow.log.keys import shared_shard
from tests.fakes.kubernetes_api import resources
from tests.fakes.kubernetes_cluster import Plain
from tests.kubernetes_world import REAL
from tests.ports import free_port
from tests.waiting import wait_until

IMAGES = {name: os.environ.get(f"EVFLOW_TEST_{name}_IMAGE", "") for name in ("SCHEDULER", "TASK", "REDIS")}
MISSING = [name for name, text in {"KUBECONFIG": REAL, **{f"{name}_IMAGE": text for name, text in IMAGES.items()}}.items() if not text]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not set: {', '.join(f'EVFLOW_TEST_{name}' for name in MISSING)}"),
    pytest.mark.timeout(900),
]
TRIAL = Path(__file__).parents[2] / "ops" / "kubernetes" / "overlays" / "trial"
WITHIN_S = 240.0
FLOW = """
import os, time
from evflow import FlowSpec, kubernetes, step

here = dict(cpu=0.1, memory=200, disk=10, pod_template={"spec": {"hostNetwork": True, "tolerations": [{"operator": "Exists"}]}})

class Sums(FlowSpec):
    @kubernetes(**here)
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")

    @kubernetes(**here)
    @step
    def work(self):
        while not os.path.exists("/store/go"):
            time.sleep(0.2)
        self.twice = 2 * self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.twice for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)

if __name__ == "__main__":
    Sums()
"""


class Site:
    """The trial's overlay in a namespace of its own.

    Args:
        root: A folder of this machine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.namespace = f"evflow-tests-{os.getpid()}"
        self.redis_port = free_port()
        self.store = root / "store"
        self.schedulers = {"evflow-scheduler": free_port(), "evflow-scheduler-2": free_port()}
        said = json.loads(self.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        major, minor = re.findall(r"\d+", said)[:2]
        self.version = (int(major), int(minor))

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """What kubectl says."""
        command = ["kubectl", "--kubeconfig", REAL, "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=WITHIN_S)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def find(self, kind: str, *more: str) -> list[Plain]:
        """All things of a kind."""
        found: list[Plain] = json.loads(self.kubectl("get", kind, "-o", "json", *more))["items"]
        return found

    def within(self, *command: str, text: str | None = None) -> str:
        """What a command says in the pod of the scheduler that has lived longest."""
        return self.kubectl("exec", "-i", min(self._living(), key=_age)["metadata"]["name"], "--", *command, text=text)

    def ready(self) -> list[str]:
        """The pods of schedulers that are ready."""
        return [
            pod["metadata"]["name"]
            for pod in self._living()
            if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
        ]

    def _living(self) -> list[Plain]:
        pods = self.find("pods", "-l", "app.kubernetes.io/component=scheduler")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def objects(self) -> list[Plain]:
        """The overlay and its secrets, as this cluster can have them."""
        made = resources(subprocess.run(["kubectl", "kustomize", str(TRIAL)], capture_output=True, text=True, check=True).stdout)
        secrets = subprocess.run([TRIAL / "secrets.sh"], capture_output=True, text=True, check=True).stdout
        made += resources(secrets.replace("evflow-redis:6379", f"127.0.0.1:{self.redis_port}"))
        found: list[Plain] = []
        for each in made:
            if each["kind"] == "Namespace":
                # The network of the node is nothing for the restricted level.
                each["metadata"] = {"name": self.namespace}
            else:
                each["metadata"]["namespace"] = self.namespace
            for subject in each.get("subjects", ()):
                subject["namespace"] = self.namespace
            if each["kind"] == "PodDisruptionBudget" and self.version < (1, 27):
                each["apiVersion"] = "policy/v1" if self.version >= (1, 21) else "policy/v1beta1"
                del each["spec"]["unhealthyPodEvictionPolicy"]
            if each["kind"] == "PersistentVolumeClaim":
                each["spec"].update(storageClassName="", volumeName=self.namespace)
                found.append(self._volume(each["spec"]))
            if each["kind"] == "ConfigMap" and "EVFLOW_HTTP" in each["data"]:
                each["data"].update(EVFLOW_KUBERNETES_CONTAINER_IMAGE=IMAGES["TASK"], EVFLOW_KUBERNETES_IMAGE_PULL_POLICY="IfNotPresent")
            if each["kind"] == "StatefulSet":
                self._redis(each["spec"])
            if each["kind"] == "Deployment":
                found += [self._scheduler(json.loads(json.dumps(each)), name, port) for name, port in self.schedulers.items()]
            else:
                found.append(each)
        return found

    def _volume(self, claim: Plain) -> Plain:
        self.store.mkdir()
        self.store.chmod(0o777)
        spec = {
            "capacity": claim["resources"]["requests"],
            "accessModes": claim["accessModes"],
            "storageClassName": "",
            "hostPath": {"path": str(self.store)},
        }
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.namespace}, "spec": spec}

    def _redis(self, spec: Plain) -> None:
        del spec["volumeClaimTemplates"]
        pod = spec["template"]["spec"]
        pod.update(hostNetwork=True, terminationGracePeriodSeconds=5)
        pod["volumes"].append({"name": "data", "emptyDir": {}})
        (container,) = pod["containers"]
        container["image"] = IMAGES["REDIS"]
        container["command"] = ["redis-server", *container["command"][1:], "--port", str(self.redis_port), "--bind", "127.0.0.1"]
        del container["ports"]
        for probe in ("readinessProbe", "livenessProbe"):
            container[probe]["tcpSocket"] = {"host": "127.0.0.1", "port": self.redis_port}

    def _scheduler(self, each: Plain, name: str, port: int) -> Plain:
        each["metadata"]["name"] = name
        spec = each["spec"]
        spec["replicas"] = 1
        for labels in (spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
            labels["app.kubernetes.io/instance"] = name
        pod = spec["template"]["spec"]
        # Two on one machine, with one host name, are told apart by their processes.
        pod.update(hostNetwork=True, hostPID=True, terminationGracePeriodSeconds=20)
        del pod["topologySpreadConstraints"]
        (container,) = pod["containers"]
        container.update(image=IMAGES["SCHEDULER"], resources={"requests": {"cpu": "100m"}})
        del container["ports"]
        container["env"].append({"name": "EVFLOW_HTTP", "value": f"127.0.0.1:{port}"})
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            container[probe]["httpGet"].update(host="127.0.0.1", port=port)
        if not self._has_service():
            server = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))["clusters"][0]["cluster"]["server"]
            host, _, number = server.partition("//")[2].partition(":")
            container["env"] += [{"name": "KUBERNETES_SERVICE_HOST", "value": host}, {"name": "KUBERNETES_SERVICE_PORT", "value": number}]
        return each

    def _has_service(self) -> bool:
        """Whether the API server can be reached as pods usually reach it; not where there is no network of pods."""
        said = self.kubectl("--namespace", "default", "get", "endpoints", "kubernetes", "-o", "json", check=False)
        return bool(said and json.loads(said).get("subsets"))


def _age(pod: Plain) -> str:
    return str(pod["metadata"]["creationTimestamp"])


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    """The overlay, applied; everything of it goes behind the test, also what its pods wrote."""
    made = Site(root)
    try:
        made.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": made.objects()}))
        yield made
    except BaseException:
        print(made.kubectl("get", "all", "-o", "wide", check=False))
        print(made.kubectl("logs", "-l", "app.kubernetes.io/component=scheduler", "--tail", "50", "--prefix", check=False))
        raise
    finally:
        made.kubectl("delete", "namespace", made.namespace, "--wait", check=False)
        made.kubectl("delete", "persistentvolume", made.namespace, check=False)
        shutil.rmtree(made.store, ignore_errors=True)


def attempts(site: Site) -> dict[str, list[int]]:
    """The attempts that there were, by task."""
    found: dict[str, list[int]] = {}
    for event in json.loads(site.within("evflow", "events", "Sums/1", "--json", "--type", "AttemptStarted")):
        fields: dict[str, Any] = event["fields"]
        found.setdefault(str(fields["task"]), []).append(int(fields["attempt"]))
    return found


def test_a_deployed_flow_outlives_the_scheduler_that_runs_it(site: Site) -> None:
    wait_until(lambda: len(site.ready()) == 2, "two schedulers are ready", WITHIN_S)
    said = json.loads(site.within("evflow", "scheduler", "status", "--json"))
    assert sorted(len(each["shards"]) for each in said["schedulers"]) == [4, 4]
    assert said["free"] == []

    site.within("sh", "-c", "cat >/tmp/sums.py && python /tmp/sums.py deploy", text=FLOW)
    site.within("evflow", "run", "Sums")

    def working() -> list[Plain]:
        pods = site.find("pods", "-l", "app.kubernetes.io/managed-by=evflow,evflow-step=work")
        return [pod for pod in pods if pod["status"]["phase"] == "Running"]

    wait_until(lambda: len(working()) == 3, "three tasks work", WITHIN_S)
    assert all("serviceAccountName" in pod["spec"] and not token_of(pod) for pod in working())

    shard = shared_shard(RunId.parse("Sums/1"))
    owner = next(
        each["pid"] for each in json.loads(site.within("evflow", "scheduler", "status", "--json"))["schedulers"] if shard in each["shards"]
    )
    logs = {name: site.kubectl("logs", name) for name in site.ready()}
    (killed,) = [name for name, text in logs.items() if f'"pid":{owner},' in text]
    site.kubectl("delete", "pod", killed, "--force", "--grace-period=0")
    (site.store / "go").touch()

    wait_until(
        lambda: json.loads(site.within("evflow", "show", "Sums/1", "--json"))["status"] == "succeeded", "the run has succeeded", WITHIN_S
    )
    assert "total 12" in site.within("evflow", "logs", "Sums/1/end")
    assert "verified" in site.within("evflow", "replay", "Sums/1", "--verify")
    made = attempts(site)
    assert {task: numbers for task, numbers in made.items() if len(set(numbers)) != 1} == {}
    jobs = site.find("jobs")
    assert len(jobs) == 4, "one for the start and three for the foreach: no twin"
    assert [job["metadata"]["name"] for job in jobs if job["status"].get("active")] == []
    assert json.loads(site.within("evflow", "kubernetes", "list", "--json")) == []
    wait_until(lambda: len(site.ready()) == 2, "there are two schedulers again", WITHIN_S)


def token_of(pod: Plain) -> list[str]:
    """The volumes with a token for the API that a pod mounts."""
    return [
        mount["mountPath"]
        for container in pod["spec"]["containers"]
        for mount in container.get("volumeMounts", ())
        if mount["mountPath"].startswith("/var/run/secrets/kubernetes.io")
    ]
