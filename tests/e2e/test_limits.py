"""Limits that span schedulers, by what bodies write themselves: real processes, one log."""

import json
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.e2e.test_scheduler import WITHIN_S, ended, owned_by, scheduler, told
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

RUNS = 24
FLOW = """
import os, time
from evflow import FlowSpec, Parameter, current, limit, step

class Warehouse(FlowSpec):
    folder = Parameter("folder", default="")

    @limit("warehouse", at_most=2)
    @step
    def start(self):
        with open(os.path.join(self.folder, f"{current.run_id}.{os.getpid()}"), "w", buffering=1) as file:
            turns = 8
            while turns > 0 or self.is_the_first():  # which waits for another one, however late that comes
                file.write(f"{time.monotonic_ns()}\\n")
                time.sleep(0.02)
                turns -= 1
            file.write(f"{time.monotonic_ns()}\\n")
        self.next(self.end)

    def is_the_first(self):
        return sum(each.stat().st_size > 0 for each in os.scandir(self.folder)) < 2

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Warehouse()
"""


def spans(folder: Path) -> list[tuple[int, int]]:
    """From when to when each body was at work, by its own first and last word: a killed one has no more to say."""
    stamps = [[int(line) for line in file.read_text().split()] for file in folder.iterdir()]
    return [(said[0], said[-1]) for said in stamps if said]


def at_once(found: list[tuple[int, int]]) -> int:
    return max(sum(other[0] <= began <= other[1] for other in found) for began, _ in found)


def test_three_schedulers_and_the_death_of_one_never_exceed_a_limit(root: Path) -> None:
    """I11, from outside: two dozen runs over one limit of two; the killed one's attempts are ended before others take their places."""
    site, said = root / "site", root / "said"
    site.mkdir()
    said.mkdir()
    (site / "flow.py").write_text(textwrap.dedent(FLOW))
    done = python("flow.py", "deploy", cwd=site)
    assert done.returncode == 0, done.stderr
    with (
        scheduler(root, "--concurrency", "4") as first,
        scheduler(root, "--concurrency", "4", shards=4) as second,
        scheduler(root, "--concurrency", "4", shards=2) as third,
    ):
        with ThreadPoolExecutor(2) as pool:
            asked = list(pool.map(partial(told, "run", "Warehouse", "--param"), [f"folder={said}"] * RUNS))
        runs = [str(one["run"]) for one in asked]
        wait_until(lambda: len(spans(said)) >= 6, "bodies are at work", WITHIN_S)
        victim = wait_until(
            lambda: next((one for one in (first, second, third) if owned_by(one.pid)), None), "one is seen to live", WITHIN_S
        )
        assert victim is not None
        victim.kill()
        victim.wait()
        assert [ended(run) for run in runs] == ["succeeded"] * RUNS
        found = spans(said)
        assert len(found) >= RUNS
        assert at_once(found) == 2
        # What a process held is given back when that is seen to have ended, which may be behind its run's end.
        wait_until(lambda: not any(one["held"] for one in json.loads(evflow("limits", "--json").stdout)), "nothing is held", WITHIN_S)
    assert [problem for run in runs[::8] for problem in verified(run)["problems"]] == []
