"""What a task costs in wide runs of one scheduler, and the memory that the scheduler needs for them: ``widths.py WIDTH …``."""

import json
import sys
import time

import psutil
from fleet import SLOTS, Fleet

from evflow import DeployedFlow

SAMPLE_S = 0.25
WITHIN_S = 3600.0
widths = list(map(int, sys.argv[1:]))
readings: dict[str, float] = {}


def used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


with Fleet() as fleet:
    fleet.deploy("--max-num-splits", str(max(widths)), "--max-workers", str(SLOTS))
    scheduler = psutil.Process(fleet.scheduler().pid)
    flow = DeployedFlow.from_deployment("Wide")
    for number, width in enumerate([20, *widths], 1):  # the first one loads the flow's code
        begin_s, before_s, peak = time.monotonic(), used_s(scheduler), 0
        flow.trigger(n=width)
        while fleet.succeeded("Wide") < number:
            if time.monotonic() - begin_s > WITHIN_S:
                raise TimeoutError(f"a foreach of {width} is not over within {WITHIN_S:g} s")
            time.sleep(SAMPLE_S if width > 100 else 0.02)
            peak = max(peak, scheduler.memory_full_info().pss)
        readings[f"cost_{width}"] = (time.monotonic() - begin_s) / width * 1000
        readings[f"cpu_{width}"] = (used_s(scheduler) - before_s) / width * 1000
        readings[f"pss_{width}"] = peak / 1e6
for kind in ("cost", "cpu"):
    readings[f"{kind}_growth"] = readings[f"{kind}_{max(widths)}"] / readings[f"{kind}_{min(widths)}"]
print(json.dumps(readings))
