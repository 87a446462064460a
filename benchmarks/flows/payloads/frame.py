"""A data frame of 500,000 rows, 25 MB: orders, as somebody might keep them."""

import numpy as np
import pandas as pd

NAMES = ["frame"]
ROWS = 500_000


def make():
    random = np.random.default_rng()
    frame = pd.DataFrame(
        {
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(random.integers(0, 86_400 * 30, ROWS)), unit="s"),
            "customer": random.integers(0, 50_000, ROWS),
            "quantity": random.poisson(3, ROWS),
            "price": random.gamma(2, 20, ROWS).round(2),
            "discount": random.choice([0, 0.05, 0.1, 0.2], ROWS),
            "score": random.random(ROWS),
            "returned": random.random(ROWS) < 0.03,
        }
    )
    return {"frame": frame}


def use(values):
    (frame,) = values
    if len(frame) != ROWS or not 0.45 < frame["score"].mean() < 0.55:
        raise AssertionError("not the frame that was made")
