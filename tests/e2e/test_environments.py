"""Environments of steps from outside: flows as processes, packages from an index on the local disk, and real builds by uv and rattler."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evflow.environments.pypi import interpreter
from tests.e2e.test_pools import worker
from tests.e2e.test_scheduler import ended, scheduler
from tests.packages import HERE, conda_channel, only, own_packages_for, wheel
from tests.real_runs import WITHIN_S, evflow, python, verified
from tests.waiting import wait_until

FLOW = """
import sys
from evflow import FlowSpec, Parameter, conda, conda_base, pool, pypi, pypi_base, step

{base}
class EnvFlow(FlowSpec):
    wide = Parameter("wide", default=1)

    @step
    def start(self):
        self.here = sys.executable
        self.items = list(range(self.wide))
        self.next(self.work, foreach="items")

    {work}
    @step
    def work(self):
        import greeting
        self.version = greeting.__version__
        self.there = sys.executable
        print("greeting", self.version)
        {body}
        self.next(self.join)

    {join}
    @step
    def join(self, inputs):
        self.versions = sorted({{one.version for one in inputs}})
        self.apart = inputs[0].there != inputs[0].here
        self.next(self.end)

    @step
    def end(self):
        try:
            import greeting
        except ImportError:
            print("none here", self.versions, self.apart)
        else:
            print("here too", greeting.__version__)


if __name__ == "__main__":
    EnvFlow()
"""
ONE = '@pypi(packages={"greeting": "1.0"})'


@pytest.fixture
def index(root: Path) -> Path:
    """An index with a package of two versions."""
    folder = root / "index"
    wheel(folder, "greeting", "1.0")
    wheel(folder, "greeting", "2.0")
    return folder


def write(root: Path, *, work: str = ONE, join: str = "", base: str = "", body: str = "pass", folder: str = "flow") -> Path:
    """A flow's file."""
    place = root / folder
    place.mkdir(exist_ok=True)
    (place / "flow.py").write_text(FLOW.format(work=work, join=join, base=base, body=body))
    return place


def told(run: str, kind: str) -> list[dict[str, Any]]:
    """What the log says of environments."""
    done = evflow("events", run, "--type", kind, "--json")
    assert done.returncode == 0, done.stderr
    return [event["fields"] for event in json.loads(done.stdout)]


def test_a_step_runs_with_its_packages_which_are_installed_once_for_all_that_want_them(root: Path, index: Path, evflow_home: Path) -> None:
    """Nothing of them is to be seen by the other steps; the second run needs no index."""
    folder = write(root)
    done = python("flow.py", "run", "--wide", "12", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr
    assert "none here ['1.0'] True" in done.stdout
    assert [one["how"] for one in told("EnvFlow/1", "EnvironmentResolved")] == ["resolved"]
    assert [one["how"] for one in told("EnvFlow/1", "EnvironmentReady")] == ["built"]
    assert len(list((evflow_home / "environments").glob("*/ready.json"))) == 1
    info = python("-c", "from evflow import Run; print(Run('EnvFlow/1')['work'].task.environment_info)").stdout
    assert "greeting" in info
    assert "environment_lock" in info
    shutil.rmtree(index)
    again = python("flow.py", "run", cwd=folder, **only(index))
    assert again.returncode == 0, again.stderr
    assert [one["how"] for one in told("EnvFlow/2", "EnvironmentResolved")] == ["known"]
    assert [one["how"] for one in told("EnvFlow/2", "EnvironmentReady")] == ["reused"]
    for run in ("EnvFlow/1", "EnvFlow/2"):
        assert verified(run)["exit"] == 0


def test_runs_of_several_processes_build_an_environment_once(root: Path, index: Path) -> None:
    """Whoever comes second waits for the first one."""
    folder = write(root)
    variables = {**os.environ, **only(index)}
    begun = [subprocess.Popen([sys.executable, "flow.py", "run"], cwd=folder, env=variables, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(2 * WITHIN_S) for process in begun] == [0, 0, 0]
    assert Counter(one["how"] for run in (1, 2, 3) for one in told(f"EnvFlow/{run}", "EnvironmentReady")) == {"built": 1, "reused": 2}


def test_what_cannot_be_resolved_stops_the_run_before_it_has_a_number(root: Path, index: Path) -> None:
    """The message says what was asked for, where, what uv said, and what to do."""
    folder = write(root, work='@pypi(packages={"greeting": "3.0"})')
    done = python("flow.py", "run", cwd=folder, **only(index))
    assert done.returncode == 1
    for said in ("@pypi(packages={'greeting': '3.0'})", str(index), "uv says", "greeting==3.0", "--fallback local"):
        assert said in done.stderr
    assert "EnvFlow/1" not in evflow("runs").stdout


CACHED = """
from importlib.util import find_spec
from evflow import FlowSpec, cached, pypi, step

class CachedFlow(FlowSpec):
    @cached
    @pypi(packages={"greeting": "1.0"})
    @step
    def start(self):
        print("there:", find_spec("greeting") is not None)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    CachedFlow()
"""


def test_a_result_without_the_packages_is_not_taken_where_they_are_there(root: Path, index: Path) -> None:
    """The environment is a part of the key, as it was found, not as it was asked for."""
    (root / "flow.py").write_text(CACHED)
    nothing = root / "nothing"
    nothing.mkdir()
    without = python("flow.py", "--quiet", "run", "--fallback", "local", cwd=root, **only(nothing))
    assert "there: False" in without.stdout, without.stderr
    packaged = python("flow.py", "--quiet", "run", cwd=root, **only(index))
    assert "there: True" in packaged.stdout, packaged.stderr
    again = python("flow.py", "run", cwd=root, **only(index))
    assert "Task is cached from CachedFlow/2/start/1" in again.stdout, again.stdout


def test_fallback_local_goes_on_in_the_environment_of_now_and_says_so(root: Path, index: Path) -> None:
    """In the terminal, and in the log."""
    folder = write(root, work='@pypi(packages={"greeting": "3.0"})')
    wheel(root / "w" / "x", "unused", "1")
    (folder / "greeting.py").write_text("__version__ = 'mine'\n")
    done = python("flow.py", "run", "--fallback", "local", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr
    assert "runs in the environment of now" in done.stderr
    assert "here too mine" in done.stdout
    [replaced] = told("EnvFlow/1", "EnvironmentReplaced")
    assert "greeting==3.0" in replaced["reason"]
    assert verified("EnvFlow/1")["exit"] == 0


def test_a_step_overrides_its_flow_and_can_switch_it_off(root: Path, index: Path) -> None:
    """`@pypi_base` is on every step: on `start` and `end`, too."""
    base = '@pypi_base(packages={"greeting": "1.0"})'
    folder = write(root, base=base, work='@pypi(packages={"greeting": "2.0"})', join="@pypi(disabled=True)")
    done = python("flow.py", "run", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr
    assert "here too 1.0" in done.stdout
    assert "greeting 2.0" in done.stdout
    assert sorted(tuple(one["steps"]) for one in told("EnvFlow/1", "EnvironmentResolved")) == [("start", "end"), ("work",)]


def test_a_resumed_run_has_the_packages_of_the_run_that_it_resumes(root: Path, index: Path) -> None:
    """Though a newer version is there by then, and nothing of what was resolved is remembered."""
    (index / "greeting-2.0-py3-none-any.whl").unlink()
    body = "import os; assert 'BREAK' not in os.environ"
    folder = write(root, work='@pypi(packages={"greeting": ">=1"})', body=body)
    assert python("flow.py", "run", cwd=folder, **only(index), BREAK="1").returncode == 1
    wheel(index, "greeting", "2.0")
    assert evflow("env", "prune", "--resolved").returncode == 0
    done = python("flow.py", "resume", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr
    assert "greeting 1.0" in done.stdout
    assert [one["how"] for one in told("EnvFlow/2", "EnvironmentResolved")] == ["origin"]
    fresh = python("flow.py", "run", cwd=folder, **only(index))
    assert "greeting 2.0" in fresh.stdout, fresh.stderr


def test_a_task_is_spun_in_its_environment_with_the_packages_of_its_run(root: Path, index: Path) -> None:
    """What another step asks for is not looked at; a spin that is kept has its lock."""
    (index / "greeting-2.0-py3-none-any.whl").unlink()
    folder = write(root, work='@pypi(packages={"greeting": ">=1"})', join='@pypi(packages={"greeting": "1.0"})')
    assert python("flow.py", "run", cwd=folder, **only(index)).returncode == 0
    wheel(index, "greeting", "2.0")
    assert evflow("env", "prune", "--resolved").returncode == 0
    write(root, work='@pypi(packages={"greeting": ">=1"})', join='@pypi(packages={"absent": "1.0"})')
    spun = python("flow.py", "spin", "work", "--persist", cwd=folder, **only(index))
    assert spun.returncode == 0, spun.stderr
    assert spun.stdout.startswith("greeting 1.0\n")
    home = folder / ".evflow_spin"
    said = evflow("events", "EnvFlow/1", "--type", "EnvironmentResolved", "--json", EVFLOW_HOME=str(home))
    lock = json.loads(said.stdout)[0]["fields"]["lock"]
    assert (home / "store" / "objects" / lock[:2] / lock[2:]).exists()
    bare = python("flow.py", "spin", "work", "--skip-decorators", cwd=folder, **only(index))
    assert bare.returncode == 1
    assert "No module named 'greeting'" in bare.stderr
    write(root, work='@pypi(packages={"absent": "1.0"})')
    refused = python("flow.py", "spin", "work", cwd=folder, **only(index))
    assert refused.returncode == 1
    assert "could not be resolved" in refused.stderr
    without = python("flow.py", "spin", "work", "--fallback", "local", cwd=folder, **only(index))
    assert without.returncode == 1
    assert "Step 'work' runs in the environment of now" in without.stderr


def test_a_failure_in_an_environment_is_told_by_the_users_frames(root: Path, index: Path) -> None:
    folder = write(root, body="raise KeyError('rows')")
    failed = python("flow.py", "run", cwd=folder, **only(index))
    assert failed.returncode == 1
    shown = evflow("logs", "EnvFlow/1/work/2", "--stderr").stdout
    assert "KeyError: 'rows'" in shown
    assert [line.split('"')[1] for line in shown.splitlines() if line.lstrip().startswith("File ")] == [str(folder / "flow.py")]


def test_conda_packages_come_from_a_channel_with_a_python_of_their_own(root: Path, evflow_home: Path) -> None:
    """The interpreter is the environment's; `libraries` means `packages`."""
    channel = conda_channel(root / "channel", ("greeting", "1.0"), ("greeting", "2.0"))
    folder = write(root, work=f'@conda(libraries={{"greeting": "1.0"}}, python="{HERE}")')
    done = python("flow.py", "run", cwd=folder, CONDA_CHANNELS=f"file://{channel}")
    assert done.returncode == 0, done.stderr
    assert "none here ['1.0'] True" in done.stdout
    [ready] = (evflow_home / "environments").glob("*/ready.json")
    assert json.loads(ready.read_text())["installed"][0] == "greeting-1.0-0"
    lock = json.loads(ready.with_name("lock.json").read_text())
    assert "greeting 1.0 0" in lock["packages"]
    assert "sha256" in lock["text"]
    assert verified("EnvFlow/1")["exit"] == 0
    missing = write(root, work='@conda(packages={"nothing": ""})', folder="missing")
    done = python("flow.py", "run", cwd=missing, CONDA_CHANNELS=f"file://{channel}")
    assert done.returncode == 1
    assert "rattler says" in done.stderr
    assert str(channel) in done.stderr


def test_a_worker_of_a_pool_builds_the_environment_where_it_is(root: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the run's lock, which it has from the store."""
    for name, text in only(index).items():
        monkeypatch.setenv(name, text)
    folder = write(root, work=f'@pool("gpu")\n    {ONE}')
    with worker(root):
        done = python("flow.py", "run", "--wide", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "none here ['1.0'] True" in done.stdout
    assert [one["how"] for one in told("EnvFlow/1", "EnvironmentReady")] == ["built"]
    assert verified("EnvFlow/1")["exit"] == 0


def test_runs_of_a_deployment_have_the_packages_that_it_was_deployed_with(root: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were resolved then; a scheduler builds them."""
    for name, text in only(index).items():
        monkeypatch.setenv(name, text)
    (index / "greeting-2.0-py3-none-any.whl").unlink()
    folder = write(root, work='@pypi(packages={"greeting": ">=1"})')
    assert python("flow.py", "deploy", cwd=folder).returncode == 0
    wheel(index, "greeting", "2.0")
    with scheduler(root):
        assert evflow("run", "EnvFlow").returncode == 0
        assert ended("EnvFlow/1") == "succeeded"
    assert "greeting 1.0" in evflow("logs", "EnvFlow/1").stdout


def test_a_run_that_is_cancelled_while_an_environment_is_built_ends_at_once(root: Path, index: Path, evflow_home: Path) -> None:
    """What was begun counts as nothing, and the next run builds it."""
    tool = root / "slow"
    tool.mkdir()
    # A package `uv` beside the flow's interpreter that hands out a tool which waits where it is to build.
    (tool / "uv.py").write_text(f"def find_uv_bin():\n    return {str(tool / 'uv.sh')!r}\n")
    from uv import find_uv_bin

    (tool / "uv.sh").write_text(f'#!/bin/sh\ncase "$2" in venv) touch "{tool}/begun"; sleep 600;; esac\nexec "{find_uv_bin()}" "$@"\n')
    (tool / "uv.sh").chmod(0o755)
    folder = write(root)
    variables = {**os.environ, **only(index), "PYTHONPATH": str(tool)}
    process = subprocess.Popen([sys.executable, "flow.py", "run"], cwd=folder, env=variables, start_new_session=True)
    wait_until((tool / "begun").exists, "the environment is being built", WITHIN_S)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 1
    assert not list((evflow_home / "environments").glob("*/ready.json"))
    assert python("flow.py", "run", cwd=folder, **only(index)).returncode == 0


def test_a_step_has_one_environment_and_a_python_that_evflow_runs_on(root: Path, index: Path) -> None:
    """Both are said before anything is asked for."""
    both = write(root, work=f'{ONE}\n    @conda(packages={{"greeting": "1.0"}})')
    done = python("flow.py", "check", cwd=both)
    assert done.returncode == 1
    assert "Step work has @pypi and @conda: keep one of them" in done.stdout + done.stderr
    old = write(root, work='@pypi(python="3.8")', folder="old")
    done = python("flow.py", "run", cwd=old, **only(index))
    assert done.returncode == 1
    assert "Python 3.8, on which evflow cannot run a step" in done.stderr


def test_an_environment_that_cannot_be_built_fails_its_task_with_what_the_tool_said(root: Path, index: Path) -> None:
    """Another attempt may have it; `evflow env` shows and prunes what is there."""
    folder = write(root)
    assert python("flow.py", "run", cwd=folder, **only(index)).returncode == 0
    [listed] = json.loads(evflow("env", "list", "--json").stdout)
    assert (listed["kind"], listed["packages"]) == ("pypi", 1)
    shown = evflow("env", "show", listed["name"][:8])
    assert "greeting==1.0" in shown.stdout
    assert "--hash=sha256:" in evflow("env", "show", listed["name"][:8], "--lock").stdout
    unknown = evflow("env", "show", "nothing")
    assert unknown.returncode == 1
    assert "`evflow env list` shows what there is" in unknown.stderr
    assert json.loads(evflow("env", "prune", "--dry-run", "--all", "--json").stdout)["removed"] == [listed["name"]]
    assert json.loads(evflow("env", "prune", "--all", "--json").stdout)["removed"] == [listed["name"]]
    assert evflow("env", "list").stderr.startswith("This machine has no environment yet")
    shutil.rmtree(index)
    done = python("flow.py", "run", cwd=folder, **only(index))
    assert done.returncode == 1
    assert "could not be built" in done.stderr
    assert "environment-unbuilt" in evflow("events", "EnvFlow/2", "--type", "AttemptFailed", "--json").stdout
    assert verified("EnvFlow/2")["exit"] == 0
    wheel(index, "greeting", "1.0")
    done = python("flow.py", "resume", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr


def test_a_step_runs_on_another_python(root: Path) -> None:
    """What evflow itself needs there is installed for that Python; values cross from one to the other."""
    other = next((one for one in ("3.12", "3.13", "3.14", "3.11") if one != HERE and interpreter(one) != one), None)
    if other is None:
        pytest.skip("no other Python that evflow runs on is on this machine")
    index = own_packages_for(root / "index", other)
    if index is None:
        pytest.skip("what evflow needs on another Python cannot be had: no index answers")
    wheel(index, "greeting", "1.0")
    body = "assert sys.version_info[:2] == tuple(map(int, '" + other + "'.split('.'))); self.value = {1: ('a', {2.5})}"
    folder = write(root, work=f'@pypi(packages={{"greeting": "1.0"}}, python="{other}")', body=body)
    done = python("flow.py", "run", cwd=folder, **only(index))
    assert done.returncode == 0, done.stderr
    assert "none here ['1.0'] True" in done.stdout
    assert [one["python"][: len(other)] for one in told("EnvFlow/1", "EnvironmentReady")] == [other]
    assert verified("EnvFlow/1")["exit"] == 0
