"""The client after, beside and inside real runs, as its users have it: in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from evflow import Flow, Run, namespace
from evflow.client import namespaces
from evflow.client.connection import disconnect
from evflow.exception import EvflowNotFound
from tests.waiting import wait_until

T = TypeVar("T")

FLOW = """
import numpy as np
from evflow import FlowSpec, Parameter, Run, Step, Task, catch, current, get_namespace, retry, step


class Model:
    def __init__(self, weights):
        self.weights = weights

    def predict(self, x):
        return float(self.weights.sum()) * x


class TrainFlow(FlowSpec):
    alpha = Parameter("alpha", default=0.5)
    kind = "linear"

    @step
    def start(self):
        print("reading")
        self.folds = [1, 2, 3]
        self.big = np.arange(200_000.0)
        self.next(self.train, foreach="folds")

    @retry(times=1, minutes_between_retries=0)
    @catch(var="error")
    @step
    def train(self):
        if self.input == 2:
            raise ValueError("fold 2 is broken")
        if self.input == 3 and current.retry_count == 0:
            raise KeyError("first try")
        self.score = self.input * self.alpha
        self.next(self.join)

    @step
    def join(self, inputs):
        self.scores = [getattr(one, "score", None) for one in inputs]
        self.model = Model(np.ones(3))
        self.next(self.end)

    @step
    def end(self):
        self.me = current.task
        self.seen = {
            "run": current.run.pathspec,
            "finished": current.run.finished,
            "steps": [step.id for step in current.run],
            "start": Task(f"{current.flow_name}/{current.run_id}/start/1").data.folds,
            "namespace": get_namespace(),
            "train": len(list(Step(f"{current.flow_name}/{current.run_id}/train"))),
        }


if __name__ == "__main__":
    TrainFlow()
"""

WAITING = """
import os, time
from evflow import FlowSpec, step


class WaitFlow(FlowSpec):
    @step
    def start(self):
        print("waiting", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        self.next(self.end)

    @step
    def end(self):
        self.answer = 42


if __name__ == "__main__":
    WaitFlow()
"""


@pytest.fixture(autouse=True)
def client() -> Iterator[None]:
    """Let this process be a client, in the global namespace, and stop being one."""
    namespace(None)
    yield
    namespaces.forget()
    disconnect()


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)


def run_flow(*arguments: str) -> None:
    Path("flow.py").write_text(FLOW)
    ran = python("flow.py", "run", *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def asked(script: str) -> object:
    """What an expression gives in a fresh process that has nothing of the flow's."""
    Path("elsewhere").mkdir(exist_ok=True)
    code = f"import json\nfrom evflow import *\nfrom evflow import Flow, Run, Step, Task, namespace\nnamespace(None)\n{script}"
    ran = subprocess.run([sys.executable, "-c", code], cwd="elsewhere", capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_fresh_process_reads_a_whole_run() -> None:
    run_flow("--alpha", "2", "--tag", "nightly")
    seen = asked(
        "run = Flow('TrainFlow').latest_successful_run\n"
        "train = run['train']\n"
        "print(json.dumps({'run': run.pathspec, 'finished': run.finished, 'scores': run.data.scores, 'kind': run.data.kind,\n"
        "  'alpha': run['_parameters'].task.data.alpha, 'predicts': run.data.model.predict(2), 'model': type(run.data.model).__name__,\n"
        "  'successful': [task.successful for task in train], 'finished_tasks': [task.finished for task in train],\n"
        "  'attempts': [task.current_attempt for task in train], 'stdout': run['start'].task.stdout, 'tags': sorted(run.user_tags),\n"
        "  'error': str(train['3'].data.error.exception), 'first': Task(train['4'].pathspec, attempt=0).exception.type,\n"
        "  'me': repr(run.data.me), 'me_done': run.data.me.finished, 'script': run.code.script_name, 'index': train['4'].index}))"
    )
    assert seen == {
        "run": "TrainFlow/1", "finished": True, "scores": [2.0, None, 6.0], "kind": "linear", "alpha": 2.0, "predicts": 6.0, "model": "Model",
        "successful": [True, False, True], "finished_tasks": [True, True, True], "attempts": [1, 1, 0], "stdout": "reading\n",
        "tags": ["nightly"], "error": "fold 2 is broken", "first": "builtins.KeyError", "me": "Task('TrainFlow/1/end/6')", "me_done": True,
        "script": "flow.py", "index": 2,
    }  # fmt: skip


def test_an_array_is_whole_and_writable_in_another_process() -> None:
    run_flow()
    assert asked("big = Run('TrainFlow/1').data.big\nbig += 1\nprint(json.dumps([float(big.sum()), big.flags.writeable]))") == [
        float(sum(range(200_000)) + 200_000), True,
    ]  # fmt: skip


def test_a_step_reads_its_own_run_in_the_runs_namespace() -> None:
    run_flow("--namespace", "team")
    data = Run("TrainFlow/1").data
    assert data is not None
    assert data.seen == {
        "run": "TrainFlow/1", "finished": False, "steps": ["end", "join", "train", "start"], "start": [1, 2, 3], "namespace": "team",
        "train": 3,
    }  # fmt: skip
    assert Run("TrainFlow/1").user_tags == {"team"}


def test_a_live_run_is_watched_from_another_process() -> None:
    Path("wait.py").write_text(WAITING)
    with subprocess.Popen([sys.executable, "wait.py", "run"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as running:
        try:
            flow = _appears(lambda: _found("WaitFlow"), "the flow is there")
            run = _appears(lambda: flow.latest_run, "its run is there")
            start = _appears(lambda: next(iter(run["start"])) if "start" in run else None, "its first task is there")
            wait_until(lambda: start.status == "running" and start.stdout == "waiting\n", "the task runs and its output is seen")
            assert (run.status, run.finished, run.successful, run.data) == ("running", False, False, None)
            Path("go").touch()
            wait_until(lambda: run.finished, "the run is finished")
            assert run.successful
            assert run.data is not None
            assert run.data.answer == 42
        finally:
            Path("go").touch()
            running.wait(60)


@pytest.mark.parametrize("where", ["in the step", "in a script"])
def test_the_client_works_beside_modules_with_the_names_of_its_own(where: str) -> None:
    for name in ("msgpack", "hiredis", "redis", "click", "anyio"):
        Path(f"{name}.py").write_text("raise ImportError('this is the module of the user')\n")
    Path("flow.py").write_text(
        "from evflow import FlowSpec, current, step\n\nclass Small(FlowSpec):\n    @step\n    def start(self):\n"
        "        self.seen = current.run['start'].task.id\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n\nif __name__ == '__main__':\n    Small()\n"
    )
    ran = python("flow.py", "run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if where == "in the step":
        data = Run("Small/1").data
        assert data is not None
        assert data.seen == "1"
    else:
        Path("look.py").write_text("from evflow import Run, namespace\nnamespace(None)\nprint(Run('Small/1').data.seen)\n")
        ran = python("look.py")
        assert (ran.stdout, ran.stderr) == ("1\n", "")


def test_a_run_that_failed_tells_what_the_user_raised() -> None:
    Path("flow.py").write_text(FLOW.replace("self.model = Model(np.ones(3))", 'raise RuntimeError("no model")'))
    assert python("flow.py", "run").returncode == 1
    run = Flow("TrainFlow").latest_run
    assert run is not None
    assert (run.status, run.finished, run.successful) == ("failed", False, False)
    task = run["join"].task
    assert task is not None
    assert task.exception is not None
    assert (task.exception.exception, task.exception.type) == ("no model", "builtins.RuntimeError")
    assert 'raise RuntimeError("no model")' in (task.exception.stacktrace or "")
    assert "no model" in task.stderr


def _found(name: str) -> Flow | None:
    try:
        return Flow(name)
    except EvflowNotFound:
        return None


def _appears(look: Callable[[], T | None], description: str) -> T:
    found = wait_until(look, description)
    assert found is not None
    return found
