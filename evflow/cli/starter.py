"""The files that `evflow init` writes: a flow that shows what there is, its test, and a page that says how to go on.

FILE stands for the module's name, FLOW for the class's, WIDE for as many spaces as the module's name has letters. What is written runs, and its test passes: a test does both.
"""

from typing import Final

_FLOW: Final = '''"""Estimate pi, by points that several tasks draw beside each other.

    python FILE.py run                   run it; --points 100000 draws more
    python FILE.py card view report      look at its card
    python -m pytestWIDE                 test it
    evflow lint FILE.py                  what in it will bite
    python FILE.py deploy                deploy it; `evflow scheduler` then runs it every night
"""

import random
from statistics import mean

from evflow import FlowSpec, Parameter, card, current, schedule, step
from evflow.cards import Markdown, Table


@schedule(daily=True)
class FLOW(FlowSpec):
    """Estimate pi."""

    samples = Parameter("samples", default=4, help="How many tasks draw points.")
    points = Parameter("points", default=20_000, help="How many points each of them draws.")

    @step
    def start(self):
        """Say what there is to do. What is set on self is an artifact: it is kept, and later steps have it."""
        self.seeds = list(range(self.samples))
        self.next(self.draw, foreach="seeds")

    @step
    def draw(self):
        """A task for each seed; self.input is its own. They run beside each other."""
        chance = random.Random(self.input)
        inside = sum(chance.random() ** 2 + chance.random() ** 2 <= 1 for _ in range(self.points))
        self.estimate = 4 * inside / self.points
        print(f"seed {self.input}: {self.estimate:.4f}")
        self.next(self.report)

    @card
    @step
    def report(self, inputs):
        """Join them: inputs are the tasks of the foreach, in the order of its items."""
        self.estimates = [one.estimate for one in inputs]
        self.pi = mean(self.estimates)
        current.card.append(Markdown(f"# Pi is about {self.pi:.3f}"))
        current.card.append(Table([[seed, f"{one:.4f}"] for seed, one in enumerate(self.estimates)], headers=["seed", "estimate"]))
        self.next(self.end)

    @step
    def end(self):
        print(f"pi is about {self.pi:.3f}")


if __name__ == "__main__":
    FLOW()
'''

_TEST: Final = '''"""The flow's tests: in this process, in milliseconds, without a server."""

import math

from FILE import FLOW

from evflow.testing import run_flow, run_step


def test_the_flow_comes_near_pi():
    result = run_flow(FLOW, samples=3, points=5_000)
    assert len(result["draw"]) == 3
    assert abs(result.data.pi - math.pi) < 0.1


def test_a_seed_gives_the_same_estimate_again():
    first, again = (run_step(FLOW, "draw", input=7, points=1_000) for _ in range(2))
    assert first.data.estimate == again.data.estimate
    assert first.next == ("report",)


def test_the_report_is_the_mean():
    done = run_step(FLOW, "report", inputs=[{"estimate": 3.0}, {"estimate": 3.5}])
    assert done.data.pi == 3.25
'''

_README: Final = """# FLOW

`python FILE.py run` runs the flow, `python FILE.py card view report` shows its card, `python -m pytest` tests it where pytest is installed, `python FILE.py deploy` deploys it.
"""


def files(module: str, flow: str) -> dict[str, str]:
    """The files by name.

    Args:
        module: The name of the flow's file, without its ending.
        flow: The class's name.
    """
    texts = {f"{module}.py": _FLOW, f"test_{module}.py": _TEST, "README.md": _README}
    return {name: text.replace("FILE", module).replace("FLOW", flow).replace("WIDE", " " * len(module)) for name, text in texts.items()}
