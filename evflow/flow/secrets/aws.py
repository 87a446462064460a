"""Secrets of AWS Secrets Manager."""

import sys
import time
from base64 import b64encode
from typing import Any, Final

from evflow import aws
from evflow.flow.secrets.local import from_json
from evflow.flow.secrets.sources import SecretNotThere, SecretSourceInvalid, Source, options_of, setting, variable_of
from evflow.imports import framework_view

TRIES: Final = 4
"""With the waits between them a service that is busy has about four seconds to answer."""
_SESSION: Final = "evflow"


def secrets_manager(source: Source) -> dict[str, str]:
    """The variables of a secret: its JSON map, or its text under one name.

    Options are `json` (True: the secret is a JSON map), `env_var_name` (the name of a text), `region`, `version_id` and `version_stage`.

    Raises:
        SecretNotThere: AWS does not give it.
        SecretUnusable: It is no JSON map.
        SecretSourceInvalid: It has other options.
        AwsMissing: The client is not installed.
    """
    options = options_of(source, json=True, env_var_name=None, region=None, version_id=None, version_stage=None)
    if not isinstance(options["json"], bool):
        raise SecretSourceInvalid(f"The secret {source} has json={options['json']!r}.", "It is True or False.")
    aws.installed("@secrets with aws-secrets-manager")
    told = _patiently(source, options)
    if "SecretString" not in told:
        return {options["env_var_name"] or variable_of(_name(source)): b64encode(told["SecretBinary"]).decode()}
    if options["json"] and options["env_var_name"] is None:
        return from_json(
            source, told["SecretString"], "If it is one value: options={'json': False}, or 'env_var_name' with the variable's name."
        )
    return {options["env_var_name"] or variable_of(_name(source)): told["SecretString"]}


def _name(source: Source) -> str:
    """The secret's name: that of an ARN without the account, and without the six characters that AWS adds."""
    if not source.id.startswith("arn:"):
        return source.id
    name = source.id.rpartition(":secret:")[2]
    return name[:-7] if name[-7:-6] == "-" else name


def _patiently(source: Source, options: dict[str, Any]) -> dict[str, Any]:
    failures = 0
    while True:
        try:
            return _ask(source, options)
        except aws.AwsProblem as problem:
            failures += 1
            if problem.transient and failures < TRIES:
                time.sleep(aws.pause_s(failures))
                continue
            tried = f" It was asked {failures} times." if failures > 1 else ""
            raise SecretNotThere(f"The secret {source} cannot be read. {problem.message}{tried}", _hint(source, problem)) from None


def _hint(source: Source, problem: aws.AwsProblem) -> str:
    if problem.kind == "ResourceNotFoundException":
        return "Compare its name with `aws secretsmanager list-secrets`, and the region: options={'region': …}, or AWS_REGION."
    if "AccessDenied" in problem.kind:
        who = f"the role {source.role}" if source.role else "what runs the step"
        return f"Allow secretsmanager:GetSecretValue (and kms:Decrypt of its key) to {who}{', and sts:AssumeRole to what runs the step' if source.role else ''}."
    return problem.hint


def _ask(source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """Ask once, on an event loop of our own; in a thread where one is running already."""
    with framework_view():
        import anyio

    def ask() -> dict[str, Any]:
        return anyio.run(_get, source, options)

    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - its own quick way to ask
        return ask()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


async def _get(source: Source, options: dict[str, Any]) -> dict[str, Any]:
    region = options["region"] or (source.id.split(":")[3] if source.id.startswith("arn:") else None) or setting("aws_region") or None
    asked = {"SecretId": source.id}
    asked |= {name: options[given] for name, given in (("VersionId", "version_id"), ("VersionStage", "version_stage")) if options[given]}
    credentials = await _assumed(source.role, region) if source.role else None
    async with aws.client("secretsmanager", region=region, endpoint=setting("aws_endpoint"), credentials=credentials) as client:
        with aws.explained(f"read the secret '{source.id}'"):
            told: dict[str, Any] = await client.get_secret_value(**asked)
    return told


async def _assumed(role: str, region: str | None) -> dict[str, str]:
    async with aws.client("sts", region=region, endpoint=setting("aws_endpoint")) as client:
        with aws.explained(f"take on the role '{role}'"):
            told: dict[str, Any] = await client.assume_role(RoleArn=role, RoleSessionName=_SESSION)
    given = told["Credentials"]
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
