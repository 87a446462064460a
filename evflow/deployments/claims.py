"""Claim a run's number anew, or give the run up: for an owner whose server has lost the whole log of a run that began.

See `evflow.core.claims`. A number that nobody has is taken again with the request that the run must have had, and what is deployed, or a backfill, changes in
the same act as it did: so its tick or event is not decided a second time. Ticks of a backfill are decided in their order: where those before a run's own
were lost as well, all of them are decided again, and the run is given up. A run that is given up is told in the flow's log.
"""

from dataclasses import asdict
from typing import Any, Final

from evflow import diagnostics
from evflow.core import backfill, deployments, flow_events
from evflow.core.claims import claim
from evflow.core.codec import decode
from evflow.core.events import RunStarted
from evflow.core.flow_events import RunGivenUp, RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.deployments.finding import records
from evflow.deployments.refusals import give_up
from evflow.deployments.request import offer_of
from evflow.errors import Conflict
from evflow.log.protocol import BackfillChange, DeploymentChange, LogClient

PRINCIPAL: Final = "scheduler"


def claim_again(log: LogClient, run: RunId, first: bytes) -> str:
    """See whether a run may be written again, and claim its number where nobody has it.

    Args:
        log: The log.
        run: The run.
        first: Its first event.

    Returns:
        Why it must be given up; empty where its number is its own.

    Raises:
        LogUnavailable: The server is away.
    """
    event = decode(1, first).event
    if not isinstance(event, RunStarted):
        return ""  # of a version that this one does not know: nothing is known against it
    while True:
        end = log.flow_seq(run.flow)
        found = claim(run.number, asdict(event), (one.event for one in records(log, run.flow) if isinstance(one.event, RunRequested)))
        if found.verdict == "ours":
            return ""
        again = found.verdict == "free" and _leaves_out_ticks(log, run.flow, event)
        try:
            if found.verdict == "free" and not again:
                _take(log, run, event, end)
                diagnostics.warning("a lost request written again", run=run)
                return ""
            other = f" as {run.flow}/{found.other}" if found.other else ""
            why = f"its request was lost and its number given to another run of '{run.flow}'" if found.verdict == "taken" else (
                "its request was lost with those of ticks before it: the backfill asks for all of them again" if again else
                f"its request was lost, and what started it was decided again{other}"
            )  # fmt: skip
            told = RunGivenUp(run.number, why, event.user, event.trigger)
            log.append_flow(run.flow, end, flow_events.encode(told, at_us=log.now_us(), principal=PRINCIPAL))
            if found.verdict != "taken":  # else the line of this number is another run's
                give_up(log, run, why)
        except Conflict:
            continue  # somebody else appended: it is looked at again
        return why


def _leaves_out_ticks(log: LogClient, flow: FlowName, event: RunStarted) -> bool:
    """Whether ticks of its backfill stand before the run's own that nobody would decide if its request were written again."""
    trigger: dict[str, Any] = dict(event.trigger or {})
    held = log.backfills(flow).get(trigger.get("backfill", 0)) if trigger.get("kind") == backfill.BACKFILL else None
    return held is not None and backfill.leaves_out(backfill.unpacked(held), trigger["tick_us"])


def _take(log: LogClient, run: RunId, event: RunStarted, end: Seq) -> None:
    trigger: dict[str, Any] = dict(event.trigger or {})
    by_itself = trigger.get("kind") != "request"
    offer = None if by_itself else offer_of(event)
    asked = RunRequested(
        run.number, event.user, event.origin, "shared", event.host, str(trigger.get("deployment", "")), int(trigger.get("version", 0)),
        trigger if by_itself else None, None, offer,
    )  # fmt: skip
    change = _change(log, run.flow, asked, end)
    payload = flow_events.encode(asked, at_us=log.now_us(), principal=PRINCIPAL)
    if log.counter(run.flow) < run.number:
        log.request_run(run.flow, payload, RunNumber(run.number - 1), end, change)
    else:
        log.append_flow(run.flow, end, payload, change)


def _change(log: LogClient, flow: FlowName, asked: RunRequested, end: Seq) -> DeploymentChange | BackfillChange | None:
    """What the request changes beside the log, as it did when it was made."""
    if deployments.began_by_itself(asked):
        packed = log.deployments(flow).get(asked.deployment)
        then = None if packed is None else deployments.after(deployments.unpacked(packed), asked, 0, PRINCIPAL, end + 1)
        return None if then is None else DeploymentChange(asked.deployment, deployments.pack(then), before=packed)
    number = backfill.number_of(asked)
    held = None if number is None else log.backfills(flow).get(number)
    if number is None or held is None:
        return None
    carried = backfill.after(backfill.unpacked(held), asked, 0, PRINCIPAL, end + 1)
    return None if carried is None else BackfillChange(number, backfill.pack(carried), held)
