"""`evflow continue`: go on with a run whose process died, from its log.

What must hold: no attempt of the dead owner runs beside a new one, nothing that was reported is done again, and the code is
the one that the run began with. So, in this order: make sure that the old owner is gone, take its shard, end what is left of
its attempts, read what they had reported, and only then decide that the others are lost (`evflow_scheduler.takeover`).
"""

import os
from pathlib import Path

from evflow import config
from evflow.archives import connect
from evflow.core import events as ev
from evflow.core.ids import RunId
from evflow.core.reasons import said
from evflow.core.reuse import ReusePlan
from evflow.core.state import RunState
from evflow.core.summary import summary
from evflow.core.values import value
from evflow.deployments.beginning import package_of
from evflow.errors import EnvironmentProblem, UsageError
from evflow.flow import dialect
from evflow.flow.decorators.spec import apply_with
from evflow.flow.flowspec import FlowSpec
from evflow.flow.invocation import program
from evflow.flow.loading import load_flow
from evflow.log.keys import shared_shards
from evflow.log.owners import living_owner, owner_name
from evflow.log.protocol import LeaseHeld, LogClient, RunEntry
from evflow.replay.load import RunLost, RunNotFound, events, never_began
from evflow.replay.refold import refold
from evflow.store import open_store
from evflow_scheduler.connection import Connection
from evflow_scheduler.early_signals import EarlySignals
from evflow_scheduler.foreground import fork, instead_of_pools, reuse_plan
from evflow_scheduler.request import RunView
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.start import RunFolder, context_of
from evflow_scheduler.takeover import TakeOver


class RunIsOver(UsageError):
    """The run has its outcome: there is nothing to go on with."""

    code = "run-is-over"

    def __init__(self, run: RunId, state: RunState) -> None:
        reason = f": {said(state.outcome.reason)}" if state.outcome is not None else ""
        hint = f"`evflow show {run}` shows it."
        if state.status != "succeeded":
            file = str(state.header.get("code", {}).get("file") or "")
            flow = program(file, state.header.get("options"))
            hint = f"`{flow} resume --origin-run-id {run.number}` makes a new run that reuses what it finished."
        super().__init__(f"'{run}' {state.status}{reason}.".replace("..", "."), hint)


class RunIsElsewhere(EnvironmentProblem):
    """The run lives on another machine, whose attempts cannot be ended from here."""

    code = "run-is-elsewhere"

    def __init__(self, run: RunId, host: str, here: str, what: str = "Continue") -> None:
        super().__init__(
            f"'{run}' was running on {host}; this is {here}, where its attempts and its files are not.",
            f"{what} it on {host}.",
        )


class RunIsASchedulers(UsageError):
    """The run is carried out by schedulers, in a shard that it shares with others."""

    code = "run-is-a-schedulers"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' is carried out by schedulers, and waits for one.", "`evflow scheduler` goes on with it.")


class FlowHasNoFile(UsageError):
    """The flow was defined where no file is: its code is not in the package."""

    code = "flow-has-no-file"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' runs a flow that was not defined in a file, so its code died with its process.")


@value
class _Found:
    """A run that can be continued, and what it has not yet taken over of the run that it resumes."""

    entry: RunEntry
    state: RunState
    reuse: ReusePlan | None


def continue_run(run: RunId, *, view: RunView | None = None, max_workers: int | None = None) -> int:
    """Take a run over and finish it in this process.

    Returns:
        The exit code: 0 if the run succeeded, else 1.

    Raises:
        RunNotFound: There is no such run.
        RunNeverBegan, RunLost: It has no events.
        RunIsOver: It has its outcome.
        LeaseHeld: Its owner lives.
        RunIsASchedulers: It is not this command's to go on with.
        RunIsElsewhere: It was running on another machine.
    """
    connection = Connection.begin()
    try:
        client = connect(connection.ready())
        try:
            found = _find(client, run)
        finally:
            client.close()
        return _continue(connection, found, view, max_workers)
    finally:
        if view is not None:
            view.close()
        connection.release()


def _find(client: LogClient, run: RunId) -> _Found:
    entry = client.run(run)
    if entry is None:
        raise RunNotFound(run, client)
    state = refold(events(client, entry))
    if state.status == "new":
        length = client.head(entry.shard, run).seq
        raise RunLost(run, length) if length else never_began(client, entry)
    if state.sealed:
        # The dead owner may not have come to say so in the index.
        client.index_run(RunEntry(run, entry.shard, summary(state)))
        raise RunIsOver(run, state)
    if entry.shard in shared_shards():
        raise RunIsASchedulers(run)
    host, here = state.header["host"], os.uname().nodename
    if host != here:
        raise RunIsElsewhere(run, host, here)
    held = living_owner(client, entry.shard)
    if held is not None:
        raise LeaseHeld(entry.shard, *held)
    return _Found(entry, state, _reuse(client, state))


def _reuse(client: LogClient, state: RunState) -> ReusePlan | None:
    origin = state.header["origin"]
    step = state.options.get("resume_step")
    try:
        return reuse_plan(client, RunId.parse(origin) if origin else None, step, state.graph, only=state.options.get("clone_only") is True)
    except RunNotFound:
        return None  # Its log is gone; what it had finished is made again.


def _continue(connection: Connection, found: _Found, view: RunView | None, max_workers: int | None) -> int:
    from evflow_scheduler.drive import Drive, drive

    run, header = found.entry.run, found.state.header
    connection.require(header["options"]["durability"])
    started = ev.RunStarted(**header)
    file = _code(connection, found, view)
    dialect.understand(header["options"])
    flow: type[FlowSpec] = load_flow(str(file), run.flow)
    apply_with(flow, header["options"].get("with", ()))
    folder = RunFolder.of(connection.home, run)
    folder.make()
    fork_server = fork(flow, header["options"].get("start_method", "auto"), connection, view)
    try:
        if view is not None:
            view.on_start(run)
        plan = Drive(
            connection=connection,
            context=context_of(started, folder, shard=found.entry.shard, log_url=connection.ready(), flow_file=str(file)),
            fork_server=fork_server,
            owner=owner_name(),
            user=config.get("user"),
            max_workers=max_workers or header["options"]["max_workers"],
            durability=header["options"]["durability"],
            early_signals=EarlySignals(),
            view=view,
            instead=instead_of_pools(connection, found.state.graph, header["options"].get("fallback", "local"), view),
        )
        state = drive(plan, OwnedRun(run, found.reuse), TakeOver(os.uname().nodename, config.get("user")))
    finally:
        fork_server.stop()
    return 0 if state.status == "succeeded" or (found.reuse is not None and found.reuse.has_ended(state)) else 1


def _code(connection: Connection, found: _Found, view: RunView | None) -> Path:
    """The flow's file as it was when the run began: in its place if nothing changed, else from the code package."""
    code = found.state.header["code"]
    file, digest = Path(code["file"]), code["package"]
    if not code["file"] or digest is None:
        raise FlowHasNoFile(found.entry.run)
    store = open_store(found.state.header["store"])
    store.sweep()
    if file.exists() and package_of(str(file), store, connection.home).digest == digest:
        return file
    from evflow.store.packages import unpacked

    folder = unpacked(store, digest, connection.home / "cache")
    if view is not None:
        view.on_notice(f"{file.parent} has changed since the run began; going on with the code of then, in {folder}.")
    return folder / file.name
