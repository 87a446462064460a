"""What is registered and submitted for a step on AWS Batch."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow.core.ids import AttemptId
from evflow_executors.batch.definitions import (
    BatchDefaults,
    BatchUnfit,
    definition_of,
    log_group_of,
    queue_of,
    submit_of,
    tags_of,
    texts_of,
)
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.platform import Job
from tests.fakes.batch_server import NAME

DEFAULTS = BatchDefaults("python:3.11", "queue", job_role="arn:job", execution_role="arn:exec", tags={"team": "risk"})
COMMAND = ContainerCommand(("sh", "-c", "it"), {"EVFLOW_VERSION": "1", "EMPTY": ""}, {"EVFLOW_ORDER": "abc"})


def a_job(command: ContainerCommand = COMMAND, **asked: Any) -> Job:
    return Job("ev1-flow-x-1-7-0", AttemptId.parse("Flow/1/7.0"), "train", asked, command, {"evflow-run": "1"}, 30.0)


def container(fargate: bool = False, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = definition_of(a_job(**asked), DEFAULTS, fargate=fargate)["containerProperties"]
    return found


def test_a_step_that_says_nothing_gets_one_core_four_gigabytes_and_the_default_image() -> None:
    found = container()
    assert found["image"] == "python:3.11"
    assert found["resourceRequirements"] == [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "4096"}]
    assert (found["jobRoleArn"], found["executionRoleArn"]) == ("arn:job", "arn:exec")
    assert found["environment"] == [{"name": "EVFLOW_VERSION", "value": "1"}]  # an empty one is dropped by the service


@given(st.floats(0.001, 200), st.floats(4, 1e6), st.integers(0, 16))
def test_an_instance_gives_whole_cores_and_megabytes_never_fewer_than_asked(cpu: float, memory: float, gpu: int) -> None:
    wanted = {one["type"]: int(one["value"]) for one in container(cpu=cpu, memory=str(memory), gpu=gpu)["resourceRequirements"]}
    assert wanted["VCPU"] >= max(1.0, cpu)
    assert wanted["MEMORY"] >= memory
    assert wanted.get("GPU", 0) == gpu


@given(st.dictionaries(st.sampled_from(["cpu", "memory", "image", "privileged", "iam_role"]), st.sampled_from(["7", "8"])), st.text())
def test_a_definition_s_name_is_its_content_s_and_a_name_of_the_service(asked: dict[str, Any], order: str) -> None:
    one = definition_of(a_job(**asked), DEFAULTS, fargate=False)
    other = definition_of(a_job(ContainerCommand(COMMAND.argv, COMMAND.shared, {"EVFLOW_ORDER": order}), **asked), DEFAULTS, fargate=False)
    assert one == other  # what is one attempt's own is not in it
    assert NAME.fullmatch(one["jobDefinitionName"])
    assert definition_of(a_job(**asked, max_swap=7), DEFAULTS, fargate=False)["jobDefinitionName"] != one["jobDefinitionName"]


def test_every_argument_of_metaflow_s_batch_finds_its_place() -> None:
    found = container(
        cpu="2", gpu=1, memory="9000", image="registry/a:1", iam_role="arn:mine", execution_role="arn:ex", shared_memory=64, max_swap=100,
        swappiness=10, inferentia=1, efa=1, host_volumes=["/data", "/a.b:/inside"], efs_volumes="fs-1,fs-2:/deep", tmpfs_size=500,
        tmpfs_path="/fast", log_driver="awslogs", log_options=["awslogs-group:mine"], privileged=True,
    )  # fmt: skip
    assert found["image"] == "registry/a:1"
    assert (found["jobRoleArn"], found["executionRoleArn"], found["privileged"]) == ("arn:mine", "arn:ex", True)
    assert {one["type"]: one["value"] for one in found["resourceRequirements"]} == {"VCPU": "2", "MEMORY": "9000", "GPU": "1"}
    linux = found["linuxParameters"]
    assert (linux["sharedMemorySize"], linux["maxSwap"], linux["swappiness"]) == (64, 100, 10)
    assert linux["tmpfs"] == [{"containerPath": "/fast", "size": 500, "mountOptions": ["rw", "noexec", "nosuid"]}]
    assert [one["hostPath"] for one in linux["devices"]] == ["/dev/neuron0", "/dev/infiniband/uverbs0"]
    assert {one["sourceVolume"]: one["containerPath"] for one in found["mountPoints"]} == {
        "data": "/data", "a_b": "/inside", "efs_fs-1": "/mnt/fs-1", "efs_fs-2": "/deep",
    }  # fmt: skip
    assert {"name": "TMPDIR", "value": "/fast"} in found["environment"]
    assert log_group_of(found) == "mine"


def test_a_memory_disk_is_half_of_the_memory_where_its_size_is_not_said() -> None:
    found = container(use_tmpfs=True, memory=8000, tmpfs_tempdir=False)
    assert found["linuxParameters"]["tmpfs"][0]["size"] == 4000
    assert "TMPDIR" not in {one["name"] for one in found["environment"]}


def test_fargate_gets_what_it_needs() -> None:
    found = container(fargate=True, cpu=0.5, ephemeral_storage=50)
    assert found["resourceRequirements"][0] == {"type": "VCPU", "value": "0.5"}
    assert found["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    assert found["ephemeralStorage"] == {"sizeInGiB": 50}
    assert "linuxParameters" not in found


@pytest.mark.parametrize(
    ("fargate", "asked", "said"),
    [
        (True, {"gpu": 1}, "has no gpu"),
        (True, {"privileged": True, "host_volumes": ["/a"]}, "has no privileged, host_volumes"),
        (True, {"cpu": 3}, "no 3 cores"),
        (True, {"ephemeral_storage": 500}, "may be 21 to 200"),
        (False, {"ephemeral_storage": 50}, "is for Fargate"),
        (False, {"swappiness": 5}, "needs max_swap"),
        (False, {"memory": 2}, "at least 4"),
        (False, {"host_volumes": ["data"]}, "no absolute path"),
        (False, {"log_driver": "splunk", "log_options": ["url"]}, "NAME:VALUE"),
    ],
)
def test_what_the_service_would_refuse_is_refused_before(fargate: bool, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(BatchUnfit, match=said) as caught:
        container(fargate=fargate, **asked)
    assert "Step train cannot run on AWS Batch" in caught.value.message


def test_fargate_and_secrets_need_an_execution_role() -> None:
    for defaults, fargate in ((BatchDefaults("i"), True), (BatchDefaults("i", secrets={"EVFLOW_REDIS_URL": "arn:x"}), False)):
        with pytest.raises(BatchUnfit, match="needs an execution role"):
            definition_of(a_job(), defaults, fargate=fargate)


def test_a_secret_is_named_and_never_said() -> None:
    found = definition_of(a_job(), BatchDefaults("i", execution_role="arn:e", secrets={"EVFLOW_REDIS_URL": "arn:x"}), fargate=False)
    assert found["containerProperties"]["secrets"] == [{"name": "EVFLOW_REDIS_URL", "valueFrom": "arn:x"}]


def test_a_submit_has_the_attempt_s_own_and_lives_as_long_as_the_service_lets_it() -> None:
    found = submit_of(a_job(aws_batch_tags="a=1,team=mine"), "queue", "arn:definition", DEFAULTS)
    assert (found["jobName"], found["jobQueue"], found["jobDefinition"]) == ("ev1-flow-x-1-7-0", "queue", "arn:definition")
    assert found["containerOverrides"] == {"environment": [{"name": "EVFLOW_ORDER", "value": "abc"}]}
    assert found["timeout"] == {"attemptDurationSeconds": 60}
    assert found["tags"] == {"team": "mine", "a": "1", "evflow-run": "1"}


def test_more_tags_than_aws_takes_are_refused() -> None:
    with pytest.raises(BatchUnfit, match="52 tags"):
        submit_of(a_job(aws_batch_tags={str(index): "x" for index in range(50)}), "queue", "arn", DEFAULTS)


def test_a_queue_has_to_be_named_somewhere() -> None:
    assert queue_of(a_job(queue="mine"), DEFAULTS) == "mine"
    assert queue_of(a_job(), DEFAULTS) == "queue"
    with pytest.raises(BatchUnfit, match="no queue is named"):
        queue_of(a_job(), BatchDefaults("i"))


def test_output_that_does_not_go_to_cloudwatch_has_no_group() -> None:
    assert log_group_of({"logConfiguration": {"logDriver": "splunk"}}) is None
    assert log_group_of({}) == "/aws/batch/job"


def test_lists_and_tags_may_be_texts() -> None:
    assert (texts_of("/a, /b"), texts_of(["/a"]), texts_of(None)) == (["/a", "/b"], ["/a"], [])
    assert (tags_of("a=1, b = 2"), tags_of({"a": 1}), tags_of(None)) == ({"a": "1", "b": "2"}, {"a": "1"}, {})
