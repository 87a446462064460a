"""From a request to the first event of a run and to what its attempts are told."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evflow import config
from evflow.core import flow_events
from evflow.core.decide import LOGIC
from evflow.core.events import RunStarted
from evflow.core.graph import Graph
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.core.tags import MOST_TAG_CHARS, MOST_TAGS, fault
from evflow.core.values import value
from evflow.errors import UsageError
from evflow.flow.parameter_values import cut, shown
from evflow.flow.steps import facts
from evflow.log.protocol import LogClient
from evflow.store import Store
from evflow.store.artifacts import ArtifactView, save
from evflow.store.logs import make_folder
from evflow.worker.spec import RunContext
from evflow_scheduler.request import RunRequest


@value
class RunFolder:
    """A run's folder on this host: the locks of its attempts."""

    path: Path

    @classmethod
    def of(cls, home: Path, run: RunId) -> "RunFolder":
        """The folder of a run below EVFLOW_HOME."""
        return cls(home / "runs" / run.flow / str(run.number))

    @property
    def locks(self) -> Path:
        """The file of the attempts' locks."""
        return self.path / "locks"

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)


@value
class Given:
    """What a run begins with: its parameters and constants.

    Attributes:
        manifest: They, as the artifacts of task 0.
        shown: The parameters for people.
    """

    manifest: bytes
    shown: dict[str, str]


@value
class PinnedCode:
    """The code package of a run, or none where the flow has no file; `warning` is for the user."""

    digest: bytes | None = None
    warning: str = ""


def package_of(flow_file: str, store: Store, home: Path) -> PinnedCode:
    """Package the folder of the flow's file."""
    if not flow_file:
        return PinnedCode()
    from evflow.store.packages import build

    package = build(store, Path(flow_file), suffixes=config.get("package_suffixes"), cache=home / "cache")
    return PinnedCode(package.digest, package.warning)


class TagInvalid(UsageError):
    """A run cannot have this tag, or so many."""

    code = "tag-invalid"

    def __init__(self, what: str) -> None:
        super().__init__(what, f"A run has at most {MOST_TAGS} tags of 1 to {MOST_TAG_CHARS} printable characters. No run was started.")


def check_tags(tags: Sequence[str]) -> None:
    """See that a run may have these tags.

    Raises:
        TagInvalid: One is empty, too long or cannot be shown, or there are too many.
    """
    if len(set(tags)) > MOST_TAGS:
        raise TagInvalid(f"The run would have {len(set(tags))} tags.")
    for tag in tags:
        wrong = fault(tag)
        if wrong is not None:
            raise TagInvalid(wrong)


def request_number(client: LogClient, request: RunRequest, host: str) -> RunId:
    """Take the flow's next run number."""
    flow = FlowName(request.flow.__name__)
    event = flow_events.RunRequested(0, request.user, str(request.origin) if request.origin else None, host=host)
    payload = flow_events.encode(event, at_us=client.now_us(), principal=f"user:{request.user}")
    newest = client.runs(flow, 1)  # The counter may be gone while a run goes on: an emptied server gets the run's line again.
    return RunId(flow, client.request_run(flow, payload, newest[0].run.number if newest else 0))


def save_parameters(store: Store, request: RunRequest) -> Given:
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
    given: Given,
    package: bytes | None,
    host: str,
    installation: str,
    store: str,
) -> RunStarted:
    """The first event of the run."""
    import evflow

    python = ".".join(map(str, sys.version_info[:3]))
    code: dict[str, Any] = {
        "file": request.flow_file,
        "package": package,
        "python": python,
        "evflow": evflow.__version__,
        "argv": [cut(word) for word in [Path(sys.argv[0]).name, *sys.argv[1:]][:50]],
    }
    options: dict[str, Any] = {
        "max_workers": request.max_workers,
        "max_splits": request.max_num_splits,
        "max_log_size_mb": request.max_log_size_mb,
        "task_budget": request.task_budget,
        "retry_scale": request.retry_scale,
        "fallback": request.fallback,
        "durability": request.durability,
        "start_method": request.start_method,
        "with": list(request.with_specs),
    }
    if request.resume_step is not None:
        options["resume_step"] = request.resume_step
    tags = (*request.tags, request.namespace) if request.namespace_given and request.namespace else request.tags
    return RunStarted(
        flow=run.flow,
        number=run.number,
        logic=LOGIC,
        graph=graph.to_plain(),
        parameters=given.manifest,
        parameters_shown=given.shown,
        options=options,
        code=code,
        user=request.user,
        namespace=request.namespace,
        tags=tuple(sorted(set(tags))),
        system_tags=(f"evflow_version:{evflow.__version__}", f"python_version:{python}", "runtime:dev", f"user:{request.user}"),
        origin=str(request.origin) if request.origin else None,
        trigger=None,
        host=host,
        installation=installation,
        store=store,
    )


def context_of(event: RunStarted, folder: RunFolder, *, shard: str, log_url: str, flow_file: str) -> RunContext:
    """What the run's attempts are told, from its first event and this host's places, which are made.

    Raises:
        StoreFull, StoreUnusable: The folder of the captured output cannot be made.
    """
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
        lock_file=str(folder.locks),
        log_folder=make_folder(event.store, RunId(FlowName(event.flow), RunNumber(event.number))),
        options={"max_log_size_mb": event.options.get("max_log_size_mb", 10), "with": event.options.get("with", ())},
    )


def shown_parameters(flow: type, values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters for people: the name that they have on the command line, and the start of the value."""
    declared = facts(flow).parameters
    return {declared[attribute].name: shown(declared[attribute], value) for attribute, value in values.items()}
