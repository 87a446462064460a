"""A flow to deploy, and a place to deploy it in: the simulated log and a store of files."""

from pathlib import Path
from typing import Any

import click

from evflow import FlowSpec, JSONType, Parameter, step
from evflow.core.deployments import Deployment
from evflow.core.ids import FlowName
from evflow.deployments.catalog import Change, Reference, find
from evflow.deployments.deploy import DeployRequest, deploy, prepare
from evflow.deployments.request import Asked, Requested, request_run
from evflow.flow.parameter_values import ParameterContext
from evflow.store import Store, open_store
from evflow.store.artifacts import ArtifactView
from evflow.testing.simulated_log import SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer

FLOW = FlowName("Nightly")
NOW_US = 1_764_000_000_000_000


def by_whom(context: ParameterContext) -> str:
    return f"{context.user_name} deployed"


class Nightly(FlowSpec):
    """A flow with a parameter of every kind."""

    rate = 0.5
    alpha = Parameter("alpha", default=3, help="How many.")
    day = Parameter("day", type=str, required=True)
    sizes = Parameter("sizes", type=JSONType, default="[1, 2]")
    names = Parameter("names", default="a,b", separator=",")
    mode = Parameter("mode", type=click.Choice(["fast", "slow"]), default="fast")
    author = Parameter("author", default=by_whom)
    extra = Parameter("extra-text", type=str)
    dry = Parameter("dry", default=False)
    part = Parameter("part", default=0.25)

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


class World:
    """A log, a store, and a folder with a flow's file."""

    def __init__(self, folder: Path) -> None:
        self.server = SimulatedServer(lambda: NOW_US)
        self.log = SimulatedLogClient(self.server)
        self.home = folder / "home"
        self.store: Store = open_store(str(self.home / "store"))
        self.file = folder / "code" / "nightly.py"
        self.file.parent.mkdir()
        self.file.write_text("x = 1\n")

    def deploy(self, flow: type = Nightly, **changed: Any) -> Change:
        fields: dict[str, Any] = {"flow_file": str(self.file), "user": "ada", "host": "box", "namespace": "user:ada", **changed}
        request = DeployRequest(flow=flow, **fields)
        return deploy(self.log, request, prepare(request, self.store, self.home))

    def request(self, *, name: str = "default", user: str = "bob", **given: object) -> Requested:
        asked = Asked({"day": "monday", **given}, ("mine",), user, "desk")
        return request_run(self.log, self.store, find(self.log, Reference(FLOW, name)), asked)

    def values(self, requested: Requested) -> dict[str, Any]:
        view = ArtifactView.open(self.store, requested.started.parameters)
        return {name: view.load(name) for name in view.names()}


def found(change: Change) -> Deployment:
    assert change.deployment is not None
    return change.deployment
