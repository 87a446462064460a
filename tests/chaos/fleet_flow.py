"""The flow that the fleet runs. `CHAOS_BOOK` names a folder: each task has a lock file there, and whoever finds it locked runs beside a twin.

In it each body notes when it begins and when it is done. A number that a fail-over lost may be given to another run: the file's name says which one.
"""

import fcntl
import os
import time
from datetime import UTC, datetime
from typing import Any

from evflow import FlowSpec, Parameter, current, pool, schedule, step

BOOK = os.environ.get("CHAOS_BOOK", "")


def noted(seconds: float) -> None:
    """Take so long; say so if another attempt of the task is under way."""
    trigger = current.get("trigger")
    asked = [tag for tag in current.tags if tag.startswith("request-")]
    whose = asked[0] if asked else f"{trigger['kind']}-{trigger['tick_us']}"
    name = os.path.join(BOOK, f"{current.run_id}.{current.task_id}.{whose}")  # noqa: PTH118 - short, as flows are
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(os.open(f"{name}.twin", os.O_CREAT, 0o600))
    note(lock, "begins")
    time.sleep(seconds)
    note(lock, "is done")
    os.close(lock)


def note(book: int, what: str) -> None:
    """Add a line."""
    os.write(book, f"{datetime.now(UTC):%H:%M:%S.%f} attempt {current.retry_count} {what}, process {os.getpid()}\n".encode())


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
