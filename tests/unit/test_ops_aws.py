"""The templates of `ops/aws`: they hold together, AWS's own rules like them, and they allow what evflow does and no more."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from evflow import config
from evflow.core.values import value
from evflow_executors.batch.definitions import LOG_GROUP
from evflow_executors.remote.names import LABELS
from tests.conftest import REPOSITORY

yaml: Any = pytest.importorskip("yaml")

FOLDER = REPOSITORY / "ops" / "aws"
TEMPLATES = sorted(FOLDER.glob("*.yaml"))
ACTIONS_OF_S3 = {
    "get_object": "s3:GetObject", "head_object": "s3:GetObject", "put_object": "s3:PutObject", "delete_object": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket", "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "create_multipart_upload": "s3:PutObject", "upload_part": "s3:PutObject", "complete_multipart_upload": "s3:PutObject",
    "copy_object": "s3:PutObject", "abort_multipart_upload": "s3:AbortMultipartUpload",
}  # fmt: skip
"""The rights that calls need, by the reference of S3 ("Actions, resources, and condition keys"). Deleting many needs what deleting one does."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with CloudFormation's short forms."""


def _function(loader: Any, tag: str, node: Any) -> Any:
    kind = type(node).__name__
    given = loader.construct_scalar(node) if kind == "ScalarNode" else loader.construct_sequence(node, deep=True)
    if tag == "GetAtt":
        return {"Fn::GetAtt": given.split(".", 1)}
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": given}


_Loader.add_multi_constructor("!", _function)


def template(name: str) -> dict[str, Any]:
    """A template with its functions written out."""
    found: dict[str, Any] = yaml.load((FOLDER / name).read_text(encoding="utf-8"), _Loader)
    return found


def walked(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its content, however deep."""
    if isinstance(node, dict):
        for key, content in node.items():
            yield key, content
            yield from walked(content)
    elif isinstance(node, list):
        for content in node:
            yield from walked(content)


STACK = template("evflow.yaml")
RESOURCES: dict[str, Any] = STACK["Resources"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_name_leads_somewhere_and_everything_is_used(path: Any) -> None:
    found = template(path.name)
    parameters, conditions = found["Parameters"].keys(), found.get("Conditions", {}).keys()
    there = parameters | found["Resources"].keys()
    named: set[str] = set()
    for key, content in walked(found):
        if key == "Ref":
            named.add(content)
        elif key == "Fn::GetAtt":
            named.add(content[0])
        elif key == "Fn::Sub":
            named |= {name.partition(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", content)}
        elif key == "Fn::If":
            assert content[0] in conditions
        elif key == "Condition" and isinstance(content, str):
            assert content in conditions
    assert {name for name in named if not name.startswith("AWS::")} <= there
    assert parameters <= named


def test_cfn_lint_likes_them() -> None:
    lint = shutil.which("cfn-lint")
    if lint is None:
        pytest.skip("cfn-lint is not installed (`pip install cfn-lint`; 150 MB, so not one of the tests' own packages)")
    done = subprocess.run([lint, *TEMPLATES], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ---------------------------------------------------------------- rights


@value
class Allowed:
    """An action that a policy allows.

    Attributes:
        action: `batch:SubmitJob`.
        resource: Of what; as the template writes it.
        condition: When.
    """

    action: str
    resource: Any
    condition: Any


def allowed(name: str) -> list[Allowed]:
    """What a policy of the template allows."""
    found: list[Allowed] = []
    for statement in RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
            found.append(Allowed(action, statement["Resource"], statement.get("Condition")))
    return found


def camel(method: str) -> str:
    return "".join(part.capitalize() for part in method.split("_"))


def test_a_scheduler_may_call_what_the_executor_calls_and_nothing_else() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "executors" / "evflow_executors" / "batch").glob("*.py")]
    calls = r'(?:\(\s*"(batch|logs)",|\.(batch|logs)\()\s*"(\w+)"'
    called = {f"{one or other}:{camel(method)}" for text in sources for one, other, method in re.findall(calls, text)}
    assert {"batch:SubmitJob", "batch:TerminateJob", "logs:GetLogEvents"} <= called
    # Jobs are submitted with tags, and definitions registered with roles; both need a right of their own.
    assert {one.action for one in allowed("SchedulerAccess")} == called | {"batch:TagResource", "iam:PassRole"}


def test_the_store_is_allowed_what_the_store_does_and_nothing_else() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "evflow" / "store" / "s3").glob("*.py")]
    called = {
        name for text in sources for name in re.findall(r"\b(?:[a-z]+_)+(?:objects?(?:_v2)?|multipart_uploads?|upload_part|part)\b", text)
    }
    needed = {action for name, action in ACTIONS_OF_S3.items() if name in called}
    assert {one.action for one in allowed("StoreAccess")} == needed
    page = (REPOSITORY / "docs" / "s3.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^The rights that are needed: .*$", page, re.MULTILINE)
    assert set(re.findall(r"s3:\w+", line.split(". ")[0])) == needed


def test_what_changes_something_is_bound_to_what_is_evflow_s() -> None:
    rights = {one.action: one for one in allowed("SchedulerAccess")}
    for one in allowed("SchedulerAccess"):
        if one.action == "batch:TerminateJob" and not json.dumps(one.resource).endswith(':job/*:*"}'):
            assert one.condition["Null"].keys() <= {f"aws:ResourceTag/{label}" for label in LABELS}
    assert json.dumps(rights["batch:RegisterJobDefinition"].resource).endswith(':job-definition/evflow-*"}')
    assert rights["iam:PassRole"].resource == [{"Fn::GetAtt": ["JobRole", "Arn"]}, {"Fn::GetAtt": ["ExecutionRole", "Arn"]}]
    assert f"log-group:{LOG_GROUP}:" in json.dumps(rights["logs:GetLogEvents"].resource)
    unbound = {one.action for one in allowed("SchedulerAccess") if one.resource == "*"}
    assert all(re.match(r"batch:(Describe|List)", action) for action in unbound)
    on_objects = [one for one in allowed("StoreAccess") if one.action.endswith("Object")]
    assert all(one.resource == {"Fn::Sub": "${Store.Arn}/${StorePrefix}/*"} for one in on_objects)
    assert RESOURCES["JobRole"]["Properties"]["ManagedPolicyArns"] == [{"Ref": "StoreAccess"}]


def test_the_lines_for_schedulers_are_settings() -> None:
    lines = STACK["Outputs"]["Settings"]["Value"]["Fn::Join"][1]
    names = re.findall(r"EVFLOW_\w+(?==)", json.dumps(lines))
    assert {"EVFLOW_STORE", "EVFLOW_BATCH_JOB_QUEUE", "EVFLOW_BATCH_JOB_ROLE", "EVFLOW_BATCH_EXECUTION_ROLE"} <= set(names)
    assert all(name.removeprefix("EVFLOW_").lower() in config.SETTINGS for name in names)


def test_the_bucket_removes_what_nobody_needs_and_nothing_that_is_current() -> None:
    bucket = RESOURCES["Store"]
    rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {"DaysAfterInitiation": 1} in [rule.get("AbortIncompleteMultipartUpload") for rule in rules]
    assert any("NoncurrentVersionExpiration" in rule for rule in rules)
    assert {name for rule in rules for name in rule} & {"ExpirationInDays", "ExpirationDate", "Transition", "Transitions"} == set()
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}


# ---------------------------------------------------------------- what AWS would say


def plain(node: Any) -> Any:
    """A part of the template as the API would get it: names begin small, functions are some text."""
    if isinstance(node, dict):
        if len(node) == 1 and next(iter(node)).startswith(("Ref", "Fn::")):
            name = node.get("Ref", "")
            number, several = name in ("MaxCores", "DiskGiB"), name in ("Subnets", "InstanceTypes")
            return 1 if number else ["x"] if several else "x"
        return {key[0].lower() + key[1:]: plain(content) for key, content in node.items()}
    return [plain(content) for content in node] if isinstance(node, list) else node


@pytest.mark.parametrize("name", [name for name, found in RESOURCES.items() if found["Type"].startswith("AWS::Batch::")])
def test_aws_batch_knows_every_field_of_it(name: str) -> None:
    loaders, model, validate = (pytest.importorskip(f"botocore.{part}") for part in ("loaders", "model", "validate"))
    kind = RESOURCES[name]["Type"].rpartition("::")[2]
    given = plain(RESOURCES[name]["Properties"]) | {f"{kind[0].lower()}{kind[1:]}Name": name}
    for of_cloudformation in ("replaceComputeEnvironment", "updatePolicy"):
        given.pop(of_cloudformation, None)
    given.get("computeResources", {}).pop("updateToLatestImageVersion", None)  # of updates only
    service = model.ServiceModel(loaders.Loader().load_service_model("batch", "service-2"))
    problems = validate.ParamValidator().validate(given, service.operation_model(f"Create{kind}").input_shape)
    assert not problems.has_errors(), problems.generate_report()


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {
            "StoreKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "RedisUrlSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:url-1",
            "MakeLogGroup": "yes",
        },
    ],
    ids=["defaults", "everything"],
)
@pytest.mark.filterwarnings("ignore:Tried to parse AWS.*S3.*BucketPolicy:UserWarning")
def test_it_can_be_deployed(chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("openapi_spec_validator") is None or find_spec("docker") is None:
        pytest.skip("moto's CloudFormation is not installed (`pip install 'moto[cloudformation,batch]'`)")
    pytest.importorskip("moto.cloudformation")
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        made = template("evflow.yaml")
        iam, ec2, cloudformation = (boto3.client(service, "eu-west-1") for service in ("iam", "ec2", "cloudformation"))
        role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        for resource in made["Resources"].values():
            if resource["Type"] == "AWS::Batch::ComputeEnvironment":
                resource["Properties"]["ServiceRole"] = role  # moto wants one; AWS has the account's own
        subnets = ec2.describe_subnets()["Subnets"]
        # moto does not split the default of a list.
        given = {
            "InstanceTypes": "m5.large,m5.xlarge",
            "Vpc": subnets[0]["VpcId"],
            "Subnets": ",".join(one["SubnetId"] for one in subnets),
            **chosen,
        }
        cloudformation.create_stack(
            StackName="evflow",
            TemplateBody=json.dumps(made),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": text} for name, text in given.items()],
        )
        (stack,) = cloudformation.describe_stacks(StackName="evflow")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        settings = dict(line.split("=", 1) for line in outputs["Settings"].splitlines())
        assert len(iam.list_policies(Scope="Local")["Policies"]) == (4 if chosen else 2)  # IAM has read each of them
        assert settings["EVFLOW_STORE"].removeprefix("s3://").removesuffix("/evflow") in {
            one["Name"] for one in boto3.client("s3", "eu-west-1").list_buckets()["Buckets"]
        }
        queues = {one["jobQueueArn"] for one in boto3.client("batch", "eu-west-1").describe_job_queues()["jobQueues"]}
        assert {settings["EVFLOW_BATCH_JOB_QUEUE"], outputs["OnDemandQueueArn"], outputs["FargateQueueArn"]} == queues
        for name, least in (("SchedulerPolicies", 2), ("StorePolicies", 1)):
            of_a_role = outputs[name].split(",")
            assert len(of_a_role) == least + bool(chosen)
            assert any("StoreKeyAccess" in one for one in of_a_role) == bool(chosen)  # without the key the store is of no use
        last = "EVFLOW_BATCH_SECRETS=EVFLOW_REDIS_URL=arn:" if chosen else "EVFLOW_REPORT_VIA=store"
        assert outputs["Settings"].splitlines()[-1].startswith(last)


def test_a_scheduler_tags_nothing_but_with_all_tags_that_each_of_its_jobs_has() -> None:
    statements = [
        content
        for key, found in walked(RESOURCES)
        if key == "Statement"
        for content in found
        if content.get("Action") == "batch:TagResource"
    ]
    assert [one["Condition"] for one in statements] == [{"Null": {f"aws:RequestTag/{name}": "false" for name in LABELS[:6]}}]
