"""What is measured, and what is aimed at.

A workload is a function that measures one engine once and gives readings by name; a metric says
what a reading is called, in which unit it is printed, and its goal. Where the goals come from: the
physical floor of a task process (a fork, an append to the log, an fsync), with a margin of two to three.

Adding one: a function, and an entry in ``WORKLOADS``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from benchmarks import engines
from benchmarks.engines import FLOWS, Engine, Place, place

Readings = Mapping[str, float]
REPLAYS = 5


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a workload.

    Attributes:
        name: Of the reading.
        title: As the table prints it.
        unit: As printed behind the figure; times are in the unit that the reading has.
        at_most: The goal for evflow ÷ the other engine; None where the figure only informs.
        own_at_most: The goal for evflow's figure itself, in the unit.
        own_at_least: Likewise, where more is better.
    """

    name: str
    title: str
    unit: str
    at_most: float | None = None
    own_at_most: float | None = None
    own_at_least: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """What to run, how often, and which figures it gives.

    Attributes:
        rounds: How many times each engine is measured, unless ``--rounds`` says otherwise.
        engines: The other engine is left out where the figure is evflow's own.
    """

    name: str
    measure: Callable[["Lab", Engine], Readings]
    metrics: tuple[Metric, ...]
    rounds: int
    engines: tuple[str, ...] = ("metaflow", "evflow")


@dataclass(slots=True)
class Lab:
    """Where runs happen, and what one workload may learn from another.

    Attributes:
        quick: Run Metaflow's wide flows with 100 tasks and scale; a tenth of the time, an estimate.
        wide_runs: The newest wide run of each engine and width, kept for the workloads that read it.
        smallest: Seconds, files and bytes of a two-step run of each engine: what is there anyway.
    """

    folder: Path
    quick: bool = False
    wide_runs: dict[tuple[str, int], Place] = field(default_factory=dict[tuple[str, int], Place])
    smallest: dict[str, tuple[float, int, int]] = field(default_factory=dict[str, tuple[float, int, int]])

    def place(self, engine: Engine, source: str, name: str = "run", files: Mapping[str, str] | None = None) -> Place:
        """Lay out a flow and the files beside it, with an empty data folder."""
        there = place(engine, self.folder / engine.name / name, source)
        for file, text in (files or {}).items():
            (there.folder / file).write_text(text)
        return there

    def anyway(self, engine: Engine) -> tuple[float, int, int]:
        """Measure a run of two steps that do nothing, once."""
        if engine.name not in self.smallest:
            there = self.place(engine, flow("two_steps"), "smallest")
            self.smallest[engine.name] = (there.flow("run").all_s, *there.stored())
        return self.smallest[engine.name]

    def wide(self, engine: Engine, width: int) -> tuple[float, Place]:
        """Run a foreach with 16 workers; its seconds and the place that keeps the run."""
        there = self.place(engine, flow("wide"), f"wide-{width}")
        seconds = there.flow(*wide_run(width)).all_s
        self.wide_runs[engine.name, width] = there
        return seconds, there

    def without_bytecode(self, engine: Engine) -> Engine:
        """Take an engine as it is where no bytecode is written."""
        return engines.without_bytecode(engine, self.folder.parent / f"{engine.name}-without-bytecode")

    def width(self, engine: Engine, width: int) -> int:
        """Say how wide to run for a figure at ``width``: less for Metaflow when it has to be quick."""
        return min(width, 100) if self.quick and engine.name == "metaflow" else width


def flow(name: str) -> str:
    """Read the source of a flow."""
    return (FLOWS / f"{name}.py").read_text()


def scaled(seconds: float, least: float, width: int) -> float:
    """Seconds that 1,000 tasks take, if ``width`` take ``seconds``, of which ``least`` are no task's."""
    return least + (seconds - least) * 1000 / width


def wide_run(width: int) -> Iterable[str]:
    """Build the command line of a wide run."""
    return "run", "--n", str(width), "--max-workers", "16", "--max-num-splits", "10000"


def chain(length: int) -> str:
    """Write a flow of ``length`` steps in a row, each of which stamps its begin and its end."""
    names = ["start", *(f"s{number}" for number in range(1, length - 1)), "end"]
    lines = [
        "import os, time",
        "from evflow import FlowSpec, step",
        "def stamp(word):",
        "    with open(os.environ['BENCH_STAMPS'], 'a') as stamps:",
        "        print(word, time.monotonic_ns(), file=stamps)",
        "class Chain(FlowSpec):",
    ]
    for name, following in pairwise([*names, ""]):
        lines += ["    @step", f"    def {name}(self):", "        stamp('begin')", "        stamp('end')"]
        lines += [f"        self.next(self.{following})"] if following else []
    return "\n".join([*lines, "if __name__ == '__main__':", "    Chain()", ""])


def warm_up(lab: Lab, engine: Engine) -> None:
    """Fill the bytecode and page caches with all that the flows import."""
    hand_over("frame")(lab, engine)
    lab.smallest.pop(engine.name)  # It was measured cold.


def cold_start(lab: Lab, engine: Engine) -> Readings:
    """What a user waits for before anything happens."""
    there = lab.place(engine, flow("two_steps"))
    return {
        "help": there.flow("--help").all_s,
        "show": there.flow("show").all_s,
        "two_steps": there.flow("run").all_s,
    }


def chain_of_20(lab: Lab, engine: Engine) -> Readings:
    """Twenty steps in a row, the whole run."""
    return {"chain": lab.place(engine, chain(20)).flow("run").all_s}


def without_bytecode(lab: Lab, engine: Engine) -> Readings:
    """The same two runs where no bytecode is written: what a container image has that was made with uv."""
    plain = lab.without_bytecode(engine)
    return {
        "two_steps": lab.place(plain, flow("two_steps")).flow("run").all_s,
        "chain": lab.place(plain, chain(20)).flow("run").all_s,
    }


def foreach_without_bytecode(lab: Lab, engine: Engine) -> Readings:
    """The foreach of 1,000 where no bytecode is written."""
    plain, width = lab.without_bytecode(engine), lab.width(engine, 1000)
    least = lab.place(plain, flow("two_steps")).flow("run").all_s
    seconds = lab.place(plain, flow("wide"), "wide-without-bytecode").flow(*wide_run(width)).all_s
    return {"wide": scaled(seconds, least, width)}


def dispatch(lab: Lab, engine: Engine) -> Readings:
    """From the end of one body to the beginning of the next, in a chain of 50."""
    there = lab.place(engine, chain(50))
    there.flow("run")
    gaps_ms = [
        (at - before) * 1000 for (word, before), (following, at) in pairwise(there.stamps()) if (word, following) == ("end", "begin")
    ]
    if len(gaps_ms) != 49:
        raise AssertionError(f"{len(gaps_ms)} of 49 gaps were stamped")
    return {"median": median(gaps_ms), "p90": quantiles(gaps_ms, n=10)[-1]}


def dispatch_without_bytecode(lab: Lab, engine: Engine) -> Readings:
    """The same where no bytecode is written."""
    return dispatch(lab, lab.without_bytecode(engine))


def pool_dispatch(lab: Lab, engine: Engine) -> Readings:
    """From the order of a task to the beginning of its attempt on a warm worker of a pool, in a chain of 50."""
    there = lab.place(engine, chain(50), "pool")
    (there.folder / "pool_dispatch.py").write_text(flow("pool_dispatch"))
    (readings,) = there.client("pool_dispatch.py", times=1)
    if (readings["tasks"], readings["reused_tasks"]) != (50, 50):
        raise AssertionError(f"{readings['tasks']} and {readings['reused_tasks']} of 50 tasks ran")
    return readings


def foreach_1000(lab: Lab, engine: Engine) -> Readings:
    """A foreach of 1,000 tasks that do nothing, with 16 workers."""
    width = lab.width(engine, 1000)
    seconds, _ = lab.wide(engine, width)
    return {"wide": scaled(seconds, lab.anyway(engine)[0], width)}


def memory(lab: Lab, engine: Engine) -> Readings:
    """The largest PSS over all processes of that foreach, in a run of its own."""
    there = lab.place(engine, flow("wide"))
    finished = there.flow(*wide_run(lab.width(engine, 1000)), sample_memory=True)
    return {"pss": finished.peak_pss_bytes / 1e6}


def hand_over(payload: str) -> Callable[[Lab, Engine], Readings]:
    """Artifacts from step to step: from the end of the making body until the next has them."""

    def measure(lab: Lab, engine: Engine) -> Readings:
        _, files, stored = lab.anyway(engine)
        there = lab.place(engine, flow("hand_over"), files={"payload.py": flow(f"payloads/{payload}")})
        there.flow("run")
        at = dict(there.stamps())
        files_now, stored_now = there.stored()
        return {
            "taken": at["taken"] - at["made"],
            "used": at["used"] - at["made"],
            "stored": (stored_now - stored) / 1e6,
            "files": files_now - files,
        }

    return measure


def read_run(lab: Lab, engine: Engine) -> Readings:
    """The whole state of a run of 1,000 tasks, read in a fresh process; imports do not count.

    The embedded server is left running by a first read, as it is beside a live run.
    """
    width = lab.width(engine, 1000)
    there = lab.wide_runs.get((engine.name, width)) or lab.wide(engine, width)[1]
    (there.folder / "read_run.py").write_text(flow("read_run").replace("from evflow import", f"from {engine.name} import"))
    cold, warm = there.client("read_run.py", times=2)
    for read in (cold, warm):
        if read["tasks"] < width + 3 or read["successful"] != read["tasks"]:
            raise AssertionError(f"the client of {engine.name} read {read}")
    return {"cold": cold["seconds"] * 1000 / width, "warm": warm["seconds"] * 1000 / width}


def replay(lab: Lab, engine: Engine) -> Readings:
    """A run of 10,000 tasks from its log, in a fresh process each time: the first one has the embedded server just started."""
    there = lab.wide_runs.get((engine.name, 10_000)) or lab.wide(engine, 10_000)[1]
    (there.folder / "replay_run.py").write_text(flow("replay_run"))
    read = there.client("replay_run.py", times=REPLAYS)
    return {name: median(one[name] for one in read) for name in read[0]}


def per_task(lab: Lab, engine: Engine) -> Readings:
    """Whether a task costs the same in a run of 100 and in one of 10,000."""
    least = lab.anyway(engine)[0]
    costs_ms = {width: (lab.wide(engine, width)[0] - least) / width * 1000 for width in (100, 1000, 10_000)}
    large_ms = {width: (large_items(lab, engine, width) - least) / width * 1000 for width in (1000, 10_000)}
    return {
        **{f"wide_{width}": cost for width, cost in costs_ms.items()},
        "wide_growth": costs_ms[10_000] / costs_ms[100],
        **{f"large_{width}": cost for width, cost in large_ms.items()},
        "large_growth": large_ms[10_000] / large_ms[1000],
    }


def large_items(lab: Lab, engine: Engine, width: int) -> float:
    """Seconds of a foreach over ``width`` items of 10 KB, its join included."""
    return lab.place(engine, flow("large_items"), "large").flow(*wide_run(width)).all_s


WORKLOADS = (
    Workload(
        "cold-start",
        cold_start,
        (
            Metric("help", "`--help`", "s", at_most=0.20),
            Metric("show", "`show`", "s", at_most=0.20),
            Metric("two_steps", "two-step run, server started and stopped", "s", at_most=0.18),
        ),
        rounds=15,
    ),
    Workload("chain", chain_of_20, (Metric("chain", "chain of 20 steps", "s", at_most=0.035),), rounds=3),
    Workload(
        "without-bytecode",
        without_bytecode,
        (
            Metric("two_steps", "two-step run, no bytecode written", "s", at_most=0.18),
            Metric("chain", "chain of 20 steps, no bytecode written", "s", at_most=0.035),
        ),
        rounds=3,
    ),
    Workload(
        "dispatch",
        dispatch,
        (
            Metric("median", "end of a body to the next body, median of a chain of 50", "ms", at_most=0.01),
            Metric("p90", "the same, 90th percentile", "ms"),
        ),
        rounds=3,
    ),
    Workload(
        "dispatch-without-bytecode",
        dispatch_without_bytecode,
        (Metric("median", "end of a body to the next body, no bytecode written", "ms", at_most=0.01),),
        rounds=3,
    ),
    Workload("foreach", foreach_1000, (Metric("wide", "foreach of 1,000, 16 workers", "s", at_most=0.012),), rounds=1),
    Workload(
        "foreach-without-bytecode",
        foreach_without_bytecode,
        (Metric("wide", "foreach of 1,000, no bytecode written", "s", at_most=0.012),),
        rounds=1,
    ),
    Workload("memory", memory, (Metric("pss", "its peak PSS, all processes", "MB", at_most=0.25),), rounds=1),
    Workload(
        "array",
        hand_over("array"),
        (
            Metric("taken", "100 MB array of random doubles, step to step", "s", at_most=0.05),
            Metric("used", "the same, until it is summed", "s"),
            Metric("stored", "its bytes on disk", "MB", at_most=1.06),
        ),
        rounds=3,
    ),
    Workload(
        "frame",
        hand_over("frame"),
        (
            Metric("taken", "data frame of 500,000 rows, step to step", "s"),
            Metric("stored", "its bytes on disk", "MB", at_most=1.0),
        ),
        rounds=3,
    ),
    Workload(
        "small",
        hand_over("small"),
        (
            Metric("taken", "1,000 small artifacts, step to step", "s", at_most=0.02),
            Metric("files", "their files", "files", own_at_most=10),
        ),
        rounds=3,
    ),
    Workload(
        "client",
        read_run,
        (
            Metric("warm", "client reads the whole state of 1,000 tasks", "s", at_most=0.04),
            Metric("cold", "the same, first read: the embedded server starts", "s"),
        ),
        rounds=3,
    ),
    Workload(
        "per-task",
        per_task,
        (
            Metric("wide_100", "cost of a task, foreach of 100", "ms"),
            Metric("wide_1000", "cost of a task, foreach of 1,000", "ms"),
            Metric("wide_10000", "cost of a task, foreach of 10,000", "ms"),
            Metric("wide_growth", "10,000 against 100", "x", own_at_most=1.3),
            Metric("large_1000", "cost of a task, foreach over 1,000 items of 10 KB", "ms"),
            Metric("large_10000", "cost of a task, foreach over 10,000 items of 10 KB", "ms"),
            Metric("large_growth", "10,000 against 1,000", "x", own_at_most=1.3),
        ),
        rounds=3,
        engines=("evflow",),
    ),
    Workload(
        "replay",
        replay,
        (
            Metric("replayed", "replay of 10,000 tasks from the log: read, chain, fold", "/s", own_at_least=150_000),
            Metric("folded", "chain and fold alone", "/s"),
            Metric("verified", "verify: every decision taken again", "/s"),
            Metric("events", "events of that run", "events"),
        ),
        rounds=3,
        engines=("evflow",),
    ),
)
