"""100 MB of random doubles: what no compression helps."""

import numpy as np

NAMES = ["array"]


def make():
    return {"array": np.random.default_rng().random(12_500_000)}


def use(values):
    (array,) = values
    if not 6_200_000 < array.sum() < 6_300_000:
        raise AssertionError("not the array that was made")
