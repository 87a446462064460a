"""What is measured of the scheduler that stays, and of pools; Temporal's development server is beside it where it can do the same.

Each workload runs a driver of `benchmarks/drivers/` in a process of its own, with the flow that it needs beside it and an empty data folder.
"""

from collections.abc import Callable, Sequence

from benchmarks.engines import DRIVERS, Engine
from benchmarks.workloads import Lab, Metric, Readings, Workload, chain, flow, pool_dispatch

RUNS = 200
WIDTH = 1000
LIVE_RUNS = 5000
OURS = ("evflow",)


def drive(lab: Lab, engine: Engine, driver: str, *arguments: object, of: str = "three_steps") -> dict[str, float]:
    """Run a driver beside a flow; its readings."""
    files = {file.name: file.read_text() for file in DRIVERS.glob("*.py")}
    there = lab.place(engine, flow(of), driver, files)
    (readings,) = there.client(f"{driver}.py", *map(str, arguments), times=1)
    return readings


def queue(lab: Lab, engine: Engine) -> Readings:
    """Two hundred runs of three steps, asked for at once."""
    if engine.name == "evflow":  # its log is always on the disk: it is compared with both of Temporal's
        own, reused = (drive(lab, engine, "queue_runs", RUNS, where) for where in ("here", "reused"))
        return {**own, "all_file": own["all"], "reused": reused["all"], "reused_file": reused["all"]}
    memory, file = (drive(lab, engine, "temporal_queue", RUNS, kept_in) for kept_in in ("memory", "file"))
    return {**memory, "all_file": file["all"], "reused": memory["all"], "reused_file": file["all"]}


def throughput(lab: Lab, engine: Engine) -> Readings:
    """Tasks a second: with a process for each, on the scheduler's machine and on a pool's worker; and there with processes that are reused."""
    return {where: drive(lab, engine, "throughput", WIDTH, where, of="wide")["rate"] for where in ("here", "pool", "reused")}


def triggers(lab: Lab, engine: Engine) -> Readings:
    """From an event, or a request, to the first line of the first body."""
    return drive(lab, engine, "triggers", 200)


def durability(level: str) -> Callable[[Lab, Engine], Readings]:
    """From the report of a task until the log has the order of the next one as durably as asked, and its process begins."""

    def measure(lab: Lab, engine: Engine) -> Readings:
        there = lab.place(engine, chain(50), level, {"dispatched.py": (DRIVERS / "dispatched.py").read_text()})
        (readings,) = there.client("dispatched.py", level, times=1)
        return readings

    return measure


def widths(lab: Lab, engine: Engine) -> Readings:
    """A foreach of 1,000, of 10,000 and of 100,000 on one scheduler."""
    return drive(lab, engine, "widths", 1000, 10_000, *([] if lab.quick else [100_000]), of="wide")


def takeover(lab: Lab, engine: Engine) -> Readings:
    """Live runs of a scheduler that is killed."""
    return drive(lab, engine, "takeover", LIVE_RUNS, of="waiting")


def _latency(name: str, title: str) -> Sequence[Metric]:
    return (
        Metric(f"{name}_p50", f"{title} to the first line of the first body, median", "ms", own_at_most=8),
        Metric(f"{name}_p99", "the same, 99th percentile", "ms", own_at_most=25),
    )


def _durable(level: str, goal_ms: float) -> Workload:
    return Workload(
        f"dispatch-{level}",
        durability(level),
        (
            Metric(
                "p50", f"report of a task to the process of the next one, its order durable (`{level}`), median", "ms", own_at_most=goal_ms
            ),
            Metric("p90", "the same, 90th percentile", "ms"),
        ),
        rounds=3,
        engines=OURS,
    )


SCHEDULER_WORKLOADS = (
    Workload(
        "queue",
        queue,
        (
            Metric("all", "200 runs of three steps, asked for at once, until all are over", "s", at_most=0.25),
            Metric("all_file", "the same, Temporal's server with a file", "s", at_most=0.25),
            Metric("reused", "the first again; evflow's processes reused, on a pool's worker, as Temporal's worker is", "s", at_most=0.25),
            Metric("reused_file", "the same, Temporal's server with a file", "s", at_most=0.25),
            Metric("asked", "until all have been asked for", "s"),
        ),
        rounds=3,
        engines=("temporal", "evflow"),
    ),
    Workload(
        "throughput",
        throughput,
        (
            Metric("here", "foreach of 1,000, a process for each task", "tasks/s", own_at_least=150),
            Metric("pool", "the same on a pool's worker, a process for each task", "tasks/s"),
            Metric("reused", "the same on a pool's worker, processes reused", "tasks/s", own_at_least=600),
        ),
        rounds=3,
        engines=OURS,
    ),
    Workload(
        "triggers",
        triggers,
        (
            *_latency("event", "event published"),
            *_latency("http", "event sent over HTTP"),
            *_latency("api", "`DeployedFlow.trigger`"),
            Metric("cold", "event published, no process has the flow's code", "ms"),
        ),
        rounds=3,
        engines=OURS,
    ),
    _durable("everysec", 5),
    _durable("fsync", 15),
    Workload(
        "pool-dispatch",
        pool_dispatch,
        (
            Metric("median", "order of a task to its attempt on a pool's worker, median of a chain of 50", "ms", own_at_most=3),
            Metric("p90", "the same, 90th percentile", "ms"),
            Metric("reused_median", "order of a task to its attempt on a pool's worker, processes reused", "ms", own_at_most=3),
            Metric("reused_p90", "the same, 90th percentile", "ms"),
        ),
        rounds=3,
        engines=OURS,
    ),
    Workload(
        "widths",
        widths,
        (
            *(Metric(f"cost_{width}", f"cost of a task, foreach of {width:,}", "ms") for width in (1000, 10_000, 100_000)),
            Metric("cost_growth", "the widest against 1,000", "x", own_at_most=1.3),
            *(
                Metric(f"cpu_{width}", f"the scheduler's CPU time for a task, foreach of {width:,}", "ms")
                for width in (1000, 10_000, 100_000)
            ),
            Metric("cpu_growth", "the widest against 1,000", "x", own_at_most=1.3),
            Metric("pss_100000", "the scheduler's peak PSS, foreach of 100,000", "MB", own_at_most=400),
        ),
        rounds=1,
        engines=OURS,
    ),
    Workload(
        "takeover",
        takeover,
        (
            Metric("continued", "5,000 live runs of a scheduler that is killed, until another one has continued all", "s", own_at_most=10),
            Metric("owned", "until it owns all shards: its start, and the dead one's leases", "s"),
        ),
        rounds=1,
        engines=OURS,
    ),
)
