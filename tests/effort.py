"""How much the randomised tests do, and from which seed: one knob for the quick local run, CI and the soak.

EVFLOW_TEST_SCALE multiplies counts: 0.1 by default (a local `make test`), 1 in CI, 10 in `make soak`.
EVFLOW_TEST_SEED is the seed of every random choice: 0 by default, a new one each day in CI. A failure is repeated by the
scale and seed that pytest prints in its first lines.
"""

import math
import os
import random

SCALE: float = float(os.environ.get("EVFLOW_TEST_SCALE") or 0.1)
SEED: int = int(os.environ.get("EVFLOW_TEST_SEED") or 0)


def scaled(count: int, at_least: int = 1) -> int:
    """Answer how many repetitions to do, where `count` is what CI should do."""
    return max(at_least, math.ceil(count * SCALE))


def seeds(count: int) -> range:
    """Answer `scaled(count)` seeds, none of which another day's run has used."""
    first = SEED * 1_000_000
    return range(first, first + scaled(count))


def rng(*names: object) -> random.Random:
    """Answer a random generator of its own for each name, the same one in every run with this seed."""
    return random.Random("/".join(str(part) for part in (SEED, *names)))
