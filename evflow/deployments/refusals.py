"""Say of a run that it never begins, or is given up: an event of the flow's log with the reason, and the run's line in the index.

The event is the truth and comes first; who dies between the two has said it, and `evflow reindex` writes the line. It is said once.
"""

from evflow.core import flow_events
from evflow.core.events import Fact
from evflow.core.flow_events import RunRefused
from evflow.core.ids import RunId
from evflow.core.summary import GIVEN_UP, REFUSED
from evflow.deployments.finding import records, request_of
from evflow.errors import Conflict
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient, RunEntry

REASON_CHARS = 1_000


def refuse(log: LogClient, run: RunId, why: str, principal: str) -> bool:
    """Record that no scheduler can carry a run out.

    Args:
        log: The log.
        run: The run.
        why: Why.
        principal: Who says so.

    Returns:
        False where nobody had asked for the run: then nothing is recorded, whoever offered it.

    Raises:
        LogUnavailable: The server is away.
    """
    request = request_of(log, run.flow, run.number)
    if request is None:
        return False
    told = (one.event for one in records(log, run.flow, request.seq))
    if not any(isinstance(event, RunRefused) and event.number == run.number for event in told):
        _append(log, run, RunRefused(run.number, why[:REASON_CHARS]), principal)
    mark(log, run, REFUSED, why)
    return True


def give_up(log: LogClient, run: RunId, why: str) -> None:
    """Have the index say that a run was given up, whose number no other run has."""
    mark(log, run, GIVEN_UP, why)


def mark(log: LogClient, run: RunId, status: str, why: str) -> None:
    """Write it into the run's line, beside who asked for the run and when."""
    line = log.run(run)
    before = {} if line is None else line.summary
    about = {name: what for name, what in before.items() if name not in ("started_us", "finished_us")}  # there is no log of it
    about |= {"status": status, "reason": why[:REASON_CHARS]}
    log.index_run(RunEntry(run, shared_shard(run) if line is None else line.shard, about))


def _append(log: LogClient, run: RunId, event: Fact, principal: str) -> None:
    while True:
        end = log.flow_seq(run.flow)
        try:
            log.append_flow(run.flow, end, flow_events.encode(event, at_us=log.now_us(), principal=principal))
        except Conflict:
            continue  # somebody else appended
        return
