"""`--with batch`: whole flows whose steps run as jobs of AWS Batch (`tests.fakes.batch_server`), with owners that die around a submit."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws import CREDENTIALS
from tests.batch_world import IMAGE, REAL, BatchEndpoint
from tests.fakes.batch_server import BatchServer, a_batch_server
from tests.real_runs import evflow, python, verified
from tests.sums_flow import WITHIN_S, a_run, fields, write
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(600)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def batch(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """The service, and an environment whose AWS it is."""
    del folder
    with a_batch_server(root) as server:
        monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", server.url)
        monkeypatch.setenv("EVFLOW_BATCH_JOB_QUEUE", "queue")
        for name, text in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}.items():
            monkeypatch.setenv(name, text)
        yield server


def test_a_flow_runs_on_aws_batch_from_its_start_to_its_end(batch: BatchServer) -> None:
    write()
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [len(batch.of_name(job.name)) for job in batch.jobs.values()] == [1] * 6
    assert {job.status for job in batch.jobs.values()} == {"SUCCEEDED"}
    assert "working on 2" in done.stdout
    assert batch.calls["registerjobdefinition"] == 1
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    verified("Sums/1")


def test_an_image_without_evflow_gets_it_from_the_store(batch: BatchServer, root: Path) -> None:
    """What evflow needs is there, so that no index is asked; evflow itself comes as the archive that the executor put into the store."""
    image = root / "image"
    venv.create(image, with_pip=False, symlinks=True)
    (image / "packages").mkdir()
    for there in Path(sysconfig.get_path("purelib")).iterdir():
        if not there.name.startswith(("evflow", "_evflow", "_editable", "__editable__")):
            (image / "packages" / there.name).symlink_to(there)
    pure = sysconfig.get_path("purelib", vars={"base": str(image), "platbase": str(image)})
    Path(pure, "packages.pth").write_text(f"{image / 'packages'}\n")
    executable = image / "bin" / "python"
    assert subprocess.run([executable, "-c", "import msgpack, evflow"], capture_output=True, check=False).stderr.endswith(b"'evflow'\n")
    write()
    done = python("sums.py", "run", "--with", f"batch:executable={executable}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "pip installs" not in done.stdout
    assert {job.status for job in batch.jobs.values()} == {"SUCCEEDED"}
    verified("Sums/1")


@pytest.mark.parametrize(("point", "carried_out"), [("before", False), ("after", True)], ids=["before it is carried out", "after it"])
def test_an_owner_killed_at_a_submit_leaves_neither_an_orphan_nor_a_twin(batch: BatchServer, point: str, *, carried_out: bool) -> None:
    write()
    owners: list[subprocess.Popen[bytes]] = []

    def kill(at: str, name: str) -> None:
        if at == point and not name.endswith("-1-0"):  # the start has run: the first of the foreach is submitted
            batch.faults.on_submit = None
            os.kill(owners[0].pid, signal.SIGKILL)
            if not carried_out:
                raise ConnectionAbortedError

    batch.faults.on_submit = kill
    owners.append(a_run("--with", "batch"))
    assert owners[0].wait(WITHIN_S) == -signal.SIGKILL, Path("run.log").read_text()
    done = evflow("continue", "Sums/1")
    assert done.returncode == 0, done.stderr
    assert all(len(batch.of_name(job.name)) == 1 for job in batch.jobs.values()), [job.name for job in batch.jobs.values()]
    assert not batch.running()
    exits = [job.name for job in batch.jobs.values() if job.name.endswith("-1")]
    assert carried_out or exits  # what was never submitted is a further attempt
    succeeded = fields("Sums/1", "AttemptSucceeded")
    assert sorted(int(str(one["task"])) for one in succeeded) == [1, 2, 3, 4, 5, 6]
    verified("Sums/1")


def test_an_owner_killed_at_the_submit_of_an_array_leaves_all_of_its_members_to_the_next_one(
    batch: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the members fails once: what is tried again is a job of its own."""
    monkeypatch.setenv("EVFLOW_BATCH_ARRAY_LEAST", "2")
    write("if self.input == 2 and not __import__('evflow').current.retry_count: raise ValueError('once')")
    owners: list[subprocess.Popen[bytes]] = []

    def kill(at: str, name: str) -> None:
        if at == "after" and "-array-" in name:
            batch.faults.on_submit = None
            os.kill(owners[0].pid, signal.SIGKILL)

    batch.faults.on_submit = kill
    owners.append(a_run("--with", "batch", "--with", "retry:times=1,minutes_between_retries=0"))
    assert owners[0].wait(WITHIN_S) == -signal.SIGKILL, Path("run.log").read_text()
    done = evflow("continue", "Sums/1")
    assert done.returncode == 0, done.stderr
    assert [len(job.members) for job in batch.jobs.values() if job.members] == [3]
    alone = [job.name for job in batch.jobs.values() if not job.members and job.index is None]
    assert [name.split("-")[-2:] for name in alone] == [["1", "0"], ["3", "1"], ["5", "0"], ["6", "0"]]
    assert not batch.running()
    assert [(one["task"], one["attempt"]) for one in fields("Sums/1", "AttemptFailed")] == [(3, 0)]
    assert not fields("Sums/1", "AttemptLost")
    verified("Sums/1")


def test_answers_that_are_lost_and_calls_that_are_throttled_make_no_twins(batch: BatchServer) -> None:
    write()
    batch.faults.throttled, batch.faults.lost, batch.faults.broken = 3, 3, 2
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 0, done.stderr
    assert all(len(batch.of_name(job.name)) == 1 for job in batch.jobs.values())
    assert len(batch.jobs) == 6


def test_cancelling_a_run_ends_its_jobs(batch: BatchServer) -> None:
    write("import time; time.sleep(600)")
    owner = a_run("--with", "batch")
    wait_until(
        lambda: sum(b"working on" in (job.output.read_bytes() if job.output else b"") for job in batch.running()) == 3,
        "they work",
        WITHIN_S,
    )
    listed = json.loads(evflow("batch", "list", "--json").stdout)
    assert {(one["flow"], one["run"], one["step"], one["status"]) for one in listed} == {("Sums", 1, "work", "RUNNING")}
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1, Path("run.log").read_text()
    assert not batch.running()
    assert {job.reason for job in batch.jobs.values() if job.terminated} == {"evflow: the run asked for it"}


def test_jobs_that_are_killed_from_outside_fail_their_attempts_and_a_run_s_jobs_are_its_own(
    batch: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are members of an array here, which are listed each and ended together."""
    monkeypatch.setenv("EVFLOW_BATCH_ARRAY_LEAST", "2")
    write("import time; time.sleep(600)")
    owner = a_run("--with", "batch")
    wait_until(
        lambda: sum("working on" in (job.output.read_text() if job.output else "") for job in batch.running()) == 3, "they work", WITHIN_S
    )
    assert json.loads(evflow("batch", "list", "--user", "nobody", "--json").stdout) == []
    assert len(json.loads(evflow("batch", "list", "Sums/1", "--my-runs", "--json").stdout)) == 3
    assert "Sums/1" in evflow("batch", "list").stdout
    refused = evflow("batch", "kill")
    assert (refused.returncode, "none is named" in refused.stderr) == (1, True)
    killed = json.loads(evflow("batch", "kill", "Sums/1", "--json").stdout)
    assert sorted((one["step"], one["task"], one["attempt"], one["status"]) for one in killed) == [
        ("work", task, 0, "RUNNING") for task in (2, 3, 4)
    ]
    assert batch.calls["terminatejob"] == 1
    assert owner.wait(WITHIN_S) == 1
    assert "Its job was ended by `evflow batch kill`" in Path("run.log").read_text()


def test_a_lost_host_is_made_up_for_without_a_retry_and_memory_that_did_not_suffice_fails(batch: BatchServer) -> None:
    write("import os, time\n        if self.input == 1 and 'EVFLOW_TEST_GO' not in os.environ: time.sleep(600)")
    owner = a_run("--with", "batch")

    def sleeping() -> list[str]:
        return [job.id for job in batch.running() if job.output and "working on 1" in job.output.read_text()]

    wait_until(lambda: bool(sleeping()), "the first one works", WITHIN_S)
    batch.lose_host(batch.jobs[sleeping()[0]])
    wait_until(lambda: bool(sleeping()), "it works again", WITHIN_S)
    batch.kill_for_memory(batch.jobs[sleeping()[0]])
    assert owner.wait(WITHIN_S) == 1
    said = Path("run.log").read_text()
    assert "more memory than the step asks for" in said
    assert [one["reason"] for one in fields("Sums/1", "AttemptLost")] == [
        "host-lost: Its host went away, as spot instances do (Host EC2 (instance i-0123456789abcdef0) terminated)."
    ]
    assert not batch.running()


def test_a_container_that_is_told_to_end_says_so_and_is_made_again(batch: BatchServer) -> None:
    write("import time\n        if current.retry_count == 0: time.sleep(600)".replace("current", "__import__('evflow').current"))
    owner = a_run("--with", "batch")
    wait_until(
        lambda: sum("working on" in (job.output.read_text() if job.output else "") for job in batch.running()) == 3, "they work", WITHIN_S
    )
    for job in batch.running():
        batch.stop_host(job)
    assert owner.wait(WITHIN_S) == 0, Path("run.log").read_text()
    assert [one["reason"] for one in fields("Sums/1", "AttemptLost")] == ["container-stopped"] * 3


def test_an_image_that_cannot_be_pulled_fails_with_what_to_do(batch: BatchServer) -> None:
    write()
    batch.faults.pull_fails = "CannotPullContainerError: pull access denied for nobody/nothing, repository does not exist"
    done = python("sums.py", "run", "--with", "batch:image=nobody/nothing")
    assert done.returncode == 1
    assert "Is its name right, and may the execution role" in done.stderr + done.stdout


def test_a_queue_that_does_not_exist_and_none_are_told(batch: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    del batch
    write()
    done = python("sums.py", "run", "--with", "batch:queue=nowhere")
    assert done.returncode == 1
    assert "Step start cannot run on AWS Batch: there is no queue 'nowhere'" in done.stderr + done.stdout
    monkeypatch.delenv("EVFLOW_BATCH_JOB_QUEUE")
    done = python("sums.py", "run", "--with", "batch", "--fallback", "error")
    assert done.returncode == 1
    assert "no queue is named (`batch_job_queue`" in done.stderr
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 0
    assert done.stderr.count("Steps with @batch run on this machine") == 1


def test_a_container_that_cannot_use_the_store_says_so(batch: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose role has no right to the bucket."""
    del batch
    write()
    monkeypatch.setenv("EVFLOW_CONTAINER_STORE", "file:///proc/evflow")
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 1
    assert "The store does not take the attempt's report from the container: evflow: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_containers_that_reach_the_log_report_to_it(batch: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REPORT_VIA", "log")
    write()
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 0, done.stderr
    assert {job.status for job in batch.jobs.values()} == {"SUCCEEDED"}
    environment = [one for made in batch.definitions.values() for one in made["containerProperties"]["environment"]]
    assert {one["value"] for one in environment if one["name"] == "EVFLOW_REPORT_VIA"} == {"log"}
    verified("Sums/1")


def test_a_password_of_the_log_is_in_no_job_and_what_to_do_is_told(batch: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_CONTAINER_REDIS_URL", "redis://:topsecret@log.example:6379")
    write()
    done = python("sums.py", "run", "--with", "batch")
    assert done.returncode == 1
    assert "is never written into a job" in done.stderr + done.stdout
    assert "batch_secrets" in done.stderr + done.stdout
    assert not batch.jobs
    assert "topsecret" not in done.stderr + done.stdout


def test_a_run_whose_service_is_gone_says_what_it_waits_for_and_ends_at_ctrl_c(batch: BatchServer) -> None:
    write()
    batch.faults.away = True
    owner = a_run("--with", "batch")
    said = Path("run.log")
    wait_until(lambda: "InternalError: away. It is tried again." in said.read_text(), "it says what it waits for", WITHIN_S)
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1, said.read_text()
    assert "Run Sums/1 cancelled" in said.read_text()
    assert not batch.jobs


# --- where containers are containers ------------------------------------------------------------------------------

TRIES = """if self.input == 1 and current.retry_count == 0:
            raise ValueError("not yet")
        if self.input == 2 and current.retry_count == 0:
            os._exit(3)"""


@pytest.fixture
def mounted(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--with` is given for a real endpoint whose host is this machine: it mounts this Python, the repository and the store."""
    del folder
    if not REAL:
        pytest.skip("EVFLOW_TEST_BATCH_ENDPOINT names no endpoint")
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("EVFLOW_AWS_ENDPOINT", REAL)
    monkeypatch.setenv("EVFLOW_BATCH_JOB_QUEUE", BatchEndpoint(REAL, runs=True).queue())
    places = json.dumps([str(place) for place in (REPOSITORY, sys.base_prefix, root / "e")])
    return f"batch:image={IMAGE},executable={sys.executable},memory=200,host_volumes={places}"


def test_a_flow_runs_on_a_real_endpoint_with_a_foreach_retries_and_exit_codes(mounted: str) -> None:
    write(TRIES)
    text = Path("sums.py").read_text().replace("    @step\n    def work", "    @retry(times=2)\n    @step\n    def work")
    Path("sums.py").write_text(f"import os\n{text}".replace("import FlowSpec,", "import FlowSpec, current, retry,"))
    done = python("sums.py", "run", "--with", mounted)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "total 12" in evflow("logs", "Sums/1/end").stdout
    assert "working on 2" in done.stdout + evflow("logs", "Sums/1/work").stdout
    assert [one["message"] for one in fields("Sums/1", "AttemptFailed")] == ["not yet"]
    assert [one["exit_code"] for one in fields("Sums/1", "AttemptExited") if one["exit_code"]] == [3]
    assert len(fields("Sums/1", "AttemptSucceeded")) == 6
    verified("Sums/1")


def test_cancelling_a_run_ends_its_jobs_on_a_real_endpoint(mounted: str) -> None:
    write("import time; time.sleep(600)")
    owner = a_run("--with", mounted)
    wait_until(lambda: evflow("show", "Sums/1").returncode == 0, "it has begun", WITHIN_S)
    wait_until(lambda: len(fields("Sums/1", "AttemptStarted")) == 4, "they work", WITHIN_S)
    listed = json.loads(evflow("batch", "list", "Sums/1", "--json").stdout)
    assert {one["step"] for one in listed} == {"work"}
    os.kill(owner.pid, signal.SIGINT)
    assert owner.wait(WITHIN_S) == 1, Path("run.log").read_text()
    assert json.loads(evflow("batch", "list", "Sums/1", "--json").stdout) == []
