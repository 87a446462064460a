"""Medians, ratios and the two tables of a suite: one for the terminal, one for ``docs/benchmarks.md``."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engines import SHARED, Engine
from benchmarks.suites import Suite
from benchmarks.workloads import Metric, Workload

Samples = dict[str, dict[str, list[float]]]  # engine → metric → one reading a round


@dataclass(slots=True)
class Result:
    """What one call of the benchmarks measured.

    Attributes:
        samples: By workload, engine and metric, in the order of the rounds.
        peer: The engine that evflow is measured beside.
        quick: Metaflow's wide runs were scaled from 100 tasks, and the widest was left out.
        went_on: When a run that was cut off, or had fewer workloads, was taken up again.
    """

    versions: Mapping[str, str]
    peer: str
    quick: bool
    machine: Mapping[str, str] = field(default_factory=lambda: machine())
    begun: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    samples: dict[str, Samples] = field(default_factory=dict[str, Samples])
    went_on: str = ""

    @classmethod
    def of(cls, engines: Iterable[Engine], *, peer: str, quick: bool) -> "Result":
        """Begin with nothing measured yet."""
        versions = {"Python": platform.python_version()}
        versions |= {engine.name: engine.version for engine in engines} | {name: version(name) for name in SHARED}
        return cls(versions, peer, quick)

    def go_on(self, before: Mapping[str, Any], complete: Callable[[str, Samples], bool]) -> None:
        """Keep what an earlier run measured wholly, of the same versions on the same kind of machine, as its `as_json` has it.

        Raises:
            ValueError: It is of other versions, another machine, or another kind of run.
        """
        mine = {**asdict(self), "machine": {**self.machine, "Load before": before["machine"]["Load before"]}}
        for name in ("versions", "peer", "quick", "machine"):
            if mine[name] != before[name]:
                raise ValueError(f"{name}: {before[name]} then, {mine[name]} now; measure all of it anew")
        self.machine, self.begun, self.went_on = before["machine"], before["begun"], self.begun
        self.samples = {name: samples for name, samples in before["samples"].items() if complete(name, samples)}

    def add(self, workload: Workload, engine: Engine, readings: Mapping[str, float]) -> None:
        """Keep one round of one engine."""
        of_engine = self.samples.setdefault(workload.name, {}).setdefault(engine.name, {})
        for name, reading in readings.items():
            of_engine.setdefault(name, []).append(reading)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a machine."""
        return asdict(self)


def row(metric: Metric, samples: Samples, peer: str = "metaflow") -> Sequence[str]:
    """One line of the table: each engine's median [least to most], their ratio, the goal, whether it is met."""
    theirs, ours = (samples.get(engine, {}).get(metric.name, []) for engine in (peer, "evflow"))
    ratio = median(ours) / median(theirs) if ours and theirs and median(theirs) else None
    return (
        metric.title,
        spread(theirs, metric.unit),
        spread(ours, metric.unit),
        "" if ratio is None else f"{ratio:.3f}",
        goal(metric),
        {None: "", True: "met", False: "missed"}[met(metric, ratio, ours)],
    )


def goal(metric: Metric) -> str:
    """Print what is aimed at."""
    if metric.at_most is not None:
        return f"≤ {metric.at_most:g}"
    if metric.own_at_most is not None:
        return f"≤ {metric.own_at_most:g} {metric.unit}"
    if metric.own_at_least is not None:
        return f"≥ {metric.own_at_least:,.0f} {metric.unit}"
    return ""


def met(metric: Metric, ratio: float | None, ours: Sequence[float]) -> bool | None:
    """Compare with the goal; None where there is none, or nothing to compare."""
    if metric.at_most is not None:
        return None if ratio is None else ratio <= metric.at_most
    if metric.own_at_most is not None and ours:
        return median(ours) <= metric.own_at_most
    if metric.own_at_least is not None and ours:
        return median(ours) >= metric.own_at_least
    return None


def spread(values: Sequence[float], unit: str) -> str:
    """Print the median, and the range where there was more than one round."""
    if not values:
        return "-"
    text = f"{figure(median(values))} {unit}"
    return text if len(values) == 1 else f"{text} [{figure(min(values))} to {figure(max(values))}]"


def figure(value: float) -> str:
    """Print three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def rows(result: Result, workloads: Iterable[Workload]) -> list[Sequence[str]]:
    """All lines that have a reading."""
    measured = (workload for workload in workloads if workload.name in result.samples)
    return [row(metric, result.samples[workload.name], result.peer) for workload in measured for metric in workload.metrics]


def header(peer_title: str) -> Sequence[str]:
    """The table's first line."""
    return ("", peer_title, "evflow", f"evflow ÷ {peer_title}", "goal", "")


def terminal(result: Result, workloads: Iterable[Workload], peer_title: str) -> str:
    """The table as plain text."""
    lines = [header(peer_title), *rows(result, workloads)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(result: Result, suite: Suite) -> str:
    """The suite's section of the page."""
    table = [header(suite.peer_title), ["---"] * 6, *rows(result, suite.workloads)]
    rounds = {name: max(map(len, next(iter(samples.values())).values())) for name, samples in result.samples.items()}
    facts = {**result.machine, "Versions": ", ".join(f"{name} {number}" for name, number in result.versions.items())}
    return SECTION.format(
        title=suite.title,
        peer=suite.peer_title,
        begun=result.begun + (f", and for what it had not on {result.went_on}" if result.went_on else ""),
        table="\n".join("| " + " | ".join(line) + " |" for line in table),
        quick=QUICK if result.quick else "",
        notes=suite.notes.rstrip(),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        rounds=", ".join(f"{name} {number}" for name, number in rounds.items()),
    )


def machine() -> dict[str, str]:
    """What the figures depend on, without the machine's name or paths."""
    cpu = next((line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory_kib = next(int(line.split()[1]) for line in lines_of("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "Processor": f"{cpu}, {os.cpu_count()} CPUs",
        "Memory": f"{memory_kib / 2**20:.0f} GiB",
        "System": f"{platform.system()} {platform.release()}",
        "Load before": f"{os.getloadavg()[0]:.2f}",
    }


def lines_of(path: str) -> list[str]:
    """Read a file of /proc."""
    return Path(path).read_text().splitlines()


QUICK = """
**Quick:** Metaflow's foreach, memory and client figures were taken with 100 tasks; times were scaled to 1,000. A foreach of 100,000 was left out.
"""

SECTION = """\
## {title}

evflow beside {peer}, measured in one run on {begun}.

{table}
{quick}
{notes}
* Rounds: {rounds}.

| | |
|---|---|
{facts}
"""
