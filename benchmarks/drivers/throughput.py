"""Tasks a second of a deployed foreach: ``throughput.py WIDTH here|pool|reused [OPTION OF THE WORKER …]``.

From the request to the end of the run, all of its steps.
"""

import json
import sys
import time

from fleet import SLOTS, Fleet, wait_for

from evflow import DeployedFlow

width, where, options = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
POOLS = {"pool": "pool:name=bench", "reused": "pool:name=bench,reuse=True"}
placed = ["--with", POOLS[where]] if where in POOLS else []
with Fleet() as fleet:
    fleet.deploy("--max-num-splits", str(width), "--max-workers", str(SLOTS), *placed)
    if where in POOLS:
        fleet.worker("bench", *options)
    fleet.scheduler()
    flow = DeployedFlow.from_deployment("Wide")
    flow.trigger(n=20)  # the first one loads the flow's code
    wait_for(lambda: fleet.succeeded("Wide") == 1, "the first run is over")
    begin_s = time.monotonic()
    flow.trigger(n=width)
    wait_for(lambda: fleet.succeeded("Wide") == 2, "the run is over", within_s=600)
    seconds = time.monotonic() - begin_s
print(json.dumps({"rate": (width + 3) / seconds}))
