"""A run in the foreground: `python flow.py run` schedules itself, with the loop that the daemon uses.

The order of the acts is what makes it fast and safe: the embedded server starts first, so that its start overlaps with
everything else; the fork server is forked when the flow is loaded and before there is a loop or a thread; only then is
the event loop imported. Nobody waits for what can be done later.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evflow import config
from evflow.archives import connect
from evflow.core.events import Event, RunStarted
from evflow.core.graph import LOCAL, Graph
from evflow.core.ids import RunId
from evflow.core.reasons import ran_anew, taken_with
from evflow.core.reuse import ReusePlan, plan_of
from evflow.core.state import RunState
from evflow.deployments.beginning import check_tags, package_of
from evflow.deployments.environments import Environments, settle
from evflow.errors import UsageError
from evflow.flow import dialect, graph_of
from evflow.flow.decorators.spec import apply_with
from evflow.flow.flowspec import FlowSpec
from evflow.log.keys import own_shard
from evflow.log.owners import owner_name
from evflow.log.protocol import LogClient, RunEntry
from evflow.store import Store, open_store
from evflow.worker.forkserver import ForkServer
from evflow.worker.method import explain
from evflow_scheduler import early
from evflow_scheduler.connection import Connection
from evflow_scheduler.early_signals import EarlySignals
from evflow_scheduler.request import RunRequest, RunView
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.start import (
    RunFolder,
    context_of,
    request_number,
    save_parameters,
    started_event,
    take_parameters,
)

if TYPE_CHECKING:
    from evflow.log.writer import ShardWriter
    from evflow_executors.protocol import Executor
    from evflow_scheduler.shard import Batch


class RunIdFileUnwritable(UsageError):
    """`--run-id-file` names a file that cannot be written."""

    code = "run-id-file-unwritable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"The run's number cannot be written to '{file}': {why}.", "Name another file.")


class _Begun(NamedTuple):
    """What a run begins with.

    Attributes:
        started: Its first event.
        reuse: What it takes over of the run that it resumes.
        instead: Executors whose steps run on this machine, and why.
        environments: The facts that tell of its steps' environments.
    """

    started: RunStarted
    reuse: ReusePlan | None
    instead: Mapping[str, str]
    environments: Sequence[Event]


def run(flow: type[FlowSpec], request: RunRequest) -> int:
    """Carry a request out.

    Returns:
        The exit code: 0 if the run succeeded, or ended as it was meant to, else 1.

    Raises:
        EvflowError: It could not be started, or this process had to give it up; it can be continued then.
    """
    connection = early.take_connection()
    view = request.view
    try:
        apply_with(flow, request.options.with_specs)
        graph = graph_of(flow)
        fork_server = fork(flow, request.options.start_method, connection, view)
        try:
            with EarlySignals() as early_signals:
                begun = _start(request, connection, graph, early_signals)
                state = _drive(request, connection, fork_server, begun, early_signals)
                if begun.reuse is not None and view is not None and not request.quiet:
                    _tell_of_reuse(view, begun.started, begun.reuse, state)
        finally:
            fork_server.stop()
    finally:
        if view is not None:
            view.close()
        connection.release()
    return 0 if state.status == "succeeded" or (begun.reuse is not None and begun.reuse.has_ended(state)) else 1


def fork(flow: type[FlowSpec], start_method: str, connection: Connection, view: RunView | None) -> ForkServer:
    """The fork server, forked from this process when it had the flow loaded and neither loop nor thread."""
    server = early.take_fork_server(flow, start_method, connection)
    if server.method.why and start_method == "auto" and view is not None:
        view.on_notice(explain(server.method))
    return server


def _start(request: RunRequest, connection: Connection, graph: Graph, early_signals: EarlySignals) -> _Begun:
    """Take the run's number and write down what it begins with. What can fail does so before: a number is never given back."""
    check_tags(request.tags)
    _check_run_id_file(request.run_id_file)
    _check_run_id_file(request.attribute_file)
    view = request.view
    store_url: str = config.get("store")
    store = open_store(store_url)
    store.sweep()
    package = package_of(request.flow_file, store, connection.home)
    if package.warning and view is not None:
        view.on_notice(package.warning)
    client = connect(connection.require(request.options.durability))
    if request.view is not None and (evicting := connection.evicting()):
        request.view.on_notice(evicting)
    try:
        instead = instead_of_pools(connection, graph, request.options.fallback, view)
        reuse = reuse_plan(client, request.origin, request.resume_step, graph, only=request.clone_only)
        environments = environments_of(request, store, connection, reuse)
        given = save_parameters(store, request) if reuse is None else take_parameters(store, request, reuse.origin)
        host = os.uname().nodename
        early_signals.keep()
        run_id = request_number(client, request, host)
        # Before the first event: a run that has events and no line could neither be found nor continued.
        client.index_run(RunEntry(run_id, own_shard(run_id), {"status": "starting", "user": request.user, "host": host}))
        installation = client.installation()
    finally:
        client.close()
    _write_run_id(request.run_id_file, run_id)
    if view is not None:
        view.on_start(run_id)
    started = started_event(
        run_id, request, graph,
        environments=environments.recorded, given=given, package=package.digest, host=host, installation=installation, store=store_url,
    )  # fmt: skip
    return _Begun(started, reuse, instead, environments.facts)


def instead_of_pools(connection: Connection, graph: Graph, fallback: str, view: RunView | None) -> Mapping[str, str]:
    """Which executors of a graph are replaced by this machine, and why.

    Raises:
        PoolHasNoWorker: See there.
    """
    if not graph.executors - {LOCAL}:
        return {}
    from evflow_scheduler.pools import replaced

    return replaced(connection.ready(), graph, fallback, view)


def environments_of(request: RunRequest, store: Store, connection: Connection, reuse: ReusePlan | None) -> Environments:
    """The environments of the flow's steps, resolved; those of the run that is resumed, where they are asked for still.

    Raises:
        EvflowError: One cannot be resolved, and nobody has said that the run may go on without it.
    """
    notice = request.view.on_notice if request.view is not None else None
    before = reuse.origin.options.get("environments", ()) if reuse is not None else ()
    # The default is for pools: packages of other versions are no matter of where a step runs, so only somebody can allow it.
    may_go_on = request.options.fallback == "local" and config.source("fallback").layer != "default"
    return settle(request.flow, store, connection.home, before=before, may_go_on=may_go_on, notice=notice)


def reuse_plan(client: LogClient, origin: RunId | None, resume_step: str | None, graph: Graph, *, only: bool = False) -> ReusePlan | None:
    """What a resumed run takes over from its origin; None of a run that resumes none.

    Raises:
        RunNotFound: There is no such run.
        RunNeverBegan: It has no events.
    """
    if origin is None:
        return None
    from evflow.replay.load import folded

    _, state = folded(client, origin)
    return plan_of(state, graph, resume_step, only=only)


def _tell_of_reuse(view: RunView, started: RunStarted, reuse: ReusePlan, state: RunState) -> None:
    """Say what of a resumed run was run, and why it was not taken over; and what the new parameters did not reach."""
    origin = f"{reuse.origin.flow}/{reuse.origin.number}"
    taken = sum(task.reused is not None for task in state.all_tasks())
    said = taken_with(origin, reuse.origin.header["parameters_shown"], started.parameters_shown, taken)
    if said is not None:
        view.on_notice(said)
    ran = [task for task in state.all_tasks() if task.reused is None and task.attempts and task.attempt.launched_us]
    whys = [(f"{task.step}/{task.id}", why) for task in ran if (why := reuse.why(state, task)) is not None]
    for sentence in ran_anew(origin, whys):
        view.on_notice(sentence)


def _drive(
    request: RunRequest,
    connection: Connection,
    fork_server: ForkServer,
    begun: _Begun,
    early_signals: EarlySignals,
) -> RunState:
    from evflow_scheduler.drive import Drive, drive
    from evflow_scheduler.shard import Batch

    started, principal = begun.started, f"user:{request.user}"
    run_id = RunId.parse(f"{started.flow}/{started.number}")
    folder = RunFolder.of(connection.home, run_id)
    folder.make()
    view = request.view
    if view is not None and request.attribute_file is not None:
        from evflow_scheduler.announcing import AnnouncingView

        view = AnnouncingView(view, request.attribute_file, run_id)
    plan = Drive(
        connection=connection,
        context=context_of(started, folder, shard=own_shard(run_id), log_url=connection.ready(), flow_file=request.flow_file),
        fork_server=fork_server,
        owner=owner_name(),
        user=request.user,
        max_workers=request.options.max_workers,
        durability=request.options.durability,
        early_signals=early_signals,
        view=view,
        instead=begun.instead,
    )

    async def begin(run: OwnedRun, writer: "ShardWriter", executor: "Executor", elsewhere: "Mapping[str, Executor]") -> "Batch":
        del writer, executor, elsewhere
        return Batch(facts={run.id: [(fact, principal, 0) for fact in (started, *begun.environments)]})

    return drive(plan, OwnedRun(run_id, begun.reuse), begin)


def _check_run_id_file(file: str | None) -> None:
    """See that the file can be written; what it holds stays until the number is known."""
    if file is None:
        return
    try:
        if not Path(file).is_fifo():  # a pipe's reader would take this for the end
            Path(file).open("ab").close()
    except (OSError, ValueError) as error:
        raise RunIdFileUnwritable(file, getattr(error, "strerror", None) or str(error)) from error


def _write_run_id(file: str | None, run_id: RunId) -> None:
    if file is None:
        return
    try:
        line_end = "" if dialect.is_metaflow() else "\n"  # programs around Metaflow's flows compare the whole file
        Path(file).write_text(f"{run_id.number}{line_end}", encoding="utf-8")
    except OSError as error:
        raise RunIdFileUnwritable(file, error.strerror or str(error)) from error
