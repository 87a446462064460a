"""A wide foreach whose tasks are dispatched to a platform of containers: ``cloud.py WIDTH batch|arrays|kubernetes RATE``.

A deployed flow on one scheduler; the platform is a double (`cloud_double.py`) in a process of its own, which holds all jobs back until the last one has been
submitted. So what is measured until then is the dispatch alone, and the CPU time is that of all that a task costs the scheduler, to its end.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
from fleet import Fleet, wait_for

from evflow import DeployedFlow

WARM = 20


def used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def asked(port: int, path: str) -> dict[str, list[float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return dict(json.load(answer))


def busiest(instants: list[float]) -> int:
    """The most calls of any second."""
    first = most = 0
    for last, at in enumerate(instants):
        while instants[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def main(width: int, what: str, rate: str) -> dict[str, float]:
    platform = "kubernetes" if what == "kubernetes" else "batch"
    os.environ.update(
        EVFLOW_REPORT_VIA="log",
        EVFLOW_BATCH_RATE=rate,
        EVFLOW_KUBERNETES_RATE=rate,
        EVFLOW_BATCH_JOB_QUEUE="queue",
        EVFLOW_BATCH_ARRAY_LEAST="20" if what == "arrays" else "0",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        AWS_DEFAULT_REGION="eu-west-1",
        AWS_EC2_METADATA_DISABLED="true",
    )
    with Fleet() as fleet:
        double = subprocess.Popen([sys.executable, "cloud_double.py", platform, fleet.log.url], stdout=subprocess.PIPE, text=True)
        try:
            assert double.stdout is not None
            return measure(fleet, int(double.stdout.readline()), width, platform)
        finally:
            double.kill()
            double.wait()


def measure(fleet: Fleet, port: int, width: int, platform: str) -> dict[str, float]:
    os.environ["EVFLOW_AWS_ENDPOINT"] = f"http://127.0.0.1:{port}"
    os.environ["KUBECONFIG"] = str(Path("kubeconfig").resolve())
    named = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}, "user": {"token": "t"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "here"}}
    config = {"kind": "Config", "current-context": "here", "clusters": [named], "users": [named], "contexts": [context]}
    Path("kubeconfig").write_text(json.dumps(config))
    source = Path("flow.py").read_text().replace("    @step\n    def work", f"    @{platform}\n    @step\n    def work")
    Path("flow.py").write_text(source.replace("import FlowSpec", f"import {platform}, FlowSpec"))
    fleet.deploy("--max-num-splits", str(width), "--max-workers", str(width + WARM))
    scheduler = psutil.Process(fleet.scheduler().pid)
    flow = DeployedFlow.from_deployment("Wide")

    def submitted() -> list[float]:
        return asked(port, "/calls").get("submitjob", [])

    asked(port, "/go")  # the double runs what comes; the first run loads the code and the client
    flow.trigger(n=WARM)
    wait_for(lambda: fleet.succeeded("Wide") == 1, "the first run is over")
    asked(port, "/hold")
    before, before_s, began_s = len(submitted()), used_s(scheduler), time.monotonic()
    flow.trigger(n=width)
    wait_for(lambda: len(asked(port, "/jobs")["at"]) == WARM + width, "all tasks are submitted", within_s=600, every_s=0.25)
    instants = submitted()[before:]
    dispatched_s = used_s(scheduler) - before_s
    calls = sorted(at for some in asked(port, "/calls").values() for at in some if at >= began_s)
    asked(port, "/go")
    wait_for(lambda: fleet.succeeded("Wide") == 2, "the run is over", within_s=600, every_s=0.1)
    to_the_end = sorted(at for some in asked(port, "/calls").values() for at in some if at >= began_s)
    return {
        "submits": (len(instants) - 1) / (instants[-1] - instants[0]) if len(instants) > 1 else 0.0,
        "dispatched": instants[-1] - began_s,
        "tasks": width / (instants[-1] - began_s),
        "calls": len(calls),
        "busiest": busiest(to_the_end),
        "cpu": (used_s(scheduler) - before_s) / width * 1000,
        "cpu_dispatch": dispatched_s / width * 1000,
        "all": time.monotonic() - began_s,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), *sys.argv[2:])))
