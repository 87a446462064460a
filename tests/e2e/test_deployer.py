"""Deploying and asking for runs from Python, as users have it: real files, a real scheduler."""

import asyncio
import pickle
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from evflow import DeployedFlow, Deployer, Run
from evflow.client.objects import find_run
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.catalog import DeploymentNotFound
from evflow.deployments.deployer import BackendMissing, DeployedElsewhere, DeployFailed
from evflow.deployments.own_process import FlowFileMissing
from evflow.deployments.refusals import refuse
from evflow.deployments.triggered import RunLate
from evflow.exception import EvflowException, EvflowNotFound
from evflow.log.wire import Command, Wire
from evflow.replay.load import RunGone
from tests.e2e.test_scheduler import scheduler, told
from tests.real_runs import python
from tests.waiting import gone, wait_until

pytestmark = pytest.mark.usefixtures("client_forgets")

WITHIN_S = 60.0
FLOW = """
import time
from evflow import FlowSpec, Parameter, current, step
from beside import SIGN

class Nightly(FlowSpec):
    rows = Parameter("rows", default=3)
    day = Parameter("the-day", default="monday")
    wait_s = Parameter("wait-s", default=0.0)

    @step
    def start(self):
        time.sleep(self.wait_s)
        self.counted = self.rows * 2
        self.next(self.end)

    @step
    def end(self):
        print(SIGN, self.day, self.counted)

if __name__ == "__main__":
    Nightly()
"""


@pytest.fixture
def flow_file(root: Path) -> Path:
    folder = root / "flows"
    folder.mkdir()
    (folder / "beside.py").write_text("SIGN = 'sign'\n")
    (folder / "nightly.py").write_text(textwrap.dedent(FLOW))
    return folder / "nightly.py"


def test_a_flow_is_deployed_triggered_and_waited_for(flow_file: Path, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = Deployer(flow_file).scheduler().create(tags=["mine"], max_workers=2)
    assert "Nightly version 1 is deployed." not in capfd.readouterr().out
    assert (found.name, found.flow_name, found.version, found.paused, found.production) == ("Nightly", "Nightly", 1, False, False)
    triggered = found.trigger({"the-day": "tuesday"}, rows=5, tags=["trial"])
    assert (triggered.pathspec, triggered.version, triggered.status, triggered.run) == ("Nightly/1", 1, "requested", None)
    with pytest.raises(RunLate, match=r"'Nightly/1' has not begun within 0.05 s: it is requested\.\nNo scheduler is there"):
        triggered.wait_for_run(timeout=0.05)
    with scheduler(root):
        run = triggered.wait_for_run(timeout=WITHIN_S)
        assert run == Run("Nightly/1")
        assert triggered.wait_for_completion(0.05, WITHIN_S).successful
    assert (triggered.status, triggered.is_running, triggered.terminate()) == ("succeeded", False, False)
    assert run.data is not None
    assert run.data.counted == 10
    assert run["end"].task is not None
    assert run["end"].task.stdout == "sign tuesday 10\n"
    assert {"mine", "trial"} <= run.user_tags
    assert pickle.loads(pickle.dumps([found, triggered])) == [found, triggered]


def test_who_waits_hears_of_a_refusal_that_comes_meanwhile(flow_file: Path) -> None:
    triggered = Deployer(flow_file, show_output=False).scheduler().create().trigger()
    with pytest.raises(RunLate):
        triggered.wait_for_run(timeout=0.05)
    run = RunId(FlowName("Nightly"), RunNumber(1))
    assert find_run("Nightly", "1").log.ask(lambda log: refuse(log, run, "it does not fit", "scheduler"))
    with pytest.raises(RunGone, match="'Nightly/1' was refused and does not begin: it does not fit"):
        triggered.wait_for_run(timeout=WITHIN_S)
    with pytest.raises(RunGone):
        asyncio.run(triggered.async_wait_for_run(timeout=WITHIN_S))
    assert triggered.wait_for_completion(timeout=WITHIN_S).status == "refused"


def test_asking_and_waiting_do_not_block_an_event_loop(flow_file: Path, root: Path) -> None:
    async def story() -> list[str]:
        found = await Deployer(flow_file, show_output=False).scheduler("hourly").async_create()
        asked = await asyncio.gather(*(found.async_trigger(rows=rows) for rows in range(4)))
        begun = await asyncio.gather(*(one.async_wait_for_run(timeout=WITHIN_S) for one in asked))
        ended = await asyncio.gather(*(one.async_wait_for_completion(timeout=WITHIN_S) for one in asked))
        assert begun == ended
        late = await found.async_trigger({"wait-s": 60})
        with pytest.raises(TimeoutError):
            await late.async_wait_for_completion(timeout=0.1)
        assert await asyncio.to_thread(late.cancel)
        await late.async_wait_for_completion(timeout=WITHIN_S)
        return [*(run.status for run in ended), late.status]

    Deployer(flow_file, show_output=False).scheduler().create()  # what begins to look finds a server
    with scheduler(root):
        assert asyncio.run(story()) == ["succeeded"] * 4 + ["cancelled"]


def test_what_is_deployed_is_found_paused_and_taken_away(flow_file: Path) -> None:
    assert list(DeployedFlow.list_deployed_flows()) == []
    with pytest.raises(DeploymentNotFound):
        DeployedFlow.from_deployment("Nightly")
    first = Deployer(str(flow_file), show_output=False).scheduler(name="hourly").create(production=True)
    again = Deployer("nightly.py", show_output=False, cwd=flow_file.parent).scheduler().create(name="hourly", production=True)
    assert (first, first.version, first.namespace) == (again, 2, "production:Nightly")
    assert list(DeployedFlow.list_deployed_flows()) == list(DeployedFlow.list_deployed_flows("Nightly")) == [first]
    assert list(DeployedFlow.list_deployed_flows("Other")) == []
    found = DeployedFlow.from_deployment("Nightly:hourly")
    found.pause()
    found.pause()
    assert first.paused
    found.unpause()
    assert not first.paused
    run = found.trigger()
    assert DeployedFlow.get_triggered_run("Nightly:hourly", 1) == run == DeployedFlow.get_triggered_run("Nightly", "Nightly/1")
    with pytest.raises(EvflowNotFound):
        DeployedFlow.get_triggered_run("Nightly", 2)
    found.delete()
    for call in (found.trigger, found.undeploy, lambda: found.version):
        with pytest.raises(DeploymentNotFound):
            call()


def test_a_request_that_does_not_fit_starts_no_run(flow_file: Path) -> None:
    found = Deployer(flow_file, show_output=False).scheduler().create()
    for given, text in (({"rows": "many"}, "'many' is not an integer"), ({"row": 1}, "has no parameter 'row'")):
        with pytest.raises(EvflowException, match=text):
            found.trigger(given)
    with pytest.raises(EvflowException, match="tag"):
        found.trigger(tags=["\n"])
    assert found.trigger(wait_s=1).pathspec == "Nightly/1"


def test_what_is_wrong_with_the_flow_is_the_error_s_message(flow_file: Path) -> None:
    with pytest.raises(FlowFileMissing, match=r"There is no file '.*/3'"):
        Deployer(cast("Any", 3))
    with pytest.raises(FlowFileMissing, match=r"There is no file '.*/none\.py'"):
        Deployer("none.py")
    text = flow_file.read_text()
    flow_file.write_text(text.replace("self.next(self.end)", "pass"))
    with pytest.raises(DeployFailed, match="start") as failed:
        Deployer(flow_file, show_output=False).scheduler().create()
    assert failed.value.returncode == 1
    assert "nightly.py" in str(failed.value)
    flow_file.write_text("import no_such_module\n" + text)
    with pytest.raises(DeployFailed, match="ModuleNotFoundError: No module named 'no_such_module'"):
        Deployer(flow_file, show_output=False).scheduler().create()
    flow_file.write_text("print('no flow')\n")
    with pytest.raises(DeployFailed, match="exit code 0"):
        Deployer(flow_file, show_output=False).scheduler().create()
    flow_file.write_text(text)
    Deployer(flow_file, show_output=False).scheduler().create(production=True)
    with pytest.raises(DeployFailed, match="is a production deployment") as failed:
        Deployer(flow_file, show_output=False).scheduler().create()
    assert failed.value.hint.startswith("Deploy with --production")


def test_a_flow_that_lands_in_another_log_is_told(flow_file: Path, root: Path) -> None:
    with pytest.raises(DeployedElsewhere):
        Deployer(flow_file, show_output=False, env={"EVFLOW_HOME": str(root / "other")}).scheduler().create()


def test_metaflow_s_other_systems_name_ours() -> None:
    deployer = Deployer(__file__)
    for wanted in (deployer.argo_workflows, deployer.step_functions, deployer.airflow):
        with pytest.raises(BackendMissing, match=r"Deployer\(\.\.\.\)\.scheduler\(\)\.create\(\)"):
            wanted(name="x")


def test_a_class_is_deployed_in_the_process_that_has_it(flow_file: Path, root: Path) -> None:
    (flow_file.parent / "deploy_it.py").write_text(
        textwrap.dedent(
            """
            from evflow import Deployer
            from nightly import Nightly

            found = Deployer(Nightly, decospecs=["retry:times=1"]).scheduler("own").create(namespace="team", max_workers=3)
            print(found.name, found.version, found.namespace)
            print(found.trigger(rows=1).pathspec)
            """
        )
    )
    done = python("deploy_it.py", cwd=flow_file.parent)
    assert (done.stdout, done.stderr) == ("Nightly:own 1 team\nNightly/1\n", "")
    with scheduler(root):
        run = DeployedFlow.get_triggered_run("Nightly:own", 1).wait_for_completion(timeout=WITHIN_S)
    assert run.successful
    assert "team" in run.user_tags


def test_a_class_without_a_file_cannot_be_deployed() -> None:
    code = "from evflow import *\nclass F(FlowSpec):\n @step\n def start(self): self.next(self.end)\n @step\n def end(self): pass\n"
    done = python("-c", f"{code}\nDeployer(F).scheduler().create()")
    assert "FlowHasNoFile" in done.stderr or "FlowInvalid" in done.stderr
    assert done.returncode == 1


def test_a_step_of_one_flow_asks_for_a_run_of_another(flow_file: Path, root: Path) -> None:
    """The client's connection is not that of the parent that the attempt was forked from."""
    Deployer(flow_file, show_output=False).scheduler().create()
    other = flow_file.parent / "other.py"
    other.write_text(
        textwrap.dedent(
            """
            from evflow import DeployedFlow, FlowSpec, step

            class Other(FlowSpec):
                @step
                def start(self):
                    self.asked = DeployedFlow.from_deployment("Nightly").trigger(rows=4)
                    self.rows = self.asked.wait_for_completion(timeout=60).data.counted
                    self.next(self.end)

                @step
                def end(self):
                    assert self.asked.run.successful
                    print("counted", self.rows)

            if __name__ == "__main__":
                Other()
            """
        )
    )
    with scheduler(root):
        done = python("other.py", "run", cwd=flow_file.parent)
    assert "counted 8" in done.stdout, done.stderr


def test_a_server_that_was_killed_meanwhile_is_brought_back_for_a_request(flow_file: Path) -> None:
    found = Deployer(flow_file, show_output=False).scheduler().create()
    server = psutil.Process(told("server", "status")["pid"])
    server.kill()
    wait_until(lambda: gone(server), "it is gone")
    assert found.trigger().pathspec == "Nightly/1"
    again = psutil.Process(told("server", "status")["pid"])
    again.kill()
    wait_until(lambda: gone(again), "it is gone, right after a request")
    assert found.trigger().pathspec == "Nightly/2"
    assert find_run("Nightly", "2").log.ask(lambda log: log.counter(FlowName("Nightly"))) == 2


def test_runs_that_are_asked_for_in_a_row_are_of_what_is_deployed_then(flow_file: Path) -> None:
    found = Deployer(flow_file, show_output=False).scheduler().create()
    assert [found.trigger().version for _ in range(3)] == [1, 1, 1]
    flow_file.write_text(flow_file.read_text().replace("* 2", "* 3"))
    Deployer(flow_file, show_output=False).scheduler().create()
    asked = [found.trigger(rows=rows) for rows in (1, 2)]
    assert [(one.version, one.pathspec) for one in asked] == [(2, "Nightly/4"), (2, "Nightly/5")]
    DeployedFlow("Nightly").delete()
    with pytest.raises(DeploymentNotFound):
        found.trigger()


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer what this process sends to the log; what was seen deployed stays good for a test."""
    monkeypatch.setattr("evflow.deployments.deployed._LATELY_S", 60.0)
    exchanges: list[str] = []
    pipeline = Wire.pipeline

    def counted(wire: Wire, commands: Sequence[Command]) -> list[Any]:
        exchanges.append(" ".join(str(command[0]) for command in commands))
        return pipeline(wire, commands)

    monkeypatch.setattr(Wire, "pipeline", counted)
    return exchanges


def test_a_request_in_a_row_takes_two_exchanges(flow_file: Path, exchanges: list[str]) -> None:
    found = Deployer(flow_file, show_output=False).scheduler().create()
    found.trigger()
    exchanges.clear()
    found.trigger()
    assert exchanges == ["SADD EVALSHA", "HSET EVALSHA"]


def test_a_request_that_meets_another_deployment_is_made_anew_of_what_it_met(flow_file: Path, exchanges: list[str]) -> None:
    found = Deployer(flow_file, show_output=False).scheduler().create()
    found.trigger()
    DeployedFlow("Nightly").pause()
    exchanges.clear()
    assert found.trigger().pathspec == "Nightly/2"
    assert exchanges == ["SADD EVALSHA", "SADD EVALSHA", "HSET EVALSHA"]


def test_a_flow_written_for_metaflow_is_deployed_as_it_is(flow_file: Path, root: Path) -> None:
    flow_file.write_text(flow_file.read_text().replace("from evflow import", "from metaflow import"))
    triggered = Deployer(flow_file, pylint=False, environment="local").scheduler().create().trigger(rows=5)
    with scheduler(root):
        run = triggered.wait_for_run(timeout=WITHIN_S)
        wait_until(lambda: run.finished, "the run is over")
    assert run.data is not None
    assert run.data.counted == 10
