"""One step makes artifacts, the next takes them: how long between, and what stays on disk.

What they are is in ``payload.py``, one of ``payloads/``.
"""

import os
import time
from pathlib import Path

import payload

from evflow import FlowSpec, step


def stamp(word):
    """Note the time; CLOCK_MONOTONIC is one clock for all processes of a machine."""
    with Path(os.environ["BENCH_STAMPS"]).open("a") as stamps:
        print(word, time.monotonic_ns(), file=stamps)


class HandOver(FlowSpec):
    """Make, then take."""

    @step
    def start(self):
        for name, value in payload.make().items():
            setattr(self, name, value)
        stamp("made")
        self.next(self.end)

    @step
    def end(self):
        values = [getattr(self, name) for name in payload.NAMES]
        stamp("taken")
        payload.use(values)
        stamp("used")


if __name__ == "__main__":
    HandOver()
