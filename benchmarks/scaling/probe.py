"""What things cost on a real server, with a real scheduler: ``python -m benchmarks.scaling --probe``.

The server's own time is read from its counters around calls of one kind. A scheduler's is that of a real `evflow scheduler` which carries
out real runs, wide ones and short ones, each task a process.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import psutil

from benchmarks.engines import FLOWS
from benchmarks.processes import kill_descendants
from benchmarks.scaling.costs import Costs, Sizes
from evflow.core.chain import extend
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.catalog import find, parse
from evflow.deployments.request import Asked, request_run
from evflow.log import connect, open_event_log
from evflow.log.embedded import EmbeddedServer
from evflow.log.keys import shard_keys, shared_shard, shared_shards
from evflow.log.protocol import AppendCall, Head, LogClient
from evflow.log.wire import Wire
from evflow.store import open_store

_PAYLOAD = b"e" * 62
"""An event of a usual size, as the simulation's runs have them."""
_ROUNDS = 1_000


@dataclass(frozen=True, slots=True)
class Work:
    """What a scheduler did in a while, and what that took."""

    appends: int
    events: int
    cpu_s: float


def probe(say: Callable[[str], None]) -> tuple[Costs, Sizes, list[Work]]:
    """Measure; a minute. The works are of short and of wide runs in turn."""
    with tempfile.TemporaryDirectory(prefix="ev-probe-", dir="/tmp") as folder:
        os.environ |= {"EVFLOW_HOME": f"{folder}/e", "EVFLOW_LINGER_S": "0"}
        with EmbeddedServer.begin(f"{folder}/e", linger_s=0) as server:
            url = server.ready()
            say("the server's own time")
            costs = anyio.run(_server_costs, url, Costs())
            say("a scheduler's time")
            with closing(connect(url)) as log, closing(Wire.connect(url)) as wire:
                works, sizes = _scheduler_works(Path(folder), log, wire, say)
            wide = works[1::2]
            return replace(costs, event_us=sum(work.cpu_s for work in wide) / sum(work.events for work in wide) * 1e6), sizes, works


# --- the server -----------------------------------------------------------------------------------------------


async def _server_costs(url: str, costs: Costs) -> Costs:
    log = await open_event_log(url)
    try:
        with closing(Wire.connect(url)) as wire:
            lease = await log.take("probe", "probe:1:1:ff", 3_600.0)

            async def append(events: int, consumed: list[list[bytes]], number: int) -> float:
                run, head = RunId(FlowName("Probe"), RunNumber(number)), Head()
                with _server_time(wire) as took:
                    for ids in consumed:
                        digest, links = head.digest, list[bytes]()
                        for _ in range(events):
                            digest = extend(digest, _PAYLOAD)
                            links.append(digest)
                        head = await log.append(lease, AppendCall(run, head, (_PAYLOAD,) * events, tuple(links), tuple(ids)))
                return took[0] / len(consumed) * 1e6

            one = await append(1, [[]] * _ROUNDS, 1)
            many = await append(50, [[]] * (_ROUNDS // 5), 2)
            event_us = (many - one) / 49
            call_us = one - event_us
            with _server_time(wire) as put:
                for _ in range(_ROUNDS):
                    await log.report("probe", RunId(FlowName("Probe"), RunNumber(3)), _PAYLOAD)
            entries: list[bytes] = []
            with _server_time(wire) as read:
                while found := await log.receive("probe", entries[-1] if entries else b"0", 0):
                    entries += [entry.id for entry in found]
            parts = [entries[first : first + 50] for first in range(0, len(entries), 50)]
            struck = await append(1, parts, 3)
            entry_us = (put[0] + read[0]) / len(entries) * 1e6 + max(0.0, struck - call_us - event_us) / 50
            with _server_time(wire) as other:
                for _ in range(_ROUNDS):
                    await log.head("probe", RunId(FlowName("Probe"), RunNumber(3)))
            return replace(
                costs, server_call_us=call_us, server_event_us=event_us, server_entry_us=entry_us, server_other_us=other[0] / _ROUNDS * 1e6
            )
    finally:
        await log.aclose()


@contextmanager
def _server_time(wire: Wire) -> Iterator[list[float]]:
    """Seconds of the server's main thread within the block."""
    took: list[float] = []
    before = _cpu_s(wire)
    yield took
    took.append(_cpu_s(wire) - before)


def _cpu_s(wire: Wire) -> float:
    info = _info(wire, "cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


def _info(wire: Wire, section: str) -> dict[str, str]:
    lines = wire.call("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


# --- a scheduler ----------------------------------------------------------------------------------------------


def _scheduler_works(folder: Path, log: LogClient, wire: Wire, say: Callable[[str], None]) -> tuple[list[Work], Sizes]:
    for name in ("two_steps", "wide"):
        (folder / name).mkdir()
        source = (FLOWS / f"{name}.py").read_text()
        (folder / name / "flow.py").write_text(source)
        subprocess.run([sys.executable, "flow.py", "deploy"], cwd=folder / name, check=True, capture_output=True)
    flows = {str(flow): flow for flow in log.flows()}
    short, wide = next(name for name in flows if name != "Wide"), "Wide"
    before = int(_info(wire, "memory")["used_memory"])
    waiting = _asked(log, short, 200)
    waiting_bytes = (int(_info(wire, "memory")["used_memory"]) - before) / len(waiting)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "evflow.cli", "scheduler"], stderr=said, cwd=folder)
        try:
            mine = psutil.Process(process.pid)
            _wait_for(log, waiting)
            _carry_out(log, wire, mine, wide, 1)
            works, taken = [], []
            for flow, count in ((short, 100), (wide, 10), (short, 100), (wide, 10)):
                say(f"{count} runs of {flow}")
                before = int(_info(wire, "memory")["used_memory"]), _aof_bytes(wire)
                works.append(_carry_out(log, wire, mine, flow, count))
                taken.append((int(_info(wire, "memory")["used_memory"]) - before[0], _aof_bytes(wire) - before[1]))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            kill_descendants()
    # Bytes of a run and of a task: two kinds of runs, of 2 and of 103 tasks.
    (short_memory, short_aof), (wide_memory, wide_aof) = ([(a + b) for a, b in zip(taken[n], taken[n + 2], strict=True)] for n in (0, 1))
    per_short, per_wide = short_memory / 200, wide_memory / 20
    task_bytes = (per_wide - per_short) / 101
    aof_task = (wide_aof / 20 - short_aof / 200) / 101
    sizes = Sizes(
        waiting_bytes,
        per_short - 2 * task_bytes,
        task_bytes,
        short_aof / 200 - 2 * aof_task,
        aof_task,
        (works[1].events + works[3].events) / 20 / 103,
    )
    return works, sizes


def _aof_bytes(wire: Wire) -> int:
    return int(_info(wire, "persistence").get("aof_current_size", "0"))


def _carry_out(log: LogClient, wire: Wire, scheduler: psutil.Process, flow: str, count: int) -> Work:
    cpu_s, appends = _used_s(scheduler), _appends(wire)
    runs = _asked(log, flow, count)
    events = _wait_for(log, runs)
    return Work(_appends(wire) - appends, events, _used_s(scheduler) - cpu_s)


def _asked(log: LogClient, flow: str, count: int) -> list[RunId]:
    deployment = find(log, parse(flow))
    store = open_store(deployment.store)
    return [request_run(log, store, deployment, Asked(user="bench", host="bench")).run for _ in range(count)]


def _wait_for(log: LogClient, runs: list[RunId]) -> int:
    """Wait until all have succeeded; answers how many events they have."""
    deadline_s = time.monotonic() + 300
    while any(log.head(shared_shard(run), run).status != "sealed" for run in runs):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not within five minutes: {len(runs)} runs")
        time.sleep(0.2)
    lines = [log.run(run) for run in runs]
    if wrong := [str(line.run) for line in lines if line is not None and line.summary["status"] != "succeeded"]:
        raise SystemExit(f"did not succeed: {wrong}: {[line.summary for line in lines if line is not None][:1]}")
    return sum(log.head(shared_shard(run), run).seq for run in runs)


def _appends(wire: Wire) -> int:
    """How many appends ever wrote events: each adds one entry to its shard's feed."""
    found = 0
    for shard in shared_shards():
        feed = shard_keys(shard).feed
        if wire.call("EXISTS", feed):
            about = wire.call("XINFO", "STREAM", feed)
            found += dict(zip(about[::2], about[1::2], strict=True))[b"entries-added"]
    return found


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
