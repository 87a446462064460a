"""Branches of a project side by side: runs, deployments and triggers of one never touch the other."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_scheduler import WITHIN_S, scheduler
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

FLOWS = """
import os
from evflow import FlowSpec, Parameter, current, namespaced_event_name, project, publish_event, step, trigger, trigger_on_finish

class Base(FlowSpec):
    @step
    def start(self):
        self.where = (current.project_name, current.branch_name, current.project_flow_name, current.is_production, current.is_user_branch)
        self.next(self.end)

    @step
    def end(self):
        self.act()

    def act(self):
        pass

@project(name="forecasts")
class Clean(Base):
    branch = Parameter("branch", default="a parameter")

    def act(self):
        publish_event(namespaced_event_name("cleaned"))

@trigger_on_finish(flow="Clean")
@project(name="forecasts")
class Train(Base):
    pass

@trigger(event=namespaced_event_name("cleaned"))
@project(name="forecasts")
class Report(Base):
    pass

@trigger_on_finish(flow={"name": "Clean", "project": "forecasts", "project_branch": "prod"})
class Outside(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    globals()[os.environ.get("FLOW", "Clean")]()
"""


@pytest.fixture
def file(root: Path) -> Path:
    found = root / "flows.py"
    found.write_text(textwrap.dedent(FLOWS))
    return found


def deploy(file: Path, flow: str, *options: str) -> None:
    done = python(file, "deploy", *options, FLOW=flow)
    assert done.returncode == 0, done.stderr


def runs_of(flow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(evflow("runs", "--json").stdout)
    return [run for run in found if run["flow"] == flow]


def branches(flow: str) -> list[str]:
    tags = [tag for run in runs_of(flow) for tag in run["system_tags"]]
    return [tag.partition(":")[2] for tag in tags if tag.startswith("project_branch:")]


def where(run: str) -> str:
    return evflow("dump", f"{run}/start").stdout


def test_a_run_is_in_the_branch_that_the_command_names(root: Path, file: Path) -> None:
    assert python(file, "run", FLOW="Train").returncode == 0
    assert python(file, "run", "--branch", "b", "--production", FLOW="Train").returncode == 0
    assert python(file, "--branch", "c", "run", FLOW="Train").returncode == 0
    assert python(file, "--branch", "d", "run", "--branch", "what the parameter is", FLOW="Clean").returncode == 0
    assert [one for one in branches("Train") if not one.startswith("user.")] == ["test.c", "prod.b"]
    assert "('forecasts', 'prod.b', 'forecasts.prod.b.Train', True, False)" in where("Train/2")
    assert "'forecasts.test.d.Clean'" in where("Clean/1")
    assert "what the parameter is" in evflow("dump", "Clean/1/start").stdout
    resumed = python(file, "resume", "end", "--origin-run-id", "1", "--branch", "e", FLOW="Train")
    assert resumed.returncode == 0, resumed.stderr
    assert branches("Train")[0] == "test.e"
    assert verified("Train/2")["exit"] == 0


def test_a_default_that_is_computed_knows_the_branch(root: Path) -> None:
    file = root / "named.py"
    file.write_text(
        textwrap.dedent("""
            from evflow import FlowSpec, Parameter, current, project, step

            @project(name="forecasts")
            class Named(FlowSpec):
                table = Parameter("table", default=lambda context: f"{current.project_flow_name}-{current.is_running_flow}", type=str)

                @step
                def start(self):
                    print(self.table)

            if __name__ == "__main__":
                Named()
        """)
    )
    assert "forecasts.test.b.Named-False" in python(file, "run", "--branch", "b").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("Outside", "run", "--branch", "b"), "No such option '--branch'"),
        (("Outside", "--branch", "b", "run"), "flow Outside is of none"),
        (("Outside", "--production", "run"), "flow Outside is of none"),
        (("Outside", "deploy", "--branch", "b"), "flow Outside is of none"),
        (("Train", "run", "--branch", "a b"), "A branch cannot be called 'a b'"),
    ],
)
def test_a_branch_that_cannot_be_is_refused_before_a_run_has_a_number(file: Path, words: tuple[str, ...], says: str) -> None:
    done = python(file, *words[1:], FLOW=words[0])
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert evflow("runs", "--json").stdout.strip() in ("", "[]")


def test_triggers_stay_within_their_branch(root: Path, file: Path) -> None:
    for options in (("--branch", "b"), ("--production",)):
        for flow in ("Clean", "Train", "Report"):
            deploy(file, flow, *options)
    deploy(file, "Outside")
    with scheduler(root):
        assert evflow("run", "forecasts.test.b.Clean").returncode == 0
        wait_until(lambda: branches("Train") == ["test.b"] and branches("Report") == ["test.b"], "those of the branch have begun", WITHIN_S)
        assert runs_of("Outside") == []
        assert evflow("run", "Clean:forecasts.prod").returncode == 0
        wait_until(
            lambda: len(branches("Train")) == 2 and len(branches("Report")) == 2 and bool(runs_of("Outside")),
            "those of production",
            WITHIN_S,
        )
        assert sorted(branches("Train")) == sorted(branches("Report")) == ["prod", "test.b"]
        wait_until(lambda: all(run["status"] == "succeeded" for run in runs_of("Train")), "they have ended", WITHIN_S)
    assert len(runs_of("Outside")) == 1
    named = {run["namespace"] for run in runs_of("Train")}
    assert "production:forecasts.prod.Train" in named


def test_a_production_branch_is_replaced_by_production_only(file: Path) -> None:
    deploy(file, "Train", "--production")
    deploy(file, "Train", "--production")
    refused = python(file, "deploy", "--name", "forecasts.prod", FLOW="Train")
    assert refused.returncode == 1
    assert "is a production deployment, version 2" in refused.stderr
    deploy(file, "Train", "--name", "nightly", "--branch", "b")
    names = [one["deployment"] for one in json.loads(evflow("deployments", "--json").stdout)]
    assert names == ["Train:forecasts.prod", "Train:nightly"]
