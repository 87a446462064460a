"""From what a step asks of Kubernetes to a Job that its server takes."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow.core.kubernetes_rules import cores, field_mistakes, megabytes, quantity
from evflow_executors.kubernetes.manifest import Server, StepUnfit, TaskJob, filled, gang_manifest, job_manifest, resources_of

NEW = Server((1, 31))
OLD = Server((1, 20))
LABELS = {"evflow-log": "abc", "evflow-task": "3"}


def made(fields: Mapping[str, Any], server: Server = NEW, **more: Any) -> dict[str, Any]:
    task = TaskJob("evabc-train-1-3-0", LABELS, {"image": "python:3.12", **fields}, ("sh", "-c", "true"), {"A": "1"}, step="train", **more)
    return job_manifest(task, server, ttl_s=3600)


def pod_of(fields: Mapping[str, Any], server: Server = NEW, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = made(fields, server, **more)["spec"]["template"]["spec"]
    return spec


def task_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(fields)["containers"][0]
    return container


def test_a_job_makes_one_pod_and_is_never_tried_again_by_kubernetes() -> None:
    job = made({})
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 1
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_pod_is_as_the_restricted_level_wants_it() -> None:
    pod, task = pod_of({}), task_of({})
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert task["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_a_read_only_root_leaves_a_home_and_a_folder_for_temporary_files() -> None:
    task = task_of({})
    places = {mount["mountPath"] for mount in task["volumeMounts"]}
    home = next(each["value"] for each in task["env"] if each["name"] == "HOME")
    assert {"/tmp", home} <= places
    assert task["workingDir"] == home


def test_a_step_that_asks_for_root_is_given_it() -> None:
    assert pod_of({"security_context": {"run_as_user": 0}})["securityContext"]["runAsUser"] == 0
    assert "runAsNonRoot" not in pod_of({"security_context": {"run_as_user": 0}})["securityContext"]
    of_image = pod_of({"security_context": {"run_as_non_root": False}})["securityContext"]
    assert "runAsUser" not in of_image
    privileged = task_of({"security_context": {"privileged": True}})["securityContext"]
    assert privileged["privileged"] is True
    assert "allowPrivilegeEscalation" not in privileged  # the server refuses both


def test_quality_of_service_is_requests_and_limits() -> None:
    asked = {"cpu": 0.5, "memory": 1000, "disk": "2000", "gpu": 2, "gpu_vendor": "AMD"}
    amounts = {"cpu": "500m", "memory": "1000M", "ephemeral-storage": "2000M"}
    assert resources_of(asked) == {"requests": {**amounts, "amd.com/gpu": "2"}, "limits": {"amd.com/gpu": "2"}}
    assert resources_of({**asked, "qos": "Guaranteed"}) == {
        "requests": {**amounts, "amd.com/gpu": "2"},
        "limits": {**amounts, "amd.com/gpu": "2"},
    }
    assert resources_of({"cpu": 1, "qos": "besteffort"}) == {}
    assert resources_of({"gpu": 0})["requests"].keys() == amounts.keys()
    assert resources_of({"extended_resources": {"vendor.example/chip": "1"}})["limits"] == {"vendor.example/chip": "1"}


def test_volumes_are_mounted_where_the_step_says() -> None:
    asked = {
        "use_tmpfs": True,
        "memory": 4000,
        "tmpfs_path": "/fast",
        "shared_memory": 64,
        "persistent_volume_claims": {"my.data": "/data/"},
    }
    pod, task = pod_of(asked), task_of(asked)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    at = {mount["mountPath"]: volumes[mount["name"]] for mount in task["volumeMounts"]}
    assert at["/fast"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2000Mi"}
    assert at["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert at["/data"]["persistentVolumeClaim"] == {"claimName": "my.data"}
    assert {"name": "TMPDIR", "value": "/fast"} in task["env"]
    assert {"name": "TMPDIR", "value": "/fast"} not in task_of({**asked, "tmpfs_tempdir": False})["env"]


def test_a_volume_at_the_place_of_ours_takes_it() -> None:
    asked = {"tmpfs_size": 10, "tmpfs_path": "/tmp"}
    places = [mount["mountPath"] for mount in task_of(asked)["volumeMounts"]]
    assert places.count("/tmp") == 1
    assert "evflow-tmp" not in [volume["name"] for volume in pod_of(asked)["volumes"]]


def test_the_rest_of_the_arguments_stand_where_the_api_has_them() -> None:
    asked = {
        "image_pull_policy": "always",
        "image_pull_secrets": ["regcred"],
        "service_account": "trainer",
        "secrets": "db, keys",
        "node_selector": "kubernetes.io/arch=amd64",
        "compute_pool": "big",
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "port": 8000,
        "labels": {"team": "ml", "evflow-task": "forged"},
        "annotations": {"note": "any text: ü"},
    }
    job = made(asked)
    pod, task = job["spec"]["template"]["spec"], job["spec"]["template"]["spec"]["containers"][0]
    assert task["imagePullPolicy"] == "Always"
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    assert pod["serviceAccountName"] == "trainer"
    assert "automountServiceAccountToken" not in pod, "whether there is a token the account says"
    assert task["envFrom"] == [{"secretRef": {"name": "db"}}, {"secretRef": {"name": "keys"}}]
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64", "outerbounds.co/compute-pool": "big"}
    assert pod["tolerations"] == asked["tolerations"]
    assert task["ports"] == [{"containerPort": 8000}]
    assert job["metadata"]["labels"]["team"] == "ml"
    assert job["metadata"]["labels"]["evflow-task"] == "3"  # what a job is found by is not the step's to say
    assert job["spec"]["template"]["metadata"]["annotations"]["note"] == "any text: ü"


def test_a_limit_is_the_pods_and_not_the_jobs() -> None:
    assert pod_of({}, timeout_s=60.5)["activeDeadlineSeconds"] == 61
    assert "activeDeadlineSeconds" not in made({}, timeout_s=60)["spec"]
    assert "activeDeadlineSeconds" not in pod_of({})


def test_an_old_server_is_not_asked_for_what_it_does_not_know() -> None:
    assert "podFailurePolicy" in made({})["spec"]
    assert made({})["spec"]["ttlSecondsAfterFinished"] == 3600
    assert not {"podFailurePolicy", "ttlSecondsAfterFinished"} & made({}, OLD)["spec"].keys()


def test_a_value_that_looks_like_a_reference_stays_a_value() -> None:
    task = TaskJob("n", LABELS, {"image": "i"}, ("true",), {"A": "$(HOME)/x"})
    env = job_manifest(task, NEW, ttl_s=1)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "A", "value": "$$(HOME)/x"} in env


def test_settings_fill_what_a_step_leaves_open() -> None:
    defaults = {"image": "mine:1", "labels": {"a": "1", "b": "1"}, "secrets": "all", "namespace": "flows", "qos": None}
    both = filled({"image": None, "labels": {"b": "2"}, "secrets": ["own"], "cpu": 2}, defaults)
    assert both == {"image": "mine:1", "labels": {"a": "1", "b": "2"}, "secrets": ["all", "own"], "namespace": "flows", "cpu": 2}


def test_what_the_server_would_refuse_is_told_with_the_step_and_the_field() -> None:
    with pytest.raises(StepUnfit) as caught:
        made({"labels": {"team": "a b"}, "image": ""})
    text = str(caught.value)
    assert "Step 'train'" in text
    assert "the label 'team' the value 'a b'" in text
    assert "names no image" in text


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("cpu", 0),
        ("cpu", "many"),
        ("memory", "500m"),
        ("disk", -1),
        ("gpu", 1.5),
        ("gpu_vendor", "acme"),
        ("image", "my image"),
        ("image_pull_policy", "Sometimes"),
        ("image_pull_secrets", ["Reg"]),
        ("service_account", "a_b"),
        ("secrets", 3),
        ("namespace", "a.b"),
        ("node_selector", "arch"),
        ("node_selector", {"a": "x y"}),
        ("tolerations", "gpu"),
        ("tolerations", [{"key": "gpu", "operator": "Exists", "value": "1"}]),
        ("tolerations", [{"effect": "NoSchedule"}]),
        ("tolerations", [{"key": "a", "effect": "Never"}]),
        ("tolerations", [{"key": "a", "tolerationSeconds": 3}]),
        ("tolerations", [{"key": "a", "seconds": 3}]),
        ("labels", {"a" * 64: "x"}),
        ("labels", {"a": "x" * 64}),
        ("labels", {"a": 1}),
        ("annotations", {"a b": "x"}),
        ("annotations", {"a": "x" * 300_000}),
        ("tmpfs_path", "/a/../b"),
        ("tmpfs_size", 0),
        ("shared_memory", "much"),
        ("persistent_volume_claims", {"c": "data"}),
        ("persistent_volume_claims", {"c": "/x", "d": "/x"}),
        ("persistent_volume_claims", {"c": "/"}),
        ("port", 70_000),
        ("qos", "best"),
        ("extended_resources", {"chip": 1}),
        ("extended_resources", {"v.example/chip": 1.5}),
        ("security_context", {"user": 1}),
        ("security_context", {"run_as_user": True}),
        ("security_context", {"run_as_user": 0, "run_as_non_root": True}),
        ("security_context", {"privileged": True, "allow_privilege_escalation": False}),
        ("pod_template", 3),
    ],
)
def test_a_field_that_no_server_takes_is_a_sentence(field: str, said: object) -> None:
    mistakes = list(field_mistakes(field, said))
    assert len(mistakes) == 1
    assert mistakes[0].endswith(".")
    with pytest.raises(StepUnfit):
        made({field: said})


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), ("4Gi", str(4 * 2**30)), ("1e3", "1000"), ("1E", "1" + "0" * 18), (".5", "0.5"), ("5.", "5")]
)
def test_a_quantity_is_read_as_the_server_reads_it(text: str, number: str) -> None:
    found = quantity(text)
    assert found is not None
    assert found == type(found)(number)


def test_amounts_may_be_numbers_texts_or_quantities() -> None:
    assert cores("500m") == cores(0.5) == cores("0.5")
    assert megabytes(4096) == megabytes("4096") == megabytes("4096M")
    assert megabytes("1Gi") == quantity("1073.741824")
    assert [cores(bad) for bad in (True, "x", None, "-1", float("inf"), float("nan"))] == [None] * 6


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.floats(0.001, 500),
        "memory": st.integers(1, 10**6),
        "gpu": st.integers(0, 16),
        "qos": st.sampled_from(["Guaranteed", "burstable", "besteffort"]),
        "labels": st.dictionaries(NAMES, NAMES, max_size=3),
        "use_tmpfs": st.booleans(),
        "tmpfs_path": st.sampled_from(["/tmp", "/home/evflow", "/fast", "/dev/shm"]),
        "shared_memory": st.integers(1, 1000),
        "persistent_volume_claims": st.dictionaries(NAMES, st.sampled_from(["/a", "/b/c", "/tmp", "/fast"]), max_size=1),
        "security_context": st.fixed_dictionaries(
            {}, optional={"run_as_user": st.integers(0, 10), "privileged": st.booleans(), "run_as_non_root": st.none()}
        ),
    },
)


@given(FIELDS, st.sampled_from([NEW, OLD]))
def test_of_whatever_fields_a_job_is_made_it_is_whole(fields: dict[str, Any], server: Server) -> None:
    job = made(fields, server)
    json.dumps(job)
    pod = job["spec"]["template"]["spec"]
    task = pod["containers"][0]
    places = [mount["mountPath"] for mount in task["volumeMounts"]]
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert len(set(places)) == len(places)
    assert len(set(volumes)) == len(volumes)
    assert {mount["name"] for mount in task["volumeMounts"]} == set(volumes)
    assert LABELS.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    requests, limits = task["resources"].get("requests", {}), task["resources"].get("limits", {})
    for name, amount in limits.items():
        asked, bound = quantity(requests[name]), quantity(amount)
        assert asked is not None
        assert bound is not None
        assert asked <= bound
    assert not (pod["securityContext"].get("runAsNonRoot") and pod["securityContext"].get("runAsUser") == 0)


def test_a_gang_is_one_indexed_job_that_fails_with_the_first_of_its_pods() -> None:
    task = TaskJob("evabc-train-1-3-0-gang", {**LABELS, "evflow-nodes": "3"}, {"image": "i"}, ("sh", "-c", "true"), {"A": "1"}, timeout_s=7)
    spec = gang_manifest(task, 3, NEW, ttl_s=5)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 5)
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["FailJob", "FailJob"]
    assert spec["template"]["metadata"]["labels"]["evflow-nodes"] == "3"
    assert spec["template"]["spec"]["activeDeadlineSeconds"] == 7
    assert "backoffLimitPerIndex" not in spec
