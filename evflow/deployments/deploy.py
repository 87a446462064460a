"""From a flow's class to a deployment: its code packaged, its defaults computed, its manifest written, its event appended.

Everything that can be wrong is found before the event: what is deployed can be run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from evflow.core.codec import encode_report
from evflow.core.deployments import Deployment
from evflow.core.events import Event
from evflow.core.flow_events import FlowDeployed
from evflow.core.graph import Graph, pool_of
from evflow.core.ids import FlowName, RunNumber
from evflow.core.projects import Project
from evflow.core.schedule import to_plain
from evflow.core.tags import SCHEDULER
from evflow.core.triggers import names_of, parameters_of, to_plain as trigger_to_plain
from evflow.core.values import field, value
from evflow.deployments.beginning import (
    PinnedCode,
    RunOptions,
    check_tags,
    code_of,
    package_of,
    python_version,
    runtime_tags,
    shown_configs,
)
from evflow.deployments.catalog import Change, Reference, change, checked_name, last_version
from evflow.deployments.environments import settle
from evflow.deployments.manifest import DeploymentManifest, write
from evflow.deployments.request import started_event
from evflow.deployments.specs import is_required, spec_of
from evflow.errors import UsageError
from evflow.flow import graph_of
from evflow.flow.decorators.project import known
from evflow.flow.decorators.schedule import schedule_of
from evflow.flow.decorators.spec import apply_with
from evflow.flow.decorators.trigger import triggers_of
from evflow.flow.parameter_values import resolve, shown
from evflow.flow.steps import facts
from evflow.log.protocol import LogClient
from evflow.store.artifacts import save
from evflow.store.protocol import Store

EXECUTORS: Final = frozenset({"batch", "kubernetes", "local"})
"""What a scheduler has, besides pools of workers."""


class FlowHasNoFile(UsageError):
    """A flow without a file has no code that could be packaged."""

    code = "flow-has-no-file"

    def __init__(self, flow: str) -> None:
        super().__init__(
            f"'{flow}' was not loaded from a file: there is no code that could be deployed.", "Write the flow into a file of its own."
        )


class PackageTooLarge(UsageError):
    """A folder is too large for a code package."""

    code = "package-too-large"

    def __init__(self, flow: str, why: str) -> None:
        super().__init__(f"'{flow}' cannot be deployed without the modules beside it. {why}", "Nothing was deployed.")


class ExecutorNotOfScheduler(UsageError):
    """A step asks for an executor that a scheduler does not have."""

    code = "executor-not-of-scheduler"

    def __init__(self, step: str, where: str, executor: str) -> None:
        super().__init__(
            f"Step '{step}' ({where}) is to run on '{executor}', which a scheduler of this version does not have.",
            f"It has {', '.join(repr(name) for name in sorted(EXECUTORS))} and pools of workers. Nothing was deployed.",
        )


class ScheduleNeedsDefaults(UsageError):
    """A run that begins by itself has nobody who gives it parameters."""

    code = "schedule-needs-defaults"

    def __init__(self, flow: str, names: list[str]) -> None:
        shown = ", ".join(f"'{name}'" for name in names)
        super().__init__(
            f"'{flow}' has a @schedule, and {'a parameter' if len(names) == 1 else 'parameters'} without a default: {shown}.",
            "Nobody is there to give a value when a tick comes: give a default. Nothing was deployed.",
        )


class TriggerNeedsDefaults(UsageError):
    """An event that starts a run gives no value for a parameter that needs one."""

    code = "trigger-needs-defaults"

    def __init__(self, flow: str, listens: str, names: list[str]) -> None:
        shown = ", ".join(f"'{name}'" for name in names)
        super().__init__(
            f"'{flow}' is triggered by {listens}, and {'a parameter' if len(names) == 1 else 'parameters'} without a default {'gets' if len(names) == 1 else 'get'} no value from "
            f"it: {shown}.",
            'Give a default, or a field of the payload: @trigger(…, parameters={"NAME": "FIELD"}). Nothing was deployed.',
        )


class ProductionDeployment(UsageError):
    """A production deployment would be replaced by one that is none."""

    code = "production-deployment"

    def __init__(self, wanted: Reference, found: Deployment) -> None:
        super().__init__(
            f"'{wanted}' is a production deployment, version {found.version} of {found.user}.",
            "Deploy with --production to replace it, or under another name: --name NAME. Nothing was deployed.",
        )


@value
class DeployRequest:
    """What is to be deployed; all resolved.

    Attributes:
        flow: The flow's class.
        flow_file: The file that defines it, absolute; empty where there is none.
        name: The deployment's name.
        namespace: The namespace of the client inside the steps.
        namespace_given: It was named for this deployment, whose runs then carry it as a tag.
        production: Runs are in the namespace `production:<Flow>`, unless another was named, and nobody replaces this by accident. Of a project's
            flow the namespace is `production:<project>.<branch>.<Flow>`.
        tags: User tags of every run.
        user: Who deploys.
        host: Where.
        options: Of every run. A scheduler refuses what it has no executor for.
    """

    flow: type
    flow_file: str
    name: str = "default"
    namespace: str = ""
    namespace_given: bool = False
    production: bool = False
    tags: tuple[str, ...] = ()
    user: str = ""
    host: str = ""
    options: RunOptions = field(default_factory=lambda: RunOptions(fallback="error"))


@value
class Prepared:
    """A deployment whose objects are in the store.

    Attributes:
        manifest: The manifest's digest.
        package: The code package.
        file: The flow's file in it.
        namespace: The namespace of the runs.
        store: URL of the store.
        schedule: When the flow runs, as `FlowDeployed` has it.
        triggers: On which events, as `FlowDeployed` has them.
    """

    manifest: bytes
    package: PinnedCode
    file: str
    namespace: str
    store: str
    schedule: dict[str, Any] | None = None
    triggers: tuple[dict[str, Any], ...] = ()


def prepare(request: DeployRequest, store: Store, home: Path) -> Prepared:
    """Check the flow and write what a deployment of it needs into the store.

    Raises:
        DeploymentNameInvalid, FlowHasNoFile, FlowInvalid, ExecutorNotOfScheduler, ParameterNeedsCode, PackageTooLarge: It cannot be deployed.
        ScheduleNeedsDefaults, TriggerNeedsDefaults: Its runs cannot begin by themselves.
        ParameterDefaultFailed, ParameterFieldTypeMismatch: A default cannot be computed.
        TagInvalid: A tag is none.
        EventTooLarge: The graph is too large for a run's first event.
        StoreFull, StoreUnusable: The store cannot be written.
    """
    flow = request.flow.__name__
    checked_name(request.name)
    if not request.flow_file:
        raise FlowHasNoFile(flow)
    check_tags(request.tags)
    apply_with(request.flow, request.options.with_specs)
    graph = graph_of(request.flow)
    check_executors(graph)
    schedule, triggers = _schedule(request.flow), _triggers(request.flow, request.options.project, request.user)
    parameters = facts(request.flow).parameters
    with known(request.options.project, flow):
        defaults = _defaults(request)
    specs = tuple(
        spec_of(parameter, shown(parameter, defaults[attribute]) if defaults.get(attribute) is not None else "")
        for attribute, parameter in parameters.items()
    )
    package = package_of(request.flow_file, store, home)
    if not package.complete:
        raise PackageTooLarge(flow, package.warning)
    project = request.options.project
    of_production = f"production:{flow if project is None else project.flow_name(flow)}"
    namespace = of_production if request.production and not request.namespace_given else request.namespace
    named = (namespace,) if namespace and (request.namespace_given or request.production) else ()
    manifest = DeploymentManifest(
        flow=flow,
        graph=graph.to_plain(),
        options=_options(request, store, home),
        code=code_of(request.flow_file, package.digest),
        values=save(store, {**facts(request.flow).constants, **defaults}).manifest,
        parameters=specs,
        namespace=namespace,
        tags=tuple(sorted({*request.tags, *named})),
        system_tags=runtime_tags(SCHEDULER, request.options.project),
        configs_shown=shown_configs(request.flow),
    )
    _check_size(manifest, request, store.url)
    return Prepared(write(store, manifest), package, Path(request.flow_file).name, namespace, store.url, schedule, triggers)


def deploy(log: LogClient, request: DeployRequest, prepared: Prepared) -> Change:
    """Append the deployment to the flow's log: from now on it is what is deployed under its name.

    Raises:
        ProductionDeployment: It would replace a production deployment by one that is none.
        DeploymentsChangeTooFast: Somebody else was faster a hundred times.
        LogUnavailable: The server cannot be used.
    """
    wanted = Reference(FlowName(request.flow.__name__), request.name)

    def decide(before: Deployment | None) -> Event:
        if before is not None and before.production and not request.production:
            raise ProductionDeployment(wanted, before)
        version = 1 + (before.version if before is not None else last_version(log, wanted))
        return _event(request, prepared, version)

    return change(log, wanted, decide, user=request.user)


def _options(request: DeployRequest, store: Store, home: Path) -> dict[str, Any]:
    """What its runs are told, the locks of its steps' environments included: all runs of a deployment have the same packages."""
    options = request.options.recorded(request.flow)
    environments = settle(request.flow, store, home).recorded
    return {**options, "environments": list(environments)} if environments else options


def _schedule(flow: type) -> dict[str, Any] | None:
    found = schedule_of(flow)
    if found is None:
        return None
    needed = [parameter.name for parameter in facts(flow).parameters.values() if is_required(parameter)]
    if needed:
        raise ScheduleNeedsDefaults(flow.__name__, needed)
    return to_plain(found)


def _triggers(flow: type, project: Project | None, user: str) -> tuple[dict[str, Any], ...]:
    needed = [parameter.name for parameter in facts(flow).parameters.values() if is_required(parameter)]
    found = triggers_of(flow, project, user=user)
    for one in found:
        missing = [name for name in needed if name not in parameters_of(one)]
        if missing:
            raise TriggerNeedsDefaults(flow.__name__, " and ".join(f"'{name}'" for name in sorted(names_of(one))), missing)
    return tuple(map(trigger_to_plain, found))


def check_executors(graph: Graph) -> None:
    """See that a scheduler has what the steps ask for.

    Raises:
        ExecutorNotOfScheduler: It has not.
    """
    for node in graph.nodes.values():
        if node.policy.executor not in EXECUTORS and pool_of(node.policy.executor) is None:
            raise ExecutorNotOfScheduler(node.name, f"{Path(node.file).name}:{node.line}", node.policy.executor)


def _event(request: DeployRequest, prepared: Prepared, version: int) -> FlowDeployed:
    import evflow

    return FlowDeployed(
        name=request.name,
        version=version,
        manifest=prepared.manifest,
        store=prepared.store,
        package=prepared.package.digest,
        file=prepared.file,
        namespace=prepared.namespace,
        production=request.production,
        user=request.user,
        host=request.host,
        evflow=evflow.__version__,
        python=python_version(),
        schedule=prepared.schedule,
        triggers=prepared.triggers,
    )


def _defaults(request: DeployRequest) -> Mapping[str, object]:
    """The default of every parameter that has one or needs none, by attribute; functions are called now, as Metaflow does on deploy."""
    needed = [attribute for attribute, parameter in facts(request.flow).parameters.items() if is_required(parameter)]
    return resolve(request.flow, {}, {}, user=request.user, held=needed)


def _check_size(manifest: DeploymentManifest, request: DeployRequest, store: str) -> None:
    """See that the first event of a run fits: better now than at each request."""
    trial: dict[str, Any] = {**{spec.name: spec.default_shown for spec in manifest.parameters}, **manifest.configs_shown}
    first = started_event(
        manifest, RunNumber(2**53), parameters=bytes(32), parameters_shown=trial, user=request.user, tags=(), trigger={}, store=store
    )
    encode_report(first, principal=f"user:{request.user}")
