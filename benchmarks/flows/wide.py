"""A foreach of tasks that do nothing, and its join."""

from evflow import FlowSpec, Parameter, step


class Wide(FlowSpec):
    """Start, n times nothing, join, end."""

    n = Parameter("n", default=100)

    @step
    def start(self):
        self.items = list(range(self.n))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(list(inputs))
        self.next(self.end)

    @step
    def end(self):
        if self.count != self.n:
            raise AssertionError(f"{self.count} of {self.n} tasks arrived")


if __name__ == "__main__":
    Wide()
