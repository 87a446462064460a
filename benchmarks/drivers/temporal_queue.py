"""The same three steps as activities of Temporal's: ``temporal_queue.py COUNT memory|file``, or ``temporal_queue.py ADDRESS``, its worker.

The development server, a worker process with 16 threads for activities, and this client: three processes, as evflow's scheduler, its log's
server and its client are. Each activity runs in a thread of the worker.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bench"
SLOTS = 16
WITHIN_S = 120.0


@activity.defn
def start() -> None:
    pass


@activity.defn
def middle() -> None:
    pass


@activity.defn
def end() -> None:
    with Path(os.environ["BENCH_STAMPS"]).open("a") as stamps:
        print("end", time.monotonic_ns(), file=stamps)


@workflow.defn
class ThreeSteps:
    """Start, middle, end."""

    @workflow.run
    async def run(self) -> None:
        for step in (start, middle, end):
            await workflow.execute_activity(step, start_to_close_timeout=timedelta(minutes=1))


async def connected(address: str) -> Client:
    """Connect, as soon as the server listens."""
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:  # what the SDK raises when nobody answers
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.05)


async def work(address: str) -> None:
    """Be the worker, until killed."""
    client = await connected(address)
    with ThreadPoolExecutor(SLOTS) as threads:
        await Worker(
            client,
            task_queue=QUEUE,
            workflows=[ThreeSteps],
            activities=[start, middle, end],
            activity_executor=threads,
            max_concurrent_activities=SLOTS,
        ).run()


async def run_all(client: Client, count: int, name: str) -> tuple[float, float]:
    """Start so many workflows at once and wait for all: seconds until they were asked for, and until the last was over."""
    begin_s = time.monotonic()
    asked = (client.start_workflow(ThreeSteps.run, id=f"{name}-{number}", task_queue=QUEUE) for number in range(count))
    handles = await asyncio.gather(*asked)
    asked_s = time.monotonic() - begin_s
    await asyncio.gather(*(handle.result() for handle in handles))
    return asked_s, time.monotonic() - begin_s


async def measure(address: str, count: int) -> dict[str, float]:
    client = await connected(address)
    await run_all(client, 20, "first")
    asked_s, all_s = await run_all(client, count, "run")
    return {"asked": asked_s, "all": all_s}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def main(count: int, kept_in: str) -> dict[str, float]:
    address = f"127.0.0.1:{free_port()}"
    kept = ["--db-filename", str(Path("temporal.db").resolve())] if kept_in == "file" else []
    server = Path(sys.executable).parent / "temporal"
    ip, _, port = address.partition(":")
    commands = [
        [server, "server", "start-dev", "--headless", "--ip", ip, "--port", port, "--log-level", "error", *kept],
        [sys.executable, __file__, address],
    ]
    processes: list[subprocess.Popen[bytes]] = []
    with Path("temporal.log").open("ab") as said:
        try:
            processes += [subprocess.Popen(command, stdout=said, stderr=said) for command in commands]
            readings = asyncio.run(measure(address, count))
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
    ended = Path(os.environ["BENCH_STAMPS"]).read_text().count("end")
    if ended < 20 + count:  # more where an activity was tried again
        raise AssertionError(f"{ended} of {20 + count} last steps ran")
    return readings


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(work(sys.argv[1]))
    else:
        print(json.dumps(main(int(sys.argv[1]), sys.argv[2])))
