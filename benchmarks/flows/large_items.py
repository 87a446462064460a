"""A foreach over large items, each read by its task and counted by the join."""

import os

from evflow import FlowSpec, Parameter, step

ITEM_BYTES = 10_000


class LargeItems(FlowSpec):
    """Start with n items of 10 KB, read each, join, end."""

    n = Parameter("n", default=100)

    @step
    def start(self):
        self.items = [os.urandom(ITEM_BYTES) for _ in range(self.n)]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.size = len(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(task.size for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        if self.total != self.n * ITEM_BYTES:
            raise AssertionError(f"{self.total} bytes arrived")


if __name__ == "__main__":
    LargeItems()
