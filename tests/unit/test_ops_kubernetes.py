"""What `ops/kubernetes` says is what evflow has: settings, commands, rights, images; and its parts fit together."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from evflow import __version__, config
from evflow.cli.app import app
from evflow.flow.pod_templates import read_template
from evflow_executors.kubernetes.manifest import CONTAINER, Server, TaskJob, job_manifest
from evflow_executors.kubernetes.template import template_in
from tests.fakes.kubernetes_api import resources, rights
from tests.fakes.kubernetes_cluster import Plain
from tests.fakes.kubernetes_rules import unrestricted

REPOSITORY = Path(__file__).parents[2]
OPS = REPOSITORY / "ops" / "kubernetes"
KUSTOMIZATIONS = sorted(OPS.rglob("kustomization.yaml"))
OVERLAYS = sorted(path.parent for path in OPS.glob("overlays/*/kustomization.yaml"))
BUILDERS = [command for command in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(command[0])]


def documents(path: Path) -> list[Plain]:
    """The resources of a file."""
    return resources(path.read_text())


def all_resources() -> list[Plain]:
    """Each resource of each file, as it is written."""
    named = [path.parent / name for path in KUSTOMIZATIONS for name in documents(path)[0].get("resources", ()) if name.endswith(".yaml")]
    return [each for path in named for each in documents(path)]


def pods(found: list[Plain]) -> dict[str, Plain]:
    """The pod templates of what runs, by the names of their controllers."""
    return {each["metadata"]["name"]: each["spec"]["template"] for each in found if each["kind"] in ("Deployment", "StatefulSet")}


def settings() -> dict[str, dict[str, str]]:
    """What ConfigMaps say of evflow, by the folder that says it."""
    found: dict[str, dict[str, str]] = {}
    for path in KUSTOMIZATIONS:
        lines: list[str] = []
        for generated in documents(path)[0].get("configMapGenerator", ()):
            lines += generated.get("literals", ())
            for name in generated.get("envs", ()):
                lines += [line for line in (path.parent / name).read_text().splitlines() if line and not line.startswith("#")]
        found[path.parent.name] = dict(line.split("=", 1) for line in lines)
    return found


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of labels finds them."""
    return all(labels.get(key) == text for key, text in selector.get("matchLabels", {}).items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def built(folder: Path, command: list[str]) -> list[Plain]:
    """What a builder makes of a folder."""
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return resources(done.stdout)


def test_all_that_kustomizations_name_is_there_and_nothing_else() -> None:
    named = set(KUSTOMIZATIONS)
    for path in KUSTOMIZATIONS:
        said = documents(path)[0]
        for name in [*said.get("resources", ()), *said.get("components", ())]:
            place = (path.parent / name).resolve()
            named.add(place / "kustomization.yaml" if place.is_dir() else place)
        for generated in said.get("configMapGenerator", ()):
            named |= {(path.parent / name).resolve() for name in [*generated.get("envs", ()), *generated.get("files", ())]}
        named |= {(path.parent / patch["path"]).resolve() for patch in said.get("patches", ())}
    assert [path for path in named if not path.is_file()] == []
    others = {OPS / "README.md", OPS / "overlays" / "trial" / "secrets.sh"}
    assert {path for path in OPS.rglob("*") if path.is_file()} - named == others


def test_every_variable_is_a_setting_with_a_value_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = settings()
    for pod in pods(all_resources()).values():
        for container in pod["spec"]["containers"]:
            assert {variable["name"] for variable in container.get("env", ())} <= {"EVFLOW_REDIS_URL"}
    for table in said.values():
        for name, text in table.items():
            assert name.removeprefix("EVFLOW_").lower() in config.SETTINGS
            monkeypatch.setenv(name, text)
            config.get(name.removeprefix("EVFLOW_").lower())
            monkeypatch.delenv(name)
    for overlay in OVERLAYS:
        parts = [overlay.name, *(Path(name).name for name in documents(overlay / "kustomization.yaml")[0].get("components", ()))]
        assert any("EVFLOW_STORE" in said[part] for part in parts), f"{overlay} has no store"


def test_commands_have_the_options_that_containers_give_them() -> None:
    found = {}
    for name, pod in pods(all_resources()).items():
        for container in pod["spec"]["containers"]:
            if container["image"].startswith("evflow"):
                # The image `evflow` is the command itself, `evflow-task` runs what it is given.
                words = container["args"] if container["image"].startswith("evflow:") else container["args"][1:]
                group = app()
                command = group.get_command(click.Context(group), words[0])
                assert command is not None
                command.make_parser(click.Context(command)).parse_args(list(words[1:]))
                found[name] = words[0]
    assert found == {"evflow-scheduler": "scheduler", "evflow-worker": "worker"}


def test_images_are_those_of_this_version() -> None:
    images = {container["image"] for pod in pods(all_resources()).values() for container in pod["spec"]["containers"]}
    images.add(settings()["base"]["EVFLOW_KUBERNETES_CONTAINER_IMAGE"])
    assert {image for image in images if image.startswith("evflow")} == {f"evflow:{__version__}", f"evflow-task:{__version__}"}


def test_the_role_is_the_table_of_the_page() -> None:
    """That it suffices shows every test with the fake server, which grants no more."""
    page = (REPOSITORY / "docs" / "kubernetes.md").read_text().partition("## Rights")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(?:batch/)?([a-z/]+)` \| (`.*?)(?:;.*)? \|$", page, re.MULTILINE)
    assert {f"{verb} {resource}" for resource, verbs in rows for verb in re.findall(r"`(\w+)`", verbs)} == rights()


def test_what_runs_is_as_the_restricted_level_wants_it() -> None:
    for name, pod in pods(all_resources()).items():
        assert list(unrestricted(pod["spec"])) == [], name
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["resources"].keys() == {"requests", "limits"}, name
    job = TaskJob("a", {}, {"image": "b"}, ("true",), {})
    assert list(unrestricted(job_manifest(job, Server(), ttl_s=1)["spec"]["template"]["spec"])) == []
    root = TaskJob("a", {}, {"image": "b", "security_context": {"run_as_user": 0}}, ("true",), {})
    assert list(unrestricted(job_manifest(root, Server(), ttl_s=1)["spec"]["template"]["spec"])) != []


def test_probes_and_monitors_ask_for_what_a_scheduler_answers() -> None:
    page = (REPOSITORY / "docs" / "scheduler.md").read_text()
    (container,) = pods(all_resources())["evflow-scheduler"]["spec"]["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}
    (spec,) = (each["spec"] for each in all_resources() if each["kind"] == "ServiceMonitor")
    monitor = spec["endpoints"]
    (service,) = (each for each in all_resources() if each["kind"] == "Service" and each["metadata"]["name"] == "evflow-scheduler")
    assert matches(spec["selector"], service["metadata"]["labels"])
    # What the operator writes into the label `job`, by which alerts find schedulers.
    job = service["metadata"]["labels"][spec["jobLabel"]]
    assert set(re.findall(r'job="(.*?)"', (REPOSITORY / "ops" / "alerts" / "evflow.yaml").read_text())) == {job}
    assert all(f"| `{path}` |" in page for path in [*paths.values(), monitor[0]["path"]])
    (port,) = container["ports"]
    asked = {container[name]["httpGet"]["port"] for name in paths} | {monitor[0]["port"]}
    assert (asked, settings()["base"]["EVFLOW_HTTP"]) == ({port["name"]}, f"0.0.0.0:{port['containerPort']}")


def test_what_is_told_to_end_has_longer_than_it_drains() -> None:
    drain_s = int(settings()["base"]["EVFLOW_DRAIN_TIMEOUT"])
    for name in ("evflow-scheduler", "evflow-worker"):
        assert pods(all_resources())[name]["spec"]["terminationGracePeriodSeconds"] > drain_s


def mebibytes(text: str) -> float:
    """A quantity of Kubernetes, or a size of Redis."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024, "mb": 1, "gb": 1024}[unit]


def test_what_is_kept_and_what_is_remembered_fit_into_what_there_is_for_it() -> None:
    """A pod that fills a volume is evicted, a server that fills its memory killed."""
    found = pods(all_resources())
    for name in ("evflow-scheduler", "evflow-worker"):
        (home,) = [volume["emptyDir"]["sizeLimit"] for volume in found[name]["spec"]["volumes"] if volume["name"] == "home"]
        assert int(settings()["base"]["EVFLOW_S3_CACHE_MB"]) <= mebibytes(home) / 2
    (redis,) = found["evflow-redis"]["spec"]["containers"]
    said = redis["command"][redis["command"].index("--maxmemory") + 1]
    assert mebibytes(said) <= mebibytes(redis["resources"]["limits"]["memory"]) / 2


def test_accounts_exist_and_only_schedulers_have_a_token() -> None:
    accounts = {each["metadata"]["name"]: each for each in all_resources() if each["kind"] == "ServiceAccount"}
    used = {pod["spec"].get("serviceAccountName", "") for pod in pods(all_resources()).values()} - {""}
    used.add(settings()["base"]["EVFLOW_KUBERNETES_SERVICE_ACCOUNT"])
    assert used == set(accounts)
    assert [name for name, each in accounts.items() if each.get("automountServiceAccountToken", True)] == ["evflow-scheduler"]


def test_selectors_of_policies_find_schedulers_workers_tasks_and_the_log_and_mix_up_nobody() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(all_resources()).items()}
    job = job_manifest(TaskJob("a", {}, {"image": "b"}, ("true",), {}), Server(), ttl_s=1)
    labels["task"] = job["spec"]["template"]["metadata"]["labels"]
    policies = {each["metadata"]["name"]: each["spec"] for each in all_resources() if each["kind"] == "NetworkPolicy"}

    def found(selector: Mapping[str, Any]) -> set[str]:
        return {name for name, own in labels.items() if matches(selector, own)}

    who = {name: found(policy["podSelector"]) for name, policy in policies.items()}
    assert who == {
        "evflow-scheduler": {"evflow-scheduler"},
        "evflow-worker": {"evflow-worker"},
        "evflow-task": {"task"},
        "evflow-redis": {"evflow-redis"},
    }
    into = {
        name: [(found(peer["podSelector"]) if "podSelector" in peer else peer) for rule in policy["ingress"] for peer in rule["from"]]
        for name, policy in policies.items()
    }
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert into == {
        "evflow-scheduler": [monitoring],
        "evflow-worker": [],
        "evflow-task": [{"task"}],
        "evflow-redis": [{"evflow-scheduler", "evflow-worker"}, {"task"}],
    }


def test_the_template_of_tasks_can_be_laid_over(tmp_path: Path) -> None:
    path = OPS / "overlays" / "managed" / "pod.yaml"
    (container,) = template_in(read_template(str(path)), str(path))["spec"]["containers"]
    assert container["name"] == CONTAINER


def test_the_secrets_of_the_trial_are_those_that_are_asked_for_and_agree() -> None:
    done = subprocess.run([OPS / "overlays" / "trial" / "secrets.sh"], capture_output=True, text=True, check=True)
    secrets = {each["metadata"]["name"]: each["stringData"] for each in resources(done.stdout)}
    users = secrets["evflow-redis-users"]["users.acl"]
    assert "CHANGE-ME" not in done.stdout
    for user in ("scheduler", "worker"):
        (password,) = re.fullmatch(rf"redis://{user}:(\w{{48}})@evflow-redis:6379/0", secrets["evflow-redis"][user]).groups()  # type: ignore[union-attr]
        assert f"user {user} on >{password} " in users
    assert [line.split()[1] for line in users.splitlines()] == ["default", "admin", "scheduler", "worker", "reader"]
    asked = {
        (reference["name"], reference["key"])
        for pod in pods(all_resources()).values()
        for container in pod["spec"]["containers"]
        for variable in container.get("env", ())
        for reference in [variable["valueFrom"]["secretKeyRef"]]
    }
    name, _, place = settings()["base"]["EVFLOW_KUBERNETES_SECRET_ENV"].partition("=")
    asked.add((place.partition("/")[0], place.partition("/")[2]))
    assert (name, asked) == ("EVFLOW_REDIS_URL", {("evflow-redis", "scheduler"), ("evflow-redis", "worker")})


@pytest.fixture(params=OVERLAYS, ids=lambda overlay: overlay.name)
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Each overlay, with the components that are commented out in it."""
    shutil.copytree(REPOSITORY / "ops", tmp_path / "ops")
    path: Path = tmp_path / "ops" / "kubernetes" / request.param.relative_to(OPS) / "kustomization.yaml"
    path.write_text(
        re.sub(r"^(\s*)# (?=components:|  - \.\./\.\./components|- \.\./\.\./components)", r"\1", path.read_text(), flags=re.MULTILINE)
    )
    return path.parent


@pytest.mark.skipif(not BUILDERS, reason="neither kustomize nor kubectl is installed")
@pytest.mark.parametrize("command", BUILDERS or [[]], ids=lambda command: command[0] if command else "none")
def test_overlays_are_built_and_each_name_in_them_is_found(overlay: Path, command: list[str]) -> None:
    made = built(overlay, command)
    names = {(each["kind"], each["metadata"]["name"]) for each in made}
    assert {each["metadata"].get("namespace", "evflow") for each in made} == {"evflow"}
    assert {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "Role", "ServiceMonitor"} <= {kind for kind, _ in names}
    running = pods(made)
    assert running.keys() >= {"evflow-scheduler", "evflow-worker"}
    maps = {each["metadata"]["name"]: each["data"] for each in made if each["kind"] == "ConfigMap"}
    for pod in running.values():
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", ()):
                if "configMapRef" in source:
                    assert {"EVFLOW_HOME", "EVFLOW_STORE"} <= maps[source["configMapRef"]["name"]].keys()
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                *(volume["name"] for volume in pod["spec"]["volumes"]),
                "data",
            }
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "store":
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
            if "configMap" in volume and not volume["configMap"].get("optional"):
                assert volume["configMap"]["name"] in maps
        assert list(unrestricted(pod["spec"])) == []
    places = {name: {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} for name, pod in running.items()}
    for name in ("evflow-scheduler", "evflow-worker"):
        assert {"/tmp", "/var/lib/evflow", "/store" if overlay.name == "trial" else "/etc/evflow/redis-ca"} <= places[name]
    for each in made:
        if each["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            labels = running.get(each["metadata"]["name"], {"metadata": {"labels": {}}})["metadata"]["labels"]
            assert matches(each["spec"]["selector"], labels)
        if each["kind"] == "Service":
            found = [pod for pod in running.values() if matches({"matchLabels": each["spec"]["selector"]}, pod["metadata"]["labels"])]
            ports = {port["name"] for pod in found for container in pod["spec"]["containers"] for port in container.get("ports", ())}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


@pytest.mark.skipif(not BUILDERS, reason="neither kustomize nor kubectl is installed")
def test_another_namespace_is_the_one_of_everything(overlay: Path) -> None:
    """By what the page says: `namespace:` in the overlay, and the name in base/namespace.yaml."""
    said, base = overlay / "kustomization.yaml", overlay.parents[1] / "base" / "namespace.yaml"
    said.write_text(re.sub(r"^namespace: evflow$", "namespace: other", said.read_text(), flags=re.MULTILINE))
    base.write_text(base.read_text().replace("name: evflow\n", "name: other\n"))
    made = built(overlay, BUILDERS[0])
    assert [each["metadata"]["name"] for each in made if each["kind"] == "Namespace"] == ["other"]
    assert {each["metadata"].get("namespace", "other") for each in made} == {"other"}
    assert {subject["namespace"] for each in made for subject in each.get("subjects", ())} == {"other"}


@pytest.mark.skipif(not BUILDERS, reason="neither kustomize nor kubectl is installed")
def test_workers_of_two_pools_live_side_by_side(overlay: Path) -> None:
    """By what the component says: a copy of it, with another name."""
    first = overlay.parents[1] / "components" / "pool-worker"
    second = first.with_name("pool-gpu")
    shutil.copytree(first, second)
    (edit,) = re.findall(r"^#   (sed .*)$", (first / "kustomization.yaml").read_text(), re.MULTILINE)
    subprocess.run(["sh", "-c", edit], cwd=second, check=True)
    said = overlay / "kustomization.yaml"
    said.write_text(re.sub(r"^( *- )(.*)pool-worker$", r"\1\2pool-worker\n\1\2pool-gpu", said.read_text(), flags=re.MULTILINE))
    made = built(overlay, BUILDERS[0])
    workers = {
        each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "Deployment" and "worker" in each["metadata"]["name"]
    }
    assert {name: spec["template"]["spec"]["containers"][0]["args"][3] for name, spec in workers.items()} == {
        "evflow-worker": "default",
        "evflow-worker-gpu": "gpu",
    }
    accounts = {each["metadata"]["name"] for each in made if each["kind"] == "ServiceAccount"}
    assert {spec["template"]["spec"]["serviceAccountName"] for spec in workers.values()} == set(workers) == accounts & set(workers)
    for name, spec in workers.items():
        found = {other for other, its in workers.items() if matches(spec["selector"], its["template"]["metadata"]["labels"])}
        assert found == {name}
