"""Ask for so many runs of three steps at once, and time until the last one is over: ``queue_runs.py COUNT here|reused``."""

import json
import sys
import time

from fleet import Fleet, wait_for

from evflow import DeployedFlow

count, where = int(sys.argv[1]), sys.argv[2]
with Fleet() as fleet:
    fleet.deploy(*(["--with", "pool:name=bench,reuse=True"] if where == "reused" else []))
    if where == "reused":
        fleet.worker("bench")
    fleet.scheduler()
    flow = DeployedFlow.from_deployment("ThreeSteps")
    for _ in range(20):  # the first ones load the flow's code
        flow.trigger()
    wait_for(lambda: fleet.succeeded("ThreeSteps") == 20, "the first runs are over")
    begin_s = time.monotonic()
    for _ in range(count):
        flow.trigger()
    asked_s = time.monotonic()
    wait_for(lambda: fleet.succeeded("ThreeSteps") == 20 + count, "all runs are over")
    over_s = time.monotonic()
    steps = len(fleet.stamps("end"))
if steps != 20 + count:
    raise AssertionError(f"{steps} of {20 + count} last steps ran")
print(json.dumps({"asked": asked_s - begin_s, "all": over_s - begin_s}))
