"""Replay a run of ``Wide`` from its log: read, check the digest chain, decode, fold, page by page; then verify it."""

import json
import time

from evflow.cli import session
from evflow.collector import paused
from evflow.core import chain
from evflow.core.fold import fold
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.replay.load import events, load
from evflow.replay.verify import verify

RUN = RunId(FlowName("Wide"), RunNumber(1))

with session.log() as client:
    begin = time.perf_counter()
    entry = client.run(RUN)
    assert entry is not None
    with paused():
        fold(state := RunState(), chain.START, events(client, entry))
    replayed = time.perf_counter()
    log = load(client, RUN)
    read = time.perf_counter()
    with paused():
        fold(RunState(), chain.START, log.events)
    folded = time.perf_counter()
    verdict = verify(log.events, log.head)
    verified = time.perf_counter()

if not verdict.ok or state.status != "succeeded" or state.seq != len(log.events):
    raise AssertionError(f"{state.status}: {verdict.problems}")
print(
    json.dumps(
        {
            "events": state.seq,
            "replayed": state.seq / (replayed - begin),
            "folded": state.seq / (folded - read),
            "verified": state.seq / (verified - folded),
        }
    )
)
