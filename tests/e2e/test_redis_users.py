"""The users that `ops/redis/users.acl` makes: each can do its part, and no more."""

import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from evflow.log.diagnose import diagnose
from evflow.log.errors import LogAccessDenied, LogUnavailable
from evflow.log.transport import connect_blocking
from evflow.log.url import parse
from evflow.log.wire import Wire
from tests.e2e.test_pools import deploy, worker
from tests.e2e.test_scheduler import WITHIN_S, Site, ended, scheduler
from tests.ports import free_port
from tests.real_runs import evflow, verified
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

OPS = Path(__file__).resolve().parents[2] / "ops" / "redis"
pytestmark = pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))


@contextmanager
def server(folder: Path, *options: str, further_users: str = "") -> Generator[int]:
    """A server with the shipped configuration and users, at a port and in a folder of its own. Answers the port."""
    folder.mkdir(exist_ok=True)
    (folder / "users.acl").write_text((OPS / "users.acl").read_text() + further_users)
    number = free_port()
    own = ("--port", str(number), "--aclfile", str(folder / "users.acl"), "--dir", str(folder), *options)
    process = subprocess.Popen(["redis-server", str(OPS / "redis.conf"), *own], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: can_enter(number), "the server answers")
        yield number
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def port(root: Path) -> Iterator[int]:
    """A server as it is shipped."""
    with server(root) as number:
        yield number


def can_enter(port: int) -> bool:
    try:
        Wire.connect(url(port, "admin")).close()
    except Exception:  # noqa: BLE001 - whatever it is: not yet
        return False
    return True


def url(port: int, user: str, kind: str = "redis", database: str = "0") -> str:
    return f"{kind}://{user}:CHANGE-ME-{user}@127.0.0.1:{port}/{database}"


def of_page(word: str) -> str:
    """The block of the page that has a word in it, as an operator takes it over."""
    blocks: list[str] = re.findall(r"^```text\n(.*?)^```", (OPS / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found


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


@pytest.mark.parametrize(
    ("user", "level", "said"),
    [("scheduler", "ok", "all commands"), ("worker", "warning", "works for pools"), ("reader", "warning", "reads and writes nothing")],
)
def test_the_doctor_knows_what_each_user_is_for_and_asks_for_no_more_rights(
    port: int, root: Path, user: str, level: str, said: str
) -> None:
    (found,) = [each for each in diagnose(url(port, user), root / "home", f"file://{root}/store") if each.name == "permissions"]
    assert (found.level, said in found.seen) == (level, True)
    assert "+@write" not in found.advice
    with closing(Wire.connect(url(port, "admin"))) as admin:
        assert [key for key in admin.call("KEYS", "*") if b"doctor" in key] == []


def test_nobody_comes_in_without_a_name(port: int) -> None:
    done = evflow("runs", EVFLOW_REDIS_URL=f"redis://127.0.0.1:{port}/0")
    assert done.returncode != 0
    assert "NOAUTH" in done.stderr or "denied" in done.stderr.lower() or "refuse" in done.stderr.lower(), done.stderr


def test_replicas_and_sentinels_have_users_and_evflow_s_users_find_the_primary_by_them(root: Path) -> None:
    further = of_page("user sentinel on")
    follows = [word for line in of_page("masteruser").splitlines() for word in f"--{line}".split()]
    now = ("--repl-diskless-sync-delay", "0")
    with server(root / "1", *follows, *now, further_users=further) as primary, ExitStack() as stack:
        replica = stack.enter_context(server(root / "2", *follows, *now, "--replicaof", f"127.0.0.1 {primary}", further_users=further))
        admin = stack.enter_context(closing(Wire.connect(url(replica, "admin"))))
        wait_until(lambda: b"master_link_status:up" in admin.call("INFO", "replication"), "the replica follows")

        number, place = free_port(), root / "sentinel.conf"
        told = of_page("sentinel monitor").replace("HOST 6379 2", f"127.0.0.1 {primary} 1")
        place.write_text(f"port {number}\nbind 127.0.0.1\ndir {root}\n{told}sentinel known-replica evflow 127.0.0.1 {replica}\n")
        process = subprocess.Popen(["redis-server", str(place), "--sentinel"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)

        def sees(kind: str) -> bool:
            """Whether the Sentinel is let in, so that it has had an answer to INFO."""
            with suppress(LogUnavailable), closing(Wire.connect(f"redis://127.0.0.1:{number}")) as sentinel:
                reply = sentinel.call("SENTINEL", kind, "evflow")
                words: list[bytes] = reply if kind == "MASTER" else reply[0]
                return dict(zip(words[::2], words[1::2], strict=True)).get(b"info-refresh", b"0") != b"0"
            return False

        wait_until(lambda: sees("MASTER") and sees("REPLICAS"), "the Sentinel is let in by both")
        for user in ("scheduler", "worker", "reader"):
            with closing(connect_blocking(parse(url(number, user, "redis+sentinel", "evflow")))) as transport:
                assert transport.call("TIME")


def test_evflow_s_users_find_their_node_in_a_cluster(root: Path) -> None:
    with server(root, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as number:
        with closing(Wire.connect(url(number, "admin"))) as admin:
            admin.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in admin.call("CLUSTER", "INFO"), "the cluster is up")
        for user in ("scheduler", "worker", "reader"):
            with closing(connect_blocking(parse(url(number, user, "redis+cluster").removesuffix("/0")))) as transport:
                assert transport.call("SMEMBERS", "evflow:flows") == []
