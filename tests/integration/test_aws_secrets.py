"""Secrets of AWS Secrets Manager, from moto's server and from one that answers as AWS does when it is busy."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from evflow import aws as evflow_aws
from evflow.flow.secrets.sources import SecretNotThere, SecretUnusable, fetch, source_of
from tests.aws import CREDENTIALS, REGION, Aws, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Aws]:
    with serving(tmp_path_factory.mktemp("moto")) as found:
        yield found


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def at_once(failures: int) -> float:
        del failures
        return 0.0

    monkeypatch.setattr(evflow_aws, "pause_s", at_once)


@pytest.fixture
def aws(server: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    server.reset()
    monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", server.url)
    return server


def create(aws: Aws, name: str, **value: Any) -> str:
    arn: str = aws.client("secretsmanager").create_secret(Name=name, **value)["ARN"]
    return arn


def fetched(name: str, role: str | None = None, **options: object) -> dict[str, str]:
    return fetch([source_of({"type": "aws-secrets-manager", "id": name, "options": options}, default_type=None, role=role)])


def test_a_map_gives_its_variables(aws: Aws) -> None:
    arn = create(aws, "prod/db", SecretString=json.dumps({"user": "ada", "pass-word": "hunter2", "port": 5432}))
    variables = {"user": "ada", "pass_word": "hunter2", "port": "5432"}
    assert fetched("prod/db") == fetched(arn) == variables
    assert fetch([source_of("aws-secrets-manager.prod/db", default_type=None)]) == variables
    assert fetch([source_of("prod/db", default_type="aws-secrets-manager")]) == variables


def test_a_text_gives_one_variable(aws: Aws) -> None:
    arn = create(aws, "prod/api-key", SecretString="k-123")
    assert fetched("prod/api-key", json=False) == fetched(arn, json=False) == {"prod_api_key": "k-123"}
    assert fetched("prod/api-key", env_var_name="API_KEY") == {"API_KEY": "k-123"}


def test_bytes_are_given_in_base64(aws: Aws) -> None:
    create(aws, "blob", SecretBinary=b"\0\1\2")
    assert fetched("blob") == {"blob": "AAEC"}


def test_a_version_may_be_named(aws: Aws) -> None:
    create(aws, "rotated", SecretString='{"A": "old"}')
    aws.client("secretsmanager").put_secret_value(SecretId="rotated", SecretString='{"A": "new"}')
    assert fetched("rotated") == {"A": "new"}
    assert fetched("rotated", version_stage="AWSPREVIOUS") == {"A": "old"}


def test_a_role_is_taken_on_first(aws: Aws) -> None:
    create(aws, "shared", SecretString='{"A": "1234"}')
    assert fetched("shared", role="arn:aws:iam::123456789012:role/reader") == {"A": "1234"}


def test_a_secret_that_is_not_there_says_where_to_look(aws: Aws) -> None:
    with pytest.raises(SecretNotThere, match=r"The secret aws-secrets-manager.missing cannot be read. AWS could not read") as raised:
        fetched("missing")
    assert "list-secrets" in raised.value.hint


def test_a_text_that_is_no_map_is_not_told(aws: Aws) -> None:
    create(aws, "text", SecretString="hunter2")
    with pytest.raises(SecretUnusable, match="is no JSON map") as raised:
        fetched("text")
    assert "hunter2" not in str(raised.value)
    assert "'json': False" in raised.value.hint


@contextmanager
def answering(*answers: tuple[int, Mapping[str, str]]) -> Generator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, the last one again and again; its URL, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.headers["X-Amz-Target"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


BUSY = (400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
DENIED = (400, {"__type": "AccessDeniedException", "message": "not authorized"})


def test_a_service_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(BUSY, (500, {}), (200, {"Name": "x", "SecretString": '{"A": "1234"}'})) as (url, asked):
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", url)
        assert fetched("x", region=REGION) == {"A": "1234"}
    assert asked == ["secretsmanager.GetSecretValue"] * 3


def test_a_service_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(BUSY) as (url, asked):
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", url)
        with pytest.raises(SecretNotThere, match="Rate exceeded It was asked 4 times"):
            fetched("x")
    assert len(asked) == 4


def test_who_may_not_read_it_is_told_what_to_allow_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(DENIED) as (url, asked):
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", url)
        with pytest.raises(SecretNotThere) as raised:
            fetched("x")
    assert len(asked) == 1
    assert "secretsmanager:GetSecretValue" in raised.value.hint


@pytest.mark.may_block("a step's decorators run before its loop")
async def test_a_loop_that_runs_is_no_hindrance(aws: Aws) -> None:
    create(aws, "looped", SecretString='{"A": "1234"}')
    assert fetched("looped") == {"A": "1234"}
