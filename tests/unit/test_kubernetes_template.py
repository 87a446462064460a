"""An operator's pod template, laid over ours as a strategic merge patch."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow_executors.kubernetes.manifest import Server, TaskJob, job_manifest
from evflow_executors.kubernetes.template import TemplateInvalid, laid_over, template_in

LABELS = {"evflow-task": "3"}
JOB = job_manifest(TaskJob("n", LABELS, {"image": "python:3.12"}, ("sh", "-c", "true"), {"A": "1", "B": "2"}), Server(), ttl_s=60)


def pod_with(*templates: dict[str, Any]) -> dict[str, Any]:
    laid = laid_over(JOB, [(f"t{index}", template_in(each, f"t{index}")) for index, each in enumerate(templates)])
    pod: dict[str, Any] = laid["spec"]["template"]
    return pod


def test_an_empty_template_changes_nothing() -> None:
    assert laid_over(JOB, [("t", template_in({}, "t"))]) == JOB


def test_host_networking_is_a_line_of_a_template() -> None:
    pod = pod_with({"spec": {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}})
    assert pod["spec"]["hostNetwork"] is True
    assert pod["spec"]["containers"] == JOB["spec"]["template"]["spec"]["containers"]


def test_a_template_that_comes_back_from_a_log_with_tuples_is_the_same() -> None:
    """A deployed flow's, or one of a run that is continued."""
    mount = {"name": "data", "mountPath": "/data"}
    lists = {"spec": {"containers": [{"name": "task", "volumeMounts": [mount]}], "tolerations": [{"operator": "Exists"}]}}
    tuples = {"spec": {"containers": ({"name": "task", "volumeMounts": (mount,)},), "tolerations": ({"operator": "Exists"},)}}
    assert pod_with(tuples) == pod_with(lists)


def test_containers_are_merged_by_their_names() -> None:
    pod = pod_with(
        {
            "spec": {
                "containers": [
                    {"name": "task", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
                    {"name": "proxy", "image": "p"},
                ]
            }
        }
    )
    task, proxy = pod["spec"]["containers"]
    assert proxy == {"name": "proxy", "image": "p"}
    assert task["command"] == ["sh", "-c", "true"]
    values = {each["name"]: each.get("value") for each in task["env"]}
    assert (values["A"], values["B"], values["C"]) == ("1", "3", "4")


def test_lists_without_a_merge_key_are_replaced() -> None:
    first = {"spec": {"tolerations": [{"operator": "Exists"}]}}
    second = {"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}
    assert pod_with(first, second)["spec"]["tolerations"] == [{"key": "a", "operator": "Exists"}]


def test_null_and_directives_remove() -> None:
    assert "seccompProfile" not in pod_with({"spec": {"securityContext": {"seccompProfile": None}}})["spec"]["securityContext"]
    assert pod_with({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 7}}})["spec"]["securityContext"] == {"runAsUser": 7}
    assert "securityContext" not in pod_with({"spec": {"securityContext": {"$patch": "delete"}}})["spec"]
    env = pod_with({"spec": {"containers": [{"name": "task", "env": [{"name": "A", "$patch": "delete"}]}]}})["spec"]["containers"][0]["env"]
    assert "A" not in [each["name"] for each in env]
    kept = pod_with({"spec": {"securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 8}}})["spec"]["securityContext"]
    assert kept == {"runAsUser": 8}


def test_another_source_of_a_volume_takes_the_place_of_ours() -> None:
    pod = pod_with({"spec": {"volumes": [{"name": "evflow-tmp", "ephemeral": {"volumeClaimTemplate": {}}}]}})
    volume = next(each for each in pod["spec"]["volumes"] if each["name"] == "evflow-tmp")
    assert volume == {"name": "evflow-tmp", "ephemeral": {"volumeClaimTemplate": {}}}


def test_labels_are_added_and_ours_stay() -> None:
    pod = pod_with({"metadata": {"labels": {"team": "ml", "evflow-task": "forged"}, "annotations": {"a": "b"}}})
    assert pod["metadata"]["labels"]["team"] == "ml"
    assert pod["metadata"]["labels"]["evflow-task"] == "3"
    assert pod["metadata"]["annotations"]["a"] == "b"


def test_a_template_may_be_a_pod_or_a_pod_template() -> None:
    spec = {"hostNetwork": True}
    forms = [
        {"spec": spec},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec},
        {"apiVersion": "v1", "kind": "PodTemplate", "template": {"spec": spec}},
    ]
    assert [template_in(form, "t") for form in forms] == [{"spec": spec}] * 3


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (None, "it is empty"),
        ([], "it is list"),
        ({"kind": "Deployment", "spec": {}}, "it is a Deployment"),
        ({"hostNetwork": True}, "'hostNetwork' beside metadata and spec"),
        ({"spec": []}, "its spec is no mapping"),
        ({"spec": {"restartPolicy": "Always"}}, "its restartPolicy is Always"),
        ({"spec": {"activeDeadlineSeconds": 5}}, "@timeout"),
        ({"spec": {"containers": [{"name": "task", "command": ["sleep"]}]}}, "it has a command for the container 'task'"),
        ({"spec": {"containers": {}}}, "its containers are no list"),
    ],
)
def test_what_is_no_template_is_told(document: object, why: str) -> None:
    with pytest.raises(TemplateInvalid, match=r"The pod template pod\.yaml cannot be used") as caught:
        template_in(document, "pod.yaml")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"containers": [{"image": "x"}]}, "a member of containers has no name"),
        ({"containers": ["task"]}, "containers has a member that is no mapping"),
        ({"containers": [{"name": "task", "$patch": "delete"}]}, "it removes the container 'task'"),
    ],
)
def test_what_cannot_be_merged_is_told(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(TemplateInvalid) as caught:
        pod_with({"spec": spec})
    assert why in str(caught.value)


PLAIN = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
SPECS = st.dictionaries(st.sampled_from(["hostNetwork", "affinity", "dnsConfig", "x"]), PLAIN, max_size=4)


@given(SPECS)
def test_a_template_laid_over_twice_is_laid_over_once(spec: dict[str, Any]) -> None:
    once = pod_with({"spec": spec})
    assert pod_with({"spec": spec}, {"spec": spec}) == once
    untouched = JOB["spec"]["template"]["spec"].keys() - spec.keys()
    assert all(once["spec"][key] == JOB["spec"]["template"]["spec"][key] for key in untouched)
