"""Replay a run of ``Wide`` from its log: read, check the digest chain, decode, fold; then verify it."""

import json
import time

from evflow.cli import session
from evflow.collector import paused
from evflow.core import chain
from evflow.core.fold import fold
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.replay.load import load
from evflow.replay.verify import verify

with session.log() as client:
    begin = time.perf_counter()
    log = load(client, RunId(FlowName("Wide"), RunNumber(1)))
    read = time.perf_counter()
    with paused():
        fold(state := RunState(), chain.START, log.events)
    folded = time.perf_counter()
    verdict = verify(log.events, log.head)
    verified = time.perf_counter()

if not verdict.ok or state.status != "succeeded":
    raise AssertionError(f"{state.status}: {verdict.problems}")
events = len(log.events)
print(
    json.dumps(
        {
            "events": events,
            "replayed": events / (folded - begin),
            "folded": events / (folded - read),
            "verified": events / (verified - folded),
        }
    )
)
