"""What `evflow doctor` finds, on real servers with one thing wrong at a time."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import clock
from evflow.core.flow_events import RunRequested, encode
from evflow.core.ids import FlowName, RunId
from evflow.log import connect, diagnose as doctor
from evflow.log.diagnose import Finding, diagnose
from evflow.log.embedded import status
from evflow.log.keys import own_shard
from evflow.log.protocol import RunEntry
from tests.redis_server import DebianRedis
from tests.waiting import wait_until


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def of_server(url: str) -> dict[str, Finding]:
    return by_name(doctor.check_server(url))


@pytest.fixture
def own_redis() -> Iterator[DebianRedis]:
    """A server that the test may spoil."""
    missing = DebianRedis.why_missing()
    if missing:
        pytest.skip(missing)
    with DebianRedis.started() as server:
        server.call("CONFIG", "SET", "appendonly", "yes")
        wait_until(lambda: "aof_rewrite_in_progress:0" in str(server.call("INFO", "persistence")), "the log is there")
        yield server


@pytest.fixture
def replica(own_redis: DebianRedis) -> DebianRedis:
    own_redis.call("REPLICAOF", "127.0.0.1", "1")
    return own_redis


def test_a_sound_machine_with_the_embedded_server_has_nothing_to_change(evflow_home: Path) -> None:
    evflow_home.mkdir(mode=0o700)
    findings = diagnose(None, evflow_home, f"file://{evflow_home}/store")
    assert [finding for finding in findings if finding.level == "error"] == []
    assert {"python", "packages", "open-files", "home-folder", "store-folder", "version", "persistence", "clock", "permissions"} <= set(
        by_name(findings)
    )
    wait_until(lambda: status(evflow_home) is None, "the server is gone")


@pytest.mark.parametrize("name", ["home", "store"])
def test_a_folder_that_may_not_be_looked_into_is_named(root: Path, name: str) -> None:
    closed = root / "closed"
    closed.mkdir(mode=0o000)
    before = os.getresuid()
    try:
        if os.geteuid() == 0:  # nothing is closed to root
            root.chmod(0o755)
            os.setresuid(65534, 65534, 0)
        found = by_name(list(doctor.check_folder(name, closed / "folder")))
    finally:
        os.setresuid(*before)
    assert found[f"{name}-folder"].level == "error"
    assert f"'{closed}' may not be read" in found[f"{name}-folder"].seen


def test_looking_leaves_no_file(evflow_home: Path) -> None:
    evflow_home.mkdir()
    list(doctor.check_folder("home", evflow_home))
    assert list(evflow_home.iterdir()) == []


def test_a_sound_server_leaves_nothing_to_change_and_no_key(own_redis: DebianRedis) -> None:
    own_redis.call("CONFIG", "SET", "appendfsync", "always")
    assert {finding.level for finding in of_server(own_redis.url).values() if finding.name != "waitaof"} == {"ok"}
    assert own_redis.call("DBSIZE") == 0


def test_runs_whose_data_lie_on_another_machine_are_told_with_its_name(own_redis: DebianRedis, root: Path) -> None:
    client = connect(own_redis.url)
    for number, host, store in ((1, "box2", "file:///data/box2"), (2, "box2", f"file://{root}"), (3, os.uname().nodename, "file:///gone")):
        name = FlowName("Train")
        run = RunId(name, client.request_run(name, encode(RunRequested(0, "ada"), at_us=1, principal="user:ada")))
        assert run.number == number
        client.index_run(RunEntry(run, own_shard(run), {"host": host, "store": store}))
    client.close()
    found = of_server(own_redis.url)["data"]
    assert (found.level, found.seen) == ("warning", "the data of 1 of the newest 3 runs lie on the host 'box2', in file:///data/box2")
    assert "EVFLOW_STORE" in found.advice


def test_a_server_that_is_down_is_one_error(root: Path) -> None:
    found = of_server(f"unix://{root}/nobody")
    assert found["server"].level == "error"
    assert "EVFLOW_REDIS_URL" in found["server"].advice


def test_a_server_without_an_append_only_file_is_an_error(own_redis: DebianRedis) -> None:
    own_redis.call("CONFIG", "SET", "appendonly", "no")
    assert of_server(own_redis.url)["persistence"].level == "error"


def test_an_append_only_file_that_is_not_synced_is_a_warning(own_redis: DebianRedis) -> None:
    own_redis.call("CONFIG", "SET", "appendfsync", "no")
    found = of_server(own_redis.url)["persistence"]
    assert (found.level, found.advice) == ("warning", "Set `appendfsync everysec`.")


def test_a_server_that_may_evict_is_an_error(own_redis: DebianRedis) -> None:
    own_redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = of_server(own_redis.url)["eviction"]
    assert found.level == "error"
    assert "allkeys-lru" in found.seen


def test_a_server_that_is_nearly_full_is_said(own_redis: DebianRedis) -> None:
    used = int(str(own_redis.call("INFO", "memory")).partition("used_memory:")[2].partition("\\r")[0])
    own_redis.call("CONFIG", "SET", "maxmemory", str(int(used * 1.1)))
    assert of_server(own_redis.url)["memory"].level in ("warning", "error")


def test_a_replica_is_an_error_that_names_its_primary(replica: DebianRedis) -> None:
    found = of_server(replica.url)["role"]
    assert found.level == "error"
    assert "127.0.0.1:1" in found.advice


def test_a_server_that_takes_no_writes_is_not_taken_for_one_that_grants_no_rights(own_redis: DebianRedis) -> None:
    own_redis.call("CONFIG", "SET", "maxmemory", "1")
    found = of_server(own_redis.url)
    own_redis.call("REPLICAOF", "127.0.0.1", "1")
    of_replica = of_server(own_redis.url)
    assert "permissions" not in {*found, *of_replica}
    assert (found["writes"].level, "Raise the server's `maxmemory`" in found["writes"].advice) == ("error", True)
    assert (of_replica["writes"].level, "primary" in of_replica["writes"].advice) == ("error", True)


def test_a_user_that_may_not_run_scripts_is_told_which_command_is_refused(own_redis: DebianRedis) -> None:
    own_redis.call("ACL", "SETUSER", "poor", "on", ">secret", "~*", "+@all", "-@scripting")
    found = of_server(own_redis.url.replace("unix://", "unix://poor:secret@"))["permissions"]
    assert found.level == "error"
    assert "EVALSHA" in found.seen


def test_a_wrong_password_is_an_error_and_not_shown(own_redis: DebianRedis) -> None:
    found = of_server(own_redis.url.replace("unix://", "unix://me:hunter2@"))["server"]
    assert found.level == "error"
    assert "hunter2" not in found.seen + found.advice


def test_a_user_that_may_not_see_settings_is_warned_and_not_stopped(own_redis: DebianRedis) -> None:
    own_redis.call("ACL", "SETUSER", "modest", "on", ">secret", "~*", "+@all", "-config")
    found = of_server(own_redis.url.replace("unix://", "unix://modest:secret@"))
    assert found["persistence"].level == "warning"
    assert found["permissions"].level == "ok"


@pytest.mark.parametrize(("off_s", "level"), [(0, "ok"), (-10, "warning"), (10, "warning"), (-1_000, "error")])
def test_a_clock_that_differs_is_said(own_redis: DebianRedis, monkeypatch: pytest.MonkeyPatch, off_s: int, level: str) -> None:
    now_us = clock.now_us
    monkeypatch.setattr(clock, "now_us", lambda: now_us() + off_s * 1_000_000)
    assert of_server(own_redis.url)["clock"].level == level


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "7.0.15"}, "ok"),
        ({"redis_version": "6.2.7"}, "error"),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "ok"),
        ({}, "error"),
    ],
)
def test_which_servers_are_new_enough(own_redis: DebianRedis, info: dict[str, str], level: str) -> None:
    from evflow.log.wire import Wire

    wire = Wire.connect(own_redis.url)
    try:
        server = doctor.Server(wire)
        server.info = info
        assert next(doctor.check_version(server)).level == level
    finally:
        wire.close()


def test_a_home_that_is_a_file_is_an_error(root: Path) -> None:
    (root / "file").write_text("")
    found = by_name(diagnose(None, root / "file", str(root / "store")))
    assert found["home-folder"].level == "error"
    assert found["server"].level == "error"


def test_a_home_that_others_may_write_is_a_warning(evflow_home: Path) -> None:
    evflow_home.mkdir()
    evflow_home.chmod(0o777)
    assert by_name(list(doctor.check_folder("home", evflow_home)))["home-folder"].level == "warning"


def test_a_store_elsewhere_is_left_to_who_tries_it_out(root: Path) -> None:
    assert not list(doctor.check_store("s3://bucket/prefix"))


def test_a_low_limit_of_open_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (128, 4_096)}.__getitem__)
    found = next(doctor.check_files_limit())
    assert (found.level, "ulimit -n" in found.advice) == ("error", True)


def test_a_read_only_file_system_is_an_error(root: Path) -> None:
    folder = root / "ro"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        os.geteuid() != 0
        or mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False).returncode
    ):
        pytest.skip("only root may mount a file system")
    try:
        levels = {finding.level for finding in doctor.check_folder("home", folder)}
    finally:
        subprocess.run(["umount", folder], check=True)
    assert "error" in levels
