"""What is measured of platforms of containers and of S3. Platforms are doubles (`drivers/cloud_double.py`), S3 is moto's server, the command line of AWS beside it.

Goals: 200 submits a second where the rate allows 250 calls, no second with more calls than that, 3 ms of the scheduler's CPU for a task; a gigabyte
no slower than `aws s3 cp`, with less than 200 MB.
"""

import json
import sys
from collections.abc import Callable

from benchmarks.engines import Engine
from benchmarks.processes import finish
from benchmarks.s3 import MEGABYTES, REPOSITORY
from benchmarks.scheduler_workloads import OURS, drive
from benchmarks.workloads import Lab, Metric, Readings, Workload

WIDTH = 1000
RATE = 250
"""Calls a second: the default for Kubernetes, and what an account may have on AWS Batch. Theirs is 25 by default: arrays are what makes up for it."""
CALLS = Metric("busiest", f"the most calls of any second, by the platform's clock; the rate is {RATE}", "calls/s", own_at_most=RATE)


def dispatched(platform: str) -> Callable[[Lab, Engine], Readings]:
    """A foreach whose tasks are submitted to a platform."""

    def measure(lab: Lab, engine: Engine) -> Readings:
        return drive(lab, engine, "cloud", WIDTH, platform, RATE, of="wide")

    return measure


def moved(lab: Lab, engine: Engine) -> Readings:
    """A gigabyte to S3 and back, in a process of its own: moto's server is a child of it."""
    cli = lab.folder.parent / "awscli"
    size = MEGABYTES // 10 if lab.quick else MEGABYTES
    output = lab.folder / f"s3-{engine.name}"
    arguments = ["-m", "benchmarks.s3", "--engine", engine.name, "--megabytes", str(size), "--folder", str(cli)]
    lab.folder.mkdir(parents=True, exist_ok=True)
    finish([sys.executable, *arguments], cwd=REPOSITORY, env=Engine("evflow", engine.python, "").environment(lab.folder), output=output)
    return dict(json.loads(output.read_text().splitlines()[-1]))


def _costs(*more: Metric) -> tuple[Metric, ...]:
    return (
        *more,
        Metric("dispatched", "from the request of the run until the last one is submitted", "s"),
        CALLS,
        Metric("cpu", "the scheduler's CPU time for a task, from its launch to its recorded end", "ms", own_at_most=3),
        Metric("cpu_dispatch", "of it, until it is submitted", "ms"),
    )


def _submits(platform: str) -> Metric:
    return Metric("submits", f"foreach of {WIDTH:,} on {platform}", "submits/s", own_at_least=200)


CLOUD_WORKLOADS = (
    Workload("kubernetes-dispatch", dispatched("kubernetes"), _costs(_submits("Kubernetes, a Job each")), rounds=3, engines=OURS),
    Workload("batch-dispatch", dispatched("batch"), _costs(_submits("AWS Batch, a job each")), rounds=3, engines=OURS),
    Workload(
        "array-dispatch",
        dispatched("arrays"),
        _costs(Metric("tasks", f"foreach of {WIDTH:,} on AWS Batch, as array jobs", "tasks/s", own_at_least=200)),
        rounds=3,
        engines=OURS,
    ),
    Workload(
        "s3",
        moved,
        (
            Metric("put", "a gigabyte to S3; evflow with its client imported, as the process of a step is", "s", at_most=1),
            Metric("get", "the same back", "s", at_most=1),
            Metric("put_all", "the whole process that puts it, with its imports", "s"),
            Metric("get_all", "the whole process that gets it, with its imports", "s"),
            Metric("memory", "peak of its resident memory", "MB", own_at_most=200),
        ),
        rounds=3,
        engines=("awscli", "evflow"),
    ),
)
