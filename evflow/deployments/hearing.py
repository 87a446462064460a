"""Events, decided once for each deployment that listens: by an event of the flow's log at the position where its reader expects it.

What becomes of an event is decided in `evflow.core.triggers`. A start is a `RunRequested`, whose number is taken in the same act; what waits is a
`TriggerReceived`, what is skipped a `TriggerSkipped` with the reason. Events that nobody listens for leave no trace.
"""

from collections.abc import Callable, Iterator, Sequence

from evflow import diagnostics
from evflow.client.publishing import stored_payload
from evflow.core.listening import pending_of, record_of, trigger_of
from evflow.core.published import Publication
from evflow.core.triggers import Decision, Heard, Trigger, decide, from_plain, names_of, wakes_us
from evflow.core.values import entity
from evflow.deployments.catalog import shown
from evflow.deployments.ledger import Known, Ledger
from evflow.deployments.ticks import ASIDE_US
from evflow.errors import EvflowError
from evflow.log.protocol import PublishedEvent
from evflow.store import Store
from evflow.store.protocol import StoreFull, StoreUnusable


@entity
class Listener:
    """One trigger of a deployment.

    Attributes:
        name: The deployment's name.
        number: Which of its triggers, from 0.
        trigger: What it wants.
        names: The names of the events that it listens for.
        looked_us: All that was published up to this instant was looked at.
        next_us: When something is to be decided though no event comes; None for never.
        aside_us: Until when it is left alone, because a store was away.
    """

    name: str
    number: int
    trigger: Trigger
    names: frozenset[str]
    looked_us: int
    next_us: int | None
    aside_us: int = 0


def listeners(flow: Known, looked_us: int) -> Iterator[Listener]:
    """The triggers of a flow's deployments.

    Args:
        flow: The flow.
        looked_us: Up to where what was published has been looked at for what is deployed.
    """
    for deployment in flow.deployments.values():
        for number, (plain, waiting) in enumerate(zip(deployment.triggers, deployment.listening, strict=False)):
            try:
                trigger = from_plain(plain)
            except ValueError as error:
                diagnostics.warning(
                    "a trigger cannot be read", deployment=shown(flow.name, deployment.name), trigger=number, why=str(error)
                )
                continue
            pending = pending_of(waiting)
            begin_us = max(pending.heard_us, looked_us)
            yield Listener(deployment.name, number, trigger, frozenset(names_of(trigger)), begin_us, wakes_us(trigger, pending))


def hear(ledger: Ledger, flow: Known, one: Listener, events: Sequence[Heard], looked_us: int, until_us: int) -> None:
    """Decide what becomes of events for one trigger, and of what waits.

    Args:
        ledger: Where decisions are recorded.
        flow: The flow.
        one: The trigger.
        events: What was published and has one of its names, in order.
        looked_us: Everything that was published up to there is among them, or has been.
        until_us: Up to when time has passed; it may be a little later, by another machine's clock.

    Raises:
        Conflict: The flow's log has moved on.
        LogUnavailable: The server is away.
    """
    try:
        while not _decide(ledger, flow, one, events, until_us):
            pass  # a run could not be asked for: what follows is decided anew on that
    except (StoreFull, StoreUnusable) as error:  # it may come back: what is not decided yet is looked at again
        diagnostics.warning("an event waits for the store", deployment=shown(flow.name, one.name), why=str(error))
        one.aside_us = one.next_us = until_us + ASIDE_US
    else:
        one.looked_us = max(one.looked_us, looked_us)
        one.next_us = wakes_us(one.trigger, pending_of(flow.deployments[one.name].listening[one.number]))


def heard(published: PublishedEvent, publication: Publication, stores: Callable[[str], Store]) -> Heard:
    """An event as triggers hear it, its payload read where it lies in a store.

    Raises:
        StoreUnusable: The store is away.
    """
    payload, unreadable = publication.payload, ""
    if publication.stored is not None:
        try:
            payload = stored_payload(stores(publication.store), publication.stored)
        except StoreUnusable:
            raise
        except EvflowError as error:
            unreadable = f"{error.code}: {error.message}"
    return Heard(published.id, publication.name, published.at_us, payload, unreadable)


def _decide(ledger: Ledger, flow: Known, one: Listener, events: Sequence[Heard], until_us: int) -> bool:
    """Decide, and carry it out; returns False as soon as something else came of it than was decided."""
    deployment = flow.deployments[one.name]
    pending = pending_of(deployment.listening[one.number])
    decisions = decide(one.trigger, pending, events, until_us, paused=deployment.paused)
    return all(_carry_out(ledger, flow, one, decision) for decision in decisions)


def _carry_out(ledger: Ledger, flow: Known, one: Listener, decision: Decision) -> bool:
    """Record a decision; returns whether it is the one that was taken."""
    deployment = flow.deployments[one.name]
    taken = True
    about = shown(flow.name, one.name)
    if decision.kind == "start":
        trigger = trigger_of(decision, deployment.name, deployment.version, one.number)
        try:
            ready = ledger.ready(deployment, decision.parameters, trigger)
        except (StoreFull, StoreUnusable):
            raise
        except EvflowError as error:
            decision = Decision("skip", decision.refs, f"{error.code}: {error.message}", decision.at_us)
            taken = False
        else:
            run = ledger.start(flow, ready, decision.at_us)
            diagnostics.info("event", run=run, deployment=about, published=decision.refs[-1].id, reason=decision.reason)
            return True
    ledger.record(flow, one.name, record_of(decision, deployment.name, deployment.version, one.number))
    if decision.kind == "skip":
        diagnostics.info(
            "event is skipped", deployment=about, published=decision.refs[-1].id if decision.refs else None, reason=decision.reason
        )
    return taken
