"""`@project`: what branches are called, and what follows from it for runs, deployments and triggers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow import FlowSpec, Parameter, current, namespaced_event_name, project, step, trigger, trigger_on_finish
from evflow.core.deployments import name_fault as deployment_fault
from evflow.core.ids import FlowName
from evflow.core.projects import Project, branch_fault, deployment_of, name_fault, taken_apart
from evflow.deployments.beginning import RunOptions
from evflow.deployments.catalog import Reference, deployed, parse
from evflow.deployments.deploy import DeployRequest, deploy, prepare
from evflow.deployments.manifest import read
from evflow.flow.checks import check
from evflow.flow.current import enter as enter_task, leave
from evflow.flow.decorators.project import BranchInvalid, BranchSaidTwice, FlowHasNoProject, enter, project_of
from evflow.flow.decorators.trigger import mistakes as trigger_mistakes, triggers_of
from evflow.testing import run_flow
from tests.unit.deploy_world import World

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
BRANCHES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda text: branch_fault(text) is None)


class Plain(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@project(name="forecasts")
class Forecast(Plain):
    pass


@pytest.mark.parametrize(
    ("branch", "production", "name"),
    [(None, False, "user.ada"), ("b", False, "test.b"), (None, True, "prod"), ("v2", True, "prod.v2")],
)
def test_a_branch_is_called_as_in_metaflow(branch: str | None, production: bool, name: str) -> None:
    found = project_of(Forecast, user="ada", branch=branch, production=production)
    assert found is not None
    assert found.branch_name == name
    assert found.flow_name("Forecast") == f"forecasts.{name}.Forecast"
    assert found.tags == ("project:forecasts", f"project_branch:{name}")
    assert (found.production, found.is_user_branch) == (production, name == "user.ada")


@given(NAMES, st.none() | BRANCHES, st.booleans(), st.text(min_size=1, max_size=40))
def test_every_branch_has_a_deployment_and_is_found_by_its_whole_name(name: str, branch: str | None, production: bool, user: str) -> None:
    found = Project(name, branch or "", production, user)
    assert deployment_fault(found.deployment) is None
    assert deployment_of(name, found.branch_name) == found.deployment
    assert taken_apart(f"{found.deployment}.Flow") == ("Flow", found.deployment)
    assert parse(f"{found.deployment}.Flow") == Reference(FlowName("Flow"), found.deployment)
    assert Project.from_plain(found.to_plain()) == found


@given(NAMES, BRANCHES, BRANCHES)
def test_two_branches_have_two_deployments(name: str, one: str, other: str) -> None:
    deployments = {Project(name, branch, production).deployment for branch in (one, other) for production in (True, False)}
    assert len(deployments) == (2 if one == other else 4)


@pytest.mark.parametrize("name", ["", "Forecasts", "a-b", "a.b", "1a", "x" * 129, 3, None])
def test_a_project_has_a_plain_name(name: object) -> None:
    assert name_fault(name) is not None


@pytest.mark.parametrize("branch", ["", "a b", ".a", "a.", "a..b", "ä", "x" * 129, "a/b", 3])
def test_a_branch_has_a_plain_name(branch: object) -> None:
    assert branch_fault(branch) is not None


def test_what_the_source_and_the_command_say_must_agree() -> None:
    @project(name="forecasts", branch="b", production=False)
    class Fixed(Plain):
        pass

    found = project_of(Fixed, user="ada", branch="b")
    assert found is not None
    assert found.branch_name == "test.b"
    with pytest.raises(BranchSaidTwice, match="--branch says 'c', and @project"):
        project_of(Fixed, user="ada", branch="c")
    with pytest.raises(BranchSaidTwice, match="--production says True"):
        project_of(Fixed, user="ada", production=True)


def test_a_branch_of_no_project_is_refused() -> None:
    assert project_of(Plain, user="ada") is None
    with pytest.raises(FlowHasNoProject, match=r"flow Plain is of none.\nPut @project"):
        project_of(Plain, user="ada", branch="b")


def test_a_branch_that_cannot_be_is_refused() -> None:
    with pytest.raises(BranchInvalid, match="A branch cannot be called 'a b'"):
        project_of(Forecast, user="ada", branch="a b")


def test_check_tells_what_is_wrong_with_a_project() -> None:
    @project(name="No Name", branch="a b", production="yes")  # type: ignore[call-overload]
    class Wrong(Plain):
        pass

    told = [problem.message for problem in check(Wrong)]
    assert [text.split(":")[0] for text in told] == ["@project", "@project", "@project takes True or False as production, not 'yes'."]


def test_two_projects_of_a_flow_are_one_too_many() -> None:
    @project(name="one")
    @project(name="two")
    class Twice(Plain):
        pass

    assert [problem.message for problem in check(Twice)] == ["Flow Twice has @project 2 times: keep one of them."]


def test_a_step_knows_its_branch() -> None:
    enter_task(flow_name="Forecast", run_id=1, step_name="start", task_id=1)
    try:
        with pytest.raises(AttributeError, match="only in a flow with @project, and Forecast has none"):
            _ = current.project_name
        enter(Project("forecasts", user="ada").to_plain())
        assert (current.project_name, current.branch_name) == ("forecasts", "user.ada")
        assert (current.project_flow_name, current.is_production, current.is_user_branch) == ("forecasts.user.ada.Forecast", False, True)
        assert namespaced_event_name("ready") == "mfns.forecasts.user.ada.ready"
    finally:
        leave()
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = current.project_name


def wanted(cls: type, of: Project | None) -> list[tuple[str, dict[str, Any]]]:
    assert not list(trigger_mistakes(cls))
    return [(one.event, dict(one.where)) for found in triggers_of(cls, of) for one in found.wanted]


@pytest.mark.parametrize(
    ("flow", "deployment"),
    [
        ("Clean", "forecasts.test.b"),
        ("Clean:nightly", "nightly"),
        ("other.prod.Clean", "other.prod"),
        ({"name": "Clean", "project": "other", "project_branch": "test.x"}, "other.test.x"),
        ({"name": "Clean", "project_branch": "prod"}, "forecasts.prod"),
        ({"name": "Clean", "deployment": "default"}, "default"),
    ],
)
def test_a_flow_is_waited_for_in_the_same_branch_unless_another_is_named(flow: Any, deployment: str) -> None:
    @trigger_on_finish(flow=flow)
    class Waits(Plain):
        pass

    found = [one for each in triggers_of(Waits, Project("forecasts", "b")) for one in each.wanted]
    assert [(one.event, one.where["deployment"]) for one in found] == [("evflow.finished.Clean", deployment)]


def test_outside_of_a_project_a_flow_alone_is_any_deployment_of_it() -> None:
    @trigger_on_finish(flow="Clean")
    class Waits(Plain):
        pass

    assert wanted(Waits, None) == [("evflow.finished.Clean", {"status": "succeeded"})]


@pytest.mark.parametrize(
    "flow", ["a.b.not-a-flow", "p.prod.Clean:x", {"name": "p.prod.Clean", "project": "q"}, {"name": "Clean", "project": "q"}]
)
def test_a_flow_that_is_named_twice_or_half_is_told(flow: Any) -> None:
    @trigger_on_finish(flow=flow)
    class Waits(Plain):
        pass

    assert len(list(trigger_mistakes(Waits))) == 1


def test_an_event_of_the_branch_is_named_when_the_flow_is_deployed() -> None:
    @trigger(events=[namespaced_event_name("ready"), {"name": namespaced_event_name("more")}, "all"])
    class Listens(Plain):
        pass

    names = [name for name, _ in wanted(Listens, Project("forecasts", "b"))]
    assert names == ["mfns.forecasts.test.b.ready", "mfns.forecasts.test.b.more", "all"]


def test_branches_are_deployed_side_by_side(tmp_path: Path) -> None:
    world = World(tmp_path)
    for branch in (Project("forecasts", "b"), Project("forecasts", production=True)):
        request = DeployRequest(
            flow=Forecast, flow_file=str(world.file), name=branch.deployment, production=branch.production, user="ada",
            options=RunOptions(fallback="error", project=branch),
        )  # fmt: skip
        deploy(world.log, request, prepare(request, world.store, world.home))
    found = deployed(world.log, FlowName("Forecast"))
    assert {name: (one.version, one.namespace) for name, one in found.items()} == {
        "forecasts.test.b": (1, ""),
        "forecasts.prod": (1, "production:forecasts.prod.Forecast"),
    }


def test_a_deployment_s_computed_default_knows_the_branch(tmp_path: Path) -> None:
    class Computed(Plain):
        table = Parameter("table", default=lambda context: f"{context.flow_name} {current.branch_name}", type=str)

    world, branch = World(tmp_path), Project("forecasts", "b")
    request = DeployRequest(flow=Computed, flow_file=str(world.file), options=RunOptions(fallback="error", project=branch))
    assert read(world.store, prepare(request, world.store, world.home).manifest).parameters[0].default_shown == "Computed test.b"
    assert "branch_name" not in current


class Named(FlowSpec):
    branch = Parameter("branch", default="mine")

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_parameter_may_be_called_branch() -> None:
    assert check(project(name="p")(Named)) == []


def test_a_flow_in_a_unit_test_is_in_its_user_s_branch() -> None:
    @project(name="forecasts")
    class Where(FlowSpec):
        @step
        def start(self) -> None:
            self.where = current.project_flow_name

    assert run_flow(Where).data.where.startswith("forecasts.user.")
