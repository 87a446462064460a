"""What comes from outside and is wrong: each time a message that says what to do, no traceback, and nothing lost."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hiredis
import pytest

from tests.e2e.test_cli import evflow, folder, python
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

__all__ = ["folder"]

CLIENT = """
import sys
import evflow
from evflow.errors import EvflowError
evflow.namespace(None)
try:
    print(list(evflow.Flow("Sums").runs()))
except EvflowError as error:
    sys.exit(f"Error: {error}")
"""
WAITS = """
import os, time
from evflow import FlowSpec, step

class Waits(FlowSpec):
    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        open(f"ran.{self.input}", "a").write("x")
        while self.input and not os.path.exists("go"):
            time.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.input for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)

if __name__ == "__main__":
    Waits()
"""


def is_clean(done: subprocess.CompletedProcess[str], *said: str, code: int = 1) -> None:
    """It failed with these words, and without a traceback."""
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text, text
    assert "Internal error" not in text, text
    for words in said:
        assert re.search(words, done.stderr), text


def everybody(**variables: str) -> Iterator[subprocess.CompletedProcess[str]]:
    """A run, a command and a client, each in these circumstances."""
    Path("client.py").write_text(CLIENT)
    yield python("sums.py", "run", **variables)
    yield python("-m", "evflow.cli", "runs", **variables)
    yield python("client.py", **variables)


# ---------------------------------------------------------------- words on the command line


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--bogus", "1"], "No such option '--bogus'"),
        (["run", "--n_items", "many"], "Invalid value for '--n_items'.*'many' is not an integer"),
        (["run", "--loud", "perhaps"], "Invalid value for '--loud'"),
        (["run", "--names", "[1,"], "Invalid value for '--names'"),
        (["run", "--max-workers", "0"], "at least 1"),
        (["rum"], "Did you mean 'run'"),
    ],
)
def test_wrong_words_behind_a_flow_are_wrong_usage(arguments: list[str], said: str) -> None:
    is_clean(python("sums.py", *arguments), said, code=2)


def test_a_flow_in_a_folder_whose_name_is_no_utf_8_runs_and_is_shown(folder: Path) -> None:
    odd = folder / "caf\udce9"
    odd.mkdir()
    (folder / "sums.py").rename(odd / "sums.py")
    assert python(str(odd / "sums.py"), "run").returncode == 0
    assert "caf\\udce9" in evflow("show", "Sums/1").stdout


def test_a_user_whose_name_is_no_utf_8_is_told_before_the_run_begins(folder: Path) -> None:
    is_clean(python("sums.py", "run", EVFLOW_USER="\udcff"), "EVFLOW_USER: user is .* must be a text of printable characters")
    assert not list(folder.glob("**/runs/Sums"))


def test_artifacts_that_cannot_be_written_to_a_file_are_told(folder: Path) -> None:
    assert python("sums.py", "run").returncode == 0
    is_clean(
        evflow("dump", "Sums/1", "--file", "nowhere/x.pickle"),
        "cannot be written to 'nowhere/x.pickle': No such file or directory",
        "--file",
    )


@pytest.mark.usefixtures("folder")
def test_a_flow_with_a_constructor_is_refused_where_it_is_defined() -> None:
    source = Path("sums.py").read_text()
    Path("sums.py").write_text(source.replace("    @step\n", "    def __init__(self):\n        self.rate = 1\n\n    @step\n", 1))
    is_clean(python("sums.py", "run"), r"^Error: Flow Sums has an __init__ .*sums.py:\d+\)\.\nSet artifacts in the first step")


@pytest.mark.usefixtures("folder")
def test_a_mutator_that_asks_for_what_is_not_there_is_told_once() -> None:
    Path("flow.py").write_text(
        """from evflow import FlowSpec, StepMutator, step

class adds(StepMutator):
    def mutate(self, mutable_step):
        mutable_step.add_decorator("retr")

class Changed(FlowSpec):
    @adds
    @step
    def start(self):
        pass

if __name__ == "__main__":
    Changed()
"""
    )
    done = python("flow.py", "run")
    is_clean(done, "there is no decorator 'retr'", "Did you mean 'retry'?")
    assert done.stderr.count("there is no decorator") == 1


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("run --with nope", "there is no decorator 'nope'"),
        ("--with retry:times=x check", "takes a whole number of at least 0 as times, not 'x'"),
        ("run --tag=", "A tag cannot be empty"),
    ],
)
def test_what_was_typed_wrongly_exits_with_2_and_in_a_flow_for_metaflow_as_there(typed: str, said: str) -> None:
    is_clean(python("sums.py", *typed.split()), said, code=2)
    Path("theirs.py").write_text(Path("sums.py").read_text().replace("from evflow import", "from metaflow import"))
    is_clean(python("-m", "evflow.compat.metaflow", "theirs.py", *typed.split()), said)


@pytest.mark.usefixtures("folder")
def test_a_run_of_fresh_interpreters_goes_where_few_files_may_be_open() -> None:
    allow = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    done = python("-c", allow, "sums.py", "run", EVFLOW_START_METHOD="spawn")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("folder")
def test_a_run_says_at_its_start_that_the_server_evicts(redis_url: str, redis_server: DebianRedis) -> None:
    redis_server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        done = python("sums.py", "run", EVFLOW_REDIS_URL=redis_url)
    finally:
        redis_server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("has maxmemory-policy allkeys-lru: it may delete parts of runs.") == 1


@pytest.mark.usefixtures("folder")
def test_a_missing_parameter_is_named() -> None:
    source = Path("sums.py").read_text()
    Path("sums.py").write_text(source.replace('"n_items", default=3', '"n_items", type=int, required=True'))
    is_clean(python("sums.py", "run"), "Missing option '--n_items'", code=2)


@pytest.mark.usefixtures("folder")
def test_a_wrong_type_in_a_parameters_variable_is_told() -> None:
    is_clean(python("sums.py", "run", EVFLOW_RUN_N_ITEMS="many"), r"'--n_items' \(EVFLOW_RUN_N_ITEMS\): 'many' is not an integer", code=2)
    Path("theirs.py").write_text(Path("sums.py").read_text().replace("from evflow ", "from metaflow "))
    metaflow_s = python("-m", "evflow.compat.metaflow", "theirs.py", "run", METAFLOW_RUN_N_ITEMS="many")
    is_clean(metaflow_s, r"'--n_items' \(METAFLOW_RUN_N_ITEMS\): 'many' is not an integer", code=2)
    is_clean(python("sums.py", "run", "--n_items", "many"), "for '--n_items': 'many' is not an integer", code=2)


@pytest.mark.parametrize("arguments", [["shwo"], ["show"], ["runs", "--bogus"], ["cancel"]])
def test_wrong_words_behind_evflow_are_wrong_usage(arguments: list[str]) -> None:
    is_clean(evflow(*arguments), "Usage: evflow", code=2)


def in_shell(command: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    line = command.replace("python", sys.executable, 1)
    return subprocess.run(["bash", "-c", line], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=200, check=False)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_terminal_has_no_characters_for_is_escaped(encoding: str) -> None:
    source = Path("sums.py").read_text().replace('print("total"', 'print("snow \\u2603"); print("total"')
    Path("sums.py").write_text(source)
    done = python("sums.py", "run", PYTHONIOENCODING=encoding)
    is_clean(done, "succeeded", code=0)
    assert "snow \\u2603" in done.stdout
    assert "total 6" in done.stdout
    logs = python("-m", "evflow.cli", "logs", "Sums", PYTHONIOENCODING=encoding)
    is_clean(logs, code=0)
    assert "total 6" in logs.stdout


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_hinders_no_run_and_no_command(closed: str) -> None:
    is_clean(in_shell(f"python sums.py run {closed}"), code=0)
    is_clean(in_shell(f"python -m evflow.cli runs {closed}"), code=0)
    assert python("-m", "evflow.cli", "show", "Sums/1").returncode == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("typed", ["-m evflow.cli runs --json", "-m evflow.cli --help", "sums.py show", "sums.py run --help"])
def test_a_reader_that_goes_away_ends_a_command_as_the_signal_would(typed: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)  # before the command begins: one behind `|` may be there for longer than the command takes to print
    try:
        done = in_shell(f"python {typed}; exit $?", writes)
    finally:
        os.close(writes)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert "Internal error" not in done.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("option", ["", "--json"])
def test_output_that_a_full_disk_refuses_is_told(option: str) -> None:
    assert python("sums.py", "run").returncode == 0
    is_clean(in_shell(f"python -m evflow.cli runs {option} > /dev/full"), "could not be written: No space left")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # what a buffer holds is refused again and again
def test_a_run_whose_output_a_full_disk_refuses_goes_on_and_says_so(unbuffered: str) -> None:
    done = in_shell(f"PYTHONUNBUFFERED={unbuffered} python sums.py run > /dev/full")
    assert done.returncode == 0, done.stderr
    assert "could not be written: No space left on device. `evflow logs Sums/1` has it." in done.stderr
    assert "succeeded" in done.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("away", ["2> /dev/full", "> /dev/full 2>&1", "| true"])
def test_a_run_that_nobody_listens_to_succeeds(away: str, unbuffered: str) -> None:
    in_shell(f"PYTHONUNBUFFERED={unbuffered} python sums.py run {away}; echo ${{PIPESTATUS[0]}} > code")
    assert Path("code").read_text() == "0\n"
    assert json.loads(evflow("runs", "--json").stdout)[0]["status"] == "succeeded"


@pytest.mark.usefixtures("folder")
def test_a_run_goes_on_with_its_own_code_when_its_file_has_a_syntax_error_now() -> None:
    with killed_in_the_middle():
        source = Path("waits.py").read_text()
        Path("waits.py").write_text(source + "\ndef broken(:\n")
        Path("go").touch()
        done = evflow("continue", "Waits/1")
    assert done.returncode == 0, done.stderr
    assert "has changed since the run began" in done.stderr
    assert "total 6" in done.stdout
    assert "SyntaxError" in python("waits.py", "run").stderr


@contextmanager
def killed_in_the_middle(**variables: str) -> Generator[None]:
    """A run whose process was killed when one member was done and three were at work."""
    with running(**variables) as process:
        process.kill()
        process.wait()
    yield


@contextmanager
def running(**variables: str) -> Generator["subprocess.Popen[str]"]:
    """A run of which three members wait for the file `go`."""
    Path("waits.py").write_text(WAITS)
    with Path("said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "waits.py", "run"],
            env={**os.environ, **variables},
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            wait_until(lambda: all(Path(f"ran.{item}").exists() for item in range(4)), "all members began")
            wait_until(lambda: "Task has finished" in Path("said").read_text().partition("work/2")[2], "the first member is done")
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.usefixtures("folder")
def test_a_current_folder_that_was_removed_hinders_nobody() -> None:
    flow, client = Path("sums.py").absolute(), Path("client.py").absolute()
    client.write_text(CLIENT)
    away = "mkdir -p away && cd away && rmdir ../away && python"
    is_clean(in_shell(f"{away} {flow} run"), code=0)
    for command in ("-m evflow.cli runs", "-m evflow.cli show 1", "-m evflow.cli doctor", str(client)):
        is_clean(in_shell(f"{away} {command}"), code=0)
    is_clean(in_shell(f"export EVFLOW_STORE=store; {away} {flow} run"), "EVFLOW_STORE.*absolute path")


# ---------------------------------------------------------------- the home and the store


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("below", ["", "/x/y"])
def test_a_file_in_the_homes_place_is_told_by_everybody(below: str) -> None:
    Path("file").write_text("x")
    home = f"{Path('file').absolute()}{below}"
    for done in everybody(EVFLOW_HOME=home):
        is_clean(done, re.escape(home), "no folder", "EVFLOW_HOME")


@pytest.mark.usefixtures("folder")
def test_a_read_only_home_is_told() -> None:
    with disk("home", "1m") as home:
        remount(home, "ro")
        is_clean(python("sums.py", "run", EVFLOW_HOME=f"{home}/h"), "Read-only file system", "EVFLOW_HOME")


@pytest.mark.usefixtures("folder")
def test_a_home_that_becomes_read_only_is_told_by_everybody() -> None:
    with disk("home", "20m") as home:
        assert python("sums.py", "run", EVFLOW_HOME=f"{home}/h").returncode == 0
        remount(home, "ro")
        for done in everybody(EVFLOW_HOME=f"{home}/h"):
            is_clean(done, "read-only", "EVFLOW_HOME")


@pytest.mark.usefixtures("folder")
def test_a_file_in_the_stores_place_is_told_before_the_run_begins() -> None:
    Path("file").write_text("x")
    is_clean(python("sums.py", "run", EVFLOW_STORE=str(Path("file").absolute())), "Not a directory", "EVFLOW_STORE")
    assert json.loads(evflow("runs", "--json").stdout) == []


# ---------------------------------------------------------------- full disks


@contextmanager
def disk(name: str, size: str) -> Generator[Path]:
    """A small disk of its own; only root can make one."""
    place = Path(name).absolute()
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        wait_until(lambda: subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0, "nobody uses the disk")


def remount(place: Path, option: str) -> None:
    def asked() -> bool:
        return subprocess.run(["mount", "-o", f"remount,{option}", str(place)], capture_output=True, check=False).returncode == 0

    wait_until(asked, "nobody writes to the disk")  # a server that is ending


def fill(place: Path) -> Path:
    """Leave no byte on the disk; removing the file frees them."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return filler


@pytest.mark.usefixtures("folder")
def test_a_full_disk_under_the_home_stops_a_start_and_leaves_no_draft() -> None:
    with disk("home", "1m") as place:
        fill(place)
        home = place / "h"
        is_clean(python("sums.py", "run", EVFLOW_HOME=str(home)), "No space left on device", "Free some space")
        assert not list(home.rglob("*.conf.*"))


@pytest.mark.usefixtures("folder")
def test_a_full_store_stops_a_start_before_the_run_begins() -> None:
    with disk("store", "1m") as place:
        fill(place)
        is_clean(python("sums.py", "run", EVFLOW_STORE=f"{place}/s"), "full: No space left on device", "Free some space")
    assert json.loads(evflow("runs", "--json").stdout) == []


@pytest.mark.usefixtures("folder")
def test_a_store_that_is_too_small_for_an_artifact_fails_its_task_only_and_resume_goes_on_from_there() -> None:
    source = (
        Path("sums.py")
        .read_text()
        .replace("self.doubled = ", "self.big = bytes(__import__('os').urandom(3_000_000)) if self.input == 1 else b''; self.doubled = ")
    )
    Path("sums.py").write_text(source)
    with disk("store", "2m") as place:
        done = python("sums.py", "run", EVFLOW_STORE=f"{place}/s")
        is_clean(done, "is full: No space left on device", "python sums.py resume --origin-run-id 1")
        assert "contextlib" not in done.stderr
        assert not [path for path in (place / "s" / "tmp").iterdir() if path.is_file()], "a draft was left"
        remount(place, "size=20m")
        again = python("sums.py", "resume", EVFLOW_STORE=f"{place}/s")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Task is taken over from Sums/1/start/1" in again.stdout
        assert "total 6" in again.stdout


@pytest.mark.usefixtures("folder")
def test_a_disk_that_is_full_for_a_while_under_the_log_only_holds_the_run_up() -> None:
    with disk("home", "1m") as place:
        variables = {"EVFLOW_HOME": str(place / "h"), "EVFLOW_STORE": str(Path("store").absolute())}
        with running(**variables) as process:
            filler = fill(place)
            Path("go").touch()
            wait_until(lambda: "cannot write to its disk" in Path("said").read_text(), "the user is told")
            assert process.poll() is None
            filler.unlink()
            assert process.wait(60) == 0, Path("said").read_text()
        assert python("-m", "evflow.cli", "replay", "Waits/1", "--verify", **variables).returncode == 0
        assert [Path(f"ran.{item}").read_text() for item in range(4)] == ["x"] * 4


@pytest.mark.usefixtures("folder")
def test_a_run_that_was_killed_on_a_full_disk_is_continued_when_there_is_room() -> None:
    with disk("home", "1m") as place:
        variables = {"EVFLOW_HOME": str(place / "h"), "EVFLOW_STORE": str(Path("store").absolute())}
        with running(**variables) as process:
            filler = fill(place)
            Path("go").touch()
            wait_until(lambda: "cannot write to its disk" in Path("said").read_text(), "the user is told")
            process.kill()
            process.wait()
        filler.unlink()
        done = python("-m", "evflow.cli", "continue", "Waits/1", **variables)
        assert done.returncode == 0, done.stderr
        assert "total 6" in done.stdout
        assert Path("ran.0").read_text() == "x", "a finished task is not repeated"
        assert python("-m", "evflow.cli", "replay", "Waits/1", "--verify", **variables).returncode == 0


# ---------------------------------------------------------------- the server of the log


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///tmp/there-is-no-such-socket", "redis://no-such-host.invalid"])
def test_a_server_that_is_down_is_told_by_everybody(url: str) -> None:
    for done in everybody(EVFLOW_REDIS_URL=url):
        is_clean(done, "cannot be reached", "EVFLOW_REDIS_URL")


@pytest.mark.usefixtures("folder")
def test_a_log_without_a_run_says_how_to_start_one(redis_url: str) -> None:
    done = python("-m", "evflow.cli", "runs", EVFLOW_REDIS_URL=redis_url)
    is_clean(done, "There are no runs in this log yet.\nStart one with `python flow.py run`.", code=0)
    is_clean(python("-m", "evflow.cli", "runs", "--tag", "x", EVFLOW_REDIS_URL=redis_url), "No run fits.", code=0)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://host:port", "127.0.0.1:6379"])
def test_a_url_that_names_no_server_is_told_by_everybody(url: str) -> None:
    for done in everybody(EVFLOW_REDIS_URL=url):
        is_clean(done, "redis://")


@pytest.mark.usefixtures("folder")
def test_a_wrong_password_is_told_by_everybody(redis_url: str, redis_server: DebianRedis) -> None:
    redis_server.call("ACL", "SETUSER", "ada", "on", ">sesame", "~*", "+@all")
    try:
        for done in everybody(EVFLOW_REDIS_URL=redis_url.replace("unix://", "unix://ada:wrong@")):
            is_clean(done, "refuses this user", "password")
            assert "wrong@" not in done.stdout + done.stderr
    finally:
        redis_server.call("ACL", "DELUSER", "ada")


@pytest.mark.usefixtures("folder")
def test_a_read_only_replica_takes_no_run_and_is_told(redis_url: str, redis_server: DebianRedis) -> None:
    redis_server.call("REPLICAOF", "127.0.0.1", "1")
    try:
        is_clean(python("sums.py", "run", EVFLOW_REDIS_URL=redis_url), "read-only replica", "primary")
    finally:
        redis_server.call("REPLICAOF", "NO", "ONE")


@contextmanager
def out_of_memory(server: DebianRedis) -> Generator[None]:
    """The server takes no write that needs memory."""
    server.call("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        server.call("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.usefixtures("folder")
def test_a_server_without_memory_takes_no_run_and_is_told(redis_url: str, redis_server: DebianRedis) -> None:
    with out_of_memory(redis_server):
        is_clean(python("sums.py", "run", EVFLOW_REDIS_URL=redis_url), "out of memory", "maxmemory")


@pytest.mark.usefixtures("folder")
def test_a_server_that_is_out_of_memory_for_a_while_only_holds_the_run_up(redis_url: str, redis_server: DebianRedis) -> None:
    with running(EVFLOW_REDIS_URL=redis_url) as process:
        with out_of_memory(redis_server):
            Path("go").touch()
            wait_until(lambda: "out of memory" in Path("said").read_text(), "the user is told")
            assert process.poll() is None
        assert process.wait(60) == 0, Path("said").read_text()
    assert python("-m", "evflow.cli", "replay", "Waits/1", "--verify", EVFLOW_REDIS_URL=redis_url).returncode == 0
    assert [Path(f"ran.{item}").read_text() for item in range(4)] == ["x"] * 4


@pytest.mark.usefixtures("folder")
def test_a_run_that_was_killed_without_memory_is_continued_when_there_is_some(redis_url: str, redis_server: DebianRedis) -> None:
    with running(EVFLOW_REDIS_URL=redis_url) as process:
        with out_of_memory(redis_server):
            Path("go").touch()
            wait_until(lambda: "out of memory" in Path("said").read_text(), "the user is told")
            process.kill()
            process.wait()
            is_clean(python("-m", "evflow.cli", "runs", "--status", "nonsense", EVFLOW_REDIS_URL=redis_url), code=2)
            shown = python("-m", "evflow.cli", "show", "Waits/1", EVFLOW_REDIS_URL=redis_url)
            assert shown.returncode == 0, "what is there can be read without memory"
        done = python("-m", "evflow.cli", "continue", "Waits/1", EVFLOW_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    assert "total 6" in done.stdout
    assert Path("ran.0").read_text() == "x", "a finished task is not repeated"


# ---------------------------------------------------------------- what only looks like a server


@contextmanager
def answering(reply_to: "dict[bytes, bytes]", otherwise: bytes) -> Generator[str]:
    """A server that answers each command from a table; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def converse(connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    assert isinstance(command, list)
                    connection.sendall(reply_to.get(command[0].upper(), otherwise))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                thread = threading.Thread(target=converse, args=(connection,))
                thread.start()
                threads.append(thread)

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(60)


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


REDIS_6 = {
    b"INFO": bulk(b"# Server\r\nredis_version:6.2.14\r\n"),
    b"TIME": b"*2\r\n$10\r\n1795435200\r\n$1\r\n0\r\n",
    b"EVALSHA": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    b"EVAL": b"-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n",
    b"SMEMBERS": b"*0\r\n",
    b"SCARD": b":0\r\n",
    b"GET": b"$-1\r\n",
    b"HGET": b"$-1\r\n",
    b"HLEN": b":0\r\n",
    b"HGETALL": b"*0\r\n",
    b"PING": b"+PONG\r\n",
}


@pytest.mark.usefixtures("folder")
def test_a_server_of_an_older_version_takes_no_run_and_is_told() -> None:
    with answering(REDIS_6, b"+OK\r\n") as url:
        is_clean(python("sums.py", "run", EVFLOW_REDIS_URL=url), "too old", r"Redis 7\.0 or newer")
        doctor = python("-m", "evflow.cli", "doctor", EVFLOW_REDIS_URL=url)
        assert doctor.returncode == 1
        assert "6.2.14" in doctor.stdout
        assert "Traceback" not in doctor.stdout + doctor.stderr


@pytest.mark.usefixtures("folder")
def test_what_is_no_redis_server_is_told_by_everybody() -> None:
    with answering({}, b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        for done in everybody(EVFLOW_REDIS_URL=url):
            is_clean(done, "does not answer as a Redis server does", "EVFLOW_REDIS_URL")


@pytest.mark.usefixtures("folder")
def test_answers_that_make_no_sense_are_told_by_everybody() -> None:
    with answering({}, b"+OK\r\n") as url:
        for done in everybody(EVFLOW_REDIS_URL=url):
            is_clean(done)
