"""URLs, error replies, and the events of a flow's log: the parts of the log that need no server."""

import pytest

from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent
from evflow.core.events import Unknown
from evflow.core.flow_events import RunRequested, RunTagged
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.errors import UsageError
from evflow.log import errors
from evflow.log.keys import shared_shard, shared_shards
from evflow.log.url import Address, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/redis.sock", Address("unix", "/run/redis.sock", "", 0, None, None, 0, {})),
        ("unix:///a@b/s?db=4", Address("unix", "/a@b/s", "", 0, None, None, 4, {})),
        ("unix://ada:x@/s", Address("unix", "/s", "", 0, "ada", "x", 0, {})),
        ("redis://host", Address("redis", "", "host", 6379, None, None, 0, {})),
        ("redis://host:7000/2", Address("redis", "", "host", 7000, None, None, 2, {})),
        ("redis://:p%40ss@host", Address("redis", "", "host", 6379, None, "p@ss", 0, {})),
        ("redis://ada:a@b@host/", Address("redis", "", "host", 6379, "ada", "a@b", 0, {})),
        ("redis://[::1]:7000", Address("redis", "", "::1", 7000, None, None, 0, {})),
        ("redis://", Address("redis", "", "localhost", 6379, None, None, 0, {})),
        ("rediss://host?ssl_ca_certs=/ca.pem", Address("rediss", "", "host", 6379, None, None, 0, {"ssl_ca_certs": "/ca.pem"})),
    ],
)
def test_a_url_is_taken_apart(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://host",
        "unix://relative",
        "redis://host:port",
        "redis://host/first",
        "redis://host:70000",
        "redis://host?tls=1",
    ],
)
def test_what_names_no_server_is_refused_with_the_forms_that_do(url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(url)
    assert "redis://" in refusal.value.hint


@pytest.mark.parametrize("url", ["redis://ada:hunter2@host/first", "http://ada:hunter2@host", "redis://:hunter2@host:6379"])
def test_a_password_is_never_shown(url: str) -> None:
    try:
        shown = parse(url).shown
    except UsageError as refusal:
        shown = str(refusal)
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("said", "kind", "transient"),
    [
        ("NOAUTH Authentication required.", errors.LogAccessDenied, False),
        ("WRONGPASS invalid username-password pair", errors.LogAccessDenied, False),
        ("NOPERM this user has no permissions to run the 'xadd' command", errors.LogAccessDenied, False),
        ("OOM command not allowed when used memory > 'maxmemory'.", errors.LogOutOfMemory, True),
        ("READONLY You can't write against a read only replica.", errors.LogReadOnly, True),
        ("MISCONF Errors writing to the AOF file: No space left on device", errors.LogDiskFailed, True),
        ("LOADING Redis is loading the dataset in memory", errors.LogStarting, True),
        ("MASTERDOWN Link with MASTER is down", errors.LogPrimaryDown, True),
        ("NOREPLICAS Not enough good replicas to write.", errors.LogPrimaryDown, True),
        ("BUSY Redis is busy running a script.", errors.LogBusy, True),
        ("MOVED 3999 127.0.0.1:6381", errors.LogIsCluster, False),
        ("ERR unknown command 'WAITAOF', with args beginning with: ", errors.LogTooOld, False),
        ("ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'", errors.LogTooOld, False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", errors.LogRefused, False),
    ],
)
def test_each_refusal_has_its_class_and_says_where_and_what_to_do(said: str, kind: type[errors.LogUnavailable], transient: bool) -> None:
    error = errors.error_of("host:6379", said)
    assert type(error) is kind
    assert isinstance(error, errors.LogUnavailable)
    assert error.transient is transient
    assert "host:6379" in error.message
    assert said in error.message
    assert error.hint


def test_a_missing_script_is_no_error_of_the_user_s() -> None:
    assert isinstance(errors.error_of("x", "NOSCRIPT No matching script. Please use EVAL."), errors.ScriptMissing)


@pytest.mark.parametrize("event", [RunRequested(3, "ada", "Flow/2", "", "host"), RunTagged(3, ("a", "b"), ("b",), ("c",))])
def test_an_event_of_a_flow_s_log_is_read_back(event: RunRequested | RunTagged) -> None:
    payload = flow_events.encode(event, at_us=17, principal="user:ada")
    assert flow_events.decode(5, payload) == flow_events.FlowRecord(5, 17, "user:ada", event)  # type: ignore[arg-type]  # plain numbers


def test_an_event_of_a_later_version_is_kept_and_not_fatal() -> None:
    later = Unknown("RunFromTheFuture", (3, "where"))
    payload = flow_events.encode(later, at_us=17, principal="x")
    assert flow_events.decode(1, payload).event == later


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x01", b"\x91\xa1x", b"\x94\xacRunRequested\x01\xa1x\x01"])
def test_what_is_no_event_of_a_flow_s_log_is_refused(payload: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        flow_events.decode(1, payload)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 70_000, 2**40])
def test_a_request_is_split_around_its_number(number: int) -> None:
    import msgpack

    def payload(number: int) -> bytes:
        return flow_events.encode(RunRequested(number, "ada", None, "shard", "host"), at_us=2**50, principal="user:ada")

    before, behind = flow_events.split_at_number(payload(0))
    assert before + msgpack.packb(number) + behind == payload(number)


def test_only_a_request_is_split() -> None:
    for payload in (flow_events.encode(RunTagged(1, ()), at_us=1, principal="x"), b"\x01", b""):
        with pytest.raises(UnreadableEvent):
            flow_events.split_at_number(payload)


def test_a_run_s_shared_shard_is_the_same_for_ever() -> None:
    assert [shared_shard(RunId(FlowName("TrainFlow"), RunNumber(number))) for number in (1, 2, 3, 4)] == ["s2", "s0", "s6", "s5"]


def test_all_shared_shards_are_used() -> None:
    used = {shared_shard(RunId(FlowName("TrainFlow"), RunNumber(number))) for number in range(1, 200)}
    assert used == set(shared_shards())
