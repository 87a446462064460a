"""The offer of a run whose number was taken by a process that may have died before it offered the run.

Whoever comes to look after a flow makes it once more; an offer may be repeated.
"""

from collections.abc import Callable

from evflow import diagnostics
from evflow.core.flow_events import RunRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.summary import OVER
from evflow.deployments.catalog import Reference, version_of
from evflow.deployments.refusals import refuse
from evflow.deployments.request import Asked, make_ready, offer, ready_again
from evflow.errors import EvflowError
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient
from evflow.store.protocol import Store, StoreFull, StoreUnusable


def offer_again(
    log: LogClient, stores: Callable[[str], Store], flow: FlowName, requested: RunRequested, asked: Asked | None = None
) -> bool:
    """See to it that a run was offered, if it has not begun; what cannot be offered is said.

    A run is of the version that it was asked of, also where that is not deployed any more.

    Args:
        log: The log.
        stores: Opens a deployment's store.
        flow: The flow.
        requested: What took the run's number.
        asked: The same, as it was asked for, where the request does not say it all.

    Returns:
        Whether no further offer is needed: it has begun, or cannot be offered.

    Raises:
        LogUnavailable, StoreFull, StoreUnusable: Not now.
    """
    run = RunId(flow, RunNumber(requested.number))
    line = log.run(run)
    # A line may be of another run of this number, one that the server has lost since: that it began is in its log.
    if log.head(shared_shard(run), run).seq or (line is not None and line.summary.get("status") in OVER):
        return True
    try:
        deployment = version_of(log, Reference(flow, requested.deployment), requested.version)
        if deployment is None:
            return _refused(log, run, f"version {requested.version} of its deployment '{requested.deployment}' is not in the log")
        store = stores(deployment.store)
        ready = ready_again(store, deployment, requested) if asked is None else make_ready(store, deployment, asked)
        offer(log, ready, run, listed=line is not None and line.is_requested, patience_s=0.0)
    except (LogUnavailable, StoreFull, StoreUnusable):
        raise
    except EvflowError as error:
        return _refused(log, run, error.message)
    diagnostics.info("run is offered again", run=run)
    return False


def _refused(log: LogClient, run: RunId, why: str) -> bool:
    diagnostics.warning("a run cannot be offered", run=run, why=why)
    refuse(log, run, f"it cannot be offered: {why}", "scheduler")
    return True
