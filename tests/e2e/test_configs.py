"""Configurations and files of a flow, as users have them: real files, processes, a scheduler, a kill."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from evflow import Deployer, Run
from evflow.deployments.deployer import DeployFailed
from tests.e2e.test_scheduler import scheduler
from tests.real_runs import evflow, python

pytestmark = pytest.mark.usefixtures("client_forgets")

WITHIN_S = 60.0
FLOW = """
import os, signal
from pathlib import Path
from evflow import Config, FlowSpec, IncludeFile, Parameter, environment, retry, step

class Fit(FlowSpec):
    cfg = Config("cfg", default="cfg.json")
    width = Parameter("width", default=cfg.width)
    text = IncludeFile("text", default=cfg.text)

    @environment(**cfg.environment)
    @retry(times=cfg.times, seconds_between_retries=0)
    @step
    def start(self):
        self.mode = os.environ["MODE"]
        if "OWNER" in os.environ and Path("kill").exists():
            Path("kill").unlink()
            os.kill(int(os.environ["OWNER"]), signal.SIGKILL)
            signal.pause()
        self.next(self.end)

    @step
    def end(self):
        self.seen = [self.cfg.width, self.width, self.mode, self.text]

if __name__ == "__main__":
    os.environ["OWNER"] = str(os.getpid())
    Fit()
"""
CONFIG: dict[str, Any] = {"width": 3, "text": "a.txt", "times": 1, "environment": {"vars": {"MODE": "slow"}}}


@pytest.fixture
def folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the flow, two configurations and two files."""
    work = root / "flows"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "fit.py").write_text(textwrap.dedent(FLOW))
    (work / "cfg.json").write_text(json.dumps(CONFIG))
    (work / "b.json").write_text(json.dumps({**CONFIG, "width": 8, "environment": {"vars": {"MODE": "fast"}}}))
    (work / "a.txt").write_text("A")
    (work / "b.txt").write_text("B")
    return work


def seen(run: str) -> Any:
    data = Run(run).data
    assert data is not None
    return data.seen


def test_a_run_has_what_its_command_line_says(folder: Path) -> None:
    for before, after in (([], []), (["--config", "cfg", "b.json"], ["--text", "b.txt", "--width", "1"])):
        done = python("fit.py", *before, "run", *after)
        assert done.returncode == 0, done.stderr
    assert (seen("Fit/1"), seen("Fit/2")) == ([3, 3, "slow", "A"], [8, 1, "fast", "B"])
    data = Run("Fit/2").data
    assert data is not None
    assert data.cfg["environment"] == {"vars": {"MODE": "fast"}}
    shown = evflow("show", "Fit/2").stdout
    assert "--config cfg  {width, text, times, environment}" in shown
    assert "fast" not in evflow("events", "Fit/2", "--json").stdout, "the log has no value of a configuration"


def test_the_environment_gives_configurations_and_files(folder: Path) -> None:
    done = python("fit.py", "run", EVFLOW_FLOW_CONFIG='{"cfg": "b.json", "of another flow": "x"}', EVFLOW_RUN_TEXT="b.txt")
    assert done.returncode == 0, done.stderr
    assert seen("Fit/1") == [8, 8, "fast", "B"]


def test_a_killed_run_is_continued_with_the_configuration_that_it_began_with(folder: Path) -> None:
    (folder / "kill").touch()
    assert python("fit.py", "--config", "cfg", "b.json", "run").returncode < 0
    (folder / "b.json").unlink()
    (folder / "cfg.json").unlink()
    done = evflow("continue", "Fit/1")
    assert done.returncode == 0, done.stderr
    assert seen("Fit/1") == [8, 8, "fast", "A"]


def test_a_resumed_run_has_the_configuration_of_its_origin(folder: Path) -> None:
    assert python("fit.py", "--config", "cfg", "b.json", "run").returncode == 0
    (folder / "cfg.json").unlink()
    done = python("fit.py", "resume", "start", "--origin-run-id", "1", "--width", "2")
    assert done.returncode == 0, done.stderr
    assert seen("Fit/2") == [8, 2, "fast", "A"]
    refused = python("fit.py", "--config", "cfg", "b.json", "resume")
    assert refused.returncode == 2
    assert "A resumed run has the configurations of the run that it resumes" in refused.stderr


def test_runs_of_two_deployments_of_one_code_have_each_its_own_configuration(folder: Path, root: Path) -> None:
    slow = Deployer("fit.py", show_output=False).scheduler("slow").create()
    fast = Deployer("fit.py", show_output=False, config={"cfg": "b.json"}).scheduler("fast").create()
    third = Deployer("fit.py", show_output=False, config_value=[("cfg", {**CONFIG, "width": 5})]).scheduler("third").create()
    for file in ("cfg.json", "b.json", "a.txt"):
        (folder / file).unlink()
    with scheduler(root):
        asked = [one.trigger() for one in (slow, fast, slow, third)]
        asked.append(fast.trigger(text=str(folder / "b.txt"), width=9))
        for one in asked:
            one.wait_for_completion(timeout=WITHIN_S)
    found = [seen(one.pathspec) for one in asked]
    assert found == [[3, 3, "slow", "A"], [8, 8, "fast", "A"], [3, 3, "slow", "A"], [5, 5, "slow", "A"], [8, 9, "fast", "B"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config", "cfg", "none.json", "run"), "The file 'none.json' of Config 'cfg' (--config) cannot be read: No such file"),
        (("--config", "cgf", "b.json", "check"), "Flow Fit has no Config 'cgf'.\nIt has: cfg. Did you mean 'cfg'?"),
        (("--config-value", "cfg", "{", "show"), "Config 'cfg' (--config-value) is no JSON"),
        (("--config-value", "cfg", '{"width": 1}', "run"), "The configuration has no 'times' here. It has: width."),
        (("--config", "cfg", "b.json", "--config-value", "cfg", "{}", "run"), "Config 'cfg' was given a file and a value."),
        (("--config", "cfg", "b.json", "--config", "cfg", "b.json", "run"), "'cfg' is given twice."),
        (("run", "--config", "cfg", "b.json"), "--config belongs before the command: python fit.py --config NAME … run"),
        (("show", "--config_value", "cfg", "{}"), "--config-value belongs before the command: python fit.py --config-value NAME … show"),
        (("resume", "--config", "cfg", "b.json"), "A resumed run has the configurations of the run that it resumes"),
        (("run", "--text", "none.txt"), "The file 'none.txt' of '--text' cannot be read: No such file or directory."),
        (("--config", "cfg", "none.json", "run", "--width", "--help"), "The file 'none.json' of Config 'cfg'"),
    ],
)
def test_what_does_not_fit_is_told_before_a_run_has_a_number(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = python("fit.py", *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(evflow("runs", "--json").stdout) == []


def test_a_file_that_a_variable_names_and_is_not_there_is_told_under_the_variable(folder: Path) -> None:
    done = python("fit.py", "run", EVFLOW_RUN_TEXT="none.txt")
    assert "The file 'none.txt' of '--text' (EVFLOW_RUN_TEXT) cannot be read: No such file" in done.stderr
    assert done.returncode == 1
    (folder / "some.txt").write_text("some")
    assert python("fit.py", "run", EVFLOW_RUN_TEXT="some.txt").returncode == 0
    assert python("fit.py", "run", "--text", "some.txt", EVFLOW_RUN_TEXT="none.txt").returncode == 0


def test_help_and_commands_on_runs_need_no_configuration(folder: Path) -> None:
    assert python("fit.py", "run").returncode == 0
    configurations = python("fit.py", "show").stdout.partition("Configurations\n")[2].splitlines()
    assert configurations[0] == "  --config cfg FILE  [default: cfg.json]"
    (folder / "cfg.json").unlink()
    assert "--config cfg FILE  [default: cfg.json]" in python("fit.py", "--help").stdout
    assert "[default: computed]" in python("fit.py", "run", "--help").stdout
    assert "--config NAME FILE" in python("fit.py", "--help").stdout
    for words in (("dump", "1/end"), ("logs", "1"), ("tag", "list", "--run-id", "1"), ("version",), ("help",)):
        done = python("fit.py", *words)
        assert done.returncode == 0, done.stderr


def test_a_deployment_that_does_not_fit_says_so_in_python(folder: Path) -> None:
    with pytest.raises(DeployFailed, match=r"Flow Fit has no Config 'cgf'"):
        Deployer("fit.py", show_output=False, config={"cgf": "b.json"}).scheduler().create()
