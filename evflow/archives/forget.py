"""Let a run go: it leaves every list, and what only it needed is garbage once the grace of `gc` is over."""

from contextlib import suppress
from typing import Final

from evflow.archives.archiving import Archivist, FlowLogBusy, NotArchivable, Sealed
from evflow.core import flow_events
from evflow.core.flow_events import RunForgotten
from evflow.core.ids import FlowName, RunId
from evflow.core.retention import Finished, Kept, let_go
from evflow.core.summary import OVER
from evflow.errors import Conflict, UsageError
from evflow.log.archived import LINGER_S, LogKeeper
from evflow.log.keys import own_shard
from evflow.log.protocol import ArchiveChange, Head

_MOST_TRIES: Final = 100


class RunGoesOn(UsageError):
    """A run that is not over cannot be forgotten."""

    code = "run-goes-on"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' is not over, and is not forgotten.", f"`evflow cancel {run}` ends it.")


def forget(log: LogKeeper, archivist: Archivist, run: RunId, reason: str, principal: str) -> None:
    """Let a run go. Its archive stays in the store until `gc` removes it, which it does once its grace is over.

    Raises:
        RunGoesOn: It is not over.
        StoreFull, StoreUnusable: Its store cannot be used now.
        LogUnavailable: The server is away.
        FlowLogBusy: The flow's log changes faster than it can be read.
    """
    entry = log.run(run)
    shard = entry.shard if entry is not None else own_shard(run)
    sealed = _sealed(archivist, run)
    head = log.hot_head(shard, run)
    if sealed is not None:
        with suppress(NotArchivable):  # damaged, or its store is not here: there is nothing that could be kept
            archivist.archive(sealed)
    elif (head.seq and head.status != "sealed") or (not head.seq and entry is not None and entry.is_requested):
        raise RunGoesOn(run)
    _record(log, run, reason, principal)
    if head.seq:
        log.drop_run(shard, run, Head(head.seq, head.digest, "sealed"), LINGER_S)
    log.unlist(run)


def outdated(log: LogKeeper, flow: FlowName, kept: Kept, tags: frozenset[str] = frozenset()) -> list[RunId]:
    """The runs of a flow that a rule lets go, oldest first.

    Args:
        log: The log.
        flow: The flow.
        kept: The rule.
        tags: Runs that have one of these stay.
    """
    changed = log.all_tags(flow)
    over = [
        Finished(
            entry.run.number,
            int(entry.summary.get("finished_us") or entry.summary.get("requested_us") or 0),
            not tags.isdisjoint(changed[entry.run.number] if entry.run.number in changed else entry.summary.get("tags", ())),
        )
        for entry in log.runs(flow)
        if entry.summary.get("status") in OVER
    ]
    return [RunId(flow, number) for number in let_go(over, kept)]


def _sealed(archivist: Archivist, run: RunId) -> Sealed | None:
    try:
        return archivist.sealed(run)
    except NotArchivable as error:
        if error.why == "not-over":
            raise RunGoesOn(run) from error
        return None  # damaged: it goes as it is


def _record(log: LogKeeper, run: RunId, reason: str, principal: str) -> None:
    for _ in range(_MOST_TRIES):
        expected = log.flow_seq(run.flow)
        payload = flow_events.encode(RunForgotten(run.number, reason), at_us=log.now_us(), principal=principal)
        try:
            log.append_flow(run.flow, expected, payload, ArchiveChange(run, b""))
        except Conflict:
            continue
        return
    raise FlowLogBusy(run.flow)
