"""The users that `ops/redis/users.acl` makes: each can do its part, and no more."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.log.errors import LogAccessDenied
from evflow.log.wire import Wire
from tests.e2e.test_pools import deploy, worker
from tests.e2e.test_scheduler import WITHIN_S, Site, ended, scheduler
from tests.ports import free_port
from tests.real_runs import evflow, verified
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

OPS = Path(__file__).resolve().parents[2] / "ops" / "redis"
pytestmark = pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))


@pytest.fixture
def port(root: Path) -> Iterator[int]:
    """A server with the shipped configuration and users, at a port and in a folder of the test's own."""
    (root / "users.acl").write_text(
        "\n".join(line for line in (OPS / "users.acl").read_text().splitlines() if line and not line.startswith("#"))
    )
    number = free_port()
    options = ("--port", str(number), "--aclfile", str(root / "users.acl"), "--dir", str(root))
    process = subprocess.Popen(["redis-server", str(OPS / "redis.conf"), *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: can_enter(number), "the server answers")
        yield number
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def can_enter(port: int) -> bool:
    try:
        Wire.connect(url(port, "admin")).close()
    except Exception:  # noqa: BLE001 - whatever it is: not yet
        return False
    return True


def url(port: int, user: str) -> str:
    return f"redis://{user}:CHANGE-ME-{user}@127.0.0.1:{port}/0"


def test_a_scheduler_and_a_worker_of_a_pool_work_as_their_users_and_a_reader_reads(
    port: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(root)
    monkeypatch.setenv("EVFLOW_REDIS_URL", url(port, "scheduler"))
    deploy(site, body="from evflow import Run; assert Run(current.flow_name + '/' + current.run_id).id")
    with scheduler(root):
        monkeypatch.setenv("EVFLOW_REDIS_URL", url(port, "worker"))
        with worker(root, "--slots", "4"):
            monkeypatch.setenv("EVFLOW_REDIS_URL", url(port, "scheduler"))
            run = site.ask("Nightly", folder=site.said, times=2)
            killed = site.ask("Nightly", folder=site.said, times=1)
            wait_until(lambda: site.began(run, 0) and site.began(killed, 0), "bodies run", WITHIN_S)
            assert evflow("cancel", killed).returncode == 0
            assert ended(killed) == "cancelled"
            site.go()
            assert ended(run) == "succeeded"
        monkeypatch.setenv("EVFLOW_REDIS_URL", url(port, "reader"))
        for command in (("runs",), ("show", run), ("logs", f"{run}/end"), ("events", run), ("explain", run), ("pools",), ("deployments",)):
            done = evflow(*command)
            assert done.returncode == 0, done.stderr
        assert verified(run)["problems"] == []
        monkeypatch.setenv("EVFLOW_REDIS_URL", url(port, "scheduler"))


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", ("XADD", "{evflow:s1}:run:Nightly/1", "9-0", "e", "x")),
        ("worker", ("HSET", "{evflow:s1}:lease", "owner", "me")),
        ("worker", ("XADD", "{evflow:flow:Nightly}:log", "*", "e", "x")),
        ("worker", ("SET", "other", "x")),
        ("worker", ("FLUSHALL",)),
        ("scheduler", ("SET", "other", "x")),
        ("scheduler", ("FLUSHALL",)),
        ("scheduler", ("CONFIG", "SET", "appendonly", "no")),
        ("reader", ("XADD", "{evflow:s1}:inbox", "*", "r", "x")),
        ("reader", ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "evflow:flows")),
        ("reader", ("GET", "other")),
    ],
)
def test_what_a_user_may_not_do(port: int, user: str, command: tuple[str, ...]) -> None:
    wire = Wire.connect(url(port, user))
    try:
        with pytest.raises(LogAccessDenied):
            wire.call(*command)
    finally:
        wire.close()


def test_nobody_comes_in_without_a_name(port: int) -> None:
    done = evflow("runs", EVFLOW_REDIS_URL=f"redis://127.0.0.1:{port}/0")
    assert done.returncode != 0
    assert "NOAUTH" in done.stderr or "denied" in done.stderr.lower() or "refuse" in done.stderr.lower(), done.stderr
