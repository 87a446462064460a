"""From a flow's class to a deployment, and from a deployment to an offer: over the simulated log and a store of files."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgpack
import pytest

from evflow import FlowSpec, Parameter, config, schedule, step
from evflow.core import flow_events
from evflow.core.apply import apply
from evflow.core.codec import Record, decode_report
from evflow.core.events import RunStarted
from evflow.core.flow_events import FlowDeployed, FlowPaused, FlowUndeployed, RunRequested
from evflow.core.graph import Graph, Node, Policy
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.state import RunState
from evflow.deployments import manifest as manifests
from evflow.deployments.catalog import (
    DeploymentNameInvalid,
    DeploymentNotFound,
    Reference,
    change,
    deployed,
    existing,
    find,
    history,
    parse,
)
from evflow.deployments.deploy import (
    DeployRequest,
    ExecutorNotOfScheduler,
    FlowHasNoFile,
    PackageTooLarge,
    ProductionDeployment,
    ScheduleNeedsDefaults,
    check_executors,
    deploy,
    prepare,
)
from evflow.deployments.manifest import DeploymentManifest, NotADeployment
from evflow.deployments.request import Asked, DeploymentIsElsewhere, ParameterMissing, request_run
from evflow.deployments.specs import ParameterNeedsCode
from evflow.errors import Conflict
from evflow.flow.checks import FlowInvalid
from evflow.flow.parameter_values import ParameterInvalid, ParameterUnknown
from evflow.log.keys import shared_shard
from evflow.log.protocol import RunEntry
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView
from evflow.store.protocol import ObjectDamaged
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from tests.unit.deploy_world import FLOW, NOW_US, Nightly, World, found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config.reset()
    yield World(tmp_path)
    config.reset()


# --- deploying --------------------------------------------------------------------------------------------


def test_a_deployment_is_an_event_and_what_is_deployed_now(world: World) -> None:
    deployment = found(world.deploy())
    assert deployed(world.log, FLOW) == {"default": deployment}
    assert (deployment.name, deployment.version, deployment.user, deployment.host) == ("default", 1, "ada", "box")
    assert (deployment.file, deployment.by, deployment.deployed_us) == ("nightly.py", "user:ada", NOW_US)
    record = flow_events.decode(*world.log.flow_events(FLOW)[-1])
    assert isinstance(record.event, FlowDeployed)
    assert (record.event.version, record.event.manifest, record.at_us) == (1, deployment.manifest, NOW_US)
    assert deployment.package is not None
    assert world.store.exists(deployment.package)


def test_versions_are_dense_for_each_name_also_after_it_was_undeployed(world: World) -> None:
    assert [found(world.deploy(name=name)).version for name in ("default", "other", "default")] == [1, 1, 2]
    wanted = Reference(FLOW)
    assert change(world.log, wanted, existing(world.log, wanted, FlowUndeployed("default")), user="ada").deployment is None
    assert list(deployed(world.log, FLOW)) == ["other"]
    assert found(world.deploy()).version == 3
    assert [type(record.event).__name__ for record in history(world.log, FLOW)] == [
        "FlowDeployed", "FlowDeployed", "FlowDeployed", "FlowUndeployed", "FlowDeployed",
    ]  # fmt: skip


def test_two_deploys_at_once_get_two_versions(world: World) -> None:
    """The second one appends while the first decides; the first reads the tail and decides again."""
    request = DeployRequest(flow=Nightly, flow_file=str(world.file), user="ada", host="box")
    prepared = prepare(request, world.store, world.home)
    rival = SimulatedLogClient(world.server)
    asked: list[int] = []

    class Slow(SimulatedLogClient):
        def append_flow(self, flow: FlowName, expected: Seq, payload: bytes, change: Any = None) -> Seq:
            if not asked:
                asked.append(found(deploy(rival, request, prepared)).version)
            return super().append_flow(flow, expected, payload, change)

    assert found(deploy(Slow(world.server), request, prepared)).version == 2
    assert asked == [1]
    assert found(world.deploy()).version == 3


def test_the_manifest_has_what_a_run_needs_without_the_code(world: World) -> None:
    manifest = manifests.read(world.store, found(world.deploy()).manifest)
    assert manifest.flow == "Nightly"
    assert list(Graph.from_plain(manifest.graph).nodes) == ["start", "end"]
    assert [(spec.name, spec.kind, spec.required) for spec in manifest.parameters] == [
        ("alpha", "int", False), ("day", "str", True), ("sizes", "json", False), ("names", "str", False), ("mode", "choice", False),
        ("author", "str", False), ("extra-text", "str", False), ("dry", "bool", False), ("part", "float", False),
    ]  # fmt: skip
    assert manifest.options["max_workers"] == 16
    assert manifest.options["fallback"] == "error"
    assert "runtime:scheduler" in manifest.system_tags


def test_defaults_are_computed_on_deploy(world: World) -> None:
    manifest = manifests.read(world.store, found(world.deploy(user="eve")).manifest)
    view = ArtifactView.open(world.store, manifest.values)
    assert {name: view.load(name) for name in view.names()} == {
        "rate": 0.5, "alpha": 3, "sizes": [1, 2], "names": ["a", "b"], "mode": "fast", "author": "eve deployed", "extra": None,
        "dry": False, "part": 0.25,
    }  # fmt: skip


def test_variables_of_the_shell_do_not_get_into_a_deployment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_RUN_ALPHA", "9")
    world.deploy()
    assert world.values(world.request())["alpha"] == 3


def test_a_production_deployment_is_not_replaced_by_accident(world: World) -> None:
    assert found(world.deploy(production=True)).namespace == "production:Nightly"
    with pytest.raises(ProductionDeployment, match=r"'Nightly' is a production deployment, version 1 of ada"):
        world.deploy()
    assert found(world.deploy(name="mine")).version == 1
    assert found(world.deploy(production=True)).version == 2


def test_a_flow_without_a_file_is_refused(world: World) -> None:
    with pytest.raises(FlowHasNoFile):
        world.deploy(flow_file="")
    assert world.log.flow_seq(FLOW) == 0


def test_a_folder_that_is_too_large_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.file.parent / "other.py").write_text("y = 2\n")
    monkeypatch.setattr("evflow.store.packages.MAX_FILES", 1)
    with pytest.raises(PackageTooLarge, match="too large for one"):
        world.deploy()
    assert world.log.flow_seq(FLOW) == 0


def test_an_executor_that_a_scheduler_lacks_is_refused() -> None:
    nodes = {
        "start": Node("start", "linear", ("end",), file="/f/flow.py", line=7, policy=Policy(executor="slurm")),
        "end": Node("end", "end"),
    }
    with pytest.raises(ExecutorNotOfScheduler, match=r"Step 'start' \(flow.py:7\) is to run on 'slurm'"):
        check_executors(Graph(nodes))


def test_a_schedule_is_part_of_the_deployment(world: World) -> None:
    @schedule(cron="30 2 * * *", timezone="Europe/Berlin", catch_up="last")
    class Nightly(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    plain = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "catch_up": "last", "catch_up_most": 10}
    assert found(world.deploy(Nightly)).schedule == plain
    record = flow_events.decode(*world.log.flow_events(FLOW)[-1])
    assert isinstance(record.event, FlowDeployed)
    assert record.event.schedule == plain


def test_a_schedule_does_not_go_with_a_parameter_that_somebody_must_give(world: World) -> None:
    with pytest.raises(ScheduleNeedsDefaults, match="'Nightly' has a @schedule, and a parameter without a default: 'day'"):
        world.deploy(schedule(type("Nightly", (Nightly,), {"__module__": Nightly.__module__})))
    assert deployed(world.log, FLOW) == {}


def test_a_flow_with_mistakes_is_refused(world: World) -> None:
    class Broken(FlowSpec):
        @step
        def start(self) -> None:
            """Lead nowhere."""

        @step
        def end(self) -> None:
            """Is never reached."""

    with pytest.raises(FlowInvalid):
        world.deploy(Broken)
    assert world.log.flows() == []


def test_a_parameter_whose_type_is_the_flow_s_own_is_refused(world: World) -> None:
    class Even(click.ParamType):  # type: ignore[type-arg]  # generic since 8.5 only
        name = "even"

    class OfItsOwn(FlowSpec):
        size = Parameter("size", type=Even())

        @step
        def start(self) -> None:
            """Begin."""
            self.next(self.end)

        @step
        def end(self) -> None:
            """End."""

    with pytest.raises(ParameterNeedsCode, match="'size'"):
        world.deploy(OfItsOwn)


@pytest.mark.parametrize("name", ["", "a b", "3", "a/b"])
def test_a_name_that_is_none_is_refused(world: World, name: str) -> None:
    with pytest.raises(DeploymentNameInvalid):
        world.deploy(name=name)


# --- names ------------------------------------------------------------------------------------------------


def test_a_flow_alone_is_its_default_deployment() -> None:
    assert parse("Nightly") == parse("Nightly:default") == Reference(FLOW, "default")
    assert str(parse("Nightly")) == "Nightly"
    assert str(parse("Nightly:other")) == "Nightly:other"


@pytest.mark.parametrize("text", ["", ":", "Nightly:", ":default", "Nightly:a:b", "Night-ly", "3"])
def test_what_names_no_deployment_is_refused(text: str) -> None:
    with pytest.raises(DeploymentNameInvalid):
        parse(text)


def test_a_deployment_that_is_not_there_is_told_with_those_that_are(world: World) -> None:
    with pytest.raises(DeploymentNotFound, match="Nothing is deployed"):
        find(world.log, Reference(FLOW))
    world.deploy(name="nightly")
    with pytest.raises(DeploymentNotFound, match=r"It has: Nightly:nightly. Did you mean 'nightly'"):
        find(world.log, Reference(FLOW, "nihgtly"))
    with pytest.raises(DeploymentNotFound, match=r"'Nightli' is not deployed.\nDeployed are: Nightly. Did you mean 'Nightly'"):
        find(world.log, Reference(FlowName("Nightli")))


def test_what_is_not_deployed_cannot_be_paused(world: World) -> None:
    wanted = Reference(FLOW)
    with pytest.raises(DeploymentNotFound):
        change(world.log, wanted, existing(world.log, wanted, FlowPaused("default")), user="ada")
    assert world.log.flow_seq(FLOW) == 0


# --- asking for runs --------------------------------------------------------------------------------------


def offers(world: World, shard: str) -> list[tuple[str, Any, str]]:
    waiting = asyncio.run(SimulatedEventLog(world.server).receive(shard, b"0", 0))
    return [(entry.run, *decode_report(entry.payload)) for entry in waiting]


def test_the_offer_lies_in_the_inbox_of_the_run_s_shared_shard(world: World) -> None:
    world.deploy()
    requested = world.request()
    assert requested.run == RunId(FLOW, RunNumber(1))
    assert requested.shard == shared_shard(requested.run)
    [(run, event, principal)] = offers(world, requested.shard)
    assert (run, principal) == ("Nightly/1", "user:bob")
    assert isinstance(event, RunStarted)
    assert event.user == "bob"
    assert event.tags == ("mine",)
    assert {"user:bob", "deployment:default", "runtime:scheduler"} <= set(event.system_tags)
    assert event.trigger is not None
    assert {**event.trigger, "id": ""} == {"kind": "request", "deployment": "default", "version": 1, "id": ""}


def test_the_offer_is_what_a_run_begins_with(world: World) -> None:
    world.deploy()
    requested = world.request()
    [(_, event, principal)] = offers(world, requested.shard)
    state = RunState()
    apply(state, Record(Seq(1), 1, Micros(NOW_US), principal, 0, event))
    assert (state.flow, state.number) == ("Nightly", 1)
    assert list(state.graph.nodes) == ["start", "end"]


def test_a_run_has_its_request_and_its_line(world: World) -> None:
    world.deploy()
    world.deploy()
    requested = world.request()
    event = flow_events.decode(*world.log.flow_events(FLOW)[-1]).event
    started = requested.started
    offer = {
        "id": (started.trigger or {})["id"],
        "given": started.parameters,
        "shown": started.parameters_shown,
        "tags": ("mine",),
        "options": {},
    }
    assert event == RunRequested(1, "bob", None, "shared", "desk", "default", 2, offer=offer)
    entry = world.log.run(requested.run)
    assert isinstance(entry, RunEntry)
    assert entry.shard == requested.shard
    assert (entry.summary["status"], entry.summary["user"]) == ("requested", "bob")
    assert entry.summary["requested_us"] >= NOW_US


def test_texts_are_converted_as_on_the_command_line(world: World) -> None:
    world.deploy()
    given = {"alpha": "7", "sizes": "[3]", "names": "x,y,z", "mode": "slow", "dry": "True", "part": "0.5", "extra_text": "more"}
    requested = world.request(**given)
    assert world.values(requested) == {
        "rate": 0.5, "alpha": 7, "day": "monday", "sizes": [3], "names": ["x", "y", "z"], "mode": "slow", "author": "ada deployed",
        "extra": "more", "dry": True, "part": 0.5,
    }  # fmt: skip
    assert requested.started.parameters_shown == {
        "alpha": "7", "day": "monday", "sizes": "[3]", "names": "x,y,z", "mode": "slow", "author": "ada deployed", "extra-text": "more",
        "dry": "True", "part": "0.5",
    }  # fmt: skip


def test_the_run_s_values_are_of_the_version_that_was_deployed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.deploy()
    before = find(world.log, Reference(FLOW))
    world.deploy(user="eve")
    requested = request_run(world.log, world.store, before, Asked({"day": "monday"}, user="bob"))
    assert world.values(requested)["author"] == "ada deployed"
    assert requested.started.trigger is not None
    assert {**requested.started.trigger, "id": ""} == {"kind": "request", "deployment": "default", "version": 1, "id": ""}


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"alpha": "many"}, ParameterInvalid, "'many' is not an integer"),
        ({"mode": "medium"}, ParameterInvalid, "medium"),
        ({"sizes": "[1"}, ParameterInvalid, "JSON"),
        ({"alhpa": "1"}, ParameterUnknown, "Did you mean 'alpha'"),
        ({"day": None}, ParameterMissing, "Parameter 'day' of Nightly has no default and was not given.\nGive: --param day=VALUE."),
    ],
)
def test_a_request_that_does_not_fit_takes_no_number(world: World, given: dict[str, Any], error: type[Exception], text: str) -> None:
    world.deploy()
    seq = world.log.flow_seq(FLOW)
    with pytest.raises(error) as caught:
        world.request(**given)
    assert text in str(caught.value)
    assert world.log.flow_seq(FLOW) == seq
    assert world.log.runs(FLOW) == []


def test_a_run_of_a_paused_deployment_may_be_asked_for(world: World) -> None:
    world.deploy()
    wanted = Reference(FLOW)
    assert found(change(world.log, wanted, existing(world.log, wanted, FlowPaused("default")), user="ada")).paused
    assert world.request().deployment.paused


def test_runs_carry_the_namespace_that_was_named(world: World) -> None:
    world.deploy(namespace="team", namespace_given=True)
    started = world.request().started
    assert (started.namespace, started.tags) == ("team", ("mine", "team"))
    world.deploy(name="prod", production=True)
    started = world.request(name="prod").started
    assert (started.namespace, started.tags) == ("production:Nightly", ("mine", "production:Nightly"))


def test_a_deployment_whose_objects_are_elsewhere_names_the_host(world: World, tmp_path: Path) -> None:
    world.deploy()
    other = open_store(str(tmp_path / "other"))
    with pytest.raises(DeploymentIsElsewhere, match=r"was deployed on box, and this machine, desk, does not have it"):
        request_run(world.log, other, find(world.log, Reference(FLOW)), Asked({"day": "x"}, user="bob", host="desk"))
    with pytest.raises(DeploymentIsElsewhere, match=r"was deployed on box, this machine, and is not there any more") as gone:
        request_run(world.log, other, find(world.log, Reference(FLOW)), Asked({"day": "x"}, user="bob", host="box"))
    assert gone.value.hint == "Deploy it again. No run was started."
    assert world.log.runs(FLOW) == []


# --- manifests --------------------------------------------------------------------------------------------


def plain(world: World) -> dict[str, Any]:
    found_plain: dict[str, Any] = msgpack.unpackb(world.store.get(found(world.deploy()).manifest))
    return found_plain


def test_a_manifest_is_read_back(world: World) -> None:
    manifest = manifests.read(world.store, found(world.deploy()).manifest)
    assert manifests.write(world.store, manifest) == found(world.deploy()).manifest
    assert isinstance(manifest, DeploymentManifest)


def test_fields_of_a_later_version_are_passed_over(world: World) -> None:
    later: dict[str, Any] = {**plain(world), "later": 1}
    later["parameters"][0]["later"] = 2
    digest = world.store.put([msgpack.packb(later)])
    assert manifests.read(world.store, digest) == manifests.read(world.store, found(world.deploy()).manifest)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"graph": {}},
        {"graph": 1},
        {"flow": 1},
        {"values": "x"},
        {"parameters": [{"name": "a"}]},
        {"parameters": [{"name": "a", "attribute": "a", "kind": "new"}]},
        {"parameters": [{"name": "a", "attribute": 1}]},
        {"parameters": 3},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(world: World, changed: dict[str, Any]) -> None:
    digest = world.store.put([msgpack.packb({**plain(world), **changed})])
    with pytest.raises(NotADeployment):
        manifests.read(world.store, digest)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x80"])
def test_an_object_that_is_no_manifest_is_refused(world: World, data: bytes) -> None:
    with pytest.raises(NotADeployment):
        manifests.read(world.store, world.store.put([data]))


def test_a_damaged_manifest_is_refused(world: World) -> None:
    digest = found(world.deploy()).manifest
    path = next(path for path in (world.home / "store").rglob("*") if path.is_file() and digest.hex().endswith(path.name[-20:]))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(20)
        file.write(os.urandom(8))
    with pytest.raises(ObjectDamaged):
        manifests.read(world.store, digest)


def test_a_conflict_that_never_ends_is_told(world: World) -> None:
    class Always(SimulatedLogClient):
        def append_flow(self, flow: FlowName, expected: Seq, payload: bytes, change: Any = None) -> Seq:
            raise Conflict("somebody else")

    world.deploy()
    wanted = Reference(FLOW)
    with pytest.raises(Exception, match="changes faster than it can be read"):
        change(Always(world.server), wanted, existing(world.log, wanted, FlowPaused("default")), user="ada")
