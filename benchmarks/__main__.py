"""Measure evflow beside Metaflow: ``python -m benchmarks``, or ``make bench``."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import engines, report
from benchmarks.processes import CommandFailed, kill_descendants
from benchmarks.workloads import WORKLOADS, Lab, Workload, warm_up

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"


def main() -> int:
    """Run the chosen workloads, print the table, and write the page when all were run."""
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / ".gitignore").write_text("*\n")

    both = {"metaflow": lambda: engines.metaflow(options.folder / "metaflow"), "evflow": engines.evflow}
    chosen = [make() for name, make in both.items() if options.engine in (None, name)]
    workloads = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    result = report.Result.of(chosen, quick=options.quick)
    lab = Lab(options.folder / "runs", quick=options.quick)
    try:
        for engine in chosen:
            say(f"warming up {engine.name}")
            warm_up(lab, engine)
        for workload in workloads:
            measure(workload, chosen, lab, result, options.rounds or workload.rounds)
    except CommandFailed as failed:
        print(f"\n{failed}", file=sys.stderr)
        return 1
    finally:
        kill_descendants()
        if options.json:
            options.json.write_text(json.dumps(result.as_json(), indent=2) + "\n")

    print(report.terminal(result, workloads))
    if options.engine is None and not options.only:
        PAGE.write_text(report.markdown(result, workloads))
        print(f"\nwrote {PAGE.relative_to(REPOSITORY)}")
    return 0


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
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, help="this workload; may be repeated (default: all)")
    parser.add_argument("--rounds", type=int, help="measure each engine so many times (default: the workload's own, 1 to 5)")
    parser.add_argument("--engine", choices=["metaflow", "evflow"], help="one engine alone; there will be no ratios")
    parser.add_argument(
        "--quick", action="store_true", help="run Metaflow's wide flows with 100 tasks and scale: minutes, not half an hour"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading to a file")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".bench", help="for the environment and the runs (default: .bench)")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
