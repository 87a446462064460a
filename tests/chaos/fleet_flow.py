"""The flow that the fleet runs. `CHAOS_BOOK` names a folder: each task has a lock file there, and whoever finds it locked runs beside a twin."""

import fcntl
import os
import time
from typing import Any

from evflow import FlowSpec, Parameter, current, pool, schedule, step

BOOK = os.environ.get("CHAOS_BOOK", "")


def noted(seconds: float) -> None:
    """Take so long; say so if another attempt of the task is under way."""
    name = os.path.join(BOOK, f"{current.run_id}.{current.task_id}")  # noqa: PTH118 - short, as flows are
    lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(os.open(f"{name}.twin", os.O_CREAT, 0o600))
    time.sleep(seconds)
    os.close(lock)


@schedule(cron="* * * * *", catch_up="all", catch_up_most=50)
class FleetFlow(FlowSpec):
    """A foreach in a pool of workers, and a join on the scheduler's machine."""

    width = Parameter("width", default=3)
    pace = Parameter("pace", default=0.05)

    @step
    def start(self) -> None:
        noted(self.pace)
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @pool("crew")
    @step
    def work(self) -> None:
        noted(self.pace)
        self.made = [self.input] * 100
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        noted(self.pace)
        self.everything = [one.made for one in inputs]
        self.next(self.end)

    @pool("crew")
    @step
    def end(self) -> None:
        noted(self.pace)
        self.done = len(self.everything)


if __name__ == "__main__":
    FleetFlow()
