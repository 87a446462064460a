"""Three steps that do nothing but say when they begin and end; an event starts it as well."""

import os
import time
from pathlib import Path

from evflow import FlowSpec, step, trigger


def stamp(word):
    with Path(os.environ["BENCH_STAMPS"]).open("a") as stamps:
        print(word, time.monotonic_ns(), file=stamps)


@trigger(event="bench.go")
class ThreeSteps(FlowSpec):
    """Start, middle, end."""

    @step
    def start(self):
        stamp("begin")
        self.next(self.middle)

    @step
    def middle(self):
        self.next(self.end)

    @step
    def end(self):
        stamp("end")


if __name__ == "__main__":
    ThreeSteps()
