"""Measure evflow beside Metaflow, Temporal and the command line of AWS: ``python -m benchmarks``, or ``make bench``."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import engines, page, report
from benchmarks.processes import CommandFailed, adopt_orphans, kill_descendants
from benchmarks.suites import SUITES, Suite
from benchmarks.workloads import Lab, Workload

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"


def main() -> int:
    """Run the chosen workloads, print a table for each suite, and write the page's sections of those that were run as a whole."""
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / ".gitignore").write_text("*\n")
    results: dict[str, report.Result] = {}
    adopt_orphans()  # so that servers and attempts of what is killed are ended with it
    try:
        for suite in SUITES:
            workloads = [workload for workload in suite.workloads if not options.only or workload.name in options.only]
            if workloads and options.suite in (None, suite.name):
                run(suite, workloads, options, results)
    except CommandFailed as failed:
        print(f"\n{failed}", file=sys.stderr)
        return 1
    finally:
        kill_descendants()
        if options.json:
            options.json.write_text(json.dumps({name: result.as_json() for name, result in results.items()}, indent=2) + "\n")
    return 0


def run(suite: Suite, workloads: list[Workload], options: argparse.Namespace, results: dict[str, report.Result]) -> None:
    """Run one suite's workloads; what was measured before one fails is kept in ``results``."""
    needed = {name for workload in workloads for name in workload.engines}
    both = {suite.peer: lambda: suite.install(options.folder / suite.peer), "evflow": engines.evflow}
    chosen = [make() for name, make in both.items() if options.engine in (None, name) and name in needed]
    result = results[suite.name] = report.Result.of(chosen, peer=suite.peer, quick=options.quick)
    if options.go_on and suite.name in (before := json.loads(options.go_on.read_text())):
        result.go_on(before[suite.name], lambda name, samples: whole(suite, name, samples, options.rounds))
    lab = Lab(options.folder / "runs", quick=options.quick)
    missing = [workload for workload in workloads if workload.name not in result.samples]
    for engine in chosen if suite.warm_up and missing else ():
        say(f"warming up {engine.name}")
        suite.warm_up(lab, engine)
    for workload in missing:
        measure(workload, chosen, lab, result, options.rounds or workload.rounds)
    print(report.terminal(result, workloads, suite.peer_title))
    if options.engine is None and not options.only:
        PAGE.write_text(page.with_section(PAGE.read_text(), suite.name, report.markdown(result, suite)))
        print(f"\nwrote {PAGE.relative_to(REPOSITORY)}, {suite.title}")


def whole(suite: Suite, name: str, samples: report.Samples, rounds: int | None) -> bool:
    """Whether an earlier run measured a workload that there still is, each figure of it, in all its rounds."""
    workload = next((one for one in suite.workloads if one.name == name), None)
    return workload is not None and all(
        len(samples.get(engine, {}).get(metric.name, [])) >= (rounds or workload.rounds)
        for engine in workload.engines
        for metric in workload.metrics
    )


def measure(workload: Workload, chosen: list[engines.Engine], lab: Lab, result: report.Result, rounds: int) -> None:
    """Run one workload on each engine in turn."""
    measured = [engine for engine in chosen if engine.name in workload.engines]
    for number in range(rounds):
        for engine in measured:
            say(f"{workload.name}: {engine.name}, round {number + 1} of {rounds}")
            result.add(workload, engine, workload.measure(lab, engine))
    say("")


def say(progress: str) -> None:
    """Show on stderr where we are: one line that changes, in a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)
    elif progress:
        print(progress, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    names = [workload.name for suite in SUITES for workload in suite.workloads]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--suite", choices=[suite.name for suite in SUITES], help="this suite alone (default: all)")
    parser.add_argument("--only", action="append", choices=names, help="this workload; may be repeated (default: all)")
    parser.add_argument("--rounds", type=int, help="measure each engine so many times (default: the workload's own, 1 to 15)")
    parser.add_argument("--engine", choices=["evflow", *(suite.peer for suite in SUITES)], help="one engine alone; there will be no ratios")
    parser.add_argument(
        "--quick", action="store_true", help="run Metaflow's wide flows with 100 tasks and scale, and leave the foreach of 100,000 out"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading to a file, by suite")
    parser.add_argument("--go-on", type=Path, metavar="FILE", help="measure what a file of --json has not, and keep what it has")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".bench", help="for the environments and the runs (default: .bench)")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
