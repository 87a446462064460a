"""Run the chain beside this file and print, in ms, from the end of each task to the start of the next one: ``dispatched.py LEVEL``.

An attempt's process is told to start when the log has its order as durably as asked, never before: so this is an upper bound of the time from
ready to durably dispatched. It has the report, the decision, the append, what makes it durable, and the fork.
"""

import json
import subprocess
import sys
from itertools import pairwise
from statistics import median, quantiles

from evflow import config
from evflow.core import events as ev
from evflow.core.codec import decode
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import connect
from evflow.log.embedded import EmbeddedServer
from evflow.replay.load import load

level = sys.argv[1]
with EmbeddedServer.begin(config.home(), durability=level) as server:
    client = connect(server.ready())
    subprocess.run(
        [sys.executable, "flow.py", "run", "--durability", level], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    events = [decode(stored.seq, stored.payload).event for stored in load(client, RunId(FlowName("Chain"), RunNumber(1))).events]
    client.close()
ended = [event for event in events if isinstance(event, ev.AttemptSucceeded)]
if len(ended) != 50:
    raise AssertionError(f"{len(ended)} of 50 tasks ran")
gaps_ms = [(after.started_us - before.ended_us) / 1000 for before, after in pairwise(ended)]
print(json.dumps({"p50": median(gaps_ms), "p90": quantiles(gaps_ms, n=10)[-1]}))
