"""From an event that is published, or a run that is asked for, to the first line of the first body: ``triggers.py COUNT``.

The time begins before the call. Each run is over before the next one is asked for, so none waits for another.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable
from statistics import quantiles
from urllib.parse import urlsplit

from fleet import Fleet, wait_for

from evflow import DeployedFlow, publish_event

TOKEN = "bench"
PAUSE_S = 0.02
"""Between the end of a run and the next event: its process has ended, and everybody waits again."""


def latencies_ms(fleet: Fleet, ask: Callable[[], object], count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        before = len(fleet.stamps("end"))
        begin_s = time.monotonic()
        ask()
        wait_for(lambda before=before: len(fleet.stamps("end")) > before, "the run is over", every_s=0.002)
        found.append((fleet.stamps("begin")[-1] - begin_s) * 1000)
        time.sleep(PAUSE_S)
    return found


def percentiles(name: str, found: list[float]) -> dict[str, float]:
    cuts = quantiles(found, n=100, method="inclusive")
    return {f"{name}_p50": cuts[49], f"{name}_p99": cuts[98]}


count = int(sys.argv[1])
os.environ["EVFLOW_HTTP_TOKEN"] = TOKEN
with Fleet() as fleet:
    fleet.deploy()
    fleet.scheduler("--http", "0", "--log-format", "json")
    address = next(json.loads(line)["address"] for line in fleet.said.read_text().splitlines() if "HTTP is served" in line)
    at = urlsplit(f"//{address}")
    connection = http.client.HTTPConnection(at.hostname or "", at.port)

    def publish() -> None:
        publish_event("bench.go")

    def post() -> None:
        connection.request("POST", "/events/bench.go", body=b"{}", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 202:
            raise AssertionError(f"POST /events/bench.go answered {answer.status}")

    flow = DeployedFlow.from_deployment("ThreeSteps")
    readings = {"cold": latencies_ms(fleet, publish, 1)[0]}  # no process has the flow's code yet
    for name, ask in (("event", publish), ("http", post), ("api", flow.trigger)):
        latencies_ms(fleet, ask, 3)
        readings |= percentiles(name, latencies_ms(fleet, ask, count))
    connection.close()
print(json.dumps(readings))
