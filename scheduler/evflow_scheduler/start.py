"""From a request to the first event of a run and to what its attempts are told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evflow.archives.users import sign
from evflow.core import flow_events
from evflow.core.decide import LOGIC
from evflow.core.events import RunStarted
from evflow.core.graph import Graph
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.limits import resolved
from evflow.core.state import RunState
from evflow.deployments.beginning import Given, code_of, runtime_tags, shown_parameters, take_number
from evflow.flow import dialect
from evflow.flow.steps import facts
from evflow.log.protocol import LogClient
from evflow.store import ObjectStore, Store, open_store
from evflow.store.artifacts import ArtifactView, save
from evflow.store.logs import make_folder
from evflow.worker.run_folder import RunFolder as RunFolder
from evflow.worker.spec import RunContext
from evflow_scheduler.request import RunRequest


def request_number(client: LogClient, request: RunRequest, host: str) -> RunId:
    """Take the flow's next run number."""
    requested = flow_events.RunRequested(0, request.user, str(request.origin) if request.origin else None, host=host)
    return take_number(client, FlowName(request.flow.__name__), requested)


def save_parameters(store: ObjectStore, request: RunRequest) -> Given:
    """Store parameters and class constants."""
    values = {**facts(request.flow).constants, **request.parameters}
    return Given(save(store, values).manifest, shown_parameters(request.flow, request.parameters))


def take_parameters(store: Store, request: RunRequest, origin: RunState) -> Given:
    """Store parameters and class constants of a resumed run: its origin's, but for those that were given anew or that it had not.

    Constants are those of the class of now, as its code is.

    Raises:
        UsageError: A value does not fit, or one is missing.
    """
    from evflow.flow.parameter_values import resolve

    found = facts(request.flow)
    then = ArtifactView.open(store, origin.header["parameters"])
    values = resolve(request.flow, request.changed, user=request.user, held=then.names())
    gone = [name for name in then.names() if name not in found.parameters and name not in found.constants]
    manifest = save(store, {**found.constants, **values}, then, removed=gone).manifest
    names = {parameter.name for parameter in found.parameters.values()}
    kept = {name: text for name, text in origin.header["parameters_shown"].items() if name in names}
    return Given(manifest, {**kept, **shown_parameters(request.flow, values)})


def started_event(
    run: RunId,
    request: RunRequest,
    graph: Graph,
    *,
    environments: Sequence[Mapping[str, Any]] = (),
    given: Given,
    package: bytes | None,
    host: str,
    installation: str,
    store: str,
) -> RunStarted:
    """The first event of the run."""
    plain, options = resolved(graph.to_plain(), request.options.recorded(request.flow), given.shown)
    if environments:
        options["environments"] = list(environments)
    if request.resume_step is not None:
        options["resume_step"] = request.resume_step
    if request.clone_only:
        options["clone_only"] = True
        options.pop("exit_hooks", None)  # no step of the run is run, so neither is what tells of its end
    tags = (*request.tags, request.namespace) if request.namespace_given and request.namespace else request.tags
    return RunStarted(
        flow=run.flow,
        number=run.number,
        logic=LOGIC,
        graph=plain,
        parameters=given.manifest,
        parameters_shown=given.shown,
        options=options,
        code=code_of(request.flow_file, package),
        user=request.user,
        namespace=request.namespace,
        tags=tuple(sorted(set(tags))),
        system_tags=(*runtime_tags("dev", request.options.project), f"user:{request.user}"),
        origin=str(request.origin) if request.origin else None,
        trigger=dict(request.trigger) if request.trigger else None,
        host=host,
        installation=installation,
        store=store,
    )


def shared_context(event: RunStarted, *, shard: str, log_url: str, flow_file: str) -> RunContext:
    """What a run's attempts are told, wherever they run: its places on a host are still to be filled in."""
    asked = {node["name"]: node["policy"]["asked"] for node in event.graph.get("steps", ()) if node.get("policy", {}).get("asked")}
    locks = {step: entry["lock"] for entry in event.options.get("environments", ()) if entry.get("lock") for step in entry["steps"]}
    return RunContext(
        flow=event.flow,
        run=event.number,
        flow_file=flow_file,
        shard=shard,
        log_url=log_url,
        store_url=event.store,
        parameters=event.parameters,
        package=event.code.get("package"),
        user=event.user,
        namespace=event.namespace,
        tags=(*event.tags, *event.system_tags),
        origin=event.origin,
        options={
            "max_log_size_mb": event.options.get("max_log_size_mb", 10),
            "with": event.options.get("with", ()),
            "start_method": event.options.get("start_method", "auto"),
            **({"project": event.options["project"]} if "project" in event.options else {}),
            **({dialect.OPTION: event.options[dialect.OPTION]} if dialect.OPTION in event.options else {}),
            "installation": event.installation,
            "cache": event.options.get("cache", True),
            **({"environments": locks} if locks else {}),
            **({"asked": asked} if asked else {}),
        },
        trigger=event.trigger if event.trigger and event.trigger.get("kind") != "request" else None,
    )


def context_of(event: RunStarted, folder: RunFolder, *, shard: str, log_url: str, flow_file: str) -> RunContext:
    """What the run's attempts are told, from its first event and this host's places, which are made.

    Raises:
        StoreFull, StoreUnusable: The folder of the captured output cannot be made.
    """
    sign(open_store(event.store), event.installation, log_url, os.uname().nodename)
    log_folder = make_folder(event.store, RunId(FlowName(event.flow), RunNumber(event.number)))
    shared = shared_context(event, shard=shard, log_url=log_url, flow_file=flow_file)
    return replace(shared, lock_file=str(folder.locks), log_folder=log_folder)
