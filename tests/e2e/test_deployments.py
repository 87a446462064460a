"""Deploying and asking for runs in real processes. No scheduler is there: the tests look into the inbox, or play it."""

import asyncio
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from evflow.core.apply import apply
from evflow.core.codec import Record, decode_report
from evflow.core.events import RunStarted
from evflow.core.graph import Graph, Node
from evflow.core.ids import FlowName, Micros, RunId, Seq
from evflow.core.state import RunState
from evflow.log import open_event_log
from evflow.log.keys import shared_shard
from evflow.log.protocol import Inbound
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView
from tests.e2e.test_cli import evflow, folder, python
from tests.real_runs import open_log, run_id
from tests.unit.story import Story
from tests.waiting import wait_until

__all__ = ["folder"]

RUN = run_id("Sums")


async def _inbox(url: str, run: RunId) -> list[Inbound]:
    log = await open_event_log(url)
    try:
        return await log.receive(shared_shard(run), b"0", 0)
    finally:
        await log.aclose()


async def _carry_out(url: str, story: Story, consumed: bytes) -> None:
    """Play the scheduler, from the run's first event to its seal."""
    log = await open_event_log(url)
    try:
        lease = await log.take(shared_shard(story.run), "test:1:1:ff", 30.0)
        call = story.call()
        call.consumed = (consumed,)  # type: ignore[misc]
        await log.append(lease, call)
        await log.release(lease)
    finally:
        await log.aclose()


def offer(home: Path, run: RunId = RUN) -> tuple[Inbound, RunStarted, str]:
    """The only offer that lies in the inbox of the run's shard."""
    with open_log(home) as log:
        [entry] = asyncio.run(_inbox(log.url, run))
    event, principal = decode_report(entry.payload)
    assert isinstance(event, RunStarted)
    return entry, event, principal


def deploy(*arguments: str, **variables: str) -> dict[str, Any]:
    done = python("sums.py", "deploy", "--json", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.usefixtures("folder")
def test_a_deployed_flow_is_there_and_nothing_ran() -> None:
    done = python("sums.py", "deploy")
    assert (done.returncode, done.stdout) == (0, "Sums version 1 is deployed.\n")
    assert "The flow is sound." in done.stderr
    assert "`evflow run Sums` asks for a run" in done.stderr
    assert json.loads(evflow("runs", "--json").stdout) == []
    assert [one["deployment"] for one in json.loads(evflow("deployments", "--json").stdout)] == ["Sums"]


def test_the_offer_is_a_first_event_that_folds(folder: Path, evflow_home: Path) -> None:
    deployed = deploy("--tag", "nightly", "--with", "retry:times=2", "--max-num-splits", "7")
    (folder / "sums.py").unlink()
    done = evflow("run", "Sums", "--param", "n_items=5", "-p", 'names=["x"]', "--tag", "mine")
    assert (done.returncode, done.stdout) == (0, "Sums/1\n")
    entry, event, principal = offer(evflow_home)
    assert (entry.run, principal) == ("Sums/1", f"user:{event.user}")
    state = RunState()
    apply(state, Record(Seq(1), 1, Micros(1), principal, 0, event))
    assert (state.flow, state.number, list(state.graph.nodes)) == ("Sums", 1, ["start", "double", "join", "end"])
    assert state.graph["double"].policy.retry_times == 2
    assert event.options["max_splits"] == 7
    assert event.tags == ("mine", "nightly")
    assert event.code["package"].hex() == deployed["package"]
    view = ArtifactView.open(open_store(event.store), event.parameters)
    assert {name: view.load(name) for name in view.names()} == {
        "n_items": 5, "scale": 1.5, "loud": False, "names": ["x"], "wait": 0.0, "broken": False,
    }  # fmt: skip
    assert event.parameters_shown["n_items"] == "5"


@pytest.mark.usefixtures("folder")
def test_the_client_sees_a_run_that_waits() -> None:
    deploy()
    assert evflow("run", "Sums", "--tag", "mine").returncode == 0
    script = (
        "import evflow; run = evflow.Flow('Sums')['1']; print(run.status, run.finished, run.created_at.year > 2000, sorted(run.user_tags))"
    )
    assert python("-c", script).stdout == "requested False True ['mine']\n"


def test_a_run_has_the_version_that_was_deployed_when_it_was_asked_for(folder: Path, evflow_home: Path) -> None:
    first = deploy()
    evflow("run", "Sums")
    (folder / "sums.py").write_text((folder / "sums.py").read_text().replace("default=3", "default=4"))
    second = deploy()
    assert (first["version"], second["version"]) == (1, 2)
    assert first["package"] != second["package"]
    _, event, _ = offer(evflow_home)
    assert event.code["package"].hex() == first["package"]
    assert event.parameters_shown["n_items"] == "3"


def test_a_flow_s_file_and_imports_are_not_needed_to_ask_for_a_run(folder: Path) -> None:
    (folder / "helper_of_sums.py").write_text("VALUE = 1\n")
    (folder / "sums.py").write_text("import helper_of_sums\n" + (folder / "sums.py").read_text())
    deploy()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    for name in ("sums.py", "helper_of_sums.py"):
        (folder / name).unlink()
    assert evflow("run", "Sums").returncode == 0


@pytest.mark.usefixtures("folder")
def test_many_deploys_at_once_get_dense_versions() -> None:
    command = [sys.executable, "sums.py", "deploy", "--json"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert sorted(json.loads(text)["version"] for text in said) == [1, 2, 3, 4]
    history = json.loads(evflow("history", "Sums", "--json").stdout)
    assert [one["version"] for one in history] == [4, 3, 2, 1]


def test_defaults_that_functions_compute_are_those_of_the_deploy(folder: Path) -> None:
    source = """
        import os
        from evflow import FlowSpec, Parameter, step

        def stamp(context):
            return os.environ.get("STAMP", "none") + " by " + context.user_name

        class Stamped(FlowSpec):
            stamp = Parameter("stamp", default=stamp)

            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Stamped()
    """
    (folder / "stamped.py").write_text(textwrap.dedent(source))
    assert python("stamped.py", "deploy", STAMP="monday", EVFLOW_USER="eve").returncode == 0
    said = json.loads(python("-m", "evflow.cli", "run", "Stamped", "--json", STAMP="tuesday", EVFLOW_USER="bob").stdout)
    assert said["parameters"] == {"stamp": "monday by eve"}


def test_a_flow_with_a_mistake_is_not_deployed(folder: Path) -> None:
    (folder / "sums.py").write_text((folder / "sums.py").read_text().replace("self.next(self.end)", "self.next(self.ende)"))
    done = python("sums.py", "deploy")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ende" in done.stderr
    assert json.loads(evflow("deployments", "--json").stdout) == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_following_waits_for_the_run_s_end_and_exits_as_it_did(evflow_home: Path, fails: bool, code: int) -> None:
    deploy()
    command = [sys.executable, "-m", "evflow.cli", "run", "Sums", "--follow"]
    with open_log(evflow_home) as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            [entry] = wait_until(lambda: asyncio.run(_inbox(log.url, RUN)), "the offer")
            two_steps = Graph({"start": Node("start", "linear", ("end",)), "end": Node("end", "end")})
            story = Story(two_steps, flow=FlowName("Sums"), number=1).start()
            story = story.fail(1) if fails else story.succeed(1, "end").succeed(2)
            asyncio.run(_carry_out(log.url, story.seal(), entry.id))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == code
    assert f"Run Sums/1 {'failed' if fails else 'succeeded'}" in err
    assert "[1/start/1" in out
    assert "Traceback" not in err
