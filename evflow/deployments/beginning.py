"""What runs begin with, however they are asked for: their code, their tags, their options, their number.

The parts of `RunStarted` that a run in the foreground and a run of a deployment have in common are made here, so that both say
the same thing in the same way.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evflow import config
from evflow.core import flow_events
from evflow.core.flow_events import RunRequested
from evflow.core.ids import FlowName, RunId, Seq
from evflow.core.projects import Project
from evflow.core.tags import MOST_TAG_CHARS, MOST_TAGS, fault
from evflow.core.values import value
from evflow.errors import UsageError
from evflow.flow import dialect
from evflow.flow.decorators.limit import concurrency_of
from evflow.flow.decorators.of_class import decorators_of, written
from evflow.flow.parameter_values import cut, shown
from evflow.flow.steps import facts
from evflow.log.flow_commands import NumbersUnknown
from evflow.log.protocol import BackfillChange, Deployed, DeploymentChange, Durability, LogClient
from evflow.store.protocol import Store


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
    """The code package of a run, or none where the flow has no file; `warning` is for the user.

    It is not complete where the folder was too large for one, and it holds the flow's file alone.
    """

    digest: bytes | None = None
    warning: str = ""
    complete: bool = True


def package_of(flow_file: str, store: Store, home: Path) -> PinnedCode:
    """Package the folder of the flow's file."""
    if not flow_file:
        return PinnedCode()
    from evflow.store.packages import build

    package = build(store, Path(flow_file), suffixes=config.get("package_suffixes"), cache=home / "cache")
    return PinnedCode(package.digest, package.warning, package.complete)


class TagInvalid(UsageError):
    """A run cannot have this tag, or so many."""

    code = "tag-invalid"
    exit_code = 2

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


@value
class RunOptions:
    """The limits and wishes of a run.

    Attributes:
        max_workers: Attempts at once.
        max_num_splits: Tasks of one foreach.
        max_log_size_mb: Captured output of one attempt.
        task_budget: Tasks of the whole run.
        retry_scale: Factor on the waits of `@retry`.
        with_specs: Decorators for every step that lacks them (`retry:times=3`); a later one of a name replaces an earlier one.
        start_method: `auto`, `fork` or `spawn`.
        fallback: `local`, `wait` or `error`: what to do where a step's pool has no living worker.
        durability: When an event counts as written.
        max_run_s: How long it may take, pauses included; None: as long as it takes.
        on_failure: `fail` or `pause`: what happens when a task has no attempt left.
        priority: The run's place among those that wait for the same slots; higher ones come first.
        project: The project and branch that it is of, or None.
        cache: Steps with `@cached` may take what was done before.
    """

    max_workers: int = 16
    max_num_splits: int = 100
    max_log_size_mb: int = 10
    task_budget: int = 1_000_000
    retry_scale: float = 1.0
    with_specs: tuple[str, ...] = ()
    start_method: str = "auto"
    fallback: str = "local"
    durability: Durability = "everysec"
    on_failure: str = "fail"
    max_run_s: float | None = None
    priority: int = 0
    project: Project | None = None
    cache: bool = True

    def recorded(self, flow: type) -> dict[str, Any]:
        """As `RunStarted` has them, with what the flow itself says of its runs."""
        runs = concurrency_of(flow)
        return {
            **({} if runs is None else {"runs": runs}),
            **_exit_hooks(flow),
            **_decorators(flow),
            **({} if self.project is None else {"project": self.project.to_plain()}),
            **({} if self.max_run_s is None else {"max_run_us": round(self.max_run_s * 1e6)}),
            **({} if self.cache else {"cache": False}),
            "max_workers": self.max_workers,
            "max_splits": self.max_num_splits,
            "max_log_size_mb": self.max_log_size_mb,
            "task_budget": self.task_budget,
            "retry_scale": self.retry_scale,
            "fallback": self.fallback,
            "durability": self.durability,
            "start_method": self.start_method,
            "with": list(self.with_specs),
            "on_failure": self.on_failure,
            "priority": self.priority,
            **dialect.recorded(),
        }


def _decorators(flow: type) -> dict[str, Any]:
    """Those of the class, as texts: for whoever looks at the graph of a run."""
    found = [written(one) for one in decorators_of(flow)]
    return {"decorators": found} if found else {}


def _exit_hooks(flow: type) -> dict[str, Any]:
    if not hasattr(flow, "_evflow_exit_hooks"):
        return {}
    from evflow.flow.decorators.exit_hook import recorded

    return {"exit_hooks": recorded(flow)}


def code_of(flow_file: str, package: bytes | None) -> dict[str, Any]:
    """What is run, as `RunStarted` records it; the words are those of this process's command."""
    import evflow

    return {
        "file": flow_file,
        "package": package,
        "python": python_version(),
        "evflow": evflow.__version__,
        "argv": [cut(word) for word in [Path(sys.argv[0]).name, *sys.argv[1:]][:50]],
    }


def runtime_tags(runtime: str, project: Project | None = None) -> tuple[str, ...]:
    """The system tags that say what runs it, and which branch of which project it is of; under Metaflow's rules also its version's."""
    import evflow

    return (
        *(project.tags if project is not None else ()),
        f"evflow_version:{evflow.__version__}",
        *([f"metaflow_version:{evflow.__version__}"] if dialect.is_metaflow() else []),
        f"python_version:{python_version()}",
        f"runtime:{runtime}",
    )


def python_version() -> str:
    """The version of this Python."""
    return ".".join(map(str, sys.version_info[:3]))


def take_number(
    log: LogClient,
    flow: FlowName,
    requested: RunRequested,
    *,
    principal: str = "",
    expected: Seq | None = None,
    change: DeploymentChange | BackfillChange | None = None,
    deployed: Deployed | None = None,
    store: str = "",
) -> RunId:
    """Take the flow's next run number, for a request that names its user, who also is its principal if none is given.

    A server that remembers no number, new or emptied, goes on behind the runs that are in its index and those that were archived to the
    store: the one at the URL `store`, or the configured one. Else it is one exchange.

    Raises:
        FlowLogMoved: The flow's log does not end where it was expected to: nothing was taken.
        DeploymentMoved: Something else is deployed than what was said to be: nothing was taken.
    """
    payload = flow_events.encode(requested, at_us=log.clock_us(), principal=principal or f"user:{requested.user}")
    try:
        number = log.request_run(flow, payload, None, expected, change, deployed)
    except NumbersUnknown:
        number = log.request_run(flow, payload, _last_known(log, flow, store or config.get("store")), expected, change, deployed)
    return RunId(flow, number)


def _last_known(log: LogClient, flow: FlowName, store: str) -> int:
    from evflow.archives.reading import highest_number
    from evflow.store import open_store

    newest = log.runs(flow, 1)  # an emptied server gets the line of a run again that goes on meanwhile
    return max(newest[0].run.number if newest else 0, highest_number(open_store(store), flow))


def shown_parameters(flow: type, values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters for people: the name that they have on the command line, and the start of the value."""
    declared = facts(flow).parameters
    return {**{declared[attribute].name: shown(declared[attribute], value) for attribute, value in values.items()}, **shown_configs(flow)}


def shown_configs(flow: type) -> dict[str, str]:
    """The flow's configurations for people, as they were settled."""
    if not facts(flow).configs:
        return {}
    from evflow.flow.config_values import shown as configs_shown

    return configs_shown(flow)
