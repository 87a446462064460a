"""`python flow.py spin`, as people use it: real processes, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import evflow as ev
from evflow.client.spins import NoSpinsThere
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("client_forgets")

FLOW = """
import os, sys, time
from pathlib import Path
from evflow import FlowSpec, Parameter, card, catch, current, environment, retry, step, timeout

class Model:
    def __init__(self, fold): self.fold = fold
    def __repr__(self): return f"Model({self.fold})"

class Fit(FlowSpec):
    bad = Parameter("bad", default=-1)
    KIND = "tree"

    @step
    def start(self):
        self.folds, self.kept = [10, 11, 12], "as it was"
        self.next(self.fit, foreach="folds")

    @environment(vars={"MODE": "slow"})
    @retry(times=1, seconds_between_retries=0)
    @card
    @step
    def fit(self):
        print("fit", self.index, self.input, os.environ.get("MODE"), current.retry_count, self.kept, self.KIND, self.bad)
        print("aside", file=sys.stderr)
        if self.index == self.bad:
            raise ValueError("that fold is bad")
        self.model = Model(self.input)
        self.next(self.choose)

    @step
    def choose(self, inputs):
        self.models = [one.model.fold for one in inputs]
        self.next(self.nap)

    @timeout(seconds=1)
    @catch(var="why")
    @step
    def nap(self):
        if Path("nap").exists():
            Path("napping").touch()
            time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Fit()
"""


@pytest.fixture
def flow(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flow's file, in the current folder, with a run that failed in fold 1."""
    monkeypatch.chdir(root)
    (root / "fit.py").write_text(textwrap.dedent(FLOW))
    assert python("fit.py", "run", "--bad", "1").returncode == 1
    return root / "fit.py"


def outcome(*arguments: str, code: int = 0) -> dict[str, Any]:
    done = python("fit.py", "--quiet", "spin", *arguments, "--json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("flow")
def test_a_failed_task_is_spun_with_its_inputs_and_fails_with_the_users_frames() -> None:
    """A step alone means the task of it that failed; its retries are made."""
    done = python("fit.py", "spin", "fit")
    assert done.returncode == 1
    assert done.stdout == "fit 1 11 slow 0 as it was tree 1\nfit 1 11 slow 1 as it was tree 1\n"
    assert "Spinning Fit/1/fit/3, the first that failed of 3 tasks, with the code of now." in done.stderr
    assert done.stderr.count("ValueError: that fold is bad") == 3  # a traceback each, and the last line
    assert done.stderr.count(", in ") == 2
    assert "Fit/1/fit/3 failed after" in done.stderr


def test_the_code_of_now_is_run_and_what_it_left_is_printed(flow: Path) -> None:
    """Its artifacts with their values, those that it passes on by name; where it goes on; nothing follows."""
    flow.write_text(flow.read_text().replace('raise ValueError("that fold is bad")', "self.note = 'mended'").replace('"tree"', '"bush"'))
    done = python("fit.py", "spin", "1/fit/3")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "fit 1 11 slow 0 as it was bush 1",
        "  KIND   [str, 5 B] = 'bush'",
        "  model  [__main__.Model, 65 B] = Model(11)",
        "  note   [str, 7 B] = 'mended'",
        "  inherited: bad, folds, kept",
    ]
    assert "succeeded after" in done.stderr
    assert "next: choose." in done.stderr


@pytest.mark.usefixtures("flow")
def test_a_spin_is_no_run() -> None:
    """No list has it, no number is used up, its artifacts are garbage."""
    before = json.loads(evflow("runs", "--json").stdout)
    assert outcome("1/fit/2")["status"] == "succeeded"
    assert json.loads(evflow("runs", "--json").stdout) == before
    assert python("fit.py", "run").returncode == 0
    assert [run["run"] for run in json.loads(evflow("runs", "--json").stdout)] == ["Fit/2", "Fit/1"]


@pytest.mark.usefixtures("flow")
@pytest.mark.parametrize(("path", "step", "index"), [("fit", "fit", 0), ("2/fit/4", "fit", 2), ("Fit/2/choose", "choose", None), ("start", "start", None), ("2/end/7", "end", None)])  # fmt: skip
def test_every_step_can_be_spun_by_every_way_to_name_it(path: str, step: str, index: int | None) -> None:
    """The first, a member of a foreach, a join, the last."""
    assert python("fit.py", "run").returncode == 0
    found = outcome(path)
    assert (found["step"], found["index"], found["status"], found["attempts"]) == (step, index, "succeeded", 1)
    if step == "choose":
        assert found["artifacts"]["models"]["shown"] == "[10, 11, 12]"


def test_artifacts_come_from_a_module_where_one_is_given(flow: Path) -> None:
    """In place of those that it inherits, of its parameters, and of those of each input of a join."""
    (flow.parent / "given.py").write_text("import os\nARTIFACTS = {'kept': 'given', 'bad': 7, 'new': [1]}\n")
    done = python("fit.py", "spin", "1/fit/3", "--artifacts-module", "given.py")
    assert done.stdout.splitlines()[0] == "fit 1 11 slow 0 given tree 7"
    assert python("fit.py", "run").returncode == 0
    (flow.parent / "given.py").write_text(
        "class M:\n    fold = 5\nfrom types import SimpleNamespace\nARTIFACTS = {'model': SimpleNamespace(fold=5)}\n"
    )
    assert outcome("choose", "--artifacts-module", "given.py")["artifacts"]["models"]["shown"] == "[5, 5, 5]"


@pytest.mark.usefixtures("flow")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ARTIFACTS = [1]", "it has no dictionary ARTIFACTS"),
        ("1 / 0", "it raises ZeroDivisionError: division by zero"),
        ("ARTIFACTS = {'KIND': 'x'}", "'KIND' stands in the class, where it is changed"),
        ("ARTIFACTS = {3: 'x'}", "3 cannot be the name of an artifact"),
    ],
)
def test_a_module_that_gives_no_artifacts_says_why(text: str, why: str) -> None:
    """And nothing is run."""
    Path("given.py").write_text(text)
    done = python("fit.py", "spin", "fit", "--artifacts-module", "given.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"'given.py' gives no artifacts: {why}." in done.stderr


@pytest.mark.usefixtures("flow")
def test_decorators_are_left_out_and_others_added() -> None:
    """No variable of @environment, no retry; what --with says counts."""
    found = outcome("1/fit/3", "--skip-decorators", code=1)
    assert found["attempts"] == 1
    done = python("fit.py", "spin", "1/fit/2", "--skip-decorators", "--with", 'environment:vars={"MODE":"other"}')
    assert "fit 0 10 other 0" in done.stdout


@pytest.mark.usefixtures("flow")
def test_decorators_that_every_run_gets_are_none_of_a_spin_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Metaflow: it is the step as it stands that is tried; what is asked for counts."""
    monkeypatch.setenv("EVFLOW_DEFAULT_DECOSPECS", 'environment:vars={"MODE":"other"}')
    assert "fit 0 10 None 0" in python("fit.py", "spin", "1/fit/2", "--skip-decorators").stdout
    asked = python("fit.py", "--with", 'environment:vars={"MODE":"asked"}', "spin", "1/fit/2", "--skip-decorators")
    assert "fit 0 10 asked 0" in asked.stdout


@pytest.mark.usefixtures("flow")
def test_a_timeout_is_kept_and_a_catch_takes_it() -> None:
    """As in a run."""
    assert python("fit.py", "run").returncode == 0
    Path("nap").touch()
    found = outcome("nap")
    assert (found["status"], found["next"]) == ("succeeded", ["end"])
    assert "TimeoutException" in found["caught"]
    assert found["duration_us"] >= 1_000_000


@pytest.mark.usefixtures("flow")
def test_ctrl_c_ends_the_task_and_the_spin(tmp_path: Path) -> None:
    """Nothing of it stays."""
    assert python("fit.py", "run").returncode == 0
    Path("nap").touch()
    file = tmp_path / "outcome.json"
    spinning = subprocess.Popen(
        [sys.executable, "fit.py", "spin", "nap", "--skip-decorators", "--outcome-file", str(file)], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: Path("napping").exists(), "the step has begun")
    spinning.send_signal(signal.SIGINT)
    _, said = spinning.communicate(timeout=60)
    assert spinning.returncode == 1
    assert "Fit/2/nap/6 cancelled" in said
    assert json.loads(file.read_text())["status"] == "cancelled"
    assert not [*Path(os.environ["TMPDIR"]).glob("evflow-spin-*")]


@pytest.mark.usefixtures("flow")
def test_a_spin_that_is_killed_takes_its_task_with_it_and_the_next_one_cleans_up() -> None:
    """The attempt dies with its owner; the folder of the dead one is removed."""
    assert python("fit.py", "run").returncode == 0
    Path("nap").touch()
    spinning = subprocess.Popen([sys.executable, "fit.py", "spin", "nap", "--skip-decorators"], stderr=subprocess.DEVNULL)
    wait_until(lambda: Path("napping").exists(), "the step has begun")
    spinning.kill()
    spinning.wait(60)
    assert len([*Path(os.environ["TMPDIR"]).glob("evflow-spin-*")]) == 1
    Path("nap").unlink()
    assert outcome("nap")["status"] == "succeeded"
    assert not [*Path(os.environ["TMPDIR"]).glob("evflow-spin-*")]


def test_a_spin_that_is_kept_is_read_by_the_client_and_by_every_command(flow: Path) -> None:
    """In a home of its own, beside which the runs are what they were."""
    found = outcome("1/fit/2", "--persist")
    assert (found["task"], found["home"]) == ("Fit/1/fit/2", str(flow.parent / ".evflow_spin"))
    outcome("1/fit/4", "--persist")
    with ev.inspect_spin():
        task = ev.Task("Fit/1/fit/2")
        assert (task.successful, repr(task.data.model), task.data.kept) == (True, "Model(10)", "as it was")
        assert task.stdout == "fit 0 10 slow 0 as it was tree 1\n"
        assert [run.id for run in ev.Flow("Fit")] == ["2", "1"]
        assert len(ev.get_cards(task) if hasattr(ev, "get_cards") else [1]) == 1
    assert [run.id for run in ev.Flow("Fit")] == ["1"]
    shown = evflow("dump", "Fit/2/fit/4", EVFLOW_HOME=found["home"])
    assert "= Model(12)" in shown.stdout
    assert verified("Fit/1", EVFLOW_HOME=found["home"])["events"] > 10


def test_inspecting_a_folder_without_spins_says_so(root: Path) -> None:
    """With what makes one."""
    with pytest.raises(NoSpinsThere, match=r"it has no folder \.evflow_spin"):
        ev.inspect_spin(root)


@pytest.mark.usefixtures("flow")
@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("fitt", 2, "Fit has no step 'fitt'. Did you mean 'fit'?"),
        ("1", 2, "'1' is a whole run; name a step of it, as in 1/start."),
        ("1/fit/9", 1, "Run 'Fit/1' has no task 'fit/9'."),
        ("9/fit", 1, "There is no run '9/fit'."),
        ("choose", 1, "None of the newest runs of 'Fit' has come to step 'choose'"),
        ("1/choose", 1, "Run 'Fit/1' has not come to step 'choose'"),
        ("Other/1/fit", 1, "There is no run 'Other/1/fit'."),
        ("1//fit", 2, "does not name a run, a step or a task"),
    ],
)
def test_what_cannot_be_spun_is_told(path: str, code: int, text: str) -> None:
    """Before anything runs."""
    done = python("fit.py", "spin", path)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_step_that_became_a_join_or_went_away_is_told(flow: Path) -> None:
    """That run has nothing to give it."""
    source = flow.read_text()
    flow.write_text(source.replace("def fit(self):", "def fit2(self):").replace("self.fit,", "self.fit2,"))
    assert "Fit has no step 'fit' any more. Did you mean 'fit2'?" in python("fit.py", "spin", "1/fit").stderr
    assert "Fit has no step 'fit'. Did you mean 'fit2'?" in python("fit.py", "spin", "fit").stderr


@pytest.mark.usefixtures("flow")
def test_the_outcome_is_written_where_it_is_wanted_and_where_it_cannot_be_nothing_runs(tmp_path: Path) -> None:
    """For programs: the same as --json."""
    done = python("fit.py", "spin", "1/fit/3", "--outcome-file", str(tmp_path / "o.json"), "--json")
    assert json.loads((tmp_path / "o.json").read_text()) == json.loads(done.stdout)
    assert "fit 1 11" in done.stderr
    done = python("fit.py", "spin", "1/fit/3", "--outcome-file", str(tmp_path / "no" / "o.json"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "The outcome cannot be written to" in done.stderr
