"""Run the flow beside this file on a worker of a pool, and print from each task's order to its attempt's beginning, in ms."""

import json
import os
import subprocess
import sys
import time
from statistics import median, quantiles

from evflow import config
from evflow.core import events as ev
from evflow.core.codec import decode
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import connect
from evflow.log.embedded import EmbeddedServer
from evflow.log.protocol import LogClient
from evflow.replay.load import load

os.environ["BENCH_STAMPS"] = os.devnull  # bodies stamp; here the log has the times
PYTHON = [sys.executable, "-m", "evflow.cli"]

WAYS = {"": "pool:name=bench", "reused_": "pool:name=bench,reuse=True"}
readings: dict[str, float] = {}


def gaps_ms(client: LogClient, run: int) -> list[float]:
    """From each task's order to the beginning of its attempt, as the run's log has them."""
    ordered: dict[int, int] = {}
    found: list[float] = []
    for stored in load(client, RunId(FlowName("Chain"), RunNumber(run))).events:
        record = decode(stored.seq, stored.payload)
        if isinstance(record.event, ev.TaskLaunched):
            ordered[record.event.task] = record.at_us
        elif isinstance(record.event, ev.AttemptSucceeded):
            found.append((record.event.started_us - ordered[record.event.task]) / 1000)
    return found


with EmbeddedServer.begin(config.home()) as server:
    server.ready()
    worker = subprocess.Popen([*PYTHON, "worker", "--pool", "bench", "--slots", "4"], stderr=subprocess.DEVNULL)
    try:
        while not json.loads(subprocess.run([*PYTHON, "pools", "bench", "--json"], stdout=subprocess.PIPE, check=True).stdout)[0][
            "workers"
        ]:
            time.sleep(0.05)
        for way in WAYS.values():
            for _ in range(2):  # the first one loads the flow's code
                command = [sys.executable, "flow.py", "run", "--with", way]
                subprocess.run(
                    command,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                    env={**os.environ, "EVFLOW_FALLBACK": "error"},
                )
    finally:
        worker.terminate()
        worker.wait()
    client = connect(server.ready())
    for number, name in enumerate(WAYS, start=1):
        gaps = gaps_ms(client, 2 * number)
        readings |= {f"{name}median": median(gaps), f"{name}p90": quantiles(gaps, n=10)[-1], f"{name}tasks": len(gaps)}
    client.close()
print(json.dumps(readings))
