"""What the container of an attempt runs, and what its end means."""

import ast
import base64
import sys
from types import SimpleNamespace

import pytest

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.ids import AttemptId
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.pool_orders import PoolOrder
from evflow_executors.remote.bootstrap import EXIT_NO_EVFLOW, from_s3
from evflow_executors.remote.command import (
    ORDER,
    ORDER_AT,
    ContainerSettings,
    bootstrap_source,
    command_of,
    has_password,
    packed_order,
    unfit_variables,
)
from evflow_executors.remote.container import OrderMissing, read_order
from evflow_executors.remote.provision import container_settings
from evflow_executors.remote.verdicts import EXITED, Verdict, end_of

ATTEMPT = AttemptId.parse("Flow/1/7.2")
CONTEXT = RunContext(
    "Flow", 1, "/home/ada/flow.py", "s1", "redis://:secret@log:6379", "s3://bucket/here", b"p", b"d", lock_file="/here/locks"
)
ORDER_ = AttemptOrder("start", 7, 2, parents=(("a", 1, b"m"),))


def test_an_order_comes_out_of_the_variables_as_it_went_in() -> None:
    packed = packed_order(CONTEXT, ORDER_, "file:///mnt/store")
    command = command_of("Flow/1/7.2", packed, ContainerSettings("1", "file:///mnt/store"))
    attempt, order = read_order(command.env)
    assert (attempt, order.order, order.context.store_url) == (ATTEMPT, ORDER_, "file:///mnt/store")


def test_no_password_and_no_place_of_the_owner_is_in_a_job() -> None:
    packed = packed_order(CONTEXT, ORDER_, "s3://bucket/here")
    command = command_of("Flow/1/7.2", packed, ContainerSettings("1", "s3://bucket/here", redis_url=""))
    said = repr(command) + repr(base64.b64decode(command.own[ORDER]))
    assert "secret" not in said
    assert "/here/locks" not in said


def test_an_order_in_the_store_is_named_by_its_digest() -> None:
    command = command_of("Flow/1/7.2", b"", ContainerSettings("1", "s3://b"), order_at="ab" * 32)
    assert (command.own[ORDER_AT], ORDER in command.own) == ("ab" * 32, False)


def test_a_step_that_names_its_python_needs_no_shell() -> None:
    command = command_of("Flow/1/7.2", b"", ContainerSettings("1", "s3://b"), executable="/opt/python")
    assert command.argv == ("/opt/python", "-c", bootstrap_source())
    assert "EVFLOW_BOOTSTRAP" not in command.shared


def test_containers_are_told_of_another_s3_server_and_how_it_encrypts(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "EVFLOW_S3_ENDPOINT": "http://s3:9000",
        "EVFLOW_S3_SSE": "aws:kms",
        "EVFLOW_S3_KMS_KEY": "alias/ours",
        "EVFLOW_S3_ROOT": "s3://data",
    }
    for name, text in {**said, "EVFLOW_S3_CACHE": "/here", "EVFLOW_CONTAINER_INSTALL": "evflow"}.items():
        monkeypatch.setenv(name, text)
    settings = container_settings("s3://bucket", "redis://log:6379/0", secrets=(), how="")
    env = command_of("Flow/1/7.2", b"x", settings).env
    assert {name: env.get(name) for name in said} == said
    assert env.keys() & {"EVFLOW_S3_CACHE", "EVFLOW_S3_CACHE_MB"} == set()


@pytest.mark.parametrize(("said", "told"), [("0", "0"), ("4000", "4000"), ("90000", None)])
def test_containers_keep_no_more_copies_than_was_said_and_not_what_a_large_disk_of_this_machine_takes(
    said: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVFLOW_S3_CACHE_MB", said)
    monkeypatch.setenv("EVFLOW_CONTAINER_INSTALL", "evflow")
    settings = container_settings("s3://bucket", "redis://log:6379/0", secrets=(), how="")
    assert command_of("Flow/1/7.2", b"x", settings).env.get("EVFLOW_S3_CACHE_MB") == told


def test_the_bootstrap_asks_the_s3_server_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def client(_: str, endpoint_url: str | None) -> None:
        asked.append(endpoint_url)

    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=client, __spec__=object()))
    monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", "http://aws")
    for endpoint in ("", "http://s3:9000"):
        monkeypatch.setenv("EVFLOW_S3_ENDPOINT", endpoint)
        with pytest.raises(AttributeError):
            from_s3("s3://bucket/key", "")
    assert asked == ["http://aws", "http://s3:9000"]


def test_what_attempts_share_is_the_same_for_all_of_them() -> None:
    settings = ContainerSettings("1", "s3://b", env={"A": "1"})
    one, other = command_of("Flow/1/7.2", b"x", settings), command_of("Flow/1/8.0", b"y", settings)
    assert (one.argv, one.shared) == (other.argv, other.shared)
    assert one.own != other.own


def test_the_bootstrap_is_small_and_imports_the_standard_library_alone() -> None:
    source = bootstrap_source()
    assert len(source) < 5_000
    names = {name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for name in (alias.name for alias in node.names)}
    names |= {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names)


@pytest.mark.parametrize("url", ["redis://:secret@log", "redis://ada:secret@log:6379/0", "redis+sentinel://h/s?sentinel_password=x"])
def test_a_password_in_a_url_is_seen(url: str) -> None:
    assert has_password(url)


@pytest.mark.parametrize("url", ["redis://log:6379", "unix:///a/b", "redis://ada@log"])
def test_a_url_without_a_password_is_none(url: str) -> None:
    assert not has_password(url)


def test_variables_of_ours_are_not_to_be_set() -> None:
    assert unfit_variables(["PYTHONPATH", "EVFLOW_ORDER", "EVFLOW_HOME", "PIP_INDEX_URL"]) == ["PYTHONPATH", "EVFLOW_ORDER"]


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({ORDER: None}, "KeyError"),
        ({ORDER: "###"}, "Error"),
        ({ORDER: base64.b64encode(b"no order").decode()}, "cannot be read"),
        ({"EVFLOW_ATTEMPT": "Flow/1/8.0"}, "another attempt's"),
    ],
    ids=["none", "no base64", "nonsense", "another's"],
)
def test_an_order_that_is_none_is_told(spoilt: dict[str, str | None], said: str) -> None:
    packed = PoolOrder.pack(CONTEXT.pack(), ORDER_, live=True)
    env = dict(command_of("Flow/1/7.2", packed, ContainerSettings("1", "s3://b")).env)
    env |= {name: text for name, text in spoilt.items() if text is not None}
    for name in (name for name, text in spoilt.items() if text is None):
        del env[name]
    with pytest.raises(OrderMissing, match=said):
        read_order(env)


@pytest.mark.parametrize(
    ("verdict", "code", "end"),
    [
        (EXITED, 3, AttemptExited(7, 2, 3, None)),
        (EXITED, 137, AttemptExited(7, 2, None, 9)),
        (EXITED, 143, AttemptExited(7, 2, None, 15)),
        (EXITED, 0, AttemptExited(7, 2, 0, None)),
        (EXITED, None, AttemptExited(7, 2, None, None, "job-gone")),
        (EXITED, 255, AttemptExited(7, 2, 255, None)),
        (Verdict("lost", "spot-interruption", "It went."), 143, AttemptExited(7, 2, None, None, "spot-interruption: It went.")),
        (Verdict("failed", "image-pull", "No image."), None, AttemptFailed(7, 2, "container", "image-pull", "No image.")),
        (
            Verdict("failed", "job-unfit", "No.", retryable=False),
            None,
            AttemptFailed(7, 2, "container", "job-unfit", "No.", retryable=False),
        ),
    ],
)
def test_an_end_is_told_by_its_verdict_then_by_its_exit_code(
    verdict: Verdict, code: int | None, end: AttemptExited | AttemptFailed
) -> None:
    assert end_of(ATTEMPT, verdict, code) == end


def test_a_container_that_could_not_begin_tells_its_last_lines() -> None:
    end = end_of(ATTEMPT, EXITED, EXIT_NO_EVFLOW, "ERROR: no matching distribution\n")
    assert isinstance(end, AttemptFailed)
    assert end.message == "evflow could not be had in the container: ERROR: no matching distribution"
