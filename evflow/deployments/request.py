"""Ask for a run of a deployment: a number, a line in the index, and the run's first event as an offer to schedulers.

The offer is the complete `RunStarted`, in the inbox of the shared shard that is the run's: whoever owns that shard, now or later,
makes it the first event of the run's log, and needs nothing else to begin.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from evflow.core.codec import encode_report
from evflow.core.decide import LOGIC
from evflow.core.deployments import Deployment
from evflow.core.events import RunStarted
from evflow.core.flow_events import RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.limits import resolved
from evflow.core.values import field, value
from evflow.deployments.beginning import Given, check_tags, shown_parameters, take_number
from evflow.deployments.manifest import DeploymentManifest, read
from evflow.deployments.specs import FILE, stand_in
from evflow.errors import EnvironmentProblem, UsageError
from evflow.flow import parameter_values
from evflow.flow.parameters import canonical
from evflow.log.keys import shared_shard
from evflow.log.protocol import REQUESTED, LogClient, RunEntry
from evflow.store.artifacts import ArtifactView, save
from evflow.store.protocol import ObjectMissing, Store

SHARED = "shared"
"""As the shard of `RunRequested`: the shared one that follows from the run's name."""


class ParameterMissing(UsageError):
    """A parameter that a run needs was not given."""

    code = "parameter-missing"

    def __init__(self, flow: str, names: list[str]) -> None:
        what = f"Parameter '{names[0]}'" if len(names) == 1 else f"Parameters {', '.join(repr(name) for name in names)}"
        needs = "has no default and was" if len(names) == 1 else "have no defaults and were"
        given = " ".join(f"--param {name}=VALUE" for name in names)
        super().__init__(f"{what} of {flow} {needs} not given.", f"Give: {given}. No run was started.")


class FileFromElsewhere(UsageError):
    """Something that is no person at this machine names a file of it."""

    code = "file-from-elsewhere"

    def __init__(self, flow: str, name: str) -> None:
        super().__init__(
            f"Parameter '{name}' of {flow} takes a file, and no event, tick or backfill may say which one of this machine is read.",
            f"Deploy the flow with the file as its default, or ask for the run with `evflow run {flow} --param {name}=PATH`.",
        )


class DeploymentIsElsewhere(EnvironmentProblem):
    """What was deployed is not in the store as this machine sees it."""

    code = "deployment-is-elsewhere"

    def __init__(self, deployment: Deployment, here: str, missing: ObjectMissing) -> None:
        what = f"'{deployment.name}', version {deployment.version}, was deployed on {deployment.host}, "
        if deployment.host == here:
            super().__init__(f"{what}this machine, and is not there any more: {missing.message}", "Deploy it again. No run was started.")
            return
        super().__init__(
            f"{what}and this machine, {here}, does not have it: {missing.message}",
            f"Ask for the run on {deployment.host}, or deploy with a store that both machines see (EVFLOW_STORE). No run was started.",
        )


@value
class Asked:
    """Somebody's request for a run.

    Attributes:
        parameters: Parameter name to text, as on a command line, or to a value of its type.
        tags: User tags, besides the deployment's.
        user: Who asks.
        host: Where.
        trigger: What asks, where it is no person, as `RunStarted` has it.
        options: Options of the run that are other than the deployment's.
    """

    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
    tags: tuple[str, ...] = ()
    user: str = ""
    host: str = ""
    trigger: dict[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def principal(self) -> str:
        """Who caused it, as events say it."""
        return f"user:{self.user}" if self.trigger is None else "scheduler"


@value
class Ready:
    """A request that fits its deployment, and whose parameters are stored: a number makes it a run.

    Attributes:
        deployment: What to run.
        manifest: The deployment's.
        given: What the run begins with.
        asked: Who wants what.
        id: Of a request of a person: tells it from another one for the same.
    """

    deployment: Deployment
    manifest: DeploymentManifest
    given: Given
    asked: Asked
    id: str = ""

    def requested(self) -> RunRequested:
        """The event that takes the number."""
        deployment, asked = self.deployment, self.asked
        given = dict(asked.parameters) if asked.trigger is not None and asked.parameters else None
        offered = None if asked.trigger is not None else self._offered()
        return RunRequested(0, asked.user, None, SHARED, asked.host, deployment.name, deployment.version, asked.trigger, given, offered)

    def _offered(self) -> dict[str, Any]:
        """What a person's request says that nobody could know who makes its offer again: its values may be of any type, and are stored by now."""
        return _offer(self.id, self.given, self.asked.tags, self.asked.options)


@value
class Requested:
    """A run that was asked for.

    Attributes:
        run: Its name.
        shard: The shared shard that its offer lies in.
        started: The offer.
        deployment: What it is a run of.
    """

    run: RunId
    shard: str
    started: RunStarted
    deployment: Deployment


class Contents(NamedTuple):
    """What a version of a deployment is, as it lies in the store: it never changes.

    Attributes:
        manifest: Its manifest.
        values: The flow's constants and its parameters' defaults.
        held: The names of those.
    """

    manifest: DeploymentManifest
    values: ArtifactView
    held: Collection[str]


def read_contents(store: Store, deployment: Deployment, host: str) -> Contents:
    """Read a deployment from its store, on this host.

    Raises:
        DeploymentIsElsewhere, ObjectDamaged, NotADeployment: It cannot be read.
    """
    try:
        manifest = read(store, deployment.manifest)
        values = ArtifactView.open(store, manifest.values)
        return Contents(manifest, values, values.names())
    except ObjectMissing as missing:
        raise DeploymentIsElsewhere(deployment, host, missing) from missing


class KnownContents:
    """What was read of deployments: a version's contents never change, so they are read once.

    Args:
        most: So many are kept, a few kilobytes each.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[str, bytes], Contents] = {}  # by store and digest

    def of(self, store: Store, deployment: Deployment, host: str) -> Contents:
        """As `read_contents`, which is asked where they are not known."""
        name = (deployment.store, deployment.manifest)
        found = self._kept.get(name)
        if found is None:
            found = read_contents(store, deployment, host)
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[name] = found
        return found


def request_run(log: LogClient, store: Store, deployment: Deployment, asked: Asked) -> Requested:
    """Ask for a run; what can be wrong with the request is found before it takes a number.

    Args:
        log: The log.
        store: The deployment's store.
        deployment: What to run.
        asked: Who wants what.

    Raises:
        DeploymentIsElsewhere, ObjectDamaged, NotADeployment: The deployment cannot be read.
        ParameterUnknown, ParameterInvalid, ParameterMissing, TagInvalid: The request does not fit the flow.
        StoreFull, StoreUnusable: The parameters cannot be stored.
        LogUnavailable: The server cannot be used.
    """
    ready = make_ready(store, deployment, asked)
    return offer(log, ready, take_number(log, FlowName(ready.manifest.flow), ready.requested(), store=deployment.store))


def make_ready(store: Store, deployment: Deployment, asked: Asked, contents: Contents | None = None) -> Ready:
    """Do what comes before a number is taken.

    Args:
        store: The deployment's store.
        deployment: What to run.
        asked: Who wants what.
        contents: The deployment's, where it has been read.

    Raises:
        EvflowError: As `request_run`, but for the log, which is not used.
    """
    contents = contents or read_contents(store, deployment, asked.host)
    manifest, given = contents.manifest, _given(store, contents, asked)
    check_tags((*asked.tags, *manifest.tags))
    return Ready(deployment, manifest, given, asked, "" if asked.trigger is not None else os.urandom(8).hex())


def offer_of(started: RunStarted) -> dict[str, Any]:
    """What the request of a person said that led to a run's first event: enough to make the same offer again."""
    trigger = dict(started.trigger or {})
    return _offer(trigger.get("id", ""), Given(started.parameters, dict(started.parameters_shown)), started.tags, started.options)


def _offer(request: str, given: Given, tags: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": request, "given": given.manifest, "shown": given.shown, "tags": list(tags), "options": dict(options)}


def ready_again(store: Store, deployment: Deployment, requested: RunRequested) -> Ready:
    """What a request in a flow's log was made of.

    Raises:
        EvflowError: As `make_ready`.
    """
    said: dict[str, Any] | None = requested.offer
    if said is None:
        asked = Asked(requested.parameters or {}, (), requested.user, requested.host, requested.trigger)
        return make_ready(store, deployment, asked)
    # What an owner of an older version claimed anew says no more than what is given.
    asked = Asked({}, tuple(said.get("tags", ())), requested.user, requested.host, None, said.get("options", {}))
    manifest = read_contents(store, deployment, requested.host).manifest
    try:
        ArtifactView.open(store, said["given"])
    except ObjectMissing as missing:
        raise DeploymentIsElsewhere(deployment, requested.host, missing) from missing
    return Ready(deployment, manifest, Given(said["given"], said.get("shown", {})), asked, said["id"])


def offer(log: LogClient, ready: Ready, run: RunId, *, listed: bool = False, patience_s: float = 60.0) -> Requested:
    """Write the run's line in the index, unless it is listed, and offer the run to schedulers; one that began minds no second offer.

    Which log it is stands in the run's first event, and its owner puts it there.

    Args:
        log: The log.
        ready: What is asked for.
        run: The number that was taken.
        listed: The line is there.
        patience_s: How long a server that is away is waited for.

    Raises:
        LogUnavailable: The server cannot be used, for longer than the patience lasts.
    """
    deployment, asked, shard = ready.deployment, ready.asked, shared_shard(run)
    started = started_event(
        ready.manifest,
        run.number,
        parameters=ready.given.manifest,
        parameters_shown=ready.given.shown,
        user=asked.user,
        tags=asked.tags,
        trigger=asked.trigger or {"kind": "request", "deployment": deployment.name, "version": deployment.version, "id": ready.id},
        store=deployment.store,
        options=asked.options,
    )
    payload = encode_report(started, principal=asked.principal)
    if listed:
        log.report(shard, run, payload, patience_s=patience_s)
    else:
        log.offer_run(RunEntry(run, shard, _line(started, asked, log.clock_us())), payload, patience_s=patience_s)
    return Requested(run, shard, started, deployment)


def started_event(
    manifest: DeploymentManifest,
    number: RunNumber,
    *,
    parameters: bytes,
    parameters_shown: dict[str, str],
    user: str,
    tags: tuple[str, ...],
    trigger: dict[str, Any],
    store: str,
    options: Mapping[str, Any] | None = None,
) -> RunStarted:
    """The first event of a run, but for what the owner puts into it: its host, its logic, and which log it is."""
    graph, settled = resolved(manifest.graph, {**manifest.options, **(options or {})}, parameters_shown)
    about = (f"deployment:{trigger['deployment']}",) if "deployment" in trigger else ()
    return RunStarted(
        flow=manifest.flow,
        number=number,
        logic=LOGIC,
        graph=graph,
        parameters=parameters,
        parameters_shown=parameters_shown,
        options=settled,
        code=manifest.code,
        user=user,
        namespace=manifest.namespace,
        tags=tuple(sorted({*tags, *manifest.tags})),
        system_tags=(*about, *manifest.system_tags, f"user:{user}"),
        trigger=trigger,
        store=store,
    )


def _given(store: Store, contents: Contents, asked: Asked) -> Given:
    """What this run begins with, stored."""
    manifest, defaults, held = contents
    flow = stand_in(manifest.flow, manifest.parameters)
    if asked.trigger is not None:
        _check_no_files(manifest, asked)
    try:
        values = parameter_values.resolve(flow, asked.parameters, {}, user=asked.user, held=held)
    except parameter_values.ParameterMissing as missing:
        raise ParameterMissing(manifest.flow, missing.names) from None
    by_default = {spec.name: spec.default_shown for spec in manifest.parameters if spec.attribute not in values}
    shown = {**by_default, **shown_parameters(flow, values)}
    ordered = {**{spec.name: shown[spec.name] for spec in manifest.parameters}, **manifest.configs_shown}
    return Given(save(store, values, defaults).manifest if values else manifest.values, ordered)


def _check_no_files(manifest: DeploymentManifest, asked: Asked) -> None:
    given = {canonical(name) for name in asked.parameters}
    for spec in manifest.parameters:
        if spec.kind == FILE and canonical(spec.name) in given:
            raise FileFromElsewhere(manifest.flow, spec.name)


def _line(started: RunStarted, asked: Asked, now_us: int) -> dict[str, Any]:
    """The run's line in the index until its owner writes one."""
    return {
        "status": REQUESTED,
        "requested_us": now_us,
        "user": started.user,
        "host": asked.host,
        "namespace": started.namespace,
        "tags": list(started.tags),
        "system_tags": list(started.system_tags),
    }
