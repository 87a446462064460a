"""Ticks of schedules, decided once: by an event of the flow's log at the position where its reader expects it.

A tick that is run is a `RunRequested`, whose number is taken in the same act; one that is skipped is a `ScheduleTicked` with the reason.
`evflow.deployments.ledger` has the act.
"""

from collections.abc import Iterator
from typing import Any, Final

from evflow import diagnostics
from evflow.core.deployments import SCHEDULE, Deployment
from evflow.core.flow_events import ScheduleTicked
from evflow.core.schedule import Due, Schedule, due, from_plain, local, next_tick_us
from evflow.core.values import entity
from evflow.deployments.catalog import shown
from evflow.deployments.ledger import Known, Ledger
from evflow.errors import EvflowError
from evflow.store.protocol import StoreFull, StoreUnusable

ASIDE_US: Final = 5_000_000
"""How long what cannot be decided is left alone: a store is away, say."""
_AHEAD_US: Final = 300_000_000
_REASON_CHARS: Final = 500


@entity
class Scheduled:
    """A deployment with a schedule, and its next tick.

    Attributes:
        name: The deployment's name.
        schedule: Its schedule.
        next_us: When its next tick comes; None for never.
    """

    name: str
    schedule: Schedule
    next_us: int | None


def scheduled(flow: Known, now_us: int) -> Iterator[Scheduled]:
    """The deployments of a flow that have a schedule."""
    for deployment in flow.deployments.values():
        if deployment.schedule is None:
            continue
        try:
            schedule = from_plain(deployment.schedule)
        except (TypeError, ValueError) as error:
            diagnostics.warning("a schedule cannot be read", deployment=shown(flow.name, deployment.name), why=str(error))
            continue
        yield Scheduled(deployment.name, schedule, next_tick_us(schedule, _decided_us(deployment)))
        if deployment.ticked_us > now_us + _AHEAD_US:
            ahead = local(schedule, deployment.ticked_us)
            diagnostics.warning("the clock went back", deployment=shown(flow.name, deployment.name), ticks_are_decided_until=ahead)


def decide_ticks(ledger: Ledger, flow: Known, one: Scheduled, now_us: int) -> None:
    """Decide the ticks of a deployment that are due.

    Raises:
        Conflict: The flow's log has moved on.
        LogUnavailable: The server is away.
    """
    deployment = flow.deployments[one.name]
    try:
        for tick in due(one.schedule, _decided_us(deployment), now_us, paused=deployment.paused):
            if tick.run:
                _run(ledger, flow, one, tick)
            else:
                _skip(ledger, flow, one, tick, tick.reason)
    except (StoreFull, StoreUnusable) as error:  # it may come back: tried again, until the tick was missed
        diagnostics.warning("a tick waits for the store", deployment=shown(flow.name, one.name), why=str(error))
        one.next_us = now_us + ASIDE_US
    else:
        one.next_us = next_tick_us(one.schedule, _decided_us(flow.deployments[one.name]))


def upcoming_us(deployment: Deployment, now_us: int) -> int | None:
    """When a deployment's next tick comes; None without a schedule, or with one that cannot be read."""
    if deployment.schedule is None:
        return None
    try:
        return next_tick_us(from_plain(deployment.schedule), max(now_us, _decided_us(deployment)))
    except (TypeError, ValueError):
        return None


def _run(ledger: Ledger, flow: Known, one: Scheduled, tick: Due) -> None:
    deployment = flow.deployments[one.name]
    try:
        ready = ledger.ready(deployment, {}, _trigger(deployment, one.schedule, tick))
    except (StoreFull, StoreUnusable):
        raise
    except EvflowError as error:
        _skip(ledger, flow, one, tick, f"{error.code}: {error.message}"[:_REASON_CHARS])
        return
    run = ledger.start(flow, ready, tick.tick_us)
    diagnostics.info("tick", run=run, deployment=shown(flow.name, one.name), tick=local(one.schedule, tick.tick_us))


def _skip(ledger: Ledger, flow: Known, one: Scheduled, tick: Due, reason: str) -> None:
    since_us = tick.since_us if tick.since_us != tick.tick_us else 0
    version = flow.deployments[one.name].version
    ledger.record(flow, one.name, ScheduleTicked(one.name, tick.tick_us, version, "skip", reason, since_us))
    at = local(one.schedule, tick.tick_us)
    diagnostics.info("tick is skipped", deployment=shown(flow.name, one.name), tick=at, reason=reason)


def _decided_us(deployment: Deployment) -> int:
    """All ticks up to here are decided; before it was deployed there were none."""
    return deployment.ticked_us or deployment.deployed_us


def _trigger(deployment: Deployment, schedule: Schedule, tick: Due) -> dict[str, Any]:
    """What started the run, as `RunRequested`, `RunStarted` and `current.trigger` have it."""
    return {
        "kind": SCHEDULE,
        "deployment": deployment.name,
        "version": deployment.version,
        "tick_us": tick.tick_us,
        "tick": local(schedule, tick.tick_us),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "reason": tick.reason,
    }
