"""One task of a past run again, here and now: `python flow.py spin`.

A spin has the log of a run (`evflow.core.spin`), and decides, forks, times out and retries as a run does. That log is kept in memory:
there is no lease, no shard, no number of the flow's that is used up, and nobody's list of runs shows it. Its attempt leaves its
report in a folder of this process in place of an inbox. What the task writes goes to the store of the run that it is of, where
the next `evflow gc` finds that nothing refers to it.

With `persist` the log is written down at its end, into a home of its own that no run uses, with what the task left.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from evflow import clock, config
from evflow.core import events as ev
from evflow.core.codec import decode_report
from evflow.core.gangs import PARALLEL, gang_of
from evflow.core.graph import Graph
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.spin import SpinPlan, graph_of_spin, inputs_of
from evflow.core.state import RunState, Task
from evflow.core.values import field, value
from evflow.deployments.beginning import RunOptions, package_of
from evflow.deployments.environments import settle
from evflow.flow import graph_of
from evflow.flow.decorators.spec import apply_with
from evflow.flow.flowspec import FlowSpec
from evflow.flow.steps import facts
from evflow.store import ObjectStore, open_store
from evflow.store.artifacts import ArtifactView, save
from evflow.store.logs import make_folder
from evflow.worker import report
from evflow.worker.forkserver import ForkServer
from evflow.worker.method import explain
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.local import LocalExecutor
from evflow_executors.mailbox import Mailbox
from evflow_executors.protocol import Observation, OutputLine
from evflow_scheduler import early
from evflow_scheduler.drive import only_error
from evflow_scheduler.early_signals import EarlySignals
from evflow_scheduler.orders import name_of, order_of
from evflow_scheduler.request import RunRequest
from evflow_scheduler.run import OWNER, OwnedRun
from evflow_scheduler.shard import CANCEL_GRACE_S
from evflow_scheduler.signals import cancel_on_signal
from evflow_scheduler.spun_log import SpinHome
from evflow_scheduler.start import shared_context, started_event, take_parameters

if TYPE_CHECKING:
    from evflow_executors.beside import WithEnvironments

_OVER = frozenset({"succeeded", "failed", "cancelled"})
_GRANTED = "a spin waits for nothing"
_DONE = "A spin ends with its task."


@value
class SpinRequest:
    """A spin.

    Attributes:
        flow: The flow's class, as it is now.
        flow_file: The file that defines it, absolute.
        origin: The state of the run that the task is of.
        task: The task's id there.
        user: Who asks for it.
        namespace: The namespace of the client inside the step.
        options: Its limits and wishes.
        artifacts: What the task finds under these names, in place of what the tasks before it left.
        skip_decorators: The decorators in the source do not count.
        persist: The home to write its log to, or None.
        on_line: Takes what the step prints.
        on_notice: Takes what the user should know.
    """

    flow: type[FlowSpec]
    flow_file: str
    origin: RunState
    task: int
    user: str
    namespace: str = ""
    options: RunOptions = RunOptions()
    artifacts: Mapping[str, object] = field(default_factory=dict[str, object])
    skip_decorators: bool = False
    persist: Path | None = None
    on_line: Callable[[OutputLine], None] = lambda _: None
    on_notice: Callable[[str], None] = lambda _: None


@value
class Spun:
    """What became of a spin.

    Attributes:
        state: Its run's state at the end.
        task: The task that was run.
        store: Where its artifacts are.
        inputs: The manifests that it began with.
    """

    state: RunState
    task: Task
    store: ObjectStore
    inputs: tuple[bytes, ...]


def spin(request: SpinRequest) -> Spun:
    """Carry a spin out.

    Raises:
        EvflowError: It could not be started. What the step raised is no error here: the task's state tells it.
    """
    flow, origin = request.flow, request.origin
    connection = early.take_connection()
    home = SpinHome.begin(request.persist) if request.persist is not None else None
    scratch = _scratch()
    try:
        facts(flow).bare = request.skip_decorators
        apply_with(flow, request.options.with_specs)
        graph = graph_of_spin(origin.graph, graph_of(flow), origin.tasks[request.task].step)
        server = early.take_fork_server(flow, request.options.start_method, connection)
        if server.method.why and request.options.start_method == "auto":
            request.on_notice(explain(server.method))
        try:
            with EarlySignals() as signals:
                signals.keep()
                run, context, task = _prepared(request, graph, scratch, home, log_url=connection.ready())
                with only_error():
                    anyio.run(_drive, request, server, run, context, task, signals)
        finally:
            server.stop()
        store = open_store(context.store_url)
        if home is not None:
            home.keep(run, task, store)
        return Spun(run.state, task, store, tuple(manifest for _, _, manifest in order_of(run.state, task).parents))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if home is not None:
            home.release()
        connection.release()


def _scratch() -> str:
    """A folder for locks, reports and output; those of spins that were killed are removed."""
    prefix = "evflow-spin-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another spin removes it
            if pid.isdecimal() and left.stat().st_uid == os.getuid() and not _lives(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _prepared(
    request: SpinRequest, graph: Graph, scratch: str, home: SpinHome | None, *, log_url: str
) -> tuple[OwnedRun, RunContext, Task]:
    """The run up to the moment at which the task waits for a slot, and what its attempts are told."""
    flow, origin = request.flow, request.origin
    then = RunId(FlowName(origin.flow), RunNumber(origin.number))
    store = open_store(origin.header["store"])
    names = {attribute: parameter.name for attribute, parameter in facts(flow).parameters.items()}
    changed = {names[name]: given for name, given in request.artifacts.items() if name in names}
    others = {name: given for name, given in request.artifacts.items() if name not in names}
    asked = RunRequest(
        flow=flow, flow_file=request.flow_file, namespace=request.namespace, user=request.user, options=_options(request), origin=then,
        changed=changed,
    )  # fmt: skip
    given = take_parameters(store, asked, origin)
    instead: dict[int, bytes] = {}
    if others:
        for number in inputs_of(origin, request.task):
            left = origin.tasks[number].manifest
            if number and left is not None:
                instead[number] = save(store, others, ArtifactView.open(store, left)).manifest
            elif left is not None:
                given = replace(given, manifest=save(store, others, ArtifactView.open(store, given.manifest)).manifest)
    # Without a home there is no counter to ask. Nobody is to take the number for that of a run of the flow, or of another spin.
    run_id = home.request(then, request.user) if home is not None else RunId(then.flow, RunNumber(clock.now_us()))
    package = package_of(request.flow_file, store, config.home()).digest if home is not None else None
    # What the run found counts, as long as the step asks for the same; no other step is run.
    step, before = origin.tasks[request.task].step, origin.options.get("environments", ())
    may_go_on = config.get("fallback") == "local" and config.source("fallback").layer != "default"
    environments = settle(flow, store, config.home(), before=before, only=step, may_go_on=may_go_on, notice=request.on_notice)
    started = started_event(
        run_id, asked, graph, environments=environments.recorded, given=given, package=package, host=os.uname().nodename,
        installation=home.installation if home is not None else "", store=home.store.url if home is not None else store.url,
    )  # fmt: skip
    run, plan = OwnedRun(run_id), SpinPlan(origin, request.task, instead)
    run.turn([(fact, f"user:{request.user}", 0) for fact in (started, *environments.facts)], clock.now_us())
    while reused := plan.reusable(run.state):
        run.turn([(event, OWNER, 0) for event in reused], clock.now_us())
    shared = shared_context(started, shard="", log_url=log_url, flow_file=request.flow_file)
    options = {**shared.options, "reports": scratch, "skip_decorators": request.skip_decorators}
    folder = make_folder(home.store.url, run_id) if home is not None else scratch
    context = replace(shared, store_url=store.url, lock_file=f"{scratch}/locks", log_folder=folder, options=options)
    task = plan.target(run.state)
    assert task is not None  # everything before it was taken over
    return run, context, task


def _options(request: SpinRequest) -> RunOptions:
    """The request's, which allow what the origin did: its splits are taken over."""
    then = request.origin.options
    gang = gang_of(request.origin.tasks[request.task])
    return replace(
        request.options,
        max_num_splits=max(request.options.max_num_splits, then.get("max_splits", 0), gang.size if gang is not None else 0),
        task_budget=max(request.options.task_budget, len(request.origin.tasks) + then.get("max_splits", 0)),
    )


async def _drive(request: SpinRequest, server: ForkServer, run: OwnedRun, context: RunContext, task: Task, signals: EarlySignals) -> None:
    """Run the task until it has its outcome; its run is over then, and sealed."""
    executor = _executor(request, LocalExecutor(server), context)
    mail: Mailbox[Observation | OutputLine | ev.RunCancelRequested] = Mailbox(1_000)

    async def watch() -> None:
        async for seen in executor.watch():
            await mail.put(seen)

    try:
        await executor.prepare(context)
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            group.start_soon(cancel_on_signal, mail.put, request.on_notice, signals)
            await _until_over(request, executor, mail, run, task, context.options["reports"])
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):  # `aclose` has deadlines of its own.
            await executor.aclose()


def _executor(request: SpinRequest, here: LocalExecutor, context: RunContext) -> "LocalExecutor | WithEnvironments":
    if not context.options.get("environments"):
        return here
    from evflow_executors.beside import WithEnvironments

    return WithEnvironments(here, request.on_notice)


async def _until_over(
    request: SpinRequest,
    executor: "LocalExecutor | WithEnvironments",
    mail: "Mailbox[Observation | OutputLine | ev.RunCancelRequested]",
    run: OwnedRun,
    task: Task,
    folder: str,
) -> None:
    state = run.state
    is_node = gang_of(request.origin.tasks[request.task]) is not None
    facts: list[tuple[ev.Event, str, int]] = []
    while True:
        if task.status == "queued" and not state.stopping:
            facts.append((ev.SlotGranted(task.id, task.attempt.number, 0, _GRANTED), OWNER, 0))
        for record in run.turn(facts, clock.now_us()):
            await _act(executor, run, task, record.event, is_node=is_node)
        facts = []
        if task.status == "queued" and not state.stopping:
            continue
        if task.status in _OVER or state.over:
            break
        due = state.next_timer_us()
        await mail.wait(None if due is None else max(0.0, (due - clock.now_us()) / 1e6))
        while (seen := mail.take()) is not None:
            if isinstance(seen, OutputLine):
                request.on_line(seen)
            elif isinstance(seen, Observation):
                facts.append(_fact(seen, folder))
            else:
                facts.append((seen, f"user:{request.user}", 0))
    if not state.over:
        run.turn([(ev.RunCancelRequested(_DONE), OWNER, 0)], clock.now_us())
    run.seal(clock.now_us())


def _fact(seen: Observation, folder: str) -> tuple[ev.Event, str, int]:
    """What was observed; of a process that ended, what it had reported before."""
    if isinstance(seen.event, ev.AttemptStarted):
        return seen.event, f"executor:{seen.event.host}", 0
    with suppress(FileNotFoundError):
        event, principal = decode_report(Path(report.place_of(folder, seen.attempt.task, seen.attempt.attempt)).read_bytes())
        return event, principal, 0
    return seen.event, "executor", 0


async def _act(executor: "LocalExecutor | WithEnvironments", run: OwnedRun, task: Task, event: ev.Event, *, is_node: bool) -> None:
    if isinstance(event, ev.TaskLaunched):
        order = order_of(run.state, task)
        await executor.launch(name_of(run.id, task), _as_node(order) if is_node else order)
    elif isinstance(event, ev.AttemptCancelRequested):
        await executor.cancel(name_of(run.id, task), grace_s=0.0 if event.reason in ("killed", "timeout") else CANCEL_GRACE_S)


def _as_node(order: AttemptOrder) -> AttemptOrder:
    """The order of a node of a gang: the spin's log has it as a member of a foreach, since its peers are not run."""
    step, task, _, index, size, items, variable = order.frames[-1]
    return replace(order, frames=(*order.frames[:-1], (step, task, PARALLEL, index, size, items, variable)))
