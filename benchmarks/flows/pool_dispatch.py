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
from evflow.replay.load import load

os.environ["BENCH_STAMPS"] = os.devnull  # bodies stamp; here the log has the times
PYTHON = [sys.executable, "-m", "evflow.cli"]

with EmbeddedServer.begin(config.home()) as server:
    server.ready()
    worker = subprocess.Popen([*PYTHON, "worker", "--pool", "bench", "--slots", "4"], stderr=subprocess.DEVNULL)
    try:
        while not json.loads(subprocess.run([*PYTHON, "pools", "bench", "--json"], stdout=subprocess.PIPE, check=True).stdout)[0][
            "workers"
        ]:
            time.sleep(0.05)
        for _ in range(2):  # the first one loads the flow's code
            command = [sys.executable, "flow.py", "run", "--with", "pool:name=bench"]
            subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env={**os.environ, "EVFLOW_FALLBACK": "error"}
            )
    finally:
        worker.terminate()
        worker.wait()
    client = connect(server.ready())
    ordered: dict[int, int] = {}
    gaps_ms: list[float] = []
    for stored in load(client, RunId(FlowName("Chain"), RunNumber(2))).events:
        record = decode(stored.seq, stored.payload)
        if isinstance(record.event, ev.TaskLaunched):
            ordered[record.event.task] = record.at_us
        elif isinstance(record.event, ev.AttemptSucceeded):
            gaps_ms.append((record.event.started_us - ordered[record.event.task]) / 1000)
    client.close()
print(json.dumps({"median": median(gaps_ms), "p90": quantiles(gaps_ms, n=10)[-1], "tasks": len(gaps_ms)}))
