"""What an idle scheduler costs: ``python -m benchmarks.idle``.

A thousand flows are deployed, each with a schedule that does not tick meanwhile; a scheduler owns all shards, answers HTTP, and has nothing
to do. Its CPU and that of the log's server are read before and after a minute, its PSS at the end. Goals: below 1 % of a core, below 120 MB.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.processes import kill_descendants
from evflow.core import flow_events
from evflow.core.deployments import after, pack, unpacked
from evflow.core.flow_events import FlowDeployed
from evflow.core.ids import FlowName, Seq
from evflow.log import connect
from evflow.log.embedded import EmbeddedServer
from evflow.log.protocol import DeploymentChange

CPU_GOAL = 0.01
PSS_GOAL_BYTES = 120_000_000
FLOW = """
from evflow import FlowSpec, schedule, step

@schedule(cron="0 0 1 1 *")
class Idle(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Idle()
"""


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="ev-idle-", dir="/tmp") as folder:
        os.environ["EVFLOW_HOME"] = str(Path(folder) / "e")
        os.environ["EVFLOW_LINGER_S"] = "0"
        with EmbeddedServer.begin(Path(folder) / "e", linger_s=0) as server:
            url = server.ready()
            deploy(Path(folder), url, options.flows)
            try:
                cpu, server_cpu, pss = measure(Path(folder), url, options.seconds, http=not options.no_http)
            finally:
                kill_descendants()
    http = "" if options.no_http else ", with HTTP"
    print(f"idle for {options.seconds} s, {options.flows:,} schedules{http}")
    print(f"  scheduler  {cpu:.2%} of a core  (goal < {CPU_GOAL:.0%}: {'met' if cpu < CPU_GOAL else 'missed'})")
    print(f"             {pss / 1e6:.1f} MB PSS  (goal < {PSS_GOAL_BYTES / 1e6:.0f} MB: {'met' if pss < PSS_GOAL_BYTES else 'missed'})")
    print(f"  server     {server_cpu:.2%} of a core")
    return 0 if cpu < CPU_GOAL and pss < PSS_GOAL_BYTES else 1


def deploy(folder: Path, url: str, flows: int) -> None:
    """Deploy one flow, and others like it, as far as the log knows: nobody reads their code before they tick."""
    (folder / "flow.py").write_text(FLOW)
    subprocess.run([sys.executable, "flow.py", "deploy"], cwd=folder, check=True, capture_output=True)
    with closing(connect(url)) as log:
        model = unpacked(log.deployments(FlowName("Idle"))["default"])
        fields = {name: getattr(model, name) for name in FlowDeployed.__dataclass_fields__}
        for number in range(1, flows):
            plain = {**(model.schedule or {}), "cron": f"{number % 60} {number // 60 % 24} {number % 28 + 1} 1 *"}
            event = replace(FlowDeployed(**fields), schedule=plain)
            payload = flow_events.encode(event, at_us=model.deployed_us, principal="user:bench")
            then = after(None, event, model.deployed_us, "user:bench")
            assert then is not None
            log.append_flow(FlowName(f"Idle{number}"), Seq(0), payload, DeploymentChange("default", pack(then)))


def measure(folder: Path, url: str, seconds: float, *, http: bool) -> tuple[float, float, int]:
    """CPU of scheduler and server as parts of a core, and the scheduler's PSS."""
    with (folder / "log").open("wb") as said:
        command = [sys.executable, "-m", "evflow.cli", "scheduler", *(["--http", "0"] if http else [])]
        process = subprocess.Popen(command, stderr=said, start_new_session=True)
    try:
        wait_for(lambda: (folder / "log").read_text().count('"shard taken"') == 8, "the scheduler owns its shards")
        if http:
            line = next(line for line in (folder / "log").read_text().splitlines() if "HTTP is served" in line)
            address = line.partition('"address":"')[2].partition('"')[0]
            urllib.request.urlopen(f"http://{address}/metrics").read()
        time.sleep(5)  # the first look reads all deployments
        with closing(connect(url)) as log:
            server = psutil.Process(int(_server_pid(log.url)))
        mine = psutil.Process(process.pid)
        before = used_s(mine), used_s(server), time.monotonic()
        time.sleep(seconds)
        wall_s = time.monotonic() - before[2]
        pss = mine.memory_full_info().pss
        return (used_s(mine) - before[0]) / wall_s, (used_s(server) - before[1]) / wall_s, pss
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _server_pid(url: str) -> str:
    from evflow.log.wire import Wire

    with closing(Wire.connect(url)) as wire:
        text = wire.call("INFO", "server").decode()
    return next(line.partition(":")[2] for line in text.splitlines() if line.startswith("process_id:"))


def wait_for(predicate, what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not predicate():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not within a minute: {what}")
        time.sleep(0.05)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flows", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--no-http", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
