"""Whole runs whose store is a bucket: steps, output, cards, the client, resuming, replaying, archives, garbage, pools, fresh interpreters."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from evflow.cli import doctor
from tests.aws import Aws
from tests.contract.store_worlds import S3World, asking
from tests.e2e.test_pools import worker
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

WITHIN_S = 60.0

FLOW = """
import os, time
from evflow import FlowSpec, S3, card, current, pool, step
from evflow.cards import Markdown

class Bucketed(FlowSpec):
    @card(type="blank")
    @step
    def start(self):
        self.large = os.urandom(9_000_000)
        current.card.append(Markdown("# live"))
        current.card.refresh()
        print("said by start", flush=True)
        while os.path.exists("wait"):
            time.sleep(0.05)
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")
    {pool}
    @step
    def work(self):
        print("work on", self.input)
        if self.input == 2 and os.path.exists("fail"):
            raise ValueError("not yet")
        self.size = len(self.large) + self.input
        self.next(self.join)
    @step
    def join(self, inputs):
        self.total = sum(one.size for one in inputs)
        with S3(run=self) as s3:
            self.url = s3.put("of/the/run", str(self.total))
        self.next(self.end)
    @step
    def end(self):
        with S3(run=self) as s3:
            self.read = s3.get("of/the/run").text
        print("total", self.total)

if __name__ == "__main__":
    Bucketed()
"""


@pytest.fixture
def world(folder: Path, s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3World]:
    """Answer a bucket that is the store, and a flow in the current folder."""
    with asking(s3_server, monkeypatch):
        made = S3World(s3_server)
        monkeypatch.setenv("EVFLOW_STORE", made.store.url)
        (folder / "flow.py").write_text(FLOW.replace("{pool}", ""))
        yield made


def told(run: str) -> list[str]:
    done = evflow("logs", run)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def asked(code: str) -> str:
    """What a fresh process that has the client says."""
    done = python("-c", f"import evflow\n{code}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_lives_in_a_bucket_from_its_start_to_its_end(world: S3World, folder: Path) -> None:
    (folder / "wait").touch()
    (folder / "fail").touch()
    with (folder / "said").open("w") as file:
        process = subprocess.Popen([sys.executable, "flow.py", "run"], stdout=file, stderr=file)
    try:
        wait_until(lambda: "[start/1] said by start" in evflow("logs", "Bucketed/1").stdout, "its output is seen while it runs", WITHIN_S)
        wait_until(lambda: "live" in evflow("card", "get", "Bucketed/1/start").stdout, "so is its card", WITHIN_S)
        (folder / "wait").unlink()
        process.wait(WITHIN_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "not yet" in (folder / "said").read_text()
    assert "ValueError: not yet" in told("Bucketed/1/work/3")

    (folder / "fail").unlink()
    done = python("flow.py", "resume", "--origin-run-id", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked("run = evflow.Run('Bucketed/2'); print(run.data.total, len(run.data.large), run['end'].task.stdout.strip())") == (
        "27000006 9000000 total 27000006"
    )
    assert "[end/6] total 27000006" in told("Bucketed/2")
    assert verified("Bucketed/2")["exit"] == 0
    listed = json.loads(evflow("card", "list", "Bucketed/1", "--json").stdout)
    assert [card["live"] for card in listed] == [False]

    done = evflow("archive", "Bucketed/2")
    assert done.returncode == 0, done.stderr
    assert verified("Bucketed/2")["exit"] == 0
    assert not list(Path(os.environ["EVFLOW_HOME"]).rglob("*.log.d"))
    assert not [path for path in (Path(os.environ["EVFLOW_HOME"]) / "output").rglob("*") if path.is_file()], "all of it was carried"
    assert not (Path(os.environ["EVFLOW_HOME"]) / "store").exists(), "no part of it lies in a folder"


def test_a_step_has_files_of_its_run_in_s3(world: S3World) -> None:
    done = python("flow.py", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        asked("data = evflow.Run('Bucketed/1').data; print(data.url, data.read)")
        == f"{world.store.url}/data/Bucketed/1/of/the/run 27000006"
    )
    assert asked("with evflow.S3(run=evflow.Run('Bucketed/1')) as s3: print([one.text for one in s3.get_all()])") == "['27000006']"


def test_attempts_that_are_fresh_interpreters_work_too(world: S3World) -> None:
    done = python("flow.py", "run", "--start-method", "spawn")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[work/3] work on 2" in told("Bucketed/1")


def test_another_machine_has_all_of_it(world: S3World, root: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with a home of its own shares the log and the bucket, and nothing else."""
    monkeypatch.setenv("EVFLOW_REDIS_URL", redis_url)
    Path("flow.py").write_text(FLOW.replace("{pool}", '@pool("gpu")'))
    elsewhere = root / "elsewhere"
    with monkeypatch.context() as there:
        there.setenv("EVFLOW_HOME", str(elsewhere))
        with worker(root):
            there.undo()
            monkeypatch.setenv("EVFLOW_REDIS_URL", redis_url)
            for name, value in (("EVFLOW_STORE", world.store.url), ("EVFLOW_S3_ENDPOINT", world.aws.url)):
                monkeypatch.setenv(name, value)
            done = python("flow.py", "run")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "[work/3] work on 2" in told("Bucketed/1")
            assert verified("Bucketed/1")["exit"] == 0
    assert (elsewhere / "cache" / "s3").exists()


def test_a_run_whose_owner_was_killed_goes_on(world: S3World, folder: Path) -> None:
    (folder / "wait").touch()
    process = subprocess.Popen([sys.executable, "flow.py", "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "[start/1] said by start" in evflow("logs", "Bucketed/1").stdout, "it runs", WITHIN_S)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder / "wait").unlink()
    done = evflow("continue", "Bucketed/1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked("print(evflow.Run('Bucketed/1').data.total)") == "27000006"
    assert "[end/6] total 27000006" in told("Bucketed/1")


def test_garbage_is_collected_and_nothing_that_is_needed(world: S3World) -> None:
    for _ in range(2):
        done = python("flow.py", "run")
        assert done.returncode == 0, done.stdout + done.stderr
    for digest in world.store.digests():
        world.age(digest, 3 * 3_600_000_000)
    names = set(world.store.list_named("logs"))
    done = evflow("gc", "--keep-last", "1", "--grace", "1h", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert {name.split("/")[2] for name in names} == {"1", "2"}
    # What was forgotten is needed until the grace is over; nothing else is garbage yet.
    assert json.loads(done.stdout)["forgotten"] == ["Bucketed/1"]
    assert verified("Bucketed/2")["exit"] == 0
    strays = [world.store.put([b"nobody refers to %d" % number]) for number in range(20)]
    for stray in strays:
        world.age(stray, 3 * 3_600_000_000)
    world.aws.asked()
    said = json.loads(evflow("gc", "--grace", "1h", "--yes", "--json").stdout)
    assert said["objects"]["removed"] == 20
    requests = world.aws.asked()
    assert [sum(stray.hex()[4:] in one for one in requests) for stray in strays] == [4] * 20, "a note, a look, and an end for each of both"
    assert len(requests) <= 4 * 20 + 3 * said["objects"]["needed"] + 20, (
        "what is needed is asked for once, and once more if it is a manifest"
    )
    assert not any(map(world.store.exists, strays))
    assert verified("Bucketed/2")["exit"] == 0
    assert asked("print(len(evflow.Run('Bucketed/2').data.large))") == "9000000"


def doctors_word_on_the_store() -> dict[str, str]:
    """What `evflow doctor` finds of it."""
    findings: list[dict[str, str]] = json.loads(CliRunner().invoke(doctor.command, ["--json"]).stdout)["findings"]
    (found,) = [finding for finding in findings if finding["name"] == "store"]
    return found


def test_a_store_is_checked_and_copied(world: S3World, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = python("flow.py", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(evflow("store", "check", "--all", "--json").stdout)["ok"]
    assert doctors_word_on_the_store()["level"] == "ok"
    copied = json.loads(evflow("store", "copy", "-", str(root / "copy"), "--json").stdout)
    assert copied["objects"] == len([*world.store.digests()])
    again = json.loads(evflow("store", "copy", "-", str(root / "copy"), "--json").stdout)
    assert (again["objects"], again["files"]) == (0, 0)
    for source, target, told in ((root / "mistyped", "-", "Nothing is in the store"), ("-", world.store.url, "Both stores are")):
        refused = evflow("store", "copy", str(source), str(target))
        assert (refused.returncode, told in refused.stderr) == (1, True)

    damaged = max(world.store.written(), key=lambda one: one[2])[0]
    world.overwrite(damaged, world.raw(damaged)[:-1] + b"!")
    done = evflow("store", "check", "--all")
    assert done.returncode == 1
    assert world.store.where(damaged) in done.stdout
    done = evflow("store", "copy", "-", str(root / "other"))
    assert done.returncode == 1
    assert world.store.where(damaged) in done.stderr

    monkeypatch.setenv("EVFLOW_STORE", str(root / "copy"))
    world.aws.fail({"status": 403, "code": "AccessDenied", "times": 1000})
    done = evflow("store", "check", world.store.url)
    assert done.returncode == 1
    assert "s3:ListBucket" in done.stdout
    monkeypatch.setenv("EVFLOW_STORE", world.store.url)
    said = doctors_word_on_the_store()
    assert (said["level"], "s3:ListBucket" in said["advice"]) == ("error", True), said


SMALL = """
from evflow import FlowSpec, step

class Small(FlowSpec):
    @step
    def start(self):
        self.x = list(range(100_000))
        self.next(self.end)
    @step
    def end(self):
        print(len(self.x))

if __name__ == "__main__":
    Small()
"""


def test_a_bucket_that_does_not_do_ends_a_run_with_what_to_do_and_no_traceback(world: S3World) -> None:
    """Without a right: at its beginning, and in its steps; an object that was cut short is named."""
    Path("flow.py").write_text(SMALL)
    world.aws.fail({"method": "PUT", "status": 403, "code": "AccessDenied", "times": 10**6})
    done = python("flow.py", "run")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot use '{world.store.url}" in done.stderr
    assert "AccessDenied to s3:PutObject" in done.stderr
    assert f"s3:DeleteObject and s3:AbortMultipartUpload on {world.store.url}/*" in done.stderr
    assert "Traceback" not in done.stderr

    world.aws.fail()
    assert python("flow.py", "run").returncode == 0
    largest = max(world.store.written(), key=lambda one: one[2])[0]
    world.overwrite(largest, world.raw(largest)[:1_000])
    shutil.rmtree(Path(os.environ["EVFLOW_HOME"]) / "cache")
    done = python("flow.py", "resume", "end")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"ObjectDamaged: The content of '{world.store.where(largest)}'" in said
    assert "it has 1000 bytes, and bytes 0 to" in said
    assert "It was changed in the bucket. Restore it from a copy, or run the task that made it again." in said
    assert "evflow/store" not in said, "no frame of ours"
