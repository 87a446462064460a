"""Kill a scheduler that has so many live runs, and time until another one has continued all of them: ``takeover.py COUNT``.

Each run has begun, and its first task waits for a slot, or runs. The other scheduler is started when the first one is dead. So the time
has its start in it, and the wait for the dead one's leases, which hold four seconds.
"""

import json
import sys
import time

from fleet import Fleet, wait_for

from evflow import DeployedFlow
from evflow.core.ids import FlowName

WITHIN_S = 300.0
FLOW = FlowName("Waiting")
count = int(sys.argv[1])
with Fleet() as fleet:
    fleet.deploy()
    first = fleet.scheduler(slots=2)
    flow = DeployedFlow.from_deployment(FLOW)
    for _ in range(count):
        flow.trigger()
    wait_for(lambda: all(run.summary["status"] == "running" for run in fleet.log.runs(FLOW)), "all runs have begun", WITHIN_S, 0.5)
    live = fleet.log.runs(FLOW)
    heads = [(run, fleet.log.head(run.shard, run.run).seq) for run in live]
    if len(heads) != count:
        raise AssertionError(f"{len(heads)} of {count} runs began")
    first.kill()
    first.wait()
    begin_s = time.monotonic()
    second = fleet.scheduler(slots=2)
    owned_s = time.monotonic() - begin_s

    def all_continued() -> bool:
        """Look at one after the other, from the first that was not continued when it was last looked at."""
        while heads and fleet.log.head(heads[-1][0].shard, heads[-1][0].run).seq > heads[-1][1]:
            heads.pop()
        return not heads

    wait_for(all_continued, "all runs are continued", WITHIN_S)
    continued_s = time.monotonic() - begin_s
    second.kill()
print(json.dumps({"owned": owned_s, "continued": continued_s}))
