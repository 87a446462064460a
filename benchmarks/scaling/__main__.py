"""One scheduler against eight, in the simulation: ``python -m benchmarks.scaling``.

The real core, shard loop and writer in virtual time; what a scheduler's core and the log's server take is charged as `--probe` measures it on
a real server. The full size, 1,000,000 tasks, takes minutes of CPU for each number of schedulers.
"""

import argparse
import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.scaling.costs import Costs
from benchmarks.scaling.installation import Installation, Load, Outcome


def main() -> int:
    """Play, print a table, and add what came of it to a file."""
    options = parse()
    if options.probe:
        from benchmarks.scaling.probe import probe

        costs, sizes, works = probe(say)
        print(json.dumps({"costs": costs.plain(), "sizes": sizes.plain(), "works": [asdict(work) for work in works]}, indent=2))
        return 0
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # runs live in no cycles: looking for them took a tenth of the time
    print(
        f"{options.flows:,} flows, a run of each, {options.tasks} tasks a run, bodies of {options.body_s:g} s, {options.slots} slots a scheduler"
    )
    print("schedulers   tasks/s   ratio   a core   server   slots   virtual s   host s")
    first: Outcome | None = None
    for schedulers in options.schedulers:
        load = Load(options.flows, options.tasks, schedulers, options.slots, options.body_s, Costs())
        found = Installation(load, lambda done, of, at_s: say(f"{done:,} of {of:,} runs, {at_s:.1f} s")).play()
        first = first or found
        print(
            f"{schedulers:10}  {found.tasks_per_s:8,.0f}  {found.tasks_per_s / first.tasks_per_s:6.2f}  {found.scheduler_busy:6.0%}  "
            f"{found.server_busy:7.0%}  {found.slots_busy:6.0%}  {found.took_s:10,.1f}  {found.host_s:7,.0f}",
            flush=True,
        )
        if options.json:
            with options.json.open("a") as file:
                file.write(
                    json.dumps({**asdict(found), "slots": options.slots, "body_s": options.body_s, "costs": load.costs.plain()}) + "\n"
                )
    return 0


def say(progress: str) -> None:
    """Show on stderr where we are."""
    print(progress, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000, help="flows, with a run of each (default: 1,000)")
    parser.add_argument("--tasks", type=int, default=100, help="tasks of each run (default: 100)")
    parser.add_argument(
        "--schedulers", type=_numbers, default=[1, 2, 4, 8], metavar="N,N", help="how many share the shards (default: 1,2,4,8)"
    )
    parser.add_argument("--slots", type=int, default=256, help="attempts at once on each scheduler's machine (default: 256)")
    parser.add_argument("--body-s", type=float, default=0.1, metavar="SECONDS", help="how long a task's body takes (default: 0.1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add what came of it to this file, a line each")
    parser.add_argument("--probe", action="store_true", help="measure what things cost, on a real server, instead")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= 8 for number in numbers):
        raise argparse.ArgumentTypeError("there are eight shards: one to eight schedulers")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
