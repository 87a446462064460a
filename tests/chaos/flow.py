"""The flow of the chaos tests: it writes down what its bodies do, where no crash can take it back.

`CHAOS_BOOK` names the book: one line for each thing that happens, appended in one write each. Beside it each task has a
lock file; whoever finds it locked runs beside a twin, and writes that down.
"""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from evflow import FlowSpec, Parameter, current, step

BOOK = os.environ.get("CHAOS_BOOK", "")


def note(what: str) -> None:
    """Write a line into the book."""
    book = os.open(BOOK, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(book, f"{what} {current.task_id} {current.retry_count} {current.step_name} {os.getpid()}\n".encode())
    os.close(book)


@contextmanager
def noted(seconds: float) -> Generator[None]:
    """Note a body's beginning and end, and whether it is alone; take so long."""
    lock = os.open(f"{BOOK}.{current.task_id}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("twin")
    note("start")
    yield
    time.sleep(seconds)
    note("end")
    os.close(lock)


class ChaosFlow(FlowSpec):
    """Two steps in a row, a foreach with a split in each of its tasks, two joins."""

    width = Parameter("width", default=4)
    pace = Parameter("pace", default=0.04)

    @step
    def start(self) -> None:
        with noted(self.pace):
            self.items = [f"item {number}" for number in range(self.width)]
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        with noted(self.pace):
            self.made = self.input * 3
        self.next(self.left, self.right)

    @step
    def left(self) -> None:
        with noted(self.pace):
            self.side = ("left", [self.made])
        self.next(self.pair)

    @step
    def right(self) -> None:
        with noted(self.pace / 2):
            self.side = ("right", [self.made, *range(1_000)])
        self.next(self.pair)

    @step
    def pair(self, inputs: Any) -> None:
        with noted(self.pace):
            self.sides = [given.side for given in inputs]
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        with noted(self.pace):
            self.everything = [given.sides for given in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        with noted(self.pace):
            self.done = len(self.everything)


if __name__ == "__main__":
    ChaosFlow()
